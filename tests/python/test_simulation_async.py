"""escqrs.testing.System: async actors and async clients in an order that the seed decides."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from escqrs.testing import System, explore


class Variable:
    """Reads and writes by message: who reads, then writes, may overwrite another's."""

    def __init__(self) -> None:
        self.value = 0

    def receive(self, ctx: es.Context, message: object) -> None:
        match message:
            case "read":
                ctx.respond(self.value)
            case int():
                self.value = message


class Adder:
    def __init__(self, variable: es.Ref) -> None:
        self.variable = variable

    async def receive(self, ctx: es.Context, message: object) -> None:
        if message == "add":
            self.variable.tell(await self.variable.submit("read") + 1)


class Echo:
    def receive(self, ctx: es.Context, message: object) -> None:
        if isinstance(message, int):
            ctx.respond(message)


def added_twice(system: System) -> int:
    variable = system.spawn(Variable)
    for _ in range(2):
        system.spawn(lambda: Adder(variable)).tell("add")
    system.run()
    value: int = variable.ask("read")
    return value


def value_with(seed: int) -> int:
    with System(seed) as system:
        return added_twice(system)


# ---- the same seed, the same order ---------------------------------------------------------------


class Set(es.Command[int]):
    value: int


class WasSet(es.Event):
    value: int


class Cell(es.Aggregate):
    value: int = 0

    @es.handles
    def set(self, cmd: Set) -> int:
        self.emit(WasSet(cmd.value))
        return self.value

    @es.applies
    def was_set(self, event: WasSet) -> None:
        self.value = event.value


def trace(seed: int) -> list[Any]:
    """Of async actors, sync ones, entities, clients, timers, a group that fails, and streams."""
    seen: list[Any] = []

    class Busy:
        async def receive(self, ctx: es.Context, message: object) -> None:
            note = (ctx.self.address, message)
            match message:
                case int():
                    await asyncio.sleep(message % 3)
                    seen.append((*note, await cells[Cell, f"{message % 2}"].submit(Set(message))))
                    ctx.respond(await asyncio.wait_for(echo.submit(message), 60))
                case "group":
                    try:
                        async with asyncio.TaskGroup() as group:
                            for number in range(5):
                                group.create_task(self.waits(number))
                            group.create_task(self.fails())
                    except* ValueError:
                        seen.append((*note, ctx.system._now))
                case "stream":
                    stream = ctx.system.stream()
                    for number in range(3):
                        echo.request(number, sender=stream)
                    seen.append((*note, [await anext(stream) for _ in range(3)]))

        async def waits(self, number: int) -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                seen.append(("cancelled", number))
                raise

        async def fails(self) -> None:
            await asyncio.sleep(0.25)
            raise ValueError

    async def client(number: int) -> None:
        await asyncio.sleep(number % 2)
        cell = cells[Cell, "0"]
        seen.append((number, await asyncio.gather(*(cell.submit(Set(i)) for i in range(3)))))

    with System(seed) as system:
        cells = system.open(Cell)
        echo = system.spawn(Echo)
        several = {system.spawn(Busy) for _ in range(4)}
        for number, ref in enumerate(several):
            for message in (number, "group", "stream", number + 4):
                ref.tell(message)
        for number in range(3):
            system.client(client(number))
        system.run()
        seen.append(system.now)
        seen.extend((one.id, one.stream, one.event, one.time) for one in cells.events())
    return seen


def test_a_seed_repeats_an_order() -> None:
    traces = [trace(seed) for seed in range(15)]
    assert traces == [trace(seed) for seed in range(15)]
    assert len({str(one) for one in traces}) == 15
    for one in traces:
        assert sum(what[0] == "cancelled" for what in one if isinstance(what, tuple)) == 20
        assert sum(len(what) == 3 for what in one if isinstance(what, tuple)) == 8 + 4 + 4


def test_another_process_has_the_same_order() -> None:
    code = "import test_simulation_async as test; print(test.trace(7))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert said == {str(trace(7))}


def test_explore_finds_a_planted_race() -> None:
    assert {value_with(seed) for seed in range(60)} == {1, 2}

    def test(system: System) -> None:
        assert added_twice(system) == 2

    with pytest.raises(AssertionError) as caught:
        explore(test)
    seed = int(caught.value.__notes__[0].split()[2])
    assert value_with(seed) == 1


def test_explore_runs_an_async_test() -> None:
    ran: list[float] = []

    async def test(system: System) -> None:
        await asyncio.sleep(60)
        variable = system.spawn(Variable)
        await asyncio.gather(*(system.spawn(lambda: Adder(variable)).submit("x") for _ in "ab"),
                             return_exceptions=True)  # fmt: skip
        for _ in range(2):
            system.spawn(lambda: Adder(variable)).tell("add")
        await asyncio.sleep(1)
        ran.append(system.now)
        assert await variable.submit("read") == 2

    with pytest.raises(AssertionError) as caught:
        explore(test, seeds=200)
    assert int(caught.value.__notes__[0].split()[2]) + 1 == len(ran) > 0
    assert set(ran) == {61.0}


# ---- time ----------------------------------------------------------------------------------------


def test_its_time_is_the_clock_that_does_not_wait() -> None:
    times: list[float] = []

    class Sleeper:
        async def receive(self, ctx: es.Context, message: object) -> None:
            if not isinstance(message, float):
                return
            await asyncio.sleep(message)
            times.append(asyncio.get_running_loop().time())
            try:
                async with asyncio.timeout(0.25):
                    await asyncio.sleep(1e6)
            except TimeoutError:
                ctx.respond(system.now)

    with System(5) as system:
        sleeper = system.spawn(Sleeper)
        replies = [sleeper.submit(seconds) for seconds in (3600.0, 0.1, 0.29, 1e-9)]
        system.run(3599)
        assert times == [] and system.now == 3599
        system.run()
        assert [reply.result() for reply in replies] == pytest.approx(
            [3600.25, 3600.6, 3601.14, 3601.39]
        )
        assert times[0] == 3600.0
        # what was cancelled moves no clock
        assert system.now == pytest.approx(3601.39)


def test_a_wait_of_others_goes_on_meanwhile() -> None:
    """Those that wait on the stack of the one thread: an actor for an async one, an async one for
    an actor, and for its own context's methods."""

    class Asks:
        def __init__(self, other: es.Ref) -> None:
            self.other = other

        def receive(self, ctx: es.Context, message: object) -> None:
            if message == "ask":
                ctx.respond(self.other.ask(1, timeout=20))

    class Spawns:
        async def receive(self, ctx: es.Context, message: object) -> None:
            if isinstance(message, int):
                await asyncio.sleep(10)
                child = ctx.spawn(Echo)
                ctx.respond(child.ask(message) + await child.submit(message))

    for seed in range(30):
        with System(seed) as system:
            spawns = system.spawn(Spawns)
            asks = [system.spawn(functools.partial(Asks, spawns)) for _ in range(2)]
            replies = [one.submit("ask") for one in asks]
            assert [one.result() for one in replies] == [2, 2]
            assert system.now == 20


# ---- failures ------------------------------------------------------------------------------------


def test_failures_are_those_of_threads() -> None:
    class Fails:
        made = 0

        def __init__(self) -> None:
            Fails.made += 1

        async def receive(self, ctx: es.Context, message: object) -> None:
            match message:
                case "fail":
                    await asyncio.sleep(1)
                    raise LookupError("as asked")
                case "cancel":
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    await asyncio.sleep(1)
                case "exit":
                    raise SystemExit(3)
                case "self":
                    ctx.self.ask("again")
                case "other":
                    other.ask("quiet")
                case "quiet":
                    await asyncio.sleep(1)
                case int():
                    ctx.respond(message)

    with System(1) as system:
        failures: list[es.ActorFailed] = []
        system.events.subscribe(es.ActorFailed, failures.append)
        one, other = system.spawn(Fails), system.spawn(Fails)
        for message, error in (
            ("fail", LookupError),
            ("cancel", asyncio.CancelledError),
            ("exit", SystemExit),
            ("self", es.Deadlock),
            ("other", es.Deadlock),
            ("quiet", es.Unanswered),
        ):
            with pytest.raises(error):
                one.ask(message)
        assert one.ask(1) == 1
        assert (Fails.made, len(failures)) == (7, 5)


def test_a_callback_that_ends_event_loops_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Calls:
        async def receive(self, ctx: es.Context, message: object) -> None:
            if isinstance(message, int):
                loop = asyncio.get_running_loop()
                loop.call_soon(sys.exit, 3)
                loop.call_later(2.0, caplog.handler.records.clear)
                handled = asyncio.Event()
                loop.call_later(1.0, handled.set)
                await handled.wait()
                ctx.respond([one.message for one in caplog.records])

    with System() as system, caplog.at_level(logging.ERROR, "escqrs"):
        (said,) = system.spawn(Calls).ask(1)
        assert "ended with what ends event loops" in said


def test_what_waits_for_the_outside_is_refused() -> None:
    class Outside:
        async def receive(self, ctx: es.Context, message: object) -> None:
            loop = asyncio.get_running_loop()
            match message:
                case "thread":
                    await asyncio.to_thread(int)
                case "connection":
                    await asyncio.open_connection("localhost", 1)
                case "process":
                    await asyncio.create_subprocess_exec("true")
                case "reader":
                    loop.add_reader(0, int)
                case "run":
                    loop.run_until_complete(asyncio.sleep(1))
                case "feed":
                    await anext(bank.subscribe())

    with System(supervisor=es.OneForOne(max_restarts=100)) as system:
        bank = system.open(Cell)
        outside = system.spawn(Outside)
        for what in ("thread", "connection", "process", "reader", "run", "feed"):
            with pytest.raises(TypeError, match="seeded"):
                outside.ask(what)


def test_another_event_loop_may_not_wait_for_it() -> None:
    async def wait(what: Any) -> Any:
        return await what

    with System() as system:
        bank = system.open(Cell)
        echo = system.spawn(Echo)
        for what in (echo.submit(1), bank[Cell, "a"].submit(Set(1))):
            with pytest.raises(TypeError, match="seeded"):
                asyncio.run(wait(what))
            what.result()
            asyncio.run(wait(what))  # it is there
        with pytest.raises(TypeError, match="seeded"):
            asyncio.run(wait(anext(system.stream())))


def test_a_seeded_system_within_another_event_loop() -> None:
    async def main() -> None:
        before = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert value_with(0) in (1, 2)
        assert asyncio.get_running_loop() is before and asyncio.current_task() is task
        await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()


# ---- clients -------------------------------------------------------------------------------------


def test_async_clients() -> None:
    async def fails() -> int:
        await asyncio.sleep(1)
        raise ValueError("as planned")

    async def returns(reply: Any) -> int:
        try:
            await reply
        except es.Error:
            return 7
        return 0

    async def never() -> None:
        await asyncio.Event().wait()

    with System() as system:
        bank = system.open(Cell)
        assert system.client(returns(bank[Cell, "1"].submit(Set(1)))).result() == 0
        assert system.client(returns(system.spawn(Echo).submit("nothing"))).result() == 7
        failing = system.client(fails())
        with pytest.raises(ValueError, match="as planned"):
            failing.result()
        assert failing.done
        system.client(fails())
        with pytest.raises(ValueError, match="as planned"):
            system.run()
        with pytest.raises(es.Timeout):
            system.client(never()).result()
        with pytest.raises(TypeError, match="coroutine"):
            system.client(never)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="as planned"), System() as system:
        system.client(fails())
        system.run(0)
        assert not system._clients[0].done
        system.run(1)


# ---- the end -------------------------------------------------------------------------------------


def test_nothing_is_left_after_close() -> None:
    ended: list[str] = []

    class Begins:
        async def receive(self, ctx: es.Context, message: object) -> None:
            if message == "begin":
                self.task = asyncio.create_task(self.waits())
                await asyncio.sleep(100)
                ended.append("receive")

        async def waits(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.5)
                ended.append("task")

    for seed in range(10):
        ended.clear()
        with System(seed) as system:
            begins = system.spawn(Begins)
            begins.tell("begin")
            system.run(seed)
            system.client(Begins().waits())
            assert system.children == (begins,) and system.actor_count == 1
        # what was sent is handled to its end; tasks that nobody waits for are cancelled
        assert ended == ["receive", "task", "task"] and system.now == 100.5
        assert system.actor_count == 0 and system.children == ()
        loop = system._seeded_loop
        assert loop is not None and loop.is_closed()
        assert not asyncio.all_tasks(loop)


def test_a_first_async_message_while_it_closes() -> None:
    handled: list[object] = []

    class Late:
        async def receive(self, ctx: es.Context, message: object) -> None:
            await asyncio.sleep(1)
            handled.append(message)

    with System() as system:
        system.spawn(Late).tell("last")
    assert "last" in handled


def test_a_receive_that_never_ends_is_named() -> None:
    class Waits:
        async def receive(self, ctx: es.Context, message: object) -> None:
            if message == "wait":
                await asyncio.Event().wait()

    with pytest.raises(es.Timeout, match="waits"), System() as system:
        system.spawn(Waits, name="waits").tell("wait")
    with pytest.raises(AssertionError), System() as system:
        system.spawn(Waits, name="waits").tell("wait")
        raise AssertionError("the test's own comes first")
    with System() as system:
        waits = system.spawn(Waits, name="waits")
        with pytest.raises(es.Timeout):
            waits.ask("wait", timeout=5)
        assert system.now == 5
        with pytest.raises(es.Timeout, match="waits"):
            system.close()
        assert system.actor_count == 0


def test_persistent_async_actors(tmp_path: Path) -> None:
    class Counter(es.PersistentActor):
        def __init__(self) -> None:
            self.total = 0

        async def receive(self, ctx: es.Context, message: Any) -> None:
            match message:
                case int():
                    await asyncio.sleep(1)
                    self.persist(WasSet(message))
                    ctx.respond(self.total)
                case WasSet(value=value):
                    self.total += value

    with es.Store(tmp_path / "actors.db", WasSet) as store:
        props = es.Props(Counter, middleware=[es.persistence(store)])
        for seed in range(3):
            with System(seed) as system:
                counters = [system.spawn(props, name=f"c{number}") for number in range(3)]
                replies = [counter.submit(2) for counter in counters for _ in range(2)]
                system.run()
                assert [reply.result() for reply in replies] == [
                    4 * seed + 2, 4 * seed + 4
                ] * 3  # fmt: skip
                assert system.now == 2


@pytest.mark.parametrize("where", ["callback", "task", "actor's task"])
@pytest.mark.parametrize("how", ["run", "wait"])
def test_ctrl_c_reaches_who_runs_the_system(where: str, how: str) -> None:
    """Where nobody awaits what it meets."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def meet() -> None:
        await asyncio.sleep(1)
        interrupt()

    kept: list[asyncio.Task[None]] = []

    async def begin() -> str:
        if where == "callback":
            asyncio.get_running_loop().call_later(1, interrupt)
        else:
            kept.append(asyncio.create_task(meet()))
        return "begun"

    class Beginner:
        async def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "go":
                ctx.respond(await begin())

    class Greeter:
        async def receive(self, ctx: es.Context, message: Any) -> None:
            ctx.respond("hello") if message == "greet" else None

    with System(seed=1) as system:
        greeter = system.spawn(Greeter)
        if where == "actor's task":
            assert system.spawn(Beginner).ask("go") == "begun"
        else:
            assert system.client(begin()).result() == "begun"
        with pytest.raises(KeyboardInterrupt):
            system.run() if how == "run" else greeter.wait_stopped(5)
        assert greeter.ask("greet") == "hello"
        system.run()
    assert all(isinstance(task.exception(), KeyboardInterrupt) for task in kept)


def test_ctrl_c_in_a_client_is_raised_once() -> None:
    async def meet() -> None:
        await asyncio.sleep(1)
        raise KeyboardInterrupt

    with System(seed=1) as system:
        client = system.client(meet())
        with pytest.raises(KeyboardInterrupt):
            client.result()
        system.run()


def test_ctrl_c_in_a_task_that_a_client_awaits() -> None:
    async def meet() -> None:
        await asyncio.sleep(1)
        raise KeyboardInterrupt

    async def awaits() -> None:
        await asyncio.create_task(meet())

    with System(seed=1) as system:
        client = system.client(awaits())
        with pytest.raises(KeyboardInterrupt):
            client.result()
        with pytest.raises(KeyboardInterrupt):  # it is what its coroutine raised
            client.result()
        system.run()
