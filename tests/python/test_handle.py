"""Handles: ask, submit, tell; replies; timeouts; keys; metadata; what a command causes."""

from __future__ import annotations

import concurrent.futures
import copy
import datetime
import gc
import logging
import pickle
import threading
import uuid
from collections import OrderedDict, UserDict
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import escqrs as es
import pytest
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


@pytest.fixture
def system() -> Iterator[es.System]:
    REPLIES.clear()
    RUNS.clear()
    with es.open(":memory:", Counter) as opened:
        yield opened


@pytest.fixture
def door() -> Iterator[Door]:
    DOORS["d"] = Door()
    yield DOORS["d"]
    DOORS["d"].open.set()


# ---- handles -------------------------------------------------------------------------------------


def test_a_handle_is_a_name(system: es.System) -> None:
    one, same, other = system[Counter, "a"], system[Counter, "a"], system[Counter, "b"]
    assert one == same and hash(one) == hash(same) and one != other
    assert one != "Counter/a" and len({one, same, other}) == 2
    assert (one.id, one.stream, one.version) == ("a", "Counter/a", 0)
    assert one.system is system
    assert "Counter" in repr(one) and "'a'" in repr(one)
    with es.open(":memory:", Counter) as second:
        assert second[Counter, "a"] != one
    with pytest.raises(TypeError):
        pickle.dumps(one)


def test_what_is_no_aggregate_of_the_system(system: es.System) -> None:
    class Other(es.Aggregate):
        pass

    with pytest.raises(es.UnknownType, match="Other"):
        system[Other, "a"]
    for wrong in (Counter, "Counter", 3, (Counter,), (Counter, "a", "b"), (3, "a")):
        with pytest.raises((TypeError, es.UnknownType)):
            system[wrong]


def test_errors_say_what_is_to_be_written(system: es.System) -> None:
    class Table(es.ReadModel):
        schema = "CREATE TABLE t (a)"

    with pytest.raises(TypeError, match=r"Table is no aggregate and has no ids: system\[Table\]"):
        system[Table, "a"]  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"Add is a class: make an instance, Add\(\.\.\.\)"):
        system[Counter, "a"].ask(Add)  # type: ignore[arg-type]


def test_a_handle_keeps_its_system() -> None:
    with pytest.warns(ResourceWarning):
        handle = es.open(":memory:", Counter)[Counter, "a"]
        gc.collect()
        assert handle.ask(Add(2)) == 2
        del handle
        gc.collect()


def test_what_is_no_command_raises_at_once(system: es.System) -> None:
    counter = system[Counter, "a"]
    for method in (counter.ask, counter.submit, counter.tell):
        for wrong in (3, None, "Add", Add, Added(1), Summary(1, [])):
            with pytest.raises(TypeError, match="Counter"):
                method(wrong)  # type: ignore[operator]
        with pytest.raises(TypeError, match="Stranger"):
            method(Stranger())  # type: ignore[operator]
        with pytest.raises(TypeError):
            method()  # type: ignore[operator]
        with pytest.raises(TypeError):
            method(Add(1), Add(2))  # type: ignore[operator]
        with pytest.raises(TypeError, match="nothing"):
            method(Add(1), nothing=3)  # type: ignore[operator]
    with pytest.raises(TypeError):
        counter.tell(Add(1), timeout=3)  # type: ignore[call-arg]
    assert system.head == 0


# ---- ask, submit, tell ---------------------------------------------------------------------------


def test_ask_submit_tell(system: es.System) -> None:
    counter = system[Counter, "a"]
    assert counter.ask(Add(1)) == 1
    reply = counter.submit(Add(2))
    assert isinstance(reply, es.Reply)
    assert reply.result(timeout=10) == 3
    assert reply.result() == 3 and reply.done() and reply.exception() is None
    assert counter.tell(Add(3)) is None
    assert counter.ask(Add(4)) == 10


def test_a_reply_that_failed(system: es.System) -> None:
    reply = system[Counter, "a"].submit(Fail("because"))
    error = reply.exception(timeout=10)
    assert isinstance(error, es.Rejected) and str(error) == "because"
    for _ in range(2):
        with pytest.raises(es.Rejected, match="because"):
            reply.result()
    assert "because" in repr(reply)


def test_submit_and_tell_return_at_once(system: es.System, door: Door) -> None:
    counter = system[Counter, "a"]
    reply = counter.submit(Wait("d"))
    counter.tell(Add(1))
    second = counter.submit(Add(2))
    door.wait()
    assert not reply.done() and not second.done()
    assert "pending" in repr(reply)
    assert reply.cancel() is False and reply.cancelled() is False
    door.open.set()
    assert reply.result(10) == "through"
    assert second.result(10) == 3


def test_a_handler_that_waits_delays_its_own_entity_only(system: es.System, door: Door) -> None:
    waiting = system[Counter, "a"].submit(Wait("d"))
    door.wait()
    behind = system[Counter, "a"].submit(Add(1))
    replies = [system[Counter, f"other {i}"].submit(Add(i)) for i in range(50)]
    assert [one.result(10) for one in replies] == list(range(50))
    assert system[Counter, "other 1"].ask(Add(1)) == 2
    assert not waiting.done() and not behind.done()
    door.open.set()
    assert behind.result(10) == 1


def test_several_handlers_may_wait(system: es.System) -> None:
    names = [f"door {i}" for i in range(8)]
    for name in names:
        DOORS[name] = Door()
    replies = [system[Counter, name].submit(Wait(name)) for name in names]
    for name in names:
        DOORS[name].wait()
    assert system[Counter, "free"].ask(Add(1)) == 1
    for name in names:
        DOORS[name].open.set()
    assert [one.result(10) for one in replies] == ["through"] * 8


def test_ask_with_timeout(system: es.System, door: Door) -> None:
    counter = system[Counter, "a"]
    assert counter.ask(Add(1), timeout=10) == 1
    with pytest.raises(es.Timeout) as caught:
        counter.ask(Wait("d"), timeout=0.05)
    assert isinstance(caught.value, TimeoutError) and "Counter/a" in str(caught.value)
    with pytest.raises(es.Timeout):
        counter.ask(Add(1), timeout=0)
    with pytest.raises(es.Timeout):
        counter.ask(Add(1), timeout=-1)
    reply = counter.submit(Add(1))
    with pytest.raises(TimeoutError):
        reply.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        reply.exception(0)
    door.open.set()
    assert reply.result(10) == 4  # those that timed out were carried out


@pytest.mark.parametrize("timeout", ["1", True, [], float("nan")])
def test_timeouts_that_cannot_be(system: es.System, timeout: Any) -> None:
    reply = system[Counter, "a"].submit(Add(1))
    for wait in (
        lambda: system[Counter, "a"].ask(Add(1), timeout=timeout),
        lambda: reply.result(timeout),
        lambda: system.flush(timeout),
    ):
        with pytest.raises((TypeError, ValueError)):
            wait()


@pytest.mark.parametrize("timeout", [None, 1e300, float("inf"), 5])
def test_long_timeouts(system: es.System, timeout: Any) -> None:
    assert system[Counter, "a"].ask(Add(1), timeout=timeout) == 1
    assert system[Counter, "a"].submit(Add(1)).result(timeout) == 2
    system.flush(timeout)


def test_done_callbacks(system: es.System, door: Door) -> None:
    seen: list[Any] = []
    called = threading.Event()

    def callback(reply: Any) -> None:
        seen.append(reply)
        called.set()

    counter = system[Counter, "a"]
    reply = counter.submit(Wait("d"))
    reply.add_done_callback(callback)
    door.wait()
    assert not seen
    door.open.set()
    assert called.wait(support.SECONDS)
    assert seen == [reply]
    reply.add_done_callback(seen.append)  # at once
    assert seen == [reply, reply]
    failed = counter.submit(Fail())
    assert failed.exception(10) is not None
    failed.add_done_callback(seen.append)
    assert seen[-1] is failed
    with pytest.raises(TypeError):
        reply.add_done_callback(3)  # type: ignore[arg-type]


def test_a_callback_may_send(system: es.System) -> None:
    done = threading.Event()

    def again(reply: Any) -> None:
        if reply.result() < 20:
            system[Counter, "a"].submit(Add(1)).add_done_callback(again)
        else:
            done.set()

    system[Counter, "a"].submit(Add(1)).add_done_callback(again)
    assert done.wait(support.SECONDS)
    assert system[Counter, "a"].state.total == 20


def test_a_callback_that_raises_harms_nobody(system: es.System, door: Door) -> None:
    import sys

    caught: list[Any] = []
    hooked = threading.Event()
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        caught.append(unraisable.exc_value)
        hooked.set()

    sys.unraisablehook = hook
    try:
        reply = system[Counter, "a"].submit(Wait("d"))
        reply.add_done_callback(lambda reply: 1 / 0)
        door.open.set()
        assert hooked.wait(support.SECONDS)
    finally:
        sys.unraisablehook = before
    assert isinstance(caught[0], ZeroDivisionError)
    caught.clear()
    assert system[Counter, "a"].ask(Add(1)) == 1


def test_futures_of_the_standard_library_are_not_needed_but_threads_may_wait(
    system: es.System,
) -> None:
    replies = [system[Counter, str(i % 5)].submit(Add(1)) for i in range(100)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda reply: reply.result(10), replies))
    assert sorted(results) == sorted(list(range(1, 21)) * 5)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: system[Counter, f"t{i % 5}"].ask(Add(1)), range(100)))
    assert sorted(results) == sorted(list(range(1, 21)) * 5)


def test_threads_that_wait_use_no_processor() -> None:
    """Only the main thread looks for signals; of the others there may be thousands."""
    out, _ = support.run(
        """
        with es.open(":memory:", Counter) as system:
            blocked = system[Counter, "a"].submit(Block())
            threads = [threading.Thread(target=blocked.result) for _ in range(100)]
            for thread in threads:
                thread.start()
            entered.wait()
            settled = threading.Event()
            for _ in range(100): # until a tenth of a second passes without any
                before = time.process_time()
                settled.wait(0.1)
                used = time.process_time() - before
                if used < 0.001:
                    break
            print(used < 0.001)
            release.set()
            for thread in threads:
                thread.join()
        """
    )
    assert out == "True\n"


# ---- failures of what was told -------------------------------------------------------------------


def test_a_told_command_that_fails_is_logged_and_a_dead_letter(
    system: es.System, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "escqrs"):
        system[Counter, "a"].tell(Fail("told you"))
        system[Counter, "a"].tell(Add(1))
        system.flush()
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.name == "escqrs"
    text = record.getMessage()
    assert "Fail" in text and "Counter/a" in text and "told you" in text
    assert record.exc_info and isinstance(record.exc_info[1], es.Rejected)
    (letter,) = system.dead_letters
    assert letter.stream == "Counter/a"
    assert letter.command == Fail("told you")
    assert isinstance(letter.error, es.Rejected)


def test_flush_does_not_raise_for_commands_that_failed(system: es.System) -> None:
    replies = [system[Counter, "a"].submit(Fail()) for _ in range(10)]
    system.flush()
    assert all(one.done() for one in replies)


# ---- what comes after a command ------------------------------------------------------------------


def test_correlation_and_causation(system: es.System) -> None:
    system[Counter, "a"].ask(Forward("b", 3))
    system[Counter, "a"].ask(Forward("c", 4, "ask"))
    system[Counter, "a"].ask(Forward("d", 5, "submit"))
    assert REPLIES["a"].result(10) == 5
    system.flush()
    by = {(one.stream, one.version): one for one in system.events()}
    for version, to in ((1, "b"), (2, "c"), (3, "d")):
        first, second = by["Counter/a", version], by[f"Counter/{to}", 1]
        assert first.correlation_id == second.correlation_id
        assert first.causation_id != second.causation_id
    assert len({by["Counter/a", v].correlation_id for v in (1, 2, 3)}) == 3
    for one in by.values():
        assert str(uuid.UUID(one.correlation_id)) == one.correlation_id


def test_a_given_correlation_id(system: es.System) -> None:
    given = str(uuid.uuid4())
    system[Counter, "a"].ask(Forward("b", 3), correlation_id=given)
    system[Counter, "a"].submit(Add(1), correlation_id=given).result(10)
    system[Counter, "a"].tell(Add(1), correlation_id=given)
    system.flush()
    assert {one.correlation_id for one in system.events()} == {given}
    for wrong in ("", "x" * 121):
        with pytest.raises(ValueError, match="correlation_id"):
            system[Counter, "a"].ask(Add(1), correlation_id=wrong)
    with pytest.raises(TypeError):
        system[Counter, "a"].ask(Add(1), correlation_id=uuid.uuid4())  # type: ignore[arg-type]


def test_metadata(system: es.System) -> None:
    counter = system[Counter, "a"]
    counter.ask(Add(1), metadata={"by": "ann", "naïve": "ü" * 100, "empty": ""})
    counter.submit(Add(2), metadata=OrderedDict(a="b")).result(10)
    counter.tell(Add(3), metadata=MappingProxyType({"c": "d"}))
    counter.ask(Add(4), metadata={})
    counter.ask(Add(5), metadata=None)
    assert [dict(one.metadata) for one in counter.history()] == [
        {"by": "ann", "naïve": "ü" * 100, "empty": ""},
        {"a": "b"},
        {"c": "d"},
        {},
        {},
    ]
    given = {"x": "1"}
    reply = counter.submit(Add(1), metadata=given)
    given["x"] = "2"
    reply.result(10)
    assert dict(list(counter.history())[-1].metadata) == {"x": "1"}
    for wrong in ({"a": 1}, {1: "a"}, ["a"], "ab", 3, {"a": None}, [("a", "b")]):
        with pytest.raises(TypeError):
            counter.ask(Add(1), metadata=wrong)  # type: ignore[arg-type]
    with pytest.raises((ValueError, UnicodeError)):
        counter.ask(Add(1), metadata={"a": "\ud800"})


class Odd:
    """A mapping, as far as C can see."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __getitem__(self, key: Any) -> Any:
        raise KeyError(key)

    def items(self) -> Any:
        return self._items


def test_metadata_of_any_mapping(system: es.System) -> None:
    counter = system[Counter, "a"]
    counter.ask(Add(1), metadata=UserDict(a="b"))
    assert dict(next(iter(counter.history())).metadata) == {"a": "b"}
    assert es.NewEvent("A", b"", metadata=UserDict(a="b")).metadata == {"a": "b"}
    for items in ([1], [()], [("a",)], [["a", "b"]], [("a", "b", "c")], 3, None):
        odd: Any = Odd(items)
        for send in (counter.ask, counter.submit, counter.tell):
            with pytest.raises(TypeError):
                send(Add(1), metadata=odd)
        with pytest.raises(TypeError):
            es.NewEvent("A", b"", metadata=odd)
    assert counter.version == 1


# ---- what a handler sends ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["tell", "submit"])
def test_what_a_handler_sent_never_leaves_if_it_raises(
    system: es.System, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(es.Rejected, match="after sending"):
        system[Counter, "a"].ask(Forward("b", 3, how, fail=True))
    system.flush()
    assert RUNS == [] and system.head == 0
    if how == "submit":
        with pytest.raises(es.Error):
            REPLIES["a"].result(10)
    assert not system.dead_letters and not caplog.records


def test_what_a_handler_asked_stays_done_if_it_raises(system: es.System) -> None:
    with pytest.raises(es.Rejected):
        system[Counter, "a"].ask(Forward("b", 3, "ask", fail=True))
    assert system[Counter, "b"].state.total == 3
    assert system[Counter, "a"].version == 0


def test_what_a_handler_sends_leaves_when_its_events_are_durable(tmp_path: Path) -> None:
    """Another reader of the file sees the sender's event when the receiver runs."""
    path = tmp_path / "shop.db"
    seen: list[list[str]] = []

    class Look(es.Command):
        pass

    class Start(es.Command):
        how: str

    class Started(es.Event):
        pass

    class Looker(es.Aggregate):
        @es.handles
        def start(self, cmd: Start) -> None:
            self.emit(Started())
            other = self.system[Looker, "other"]
            other.tell(Look()) if cmd.how == "tell" else other.submit(Look())

        @es.handles
        def look(self, cmd: Look) -> None:
            with es.open(path, Looker, readonly=True) as reader:
                seen.append([one.stream for one in reader.events()])

        @es.applies
        def started(self, event: Started) -> None:
            pass

    with es.open(path, Looker) as system:
        system[Looker, "a"].ask(Start("tell"))
        system[Looker, "b"].tell(Start("submit"))
        system.flush()
    assert len(seen) == 2
    assert seen[0][:1] == ["Looker/a"]
    assert "Looker/b" in seen[1]


def test_a_reply_means_durable(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system, es.open(path, Counter, readonly=True) as reader:
        for i in range(1, 30):
            if i % 2:
                system[Counter, "a"].ask(Add(i))
            else:
                system[Counter, "a"].submit(Add(i)).result(10)
            assert reader[Counter, "a"].version == i
            assert [one.event.amount for one in reader.events(after=i - 1)] == [i]


# ---- keys ----------------------------------------------------------------------------------------


def test_a_key_that_was_used_runs_nothing_and_answers_the_first_reply(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system:
        RUNS.clear()
        counter = system[Counter, "a"]
        assert counter.ask(Add(1), key="k1") == 1
        assert counter.ask(Add(1)) == 2
        assert counter.ask(Add(1), key="k1") == 1
        assert counter.submit(Add(1), key="k1").result(10) == 1
        counter.tell(Add(1), key="k1")
        assert counter.ask(Add(5), key="k2") == 7
        assert system[Counter, "b"].ask(Add(1), key="k1") == 1  # keys are the entity's
        system.flush()
        assert RUNS == ["a", "a", "a", "b"]
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].ask(Add(1), key="k1") == 1
        assert system[Counter, "a"].ask(Add(1), key="k2") == 7
        assert system[Counter, "a"].version == 3


def test_the_same_key_in_flight(system: es.System) -> None:
    replies = [system[Counter, "a"].submit(Add(1), key="once") for _ in range(50)]
    assert {one.result(10) for one in replies} == {1}
    assert system[Counter, "a"].version == 1


def test_a_command_that_failed_leaves_its_key_free(system: es.System) -> None:
    counter = system[Counter, "a"]
    with pytest.raises(es.Rejected):
        counter.ask(Fail(), key="k")
    with pytest.raises(es.Rejected):
        counter.ask(Fail(), key="k")
    assert counter.ask(Add(2), key="k") == 2


def test_a_key_of_a_command_without_events(system: es.System) -> None:
    counter = system[Counter, "a"]
    assert counter.ask(Report(), key="k") == Summary(0, ["a"])
    counter.ask(Add(1))
    assert counter.ask(Report(), key="k") == Summary(0, ["a"])
    assert counter.ask(Report()) == Summary(1, ["a"])


def test_replies_that_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].ask(Everything(), key="k") == EVERYTHING
        with pytest.raises(TypeError, match="object"):
            system[Counter, "a"].ask(Opaque(), key="o")
        assert system[Counter, "a"].version == 1
    with es.open(path, Counter) as system:
        again = system[Counter, "a"].ask(Everything(), key="k")
        assert again == EVERYTHING
        assert type(again["numbers"]) is tuple and type(again["flags"][0]) is bool


def test_a_stored_reply_of_an_unknown_class() -> None:
    with es.open(":memory:", Teller) as system:
        assert system[Teller, "a"].ask(Untold(), key="k") == Summary(1, ["a"])
        with pytest.raises(es.UnknownType, match="Summary"):
            system[Teller, "a"].ask(Untold(), key="k")


def test_keys_that_cannot_be(system: es.System) -> None:
    counter = system[Counter, "a"]
    for wrong in (1, b"k", ["k"]):
        with pytest.raises(TypeError):
            counter.ask(Add(1), key=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        counter.ask(Add(1), key="")
    counter.ask(Add(1), key="ü" * 300)
    assert counter.ask(Add(1), key="ü" * 300) == 1
    assert counter.ask(Add(1), key=None) == 2


# ---- room ----------------------------------------------------------------------------------------


def test_a_sender_waits_for_room(door: Door) -> None:
    with es.open(":memory:", Counter, max_in_flight=3) as system:
        first = system[Counter, "a"].submit(Wait("d"))
        door.wait()
        system[Counter, "a"].tell(Add(1))
        system[Counter, "a"].tell(Add(1))
        assert system.in_flight == 3
        sent = threading.Event()
        begun = threading.Event()

        def send() -> None:
            begun.set()
            system[Counter, "b"].tell(Add(1))
            sent.set()

        thread = threading.Thread(target=send)
        thread.start()
        assert begun.wait(support.SECONDS)
        assert not sent.wait(0.05)
        door.open.set()
        assert sent.wait(support.SECONDS)
        thread.join()
        assert first.result(10) == "through"
        replies = [system[Counter, "c"].submit(Add(1)) for _ in range(100)]
        assert [one.result(10) for one in replies] == list(range(1, 101))


def test_a_handler_needs_no_room() -> None:
    with es.open(":memory:", Counter, max_in_flight=1) as system:
        assert system[Counter, "a"].ask(Forward("b", 1, "tell")) == 0
        assert system[Counter, "a"].ask(Forward("b", 1, "ask")) > 0
        system.flush()
        assert system[Counter, "b"].state.total == 2


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"max_in_flight": 0}, ValueError),
        ({"max_in_flight": "1"}, TypeError),
        ({"max_entities": 0}, ValueError),
        ({"max_message_bytes": -1}, ValueError),
        ({"max_message_bytes": True}, TypeError),
        ({"durability": "some"}, ValueError),
        ({"nothing": 1}, TypeError),
    ],
)
def test_options_that_cannot_be(options: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        es.open(":memory:", Counter, **options)


# ---- messages ------------------------------------------------------------------------------------


class Bag(es.Event):
    names: list[str]
    counts: dict[str, int]


class Fill(es.Command):
    names: list[str]


class Bags(es.Aggregate):
    names: list[str]

    @es.handles
    def fill(self, cmd: Fill) -> Any:
        event = self.emit(Bag(cmd.names, {}))
        cmd.names.append("more")
        return event

    @es.applies
    def filled(self, event: Bag) -> None:
        self.names = event.names


def test_containers_are_copied(tmp_path: Path) -> None:
    with es.open(":memory:", Bags) as system:
        bags = system[Bags, "a"]
        names = ["a"]
        command = Fill(names)
        names.append("b")
        event = bags.ask(command)
        assert event.names == ["a"] and command.names == ["a"]
        event.names.append("x")
        assert event.names == ["a"]
        assert bags.state.names == ["a"]
        (recorded,) = bags.history()
        recorded.event.names.append("y")
        assert recorded.event.names == ["a"]
        assert copy.copy(event) == event and pickle.loads(pickle.dumps(event)) == event


def test_close_gives_up_on_a_read_model_s_handler(
    tmp_path: Path, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(es.ReadModel):
        schema = "CREATE TABLE slow (amount INTEGER)"

        @es.on(Added)
        def on_added(self, db: es.Rows, event: Added) -> None:
            door.reached.set()
            door.open.wait(support.SECONDS)

    system = es.open(tmp_path / "shop.db", Counter, Slow)
    assert system[Counter, "a"].ask(Add(1)) == 1
    door.wait()
    behind = system[Counter, "a"].submit(Add(1))  # the handler holds the writer
    system.close(timeout=0)
    assert system.closed
    assert isinstance(behind.exception(0), es.Closed)
    assert any("read model" in one.getMessage() for one in caplog.records)
    door.open.set()


def test_ctrl_c_in_a_close_that_waits_for_a_read_model() -> None:
    """It is as it was before: the read model goes on as well."""
    out, _ = support.run(
        """
        class Slow(es.ReadModel):
            schema = "CREATE TABLE slow (amount INTEGER)"
            @es.on(Added)
            def on_added(self, db: es.Rows, event: Added) -> None:
                entered.set()
                release.wait()
                db.execute("INSERT INTO slow VALUES (1)")
            @es.query
            def count(self, db: es.Rows) -> int:
                return db.execute("SELECT count(*) FROM slow").fetchone()[0]
        system = es.open(":memory:", Counter, Slow)
        system[Counter, "a"].ask(Add(1))
        entered.wait()
        def interrupt():
            while not system.closed:
                pass
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            system.close()
        except KeyboardInterrupt:
            print("interrupted", system.closed)
        release.set()
        system[Counter, "a"].ask(Add(1))
        system.flush()
        print(system[Slow].count())
        system.close()
        """
    )
    assert out == "interrupted False\n2\n"


# ---- what cannot be replayed ---------------------------------------------------------------------


def test_an_event_that_cannot_be_replayed_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system:
        system[Counter, "a"].ask(Add(1))

    class Deaf(es.Aggregate, name="Counter"):
        @es.handles
        def add(self, cmd: Add) -> int:
            return 0

    class Picky(es.Aggregate, name="Counter"):
        @es.handles
        def add(self, cmd: Add) -> int:
            return 0

        @es.applies
        def added(self, event: Added) -> None:
            raise ValueError("never")

    for cls, error, text in ((Deaf, es.UnknownType, "@es.applies"), (Picky, es.Error, "never")):
        with es.open(path, cls) as system:
            handle = system[cls, "a"]
            for use in (lambda: handle.ask(Add(1)), lambda: handle.state_at(1)):  # noqa: B023
                with pytest.raises(error, match=text) as caught:
                    use()
                assert str(caught.value).startswith("Counter/a, version 1: event Added")
                assert str(caught.value).count("Counter/a") == 1


def test_snapshots_that_do_not_fit_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Number(es.Aggregate, name="Tally", snapshot_every=2):
        count: int

        @es.handles
        def add(self, cmd: Add) -> int:
            self.emit(Added(cmd.amount))
            return self.count

        @es.applies
        def added(self, event: Added) -> None:
            self.count += event.amount

    class Text(es.Aggregate, name="Tally", snapshot_every=2):
        count: str

        @es.applies
        def added(self, event: Added) -> None:
            self.count += "x" * event.amount

    path = tmp_path / "shop.db"
    with es.open(path, Number) as system:
        for _ in range(20):
            system[Number, "a"].ask(Add(1))
    with es.open(path, Text) as system:
        assert system[Text, "a"].state.count == "x" * 20
        system.flush()
    lines = [one.getMessage() for one in caplog.records if "snapshot" in one.getMessage()]
    assert len(lines) == 1 and "Tally/a" in lines[0]


# ---- what close() drops --------------------------------------------------------------------------


def test_what_close_drops_says_so_at_once(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    system = es.open(":memory:", Counter)
    stuck = system[Counter, "a"].submit(Wait("d"))
    behind = [system[Counter, "a"].submit(Add(1)) for _ in range(3)]
    system[Counter, "a"].tell(Add(7))
    seen: list[Any] = []
    behind[0].add_done_callback(seen.append)
    waiting: list[BaseException] = []

    def wait() -> None:
        try:
            behind[1].result()
        except es.Closed as error:
            waiting.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    door.wait()
    system.close(timeout=0)
    for reply in [stuck, *behind]:  # though the handler is still busy
        assert reply.done()
        error = reply.exception(timeout=0)
        assert isinstance(error, es.Closed) and "Counter/a" in str(error)
    assert seen == [behind[0]]
    thread.join(support.SECONDS)
    assert len(waiting) == 1
    (letter,) = system.dead_letters
    assert letter.command == Add(7) and isinstance(letter.error, es.Closed)
    assert any("Add" in one.getMessage() for one in caplog.records)
    door.open.set()
    with pytest.raises(es.Closed):
        stuck.result()


def test_what_close_drops_wakes_those_who_await(door: Door) -> None:
    import asyncio

    async def main() -> None:
        replies = [system[Counter, "a"].submit(Wait("d")), system[Counter, "a"].submit(Add(1))]

        async def wait(reply: Any) -> Any:
            return await reply

        tasks = [asyncio.create_task(wait(one)) for one in replies]
        await asyncio.to_thread(door.wait)
        await asyncio.to_thread(system.close, timeout=0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in results] == [es.Closed, es.Closed]

    system = es.open(":memory:", Counter)
    asyncio.run(main())


def test_an_asker_whose_handler_is_left_behind(door: Door) -> None:
    """The handler runs on the asker's thread."""
    system = es.open(":memory:", Counter)
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            system[Counter, "a"].ask(Wait("d"))
        except es.Closed as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    door.wait()
    behind = system[Counter, "a"].submit(Add(1))
    system.close(timeout=0)
    assert isinstance(behind.exception(0), es.Closed)
    door.open.set()
    thread.join(support.SECONDS)
    assert len(failures) == 1


def test_close_at_once_answers_everything(tmp_path: Path) -> None:
    system = es.open(tmp_path / "shop.db", Counter)
    replies = [system[Counter, str(i % 50)].submit(Add(1)) for i in range(5_000)]
    system.close(timeout=0)
    assert all(one.done() for one in replies)
    errors = [one.exception(0) for one in replies]
    assert {type(one) for one in errors if one is not None} <= {es.Closed}
    with es.open(tmp_path / "shop.db", Counter) as system:
        assert system.head == errors.count(None)


def test_a_second_close_with_a_timeout_ends_the_first_ones_wait(door: Door) -> None:
    system = es.open(":memory:", Counter)
    stuck = system[Counter, "a"].submit(Wait("d"))
    door.wait()
    first = threading.Thread(target=system.close)
    first.start()
    while not system.closed:
        pass
    system.close(timeout=0)
    assert isinstance(stuck.exception(0), es.Closed)
    first.join(support.SECONDS)
    assert not first.is_alive()


# ---- arguments that cannot be --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_message_bytes", "max_in_flight", "max_entities"])
@pytest.mark.parametrize("value", [0, -1, 2**63, 2**70, "x", True, None, 1.5])
def test_limits_that_cannot_be(name: str, value: Any) -> None:
    error = ValueError if type(value) is int else TypeError
    with pytest.raises(error, match=name) as caught:
        es.open(":memory:", Counter, **{name: value})
    assert caught.type is error


@pytest.mark.parametrize("value", ["no", "", 1, 0, None])
def test_readonly_is_a_bool(tmp_path: Path, value: Any) -> None:
    es.open(tmp_path / "shop.db", Counter).close()
    with pytest.raises(TypeError, match="readonly"):
        es.open(tmp_path / "shop.db", Counter, readonly=value)


@pytest.mark.parametrize("value", ["x", "FULL", None, 1, "full\ud800"])
def test_durability_is_one_of_two(value: Any) -> None:
    with pytest.raises(ValueError, match="durability"):
        es.open(":memory:", Counter, durability=value)


@pytest.mark.parametrize("value", [b"shop.db", 3, None, 1.5])
def test_a_path_is_text(value: Any) -> None:
    with pytest.raises(TypeError, match="path"):
        es.open(value, Counter)


@pytest.mark.parametrize("value", ["", "shop\0.db", "shop\ud800.db", "shop\udcff.db"])
def test_paths_that_cannot_be(value: str) -> None:
    with pytest.raises(ValueError, match="path") as caught:
        es.open(value, Counter)
    assert caught.type is ValueError


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(es.NotAStore, match="folder"):
        es.open(tmp_path, Counter)


@pytest.mark.parametrize("timeout", [2**70, 10**400])
def test_timeouts_beyond_any_clock(timeout: int) -> None:
    with es.open(":memory:", Counter) as system:
        counter = system[Counter, "a"]
        assert counter.ask(Add(1), timeout=timeout) == 1
        assert counter.submit(Add(1)).result(timeout) == 2
        system.flush(timeout)
        system.close(timeout)
    with es.open(":memory:", Counter) as system:
        system.close(-timeout)


@pytest.mark.parametrize("timeout", ["x", True, []])
def test_a_timeout_of_flush_is_a_number(system: es.System, timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout"):
        system.flush(timeout)


def test_text_that_is_no_unicode_is_named(system: es.System) -> None:
    counter = system[Counter, "a"]
    bad = "a\ud800"
    for name, use in (
        ("id", lambda: system[Counter, bad]),
        ("key", lambda: counter.ask(Add(1), key=bad)),
        ("metadata", lambda: counter.submit(Add(1), metadata={bad: "x"})),
        ("metadata", lambda: counter.tell(Add(1), metadata={"x": bad})),
        ("correlation_id", lambda: counter.ask(Add(1), correlation_id=bad)),
    ):
        with pytest.raises(ValueError, match=name) as caught:
            use()
        assert caught.type is ValueError
    assert system.head == 0


@pytest.mark.parametrize("name", ["after", "upto", "limit"])
def test_ranges_beyond_64_bits(system: es.System, name: str) -> None:
    counter = system[Counter, "a"]
    counter.ask(Add(1))
    found = 0 if name == "after" else 1
    assert len(list(system.events(**{name: 2**70}))) == found  # type: ignore[arg-type]
    assert len(list(counter.history(**{name: 2**70}))) == found  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=name):
        system.events(**{name: -(2**70)})  # type: ignore[arg-type]
