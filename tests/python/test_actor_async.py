"""Async actors: one message at a time on an event loop; awaiting replies and streams."""

from __future__ import annotations

import asyncio
import gc
import logging
import queue
import threading
from typing import Any

import escqrs as es
import pytest
import support


class Echo:
    def receive(self, ctx: es.Context, message: Any) -> None:
        if isinstance(message, (str, int)):
            ctx.respond(message)


class Sleeper(es.Actor):
    """Waits between two looks at its own counter: it would see others if they came in between."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0

    async def receive(self, ctx: es.Context, message: Any) -> None:
        if message == "most":
            ctx.respond(self.most)
        elif isinstance(message, int):
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0)
            self.inside -= 1
            ctx.respond(message)


class Call:
    def __init__(self, function: Any) -> None:
        self.function = function


class Doer(es.Actor):
    async def receive(self, ctx: es.Context, message: Any) -> None:
        if isinstance(message, Call):
            await asyncio.sleep(0)
            result = message.function(ctx)
            if asyncio.iscoroutine(result):
                result = await result
            ctx.respond(result)


@pytest.fixture
def system():
    with es.ActorSystem() as system:
        yield system


def test_one_message_at_a_time(system):
    ref = system.spawn(Sleeper)
    replies = [ref.submit(number) for number in range(100)]
    assert [one.result(timeout=support.SECONDS) for one in replies] == list(range(100))
    assert ref.ask("most") == 1


def test_two_async_actors_run_beside_each_other(system):
    async def meet(ctx: es.Context) -> str:
        mine.set()
        await yours.wait()
        return "met"

    async def answer(ctx: es.Context) -> str:
        await mine.wait()
        yours.set()
        return "there"

    mine, yours = asyncio.Event(), asyncio.Event()
    a, b = system.spawn(Doer), system.spawn(Doer)
    first = a.submit(Call(meet))
    assert b.ask(Call(answer)) == "there"
    assert first.result(timeout=support.SECONDS) == "met"


def test_awaiting_another_actor(system):
    echo = system.spawn(Echo)

    async def ask(ctx: es.Context) -> str:
        return (await echo.submit("hello")) + " there"

    assert system.spawn(Doer).ask(Call(ask)) == "hello there"


def test_an_exception_reaches_the_asker_and_the_supervisor(system):
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, seen.put)

    async def fail(ctx: es.Context) -> None:
        await asyncio.sleep(0)
        raise LookupError("no such thing")

    ref = system.spawn(Doer)
    with pytest.raises(LookupError, match="no such thing"):
        ref.ask(Call(fail))
    failed = seen.get(timeout=support.SECONDS)
    assert (failed.ref, failed.directive) == (ref, "restart")
    assert ref.ask(Call(lambda ctx: 1)) == 1


def test_the_context_works_between_awaits(system):
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def work(ctx: es.Context) -> Any:
        await asyncio.sleep(0)
        child = ctx.spawn(Echo, name="child")
        ctx.watch(child)
        ctx.schedule_once(0.001, Call(lambda ctx: seen.put("later")))
        assert ctx.children == (child,)
        assert ctx.headers == {"trace": 1}
        assert isinstance(ctx.message, Call)
        ctx.stop(child)
        return child

    ref = system.spawn(Doer)
    child = ref.submit(Call(work), headers={"trace": 1}).result(timeout=support.SECONDS)
    assert child.address == ref.address + "/child"
    assert seen.get(timeout=support.SECONDS) == "later"
    child.wait_stopped(timeout=support.SECONDS)


def test_lifecycle_of_an_async_actor(system):
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    class Async(es.Actor):
        async def receive(self, ctx: es.Context, message: Any) -> None:
            await asyncio.sleep(0)
            seen.put(type(message).__name__)

    ref = system.spawn(Async)
    ref.tell("one")
    ref.poison()
    ref.wait_stopped(timeout=support.SECONDS)
    assert [seen.get_nowait() for _ in range(4)] == ["Started", "str", "Stopping", "Stopped"]


def test_a_loop_that_is_given():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        system = es.ActorSystem(loop=loop)
        ref = system.spawn(Doer)
        thread = await ref.submit(Call(lambda ctx: threading.get_ident()))
        assert thread == threading.get_ident()
        await asyncio.to_thread(system.close)

    asyncio.run(main())


def test_awaiting_replies_in_any_loop(system):
    ref = system.spawn(Echo)

    async def main() -> list[int]:
        replies = [ref.submit(number) for number in range(1000)]
        got = await asyncio.gather(*replies)
        assert await replies[0] == 0  # again
        return got

    assert asyncio.run(main()) == list(range(1000))
    reply = ref.submit(7)

    async def once() -> int:
        return await reply

    assert asyncio.run(once()) == asyncio.run(once()) == 7


def test_a_cancelled_task_only_stops_waiting(system):
    class Keeper(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "answer":
                self.sender.tell(1)
            elif isinstance(message, str):
                self.sender = ctx.sender

    ref = system.spawn(Keeper)

    async def main() -> int:
        reply = ref.submit("ask")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.ensure_future(_await(reply)), 0.01)
        ref.tell("answer")
        return await reply

    assert asyncio.run(main()) == 1


async def _await(reply: es.ActorReply) -> Any:
    return await reply


def test_an_async_stream(system):
    ref = system.spawn(Echo)
    stream = system.stream()

    async def main() -> list[Any]:
        async def send() -> None:
            for number in range(100):
                ref.tell(number, sender=stream)
                await asyncio.sleep(0)
            await ref.submit(0)
            stream.close()

        task = asyncio.create_task(send())
        got = [number async for number in stream]
        await task
        return got

    assert asyncio.run(main()) == list(range(100))


def test_a_coroutine_that_never_returns_is_named_by_close():
    class Stuck(es.Actor):
        async def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "block":
                self.event = event = asyncio.Event()
                entered.put((asyncio.get_running_loop(), event))
                await event.wait()

    entered: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system = es.ActorSystem()
    system.spawn(Stuck, name="stuck").tell("block")
    loop, event = entered.get(timeout=support.SECONDS)
    with pytest.raises(es.Timeout, match="stuck"):
        system.close(timeout=0.05)
    loop.call_soon_threadsafe(event.set)
    system.close()


def test_closing_in_an_async_actor_is_a_deadlock(system):
    ref = system.spawn(Doer)
    with pytest.raises(es.Deadlock):
        ref.ask(Call(lambda ctx: ctx.system.close()), timeout=support.SECONDS)


def test_a_system_exit_in_an_async_actor_ends_nothing_but_its_message(system):
    def leave(ctx: es.Context) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        system.spawn(Doer).ask(Call(leave), timeout=support.SECONDS)
    assert system.spawn(Doer).ask(Call(lambda ctx: 7), timeout=support.SECONDS) == 7


def test_awaiting_a_stream_again_after_giving_up(system):
    stream = system.stream()

    async def main() -> Any:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.__anext__(), 0.001)
        stream.tell("x")
        first = await stream.__anext__()
        waiting = asyncio.ensure_future(stream.__anext__())
        await asyncio.sleep(0)  # it is armed
        stream.tell("y")
        waiting.cancel()
        await asyncio.wait([waiting])
        stream.tell("z")
        rest = [await asyncio.wait_for(stream.__anext__(), support.SECONDS)]
        while "z" not in rest:
            rest.append(await asyncio.wait_for(stream.__anext__(), support.SECONDS))
        return first, rest

    assert asyncio.run(main()) == ("x", ["y", "z"])


def test_many_threads_tell_a_stream_that_a_loop_reads(system):
    stream = system.stream()
    senders, count = 4, 500

    def send(sender: int) -> None:
        for number in range(count):
            stream.tell((sender, number))

    threads = [threading.Thread(target=send, args=(one,)) for one in range(senders)]

    async def main() -> list[list[int]]:
        got: list[list[int]] = [[] for _ in range(senders)]
        for thread in threads:
            thread.start()
        for _ in range(senders * count):
            sender, number = await asyncio.wait_for(anext(stream), support.SECONDS)
            got[sender].append(number)
        return got

    assert asyncio.run(main()) == [list(range(count))] * senders
    for thread in threads:
        thread.join()


def test_one_task_at_a_time_awaits_a_stream(system):
    stream = system.stream()

    async def main() -> Any:
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)  # it waits
        with pytest.raises(RuntimeError, match="somebody else awaits"):
            await anext(stream)
        stream.tell("x")
        return await asyncio.wait_for(first, support.SECONDS)

    assert asyncio.run(main()) == "x"
    with pytest.raises(RuntimeError, match="event loop"):
        stream.__anext__().send(None)


def test_a_stream_whose_loop_was_left_is_awaited_in_another(system):
    stream = system.stream()
    left = asyncio.new_event_loop()
    waiting = left.create_task(stream.__anext__())
    left.run_until_complete(asyncio.sleep(0))  # it waits
    stream.tell("x")  # its loop is to be woken, and does not run any more

    async def main() -> list[Any]:
        first = await anext(stream)
        following = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        stream.tell("y")
        return [first, await asyncio.wait_for(following, support.SECONDS)]

    assert asyncio.run(main()) == ["x", "y"]
    waiting.cancel()
    left.run_until_complete(asyncio.wait([waiting]))
    left.close()


def test_a_coroutine_that_is_closed_awaits_no_stream(system):
    stream = system.stream()

    async def main() -> Any:
        dropped = stream.__anext__()
        dropped.send(None)  # it waits
        dropped.close()
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        stream.tell("x")
        return await asyncio.wait_for(waiting, support.SECONDS)

    assert asyncio.run(main()) == "x"


def test_closing_the_system_ends_who_awaits_a_stream():
    system = es.ActorSystem()
    stream = system.stream()

    async def main() -> Any:
        waiting = asyncio.ensure_future(anext(stream, "nothing"))
        await asyncio.sleep(0)
        await asyncio.to_thread(system.close)
        return await asyncio.wait_for(waiting, support.SECONDS)

    assert asyncio.run(main()) == "nothing"


def test_an_async_persistent_actor(system):
    class Noted(es.Event, name="AsyncNoted"):
        text: str

    class Notes(es.PersistentActor):
        def __init__(self) -> None:
            self.notes: list[str] = []

        async def receive(self, ctx: es.Context, message: Any) -> None:
            match message:
                case Noted(text=text):
                    self.notes.append(text)
                case str():
                    await asyncio.sleep(0)
                    self.persist(Noted(message))
                    await asyncio.sleep(0)
                    ctx.respond(list(self.notes))

    with es.Store(":memory:") as store:
        made = es.Props(Notes, middleware=[es.persistence(store)])
        ref = system.spawn(made, name="n")
        assert ref.ask("a") == ["a"]
        assert ref.ask("b") == ["a", "b"]
        assert store.version("n") == 2
        ref.poison()
        ref.wait_stopped(timeout=support.SECONDS)
        again = system.spawn(made, name="n")
        assert again.ask("c") == ["a", "b", "c"]
        again.poison()
        again.wait_stopped(timeout=support.SECONDS)


def test_an_async_actor_that_asks_itself_is_a_deadlock(system):
    ref = system.spawn(Doer, name="self")

    async def awaits(ctx: es.Context) -> None:
        await ctx.self.submit(Call(lambda ctx: 1))

    async def awaits_several(ctx: es.Context) -> None:
        await asyncio.sleep(0)
        await awaits(ctx)

    for one in (
        awaits,
        awaits_several,
        lambda ctx: ctx.self.ask(Call(lambda ctx: 1)),
        lambda ctx: ctx.self.submit(Call(lambda ctx: 1)).result(),
    ):
        with pytest.raises(es.Deadlock, match="self -> self"):
            ref.ask(Call(one), timeout=support.SECONDS)
    assert ref.ask(Call(lambda ctx: 7), timeout=support.SECONDS) == 7


async def in_a_group(reply: Any) -> Any:
    async def wait() -> Any:
        return await reply

    async with asyncio.TaskGroup() as group:
        return group.create_task(wait())


@pytest.mark.parametrize(
    "wait",
    [
        lambda reply: asyncio.gather(reply),
        lambda reply: asyncio.gather(asyncio.sleep(0), asyncio.gather(reply)),
        lambda reply: asyncio.wait_for(reply, support.SECONDS),
        lambda reply: asyncio.shield(reply),
        lambda reply: asyncio.ensure_future(reply),
        lambda reply: asyncio.wait([asyncio.ensure_future(reply)]),
        in_a_group,
    ],
)
def test_an_async_actor_that_waits_for_itself_in_another_task_is_a_deadlock(system, wait):
    async def waits(ctx: es.Context) -> None:
        found = await wait(ctx.self.submit(Call(lambda ctx: 1)))
        if isinstance(found, tuple):  # of asyncio.wait
            await found[0].pop()

    ref = system.spawn(Doer, name="self")
    with pytest.raises((es.Deadlock, ExceptionGroup)) as caught:
        ref.ask(Call(waits), timeout=support.SECONDS)
    error = caught.value
    if isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, es.Deadlock)
    assert "self -> self" in str(error)
    assert ref.ask(Call(lambda ctx: 7), timeout=support.SECONDS) == 7


def test_an_async_actor_that_waits_for_others_and_itself_at_once_is_a_deadlock(system):
    async def waits(ctx: es.Context) -> None:
        await asyncio.gather(echo.submit("x"), other.submit(Call(quick)), ctx.self.submit("y"))

    async def quick(ctx: es.Context) -> None:
        await asyncio.sleep(0)

    echo, other = system.spawn(Echo), system.spawn(Doer)
    ref = system.spawn(Doer, name="self")
    with pytest.raises(es.Deadlock, match="self -> self"):
        ref.ask(Call(waits), timeout=support.SECONDS)


async def fails() -> None:
    raise LookupError


@pytest.mark.parametrize(
    ("beside", "options"),
    [
        (lambda: asyncio.sleep(0), {"return_when": "FIRST_COMPLETED"}),
        (fails, {"return_when": "FIRST_EXCEPTION"}),
        (lambda: asyncio.sleep(0), {"timeout": 0.01}),
    ],
)
def test_an_async_actor_that_can_go_on_without_its_own_answer_does(system, beside, options):
    async def waits(ctx: es.Context) -> str:
        own = asyncio.ensure_future(answer(ctx))
        other = asyncio.ensure_future(beside())
        await asyncio.wait([own, other], **options)
        await asyncio.gather(other, return_exceptions=True)
        tasks.append(own)
        return "went on"

    async def answer(ctx: es.Context) -> None:
        got.put(await ctx.self.submit(Call(lambda ctx: "answered")))

    tasks: list[Any] = []
    got: queue.SimpleQueue[str] = queue.SimpleQueue()
    assert system.spawn(Doer).ask(Call(waits), timeout=support.SECONDS) == "went on"
    assert got.get(timeout=support.SECONDS) == "answered"


def test_async_actors_that_await_each_other_are_a_deadlock(system):
    a, b = system.spawn(Doer, name="a"), system.spawn(Doer, name="b")

    async def back(ctx: es.Context) -> int:
        return await a.submit(Call(lambda ctx: 1))

    async def there(ctx: es.Context) -> int:
        return await b.submit(Call(back))

    with pytest.raises(es.Deadlock, match="b -> a -> b"):
        a.ask(Call(there), timeout=support.SECONDS)
    assert a.ask(Call(lambda ctx: 7), timeout=support.SECONDS) == 7


@pytest.mark.parametrize("how", ["await", "ask"])
def test_an_async_actor_and_one_with_a_thread_that_wait_for_each_other(system, how):
    class Caller:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Ref):
                ctx.respond(message.ask(Call(lambda ctx: 1)))

    a, b = system.spawn(Doer, name="a"), system.spawn(Caller, name="b")

    async def there(ctx: es.Context) -> int:
        return await b.submit(a) if how == "await" else b.ask(a)

    with pytest.raises(es.Deadlock):
        a.ask(Call(there), timeout=support.SECONDS)
    assert a.ask(Call(lambda ctx: 7), timeout=support.SECONDS) == 7


def test_a_task_that_the_actor_does_not_wait_for_may_ask_it(system):
    async def later(ctx: es.Context) -> None:
        got.put(await ctx.self.submit(Call(lambda ctx: "answered")))

    def begin(ctx: es.Context) -> None:
        tasks.append(asyncio.ensure_future(later(ctx)))

    tasks: list[Any] = []
    got: queue.SimpleQueue[str] = queue.SimpleQueue()
    system.spawn(Doer).ask(Call(begin))
    assert got.get(timeout=support.SECONDS) == "answered"


def test_blocking_the_loop_of_an_async_actor_that_is_asked_is_a_deadlock():
    async def main() -> None:
        system = es.ActorSystem(loop=asyncio.get_running_loop())
        for fresh in (True, False):
            ref = system.spawn(Doer)
            if not fresh:
                await ref.submit(Call(lambda ctx: 1))
            with pytest.raises(es.Deadlock, match="await ref.submit"):
                ref.ask(Call(lambda ctx: 1))
            reply = ref.submit(Call(lambda ctx: 2))
            with pytest.raises(es.Deadlock):
                reply.result()
            assert await ref.submit(Call(lambda ctx: 3)) == 3
        assert system.spawn(Echo).ask("hello") == "hello"
        await asyncio.to_thread(system.close)

    asyncio.run(main())


@pytest.mark.parametrize("first", ["submit", "ask"])
@pytest.mark.parametrize("how", ["ask", "result"])
@pytest.mark.parametrize("between", [0, 2])
def test_blocking_the_loop_through_other_actors_is_a_deadlock(first, how, between):
    """The event loop's thread waits for an actor that waits for one that needs the event loop; the
    one in the middle has a thread of its own, as it is busy when it is asked."""

    class Busy:
        def receive(self, ctx: es.Context, message: Any) -> None:
            match message:
                case "block":
                    entered.set()
                    release.wait(support.SECONDS)
                case (how, ref):
                    answer = ref.ask if how == "ask" else lambda m: ref.submit(m).result()
                    ctx.respond(answer(Call(lambda ctx: 1)))
                case (how, *rest, ref):
                    ctx.respond(rest[0].ask((how, *rest[1:], ref)))

    entered, release = threading.Event(), threading.Event()

    async def main() -> None:
        system = es.ActorSystem(loop=asyncio.get_running_loop())
        last = system.spawn(Doer, name="last")
        middle = system.spawn(Busy)
        middle.tell("block")
        assert entered.wait(support.SECONDS)
        message = (how, *(system.spawn(Busy) for _ in range(between)), last)
        if first == "submit":
            reply = middle.submit(message)
            release.set()
            with pytest.raises(es.Deadlock, match="/last"):
                reply.result(timeout=support.SECONDS)
        else:
            threading.Thread(target=release.set).start()
            with pytest.raises(es.Deadlock, match="/last"):
                middle.ask(message, timeout=support.SECONDS)
        assert await middle.submit(message) == 1
        await asyncio.to_thread(system.close)

    asyncio.run(main())


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("how", ["forward", "router"])
def test_blocking_the_loop_for_an_actor_that_sends_the_question_on_is_a_deadlock(how, started):
    class Forwarder:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, Call):
                ctx.forward(last)

    async def main() -> None:
        nonlocal last
        system = es.ActorSystem(loop=asyncio.get_running_loop())
        last = system.spawn(Doer, name="last")
        if started:
            await last.submit(Call(lambda ctx: 0))
        middle = system.spawn(es.round_robin([last]) if how == "router" else Forwarder)
        reply = middle.submit(Call(lambda ctx: 1))
        with pytest.raises(es.Deadlock, match="/last"):
            reply.result(timeout=support.SECONDS)
        with pytest.raises(es.Deadlock, match="/last"):
            middle.ask(Call(lambda ctx: 1), timeout=support.SECONDS)
        assert await middle.submit(Call(lambda ctx: 2)) == 2
        await asyncio.to_thread(system.close)

    last: es.Ref
    asyncio.run(main())


class Asks:
    """Asks another one for the caller, and answers "back"."""

    def receive(self, ctx: es.Context, message: Any) -> None:
        if isinstance(message, tuple):
            ref, question = message
            ctx.respond(ref.submit(question).result())
        elif message == "back":
            ctx.respond("came back")


@pytest.mark.parametrize("how", ["thread", "task"])
def test_who_has_answered_may_ask_back(system, how):
    """The one that it answered need not have gone on before that."""

    class Answers:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Ref):
                ctx.respond("answered")
                got.put(message.ask("back", timeout=support.SECONDS))

    class Awaits(es.Actor):
        async def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, tuple):
                ctx.respond(await message[0].submit(message[1]))
            elif message == "back":
                ctx.respond("came back")

    got: queue.SimpleQueue[Any] = queue.SimpleQueue()
    other = system.spawn(Answers)
    ref = system.spawn(Asks if how == "thread" else Awaits)
    for _ in range(20):
        assert ref.submit((other, ref)).result(timeout=support.SECONDS) == "answered"
        assert got.get(timeout=support.SECONDS) == "came back"


def test_blocking_the_loop_for_one_that_was_answered_is_no_deadlock():
    class Early(es.Actor):
        async def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "early":
                ctx.respond("answered")
                answered.set()
                await goes_on.wait()
            elif message == "next":
                ctx.respond(message)

    answered, goes_on = asyncio.Event(), asyncio.Event()

    async def main() -> None:
        system = es.ActorSystem(loop=asyncio.get_running_loop())
        early, middle = system.spawn(Early), system.spawn(Asks)
        for _ in range(20):
            reply = middle.submit((early, "early"))
            await answered.wait()
            answered.clear()
            assert middle.ask("back", timeout=support.SECONDS) == "came back"
            goes_on.set()
            assert await reply == "answered"
            assert await early.submit("next") == "next"
            goes_on.clear()
        await asyncio.to_thread(system.close)

    asyncio.run(main())


def test_closing_on_the_loop_of_the_system_is_a_deadlock():
    async def main() -> None:
        system = es.ActorSystem(loop=asyncio.get_running_loop())
        ref = system.spawn(Doer)
        with pytest.raises(es.Deadlock, match="to_thread"):
            system.close()
        assert not system.closed
        assert await ref.submit(Call(lambda ctx: 1)) == 1
        await asyncio.to_thread(system.close)
        assert system.closed

    asyncio.run(main())


def test_closing_after_the_loop_that_was_given_has_ended():
    async def main() -> es.ActorSystem:
        system = es.ActorSystem(loop=asyncio.get_running_loop())
        await asyncio.gather(*(begin(system.spawn(Doer)) for _ in range(3)))
        return system

    async def begin(ref: es.Ref) -> None:
        began = asyncio.Event()

        async def wait(ctx: es.Context) -> None:
            began.set()
            await asyncio.Event().wait()

        ref.tell(Call(wait))
        await began.wait()

    asyncio.run(main()).close()


def test_closing_after_a_loop_that_ended_before_it_began_what_was_given_to_it():
    given = threading.Event()

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
            try:
                return super().call_soon_threadsafe(*args, **kwargs)
            finally:
                given.set()

    loop = Loop()
    system = es.ActorSystem(loop=loop)
    system.spawn(Doer)
    assert given.wait(60)
    loop.close()  # forgets it
    gc.collect()
    system.close()
    gc.collect()


class Waits(es.Actor):
    """Waits for ever at "wait", having said so."""

    def __init__(self, began: queue.SimpleQueue[Any]) -> None:
        self.began = began

    async def receive(self, ctx: es.Context, message: Any) -> None:
        if message == "wait":
            self.began.put(message)
            await asyncio.Event().wait()


def running(loop: asyncio.AbstractEventLoop) -> threading.Thread:
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    return thread


def stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.mark.parametrize("timeout", [None, support.SECONDS])
def test_a_loop_that_is_closed_while_close_waits_for_it(timeout):
    began: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    thread = running(loop)
    system = es.ActorSystem(loop=loop)
    ref = system.spawn(lambda: Waits(began))
    reply = ref.submit("wait")
    began.get(timeout=support.SECONDS)
    closing = threading.Thread(target=system.close, args=(timeout,))
    closing.start()
    support.until(lambda: system.closed)
    stop(loop, thread)
    loop.close()
    closing.join()
    assert isinstance(reply.exception(0), es.Closed)
    assert ref.state == "stopped"
    gc.collect()


@pytest.mark.parametrize("again", [True, False])
def test_closing_with_a_loop_that_stands_still(monkeypatch, again):
    """It is given up after a while; should it run again, it finds nothing to do."""
    monkeypatch.setattr("escqrs._actor._SLOW_SECONDS", 0.05)
    began: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    thread = running(loop)
    system = es.ActorSystem(loop=loop)
    waits, idle = (system.spawn(lambda: Waits(began)) for _ in range(2))
    reply = waits.submit("wait")
    began.get(timeout=support.SECONDS)
    stop(loop, thread)
    late = idle.submit("late")
    system.close()
    for one in (reply, late):
        assert isinstance(one.exception(0), es.Closed)
    assert "stands still" in str(reply.exception(0))
    if again:
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gc.collect()


def test_a_loop_that_runs_is_waited_for_however_long_it_takes(monkeypatch):
    monkeypatch.setattr("escqrs._actor._SLOW_SECONDS", 0.01)

    class Slow(es.Actor):
        async def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "wait":
                began.put(message)
                while not handler.said:
                    await asyncio.sleep(0)
                ctx.respond("done")

    class Said(logging.Handler):
        said = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.said += 1

    began: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = Said(logging.WARNING)
    loop = asyncio.new_event_loop()
    thread = running(loop)
    logging.getLogger("escqrs").addHandler(handler)
    try:
        system = es.ActorSystem(loop=loop)
        reply = system.spawn(Slow).submit("wait")
        began.get(timeout=support.SECONDS)
        system.close()
    finally:
        logging.getLogger("escqrs").removeHandler(handler)
        stop(loop, thread)
        loop.close()
    assert reply.result(0) == "done"


def test_no_supervisor_keeps_an_actor_alive_whose_loop_was_closed():
    loop = asyncio.new_event_loop()
    patient = es.OneForOne(max_restarts=1_000_000_000)
    system = es.ActorSystem(loop=loop, supervisor=patient)
    ref = system.spawn(Doer)
    loop.close()
    ref.tell("x")
    system.close()
    assert ref.state == "stopped"


def test_a_system_that_is_closed_where_another_loop_runs():
    async def main() -> None:
        with es.ActorSystem() as system:  # its async actors have a loop of their own
            assert await system.spawn(Doer).submit(Call(lambda ctx: 1)) == 1

    asyncio.run(main())


def test_tasks_that_actors_have_begun_are_cancelled(caplog, monkeypatch):
    monkeypatch.setattr("escqrs._actor_async._CANCEL_SECONDS", support.SECONDS)
    ended: list[str] = []

    async def later() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("later")

    async def begin(ctx: es.Context) -> None:
        tasks.append(asyncio.ensure_future(later()))
        await asyncio.sleep(0)

    tasks: list[Any] = []
    with es.ActorSystem() as system:
        system.spawn(Doer).ask(Call(begin), timeout=support.SECONDS)
    assert ended == ["later"]
    tasks.clear()
    gc.collect()
    assert "destroyed" not in caplog.text


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has it")
def test_tasks_that_begin_at_once():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        system = es.ActorSystem(loop=loop)
        ref = system.spawn(Sleeper)
        assert await asyncio.gather(*(ref.submit(number) for number in range(100))) == [*range(100)]
        assert await ref.submit("most") == 1
        await asyncio.to_thread(system.close)

    asyncio.run(main())


def test_a_loop_that_makes_no_tasks():
    def refuse(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        raise LookupError("no tasks here")

    loop = asyncio.new_event_loop()
    loop.set_task_factory(refuse)
    thread = running(loop)
    try:
        with es.ActorSystem(loop=loop) as system:
            with pytest.raises(es.Closed, match="no tasks here"):
                system.spawn(Doer).ask("x", timeout=support.SECONDS)
    finally:
        stop(loop, thread)
        loop.close()


@pytest.mark.parametrize("how", ["stop", "exit"])
def test_no_task_ends_the_loop_of_the_system(system, how):
    def leave() -> None:
        if how == "exit":
            raise SystemExit(3)
        asyncio.get_running_loop().stop()

    def begin(ctx: es.Context) -> None:
        asyncio.get_running_loop().call_soon(leave)

    ref = system.spawn(Doer)
    for _ in range(3):
        ref.ask(Call(begin), timeout=support.SECONDS)
    assert ref.ask(Call(lambda ctx: 7), timeout=support.SECONDS) == 7


def test_an_async_persistent_actor_persists_on_its_loop(system):
    class Kept(es.Event, name="AsyncKept"):
        number: int

    class Keeper(es.PersistentActor):
        async def receive(self, ctx: es.Context, message: Any) -> None:
            match message:
                case "tasks":
                    await asyncio.gather(*(self.keep(number) for number in range(3)))
                    ctx.respond(self.version)
                case "thread":
                    await asyncio.to_thread(self.persist, Kept(1))

        async def keep(self, number: int) -> None:
            await asyncio.sleep(0)
            self.persist(Kept(number))

    with es.Store(":memory:") as store:
        made = es.Props(Keeper, middleware=[es.persistence(store)])
        ref = system.spawn(made, name="n")
        assert ref.ask("tasks", timeout=support.SECONDS) == 3
        with pytest.raises(es.Error, match="by a thread that does not handle"):
            ref.ask("thread", timeout=support.SECONDS)
        assert store.version("n") == 3
        ref.poison()
        ref.wait_stopped(timeout=support.SECONDS)


def test_an_answer_of_an_async_actor_to_nobody_is_a_dead_letter(system):
    letters: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.dead_letters.subscribe(letters.put)
    system.spawn(Doer).tell(Call(lambda ctx: "nobody asked"))
    letter = letters.get(timeout=support.SECONDS)
    assert (letter.target, letter.message, letter.sender) == (None, "nobody asked", None)


def test_a_full_mailbox_does_not_stop_an_event_loop(system):
    class Gate:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "block":
                entered.set()
                release.wait(support.SECONDS)

    entered, release = threading.Event(), threading.Event()
    full = system.spawn(es.Props(Gate, mailbox=es.bounded(1, "block")))
    full.tell("block")
    assert entered.wait(support.SECONDS)
    full.tell("waits")
    with pytest.raises(es.MailboxFull):
        system.spawn(Doer).ask(Call(lambda ctx: ctx.tell(full, 1)), timeout=support.SECONDS)

    async def main() -> None:
        with pytest.raises(es.MailboxFull):
            full.tell(1)

    asyncio.run(main())
    release.set()
