"""Aggregates: what handlers decide, what events do to the state, what a failure leaves behind."""

from __future__ import annotations

import datetime
import gc
import re
import threading
import traceback
import uuid
import weakref
from collections.abc import Iterator
from typing import Any

import escqrs as es
import pytest
import support


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


@pytest.fixture
def system() -> Iterator[es.System]:
    with es.open(":memory:", Shelf) as opened:
        yield opened


# ---- deciding ------------------------------------------------------------------------------------


def test_emit_applies_at_once_and_returns_the_event(system: es.System) -> None:
    shelf = system[Shelf, "a"]
    assert shelf.ask(Put("book", 2)) == 2
    assert shelf.ask(Put("book", 3)) == 5
    assert shelf.state.items == {"book": 5}


def test_version_within_a_handler_counts_what_it_emitted(system: es.System) -> None:
    assert system[Shelf, "a"].ask(PutMany(["x", "y", "z"])) == 3
    assert system[Shelf, "a"].version == 3


def test_events_of_one_command_stand_together(system: es.System) -> None:
    system[Shelf, "a"].ask(Put("first"))
    system[Shelf, "b"].ask(PutMany(["x", "y", "z"]))
    system[Shelf, "a"].ask(Put("last"))
    events = list(system.events())
    assert [one.position for one in events] == [1, 2, 3, 4, 5]
    assert [one.stream for one in events] == ["Shelf/a", "Shelf/b", "Shelf/b", "Shelf/b", "Shelf/a"]
    assert [one.version for one in events] == [1, 1, 2, 3, 2]
    together = events[1:4]
    assert len({one.causation_id for one in together}) == 1
    assert len({one.correlation_id for one in together}) == 1
    assert len({one.id for one in events}) == 5
    assert events[0].causation_id != events[1].causation_id


def test_a_handler_that_raises_leaves_nothing_behind(system: es.System) -> None:
    shelf = system[Shelf, "a"]
    shelf.ask(Put("book", 2))
    before = shelf.state
    with pytest.raises(LookupError, match="too many"):
        shelf.ask(PutMany(["x", "y"], fail="too many"))
    assert shelf.state == before
    assert shelf.state.items == {"book": 2} and shelf.state.log == ["book"]
    assert [one.event for one in shelf.history()] == [Placed("book", 2)]
    assert shelf.ask(Put("pen")) == 3
    assert shelf.version == 2


def test_a_first_command_that_raises_makes_no_stream(system: es.System) -> None:
    with pytest.raises(LookupError):
        system[Shelf, "a"].ask(PutMany(["x"], fail="no"))
    assert system[Shelf, "a"].version == 0
    assert list(system.events()) == []
    assert system.head == 0


def test_rejected_has_its_text(system: es.System) -> None:
    with pytest.raises(es.Rejected, match=re.escape("cannot put -1")):
        system[Shelf, "a"].ask(Put("book", -1))


def test_exceptions_carry_the_handlers_traceback_as_text(system: es.System) -> None:
    with pytest.raises(LookupError) as caught:
        system[Shelf, "a"].ask(PutMany(["x"], fail="here"))
    text = "".join(traceback.format_exception(caught.value))
    assert "in put_many" in text
    assert "raise LookupError(cmd.fail)" in text
    assert "Shelf/a" in text and "PutMany" in text


def test_an_exception_that_an_applier_raised_fails_the_command_even_if_it_is_caught(
    system: es.System,
) -> None:
    shelf = system[Shelf, "a"]
    shelf.ask(Put("book"))
    with pytest.raises(ValueError, match="no negative amounts"):
        shelf.ask(Meddle("swallow"))
    assert shelf.version == 1
    assert shelf.state.items == {"book": 1}


@pytest.mark.parametrize("how", ["assign", "delete", "unknown field"])
def test_fields_are_assigned_where_events_are_applied_only(system: es.System, how: str) -> None:
    with pytest.raises(AttributeError, match="Shelf"):
        system[Shelf, "a"].ask(Meddle(how))
    assert system[Shelf, "a"].state.total == 0


def test_emitting_what_no_method_applies_raises(system: es.System) -> None:
    with pytest.raises(TypeError, match=r"applies.*Unheard.*passes"):
        system[Shelf, "a"].ask(Meddle("unheard"))
    assert system.head == 0


@pytest.mark.parametrize("how", ["no event", "class", "command"])
def test_only_events_can_be_emitted(system: es.System, how: str) -> None:
    with pytest.raises(TypeError, match="event"):
        system[Shelf, "a"].ask(Meddle(how))


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


@pytest.fixture
def raiser() -> Iterator[Any]:
    with es.open(":memory:", Raiser) as opened:
        yield opened[Raiser, "r"]


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
        raiser.ask(Raise(what)) if how == "ask" else raiser.submit(Raise(what)).result(10)
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
            reply.result(10)
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


# ---- what is stored ------------------------------------------------------------------------------


def test_recorded(system: es.System) -> None:
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    shelf = system[Shelf, "a"]
    shelf.ask(Put("book", 2))
    shelf.ask(Put("pen"))
    first, second = shelf.history()
    assert (first.position, first.stream, first.version, first.type) == (1, "Shelf/a", 1, "Placed")
    assert first.event == Placed("book", 2)
    assert first.time.tzinfo is datetime.UTC
    assert before <= first.time <= second.time
    assert isinstance(first.id, str)
    assert uuid.UUID(first.id) and first.id < second.id
    assert uuid.UUID(first.correlation_id) and uuid.UUID(first.causation_id)
    assert first.correlation_id != second.correlation_id
    assert dict(first.metadata) == {}
    with pytest.raises(TypeError):
        first.metadata["a"] = "b"  # type: ignore[index]
    with pytest.raises(AttributeError):
        first.version = 3  # type: ignore[misc]
    assert "Shelf/a" in repr(first) and "book" in repr(first)
    assert first == next(iter(shelf.history())) and hash(first) == hash(next(iter(system.events())))
    assert first != second


def test_time_and_ids_never_go_backwards(system: es.System) -> None:
    for i in range(300):
        system[Shelf, str(i % 7)].tell(Put("x"))
    system.flush()
    events = list(system.events())
    assert len(events) == 300
    assert [one.time for one in events] == sorted(one.time for one in events)
    assert [one.id for one in events] == sorted(one.id for one in events)


def test_history_and_events_take_the_same_arguments(system: es.System) -> None:
    for i in range(10):
        system[Shelf, "ab"[i % 2]].ask(Put(f"item {i}") if i % 3 else Clear())
    a = system[Shelf, "a"]

    def versions(**options: Any) -> list[int]:
        return [one.version for one in a.history(**options)]

    def positions(**options: Any) -> list[int]:
        return [one.position for one in system.events(**options)]

    assert versions() == [1, 2, 3, 4, 5]
    assert versions(after=2) == [3, 4, 5]
    assert versions(upto=2) == [1, 2]
    assert versions(after=1, upto=3) == [2, 3]
    assert versions(reverse=True) == [5, 4, 3, 2, 1]
    assert versions(reverse=True, limit=2) == [5, 4]
    assert versions(after=2, reverse=True) == [5, 4, 3]
    assert versions(limit=0) == [] and versions(upto=0) == [] and versions(after=5) == []
    assert versions(after=99) == []
    assert positions() == list(range(1, 11))
    assert positions(after=7) == [8, 9, 10]
    assert positions(upto=2, reverse=True) == [2, 1]
    assert positions(limit=3) == [1, 2, 3]
    cleared = [one.position for one in system.events() if one.type == "Cleared"]
    assert positions(match=es.Match(types=["Cleared"])) == cleared
    assert positions(match=es.Match(types=[Cleared])) == cleared
    assert positions(match=[es.Match(types=["Cleared"]), es.Match(types=["Placed"])]) == list(
        range(1, 11)
    )
    assert positions(match=es.Match(types=["Nothing"])) == []
    assert versions(match=es.Match(types=["Cleared"])) == [
        one.version for one in a.history() if one.type == "Cleared"
    ]
    for wrong in (
        {"after": "1"},
        {"limit": 1.5},
        {"upto": True},
        {"match": "Cleared"},
        {"nothing": 1},
    ):
        with pytest.raises(TypeError):
            positions(**wrong)
    with pytest.raises(ValueError):
        positions(limit=-1)
    with pytest.raises(ValueError):
        positions(after=-1)


def test_events_end_at_the_head_as_it_was(system: es.System) -> None:
    shelf = system[Shelf, "a"]
    shelf.ask(Put("x"))
    shelf.ask(Put("y"))
    seen = 0
    for _ in system.events():
        shelf.ask(Put("z"))
        seen += 1
    assert seen == 2


def test_history_of_an_unknown_entity_is_empty(system: es.System) -> None:
    assert list(system[Shelf, "nobody"].history()) == []
    assert system[Shelf, "nobody"].version == 0
    assert system[Shelf, "nobody"].state.items == {}
    assert system[Shelf, "nobody"].state_at(0).version == 0


# ---- states --------------------------------------------------------------------------------------


def test_state_is_a_frozen_instance_of_the_class(system: es.System) -> None:
    shelf = system[Shelf, "a"]
    shelf.ask(Put("book", 2))
    state = shelf.state
    assert type(state) is Shelf
    assert (state.id, state.version, state.system) == ("a", 1, system)
    with pytest.raises(AttributeError):
        state.total = 7
    with pytest.raises(AttributeError):
        del state.total
    with pytest.raises(AttributeError):
        state.other = 1
    with pytest.raises(es.Error):
        state.emit(Placed("x", 1))
    with pytest.raises(es.Error):
        state.put(Put("x"))
    with pytest.raises(AttributeError):
        state.cleared(Cleared())
    assert shelf.state == state
    assert "Shelf" in repr(state) and "book" in repr(state)


def test_a_copy_of_the_state_stays_as_it_was(system: es.System) -> None:
    shelf = system[Shelf, "a"]
    shelf.ask(Put("book", 2))
    state = shelf.state
    shelf.ask(Put("ink"))
    assert state.items == {"book": 2} and state.log == ["book"]


def test_state_at(system: es.System) -> None:
    shelf = system[Shelf, "a"]
    for name in ("a", "b", "c"):
        shelf.ask(Put(name))
    assert [shelf.state_at(v).log for v in range(4)] == [[], ["a"], ["a", "b"], ["a", "b", "c"]]
    assert shelf.state_at(version=2).version == 2
    assert shelf.state_at(3) == shelf.state
    for wrong in (-1, 4, 2**70):
        with pytest.raises(ValueError, match="Shelf/a"):
            shelf.state_at(wrong)
    for wrong in ("1", 1.0, None, True):
        with pytest.raises(TypeError):
            shelf.state_at(wrong)  # type: ignore[arg-type]


def test_state_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError, match="Shelf"):
        Shelf()


def test_initial_values_are_ones_own() -> None:
    class Nested(es.Message):
        numbers: list[int]

    class Changed(es.Event):
        pass

    class Change(es.Command):
        pass

    class Initial(es.Aggregate):
        number: int
        text: str
        ratio: float
        flag: bool
        data: bytes
        maybe: int | None
        names: list[str] = ["first"]
        counts: dict[str, int] = {"a": 1}
        limit: int = 5

        @es.handles
        def change(self, cmd: Change) -> None:
            self.emit(Changed())

        @es.applies
        def changed(self, event: Changed) -> None:
            self.names.append("second")
            self.counts["b"] = 2

    with es.open(":memory:", Initial) as system:
        system[Initial, "a"].ask(Change())
        assert system[Initial, "a"].state.names == ["first", "second"]
        state = system[Initial, "b"].state
        assert state.names == ["first"] and state.counts == {"a": 1}
        assert (state.number, state.text, state.ratio, state.flag, state.data) == (
            0,
            "",
            0.0,
            False,
            b"",
        )
        assert state.maybe is None and state.limit == 5


def test_an_applier_cannot_assign_what_is_not_declared_or_wrong() -> None:
    class Happened(es.Event):
        what: str

    class Do(es.Command):
        what: str

    class Strict(es.Aggregate):
        number: int
        names: list[str]

        @es.handles
        def do(self, cmd: Do) -> None:
            self.emit(Happened(cmd.what))

        @es.applies
        def happened(self, event: Happened) -> None:
            if event.what == "undeclared":
                self.other = 1
            elif event.what == "text":
                self.number = "1"  # type: ignore[assignment]
            elif event.what == "huge":
                self.number = 2**64
            elif event.what == "tuple":
                self.names = ("a",)  # type: ignore[assignment]
            elif event.what == "id":
                self.id = "other"  # type: ignore[misc]

    with es.open(":memory:", Strict) as system:
        for what in ("undeclared", "text", "huge", "tuple", "id"):
            with pytest.raises((AttributeError, TypeError, ValueError)):
                system[Strict, "a"].ask(Do(what))
        assert system.head == 0
        system[Strict, "a"].ask(Do("nothing"))


def test_handlers_and_fields_are_inherited() -> None:
    class Base(es.Aggregate):
        total: int

        @es.handles
        def put(self, cmd: Put) -> int:
            self.emit(Placed(cmd.name, cmd.amount))
            return self.total

        @es.applies
        def placed(self, event: Placed) -> None:
            self.total += event.amount

    class Sub(Base):
        names: list[str]

        @es.applies
        def placed(self, event: Placed) -> None:
            super().placed(event)
            self.names.append(event.name)

        @es.handles
        def clear(self, cmd: Clear) -> None:
            self.emit(Placed("cleared", 0))

    with es.open(":memory:", Base, Sub) as system:
        system[Base, "x"].ask(Put("a", 2))
        sub = system[Sub, "x"]
        assert sub.ask(Put("b", 3)) == 3
        sub.ask(Clear())
        assert sub.state.names == ["b", "cleared"] and sub.state.total == 3
        assert system[Base, "x"].state.total == 2
        assert not hasattr(system[Base, "x"].state, "names")
        assert {one.stream for one in system.events()} == {"Base/x", "Sub/x"}


# ---- replay --------------------------------------------------------------------------------------


def test_states_come_back_by_replay(tmp_path: Any) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Shelf) as system:
        for i in range(20):
            system[Shelf, "a"].ask(Put(f"{i % 3}", i))
        state = system[Shelf, "a"].state
    with es.open(path, Shelf) as system:
        assert system[Shelf, "a"].state == state or system[Shelf, "a"].state.items == state.items
        assert system[Shelf, "a"].state.log == state.log
        assert system[Shelf, "a"].ask(Put("more", 1)) == state.total + 1


def test_an_event_that_applying_rejects_stops_that_entity_only(tmp_path: Any) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Shelf) as system:
        for name in ("a", "b"):
            for amount in (1, 2, 13, 4):
                system[Shelf, name].ask(Put(name, amount if name == "a" else 5))

    def superstitious(self: Any, event: Placed) -> None:
        if event.amount == 13:
            raise OverflowError("thirteen!")

    cls = type(
        "Shelf",
        (es.Aggregate,),
        {
            "__module__": __name__,
            "__qualname__": "Superstitious",
            "applied": es.applies(Placed)(superstitious),
            "put": es.handles(Put)(lambda self, cmd: 1),
        },
    )
    with es.open(path, cls) as system:
        for _ in range(2):
            with pytest.raises(es.Error) as caught:
                system[cls, "a"].ask(Put("x"))
            for word in ("Shelf/a", "3", "Placed", "thirteen"):
                assert word in str(caught.value)
        with pytest.raises(es.Error, match="Shelf/a"):
            system[cls, "a"].state
        with pytest.raises(es.Error, match="Shelf/a"):
            system[cls, "a"].state_at(3)
        assert system[cls, "a"].state_at(2).version == 2
        assert system[cls, "a"].version == 4
        assert len(list(system[cls, "a"].history())) == 4
        assert system[cls, "b"].ask(Put("x")) == 1


def test_an_event_that_no_method_takes_stops_that_entity(tmp_path: Any) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Shelf) as system:
        system[Shelf, "a"].ask(Put("x"))
        system[Shelf, "a"].ask(Clear())
        system[Shelf, "b"].ask(Put("x"))

    cls = type(
        "Shelf",
        (es.Aggregate,),
        {
            "__module__": __name__,
            "__qualname__": "Deaf",
            "applied": es.applies(Placed)(lambda self, event: None),
        },
    )
    with es.open(path, cls) as system:
        with pytest.raises(es.Error) as caught:
            system[cls, "a"].state
        for word in ("Shelf/a", "2", "Cleared"):
            assert word in str(caught.value)
        assert system[cls, "a"].state_at(1).version == 1
        assert system[cls, "b"].state.version == 1
        unknown = list(system.events())[1]
        assert unknown.type == "Cleared" and unknown.data == b""
        with pytest.raises(es.UnknownType, match="Cleared"):
            unknown.event


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id", ["a", "é" * 512, "x" * 1024, "with/slash", "with space", "😀", "\n", "%", "'"]
)
def test_ids(system: es.System, id: str) -> None:
    shelf = system[Shelf, id]
    shelf.ask(Put("x"))
    assert (shelf.id, shelf.stream) == (id, f"Shelf/{id}")
    assert [one.stream for one in shelf.history()] == [f"Shelf/{id}"]
    assert shelf.state.id == id


@pytest.mark.parametrize("id", ["", "x" * 1025, "é" * 513, "a\0b", "\ud800"])
def test_ids_that_cannot_be(system: es.System, id: str) -> None:
    with pytest.raises((ValueError, es.TooLarge)):
        system[Shelf, id]


@pytest.mark.parametrize("id", [1, None, b"a", ("a",)])
def test_an_id_is_text(system: es.System, id: Any) -> None:
    with pytest.raises(TypeError):
        system[Shelf, id]


def test_names_are_the_classs_unless_given(tmp_path: Any) -> None:
    class Added(es.Event, name="shop.ItemAdded"):
        pass

    class Add(es.Command, name="shop.Add"):
        pass

    class Cart(es.Aggregate, name="shop.Cart"):
        @es.handles
        def add(self, cmd: Add) -> None:
            self.emit(Added())

        @es.applies
        def added(self, event: Added) -> None:
            pass

    path = tmp_path / "shop.db"
    with es.open(path, Cart) as system:
        system[Cart, "1"].ask(Add())
        assert system[Cart, "1"].stream == "shop.Cart/1"
        (one,) = system.events()
        assert (one.stream, one.type) == ("shop.Cart/1", "shop.ItemAdded")
    assert b"test_aggregate" not in path.read_bytes()


@pytest.mark.parametrize("name", ["", 3, "a\0b", "a/b"])
def test_names_that_cannot_be(name: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        type("Wrong", (es.Aggregate,), {}, name=name)
    if name != "a/b":
        with pytest.raises((TypeError, ValueError)):
            type("Wrong", (es.Event,), {}, name=name)


@pytest.mark.parametrize("name", ["emit", "id", "version", "system"])
@pytest.mark.parametrize("how", ["method", "field", "default"])
def test_names_that_are_the_engines(name: str, how: str) -> None:
    space: dict[str, Any] = {"__module__": __name__}
    if how == "method":
        space[name] = lambda self: None
    else:
        space["__annotations__"] = {name: "int"}
        if how == "default":
            space[name] = 3
    with pytest.raises(TypeError, match=name):
        type("Wrong", (es.Aggregate,), space)


@pytest.mark.parametrize("name", ["emit", "id", "version", "system", "__init__"])
def test_names_that_are_the_engines_in_a_base_that_is_no_aggregate(name: str) -> None:
    mixin = type("Mixin", (), {name: lambda self: None})
    with pytest.raises(TypeError, match=rf"Mixin.*{name}"):
        type("Wrong", (mixin, es.Aggregate), {"__module__": __name__})
    annotated = type("Mixin", (), {"__annotations__": {name: "int"}})
    with pytest.raises(TypeError, match=rf"Mixin.*{name}"):
        type("Wrong", (es.Aggregate, annotated), {"__module__": __name__})


def test_underscored_fields_are_reserved() -> None:
    with pytest.raises(TypeError, match="_hidden"):

        class Wrong(es.Aggregate):
            _hidden: int


def test_other_names_of_ours_may_be_fields() -> None:
    class Happened(es.Event):
        stream: str
        position: int
        type: str
        data: bytes
        event: str
        time: int

    class Odd(es.Aggregate):
        state: int
        history: list[int]
        ask: str
        name: str
        status: str
        flush: bool

    with es.open(":memory:", Odd) as system:
        assert system[Odd, "a"].state.state == 0
    assert Happened("s", 1, "t", b"", "e", 2).type == "t"


# ---- what is refused when a class is defined or opened -------------------------------------------


def refused(define: Any) -> TypeError:
    with pytest.raises(TypeError) as caught:
        cls = define()
        es.open(":memory:", cls).close()
    return caught.value


def test_async_and_generator_handlers_are_refused() -> None:
    def asynchronous() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            async def put(self, cmd: Put) -> None:
                pass

        return Wrong

    def generator() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def put(self, cmd: Put) -> Any:
                yield 1

        return Wrong

    def asynchronous_generator() -> type:
        class Wrong(es.Aggregate):
            @es.applies
            async def put(self, event: Placed) -> Any:
                yield 1

        return Wrong

    for define in (asynchronous, generator, asynchronous_generator):
        assert "put" in str(refused(define))


def test_two_handlers_for_one_command_are_refused() -> None:
    def define() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def first(self, cmd: Put) -> int:
                return 1

            @es.handles
            def second(self, cmd: Put) -> int:
                return 2

        return Wrong

    text = str(refused(define))
    assert "first" in text and "second" in text and "Put" in text


def test_methods_need_an_annotation_of_the_right_kind() -> None:
    def none() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def method(self, cmd) -> None:  # type: ignore[no-untyped-def]
                pass

        return Wrong

    def event() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def method(self, cmd: Placed) -> None:
                pass

        return Wrong

    def command() -> type:
        class Wrong(es.Aggregate):
            @es.applies
            def method(self, event: Put) -> None:
                pass

        return Wrong

    def other() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def method(self, cmd: int) -> None:
                pass

        return Wrong

    def base() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def method(self, cmd: es.Command) -> None:
                pass

        return Wrong

    def parameters() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def method(self, cmd: Put, more: int) -> None:
                pass

        return Wrong

    for define in (none, event, command, other, base, parameters):
        assert "method" in str(refused(define))


def test_fields_that_cannot_be_are_refused() -> None:
    def float_key() -> type:
        class Wrong(es.Aggregate):
            field: dict[float, int]

        return Wrong

    def thing() -> type:
        class Wrong(es.Aggregate):
            field: object

        return Wrong

    def event() -> type:
        class WrongEvent(es.Event):
            field: dict[float, str]

        class Wrong(es.Aggregate):
            @es.applies
            def method(self, event: WrongEvent) -> None:
                pass

        return Wrong

    for define in (float_key, thing, event):
        assert "field" in str(refused(define))


def test_an_init_is_refused() -> None:
    with pytest.raises(TypeError, match="__init__"):

        class Wrong(es.Aggregate):
            def __init__(self) -> None:
                pass


@pytest.mark.parametrize("every", [-1, True, "3", 1.5])
def test_snapshot_every_is_a_number(every: Any) -> None:
    with pytest.raises(TypeError):
        type("Wrong", (es.Aggregate,), {}, snapshot_every=every)


def test_names_may_be_defined_later() -> None:
    class Late(es.Aggregate):
        @es.handles
        def do(self, cmd: DefinedLater) -> None:
            self.emit(HappenedLater(cmd.number))

        @es.applies
        def done(self, event: HappenedLater) -> None:
            pass

    with pytest.raises(TypeError, match="DefinedLater"):
        es.open(":memory:", Late)

    class DefinedLater(es.Command):
        number: int

    class HappenedLater(es.Event):
        number: int

    with es.open(":memory:", Late) as system:
        system[Late, "a"].ask(DefinedLater(3))
        assert system.head == 1


# ---- sizes ---------------------------------------------------------------------------------------


class Write(es.Command):
    size: int
    count: int = 1


class Written(es.Event):
    data: bytes


class Book(es.Aggregate):
    size: int

    @es.handles
    def write(self, cmd: Write) -> None:
        event = Written(bytes(cmd.size))
        for _ in range(cmd.count):
            self.emit(event)

    @es.applies
    def written(self, event: Written) -> None:
        self.size += len(event.data)


def test_a_message_is_bounded() -> None:
    with es.open(":memory:", Book) as system:
        book = system[Book, "a"]
        book.ask(Write(16 * 1024 * 1024 - 16))
        with pytest.raises(es.TooLarge, match="max_message_bytes"):
            book.ask(Write(16 * 1024 * 1024))
        assert book.version == 1
        book.ask(Write(1))
    with es.open(":memory:", Book, max_message_bytes=100) as system:
        system[Book, "a"].ask(Write(90))
        with pytest.raises(es.TooLarge):
            system[Book, "a"].ask(Write(100))
        assert system[Book, "a"].state.size == 90


def test_a_command_is_bounded() -> None:
    with es.open(":memory:", Book) as system:
        book = system[Book, "a"]
        with pytest.raises(es.TooLarge, match=r"100.?000"):
            book.ask(Write(1, 100_001))
        assert book.version == 0 and book.state.size == 0
        book.ask(Write(1, 100_000))
        assert book.version == 100_000 and book.state.size == 100_000
        assert system.head == 100_000


# ---- snapshots and eviction ----------------------------------------------------------------------


@pytest.mark.parametrize("every", [0, 1, 2, 7])
def test_snapshots_change_nothing(tmp_path: Any, every: int) -> None:
    cls = type(
        "Shelf",
        (Shelf,),
        {"__module__": __name__, "__qualname__": f"Every{every}"},
        snapshot_every=every,
    )
    path = tmp_path / "shop.db"
    with es.open(path, cls, max_entities=1) as system:
        for i in range(25):
            for name in ("a", "b", "c"):
                system[cls, name].ask(PutMany([str(i)]) if i % 2 else Put(str(i), i))
        states = {name: system[cls, name].state for name in ("a", "b", "c")}
    with es.open(path, cls) as system:
        for name, state in states.items():
            found = system[cls, name].state
            assert (found.items, found.log, found.total) == (state.items, state.log, state.total)
            assert found.version == state.version == 25
            for version in (0, 1, 7, 24):
                assert system[cls, name].state_at(version).log == state.log[:version]


def test_idle_entities_leave_memory() -> None:
    with es.open(":memory:", Shelf, max_entities=10) as system:
        for i in range(200):
            system[Shelf, str(i)].ask(Put("x", i))
        system.flush()
        assert system.live <= 20
        assert all(system[Shelf, str(i)].state.total == i for i in range(200))


# ---- order ---------------------------------------------------------------------------------------


def test_commands_of_each_sender_come_in_order(system: es.System) -> None:
    senders, each = 4, 200
    threads = [
        threading.Thread(
            target=lambda n=n: [system[Shelf, "a"].tell(Put(f"{n}:{i}")) for i in range(each)]
        )
        for n in range(senders)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(support.SECONDS)
    system.flush()
    log = system[Shelf, "a"].state.log
    assert len(log) == senders * each
    for n in range(senders):
        assert [one for one in log if one.startswith(f"{n}:")] == [f"{n}:{i}" for i in range(each)]
    assert [one.event.name for one in system.events()] == log


def test_state_waits_for_what_this_thread_sent_before(system: es.System) -> None:
    for n in range(50):
        for i in range(5):
            system[Shelf, str(n)].tell(Put("x", i))
        assert system[Shelf, str(n)].state.total == 10
        assert system[Shelf, str(n)].version == 5
