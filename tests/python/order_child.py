"""The shop whose process the kill loop kills.

    python order_child.py FILE ROUND

Prints ``ready``, then the number of each order that was acknowledged, until it is killed.
"""

from __future__ import annotations

import itertools
import sys
from datetime import timedelta

import escqrs as es

SECONDS_TO_PAY = 0.03


class Place(es.Command[None]):
    pays: bool


class Pay(es.Command[None]):
    pass


class Reserve(es.Command[None]):
    order: str


class End(es.Command[None]):
    how: str


class Placed(es.Event):
    pays: bool


class Paid(es.Event):
    pass


class Reserved(es.Event):
    order: str


class Ended(es.Event):
    how: str


class Order(es.Aggregate):
    ends: list[str]

    @es.handles
    def place(self, cmd: Place) -> None:
        self.emit(Placed(cmd.pays))

    @es.handles
    def pay(self, cmd: Pay) -> None:
        self.emit(Paid())

    @es.handles
    def end(self, cmd: End) -> None:
        self.emit(Ended(cmd.how))

    @es.applies
    def happened(self, event: Placed | Paid) -> None: ...

    @es.applies
    def ended(self, event: Ended) -> None:
        self.ends.append(event.how)


class Stock(es.Aggregate):
    reserved: dict[str, int]

    @es.handles
    def reserve(self, cmd: Reserve) -> None:
        if cmd.order.endswith("7"):
            raise es.Rejected("not this one")
        self.emit(Reserved(cmd.order))

    @es.applies
    def taken(self, event: Reserved) -> None:
        self.reserved[event.order] = self.reserved.get(event.order, 0) + 1


class Fulfilment(es.Process):
    reserves: int

    @es.on(Placed, starts=True)
    def placed(self, event: Placed) -> None:
        self.after(timedelta(seconds=SECONDS_TO_PAY), "payment")
        if event.pays:
            self.send(Order, self.id, Pay())

    @es.on(Paid)
    def paid(self, event: Paid) -> None:
        if self.cancel("payment"):
            self.reserves += 1
            self.send(Stock, "stock", Reserve(self.id))

    @es.on(Reserved, key="order")
    def reserved(self, event: Reserved) -> None:
        self.send(Order, self.id, End("shipped"))

    @es.rejected(Reserve)
    def sold_out(self, command: Reserve, error: Exception) -> None:
        self.send(Order, self.id, End("sold out"))

    @es.timer("payment")
    def late(self) -> None:
        self.send(Order, self.id, End("late"))

    @es.on(Ended)
    def over(self, event: Ended) -> None:
        self.done()


CLASSES = (Order, Stock, Fulfilment)


def main(path: str, round: str) -> None:
    with es.open(path, *CLASSES) as shop:
        print("ready", flush=True)
        for number in itertools.count():
            id = f"{round}-{number}"
            shop[Order, id].ask(Place(number % 3 != 0))
            print(id, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
