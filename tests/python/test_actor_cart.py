"""The cart of the talk, as the contract writes it."""

from __future__ import annotations

import logging
from pathlib import Path

import escqrs as es
import pytest
import support


class AddItem(es.Command):
    name: str
    quantity: int = 1


class AddItemError(es.Message):
    text: str


class ItemAdded(es.Event, name="TalkItemAdded"):
    item_id: str
    name: str
    quantity: int


class CartState(es.Message, name="TalkCartState"):
    items: dict[str, int]


class ItemsUpdater(es.Actor):
    def __init__(self, rows: list[tuple[str, int]]) -> None:
        self.rows = rows

    def receive(self, ctx: es.Context, message: object) -> None:
        match message:
            case ItemAdded(name=name, quantity=quantity):
                self.rows.append((name, quantity))


class CartActor(es.PersistentActor):
    def __init__(self, updater: es.Ref) -> None:
        self.updater = updater
        self.items: dict[str, int] = {}

    def receive(self, ctx: es.Context, message: object) -> None:
        match message:
            case AddItem(name=name) if name in self.items:
                ctx.respond(AddItemError("item already exists"))
            case AddItem(name=name, quantity=quantity):
                event = self.persist(ItemAdded(es.new_id(), name, quantity))
                ctx.respond(event)
                ctx.tell(self.updater, event)
            case ItemAdded(name=name, quantity=quantity):
                self.items[name] = quantity
            case es.RequestSnapshot():
                self.persist_snapshot(CartState(self.items))
            case es.OfferSnapshot(snapshot=state):
                self.items = dict(state.items)
            case es.ReplayComplete(version=version):
                ctx.log.info("recovered at version %d", version)


@pytest.mark.parametrize("every", [1, 2, 100])
def test_the_talks_cart(tmp_path: Path, caplog: pytest.LogCaptureFixture, every: int) -> None:
    caplog.set_level(logging.INFO, "escqrs")
    rows: list[tuple[str, int]] = []
    for life in range(3):
        with es.ActorSystem() as system, es.Store(tmp_path / "carts.db") as store:
            updater = system.spawn(lambda: ItemsUpdater(rows))
            props = es.Props(
                lambda updater=updater: CartActor(updater),
                middleware=[es.persistence(store, snapshot_every=every)],
            )
            cart = system.spawn(props, name="item-book")
            with pytest.raises(es.NameExists) as caught:
                system.spawn(props, name="item-book")
            assert caught.value.ref == cart
            added = cart.ask(AddItem(f"book-{life}"), timeout=support.SECONDS)
            assert (added.name, added.quantity) == (f"book-{life}", 1)
            stream = system.stream()
            cart.tell(AddItem(f"book-{life}"), sender=stream)
            assert stream.get(timeout=support.SECONDS) == AddItemError("item already exists")
            cart.tell(AddItem(f"pen-{life}", 2), sender=stream)
            assert stream.get(timeout=support.SECONDS).name == f"pen-{life}"
            cart.poison()
            cart.wait_stopped(timeout=support.SECONDS)
            assert store.version("item-book") == 2 * (life + 1)
    assert rows == [one for life in range(3) for one in ((f"book-{life}", 1), (f"pen-{life}", 2))]
    lines = [one.getMessage() for one in caplog.records if "recovered" in one.getMessage()]
    assert lines == [f"/item-book: recovered at version {version}" for version in (0, 2, 4)]
