"""What escqrs is measured with: an account for rates, a cart with a read model."""

from __future__ import annotations

import escqrs as es


class Deposit(es.Command[int]):
    amount: int
    note: str = "a note of ordinary length"


class Deposited(es.Event):
    amount: int
    note: str


class Fill(es.Command[int]):
    """Many events at once, to fill a file quickly."""

    count: int


class Account(es.Aggregate, snapshot_every=0):
    """Snapshots are off, so that loading one is a replay of all its events."""

    balance: int

    @es.handles
    def deposit(self, cmd: Deposit) -> int:
        self.emit(Deposited(cmd.amount, cmd.note))
        return self.balance

    @es.handles
    def fill(self, cmd: Fill) -> int:
        event = Deposited(1, "a note of ordinary length")
        for _ in range(cmd.count):
            self.emit(event)
        return self.balance

    @es.applies
    def deposited(self, event: Deposited) -> None:
        self.balance += event.amount


class AddItem(es.Command[str]):
    name: str
    quantity: int = 1


class ItemAdded(es.Event):
    item_id: str
    name: str
    quantity: int


class Cart(es.Aggregate, snapshot_every=0):
    items: dict[str, int]

    @es.handles
    def add(self, cmd: AddItem) -> str:
        if cmd.name in self.items:
            raise es.Rejected(f"item {cmd.name} already exists")
        added = self.emit(ItemAdded(es.new_id(), cmd.name, cmd.quantity))
        return added.item_id

    @es.applies
    def added(self, event: ItemAdded) -> None:
        self.items[event.name] = event.quantity


class Items(es.ReadModel):
    schema = (
        "CREATE TABLE items"
        " (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, quantity INTEGER NOT NULL)"
    )
    on_added = es.sql(ItemAdded, "INSERT INTO items VALUES (:item_id, :name, :quantity)")

    @es.query
    def count(self, db: es.Rows) -> int:
        return int(db.execute("SELECT count(*) FROM items").fetchone()[0])


def fill_accounts(path: object, accounts: int, events: int, at_once: int) -> None:
    """Write `events` events to each of so many accounts, `at_once` a command, interleaved."""
    with es.open(path, Account) as bank:
        handles = [bank[Account, f"account-{number}"] for number in range(accounts)]
        for done in range(0, events, at_once):
            count = min(at_once, events - done)
            for reply in [handle.submit(Fill(count)) for handle in handles]:
                reply.result()
