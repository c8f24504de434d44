"""Read models beside the plainest way to the same rows: upserts, Python handlers, inline rows, ten
at once, and the delay from a reply to the visible row.

The floors are the statements alone in Python's sqlite3, from rows in memory: no event is read or
decoded for them. The inline floor is what one row costs in a transaction that is there anyway.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import escqrs as es
from measure import Figures, percentile, stopwatch
from model import Account, AddItem, Cart, Deposit, Deposited, ItemAdded

EVENTS = 100_000
KEYS = 1_000
SCHEMA = "CREATE TABLE sums (name TEXT PRIMARY KEY, n INTEGER NOT NULL)"
UPSERT = "INSERT INTO sums VALUES (:name, 1) ON CONFLICT (name) DO UPDATE SET n = n + 1"
INSERT = "INSERT INTO deposits VALUES (:_position, :amount, :note)"


class Sums(es.ReadModel):
    schema = SCHEMA
    added = es.sql(Deposited, UPSERT.replace(":name", f"'k' || (:_position % {KEYS})"))


class InPython(es.ReadModel):
    schema = "CREATE TABLE deposits (at INTEGER PRIMARY KEY, amount INTEGER, note TEXT)"

    @es.on(Deposited)
    def deposited(self, db: es.Rows, event: Deposited, recorded: es.Recorded) -> None:
        db.execute(
            "INSERT INTO deposits VALUES (?, ?, ?)", (recorded.position, event.amount, event.note)
        )


class Inline(es.ReadModel):
    schema = "CREATE TABLE deposits (at INTEGER PRIMARY KEY, amount INTEGER, note TEXT)"
    inline = True
    deposited = es.sql(Deposited, INSERT)


class Visible(es.ReadModel):
    schema = "CREATE TABLE items (name TEXT PRIMARY KEY)"
    added = es.sql(ItemAdded, "INSERT INTO items VALUES (:name)")


def _one_of_ten(number: int) -> type[es.ReadModel]:
    table = f"t{number}"
    return type(
        f"Ten{number}",
        (es.ReadModel,),
        {
            "schema": f"CREATE TABLE {table} (at INTEGER PRIMARY KEY, amount INTEGER, note TEXT)",
            "deposited": es.sql(Deposited, INSERT.replace("deposits", table)),
        },
    )


TEN = [_one_of_ten(number) for number in range(10)]


def _plain(path: Path, schema: str, sql: str, rows: list[tuple[Any, ...]], size: int) -> float:
    """Rows a second of the same statements with a commit for so many rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(schema)
    with stopwatch() as watch:
        for begin in range(0, len(rows), size):
            connection.execute("BEGIN")
            for row in rows[begin : begin + size]:
                connection.execute(sql, row)
            connection.execute("COMMIT")
    connection.close()
    return len(rows) / watch.seconds


def _raw(path: Path, rows: list[tuple[Any, ...]]) -> float:
    """Rows a second by a loop in C, in transactions of the size that pipelined commits have."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(Inline.schema)
    with stopwatch() as watch:
        for begin in range(0, len(rows), 1000):
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO deposits VALUES (?, ?, ?)", rows[begin : begin + 1000]
            )
            connection.execute("COMMIT")
    connection.close()
    return len(rows) / watch.seconds


def floor(folder: Path, part: float) -> Figures:
    count = max(20_000, int(EVENTS * part))
    deposits = [(n, 1, "a note of ordinary length") for n in range(1, count + 1)]
    keys = [(f"k{n % KEYS}",) for n in range(count)]
    return {
        "upsert": _plain(folder / "u.db", SCHEMA, UPSERT.replace(":name", "?"), keys, 4096),
        "python": _plain(
            folder / "p.db",
            InPython.schema,
            "INSERT INTO deposits VALUES (?, ?, ?)",
            deposits,
            1000,
        ),
        "inline": _raw(folder / "i.db", deposits),
    }


def _append(path: Path, count: int, *models: type[es.ReadModel]) -> float:
    """Seconds of so many pipelined commands."""
    with es.open(path, Account, *models, durability="normal") as shop:
        accounts = [shop[Account, str(number)] for number in range(1000)]
        with stopwatch() as watch:
            replies = [accounts[n % 1000].submit(Deposit(1)) for n in range(count)]
            for reply in replies:
                reply.result()
    return watch.seconds


def _catch_up(path: Path, *models: type[es.ReadModel]) -> float:
    """Seconds until new read models are level with a file that is there."""
    with stopwatch() as watch:
        shop = es.open(path, Account, *models)
        shop.flush()
    shop.close()
    return watch.seconds


def _delays(path: Path, count: int) -> list[float]:
    """Seconds from a reply to its row, under 1,000 commands a second."""
    delays: list[float] = []
    with es.open(path, Cart, Visible) as shop:
        carts = [shop[Cart, str(number)] for number in range(100)]
        begun = time.perf_counter()
        done: list[tuple[float, int]] = []
        replied = threading.Semaphore(0)

        def wait() -> None:
            for _ in range(count):
                replied.acquire()
                at, position = done[len(delays)]
                shop[Visible].wait(position)
                delays.append(time.perf_counter() - at)

        thread = threading.Thread(target=wait)
        thread.start()
        for number in range(count):
            time.sleep(max(0.0, begun + number / 1000 - time.perf_counter()))
            reply = carts[number % 100].submit(AddItem(f"item-{number}"))
            reply.result()
            done.append((time.perf_counter(), reply.position or 0))
            replied.release()
        thread.join()
    return delays


def ours(folder: Path, part: float) -> Figures:
    count = max(20_000, int(EVENTS * part))
    plain = _append(folder / "a.db", count)
    inline = _append(folder / "b.db", count, Inline)
    upsert = _catch_up(folder / "a.db", Sums)
    python = _catch_up(folder / "a.db", InPython)
    single = sum(_catch_up(folder / "a.db", one) for one in TEN)
    ten = _catch_up(folder / "b.db", *TEN)
    delays = _delays(folder / "c.db", max(1000, int(4000 * part)))
    return {
        "upsert": count / upsert,
        "python": count / python,
        "inline": count / max(1e-9, inline - plain),
        "ten": ten / single,
        "visible": percentile(delays, 0.99) * 1e6,
    }
