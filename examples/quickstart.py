#!/usr/bin/env python3
"""The quick start: a cart, its commands and events, and a read model in SQL.

    python examples/quickstart.py [FILE]

Without FILE it runs on a fresh file in a temporary folder. With one it may be run again and again:
what an earlier run has stored is still there, and what it already did is refused.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import escqrs as es


class AddItem(es.Command[str]):  # a command, and the type of its reply
    name: str
    quantity: int = 1


class ItemAdded(es.Event):
    item_id: str
    name: str
    quantity: int


class Cart(es.Aggregate):
    items: dict[str, int]  # the state: annotated fields, snapshotted as protobuf

    @es.handles  # which command: the annotation of the parameter
    def add(self, cmd: AddItem) -> str:
        if cmd.name in self.items:
            raise es.Rejected(f"item {cmd.name} already exists")
        added = self.emit(ItemAdded(es.new_id(), cmd.name, cmd.quantity))
        return added.item_id  # the reply, delivered once the event is durable

    @es.applies  # the only place where state changes; also run by replay
    def added(self, event: ItemAdded) -> None:
        self.items[event.name] = event.quantity


class Items(es.ReadModel):
    schema = """
        CREATE TABLE items (
            id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, quantity INTEGER NOT NULL
        )
    """
    # bound to the event's fields and run in C
    on_added = es.sql(ItemAdded, "INSERT INTO items VALUES (:item_id, :name, :quantity)")

    @es.query
    def by_name(self, db: es.Rows, name: str) -> list[tuple[Any, ...]]:
        return db.execute("SELECT * FROM items WHERE name = :name", {"name": name}).fetchall()


def add_items(shop: es.System) -> None:
    """Send commands in the three ways there are, and show what comes back."""
    cart = shop[Cart, "cart-1"]  # a reference; the entity is loaded when first used

    print("ask: send and wait")
    try:
        print(f"  book -> item {cart.ask(AddItem('book', 2))}")
    except es.Rejected as refusal:
        print(f"  book -> refused: {refusal}")

    print("submit: send and go on; the reply comes later")
    reply = cart.submit(AddItem("pen"))
    try:
        print(f"  pen  -> item {reply.result(timeout=10)}")
    except es.Rejected as refusal:
        print(f"  pen  -> refused: {refusal}")

    print("tell: fire and forget")
    if "ink" not in cart.state.items:  # a refusal would have nobody to go to but the log
        cart.tell(AddItem("ink"))
    shop.flush()  # all that was sent is durable and projected
    print(f"  the cart now holds {cart.state.items}")

    print("A command that the cart refuses leaves nothing behind:")
    try:
        cart.ask(AddItem("book"))
    except es.Rejected as refusal:
        print(f"  book -> refused: {refusal}")


def show(shop: es.System) -> None:
    """Look at what is stored: read model, state now and before, history, the whole store."""
    cart = shop[Cart, "cart-1"]
    print("\nThe read model's row for the book:", shop[Items].by_name("book"))
    print("The cart's state:          ", cart.state.items)
    print("The same at its version 1: ", cart.state_at(version=1).items)
    print("Its history:")
    for recorded in cart.history():
        print(
            f"  version {recorded.version}  {recorded.time:%Y-%m-%d %H:%M:%S} UTC  {recorded.event}"
        )
    print("The whole store in global order:")
    for recorded in shop.events(after=0):
        print(f"  position {recorded.position}  {recorded.stream}  {recorded.type}")


def main(path: Path) -> None:
    with es.open(path, Cart, Items) as shop:  # ":memory:" for tests
        add_items(shop)
        show(shop)
        before = dict(shop[Cart, "cart-1"].state.items)

    with es.open(path, Cart, Items) as shop:  # opened again: the state comes back by replay
        after = dict(shop[Cart, "cart-1"].state.items)
    print(f"\nClosed and opened again, the cart holds: {after}")
    if after != before:
        sys.exit(f"the cart held {before} before the file was closed")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory(prefix="escqrs-") as folder:
            main(Path(folder) / "shop.db")
