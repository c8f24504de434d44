"""Read models: following, failing, rebuilding."""

from __future__ import annotations

import datetime
import json
import logging
import threading
from pathlib import Path

import escqrs as es
import pytest
from carts import (
    AT,
    INSERT,
    SCHEMA,
    AddItem,
    Cart,
    Color,
    Everything,
    ItemAdded,
    Items,
    Part,
    Tell,
    add,
    define,
)
from support import SECONDS, run


def test_follows_and_says_so() -> None:
    with es.open(":memory:", Cart, Items) as shop:
        assert "live at 0" in repr(shop[Items])
        add(shop, "book", "pen")
        shop.flush(SECONDS)
        assert shop[Items].all() == [("book", 1), ("pen", 1)]
        status = shop[Items].status
        assert (status.state, status.position, status.head, status.lag) == ("live", 2, 2, 0)
        assert status.error is None and status.failed_position is None
        shop[Items].wait(2, timeout=SECONDS)
        shop[Items].wait(timeout=SECONDS)
        with pytest.raises(es.Timeout):
            shop[Items].wait(3, timeout=0.01)
        with pytest.raises(es.Timeout):
            shop[Items].wait(2**63 - 1, timeout=0.01)
        for position in (2**63, 2**70, -1, -(2**70)):
            with pytest.raises(ValueError, match="position"):
                shop[Items].wait(position, timeout=0.01)
        for wrong in (1.5, True, "1"):
            with pytest.raises(TypeError, match="position"):
                shop[Items].wait(wrong, timeout=0.01)  # type: ignore[arg-type]
        shop[Items].wait(0, timeout=0)
        late = threading.Thread(target=add, args=(shop, "ink"))
        late.start()
        shop[Items].wait(3, timeout=SECONDS)  # an event that is not there yet
        late.join()
        items = shop[Items]
    with pytest.raises(es.Closed):
        items.all()
    with pytest.raises(es.Closed):
        _ = items.status


def test_every_kind_of_field() -> None:
    class All(es.ReadModel):
        schema = (
            "CREATE TABLE a (number, real, flag, text, raw, at, color, part, tags, counts, note,"
            " stream, position,"
            " version, time, id)"
        )
        told = es.sql(
            Everything,
            "INSERT INTO a VALUES (:number, :real, :flag, :text, :raw, :at, :color, :part, :tags,"
            " :counts, :note,"
            " :_stream, :_position, :_version, :_time, :_id)",
        )

        @es.query
        def row(self, db: es.Rows) -> tuple:
            return db.execute("SELECT * FROM a").fetchone()

        @es.query
        def found(self, db: es.Rows) -> int:
            return db.execute(
                "SELECT count(*) FROM a WHERE at = :at AND color = :color"
                " AND flag = :flag AND raw = :raw",
                {"at": AT, "color": Color.GREEN, "flag": True, "raw": b"\0\1"},
            ).fetchone()[0]

        @es.query
        def same(self, db: es.Rows, event: Everything) -> tuple:
            """Is each column what its field is as a parameter?"""
            names = Everything.__escqrs_fields__
            columns = ", ".join(f"{name} IS :{name}" for name in names)
            values = {name: getattr(event, name) for name in names}
            return db.execute(f"SELECT {columns} FROM a", values).fetchone()

    with es.open(":memory:", Cart, All) as shop:
        shop[Cart, "c"].ask(Tell())
        shop.flush(SECONDS)
        row = shop[All].row()
        assert row[:5] == (2**62, 1.5, 1, "tëxt\0", b"\0\1")
        assert row[5] == "2026-01-31 12:30:00.000005+00:00"
        assert datetime.datetime.fromisoformat(row[5]) == AT
        assert row[6] == "GREEN"
        assert json.loads(row[7]) == {"name": "p", "size": 3}
        assert json.loads(row[8]) == ["a", "b"] and json.loads(row[9]) == {"x": 1}
        assert row[10] is None
        recorded = next(iter(shop.events()))
        assert row[11:14] == ("Cart/c", 1, 1)
        assert datetime.datetime.fromisoformat(row[14]) == recorded.time
        assert row[15] == recorded.id
        assert shop[All].found() == 1
        assert shop[All].same(recorded.event) == (1,) * 11


class Deep(es.Message):
    at: datetime.datetime
    color: Color
    raw: bytes
    reals: list[float]
    parts: dict[str, Part]
    note: str | None = None


class Nested(es.Event):
    deep: Deep
    many: list[Deep]
    texts: dict[int, str]
    times: list[datetime.datetime]
    raws: list[bytes]
    colors: dict[str, Color]
    flags: list[bool]


class TellNested(es.Command[None]):
    pass


def test_json_is_the_same_from_an_event_and_from_python() -> None:
    deep = Deep(AT, Color.RED, b"\0\xff\1", [0.1, 1.0, 1e300, -0.0], {'ä"\\\n\1': Part("p")})
    event = Nested(
        deep,
        [deep, deep],
        {-1: "a", 2: "\U0001f600"},
        [AT, AT.astimezone(datetime.timezone(datetime.timedelta(hours=5)))],
        [b"", b"x"],
        {"k": Color.GREEN},
        [True, False],
    )

    class Box(es.Aggregate):
        @es.handles
        def tell(self, cmd: TellNested) -> None:
            self.emit(event)

        @es.applies
        def told(self, event: Nested) -> None: ...

    class Texts(es.ReadModel):
        schema = "CREATE TABLE t (deep, many, texts, times, raws, colors, flags)"
        told = es.sql(
            Nested,
            "INSERT INTO t VALUES (:deep, :many, :texts, :times, :raws, :colors, :flags)",
        )

        @es.query
        def both(self, db: es.Rows) -> list[tuple[str, str]]:
            stored = db.execute("SELECT * FROM t").fetchone()
            values = [getattr(event, name) for name in Nested.__escqrs_fields__]
            bound = db.execute("SELECT ?, ?, ?, ?, ?, ?, ?", values).fetchone()
            return list(zip(stored, bound, strict=True))

        @es.query
        def tuples(self, db: es.Rows) -> str:
            return db.execute("SELECT ?", [(1, None, [True], {"a": (AT,)})]).fetchone()[0]

    with es.open(":memory:", Box, Texts) as system:
        system[Box, "b"].ask(TellNested())
        system.flush(SECONDS)
        for stored, bound in system[Texts].both():
            assert stored == bound
            json.loads(stored)
        assert json.loads(system[Texts].tuples()) == [
            1, None, [True], {"a": ["2026-01-31T12:30:00.000005Z"]},
        ]  # fmt: skip


def test_nan_stops() -> None:
    class Reals(es.ReadModel):
        schema = "CREATE TABLE r (x)"
        told = es.sql(Everything, "INSERT INTO r VALUES (:real)")

    with es.open(":memory:", Cart, Reals) as shop:
        shop[Cart, "c"].ask(Tell(float("inf")))
        shop[Cart, "c"].ask(Tell(float("nan")))
        with pytest.raises(es.ReadModelStopped, match="NaN") as caught:
            shop.flush(SECONDS)
        assert caught.value.position == 2 and caught.value.name == "Reals"


def test_failure_stops_that_one_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Names(es.ReadModel):
        schema = "CREATE TABLE names (name)"
        added = es.sql(ItemAdded, "INSERT INTO names VALUES (:name)")

        @es.query
        def all(self, db: es.Rows) -> list[tuple]:
            return db.execute("SELECT name FROM names").fetchall()

    with (
        caplog.at_level(logging.WARNING, "escqrs"),
        es.open(":memory:", Cart, Items, Names) as shop,
    ):
        add(shop, "book", "book", "pen")
        with pytest.raises(es.ReadModelStopped, match="UNIQUE") as caught:
            shop.flush(SECONDS)
        assert (caught.value.name, caught.value.position) == ("Items", 2)
        status = shop[Items].status
        assert (status.state, status.position, status.failed_position, status.lag) == (
            "stopped",
            1,
            2,
            2,
        )
        assert "UNIQUE" in str(status.error) and "Cart/c" in str(status.error)
        assert shop[Items].all() == [("book", 1)]  # a stopped one still answers
        assert shop[Names].all() == [("book",), ("book",), ("pen",)]
        shop[Items].retry()
        with pytest.raises(es.ReadModelStopped):
            shop.flush(SECONDS)
        shop[Items].skip()
        shop.flush(SECONDS)
        assert shop[Items].all() == [("book", 1), ("pen", 1)]
        for function in (shop[Items].skip, shop[Items].retry):
            with pytest.raises(ValueError, match="has not stopped"):
                function()
    assert any("stopped at position 2" in one.getMessage() for one in caplog.records)
    assert any(
        one.levelno == logging.WARNING and "leaves out" in one.getMessage()
        for one in caplog.records
    )


def test_python_handlers() -> None:
    seen: list[str] = []

    class Log(es.ReadModel):
        schema = "CREATE TABLE log (position INTEGER PRIMARY KEY, stream, name, known)"

        @es.on(ItemAdded)
        def added(self, db: es.Rows, event: ItemAdded) -> None:
            known = db.execute("SELECT count(*) FROM log").fetchone()[0]
            seen.append(event.name)
            assert (
                db.execute(
                    "INSERT INTO log (name, known) VALUES (?, ?)", (event.name, known)
                ).rowcount
                == 1
            )

        @es.on(ItemAdded)
        def placed(self, db: es.Rows, recorded: es.Recorded) -> None:
            if recorded.event.name == "boom":
                raise LookupError("on purpose")
            db.execute(
                "UPDATE log SET stream = :s WHERE position = :p",
                {"s": recorded.stream, "p": recorded.position},
            )

        @es.query
        def all(self, db: es.Rows) -> list[tuple]:
            return db.execute("SELECT * FROM log ORDER BY position").fetchall()

    with es.open(":memory:", Cart, Log, Items) as shop:
        add(shop, "a", "b", "boom", "c")
        with pytest.raises(es.ReadModelStopped, match="LookupError: on purpose") as caught:
            shop.flush(SECONDS)
        assert caught.value.position == 3
        assert isinstance(caught.value.__cause__, LookupError)
        assert seen == ["a", "b", "boom"]
        assert shop[Log].all() == [
            (1, "Cart/c", "a", 0),
            (2, "Cart/c", "b", 1),
        ]  # nothing of the third
        shop[Log].skip()
        shop.flush(SECONDS)
        assert seen == ["a", "b", "boom", "c"]
        assert len(shop[Log].all()) == 3
        assert len(shop[Items].all()) == 4


def test_handler_that_takes_event_and_recorded() -> None:
    class Both(es.ReadModel):
        schema = "CREATE TABLE both_ (name TEXT, position INTEGER, stream TEXT)"

        @es.on(ItemAdded)
        def placed(self, db: es.Rows, event: ItemAdded, recorded: es.Recorded) -> None:
            assert event == recorded.event
            row = (event.name, recorded.position, recorded.stream)
            db.execute("INSERT INTO both_ VALUES (?, ?, ?)", row)

        @es.query
        def all(self, db: es.Rows) -> list[tuple[object, ...]]:
            return db.execute("SELECT * FROM both_").fetchall()

    with es.open(":memory:", Cart, Both) as shop:
        add(shop, "book")
        shop.flush(SECONDS)
        assert shop[Both].all() == [("book", 1, "Cart/c")]


def test_annotation_says_what_a_handler_gets() -> None:
    class Recorded(es.Event):  # not es.Recorded
        text: str

    class Record(es.Command[None]):
        text: str

    class Book(es.Aggregate):
        @es.handles
        def record(self, cmd: Record) -> None:
            self.emit(Recorded(cmd.text))

        @es.applies
        def recorded(self, event: Recorded) -> None: ...

    Other = es.Recorded  # noqa: N806
    got: list[tuple[str, type]] = []

    class Notes(es.ReadModel):
        schema = "CREATE TABLE notes (n)"

        @es.on(Recorded)
        def named_like_it(self, db: es.Rows, event: Recorded) -> None:
            got.append(("event", type(event)))

        @es.on(Recorded)
        def named_recorded(self, db: es.Rows, recorded: Recorded) -> None:
            got.append(("event", type(recorded)))

        @es.on(Recorded)
        def attribute(self, db: es.Rows, event: es.Recorded) -> None:
            got.append(("recorded", type(event)))

        @es.on(Recorded)
        def alias(self, db: es.Rows, event: Other) -> None:  # type: ignore[valid-type]
            got.append(("recorded", type(event)))

        @es.on(Recorded)
        def unknown(self, db: es.Rows, event: nowhere.Recorded2) -> None:  # type: ignore # noqa: F821
            got.append(("event", type(event)))

        @es.on(Recorded)
        def unannotated(self, db, recorded) -> None:  # type: ignore[no-untyped-def]
            got.append(("recorded", type(recorded)))

        @es.on(Recorded)
        def plain(self, db, event) -> None:  # type: ignore[no-untyped-def]
            got.append(("event", type(event)))

    with es.open(":memory:", Book, Notes) as system:
        system[Book, "b"].ask(Record("x"))
        system.flush(SECONDS)
    kinds = {"event": Recorded, "recorded": es.Recorded}
    assert len(got) == 7
    assert all(kinds[kind] is cls for kind, cls in got), got


def test_handler_cannot_wait_for_the_system() -> None:
    caught: list[type[BaseException]] = []
    kept: list[es.Rows] = []

    class Nosy(es.ReadModel):
        schema = "CREATE TABLE nosy (n)"

        @es.on(ItemAdded)
        def added(self, db: es.Rows, event: ItemAdded) -> None:
            kept.append(db)
            for function in (
                lambda: shop[Cart, "c"].ask(AddItem("x")),
                lambda: shop[Cart, "c"].state,
                shop.flush,
                shop.close,
                lambda: shop[Nosy].wait(),
                lambda: shop[Nosy].count(),
                lambda: shop[Nosy].rebuild(),
                lambda: list(shop[Nosy].compare()),
                lambda: shop.store.restart(),
            ):
                try:
                    function()  # type: ignore[operator]
                except es.Error as error:
                    caught.append(type(error))
            for sql in (
                "SELECT * FROM items",
                "DROP TABLE nosy",
                "COMMIT",
                "SELECT * FROM escqrs_readmodel",
            ):
                with pytest.raises(es.Error):
                    db.execute(sql)

        @es.query
        def count(self, db: es.Rows) -> int:
            return db.execute("SELECT count(*) FROM nosy").fetchone()[0]

    with es.open(":memory:", Cart, Items, Nosy) as shop:
        add(shop, "a")
        shop.flush(SECONDS)
        assert caught == [es.Deadlock] * 9
        with pytest.raises(es.Closed):
            kept[0].execute("SELECT 1")


def test_goes_on_and_catches_up(tmp_path: Path) -> None:
    class Late(es.ReadModel):
        schema = "CREATE TABLE late (n)"
        added = es.sql(ItemAdded, "INSERT INTO late VALUES (:_position)")

        @es.query
        def all(self, db: es.Rows) -> list[tuple]:
            return db.execute("SELECT n FROM late").fetchall()

    path = tmp_path / "shop.db"
    for round in range(3):
        with es.open(path, Cart, Items) as shop:
            add(shop, *(f"{round}-{i}" for i in range(50)))
    with es.open(path, Cart, Items, Late) as shop:
        shop.flush(SECONDS)
        assert len(shop[Items].all()) == 150
        assert shop[Late].all() == [(i,) for i in range(1, 151)]
    with es.open(path, Items, readonly=True) as shop:
        assert len(shop[Items].all()) == 150
        assert shop[Items].status.state == "live"
        with pytest.raises(es.ReadOnly):
            shop[Items].rebuild()


def test_changed_one_is_built_anew(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Cart, Items) as shop:
        add(shop, "book", "pen")
        shop.flush(SECONDS)
    for changed, expected in (
        (define(INSERT.replace(":quantity", ":quantity * 2")), [("book", 2), ("pen", 2)]),
        (
            define(schema=SCHEMA + "; CREATE INDEX by_quantity ON items (quantity)"),
            [("book", 1), ("pen", 1)],
        ),
        (define(version="2"), [("book", 1), ("pen", 1)]),
        (define(version=3), [("book", 1), ("pen", 1)]),
    ):
        with es.open(path, Cart, changed) as shop:
            assert (
                len(shop[changed].run("SELECT name FROM items")) == 2
            )  # old rows, or already the new
            shop.flush(SECONDS)
            assert shop[changed].all() == expected
            assert shop[changed].status.state == "live"
    with pytest.raises(es.SchemaMismatch, match="Items"):
        es.open(path, Cart, define(rebuild="manual"))
    with es.open(path, Cart, define(version=3, rebuild="manual")) as shop:
        assert shop.flush(SECONDS) is None


def test_rebuild_on_demand(tmp_path: Path) -> None:
    manual = define(rebuild="manual")
    with es.open(tmp_path / "shop.db", Cart, manual) as shop:
        add(shop, "book", "pen")
        shop.flush(SECONDS)
        shop[manual].rebuild()
        add(shop, "ink")
        shop.flush(SECONDS)
        assert shop[manual].all() == [("book", 1), ("pen", 1), ("ink", 1)]


def test_inherited_and_several_statements() -> None:
    class Base(es.ReadModel):
        schema = "CREATE TABLE first (n); CREATE TABLE second (n)"
        one = es.sql(
            ItemAdded, "INSERT INTO first VALUES (:_position)", "INSERT INTO second VALUES (1)"
        )
        two = es.sql(ItemAdded, Everything, "INSERT INTO second SELECT max(n) + 1 FROM second")

        @es.query
        def second(self, db: es.Rows) -> list[int]:
            return [n for (n,) in db.execute("SELECT n FROM second")]

    class Derived(Base, name="shop.Derived"):
        extra = "anything"

        def helper(self) -> int:
            return sum(self.second())

    with es.open(":memory:", Cart, Derived) as shop:
        add(shop, "a")
        shop.flush(SECONDS)
        assert shop[Derived].second() == [1, 2]
        assert shop[Derived].helper() == 3


def test_sql_and_handlers_of_one_event_run_in_order() -> None:
    class Steps(es.ReadModel):
        schema = "CREATE TABLE steps (n INTEGER PRIMARY KEY, what)"
        first = es.sql(
            ItemAdded,
            "INSERT INTO steps (what) VALUES ('1 ' || :name)",
            "INSERT INTO steps (what) VALUES ('2 ' || :name)",
        )

        @es.on(ItemAdded)
        def second(self, db: es.Rows, recorded: es.Recorded) -> None:
            seen = db.execute("SELECT count(*) FROM steps").fetchone()[0]
            row = db.execute(
                "INSERT INTO steps (what) VALUES (?) RETURNING n, what",
                [f"3 {recorded.event.name} {recorded.position} {seen}"],
            ).fetchone()
            assert row[0] == seen + 1

        third = es.sql(ItemAdded, "INSERT INTO steps (what) VALUES ('4 ' || :name)")

        @es.query
        def all(self, db: es.Rows) -> list[str]:
            return [what for (what,) in db.execute("SELECT what FROM steps ORDER BY n")]

    with es.open(":memory:", Cart, Steps) as shop:
        add(shop, "a", "b")
        shop.flush(SECONDS)
        assert shop[Steps].all() == ["1 a", "2 a", "3 a 1 2", "4 a", "1 b", "2 b", "3 b 2 6", "4 b"]


def test_failing_handler_takes_back_the_sql_before_it() -> None:
    class Both(es.ReadModel):
        schema = "CREATE TABLE both (n)"
        first = es.sql(ItemAdded, "INSERT INTO both VALUES (:_position)")

        @es.on(ItemAdded)
        def second(self, db: es.Rows, event: ItemAdded) -> None:
            db.execute("INSERT INTO both VALUES (?)", [-1])
            if event.name == "boom":
                raise LookupError(event.name)

        @es.query
        def all(self, db: es.Rows) -> list[int]:
            return [n for (n,) in db.execute("SELECT n FROM both")]

    with es.open(":memory:", Cart, Items, Both) as shop:
        add(shop, "a", "boom", "c")
        with pytest.raises(es.ReadModelStopped, match="boom"):
            shop.flush(SECONDS)
        assert shop[Both].all() == [1, -1]
        assert len(shop[Items].all()) == 3
        shop[Both].skip()
        shop.flush(SECONDS)
        assert shop[Both].all() == [1, -1, 3, -1]


def test_what_status_and_repr_say() -> None:
    class Picky(es.ReadModel, name="shop.Picky"):
        schema = "CREATE TABLE picky (n CHECK (n < 2))"
        added = es.sql(ItemAdded, "INSERT INTO picky VALUES (:_position)")

    assert repr(Picky()) == "<Picky, a read model that is not open>"
    with pytest.raises(es.Closed, match="not part of an open system"):
        _ = Picky().status
    with es.open(":memory:", Cart, Picky) as shop:
        picky = shop[Picky]
        assert repr(picky) == "<Picky, read model, live at 0>"
        add(shop, "a", "b", "c")
        with pytest.raises(es.ReadModelStopped) as caught:
            shop.flush(SECONDS)
        assert caught.value.name == "shop.Picky" and caught.value.position == 2
        assert "CHECK constraint failed" in str(caught.value)
        assert repr(picky) == "<Picky, read model, stopped at 2>"
        status = picky.status
        assert (status.state, status.position, status.head, status.lag) == ("stopped", 1, 3, 2)
        assert status.failed_position == 2 and "shop.Picky stopped at position 2" in str(
            status.error
        )
        assert repr(status).startswith(
            "ReadModelStatus(state='stopped', position=1, head=3, error="
        )
        with pytest.raises(AttributeError):
            status.position = 3  # type: ignore[misc]
        picky.wait(1, timeout=SECONDS)  # what it has seen, it has seen
        with pytest.raises(es.ReadModelStopped):
            picky.wait(2, timeout=SECONDS)
    assert repr(picky) == "<Picky, a read model of a closed system>"
    for use in (picky.retry, picky.skip, picky.rebuild, picky.wait):
        with pytest.raises(es.Closed):
            use()


def test_same_class_again_and_changed_while_open() -> None:
    first = define(__qualname__="Notebook")
    with es.open(":memory:", Cart, first) as shop:
        add(shop, "a")
        shop.flush(SECONDS)
        again = define(__qualname__="Notebook", new=es.query(lambda self, db: "new"))
        assert shop[again].new() == "new"  # type: ignore[attr-defined]
        assert shop[again].all() == [("a", 1)]
        with pytest.raises(es.SchemaMismatch, match="open it again"):
            shop[define(__qualname__="Notebook", version=9)]


def test_dropped_unclosed_where_warnings_are_errors(tmp_path: Path) -> None:
    code = """
        class Sums(es.ReadModel):
            schema = "CREATE TABLE sums (n)"
            added = es.sql(Added, "INSERT INTO sums VALUES (:amount)")

        system = es.open(sys.argv[1], Counter, Sums)
        system[Counter, "c"].ask(Add(1))
        del system
        with es.open(sys.argv[1], Counter, Sums) as system:
            system.flush(20)
        print("open again")
    """
    out, error = run(code, tmp_path / "shop.db")
    assert out == "open again\n" and "ResourceWarning: unclosed" in error
