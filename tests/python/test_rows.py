"""es.Rows: statements, parameters, cursors."""

from __future__ import annotations

import datetime
import decimal
import gc
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import escqrs as es
import pytest
from support import SECONDS


class Model(es.ReadModel):
    schema = "CREATE TABLE numbers (n INTEGER PRIMARY KEY, text)"

    @es.query
    def do(self, db: es.Rows, function: Callable[[es.Rows], Any]) -> Any:
        return function(db)

    @es.query
    def nested(self, db: es.Rows) -> bool:
        return self.do(lambda other: other is db)


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.fixture
def model() -> Iterator[Model]:
    with es.open(":memory:", Model) as system:
        yield system[Model]


def run(model: Model, sql: str, *parameters: Any) -> Any:
    return model.do(lambda db: db.execute(sql, *parameters).fetchall())


COUNT = (
    "WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c WHERE n < ?)"
    " SELECT n, 'x' || n FROM c"
)


def test_values_both_ways(model: Model) -> None:
    values = (None, 1, -(2**63), 2**63 - 1, 1.5, float("inf"), "tëxt", "", "a\0b", b"", b"\0\xff")
    assert run(model, f"SELECT {', '.join('?' * len(values))}", values) == [values]
    assert run(model, "SELECT ?, ?", [True, bytearray(b"x")]) == [(1, b"x")]
    assert run(model, "SELECT :a, @b, $a", {"a": 1, "b": 2}) == [(1, 2, 1)]
    assert run(model, "SELECT 1", None) == [(1,)]
    assert run(model, "SELECT 1", {}) == [(1,)]


@pytest.mark.parametrize(
    ("sql", "parameters", "kind", "text"),
    [
        ("SELECT :a", {}, ValueError, ":a"),
        ("SELECT :a", (), ValueError, ":a"),
        ("SELECT :a", {"a": 1, "b": 2}, ValueError, ":b"),
        ("SELECT :a", (1,), ValueError, ":a"),
        ("SELECT ?", {"a": 1}, ValueError, ":a"),
        ("SELECT ?", (1, 2), ValueError, "2 values for 1"),
        ("SELECT ?", ("\ud800",), ValueError, "Unicode"),
        ("SELECT ?", (2**63,), ValueError, "64 bits"),
        ("SELECT ?", (float("nan"),), ValueError, "NaN"),
        ("SELECT ?", (object(),), TypeError, "object"),
        ("SELECT :a", {"a": {1.5}}, TypeError, ":a.*set"),
        ("SELECT ?", ([{1}],), TypeError, "set"),
        ("SELECT ?", ([1, float("nan")],), ValueError, "NaN"),
        ("SELECT ?", ([float("inf")],), ValueError, "infinities"),
        ("SELECT ?", ([2**63],), ValueError, "64 bits"),
        ("SELECT ?", (["\ud800"],), ValueError, "Unicode"),
        ("SELECT ?", ({1.5: 1},), TypeError, "keys"),
        ("SELECT ?", ({True: 1},), TypeError, "keys"),
        ("SELECT ?", (LOOP,), ValueError, "deep"),
        ("SELECT ?", ([datetime.datetime(2026, 1, 1)],), ValueError, "time zone"),
        ("SELECT ?", (datetime.datetime(2026, 1, 1),), ValueError, "time zone"),
        ("SELECT ?", "x", TypeError, "not one text"),
        ("SELECT ?", 1, TypeError, "int"),
        ("SELECT 1; SELECT 2", (), ValueError, "more than one"),
        ("  -- nothing", (), ValueError, "empty"),
        ("SELECT 1\0", (), ValueError, "NUL"),
        (1, (), TypeError, "str"),
    ],
)
def test_wrong_parameters(
    model: Model, sql: Any, parameters: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        run(model, sql, parameters)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO numbers VALUES (1, 2)",
        "WITH x AS (SELECT 1) DELETE FROM numbers",
        "/* SELECT */ DELETE FROM numbers",
        "CREATE TABLE x (a)",
        "CREATE TEMP TABLE x (a)",
        "DROP TABLE numbers",
        "ATTACH ':memory:' AS other",
        "PRAGMA query_only = 0",
        "BEGIN",
        "COMMIT",
        "VACUUM INTO 'stolen.db'",
    ],
)
def test_a_query_only_reads(model: Model, sql: str) -> None:
    with pytest.raises(es.ReadOnly):
        run(model, sql)
    assert run(model, "SELECT count(*) FROM numbers") == [(0,)]


def test_errors_say_what_and_where(model: Model) -> None:
    for sql, text in (
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT abs(-9223372036854775808)", "overflow"),
    ):
        with pytest.raises(es.Error, match=text) as caught:
            run(model, sql)
        assert sql in str(caught.value)
    with pytest.raises(TypeError):
        model.do(lambda db: db.execute())  # type: ignore[call-arg]


def test_ways_to_fetch(model: Model) -> None:
    expected = [(n, f"x{n}") for n in range(1, 3001)]

    def check(db: es.Rows) -> None:
        assert db.execute(COUNT, (3000,)).fetchall() == expected
        assert list(db.execute(COUNT, (3000,))) == expected
        cursor = db.execute(COUNT, (3000,))
        assert cursor.columns == ("n", "'x' || n") and cursor.rowcount == -1
        assert cursor.fetchone() == expected[0]
        assert cursor.fetchmany(3) == expected[1:4]
        assert cursor.fetchmany(0) == []
        assert cursor.fetchall() == expected[4:]
        assert cursor.fetchone() is None and cursor.fetchall() == []
        assert db.execute("SELECT 1 AS a, 2 AS b").dicts() == [{"a": 1, "b": 2}]
        first, second = db.execute(COUNT, (100,)), db.execute(COUNT, (100,))
        assert list(zip(first, second, strict=False)) == list(
            zip(expected[:100], expected[:100], strict=False)
        )
        with pytest.raises(ValueError):
            cursor.fetchmany(-1)

    model.do(check)
    assert model.nested()


def test_nothing_outlives_the_call(model: Model) -> None:
    kept: list[Any] = []
    cursor = model.do(lambda db: (kept.append(db), db.execute(COUNT, (1000,)))[1])
    with pytest.raises(es.Closed, match="fetchall"):
        cursor.fetchall()
    with pytest.raises(es.Closed):
        next(cursor)
    with pytest.raises(es.Closed):
        kept[0].execute("SELECT 1")

    def elsewhere(db: es.Rows) -> BaseException | None:
        caught: list[BaseException] = []

        def use() -> None:
            try:
                db.execute("SELECT 1")
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        return caught[0]

    assert isinstance(model.do(elsewhere), RuntimeError)
    with pytest.raises(KeyError):  # what the method raises is what the caller gets
        model.do(lambda db: {}["x"])
    assert run(model, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("what", ["db", "cursor"])
def test_a_read_model_that_keeps_it_is_dropped_with_its_system(what: str) -> None:
    def drop() -> weakref.ref[es.System]:
        system = es.open(":memory:", Model)
        model: Any = system[Model]
        model.do(lambda db: setattr(model, "kept", db if what == "db" else db.execute("SELECT 1")))
        return weakref.ref(system)

    with pytest.warns(ResourceWarning, match="unclosed"):
        dropped = drop()
        gc.collect()
    gc.collect()
    assert dropped() is None


def test_ctrl_c_ends_a_long_query() -> None:
    code = """
import os, signal, threading
import escqrs as es

signal.signal(signal.SIGINT, signal.default_int_handler)

class M(es.ReadModel):
    schema = "CREATE TABLE t (a)"
    @es.query
    def endless(self, db):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        db.execute(
            "WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c)"
            " SELECT count(*) FROM c"
        )
    @es.query
    def one(self, db):
        return db.execute("SELECT 1").fetchone()

with es.open(":memory:", M) as system:
    try:
        system[M].endless()
    except KeyboardInterrupt:
        print("interrupted", system[M].one())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS
    )
    assert (done.stdout, done.stderr) == ("interrupted (1,)\n", "")


class Kinds(es.Event):
    day: datetime.date
    clock: datetime.time
    span: datetime.timedelta
    price: decimal.Decimal
    key: uuid.UUID
    days: list[datetime.date]


class Store(es.Command[None]):
    kinds: Kinds


class Shelf(es.Aggregate):
    @es.handles
    def store(self, command: Store) -> None:
        self.emit(command.kinds)

    @es.applies
    def stored(self, event: Kinds) -> None: ...


class Kept(es.ReadModel):
    schema = "CREATE TABLE kept (day, clock, span, price, key, days)"
    on_kinds = es.sql(Kinds, "INSERT INTO kept VALUES (:day, :clock, :span, :price, :key, :days)")

    @es.query
    def same(self, db: es.Rows, kinds: Kinds) -> int:
        found = db.execute(
            "SELECT count(*) FROM kept WHERE day = ? AND clock = ? AND span = ? AND price = ? "
            "AND key = ? AND days = ?",
            (kinds.day, kinds.clock, kinds.span, kinds.price, kinds.key, kinds.days),
        ).fetchone()
        assert found is not None
        return int(found[0])

    @es.query
    def refused(self, db: es.Rows, value: object) -> None:
        db.execute("SELECT ?", (value,))


@pytest.mark.parametrize(
    "span",
    [
        datetime.timedelta(0),
        datetime.timedelta(days=-1, microseconds=1),
        datetime.timedelta(3, 4, 5),
    ],
)
def test_every_kind_of_field_is_a_parameter(span: datetime.timedelta) -> None:
    kinds = Kinds(
        datetime.date(2024, 2, 29),
        datetime.time(23, 59, 59, 1),
        span,
        decimal.Decimal("1.50"),
        uuid.uuid4(),
        [datetime.date(2020, 1, 2)],
    )
    with es.open(":memory:", Shelf, Kept) as shop:
        shop[Shelf, "s"].ask(Store(kinds))
        shop.flush()
        assert shop[Kept].same(kinds) == 1
        with pytest.raises(ValueError, match="time zone"):
            shop[Kept].refused(datetime.time(1, tzinfo=datetime.UTC))
        with pytest.raises(TypeError, match="not set"):
            shop[Kept].refused({1})
