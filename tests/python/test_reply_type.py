"""The R of ``Command[R]``: what a reply of another type is to the caller, and that nothing is
stored then."""

from __future__ import annotations

import collections.abc
import datetime
import enum
import functools
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
)

import escqrs as es
import pytest
from support import SECONDS

T = TypeVar("T")


class Done(es.Event):
    pass


class Money(es.Message):
    amount: int


class Color(enum.Enum):
    RED = 1


class Size(enum.IntEnum):
    SMALL = 1


class Pair(NamedTuple):
    left: int


class Options(TypedDict):
    a: int


class HasName(Protocol):
    name: str


Meters = NewType("Meters", int)
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)

TYPES: list[tuple[Any, list[Any], list[Any]]] = [
    (int, [1, -(2**70), Size.SMALL], [True, 1.0, None, "1"]),
    (float, [1, 1.5, float("inf")], [True, "1", None]),
    (bool, [True], [1, None]),
    (str, ["", "a"], [b"a", None, 1]),
    (bytes, [b"a"], ["a", bytearray(b"a")]),
    (None, [None], [0, False, ""]),
    (type(None), [None], [0]),
    (datetime.datetime, [NOW], [NOW.date(), NOW.isoformat()]),
    (datetime.date, [NOW.date(), NOW], ["2026-01-02"]),
    (Color, [Color.RED], [1, "RED"]),
    (Money, [Money(1)], [1, Done(), {"amount": 1}]),
    (Pair, [Pair(1)], [(1,)]),
    (es.Event, [Done()], [Money(1)]),
    (es.Message, [Done(), Money(1)], [1]),
    (list[int], [[], [1]], [(1,), ["a"], [True], None]),
    (list[Money], [[Money(1)]], [[1], Money(1)]),
    (dict[str, int], [{}, {"a": 1}], [{1: 1}, {"a": "b"}, [], None]),
    (dict[str, list[int]], [{"a": [1]}], [{"a": ["b"]}]),
    (set[int], [{1}, set()], [{"a"}, [1]]),
    (tuple[int, str], [(1, "a")], [(1,), (1, 2), [1, "a"]]),
    (tuple[int, ...], [(), (1, 2)], [("a",), [1]]),
    (Optional[int], [1, None], ["a", True]),  # noqa: UP045
    (Union[int, str], [1, "a"], [None, 1.5]),  # noqa: UP007
    (Money | None, [Money(1), None], [1]),
    (Optional["Money"], [Money(1), None], [1]),
    ("Money", [Money(1)], [1]),
    ("list[Money]", [[Money(1)]], [[1]]),
    (list, [[1, "a"]], [(1,)]),
    (dict, [{}], [[]]),
    (Sequence[int], [[1], (1,)], ["ab", 1]),
    (collections.abc.Sequence, [[1], (1,), "ab"], [1, {1}]),
    (Mapping[str, int], [{"a": 1}], [{"a": "b"}, []]),
    (Iterable[int], [[1]], [1]),
    (Callable[[int], str], [str], [1]),
    (type[int], [int, bool], [1, str]),
    (Literal["a", "b"], ["a"], ["c", 1]),
    (Annotated[int, "meters"], [1], ["a", True]),
    (Meters, [1], ["a", True]),
    (Options, [{"a": 1}], [1, []]),
    (HasName, [3], []),
    (typing.NoReturn, [], [1, None]),
    (typing.Never, [], [1, None]),
    (Any, [1, None], []),
    (object, [1, None], []),
]


def aggregate(command: type, decorate: Callable[[Any], Any] = lambda function: function) -> Any:
    """One that answers a command with its class attribute ``answer``, and emits an event."""

    def answer(self: Any, cmd: Any) -> Any:
        self.emit(Done())
        return type(self).answer

    return type(
        "Answering",
        (es.Aggregate,),
        {
            "__module__": __name__,
            "handle": es.handles(command)(decorate(answer)),
            "done": es.applies(Done)(lambda self, event: None),
            "answer": None,
        },
    )


def command_of(annotation: Any) -> Any:
    return types.new_class(
        "Asked", (es.Command[annotation],), {}, lambda space: space.update(__module__=__name__)
    )


@pytest.mark.parametrize(("annotation", "right", "wrong"), TYPES, ids=lambda one: str(one)[:40])
def test_a_reply_is_of_its_type(annotation: Any, right: list[Any], wrong: list[Any]) -> None:
    command = command_of(annotation)
    cls = aggregate(command)
    with es.open(":memory:", cls) as system:
        asked = system[cls, "a"]
        for value in right:
            cls.answer = value
            assert asked.ask(command()) == value
        head = system.head
        assert head == len(right)
        for value in wrong:
            cls.answer = value
            with pytest.raises(TypeError, match="Answering answered Asked with"):
                asked.ask(command())
            with pytest.raises(TypeError, match="nothing was stored"):
                asked.submit(command()).result(SECONDS)
        assert system.head == head and asked.state.version == head


def test_a_type_that_is_not_defined_is_refused_when_opened() -> None:
    command = command_of("NotDefinedAnywhere")
    with pytest.raises(TypeError, match="Asked.*NotDefinedAnywhere.*define it before"):
        es.open(":memory:", aggregate(command))


def test_a_derived_command_is_answered_as_its_base() -> None:
    class Base(es.Command[int]):
        pass

    class Derived(Base):
        more: int = 0

    class Of(es.Command[T], Generic[T]):
        pass

    class OfInt(Of[int]):
        pass

    for command in (Derived, OfInt):
        cls = aggregate(command)
        with es.open(":memory:", cls) as system:
            cls.answer = 1
            assert system[cls, "a"].ask(command()) == 1
            cls.answer = "a"
            with pytest.raises(TypeError, match="nothing was stored"):
                system[cls, "a"].ask(command())


def test_a_message_class_may_be_defined_anew() -> None:
    module = sys.modules["reply_types"] = types.ModuleType("reply_types")
    cell = "import escqrs as es\nclass Answer(es.Message):\n    number: int\n"
    try:
        exec(cell, module.__dict__)
        for annotation in (module.Answer, list[module.Answer]):
            command = command_of(annotation)
            cls = aggregate(command)
            with es.open(":memory:", cls) as system:
                for _ in range(2):
                    one = module.Answer(1)
                    cls.answer = [one] if typing.get_origin(annotation) is list else one
                    assert system[cls, "a"].ask(command()) == cls.answer
                    exec(cell, module.__dict__)
    finally:
        del sys.modules["reply_types"]


def test_an_async_handler_behind_a_decorator_is_found_when_it_is_called() -> None:
    def hide(function: Any) -> Any:
        async def behind(*arguments: Any) -> Any:
            return function(*arguments)

        @functools.wraps(function)
        def shown(*arguments: Any) -> Any:
            return behind(*arguments)

        return shown

    class Do(es.Command):
        pass

    cls = aggregate(Do, hide)
    with es.open(":memory:", cls) as system:
        with pytest.raises(TypeError, match="handler of Answering for Do is async"):
            system[cls, "a"].ask(Do())
        assert system.head == 0

    class Applying(es.Aggregate):
        @es.handles
        def do(self, cmd: Do) -> None:
            self.emit(Done())

        @es.applies
        @hide
        def done(self, event: Done) -> None:
            pass

    with es.open(":memory:", Applying) as system:
        with pytest.raises(TypeError, match=r"@es\.applies method of Applying for Done is async"):
            system[Applying, "a"].ask(Do())
        assert system.head == 0
