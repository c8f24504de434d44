"""Read models beside the plainest way to the same rows: upserts, Python handlers, inline rows, ten
at once, and the delay from a reply to the visible row.

The floor of the upserts reads the events in C and upserts for each. That of the Python handler is a
loop over Python's sqlite3, from rows in memory: no event is read or decoded for it. The inline
floor is what one row costs in a transaction that is there anyway. What inline rows add to commands,
and ten read models at once to each of them alone on the same file, are compared by processor time:
the commands' own time is that of the disk.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import escqrs as es
from measure import Figures, percentile, run_floor, stopwatch
from model import Account, AddItem, Cart, Deposit, Deposited, ItemAdded

EVENTS = 100_000
KEYS = 1_000
SCHEMA = "CREATE TABLE sums (name TEXT PRIMARY KEY, n INTEGER NOT NULL)"
UPSERT = (
    f"INSERT INTO sums VALUES ('k' || (:_position % {KEYS}), 1)"
    " ON CONFLICT (name) DO UPDATE SET n = n + 1"
)
ROWS_A_COMMIT = 4096  # as the engine does, and like its projections not fsynced
INSERT = "INSERT INTO deposits VALUES (:_position, :amount, :note)"


class Sums(es.ReadModel):
    schema = SCHEMA
    added = es.sql(Deposited, UPSERT)


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
    """Rows a second of processor time by a loop in C, in transactions of the size that pipelined
    commits have."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(Inline.schema)
    used = time.process_time()
    for begin in range(0, len(rows), 1000):
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO deposits VALUES (?, ?, ?)", rows[begin : begin + 1000])
        connection.execute("COMMIT")
    used = time.process_time() - used
    connection.close()
    return len(rows) / used


def floor(folder: Path, part: float) -> Figures:
    count = max(20_000, int(EVENTS * part))
    deposits = [(n, 1, "a note of ordinary length") for n in range(1, count + 1)]
    upsert = run_floor("upsert", folder / "u.db", count, ROWS_A_COMMIT, "NORMAL")
    return {
        "upsert": upsert["rate"],
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
    """Seconds of processor time of so many pipelined commands."""
    with es.open(path, Account, *models, durability="normal") as shop:
        accounts = [shop[Account, str(number)] for number in range(1000)]
        used = time.process_time()
        replies = [accounts[n % 1000].submit(Deposit(1)) for n in range(count)]
        for reply in replies:
            reply.result()
        return time.process_time() - used


def _catch_up(path: Path, *models: type[es.ReadModel]) -> tuple[float, float]:
    """Seconds, and seconds of processor time, until new read models are level with a file that is
    there."""
    used = time.process_time()
    with stopwatch() as watch:
        shop = es.open(path, Account, *models)
        shop.flush()
    used = time.process_time() - used
    shop.close()
    return watch.seconds, used


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
    upsert, _ = _catch_up(folder / "a.db", Sums)
    python, _ = _catch_up(folder / "a.db", InPython)
    shutil.copy(folder / "a.db", folder / "d.db")  # closed, so whole
    single = sum(_catch_up(folder / "a.db", one)[1] for one in TEN)
    _, ten = _catch_up(folder / "d.db", *TEN)
    delays = _delays(folder / "c.db", max(1000, int(4000 * part)))
    return {
        "upsert": count / upsert,
        "python": count / python,
        "inline": count / max(1e-9, inline - plain),
        "ten": ten / single,
        "visible": percentile(delays, 0.99) * 1e6,
    }


def peer(folder: Path, part: float) -> Figures:
    from workloads import project

    return {"python": project.peer(folder, part)["rate"]}  # its projections are all in Python
