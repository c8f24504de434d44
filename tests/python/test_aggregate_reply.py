"""Aggregates: what callers get, replies and exceptions."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from typing import Any

import escqrs as es
import pytest
from shelf import (
    ANSWERS,
    INNER,
    KEPT,
    THE_SAME,
    Answer,
    Number,
    Own,
    Raise,
    Raiser,
    Shelf,
    Slotted,
    Text,
    Texts,
)
from support import SECONDS


@pytest.fixture
def system() -> Iterator[es.System]:
    with es.open(":memory:", Shelf) as opened:
        yield opened


@pytest.fixture
def raiser() -> Iterator[Any]:
    with es.open(":memory:", Raiser) as opened:
        yield opened[Raiser, "r"]


# ---- replies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", list(ANSWERS))
def test_a_bare_command_answers_anything(system: es.System, what: str) -> None:
    assert system[Shelf, "a"].ask(Answer(what)) is ANSWERS[what]


@pytest.mark.parametrize(
    ("command", "right"),
    [
        (Number("int"), True),
        (Number("bool"), False),
        (Number("text"), False),
        (Number("none"), False),
        (Text("text"), True),
        (Text("none"), True),
        (Text("int"), False),
        (Texts("texts"), True),
        (Texts("mixed"), False),
        (Texts("text"), False),
    ],
    ids=repr,
)
def test_a_reply_is_of_the_type_in_the_command(
    system: es.System, command: Any, right: bool
) -> None:
    shelf = system[Shelf, "a"]
    if right:
        assert shelf.ask(command) == ANSWERS[command.what]
        assert shelf.version == 1
    else:
        with pytest.raises(TypeError, match=type(command).__name__):
            shelf.ask(command)
        assert shelf.version == 0 and shelf.state.version == 0


class Half(es.Command[float]):
    whole: bool


class Nothing(es.Command[None]):
    answer: bool


class Answers(es.Aggregate):
    @es.handles
    def half(self, cmd: Half) -> float:
        return 1 if cmd.whole else 0.5

    @es.handles
    def nothing(self, cmd: Nothing) -> None:
        return 1 if cmd.answer else None  # type: ignore[return-value]


def test_an_int_is_a_float_and_none_is_none() -> None:
    with es.open(":memory:", Answers) as system:
        one = system[Answers, "a"]
        assert one.ask(Half(True)) == 1
        assert one.ask(Half(False)) == 0.5
        assert one.ask(Nothing(False)) is None
        with pytest.raises(TypeError):
            one.ask(Nothing(True))


# ---- exceptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("interrupt", KeyboardInterrupt),
        ("exit", SystemExit),
        ("stop", StopIteration),
        ("generator exit", GeneratorExit),
        ("own", Own),
        ("same", ValueError),
        ("group", ExceptionGroup),
        ("cause", ValueError),
        ("slotted", Slotted),
        ("memory", MemoryError),
        ("deep", RecursionError),
    ],
)
@pytest.mark.parametrize("how", ["ask", "submit"])
def test_the_caller_gets_the_same_exception(raiser: Any, what: str, kind: type, how: str) -> None:
    with pytest.raises(kind) as caught:
        raiser.ask(Raise(what)) if how == "ask" else raiser.submit(Raise(what)).result(SECONDS)
    assert type(caught.value) is kind
    assert raiser.ask(Raise("nothing")) is None  # it goes on
    if what == "own":
        assert caught.value.extra == "more" and caught.value.args == (7,)
    if what == "exit":
        assert caught.value.code == 3
    if what == "cause":
        assert isinstance(caught.value.__cause__, KeyError)


def test_raising_the_same_object_again_does_not_let_it_grow(raiser: Any) -> None:
    for _ in range(50):
        with pytest.raises(ValueError) as caught:
            raiser.ask(Raise("same"))
        assert caught.value is THE_SAME
    reply = raiser.submit(Raise("same"))
    for _ in range(50):
        with pytest.raises(ValueError):
            reply.result(SECONDS)
    assert len(THE_SAME.__notes__) == 1
    depth, entry = 0, THE_SAME.__traceback__
    while entry is not None:
        depth, entry = depth + 1, entry.tb_next
    assert depth < 10
    assert THE_SAME.__context__ is None


@pytest.mark.parametrize("what", ["linked", "member"])
def test_what_an_exception_is_linked_to_does_not_grow_either(raiser: Any, what: str) -> None:
    for _ in range(50):
        with pytest.raises((ValueError, ExceptionGroup)) as caught:
            raiser.ask(Raise(what))
    assert INNER.__traceback__ is None and len(INNER.__notes__) == 1
    text = "".join(traceback.format_exception(caught.value))
    assert "raise INNER" in text and "Raiser/r" in text
    assert len(text) < 5_000
    THE_SAME.__cause__ = THE_SAME.__context__ = None
    THE_SAME.__suppress_context__ = False


def test_the_callers_own_exception_keeps_its_traceback(raiser: Any) -> None:
    try:
        raise KeyError("the caller's")
    except KeyError as own:
        with pytest.raises(Own) as caught:
            raiser.ask(Raise("own"))
        assert caught.value.__context__ is own and own.__traceback__ is not None
        assert not hasattr(own, "__notes__")


def test_an_exception_does_not_keep_the_handlers_locals(raiser: Any) -> None:
    KEPT.clear()
    with pytest.raises(ValueError) as caught:
        raiser.ask(Raise("local"))
    gc.collect()
    assert KEPT[0]() is None
    assert caught.value


def test_a_state_that_is_let_go_of_still_says_what_it_was() -> None:
    gone: list[tuple[str, int]] = []

    class Ping(es.Command):
        pass

    class Brief(es.Aggregate):
        def __del__(self) -> None:
            gone.append((self.id, self.version))
            if len(gone) == 1:  # ordinary code, which may ask
                assert system[Brief, "last"].ask(Ping()) is None

        @es.handles
        def ping(self, cmd: Ping) -> None:
            pass

    with es.open(":memory:", Brief, max_entities=1) as system:
        for i in range(4):
            system[Brief, str(i)].ask(Ping())
    gc.collect()
    assert {"0", "1", "2"} <= {one for one, _version in gone}
