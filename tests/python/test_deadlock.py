"""Asking in handlers: to any depth; in a circle it is an error that names it, never a hang."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import escqrs as es
import pytest
import support


class Down(es.Command[int]):
    """Ask the next one below, to the ground."""

    depth: int
    emit: bool = True


class Circle(es.Command):
    """Go round `path`, and do the last thing `how`."""

    path: list[str]
    how: str = "ask"


class Meet(es.Command):
    other: str


class Plain(es.Command[str]):
    pass


class Passed(es.Event):
    depth: int


REPLIES: dict[str, Any] = {}
HANDLES: dict[str, Any] = {}
BARRIER = threading.Barrier(2)


class Node(es.Aggregate):
    passed: int

    @es.handles
    def down(self, cmd: Down) -> int:
        below = 0
        if cmd.depth > 0:
            below = self.system[Node, f"{self.id.partition('.')[0]}.{cmd.depth}"].ask(
                Down(cmd.depth - 1, cmd.emit)
            )
        if cmd.emit:
            self.emit(Passed(cmd.depth))
        return below + 1

    @es.handles
    def circle(self, cmd: Circle) -> Any:
        self.emit(Passed(0))
        if len(cmd.path) > 1:
            return self.system[Node, cmd.path[0]].ask(Circle(cmd.path[1:], cmd.how))
        last = self.system[Node, cmd.path[0]]
        match cmd.how:
            case "ask":
                return last.ask(Plain())
            case "ask with timeout":
                return last.ask(Plain(), timeout=60)
            case "result":
                return last.submit(Plain()).result()
            case "exception":
                return last.submit(Plain()).exception()
            case "earlier reply":
                return REPLIES["earlier"].result()
            case "state":
                return last.state
            case "flush":
                return self.system.flush()
            case "flush with timeout":
                return self.system.flush(timeout=60)
            case "close":
                return self.system.close()
            case "close with timeout":
                return self.system.close(timeout=0)
            case "catch":
                try:
                    last.ask(Plain())
                except es.Deadlock as error:
                    return str(error)
        raise AssertionError

    @es.handles
    def meet(self, cmd: Meet) -> Any:
        try:
            BARRIER.wait(support.SECONDS)
        except threading.BrokenBarrierError:
            pass
        return self.system[Node, cmd.other].ask(Plain())

    @es.handles
    def plain(self, cmd: Plain) -> str:
        return self.id

    @es.applies
    def applied(self, event: Passed) -> None:
        self.passed += 1


@pytest.fixture
def system() -> Iterator[es.System]:
    with es.open(":memory:", Node) as opened:
        yield opened


@pytest.mark.parametrize("emit", [True, False])
def test_asking_ten_thousand_deep(system: es.System, emit: bool) -> None:
    assert system[Node, "a"].ask(Down(10_000, emit)) == 10_001
    assert system[Node, "b"].submit(Down(3_000, emit)).result(support.SECONDS) == 3_001
    assert system.head == (10_001 + 3_001 if emit else 0)
    assert system[Node, "free"].ask(Plain()) == "free"


def test_deeper_than_memory_allows() -> None:
    """Where no further thread can be started the asker is told, and the system goes on."""
    out, _ = support.run(
        """
        import resource
        class Down(es.Command[int]):
            depth: int
        class Node(es.Aggregate):
            @es.handles
            def down(self, cmd: Down) -> int:
                if cmd.depth == 0:
                    return 0
                return self.system[Node, str(cmd.depth)].ask(Down(cmd.depth - 1)) + 1
        with es.open(":memory:", Node) as system:
            assert system[Node, "a"].ask(Down(100)) == 100
            with open("/proc/self/statm") as file:
                used = int(file.read().split()[0]) * resource.getpagesize()
            limit = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, limit[1]))
            for send in ("ask", "submit"):
                try:
                    if send == "ask":
                        system[Node, "a"].ask(Down(20_000))
                    else:
                        system[Node, "a"].submit(Down(20_000)).result()
                except MemoryError:
                    print("MemoryError")
            resource.setrlimit(resource.RLIMIT_AS, limit)
            print(system[Node, "a"].ask(Down(1_000)))
        """
    )
    assert out == "MemoryError\nMemoryError\n1000\n"


def test_a_deep_chain_that_fails(system: es.System) -> None:
    class Fall(es.Command):
        depth: int

    class Faller(es.Aggregate):
        @es.handles
        def fall(self, cmd: Fall) -> None:
            if cmd.depth == 0:
                raise es.Rejected("the ground")
            self.system[Faller, str(cmd.depth)].ask(Fall(cmd.depth - 1))

    with es.open(":memory:", Faller) as other:
        with pytest.raises(es.Rejected, match="the ground"):
            other[Faller, "top"].ask(Fall(1_000))
        with pytest.raises(es.Rejected, match="the ground"):
            other[Faller, "top"].ask(Fall(10))


@pytest.mark.parametrize("send", ["ask", "submit"])
@pytest.mark.parametrize("how", ["ask", "ask with timeout", "result", "exception", "state"])
@pytest.mark.parametrize(
    "path", [["a"], ["b", "a"], ["b", "c", "a"], ["b", "c", "b"]], ids="-".join
)
def test_a_circle_is_a_deadlock_that_names_it(
    system: es.System, send: str, how: str, path: list[str]
) -> None:
    with pytest.raises(es.Deadlock) as caught:
        if send == "ask":
            system[Node, "a"].ask(Circle(path, how))
        else:
            system[Node, "a"].submit(Circle(path, how)).result(support.SECONDS)
    if how in ("result", "exception"):  # waiting for what leaves only with the handler's own events
        assert f"Node/{path[-1]}" in str(caught.value)
    else:
        for name in path[path.index(path[-1]) + 1 :] or path:
            assert f"Node/{name}" in str(caught.value)
    assert system.head == 0
    assert system[Node, "a"].ask(Plain()) == "a"
    assert system[Node, "b"].state.passed == 0


@pytest.mark.parametrize("send", ["ask", "submit"])
@pytest.mark.parametrize("how", ["flush", "flush with timeout", "close", "close with timeout"])
@pytest.mark.parametrize("path", [["a"], ["b", "c"]], ids="-".join)
def test_waiting_for_the_whole_system_is_a_deadlock(
    system: es.System, send: str, how: str, path: list[str]
) -> None:
    with pytest.raises(es.Deadlock, match="handler"):
        if send == "ask":
            system[Node, "a"].ask(Circle(path, how))
        else:
            system[Node, "a"].submit(Circle(path, how)).result(support.SECONDS)
    assert not system.closed
    assert system[Node, "a"].ask(Plain()) == "a"


def test_a_deadlock_can_be_caught(system: es.System) -> None:
    text = system[Node, "a"].ask(Circle(["b", "a"], "catch"))
    assert "Node/a" in text and "Node/b" in text
    assert system[Node, "a"].state.passed == 1 and system[Node, "b"].state.passed == 1


def test_waiting_for_a_reply_from_before_that_waits_for_oneself(system: es.System) -> None:
    """a's handler waits for a command to a itself that was sent before, from outside."""
    entered, go = threading.Event(), threading.Event()

    class Hold(es.Command):
        pass

    class Holder(es.Aggregate):
        @es.handles
        def hold(self, cmd: Hold) -> Any:
            entered.set()
            assert go.wait(support.SECONDS)
            return REPLIES["earlier"].result()

        @es.handles
        def plain(self, cmd: Plain) -> str:
            return self.id

    with es.open(":memory:", Holder) as other:
        first = other[Holder, "a"].submit(Hold())
        assert entered.wait(support.SECONDS)
        REPLIES["earlier"] = other[Holder, "a"].submit(Plain())
        go.set()
        with pytest.raises(es.Deadlock, match="Holder/a"):
            first.result(support.SECONDS)
        assert REPLIES["earlier"].result(support.SECONDS) == "a"
    REPLIES.clear()


@pytest.mark.parametrize("how", ["ask", "submit"])
def test_two_threads_that_ask_each_other(system: es.System, how: str) -> None:
    for _ in range(20):
        BARRIER.reset()
        failures: list[BaseException] = []
        results: list[Any] = []

        def send(
            one: str, other: str, failures: list[Any] = failures, results: list[Any] = results
        ) -> None:
            try:
                if how == "ask":
                    results.append(system[Node, one].ask(Meet(other)))
                else:
                    results.append(system[Node, one].submit(Meet(other)).result(support.SECONDS))
            except es.Deadlock as error:
                failures.append(error)

        threads = [threading.Thread(target=send, args=pair) for pair in (("a", "b"), ("b", "a"))]
        for one in threads:
            one.start()
        for one in threads:
            one.join(support.SECONDS)
            assert not one.is_alive()
        assert len(failures) + len(results) == 2
        assert failures
        assert "Node/a" in str(failures[0]) and "Node/b" in str(failures[0])


def test_a_handler_may_use_another_system() -> None:
    with es.open(":memory:", Node) as inner:

        class Cross(es.Command[str]):
            pass

        class Outer(es.Aggregate):
            @es.handles
            def cross(self, cmd: Cross) -> str:
                inner[Node, "x"].ask(Down(5))
                inner[Node, "x"].tell(Down(5))
                inner[Node, "x"].submit(Down(5)).result(support.SECONDS)
                inner.flush()
                with es.open(":memory:", Node) as third:
                    return third[Node, "y"].ask(Plain()) + str(inner[Node, "x"].state.passed)

        with es.open(":memory:", Outer) as outer:
            assert outer[Outer, "a"].ask(Cross()) == "y3"
            assert outer[Outer, "a"].submit(Cross()).result(support.SECONDS) == "y6"


def test_a_circle_through_another_system() -> None:
    class Cross(es.Command):
        left: int
        how: str = "ask"

    class Pair(es.Aggregate):
        @es.handles
        def cross(self, cmd: Cross) -> Any:
            other = HANDLES["right" if self.system is HANDLES["left"] else "left"]
            if cmd.left > 0:
                return other[Pair, "p"].ask(Cross(cmd.left - 1, cmd.how))
            return other.flush() if cmd.how == "flush" else other.close()

    with es.open(":memory:", Pair) as left, es.open(":memory:", Pair) as right:
        HANDLES.update(left=left, right=right)
        with pytest.raises(es.Deadlock):
            left[Pair, "p"].ask(Cross(3))
        with pytest.raises(es.Deadlock):
            left[Pair, "p"].ask(Cross(1, "flush"))
        with pytest.raises(es.Deadlock):
            left[Pair, "p"].ask(Cross(1, "close"))
        assert not left.closed and not right.closed
        HANDLES.clear()


def test_an_applier_sends_nothing() -> None:
    class Nosy(es.Aggregate):
        @es.handles
        def plain(self, cmd: Plain) -> str:
            self.emit(Passed(1))
            return "never"

        @es.applies
        def applied(self, event: Passed) -> None:
            self.system[Nosy, "other"].tell(Plain())

    with es.open(":memory:", Nosy) as other:
        with pytest.raises(es.Error, match="applies"):
            other[Nosy, "a"].ask(Plain())
        assert other.head == 0
    gc.collect()


@pytest.mark.parametrize("send", ["ask", "submit"])
@pytest.mark.parametrize("timeout", [None, 60])
def test_a_read_model_cannot_see_what_a_handler_has_not_finished(
    send: str, timeout: float | None
) -> None:
    class Seen(es.ReadModel):
        schema = "CREATE TABLE seen (depth INTEGER)"
        on_passed = es.sql(Passed, "INSERT INTO seen VALUES (:depth)")

    class Look(es.Command[int]):
        beyond: int

    class Looker(es.Aggregate):
        @es.handles
        def look(self, cmd: Look) -> int:
            self.emit(Passed(1))
            self.system[Seen].wait(self.system.head + cmd.beyond, timeout=timeout)
            return self.system.head

        @es.applies
        def passed(self, event: Passed) -> None:
            pass

    with es.open(":memory:", Looker, Seen) as other:
        looker = other[Looker, "a"]
        for beyond in (0, 1):
            if send == "ask":
                waiting = lambda: looker.ask(Look(beyond))  # noqa: B023, E731
            else:
                waiting = lambda: looker.submit(Look(beyond)).result(support.SECONDS)  # noqa: B023, E731
            if beyond == 0:
                assert waiting() == 0  # what is there is seen without the handler
            else:
                with pytest.raises(es.Deadlock, match="position 2"):
                    waiting()
        assert other.head == 1


def test_awaiting_ones_own_command_in_a_handler() -> None:
    class Loop(es.Command):
        pass

    class Looper(es.Aggregate):
        @es.handles
        def loop(self, cmd: Loop) -> None:
            async def wait() -> None:
                await self.system[Looper, "other"].submit(Loop())

            asyncio.run(wait())

    with es.open(":memory:", Looper) as other:
        with pytest.raises(es.Deadlock, match="Looper/other"):
            other[Looper, "a"].ask(Loop())
        with pytest.raises(es.Deadlock, match="Looper/other"):
            other[Looper, "a"].submit(Loop()).result(support.SECONDS)


@pytest.mark.parametrize("how", ["ask", "result"])
def test_two_threads_that_ask_each_other_in_two_systems(how: str) -> None:
    meeting: threading.Barrier

    class Cross(es.Command):
        pass

    class Back(es.Command[str]):
        pass

    class Pair(es.Aggregate):
        @es.handles
        def cross(self, cmd: Cross) -> str:
            try:
                meeting.wait(support.SECONDS)
            except threading.BrokenBarrierError:
                pass
            other = HANDLES["right" if self.system is HANDLES["left"] else "left"]
            return other[Pair, "p"].ask(Back())

        @es.handles
        def back(self, cmd: Back) -> str:
            return self.id

    with es.open(":memory:", Pair) as left, es.open(":memory:", Pair) as right:
        HANDLES.update(left=left, right=right)
        for _ in range(20):
            meeting = threading.Barrier(2)
            outcomes: list[Any] = []

            def send(system: es.System, outcomes: list[Any] = outcomes) -> None:
                try:
                    if how == "ask":
                        outcomes.append(system[Pair, "p"].ask(Cross()))
                    else:
                        outcomes.append(system[Pair, "p"].submit(Cross()).result(support.SECONDS))
                except es.Deadlock as error:
                    outcomes.append(error)

            threads = [threading.Thread(target=send, args=(one,)) for one in (left, right)]
            for one in threads:
                one.start()
            for one in threads:
                one.join(support.SECONDS)
                assert not one.is_alive()
            assert any(isinstance(one, es.Deadlock) for one in outcomes)
            assert all(one == "p" or isinstance(one, es.Deadlock) for one in outcomes)
        HANDLES.clear()
