"""Which events a read model takes, and what its statements can say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS


class Line(es.Message):
    sku: str
    quantity: int = 1
    note: str | None = None


class Placed(es.Event):
    order: str
    lines: list[Line]
    coupons: list[str]
    prices: dict[str, float]
    extras: dict[int, Line]


class Paid(es.Event):
    order: str
    amount: int


class Shipped(es.Event):
    order: str
    at: str = "depot"


class Place(es.Command[None]):
    lines: list[Line]
    coupons: list[str] = es.field(default_factory=list)
    prices: dict[str, float] = es.field(default_factory=dict)
    extras: dict[int, Line] = es.field(default_factory=dict)


class Finish(es.Command[None]):
    amount: int


class Order(es.Aggregate):
    @es.handles
    def place(self, cmd: Place) -> None:
        self.emit(Placed(self.id, cmd.lines, cmd.coupons, cmd.prices, cmd.extras))

    @es.handles
    def finish(self, cmd: Finish) -> None:
        self.emit(Paid(self.id, cmd.amount))
        self.emit(Shipped(self.id))

    @es.applies
    def ignore(self, event: Placed | Paid | Shipped) -> None: ...


def rows(shop: es.System, model: Any, sql: str) -> list[tuple[Any, ...]]:
    shop.flush(SECONDS)
    found: list[tuple[Any, ...]] = shop[model].rows(sql)
    return found


class Model(es.ReadModel):
    schema = "CREATE TABLE base (x)"

    @es.query
    def rows(self, db: es.Rows, sql: str) -> list[tuple[Any, ...]]:
        return db.execute(sql).fetchall()


def test_items_of_a_list() -> None:
    class Lines(Model):
        schema = """CREATE TABLE lines (number TEXT, i INTEGER, sku TEXT, quantity INTEGER,
            note TEXT, PRIMARY KEY (number, i));
            CREATE TABLE coupons (number TEXT, coupon TEXT)"""
        lines = es.sql(
            Placed,
            """INSERT INTO lines
               VALUES (:order, :_index, :_item_sku, :_item_quantity, :_item_note)""",
            each="lines",
        )
        coupons = es.sql(Placed, "INSERT INTO coupons VALUES (:order, upper(:_item))",
                         each="coupons")  # fmt: skip

    with es.open(":memory:", Order, Lines) as shop:
        shop[Order, "1"].ask(Place([Line("a"), Line("b", 3, "soon")], ["x", "y", "x"]))
        shop[Order, "2"].ask(Place([]))
        assert rows(shop, Lines, "SELECT * FROM lines") == [
            ("1", 0, "a", 1, None),
            ("1", 1, "b", 3, "soon"),
        ]
        assert rows(shop, Lines, "SELECT coupon FROM coupons") == [("X",), ("Y",), ("X",)]


def test_items_of_a_dict_and_whole_messages() -> None:
    class Prices(Model):
        schema = """CREATE TABLE prices (sku TEXT, price REAL, at INTEGER);
            CREATE TABLE extras (k INTEGER, item TEXT, sku TEXT)"""
        prices = es.sql(Placed, "INSERT INTO prices VALUES (:_key, :_item, :_position)",
                        each="prices")  # fmt: skip
        extras = es.sql(Placed, "INSERT INTO extras VALUES (:_key, :_item, :_item_sku)",
                        each="extras")  # fmt: skip

    with es.open(":memory:", Order, Prices) as shop:
        shop[Order, "1"].ask(
            Place([], prices={"a": 1.5, "b": 0.0}, extras={7: Line("a", 2), 0: Line("z")})
        )
        assert rows(shop, Prices, "SELECT * FROM prices ORDER BY 1") == [
            ("a", 1.5, 1), ("b", 0.0, 1),
        ]  # fmt: skip
        found = rows(shop, Prices, "SELECT k, item, sku FROM extras ORDER BY 1")
        assert [(k, sku) for k, _, sku in found] == [(0, "z"), (7, "a")]
        assert json.loads(found[1][1])["quantity"] == 2


@pytest.mark.parametrize("kind", [{}, {"inline": True}, {"file": ":memory:"}, {"python": True}])
def test_lists_expanded_by_a_statement(kind: dict[str, Any]) -> None:
    """SQLite's functions that make tables, in SQL of the class and of a handler."""
    expand = """INSERT INTO many SELECT :order, value ->> 'sku' FROM json_each(:lines)
        WHERE value ->> 'quantity' > 1 ORDER BY 2 DESC"""
    deep = """INSERT INTO many SELECT :order, atom FROM json_tree(:lines) WHERE key = 'note'"""

    class Many(Model):
        schema = "CREATE TABLE many (number TEXT, sku TEXT)"
        if "python" not in kind:
            locals().update(kind)
            placed = es.sql(Placed, expand, deep)
        else:

            @es.on(Placed)
            def by_hand(self, db: es.Rows, event: Placed) -> None:
                lines = [
                    {"sku": one.sku, "quantity": one.quantity, "note": one.note}
                    for one in event.lines
                ]
                values = {"order": event.order, "lines": json.dumps(lines)}
                db.execute(expand, values)
                db.execute(deep, values)

    with es.open(":memory:", Order, Many) as shop:
        shop[Order, "1"].ask(Place([Line("a", 1), Line("b", 2), Line("c", 3, "urgent")]))
        shop[Order, "2"].ask(Place([]))
        assert rows(shop, Many, "SELECT sku FROM many WHERE sku NOT NULL ORDER BY rowid") == [
            ("c",), ("b",), ("urgent",),
        ]  # fmt: skip
        assert list(shop[Many].compare()) == []


def test_an_item_that_fails_takes_its_event_back() -> None:
    class Unique(Model):
        schema = "CREATE TABLE skus (sku TEXT PRIMARY KEY)"
        on_error = "park"
        lines = es.sql(Placed, "INSERT INTO skus VALUES (:_item_sku)", each="lines")

    with es.open(":memory:", Order, Unique) as shop:
        shop[Order, "1"].ask(Place([Line("a")]))
        shop[Order, "2"].ask(Place([Line("b"), Line("c"), Line("a")]))
        shop[Order, "3"].ask(Place([Line("d")]))
        assert rows(shop, Unique, "SELECT sku FROM skus ORDER BY 1") == [("a",), ("d",)]
        assert [one.position for one in shop[Unique].parked()] == [2]


def test_every_event(tmp_path: Path) -> None:
    class Log(Model):
        schema = "CREATE TABLE log (at INTEGER PRIMARY KEY, type TEXT, stream TEXT, event TEXT)"
        every = es.sql(es.Event, "INSERT INTO log VALUES (:_position, :_type, :_stream, :_event)")

    path = tmp_path / "a.db"
    with es.open(path, Order) as shop:
        shop[Order, "1"].ask(Place([Line("a")]))
        shop[Order, "1"].ask(Finish(5))
    with es.open(path, Log) as shop:  # without the classes: as their records in the store say
        found = rows(shop, Log, "SELECT * FROM log ORDER BY 1")
    assert [one[:3] for one in found] == [
        (1, "Placed", "Order/1"), (2, "Paid", "Order/1"), (3, "Shipped", "Order/1"),
    ]  # fmt: skip
    assert json.loads(found[1][3]) == {"order": "1", "amount": 5}
    with es.open(path, Order, Log) as shop:
        shop[Order, "2"].ask(Finish(6))
        assert rows(shop, Log, "SELECT count(*), max(event ->> 'amount') FROM log") == [(5, 6)]


def test_every_event_in_python() -> None:
    class Count(Model):
        schema = "CREATE TABLE seen (type TEXT PRIMARY KEY, n INTEGER)"

        @es.on(es.Event)
        def every(self, db: es.Rows, event: es.Event, recorded: es.Recorded) -> None:
            assert type(event).__name__ == recorded.type
            db.execute(
                "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1",
                (recorded.type,),
            )

    with es.open(":memory:", Order, Count) as shop:
        for _ in range(3):
            shop[Order, "1"].ask(Finish(5))
        assert rows(shop, Count, "SELECT * FROM seen ORDER BY 1") == [("Paid", 3), ("Shipped", 3)]


def test_order_of_what_is_done_with_one_event() -> None:
    class Steps(Model):
        schema = "CREATE TABLE steps (n INTEGER PRIMARY KEY, what TEXT)"
        first = es.sql(Paid, "INSERT INTO steps (what) VALUES ('first')",
                       "INSERT INTO steps (what) VALUES ('second')")  # fmt: skip
        every = es.sql(es.Event, "INSERT INTO steps (what) VALUES ('every')")

        @es.on(Paid, Shipped)
        def third(self, db: es.Rows, event: Paid | Shipped) -> None:
            db.execute("INSERT INTO steps (what) VALUES (?)", (type(event).__name__,))

        last = es.sql(Paid, Shipped, "INSERT INTO steps (what) VALUES ('last ' || :order)")

    with es.open(":memory:", Order, Steps) as shop:
        shop[Order, "7"].ask(Finish(5))
        assert [what for (what,) in rows(shop, Steps, "SELECT what FROM steps ORDER BY n")] == [
            "first", "second", "every", "Paid", "last 7", "every", "Shipped", "last 7",
        ]  # fmt: skip


def test_tags(tmp_path: Path) -> None:
    class Vip(Model):
        schema = "CREATE TABLE vip (at INTEGER, how TEXT)"
        one = es.sql(Paid, "INSERT INTO vip VALUES (:_position, 'one')", tags=["vip"])
        both = es.sql(Paid, "INSERT INTO vip VALUES (:_position, 'both')", tags=["vip", "eu"])
        every = es.sql(es.Event, "INSERT INTO vip VALUES (:_position, 'eu')", tags=("eu",))

        @es.on(Paid, tags=["us"])
        def python(self, db: es.Rows, event: Paid, recorded: es.Recorded) -> None:
            db.execute("INSERT INTO vip VALUES (?, ?)", (recorded.position, event.order))

    path = tmp_path / "a.db"
    with es.Store(path) as store:
        for tags in ([], ["vip"], ["eu", "x", "vip"], ["us"], ["viper"]):
            store.append("Order/1", [es.NewEvent("Paid", es.to_bytes(Paid("1", 1)), tags=tags)])
        store.append("Order/1", [es.NewEvent("Shipped", es.to_bytes(Shipped("1")), tags=["eu"])])
    with es.open(path, Vip) as shop:
        assert rows(shop, Vip, "SELECT * FROM vip ORDER BY 1, 2") == [
            (2, "one"), (3, "both"), (3, "eu"), (3, "one"), (4, "1"), (6, "eu"),
        ]  # fmt: skip


def test_changed_filters_build_anew(tmp_path: Path) -> None:
    def model(**filters: Any) -> Any:
        return type(
            "Vip",
            (Model,),
            {
                "schema": "CREATE TABLE vip (at INTEGER)",
                "one": es.sql(Paid, "INSERT INTO vip VALUES (:_position)", **filters),
                "__qualname__": f"changed.{len(filters)}.Vip",
            },
        )

    path = tmp_path / "a.db"
    with es.open(path, Order, first := model()) as shop:
        shop[Order, "1"].ask(Finish(1))
        assert rows(shop, first, "SELECT * FROM vip") == [(1,)]
    with es.open(path, Order, second := model(tags=["vip"])) as shop:
        assert rows(shop, second, "SELECT * FROM vip") == []


def test_upserts_and_expressions() -> None:
    class Sums(Model):
        schema = "CREATE TABLE sums (day TEXT PRIMARY KEY, total INTEGER, last TEXT)"
        paid = es.sql(
            Paid,
            """INSERT INTO sums VALUES (date(:_time), :amount * 100, :order)
               ON CONFLICT (day) DO UPDATE SET total = total + excluded.total,
                   last = CASE WHEN :amount > 5 THEN excluded.last ELSE last END""",
        )

    with es.open(":memory:", Order, Sums) as shop:
        for order, amount in (("1", 3), ("2", 9), ("3", 1)):
            shop[Order, order].ask(Finish(amount))
        total = sum(one[1] for one in rows(shop, Sums, "SELECT * FROM sums"))
        assert total == 1300


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: es.sql(es.Event, "INSERT INTO t VALUES (:order)"), ValueError, "no field"),
        (lambda: es.sql(Placed, "INSERT INTO t VALUES (:_item)"), ValueError, ":_item"),
        (lambda: es.sql(Placed, "INSERT INTO t VALUES (1)", each="order"), ValueError, "no list"),
        (lambda: es.sql(Placed, "INSERT INTO t VALUES (1)", each="nope"), ValueError, "no list"),
        (lambda: es.sql(es.Event, "INSERT INTO t VALUES (1)", each="x"), ValueError, "no list"),
        (
            lambda: es.sql(Placed, "INSERT INTO t VALUES (:_item_sku)", each="coupons"),
            ValueError,
            ":_item_sku",
        ),
        (
            lambda: es.sql(Placed, "INSERT INTO t VALUES (:_item_nope)", each="lines"),
            ValueError,
            ":_item_nope",
        ),
        (lambda: es.sql(Placed, "INSERT INTO t VALUES (:_key)", each="lines"), ValueError, ":_key"),
        (lambda: es.sql(es.Event, Paid, "INSERT INTO t VALUES (1)"), TypeError, "alone"),
        (lambda: es.sql(Paid, "INSERT INTO t VALUES (1)", tags="vip"), TypeError, "several"),
        (lambda: es.sql(Paid, "INSERT INTO t VALUES (1)", tags=[""]), ValueError, "empty"),
        (lambda: es.on(Paid, tags=[1])(lambda self, db, e: None), TypeError, "tag is a str"),
        (lambda: es.sql(Paid, "INSERT INTO t VALUES (1)", each=3), TypeError, "each"),
    ],
)
def test_what_is_refused(build: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        with es.open(":memory:", type("Bad", (Model,), {"schema": "CREATE TABLE t (x)",
                                                         "bad": build()})):  # fmt: skip
            pass
