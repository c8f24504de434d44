"""Read models in files of their own, and in memory."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS, finish, start, until


class Put(es.Command[None]):
    key: str


class Was(es.Event):
    key: str


class Box(es.Aggregate):
    @es.handles
    def put(self, cmd: Put) -> None:
        self.emit(Was(cmd.key))

    @es.applies
    def was(self, event: Was) -> None: ...


class Home(es.ReadModel):
    schema = "CREATE TABLE home (key TEXT, at INTEGER)"
    put = es.sql(Was, "INSERT INTO home VALUES (:key, :_position)")

    @es.query
    def count(self, db: es.Rows) -> int:
        return int(db.execute("SELECT count(*) FROM home").fetchall()[0][0])


class Reports(es.ReadModel):
    schema = "CREATE TABLE reports (key TEXT UNIQUE, at INTEGER)"
    file = "reports.db"
    put = es.sql(Was, "INSERT INTO reports VALUES (:key, :_position)")
    home: Home | None = None

    @es.query
    def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute("SELECT key, at FROM reports ORDER BY at").fetchall()

    @es.query
    def both(self, db: es.Rows) -> tuple[int, int]:
        assert self.home is not None
        count = int(db.execute("SELECT count(*) FROM reports").fetchall()[0][0])
        return count, self.home.count()

    @es.query
    def run(self, db: es.Rows, sql: str) -> list[tuple[Any, ...]]:
        return db.execute(sql).fetchall()


class Also(es.ReadModel):
    schema = "CREATE TABLE also (key TEXT)"
    file = "reports.db"

    @es.on(Was)
    def put(self, db: es.Rows, event: Was) -> None:
        db.execute("INSERT INTO also VALUES (?)", (event.key,))

    @es.query
    def count(self, db: es.Rows) -> int:
        return int(db.execute("SELECT count(*) FROM also").fetchall()[0][0])


def put(shop: es.System, *keys: object) -> None:
    for key in keys:
        shop[Box, "1"].ask(Put(str(key)))


def stored(shop: es.System) -> list[tuple[str, int]]:
    return [(one.event.key, one.position) for one in shop.events()]


def look(path: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute(sql).fetchall()
    connection.close()
    return found


def test_tables_lie_in_their_file(tmp_path: Path) -> None:
    with es.open(tmp_path / "a.db", Box, Home, Reports, Also) as shop:
        put(shop, *range(50))
        shop.flush(SECONDS)
        assert shop[Reports].all() == stored(shop)
        assert shop[Also].count() == shop[Home].count() == 50
        shop[Reports].home = shop[Home]
        assert shop[Reports].both() == (50, 50)
        assert shop[Reports].status.state == "live"
        with pytest.raises(es.ReadOnly):
            shop[Reports].run("DELETE FROM reports")
        with pytest.raises(es.Error, match="no such table"):
            shop[Reports].run("SELECT * FROM home")
    assert look(tmp_path / "reports.db", "SELECT name, position FROM escqrs_readmodel") == [
        ("Also", 50), ("Reports", 50),
    ]  # fmt: skip
    assert look(tmp_path / "a.db", "SELECT name FROM escqrs_readmodel") == [("Home",)]
    with es.open(tmp_path / "a.db", Box, Home, Reports, Also) as shop:
        put(shop, "more")
        shop.flush(SECONDS)
        assert shop[Reports].all() == stored(shop)
        assert shop[Also].count() == 51
    with es.open(tmp_path / "a.db", Box, Reports, readonly=True) as shop:
        assert len(shop[Reports].all()) == 51


def test_in_memory() -> None:
    class Memory(Home):
        file = ":memory:"

    with es.open(":memory:", Box, Memory) as shop:
        put(shop, 1, 2, 3)
        shop.flush(SECONDS)
        assert shop[Memory].count() == 3
        with es.open(":memory:", Box, Memory) as other:
            other.flush(SECONDS)
            assert other[Memory].count() == 0
        shop[Memory].rebuild()
        shop.flush(SECONDS)
        assert shop[Memory].count() == 3


@pytest.mark.parametrize("rounds", [1, 2])
def test_in_memory_beside_a_file(tmp_path: Path, rounds: int) -> None:
    class Memory(Home):
        file = ":memory:"

    for _ in range(rounds - 1):
        with es.open(tmp_path / "a.db", Box, Memory) as shop:
            put(shop, *range(5))
    with es.open(tmp_path / "a.db", Box, Memory) as shop:
        put(shop, *range(5))
        shop.flush(SECONDS)
        assert shop[Memory].count() == rounds * 5
        ends = threading.Event()
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                while not ends.is_set():
                    shop[Memory].count()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        shop[Memory].rebuild()
        shop.flush(SECONDS)
        ends.set()
        for thread in threads:
            thread.join()
        assert not failures


def test_a_deleted_file_is_built_anew_and_an_older_one_catches_up(tmp_path: Path) -> None:
    path, reports = tmp_path / "a.db", tmp_path / "reports.db"
    with es.open(path, Box, Reports) as shop:
        put(shop, 1, 2)
        shop.flush(SECONDS)
    shutil.copy(reports, tmp_path / "older.db")
    with es.open(path, Box, Reports) as shop:
        put(shop, 3, 4)
        shop.flush(SECONDS)
    shutil.copy(tmp_path / "older.db", reports)
    with es.open(path, Box, Reports) as shop:
        shop.flush(SECONDS)
        assert shop[Reports].all() == stored(shop)
    reports.unlink()
    with es.open(path, Box, Reports) as shop:
        shop.flush(SECONDS)
        assert shop[Reports].all() == stored(shop)


def test_files_that_are_refused(tmp_path: Path) -> None:
    path, reports = tmp_path / "a.db", tmp_path / "reports.db"
    with es.open(path, Box, Reports) as shop:
        put(shop, 1)
        shop.flush(SECONDS)
    shutil.copy(path, tmp_path / "older.db")
    with es.open(path, Box, Reports) as shop:
        put(shop, 2)
        shop.flush(SECONDS)
    with pytest.raises(es.Corrupt, match="has seen event 2, but the store ends at 1"):
        es.open(tmp_path / "older.db", Box, Reports)
    with pytest.raises(es.NotAStore, match="belongs to another store"):
        es.open(tmp_path / "new.db", Box, Reports)
    reports.unlink()
    other = sqlite3.connect(reports)
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(es.NotAStore, match="no read model made"):
        es.open(path, Box, Reports)
    assert look(reports, "SELECT name FROM sqlite_schema") == [("mine",)]
    reports.write_bytes(b"no database at all, by any means" * 100)
    with pytest.raises(es.Error):
        es.open(path, Box, Reports)
    reports.unlink()
    reports.mkdir()
    with pytest.raises(es.Error, match=r"cannot open reports\.db"):
        es.open(path, Box, Reports)


def test_failures_rebuilds_and_comparisons(tmp_path: Path) -> None:
    parking = type("Reports", (Reports,), {"on_error": "park", "__qualname__": "parking.Reports"})
    path, reports = tmp_path / "a.db", tmp_path / "reports.db"
    with es.open(path, Box, parking) as shop:
        put(shop, "a", "a", "b")
        shop.flush(SECONDS)
        assert [(one.position, one.state) for one in shop[parking].parked()] == [
            (2, "parked"), (3, "held"),
        ]  # fmt: skip
        assert len(look(reports, "SELECT * FROM escqrs_dead_letter")) == 2
        shop[parking].skip(2, "a twin")
        assert shop[parking].all() == [("a", 1), ("b", 3)]
        assert list(shop[parking].compare()) == []
        thief = sqlite3.connect(reports, isolation_level=None)
        thief.execute("DELETE FROM reports WHERE key = 'b'")
        thief.close()
        assert [one.kind for one in shop[parking].compare()] == ["missing"]
        shop[parking].rebuild()
        shop.flush(SECONDS)
        assert shop[parking].all() == [("a", 1)]
        assert [one.position for one in shop[parking].parked()] == [2, 3]
    with es.open(path, Box, Reports) as shop:  # what is parked stays it
        put(shop, "c")
        shop.flush(SECONDS)
        assert shop[Reports].all() == [("a", 1)]
    newer = type("Reports", (Reports,), {"version": 2, "__qualname__": "newer.Reports"})
    with es.open(path, Box, newer) as shop:
        with pytest.raises(es.ReadModelStopped):
            shop.flush(SECONDS)
        shop[newer].skip(reason="a twin")
        shop.flush(SECONDS)
        assert shop[newer].all() == [("a", 1), ("b", 3), ("c", 4)]


def test_what_is_refused() -> None:
    for bad, error in ((3, TypeError), ("", ValueError), ("a\0b", ValueError)):
        with pytest.raises(error, match="file"):
            type("Bad", (es.ReadModel,), {"schema": "CREATE TABLE b (x)", "file": bad})
    inline = type(
        "Bad", (es.ReadModel,), {"schema": "CREATE TABLE b (x)", "file": "b.db", "inline": True}
    )
    with pytest.raises(ValueError, match="inline"):
        es.open(":memory:", inline)


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from test_readmodel_file import Box, Put, Also, Home, Reports

shop = es.open(sys.argv[1], Box, Home, Reports, Also)
n = shop.head
for i in range(10**9):
    shop[Box, str(i % 5)].ask(Put(str(n + i)))
    if i == 60:
        print("going", flush=True)
"""


def test_exactly_once_through_kills(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for _ in range(3):
        child = start(KILLED, path, Path(__file__).parent)
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "going"
        child.kill()
        finish(child, -9)
    with es.open(path, Box, Home, Reports, Also) as shop:
        shop.flush(SECONDS)
        assert shop[Reports].all() == stored(shop)
        assert shop[Also].count() == shop[Home].count() == shop.head


def open_files(folder: Path) -> set[str]:
    found = set()
    for one in os.listdir("/proc/self/fd"):
        try:
            path = Path(os.readlink(f"/proc/self/fd/{one}"))
        except OSError:  # the one that listed them
            continue
        if path.is_relative_to(folder):
            found.add(path.name)
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="files of a process are Linux's")
def test_file_is_closed_with_the_system(tmp_path: Path) -> None:
    """Though the program still holds the system."""
    path = tmp_path / "a.db"
    system = es.open(path, Box, Reports)
    system[Box, "b"].ask(Put("a"))
    system.flush(SECONDS)
    assert system[Reports].all() == [("a", 1)]
    assert "reports.db" in open_files(tmp_path)
    model = system[Reports]
    system.close()
    assert open_files(tmp_path) == set()
    assert sorted(os.listdir(tmp_path)) == ["a.db", "a.db-lock", "reports.db"]
    for call in (model.all, model.skip, model.retry, model.rebuild, model.parked):
        with pytest.raises(es.Closed):
            call()
    (tmp_path / "reports.db").unlink()  # nobody writes it any more
    with es.open(path, Box, Reports) as again:
        again.flush(SECONDS)
        assert again[Reports].all() == [("a", 1)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="files of a process are Linux's")
def test_file_is_closed_by_the_query_that_outlives_the_system(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    reading, go_on = threading.Event(), threading.Event()

    class Slow(Reports):
        @es.query
        def slowly(self, db: es.Rows) -> list[tuple[Any, ...]]:
            reading.set()
            assert go_on.wait(SECONDS)
            return db.execute("SELECT key FROM reports").fetchall()

    system = es.open(path, Box, Slow)
    system[Box, "b"].ask(Put("a"))
    system.flush(SECONDS)
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.append(system[Slow].slowly()))
    reader.start()
    assert reading.wait(SECONDS)
    system.close(timeout=0.0)
    go_on.set()
    reader.join(SECONDS)
    assert found == [[("a",)]]
    until(lambda: open_files(tmp_path) == set())  # what else the close left behind ends, too
