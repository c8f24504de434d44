"""A read model beside a fresh build of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS


class Put(es.Command[None]):
    key: str
    number: int | None = None


class Was(es.Event):
    key: str
    number: int | None


class Box(es.Aggregate):
    @es.handles
    def put(self, cmd: Put) -> None:
        self.emit(Was(cmd.key, cmd.number))

    @es.applies
    def was(self, event: Was) -> None: ...


class Both(es.ReadModel):
    schema = """CREATE TABLE rows (key TEXT COLLATE NOCASE, number, at INTEGER);
        CREATE TABLE "odd ""name" (key TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
        CREATE INDEX by_number ON rows (number);
        CREATE VIEW every AS SELECT * FROM rows"""
    put = es.sql(Was, "INSERT INTO rows VALUES (:key, :number, :_position)")
    fails_at: int | None = None

    @es.on(Was)
    def count(self, db: es.Rows, event: Was, recorded: es.Recorded) -> None:
        if recorded.position == FAILS.get("at"):
            raise LookupError("on purpose")
        db.execute(
            'INSERT INTO "odd ""name" VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1',
            (event.key,),
        )

    @es.query
    def rows(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute("SELECT * FROM rows").fetchall()


FAILS: dict[str, int] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    FAILS.clear()


def fill(shop: es.System, count: int = 50) -> None:
    for n in range(count):
        shop[Box, str(n % 3)].ask(Put(f"k{n % 7}", n if n % 5 else None))
    shop.flush(SECONDS)


def tamper(path: Path, *statements: str) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        other.execute(statement)
    other.close()


@pytest.mark.parametrize("name", [":memory:", "a.db"])
def test_nothing_differs(tmp_path: Path, name: str) -> None:
    with es.open(name if name == ":memory:" else tmp_path / name, Box, Both) as shop:
        assert list(shop[Both].compare()) == []
        fill(shop)
        seen: list[tuple[int, int]] = []
        assert list(shop[Both].compare(progress=lambda *at: seen.append(at))) == []
        assert seen[-1] == (50, 50)
        shop[Box, "1"].ask(Put("more"))
        shop.flush(SECONDS)
        assert len(shop[Both].rows()) == 51


def test_the_rows_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Box, Both) as shop:
        fill(shop)
    tamper(
        path,
        "UPDATE rows SET number = 'x' WHERE at = 3",
        "DELETE FROM rows WHERE at = 5",
        "INSERT INTO rows VALUES ('K1', 1.5, 99), ('K1', 1.5, 99)",
        "UPDATE rows SET key = 'K6' WHERE at = 7",
        'UPDATE "odd ""name" SET n = 0 WHERE key = \'k4\'',
    )
    with es.open(path, Box, Both) as shop:
        found = [(one.table, one.kind, tuple(one.row.values())) for one in shop[Both].compare()]
        assert sorted(found, key=repr) == sorted(
            [
                ("rows", "extra", ("k2", "x", 3)),
                ("rows", "missing", ("k2", 2, 3)),
                ("rows", "missing", ("k4", 4, 5)),
                ("rows", "extra", ("K1", 1.5, 99)),
                ("rows", "extra", ("K1", 1.5, 99)),
                ("rows", "extra", ("K6", 6, 7)),
                ("rows", "missing", ("k6", 6, 7)),
                ('odd "name', "extra", ("k4", 0)),
                ('odd "name', "missing", ("k4", 7)),
            ],
            key=repr,
        )
        first = next(iter(shop[Both].compare()))
        assert isinstance(first, es.Difference) and set(first.row) in (
            {"key", "n"}, {"key", "number", "at"},
        )  # fmt: skip
        shop[Both].rebuild()
        shop.flush(SECONDS)
        assert list(shop[Both].compare()) == []


def test_what_was_skipped_is_skipped_again(tmp_path: Path) -> None:
    with es.open(tmp_path / "a.db", Box, Both) as shop:
        FAILS["at"] = 20
        for n in range(30):
            shop[Box, "1"].tell(Put(f"k{n}"))
        with pytest.raises(es.ReadModelStopped):
            shop.flush(SECONDS)
        shop[Both].skip(reason="on purpose")
        shop.flush(SECONDS)
        assert list(shop[Both].compare()) == []
        FAILS.clear()  # it could be applied by now
        missing = [one for one in shop[Both].compare() if one.kind == "missing"]
        assert [one.row["key"] for one in missing] == ["k19", "k19"]
        FAILS["at"] = 7
        with pytest.raises(es.Error, match="position 7"):
            list(shop[Both].compare())


def test_parked_events_are_parked_in_both() -> None:
    class Parking(Both):
        on_error = "park"

    with es.open(":memory:", Box, Parking) as shop:
        FAILS["at"] = 4
        fill(shop, 20)
        assert len(shop[Parking].parked()) > 1
        assert list(shop[Parking].compare()) == []


def test_inline_ones_under_load(tmp_path: Path) -> None:
    class Inline(es.ReadModel):
        schema = "CREATE TABLE inline (key TEXT, at INTEGER)"
        inline = True
        put = es.sql(Was, "INSERT INTO inline VALUES (:key, :_position)")

    with es.open(tmp_path / "a.db", Box, Inline) as shop:
        for _ in range(5):
            for n in range(200):
                shop[Box, str(n)].tell(Put("a"))
            assert list(shop[Inline].compare()) == []


def test_what_is_refused(tmp_path: Path) -> None:
    class Words(es.ReadModel):
        schema = "CREATE VIRTUAL TABLE words USING fts5 (word)"
        put = es.sql(Was, "INSERT INTO words VALUES (:key)")

    shop = es.open(tmp_path / "a.db", Box, Words, Both)
    fill(shop, 5)
    with pytest.raises(ValueError, match="virtual"):
        list(shop[Words].compare())
    begun = shop[Both].compare()
    model = shop[Both]
    shop.close()
    with pytest.raises(es.Closed):
        next(begun)
    with pytest.raises(es.Closed):
        next(model.compare())
    with es.open(tmp_path / "a.db", Box, Both, readonly=True) as shop:
        assert list(shop[Both].compare()) == []


def test_a_comparison_that_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Box, Both) as shop:
        fill(shop)
        tamper(path, "DELETE FROM rows")
        begun = shop[Both].compare()
        assert next(begun).kind == "missing"
    assert next(begun).kind == "missing"  # it has what it needs
    begun.close()  # type: ignore[attr-defined]
