"""Read models in databases of one's own choice."""

from __future__ import annotations

import dbm.dumb
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS, finish, start


class Put(es.Command[None]):
    key: str


class Was(es.Event):
    key: str


class Other(es.Event):
    pass


class Box(es.Aggregate):
    @es.handles
    def put(self, cmd: Put) -> None:
        self.emit(Was(cmd.key))
        self.emit(Other())

    @es.applies
    def was(self, event: Was | Other) -> None: ...


opened: list[sqlite3.Connection] = []


def connect(path: Path | str) -> sqlite3.Connection:
    opened.append(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
    return opened[-1]


@pytest.fixture(autouse=True)
def close_all() -> Iterator[None]:
    """Python 3.13 warns of connections that are dropped unclosed."""
    yield
    while opened:
        opened.pop().close()


class Reports(es.ForeignReadModel):
    """In another SQLite file, by Python's own module: exactly once."""

    batch_events = 7
    refused: str | None = None

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.db: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        if self.db is None:
            self.db = connect(self.path)
            self.db.executescript(
                """CREATE TABLE IF NOT EXISTS checkpoint (position INTEGER);
                CREATE TABLE IF NOT EXISTS rows (key TEXT, position INTEGER);
                INSERT INTO checkpoint SELECT 0 WHERE NOT EXISTS (SELECT * FROM checkpoint)"""
            )
        return self.db

    def checkpoint(self) -> int:
        return int(self._open().execute("SELECT position FROM checkpoint").fetchone()[0])

    def begin(self) -> sqlite3.Connection:
        db = self._open()
        db.execute("BEGIN IMMEDIATE")
        return db

    def commit(self, db: sqlite3.Connection, before: int, position: int) -> None:
        moved = db.execute(
            "UPDATE checkpoint SET position = ? WHERE position = ?", (position, before)
        )
        if moved.rowcount != 1:
            raise RuntimeError(f"the checkpoint is no longer at {before}")
        db.execute("COMMIT")

    def rollback(self, db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")

    @es.on(Was)
    def put(self, db: sqlite3.Connection, event: Was, recorded: es.Recorded) -> None:
        db.execute("INSERT INTO rows VALUES (?, ?)", (event.key, recorded.position))
        if event.key == self.refused:
            raise LookupError("on purpose")


def rows(path: Path) -> list[tuple[Any, ...]]:
    connection = connect(path)
    found = connection.execute("SELECT key, position FROM rows ORDER BY rowid").fetchall()
    connection.close()
    return found


def put(shop: es.System, *keys: str) -> None:
    for key in keys:
        shop[Box, "1"].ask(Put(key))


def test_follows_and_goes_on(tmp_path: Path) -> None:
    path, other = tmp_path / "a.db", tmp_path / "reports.db"
    with es.open(path, Box) as shop:
        put(shop, *map(str, range(20)))
        with Reports(other).follow(shop) as reports:
            reports.wait(timeout=SECONDS)
            assert [key for key, _ in rows(other)] == [str(n) for n in range(20)]
            put(shop, "a", "b")
            reports.wait(timeout=SECONDS)
            status = reports.status
            assert (status.state, status.position, status.lag) == ("live", 44, 0)
        put(shop, "c")
        with Reports(other).follow(shop) as reports:
            reports.wait(timeout=SECONDS)
        assert rows(other) == [
            (one.event.key, one.position) for one in shop.events() if one.type == "Was"
        ]


def test_a_handler_that_fails_stops_it(tmp_path: Path) -> None:
    other = tmp_path / "reports.db"
    model = Reports(other)
    model.refused = "x"
    with es.open(tmp_path / "a.db", Box) as shop:
        put(shop, "a", "b", "x", "c")
        with model.follow(shop) as reports:
            with pytest.raises(es.ReadModelStopped, match="position 5") as caught:
                reports.wait(timeout=SECONDS)
            assert isinstance(caught.value.__cause__, LookupError)
            assert [key for key, _ in rows(other)] == ["a", "b"]
            status = reports.status
            assert (status.state, status.position, status.failed_position) == ("stopped", 4, 5)
            assert "on purpose" in (status.traceback or "")
            model.refused = None
            reports.retry()
            reports.wait(timeout=SECONDS)
            assert [key for key, _ in rows(other)] == ["a", "b", "x", "c"]
            with pytest.raises(ValueError, match="not stopped"):
                reports.retry()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, RecursionError])
def test_whatever_a_handler_raises_stops_it(tmp_path: Path, error: type[BaseException]) -> None:
    class Failing(Reports):
        @es.on(Other)
        def other(self, db: sqlite3.Connection, event: Other) -> None:
            raise error

    with es.open(tmp_path / "a.db", Box) as shop:
        put(shop, "a", "b")
        with Failing(tmp_path / "reports.db").follow(shop) as reports:
            with pytest.raises(es.ReadModelStopped, match="position 2") as caught:
                reports.wait(timeout=SECONDS)
            assert isinstance(caught.value.__cause__, error)
            assert rows(tmp_path / "reports.db") == [("a", 1)]


class Old(es.Event, name="Many", version=1):
    keys: list[str]


def test_the_events_of_its_handlers_need_not_be_known(tmp_path: Path) -> None:
    with es.open(tmp_path / "a.db", Box) as shop:
        put(shop, "a")

    class Nothing(es.Aggregate):
        pass

    with es.open(tmp_path / "a.db", Nothing) as shop:
        with Reports(tmp_path / "reports.db").follow(shop) as reports:
            reports.wait(timeout=SECONDS)
        assert rows(tmp_path / "reports.db") == [("a", 1)]


@pytest.mark.parametrize("events", [1, 2, 7])
def test_events_that_upcasters_split_and_drop(tmp_path: Path, events: int) -> None:
    history = [["a", "b"], [], ["c"], ["d", "e", "f"], [], []]
    with es.Store(tmp_path / "a.db", Old) as store:
        store.append("many", [Old(keys) for keys in history])

    class Many(es.Event, version=2):
        key: str

    @es.upcast("Many", version=1)
    def apart(data: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"key": key} for key in data.get("keys", [])]

    class Parts(Reports):
        batch_events = events
        calls: list[str]

        @es.on(Many)
        def many(self, db: sqlite3.Connection, event: Many, recorded: es.Recorded) -> None:
            self.calls.append(event.key)
            db.execute("INSERT INTO rows VALUES (?, ?)", (event.key, recorded.position))
            if event.key == self.refused:
                raise LookupError("on purpose")

    class Nothing(es.Aggregate):
        pass

    model = Parts(tmp_path / "reports.db")
    model.calls = []
    model.refused = "e"
    with es.open(tmp_path / "a.db", Nothing) as shop:
        with model.follow(shop) as reports:
            with pytest.raises(es.ReadModelStopped, match="position 4"):
                reports.wait(timeout=SECONDS)
            assert rows(tmp_path / "reports.db") == [("a", 1), ("b", 1), ("c", 3)]
            assert reports.status.position == 3
            model.refused = None
            reports.retry()
            reports.wait(timeout=SECONDS)  # also for what is dropped at the end
            assert reports.status.state == "live"
    found = [("a", 1), ("b", 1), ("c", 3), ("d", 4), ("e", 4), ("f", 4)]
    assert rows(tmp_path / "reports.db") == found
    assert model.checkpoint() == 6


def test_a_database_of_another_store(tmp_path: Path) -> None:
    other = tmp_path / "reports.db"
    with es.open(tmp_path / "a.db", Box) as shop:
        put(shop, "a", "b")
        with Reports(other).follow(shop) as reports:
            reports.wait(timeout=SECONDS)
    with es.open(tmp_path / "b.db", Box) as shop:
        put(shop, "a")
        with Reports(other).follow(shop) as reports:
            with pytest.raises(es.ReadModelStopped, match="another store"):
                reports.wait(5, SECONDS)


def test_a_checkpoint_that_somebody_moved(tmp_path: Path) -> None:
    other = tmp_path / "reports.db"
    with es.open(tmp_path / "a.db", Box) as shop:
        put(shop, "a")
        with Reports(other).follow(shop) as reports:
            reports.wait(timeout=SECONDS)
            thief = connect(other)
            thief.execute("UPDATE checkpoint SET position = 1")
            thief.close()
            put(shop, "b")
            with pytest.raises(es.ReadModelStopped, match="no longer at 2"):
                reports.wait(timeout=SECONDS)


def test_without_transactions_the_position_is_the_key(tmp_path: Path) -> None:
    class Pairs(es.ForeignReadModel):
        def __init__(self) -> None:
            self.file = dbm.dumb.open(str(tmp_path / "pairs"), "c")
            self.lost = True

        def checkpoint(self) -> int:
            return int(self.file.get(b"checkpoint", b"0"))

        def begin(self) -> Any:
            return self.file

        def commit(self, db: Any, before: int, position: int) -> None:
            if self.lost:  # the rows are there, the checkpoint is not
                self.lost = False
                raise OSError("lost on the way")
            db[b"checkpoint"] = str(position).encode()

        @es.on(es.Event)
        def every(self, db: Any, recorded: es.Recorded) -> None:
            db[f"{recorded.position:020}".encode()] = recorded.type.encode()

    with es.open(":memory:", Box) as shop:
        put(shop, "a", "b")
        model = Pairs()
        with model.follow(shop) as pairs:
            with pytest.raises(es.ReadModelStopped, match="lost on the way"):
                pairs.wait(timeout=SECONDS)
            pairs.retry()
            pairs.wait(timeout=SECONDS)
            assert sorted(model.file.items()) == [
                (b"00000000000000000001", b"Was"),
                (b"00000000000000000002", b"Other"),
                (b"00000000000000000003", b"Was"),
                (b"00000000000000000004", b"Other"),
                (b"checkpoint", b"4"),
            ]
        model.file.close()


def test_close_wakes_who_waits(tmp_path: Path) -> None:
    shop = es.open(":memory:", Box)
    reports = Reports(tmp_path / "r.db").follow(shop)
    reports.wait(timeout=SECONDS)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            reports.wait(99)
        except es.Closed as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    shop.close()
    thread.join(SECONDS)
    assert len(ended) == 1
    reports.close()
    reports.close()
    with pytest.raises(es.Timeout):
        with es.open(":memory:", Box) as again:
            Reports(tmp_path / "s.db").follow(again).wait(1, 0.01)


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match=r"es\.sql"):
        type("Bad", (es.ForeignReadModel,), {"put": es.sql(Was, "INSERT INTO x VALUES (1)")})


KILLED = """
import sys
sys.path.insert(0, sys.argv[3])
from test_readmodel_foreign import Box, Put, Reports

shop = es.open(sys.argv[1], Box)
reports = Reports(sys.argv[2]).follow(shop)
n = 0
while True:
    shop[Box, str(n % 5)].ask(Put(str(n)))
    n += 1
    if n == 50:
        print("going", flush=True)
"""


def test_exactly_once_through_kills(tmp_path: Path) -> None:
    path, other = tmp_path / "a.db", tmp_path / "reports.db"
    for _ in range(3):
        child = start(KILLED, path, other, Path(__file__).parent)
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "going"
        child.kill()
        finish(child, -9)
    with es.open(path, Box) as shop:
        with Reports(other).follow(shop) as reports:
            reports.wait(timeout=SECONDS)
        assert rows(other) == [
            (one.event.key, one.position) for one in shop.events() if one.type == "Was"
        ]
