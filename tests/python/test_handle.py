"""Handles: ask, submit, tell, and what comes of these."""

from __future__ import annotations

import concurrent.futures
import copy
import gc
import logging
import pickle
import threading
import uuid
from collections import OrderedDict, UserDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import escqrs as es
import pytest
import support
from counters import (
    DOORS,
    REPLIES,
    Add,
    Added,
    Counter,
    Door,
    Fail,
    Forward,
    Stranger,
    Summary,
    Wait,
)

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
    assert reply.result(timeout=support.SECONDS) == 3
    assert reply.result() == 3 and reply.done() and reply.exception() is None
    assert counter.tell(Add(3)) is None
    assert counter.ask(Add(4)) == 10


def test_a_reply_that_failed(system: es.System) -> None:
    reply = system[Counter, "a"].submit(Fail("because"))
    error = reply.exception(timeout=support.SECONDS)
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
    assert reply.result(support.SECONDS) == "through"
    assert second.result(support.SECONDS) == 3


def test_a_handler_that_waits_delays_its_own_entity_only(system: es.System, door: Door) -> None:
    waiting = system[Counter, "a"].submit(Wait("d"))
    door.wait()
    behind = system[Counter, "a"].submit(Add(1))
    replies = [system[Counter, f"other {i}"].submit(Add(i)) for i in range(50)]
    assert [one.result(support.SECONDS) for one in replies] == list(range(50))
    assert system[Counter, "other 1"].ask(Add(1)) == 2
    assert not waiting.done() and not behind.done()
    door.open.set()
    assert behind.result(support.SECONDS) == 1


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
    assert [one.result(support.SECONDS) for one in replies] == ["through"] * 8


def test_ask_with_timeout(system: es.System, door: Door) -> None:
    counter = system[Counter, "a"]
    assert counter.ask(Add(1), timeout=support.SECONDS) == 1
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
    assert reply.result(support.SECONDS) == 4  # those that timed out were carried out


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
    assert failed.exception(support.SECONDS) is not None
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
        results = list(pool.map(lambda reply: reply.result(support.SECONDS), replies))
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
    assert REPLIES["a"].result(support.SECONDS) == 5
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
    system[Counter, "a"].submit(Add(1), correlation_id=given).result(support.SECONDS)
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
    counter.submit(Add(2), metadata=OrderedDict(a="b")).result(support.SECONDS)
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
    reply.result(support.SECONDS)
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
