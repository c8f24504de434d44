"""Orders and what fulfils them, for the tests of processes."""

from __future__ import annotations

from datetime import timedelta

import escqrs as es
from support import SECONDS

HOUR = timedelta(hours=1)


class Place(es.Command[None]):
    amount: int = 1


class Pay(es.Command[None]):
    pass


class Ship(es.Command[str]):
    note: str = ""


class Cancel(es.Command[None]):
    reason: str


class Placed(es.Event):
    amount: int


class Paid(es.Event):
    pass


class Shipped(es.Event):
    note: str


class Cancelled(es.Event):
    reason: str


refuses: set[str] = set()  # orders that cannot be shipped


class Order(es.Aggregate):
    steps: list[str]

    @es.handles
    def place(self, cmd: Place) -> None:
        self.emit(Placed(cmd.amount))

    @es.handles
    def pay(self, cmd: Pay) -> None:
        self.emit(Paid())

    @es.handles
    def ship(self, cmd: Ship) -> str:
        if self.id in refuses:
            raise es.Rejected("out of stock")
        self.emit(Shipped(cmd.note))
        return "shipped"

    @es.handles
    def cancel(self, cmd: Cancel) -> None:
        self.emit(Cancelled(cmd.reason))

    @es.applies
    def done(self, event: Placed | Paid | Shipped | Cancelled) -> None:
        self.steps.append(type(event).__name__)


class Fulfilment(es.Process):
    amount: int
    paid: bool

    @es.on(Placed, starts=True)
    def placed(self, event: Placed) -> None:
        self.amount = event.amount
        self.after(HOUR, "payment")

    @es.on(Paid)
    def is_paid(self, event: Paid) -> None:
        if event.__class__ is not Paid:
            raise AssertionError
        self.paid = True
        self.cancel("payment")
        self.send(Order, self.id, Ship(f"{self.amount} pieces"))

    @es.timer("payment")
    def late(self) -> None:
        self.send(Order, self.id, Cancel("not paid"))

    @es.on(Shipped, Cancelled)
    def over(self, event: es.Event) -> None:
        self.done()


class Forgiving(Fulfilment):
    """Takes it that it cannot be shipped."""

    @es.rejected(Ship)
    def not_shipped(self, command: Ship, error: Exception) -> None:
        self.send(Order, self.id, Cancel(f"{command.note}: {error}"))


def steps(shop: es.System, id: str) -> list[str]:
    return list(shop[Order, id].state.steps)


def flush(shop: es.System) -> None:
    shop.flush(SECONDS)


def types(shop: es.System, id: str, name: str = "Fulfilment") -> list[str]:
    return [one.type for one in shop.store.history(f"escqrs.process/{name}/{id}")]
