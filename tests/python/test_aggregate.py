"""Aggregates: deciding, applying, what is stored, states and replay."""

from __future__ import annotations

import datetime
import re
import threading
import traceback
import uuid
from collections.abc import Iterator
from typing import Any

import escqrs as es
import pytest
import support
from shelf import Clear, Cleared, Meddle, Placed, Put, PutMany, Shelf


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
