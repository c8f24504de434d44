#!/usr/bin/env python3
"""An order that is paid and shipped, or times out: a process manager, and a durable subscription.

    python examples/order.py [FILE]

Without FILE it runs on a fresh file in a temporary folder. With one it may be run again: what is
pending there goes on, timers that were due meanwhile fire, and no mail is sent twice.

The clock is put forward by a day, so that nobody has to wait for it.
"""

import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import escqrs as es


class Place(es.Command[None]):
    item: str


class Pay(es.Command[None]):
    pass


class Ship(es.Command[None]):
    pass


class Cancel(es.Command[None]):
    reason: str


class OrderPlaced(es.Event):
    item: str


class OrderPaid(es.Event):
    pass


class OrderShipped(es.Event):
    pass


class OrderCancelled(es.Event):
    reason: str


class Reserve(es.Command[None]):
    order_id: str


class Reserved(es.Event):
    order_id: str


class Order(es.Aggregate):
    status: str = "new"

    @es.handles
    def place(self, cmd: Place) -> None:
        if self.status == "new":
            self.emit(OrderPlaced(cmd.item))

    @es.handles
    def pay(self, cmd: Pay) -> None:
        if self.status != "placed":
            raise es.Rejected(f"order {self.id} is {self.status}")
        self.emit(OrderPaid())

    @es.handles
    def ship(self, cmd: Ship) -> None:
        self.emit(OrderShipped())

    @es.handles
    def cancel(self, cmd: Cancel) -> None:
        self.emit(OrderCancelled(cmd.reason))

    @es.applies
    def placed(self, event: OrderPlaced) -> None:
        self.status = "placed"

    @es.applies
    def paid(self, event: OrderPaid) -> None:
        self.status = "paid"

    @es.applies
    def shipped(self, event: OrderShipped) -> None:
        self.status = "shipped"

    @es.applies
    def cancelled(self, event: OrderCancelled) -> None:
        self.status = f"cancelled: {event.reason}"


class Stock(es.Aggregate):
    left: int = 2
    orders: list[str]

    @es.handles
    def reserve(self, cmd: Reserve) -> None:
        if not self.left:
            raise es.Rejected(f"no {self.id} left")
        self.emit(Reserved(cmd.order_id))

    @es.applies
    def reserved(self, event: Reserved) -> None:
        self.left -= 1
        self.orders.append(event.order_id)


class Fulfilment(es.Process):
    item: str  # the state, stored with all that a method does
    order_id: str

    @es.on(OrderPlaced, starts=True)  # whose event: by default that of the entity it happened to
    def placed(self, event: OrderPlaced) -> None:
        self.item, self.order_id = event.item, self.id
        self.after(timedelta(hours=24), "payment")

    @es.on(OrderPaid)
    def paid(self, event: OrderPaid) -> None:
        self.cancel("payment")
        self.send(Stock, self.item, Reserve(self.order_id))  # leaves once all this is durable

    @es.on(Reserved, key="order_id")  # an event of the stock: a field says whose it is
    def reserved(self, event: Reserved) -> None:
        self.send(Order, self.order_id, Ship())

    @es.rejected(Reserve)
    def sold_out(self, command: Reserve, error: Exception) -> None:
        self.send(Order, self.order_id, Cancel(str(error)))

    @es.timer("payment")
    def not_paid(self) -> None:
        self.send(Order, self.order_id, Cancel("not paid in time"))

    @es.on(OrderShipped, OrderCancelled)
    def over(self, event: es.Event) -> None:
        self.done()


def send_mails(shop: es.System) -> None:
    """As a program of its own would do it, for ever; here until there is nothing more."""
    with shop.subscribe("mailer", types=[OrderShipped, OrderCancelled], max_attempts=3) as mailer:
        while True:
            try:
                recorded = mailer.next(timeout=0)
            except es.Timeout:
                return
            print(f"  mail about {recorded.stream}: {recorded.event}")


def main(path: Path) -> None:
    clock = es.ManualClock()
    with es.open(path, Order, Stock, Fulfilment, clock=clock) as shop:
        for number in range(1, 6):
            shop[Order, f"order-{number}"].ask(Place("book"))
        for number in range(1, 5):
            reply = shop[Order, f"order-{number}"].submit(Pay())
            if (error := reply.exception()) is not None:
                print(f"order-{number}: {error}")
        shop.flush()  # also what the process caused
        print(shop[Fulfilment].status)
        for one in shop[Fulfilment].instances("active"):
            print(f"  {one.id} waits for its payment until {one.timers['payment']:%H:%M}")

        clock.advance(timedelta(hours=24))
        shop.flush()
        for number in range(1, 6):
            print(f"order-{number} is {shop[Order, f'order-{number}'].state.status}")
        send_mails(shop)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder) / "orders.db")
