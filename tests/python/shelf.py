"""An aggregate that does what an aggregate can do, for the tests of aggregates."""

from __future__ import annotations

import weakref
from typing import Any

import escqrs as es


class Put(es.Command[int]):
    name: str
    amount: int = 1


class PutMany(es.Command[int]):
    names: list[str]
    fail: str = ""


class Clear(es.Command):
    pass


class Answer(es.Command):
    what: str


class Number(es.Command[int]):
    what: str


class Text(es.Command["str | None"]):
    what: str


class Texts(es.Command[list[str]]):
    what: str


class Placed(es.Event):
    name: str
    amount: int


class Cleared(es.Event):
    pass


class Unheard(es.Event):
    pass


class Meddle(es.Command):
    how: str


ANSWERS: dict[str, Any] = {
    "int": 3,
    "bool": True,
    "text": "three",
    "none": None,
    "texts": ["a", "b"],
    "mixed": ["a", 1],
    "object": object(),
}


class Shelf(es.Aggregate):
    items: dict[str, int]
    log: list[str]
    total: int
    note: str | None = None

    @es.handles
    def put(self, cmd: Put) -> int:
        if cmd.amount < 0:
            raise es.Rejected(f"cannot put {cmd.amount}")
        before = self.total
        event = self.emit(Placed(cmd.name, cmd.amount))
        assert event == Placed(cmd.name, cmd.amount)
        assert self.total == before + cmd.amount
        return self.total

    @es.handles
    def put_many(self, cmd: PutMany) -> int:
        for name in cmd.names:
            self.emit(Placed(name, 1))
        if cmd.fail:
            raise LookupError(cmd.fail)
        return self.version

    @es.handles
    def clear(self, cmd: Clear) -> None:
        self.emit(Cleared())

    @es.handles
    def answer(self, cmd: Answer) -> Any:
        self.emit(Cleared())
        return ANSWERS[cmd.what]

    @es.handles
    def number(self, cmd: Number) -> int:
        self.emit(Cleared())
        return ANSWERS[cmd.what]

    @es.handles
    def text(self, cmd: Text) -> str | None:
        self.emit(Cleared())
        return ANSWERS[cmd.what]

    @es.handles
    def texts(self, cmd: Texts) -> list[str]:
        self.emit(Cleared())
        return ANSWERS[cmd.what]

    @es.handles
    def meddle(self, cmd: Meddle) -> None:
        if cmd.how == "assign":
            self.total = 99
        elif cmd.how == "delete":
            del self.total
        elif cmd.how == "unknown field":
            self.nothing = 1
        elif cmd.how == "unheard":
            self.emit(Unheard())
        elif cmd.how == "no event":
            self.emit("Placed")
        elif cmd.how == "class":
            self.emit(Placed)
        elif cmd.how == "command":
            self.emit(Put("a"))
        elif cmd.how == "swallow":
            try:
                self.emit(Placed("bad", -1))
            except ValueError:
                pass

    @es.applies
    def placed(self, event: Placed) -> None:
        if event.amount < 0:
            raise ValueError("no negative amounts")
        self.items[event.name] = self.items.get(event.name, 0) + event.amount
        self.log.append(event.name)
        self.total += event.amount

    @es.applies
    def cleared(self, event: Cleared) -> None:
        self.items = {}
        self.log = []
        self.total = 0


class Raise(es.Command):
    what: str


class Own(Exception):
    def __init__(self, code: int, *, extra: str) -> None:
        super().__init__(code)
        self.extra = extra


class Slotted(Exception):
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("frozen")


THE_SAME = ValueError("the same")


INNER = KeyError("inner")


class Raiser(es.Aggregate):
    @es.handles
    def handle(self, cmd: Raise) -> None:
        match cmd.what:
            case "interrupt":
                raise KeyboardInterrupt
            case "exit":
                raise SystemExit(3)
            case "stop":
                raise StopIteration(4)
            case "generator exit":
                raise GeneratorExit
            case "own":
                raise Own(7, extra="more")
            case "same":
                raise THE_SAME
            case "group":
                raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])
            case "cause":
                raise ValueError("outer") from KeyError("inner")
            case "linked":
                try:
                    raise INNER
                except KeyError as error:
                    raise THE_SAME from error
            case "member":
                try:
                    raise INNER
                except KeyError as error:
                    raise ExceptionGroup("several", [error]) from None
            case "slotted":
                raise Slotted("s")
            case "memory":
                raise MemoryError
            case "deep":
                self.deep()
            case "local":
                big = Local()
                KEPT.append(weakref.ref(big))
                raise ValueError(str(big))

    def deep(self) -> None:
        self.deep()


class Local:
    pass


KEPT: list[weakref.ref[Local]] = []
