"""Carts, and the read model of their items, for the tests of read models."""

from __future__ import annotations

import datetime
import enum
import itertools

import escqrs as es


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


class Part(es.Message):
    name: str
    size: int = 3


class ItemAdded(es.Event):
    name: str
    quantity: int = 1


class Everything(es.Event):
    number: int
    real: float
    flag: bool
    text: str
    raw: bytes
    at: datetime.datetime
    color: Color
    part: Part
    tags: list[str]
    counts: dict[str, int]
    note: str | None = None


class AddItem(es.Command[None]):
    name: str
    quantity: int = 1


class Tell(es.Command[None]):
    real: float = 1.5


AT = datetime.datetime(2026, 1, 31, 12, 30, 0, 5, tzinfo=datetime.UTC)


class Cart(es.Aggregate):
    count: int

    @es.handles
    def add(self, cmd: AddItem) -> None:
        self.emit(ItemAdded(cmd.name, cmd.quantity))

    @es.handles
    def tell_all(self, cmd: Tell) -> None:
        self.emit(
            Everything(
                2**62,
                cmd.real,
                True,
                "tëxt\0",
                b"\0\1",
                AT,
                Color.GREEN,
                Part("p"),
                ["a", "b"],
                {"x": 1},
            )
        )

    @es.applies
    def added(self, event: ItemAdded) -> None:
        self.count += 1

    @es.applies
    def told(self, event: Everything) -> None:
        pass


SCHEMA = """CREATE TABLE items
    (position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, quantity INTEGER NOT NULL)"""
INSERT = "INSERT INTO items VALUES (:_position, :name, :quantity)"


class Items(es.ReadModel):
    schema = SCHEMA
    on_added = es.sql(ItemAdded, INSERT)

    @es.query
    def all(self, db: es.Rows) -> list[tuple]:
        return db.execute("SELECT name, quantity FROM items ORDER BY position").fetchall()

    @es.query
    def run(self, db: es.Rows, sql: str, parameters: object = ()) -> list[tuple]:
        return db.execute(sql, parameters).fetchall()  # type: ignore[arg-type]


def add(shop: es.System, *names: str) -> None:
    for name in names:
        shop[Cart, "c"].ask(AddItem(name))


_defined = itertools.count()


def define(sql: str = INSERT, schema: str = SCHEMA, **attributes: object) -> type[Items]:
    """Another class of the same name, but not a redefinition: its qualified name is another."""
    namespace = {
        "schema": schema,
        "on_added": es.sql(ItemAdded, sql),
        "__qualname__": f"define.{next(_defined)}.Items",
        **attributes,
    }
    return type("Items", (Items,), namespace)  # type: ignore[return-value]


class Others(es.ReadModel):
    schema = "CREATE TABLE others (n)"
    on_added = es.sql(ItemAdded, "INSERT INTO others VALUES (:_position)")

    @es.query
    def all(self, db: es.Rows) -> list[int]:
        return [n for (n,) in db.execute("SELECT n FROM others")]
