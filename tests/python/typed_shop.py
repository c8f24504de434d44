"""A program as a user of mypy or pyright writes it. It is checked and never run.

Where something must be refused, the line says what with; an ignored error that is none is an error
itself.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

import escqrs as es


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


class Price(es.Message):
    amount: int
    currency: str = "EUR"


class AddItem(es.Command[str]):
    name: str
    quantity: int = 1
    price: Price | None = None
    notes: list[str] = []
    sizes: dict[str, Size] = es.field(7, default_factory=dict)


class CountItems(es.Command[int | None]):
    pass


class Ping(es.Command):
    pass


class Clear(es.Command[None], name="shop.Clear"):
    at: datetime


class ItemAdded(es.Event, name="shop.ItemAdded"):
    item_id: str
    name: str
    quantity: int


class Cleared(es.Event):
    pass


class Cart(es.Aggregate, name="shop.Cart", snapshot_every=10):
    items: dict[str, int]
    cleared: datetime | None = None

    @es.handles
    def add(self, cmd: AddItem) -> str:
        assert_type(cmd.sizes, dict[str, Size])
        assert_type(self.id, str)
        assert_type(self.version, int)
        assert_type(self.system[Cart, "another"].ask(cmd), str)
        added = self.emit(ItemAdded(es.new_id(), cmd.name, quantity=cmd.quantity))
        assert_type(added, ItemAdded)
        return added.item_id

    @es.handles(CountItems, Ping)
    def count(self, cmd: CountItems | Ping) -> int | None:
        return len(self.items)

    @es.handles
    def clear(self, cmd: Clear) -> None:
        self.emit(cmd)  # type: ignore[type-var]
        self.emit(Cleared())

    @es.applies
    def added(self, event: ItemAdded) -> None:
        self.items[event.name] = event.quantity

    @es.applies(Cleared)
    def emptied(self, event: Cleared) -> None:
        self.items = {}


class Items(es.ReadModel):
    schema = "CREATE TABLE items (id TEXT PRIMARY KEY, name TEXT, quantity INTEGER)"
    on_added = es.sql(ItemAdded, "INSERT INTO items VALUES (:item_id, :name, :quantity)")

    @es.on(Cleared)
    def cleared(self, db: es.Rows, recorded: es.Recorded) -> None:
        db.execute("DELETE FROM items WHERE ? > 0", [recorded.position])

    @es.query
    def by_name(self, db: es.Rows, name: str, *, limit: int = 10) -> list[tuple[Any, ...]]:
        found = db.execute("SELECT * FROM items WHERE name = :name", {"name": name})
        return found.fetchmany(limit)


class Names(es.ReadModel, name="shop.Names"):
    schema = "CREATE TABLE names (name TEXT)"
    version = 2
    rebuild = "manual"
    on_added = es.sql(ItemAdded, "INSERT INTO names VALUES (:name)")


def messages() -> None:
    item = AddItem("book", 2, price=Price(3))
    assert_type(item.price, Price | None)
    assert_type(es.from_bytes(Price, es.to_bytes(Price(1))), Price)
    assert_type(es.from_json(Price, es.to_json(Price(1))), Price)
    assert_type(es.proto(Price, AddItem), str)
    AddItem()  # type: ignore[call-arg]
    AddItem(3)  # type: ignore[arg-type]
    AddItem("book", colour="red")  # type: ignore[call-arg]
    item.name = "pen"  # type: ignore[misc]


def commands(cart: es.Handle[Cart]) -> None:
    assert_type(cart.ask(AddItem("book", 2), timeout=1, key="once"), str)
    assert_type(cart.ask(CountItems(), metadata={"by": "me"}, correlation_id="x"), int | None)
    assert_type(cart.ask(Ping()), Any)
    reply = cart.submit(AddItem("pen"))
    assert_type(reply, es.Reply[str])
    assert_type(reply.result(timeout=1), str)
    assert_type(reply.exception(), BaseException | None)
    reply.add_done_callback(lambda done: print(done.result().upper()))
    cart.tell(AddItem("ink"))
    cart.ask("book")  # type: ignore[arg-type]
    cart.ask(ItemAdded("1", "book", 1))  # type: ignore[arg-type]
    cart.submit(AddItem("pen"), timeout=1)  # type: ignore[call-arg]


async def later(cart: es.Handle[Cart]) -> None:
    assert_type(await cart.submit(AddItem("pen")), str)


def stored(shop: es.System) -> None:
    cart = shop[Cart, "cart-1"]
    assert_type(cart, es.Handle[Cart])
    assert_type(cart.state, Cart)
    assert_type(cart.state.items, dict[str, int])
    assert_type(cart.state_at(version=1), Cart)
    for recorded in cart.history(after=1, reverse=True):
        assert_type(recorded.event, es.Event)
        match recorded.event:
            case ItemAdded(item_id, name=name):
                assert_type(item_id, str)
                assert_type(name, str)
            case _:
                pass
    for recorded in shop.events(after=0, match=[es.Match(types=[ItemAdded])], limit=10):
        assert_type(recorded.time, datetime)
        assert_type(recorded.metadata, Mapping[str, str])
    shop[Cart, 1]  # type: ignore[index]
    cart.state.prices  # type: ignore[attr-defined]


def read_models(shop: es.System) -> None:
    assert_type(shop[Items], Items)
    assert_type(shop[Items].by_name("book", limit=1), list[tuple[Any, ...]])
    assert_type(shop[Items].status.lag, int)
    shop[Items].wait(shop.head, timeout=1)
    shop[Items].rebuild()
    shop[Items].by_name(3)  # type: ignore[arg-type]
    shop[Cart]  # type: ignore[type-var]


async def the_store_below(store: es.Store) -> None:
    done = store.append("Cart/1", [ItemAdded("1", "book", 1)], expected=0)
    assert_type(done, es.Commit)
    again = store.commit([es.Write("Cart/1", [es.NewEvent("Noted", b"")])], key="once")
    assert_type(again.versions["Cart/1"], int)
    for recorded in store.history("Cart/1"):
        assert_type(recorded, es.Recorded)
    async for recorded in store.subscribe(after=done.position):
        assert_type(recorded, es.Recorded)
    store.append("Cart/1", [AddItem("book")])  # type: ignore[list-item]


def main() -> None:
    with es.open(Path("shop.db"), Cart, Items, Names, durability="normal") as shop:
        assert_type(shop, es.System)
        commands(shop[Cart, "cart-1"])
        shop.flush(timeout=1)
        stored(shop)
        read_models(shop)
