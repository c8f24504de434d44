"""The query side: a table of users, filled by an actor, read by pages.

The actor follows the store from the position that stands in the same file as its rows and commits
with them: a row is there once, whatever happens between. What it is told is only that there is
something new, and what comes within `FOLLOW_SECONDS` is one transaction; who reads and finds the
table behind the store asks it to follow at once. If SQLite refuses, the actor fails, who waits for
it is told, its supervisor restarts it after a while, and it goes on where the file stands. The file
may be deleted while the server does not run: it is made anew from the store.

Rows leave SQLite as the JSON that clients get, so that a page of many costs no objects of Python.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

import escqrs as es

from .messages import Stored, Update, UserRegistered

SCHEMA = (
    """CREATE TABLE users (
        position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
        email TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL
    )""",
    "CREATE TABLE progress (position INTEGER NOT NULL, users INTEGER NOT NULL)",
    "INSERT INTO progress VALUES (0, 0)",
)
RESOURCE = """json_object(
    '_links', json_object('self', json_object('href', '/users/' || id)),
    'id', id, 'name', name, 'email', email, 'created_at', created_at
)"""
FOLLOW_SECONDS = 0.02


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)


def connect_writer(path: Path) -> sqlite3.Connection:
    db = connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")  # what is lost is read from the store again
    with db:
        db.execute("BEGIN IMMEDIATE")
        tables = db.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table'").fetchone()
        if tables == (0,):  # a table that is missed later is an error, not to be begun empty
            for statement in SCHEMA:
                db.execute(statement)
    return db


class UsersUpdater:
    """Writes the rows: soon after `Stored`, and before it answers `Update`."""

    def __init__(self, store: es.Store, path: Path) -> None:
        self.store = store
        self.path = path
        self.db: sqlite3.Connection | None = None
        self.position = 0
        self.will_follow = False

    def receive(self, ctx: es.Context, message: object) -> None:
        match message:
            case es.Started():
                ctx.tell(ctx.self, Update())  # a message that may fail, while others wait behind it
            case Stored() if not self.will_follow:
                self.will_follow = True
                ctx.schedule_once(FOLLOW_SECONDS, Update())
            case Update():
                self.will_follow = False
                if self.db is None:
                    self.db = connect_writer(self.path)
                    (self.position,) = self.db.execute("SELECT position FROM progress").fetchone()
                self.follow(self.db)
                if ctx.sender is not None:
                    ctx.respond(self.position)
            case es.Stopped() | es.Restarting():
                if self.db is not None:
                    self.db.close()
            case _:
                pass

    def follow(self, db: sqlite3.Connection) -> None:
        if self.store.head <= self.position:
            return
        position = self.position
        rows: list[tuple[int, str, str, str, str]] = []
        for recorded in self.store.events(after=position):
            position = recorded.position
            user = recorded.event
            if isinstance(user, UserRegistered):
                created_at = recorded.time.isoformat(timespec="milliseconds")
                rows.append((position, user.user_id, user.username, user.email, created_at))
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO users VALUES (?, ?, ?, ?, ?)", rows)
            db.execute("UPDATE progress SET position = ?, users = users + ?", (position, len(rows)))
        self.position = position


class User(NamedTuple):
    position: int
    text: str  # JSON


class Page(NamedTuple):
    """Some users, newest first; whether there are newer and older ones; how many in all."""

    users: list[User]
    newer: bool
    older: bool
    total: int


class Users:
    """Reads the table, which is there already. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self.db = connect(path)
        self.db.execute("PRAGMA query_only = 1")

    def close(self) -> None:
        self.db.close()

    @property
    def position(self) -> int:
        """Up to which the store's events are in the table."""
        (position,) = self.db.execute("SELECT position FROM progress").fetchone()
        return int(position)

    def user(self, user_id: str) -> User | None:
        found = self._rows("id = ?", user_id, 1)
        return found[0] if found else None

    def page(self, limit: int, *, before: int | None = None, after: int | None = None) -> Page:
        """Return the `limit` users next to a position (of a user), or the newest ones."""
        self.db.execute("BEGIN")
        try:
            return self._page(limit, before, after)
        finally:
            self.db.execute("ROLLBACK")

    def _page(self, limit: int, before: int | None, after: int | None) -> Page:
        (total,) = self.db.execute("SELECT users FROM progress").fetchone()
        if after is not None:
            found = self._rows("position > ? ORDER BY position", after, limit + 1)
            more = len(found) > limit
            older = bool(self._rows("position <= ?", after, 1))
            return Page(found[:limit][::-1], more, older, total)
        if before is not None:
            found = self._rows("position < ? ORDER BY position DESC", before, limit + 1)
            newer = bool(self._rows("position >= ?", before, 1))
            return Page(found[:limit], newer, len(found) > limit, total)
        found = self._rows("position > ? ORDER BY position DESC", 0, limit + 1)
        return Page(found[:limit], False, len(found) > limit, total)

    def _rows(self, where: str, value: int | str, limit: int) -> list[User]:
        rows = self.db.execute(
            f"SELECT position, {RESOURCE} FROM users WHERE {where} LIMIT ?", (value, limit)
        )
        return list(map(User._make, rows))
