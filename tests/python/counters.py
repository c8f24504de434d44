"""An aggregate whose handlers wait, fail and send, for the tests of handles."""

from __future__ import annotations

import datetime
import threading
from typing import Any

import escqrs as es
import support


class Add(es.Command[int]):
    amount: int


class Fail(es.Command):
    text: str = "no"


class Wait(es.Command[str]):
    door: str


class Forward(es.Command[int]):
    """Emit, then pass `amount` on to `to`."""

    to: str
    amount: int
    how: str = "tell"
    fail: bool = False


class Report(es.Command["Summary"]):
    pass


class Everything(es.Command):
    pass


class Opaque(es.Command):
    pass


class Untold(es.Command):
    """Answers a message that its class does not name."""


class Teller(es.Aggregate):
    @es.handles
    def tell_all(self, cmd: Untold) -> Any:
        return Summary(1, [self.id])


class Summary(es.Message):
    total: int
    names: list[str]


class Added(es.Event):
    amount: int


class Forwarded(es.Event):
    to: str


class Door:
    """Where a handler waits until it is let through."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def wait(self) -> None:
        assert self.reached.wait(support.SECONDS)


DOORS: dict[str, Door] = {}


REPLIES: dict[str, Any] = {}


RUNS: list[str] = []


EVERYTHING: Any = {
    "none": None,
    "flags": [True, False],
    "numbers": (1, 2.5, float("inf"), -(2**70)),
    "bytes": b"\0\xff",
    "when": datetime.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=datetime.UTC),
    "sets": {frozenset({1, 2})},
    3: {"nested": {"deep": [Added(4)]}},
    "event": Added(5),
}


class Counter(es.Aggregate):
    total: int

    @es.handles
    def add(self, cmd: Add) -> int:
        RUNS.append(self.id)
        self.emit(Added(cmd.amount))
        return self.total

    @es.handles
    def fail(self, cmd: Fail) -> None:
        raise es.Rejected(cmd.text)

    @es.handles
    def wait(self, cmd: Wait) -> str:
        door = DOORS[cmd.door]
        door.reached.set()
        assert door.open.wait(support.SECONDS)
        return "through"

    @es.handles
    def forward(self, cmd: Forward) -> int:
        self.emit(Forwarded(cmd.to))
        other = self.system[Counter, cmd.to]
        answer = 0
        if cmd.how == "tell":
            other.tell(Add(cmd.amount))
        elif cmd.how == "submit":
            REPLIES[self.id] = other.submit(Add(cmd.amount))
        else:
            answer = other.ask(Add(cmd.amount))
        if cmd.fail:
            raise es.Rejected("after sending")
        return answer

    @es.handles
    def report(self, cmd: Report) -> Summary:
        return Summary(self.total, [self.id])

    @es.handles
    def everything(self, cmd: Everything) -> Any:
        self.emit(Added(1))
        return EVERYTHING

    @es.handles
    def opaque(self, cmd: Opaque) -> Any:
        self.emit(Added(1))
        return object()

    @es.applies
    def added(self, event: Added) -> None:
        self.total += event.amount

    @es.applies
    def forwarded(self, event: Forwarded) -> None:
        pass


class Stranger(es.Command):
    pass
