"""Replies in event loops."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import escqrs as es
import pytest
import support


class Add(es.Command[int]):
    amount: int


class Fail(es.Command):
    pass


class Wait(es.Command[str]):
    pass


class Added(es.Event):
    amount: int


ENTERED = threading.Event()
GO = threading.Event()


class Counter(es.Aggregate):
    total: int

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.amount))
        return self.total

    @es.handles
    def fail(self, cmd: Fail) -> None:
        raise es.Rejected("no")

    @es.handles
    def wait(self, cmd: Wait) -> str:
        ENTERED.set()
        assert GO.wait(support.SECONDS)
        return "through"

    @es.applies
    def added(self, event: Added) -> None:
        self.total += event.amount


@pytest.fixture
def system() -> Iterator[es.System]:
    ENTERED.clear()
    GO.clear()
    with es.open(":memory:", Counter) as opened:
        yield opened
        GO.set()


async def entered() -> None:
    await asyncio.get_running_loop().run_in_executor(None, ENTERED.wait, support.SECONDS)


def test_a_reply_can_be_awaited_again(system: es.System) -> None:
    async def main() -> None:
        reply = system[Counter, "a"].submit(Add(2))
        assert await reply == 2
        assert await reply == 2
        assert reply.result() == 2
        failed = system[Counter, "a"].submit(Fail())
        for _ in range(2):
            with pytest.raises(es.Rejected, match="no"):
                await failed

    asyncio.run(main())


def test_many_tasks(system: es.System) -> None:
    async def one(i: int) -> int:
        total = 0
        for _ in range(5):
            total = await system[Counter, str(i % 50)].submit(Add(1))
        return total

    async def main() -> None:
        results = await asyncio.gather(*(one(i) for i in range(1000)))
        assert len(results) == 1000
        system.flush()
        assert all(system[Counter, str(i)].state.total == 100 for i in range(50))

    asyncio.run(main())


def test_several_tasks_await_one_reply(system: es.System) -> None:
    async def main() -> None:
        reply = system[Counter, "a"].submit(Wait())

        async def wait() -> str:
            return await reply

        tasks = [asyncio.create_task(wait()) for _ in range(10)]
        await entered()
        assert not any(one.done() for one in tasks)
        GO.set()
        assert await asyncio.gather(*tasks) == ["through"] * 10

    asyncio.run(main())


def test_a_reply_can_be_awaited_in_several_loops(system: es.System) -> None:
    reply = system[Counter, "a"].submit(Wait())
    results: list[str] = []

    async def wait() -> None:
        results.append(await reply)

    threads = [threading.Thread(target=lambda: asyncio.run(wait())) for _ in range(4)]
    for one in threads:
        one.start()
    assert ENTERED.wait(support.SECONDS)
    GO.set()
    for one in threads:
        one.join(support.SECONDS)
    assert results == ["through"] * 4
    asyncio.run(wait())
    assert len(results) == 5


def test_a_loop_that_went_away_while_it_waited(system: es.System) -> None:
    reply = system[Counter, "a"].submit(Wait())

    async def give_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait(), 0.01)

    async def wait() -> str:
        return await reply

    asyncio.run(give_up())
    gc.collect()
    assert ENTERED.wait(support.SECONDS)
    GO.set()
    assert reply.result(support.SECONDS) == "through"
    assert asyncio.run(wait()) == "through"


def test_a_callback_added_after_the_awaiting_loop_has_stopped(system: es.System) -> None:
    reply = system[Counter, "a"].submit(Wait())
    called = threading.Event()

    async def wait() -> str:
        return await reply

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(asyncio.TimeoutError):
            loop.run_until_complete(asyncio.wait_for(wait(), 0.01))
        reply.add_done_callback(lambda done: called.set())
        GO.set()
        assert called.wait(support.SECONDS)  # the loop, which stands still, is not needed
        assert loop.run_until_complete(wait()) == "through"
    finally:
        loop.close()


def test_a_callback_added_while_a_loop_awaits(system: es.System) -> None:
    async def main() -> None:
        reply = system[Counter, "a"].submit(Wait())
        called = threading.Event()

        async def wait() -> str:
            return await reply

        task = asyncio.create_task(wait())
        await entered()
        reply.add_done_callback(lambda done: called.set())
        GO.set()
        assert await task == "through"
        assert await asyncio.to_thread(called.wait, support.SECONDS)

    asyncio.run(main())


def test_a_loop_that_cannot_be_kept_is_not_left_with_a_descriptor(system: es.System) -> None:
    watched: set[int] = set()
    failures: list[BaseException] = []

    class Loop(asyncio.SelectorEventLoop):
        def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
            watched.add(fd)
            super().add_reader(fd, callback, *args)

        def remove_reader(self, fd: Any) -> bool:
            watched.discard(fd)
            return super().remove_reader(fd)

        def __hash__(self) -> int:
            if watched and not failures:
                failures.append(ValueError("no hash now"))
                raise failures[0]
            return id(self)

    async def wait() -> int:
        return await system[Counter, "a"].submit(Wait())

    loop = Loop()
    try:
        with pytest.raises(ValueError, match="no hash now"):
            loop.run_until_complete(wait())
        assert not watched
    finally:
        GO.set()
        loop.close()


def test_a_cancelled_task_only_stops_waiting(system: es.System) -> None:
    async def main() -> None:
        reply = system[Counter, "a"].submit(Wait())
        behind = system[Counter, "a"].submit(Add(3))

        async def wait() -> str:
            return await reply

        task = asyncio.create_task(wait())
        await entered()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not reply.done()
        GO.set()
        assert await reply == "through"
        assert await behind == 3

    asyncio.run(main())


def test_wait_for_and_gather_and_shield(system: es.System) -> None:
    async def main() -> None:
        async def wait(reply: Any) -> Any:
            return await reply

        assert await asyncio.wait_for(wait(system[Counter, "a"].submit(Add(1))), 10) == 1
        good, bad = system[Counter, "a"].submit(Add(1)), system[Counter, "a"].submit(Fail())
        results = await asyncio.gather(wait(good), wait(bad), return_exceptions=True)
        assert results[0] == 2 and isinstance(results[1], es.Rejected)
        assert await asyncio.gather(good, system[Counter, "a"].submit(Add(1))) == [2, 3]
        assert await asyncio.wait_for(system[Counter, "a"].submit(Add(1)), 10) == 4

    asyncio.run(main())


def test_the_loop_goes_on_while_a_handler_waits(system: es.System) -> None:
    async def main() -> None:
        reply = system[Counter, "a"].submit(Wait())
        await entered()
        assert await system[Counter, "b"].submit(Add(1)) == 1
        GO.set()
        assert await reply == "through"

    asyncio.run(main())


def test_on_a_loop_a_full_system_says_so() -> None:
    ENTERED.clear()
    GO.clear()

    async def main(system: es.System) -> None:
        first = system[Counter, "a"].submit(Wait())
        await entered()
        second = system[Counter, "a"].submit(Add(1))
        for method in ("submit", "tell", "ask"):
            with pytest.raises(es.MailboxFull):
                getattr(system[Counter, "b"], method)(Add(1))
        GO.set()
        assert await first == "through"
        assert await second == 1
        assert await system[Counter, "b"].submit(Add(1)) == 1

    with es.open(":memory:", Counter, max_in_flight=2) as system:
        asyncio.run(main(system))


def test_ask_on_a_loop(system: es.System) -> None:
    async def main() -> None:
        assert system[Counter, "a"].ask(Add(1)) == 1
        assert system[Counter, "a"].state.total == 1

    asyncio.run(main())


def test_awaiting_needs_a_loop(system: es.System) -> None:
    async def wait(reply: Any) -> Any:
        return await reply

    reply = system[Counter, "a"].submit(Wait())
    coroutine = wait(reply)
    with pytest.raises(RuntimeError, match="event loop"):
        coroutine.send(None)
    GO.set()
    assert reply.result(support.SECONDS) == "through"
    coroutine = wait(reply)
    with pytest.raises(StopIteration) as stopped:  # done: nothing to wait for
        coroutine.send(None)
    assert stopped.value.value == "through"


def test_closing_answers_those_who_wait() -> None:
    ENTERED.clear()
    GO.clear()

    async def main(system: es.System) -> None:
        first = system[Counter, "a"].submit(Wait())
        second = system[Counter, "a"].submit(Add(1))
        await entered()
        loop = asyncio.get_running_loop()
        closing = loop.run_in_executor(None, system.close)
        GO.set()
        assert await first == "through"
        assert await second == 1
        await closing

    system = es.open(":memory:", Counter)
    asyncio.run(main(system))
    assert system.closed


def test_a_callback_from_another_thread_reaches_the_loop(system: es.System) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        reply = system[Counter, "a"].submit(Add(4))
        reply.add_done_callback(
            lambda done: loop.call_soon_threadsafe(future.set_result, done.result())
        )
        assert await future == 4

    asyncio.run(main())


def test_loops_come_and_go(system: es.System) -> None:
    async def main() -> int:
        return await system[Counter, "a"].submit(Add(1))

    assert [asyncio.run(main()) for _ in range(30)] == list(range(1, 31))


def test_a_handler_that_is_interrupted_reaches_the_awaiting_task(system: es.System) -> None:
    class Odd(es.Command):
        what: str

    class OddOne(es.Aggregate):
        @es.handles
        def odd(self, cmd: Odd) -> None:
            raise {"stop": StopIteration, "cancelled": asyncio.CancelledError, "exit": SystemExit}[
                cmd.what
            ]

    async def wait(other: es.System, what: str) -> None:
        await other[OddOne, "a"].submit(Odd(what))

    with es.open(":memory:", OddOne) as other:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(wait(other, "cancelled"))
        with pytest.raises(SystemExit):
            asyncio.run(wait(other, "exit"))
        with pytest.raises(RuntimeError):  # what Python makes of StopIteration in a coroutine
            asyncio.run(wait(other, "stop"))
