"""Process managers against a model: random events, times, refusals, restarts and crashes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import escqrs as es
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECONDS

MINUTES_TO_PAY = 60


class Do(es.Command[None]):
    """Place, pay or cancel."""

    what: str


class Ship(es.Command[None]):
    pass


class Cancel(es.Command[None]):
    reason: str


class Placed(es.Event):
    pass


class Paid(es.Event):
    pass


class Shipped(es.Event):
    pass


class Cancelled(es.Event):
    reason: str


refuses: set[str] = set()


class Order(es.Aggregate):
    steps: list[str]

    @es.handles
    def do(self, cmd: Do) -> None:
        if cmd.what == "cancel":
            self.emit(Cancelled("by hand"))
        else:
            self.emit(Placed() if cmd.what == "place" else Paid())

    @es.handles
    def ship(self, cmd: Ship) -> None:
        if self.id in refuses:
            raise es.Rejected("no")
        self.emit(Shipped())

    @es.handles
    def cancel(self, cmd: Cancel) -> None:
        self.emit(Cancelled(cmd.reason))

    @es.applies
    def happened(self, event: Placed | Paid | Shipped | Cancelled) -> None:
        reason = f" {event.reason}" if isinstance(event, Cancelled) else ""
        self.steps.append(type(event).__name__ + reason)


class Fulfilment(es.Process):
    placed: int

    @es.on(Placed, starts=True)
    def on_placed(self, event: Placed) -> None:
        self.placed += 1
        self.after(timedelta(minutes=MINUTES_TO_PAY), "payment")

    @es.on(Paid)
    def on_paid(self, event: Paid) -> None:
        self.cancel("payment")
        self.send(Order, self.id, Ship())

    @es.timer("payment")
    def late(self) -> None:
        self.send(Order, self.id, Cancel("late"))

    @es.rejected(Ship)
    def not_shipped(self, command: Ship, error: Exception) -> None:
        self.send(Order, self.id, Cancel("refused"))

    @es.on(Shipped, Cancelled)
    def over(self, event: es.Event) -> None:
        self.done()


@dataclass
class Model:
    """What an order and its process come to."""

    steps: list[str] = field(default_factory=list)
    status: str | None = None
    placed: int = 0
    due: int | None = None  # minutes

    def end(self, *steps: str) -> None:
        self.steps += steps
        self.status, self.due = "ended", None

    def do(self, what: str, now: int, is_refused: bool) -> None:
        self.steps.append({"place": "Placed", "pay": "Paid", "cancel": "Cancelled by hand"}[what])
        if what == "place" and self.status != "ended":
            self.status, self.placed, self.due = "active", self.placed + 1, now + MINUTES_TO_PAY
        elif self.status == "active" and what == "pay":
            self.end("Cancelled refused" if is_refused else "Shipped")
        elif self.status == "active":
            self.end()

    def pass_time(self, now: int) -> None:
        if self.due is not None and self.due <= now:
            self.end("Cancelled late")


def opened(store: es.Store, clock: es.ManualClock) -> es.System:
    return es.open(store, Order, Fulfilment, clock=clock)


def close(shop: es.System) -> None:
    shop.close()
    shop.store.close()


def reopened(shop: es.System, clock: es.ManualClock, *, dies: bool) -> es.System:
    if not dies:
        shop.close()
        return opened(shop.store, clock)
    copy = shop.store.clone()  # what a process that died now would leave
    close(shop)
    return opened(copy, clock)


IDS = ["a", "b", "c"]
scripts = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["place", "pay", "cancel"]), st.sampled_from(IDS)),
        st.tuples(st.just("refuse"), st.sampled_from(IDS)),
        st.tuples(st.just("advance"), st.sampled_from([20, 40, 60])),
        st.tuples(st.sampled_from(["restart", "crash"]), st.booleans()),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(scripts)
def test_against_a_model(script):
    refuses.clear()
    clock = es.ManualClock()
    models = {id: Model() for id in IDS}
    now = 0
    shop = opened(es.Store(":memory:"), clock)
    for kind, value in script:
        if kind == "refuse":
            refuses.symmetric_difference_update([value])
        elif kind == "advance":
            now += value
            clock.advance(timedelta(minutes=value))
            shop.flush(SECONDS)  # all that was due has happened before the next command
            for one in models.values():
                one.pass_time(now)
        elif kind in ("restart", "crash"):
            if value:  # without what is on its way
                shop.flush(SECONDS)
            shop = reopened(shop, clock, dies=kind == "crash")
            shop.flush(SECONDS)
        else:
            shop[Order, value].ask(Do(kind))
            models[value].do(kind, now, value in refuses)
            shop.flush(SECONDS)
    shop.flush(SECONDS)
    for id, model in models.items():
        assert list(shop[Order, id].state.steps) == model.steps
        instance = shop[Fulfilment].instance(id)
        assert (instance and instance.status) == model.status
        assert (instance.state.placed if instance else 0) == model.placed
        assert bool(instance and instance.timers) == (model.due is not None)
        assert not (instance and instance.commands)
    counts = [one.status for one in models.values()]
    status = shop[Fulfilment].status
    assert (status.active, status.ended) == (counts.count("active"), counts.count("ended"))
    close(shop)


@settings(max_examples=40, deadline=None)
@given(scripts, st.lists(st.integers(0, 60), max_size=4))
def test_it_may_die_at_any_commit(script, deaths):
    """The same commands, without waiting in between, on copies that were made at any moment: every
    order comes to one end, and commands are carried out once."""
    refuses.clear()
    clock = es.ManualClock()
    count = 0
    shop = opened(es.Store(":memory:"), clock)
    for kind, value in script:
        if kind == "advance":
            clock.advance(timedelta(minutes=value))
        elif kind in ("place", "pay", "cancel"):
            shop[Order, value].ask(Do(kind))
        count += 1
        if count in deaths:
            shop = reopened(shop, clock, dies=True)
    shop.flush(SECONDS)
    for id in IDS:
        steps = list(shop[Order, id].state.steps)
        paid = steps.count("Paid")
        assert steps.count("Shipped") <= paid
        assert steps.count("Cancelled late") <= 1
        instance = shop[Fulfilment].instance(id)
        if instance is None:
            assert "Placed" not in steps
        elif instance.status == "ended":
            assert {"Shipped", "Cancelled late", "Cancelled by hand"} & set(steps)
        else:
            assert "Shipped" not in steps
        requests = delivered = 0
        for recorded in shop.store.history(f"escqrs.process/Fulfilment/{id}"):
            requests += recorded.type == "escqrs.CommandRequested"
            delivered += recorded.type == "escqrs.CommandDelivered"
        assert requests == delivered
        assert requests == steps.count("Shipped") + steps.count("Cancelled late")
    close(shop)
