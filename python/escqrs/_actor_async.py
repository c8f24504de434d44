"""Actors and event loops: what awaits a reply, and the tasks of async actors.

A task that awaits is woken by its own loop, once for many replies. An async receive is a task of
the system's event loop while its actor is suspended; ``ActorSystem._receiving`` has those that have
not ended. Who waits for whom is noted here as far as asyncio shows it, so that waits that would
never end are ``es.Deadlock``.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import threading
import types
import weakref
from collections import deque
from collections.abc import Coroutine, Generator, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from ._core import ActorReply, Context, Ref
from .errors import Closed, Deadlock, Error

if TYPE_CHECKING:
    from ._actor import ActorSystem

_CANCEL_SECONDS = 5.0  # that tasks have to end in when they are cancelled

_log = logging.getLogger("escqrs")


# ---- awaiting ------------------------------------------------------------------------------------


class _Wakes:
    """Futures of one event loop that are to be settled: the loop is woken once for many."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self.futures: deque[asyncio.Future[None]] = deque()
        self.comes = False  # settle is called, and has not begun

    def add(self, future: asyncio.Future[None]) -> None:
        self.futures.append(future)  # before the look: who clears it looks at them later
        loop = self.loop()
        if self.comes or loop is None:
            return
        self.comes = True
        with contextlib.suppress(RuntimeError):  # it is closed: nobody awaits any more
            loop.call_soon_threadsafe(self.settle)

    def settle(self) -> None:
        self.comes = False
        while self.futures:
            future = self.futures.popleft()
            if not future.done():
                future.set_result(None)


_wakes: MutableMapping[asyncio.AbstractEventLoop, _Wakes] = weakref.WeakKeyDictionary()


def wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    wakes = _wakes.get(loop)
    if wakes is None:
        wakes = _wakes.setdefault(loop, _Wakes(loop))
    wakes.add(future)


def await_reply(reply: ActorReply) -> Generator[Any, None, Any]:
    """What ``await reply`` runs."""
    if not reply.done():
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "a reply can be awaited only while an event loop runs; elsewhere use reply.result()"
            ) from None
        reply._target._system._check_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiter = _begin_wait(reply._target, reply)
        try:
            reply.add_done_callback(lambda _reply: wake(loop, future))
            yield from future
        finally:
            if waiter is not None:
                waiter._end_wait()
    return reply.result()


# ---- who waits on an event loop ------------------------------------------------------------------

_current: contextvars.ContextVar[Context] = contextvars.ContextVar("escqrs_actor")


def receiver() -> tuple[Context | None, bool]:
    """The actor whose async receive this task is, or waits for this task, and whether it is; None
    elsewhere, and in tasks that it has begun and does not wait for."""
    ctx = _current.get(None)
    if ctx is None:
        return None, False
    try:
        task = asyncio.current_task()
    except RuntimeError:  # another thread, with a copy of the task's context
        return None, False
    receiving = _task_of(ctx)
    if task is None or receiving is None:
        return None, False
    if task is receiving:
        return ctx, True
    return ctx if _is_awaited(task, receiving) else None, False


def _begin_wait(target: Ref, reply: ActorReply | None) -> Context | None:
    """This task waits for an answer of that actor: gives the actor whose async receive it is, where
    that is noted now, until the reply is there. ``es.Deadlock`` where that would never end."""
    ctx, here = receiver()
    if ctx is not None and here:
        return ctx if ctx._begin_wait(target, reply) else None
    if ctx is not None:  # which may stop waiting for this task before it ends: it is not noted
        ctx._check_wait(target)
    return None


def _is_awaited(task: asyncio.Task[Any], by: asyncio.Task[Any]) -> bool:
    """Whether that task waits for this one: itself, by ``gather``, ``wait``, ``wait_for``,
    ``shield``, a ``TaskGroup``, or through further tasks. Found by what this one calls when it has
    ended, as far as asyncio shows it."""
    seen: set[asyncio.Future[Any]] = {task}
    ways: list[asyncio.Future[Any]] = [task]
    while ways:
        for callback, _ in getattr(ways.pop(), "_callbacks", None) or ():
            for found in _goes_on(callback):
                if found is by:
                    return True
                if found not in seen:
                    seen.add(found)
                    ways.append(found)
    return False


def _goes_on(callback: Any) -> list[asyncio.Future[Any]]:
    """The futures that asyncio settles, and the tasks that go on, with this callback of a task."""
    found: Iterable[Any] = ()
    if isinstance(callback, functools.partial):
        if _is_of_asyncio(callback.func):  # wait_for, before 3.12
            found = callback.args
    elif isinstance(callback, types.FunctionType):
        if _is_of_asyncio(callback):
            found = [cell.cell_contents for cell in callback.__closure__ or ()]
            if any(_ends_sooner(one) for one in found):
                found = ()
    else:
        whose = getattr(callback, "__self__", None)
        found = (getattr(whose, "_parent_task", whose),)  # of a TaskGroup, or a task
    futures: list[asyncio.Future[Any]] = [one for one in found if isinstance(one, asyncio.Future)]
    return futures


def _ends_sooner(what: Any) -> bool:
    """Whether ``asyncio.wait`` with it ends without all: by the clock, or when others do."""
    return isinstance(what, asyncio.TimerHandle) or (
        isinstance(what, str) and what in (asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION)
    )


def _is_of_asyncio(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("asyncio.")


def begin_blocking(
    system: ActorSystem, reply: ActorReply, outside: bool
) -> tuple[Context | None, ActorSystem | None, ActorReply | None]:
    """A thread on which an event loop runs is about to wait for a reply.

    ``es.Deadlock`` where the loop, or the async actor that waits, is needed for the answer.

    outside: no actor is being run by this very thread. Returns what ``end_blocking`` takes.
    """
    target = reply._target
    waiter = _begin_wait(target, None) if outside else None
    if not system._is_on_loop():
        return waiter, None, None
    before, system._blocked = system._blocked, reply  # first: others look at it last
    for one in list(system._receiving):
        if one.self == target or one._holds_up(reply):
            end_blocking(waiter, system, before)
            raise _keeps(one.self)
    return waiter, system, before


def look_at_blocked(system: ActorSystem) -> None:
    """A thread on which an event loop runs may wait for what needs it to go on: tell it so."""
    blocked = system._blocked
    if blocked is None:
        return
    for ctx in list(system._receiving):
        if ctx._holds_up(blocked):
            blocked._refuse(_keeps(ctx.self))
            return


def end_blocking(
    waiter: Context | None, system: ActorSystem | None, before: ActorReply | None
) -> None:
    """That wait is over."""
    if waiter is not None:
        waiter._end_wait()
    if system is not None:
        system._blocked = before


def _keeps(target: Ref) -> Deadlock:
    return Deadlock(
        f"waiting here keeps the event loop from running {target.address}, whose receive is async: "
        "use `await ref.submit(message)`; the message may still be handled"
    )


# ---- async actors --------------------------------------------------------------------------------


Receiving = tuple[Coroutine[Any, Any, Any], asyncio.Task[None] | None]  # None until it begins


class OwnLoop:
    """An event loop in a thread of its own, which begins with the first async actor. Who closes it
    may run another one."""

    def __init__(self) -> None:
        self.ends = False
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._work, name="escqrs-loop", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while not self.ends:  # whatever a task does, the loop has other actors
            try:
                self.loop.run_forever()
            except BaseException:
                _log.exception("a task beside the async actors ended with what ends event loops")
        try:
            self.loop.run_until_complete(cancel_others())
        except BaseException:
            _log.exception("a task that close() cancelled ended with what ends event loops")
        finally:
            self.loop.close()

    def close(self) -> None:
        self.ends = True
        with contextlib.suppress(RuntimeError):  # it is closed: an earlier close() was interrupted
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


async def cancel_others() -> None:
    """Tasks that actors have begun, and did not wait for; one that goes on for long is left."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for one in sorted(others, key=hash):  # those of a seeded loop in the order of their making
        one.cancel()
    if others:
        await asyncio.wait(others, timeout=_CANCEL_SECONDS)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _task_of(ctx: Context) -> asyncio.Task[None] | None:
    return ctx.system._receiving.get(ctx, (None, None))[1]


async def _run(ctx: Context, coroutine: Coroutine[Any, Any, Any]) -> None:
    _current.set(ctx)
    ctx.system._receiving[ctx] = coroutine, asyncio.current_task()
    try:
        await coroutine
    except GeneratorExit:  # its loop was closed: close() of the system settles it
        raise
    except BaseException as error:
        settle(ctx, error)
        own = ctx.system._loop is None  # whose thread goes on: it has other actors
        if not own and not isinstance(error, (Exception, asyncio.CancelledError)):
            raise
    else:
        settle(ctx, None)


def settle(ctx: Context, error: BaseException | None) -> None:
    ctx.system._receiving.pop(ctx, None)  # before the actor goes on with another message
    ctx._settle(error)


def start_task(ctx: Context, coroutine: Coroutine[Any, Any, Any]) -> None:
    """An async receive begins; the actor is suspended until ``ctx._settle``."""
    system = ctx.system
    try:
        if system._loop_given_up:
            raise loop_gone(ctx)
        loop = system._event_loop()
        system._receiving[ctx] = coroutine, None
        loop.call_soon_threadsafe(_create_task, system, loop, ctx, coroutine)
    except BaseException as error:
        system._receiving.pop(ctx, None)
        coroutine.close()
        given = system._loop
        closed = isinstance(error, RuntimeError) and given is not None and given.is_closed()
        if not closed and not isinstance(error, Closed):
            raise
        if system.closed:
            ctx.self.stop()  # its supervisor might restart it for ever
        raise loop_gone(ctx) from None
    look_at_blocked(system)


def loop_gone(ctx: Context) -> Closed:
    loop = ctx.system._loop
    how = "was closed" if loop is None or loop.is_closed() else "stands still"
    return Closed(f"the event loop of {ctx.self.address} {how}")


def _create_task(
    system: ActorSystem,
    loop: asyncio.AbstractEventLoop,
    ctx: Context,
    coroutine: Coroutine[Any, Any, Any],
) -> None:
    if system._receiving.get(ctx, (None, None))[0] is not coroutine:
        return  # the loop had stood still, and close() has given it up
    run = _run(ctx, coroutine)
    try:
        task = loop.create_task(run, name=ctx.self.address)
    except BaseException as error:  # by a factory of the loop's
        run.close()
        coroutine.close()
        settle(ctx, error)
        return
    if task.done():  # an eager one
        return
    system._receiving[ctx] = coroutine, task
    task.add_done_callback(functools.partial(_task_ended, ctx, coroutine))


def forget(coroutine: Any) -> None:
    """It never goes on, or has not even begun: its loop was closed."""
    try:
        coroutine.close()
    except Exception:
        _log.exception("what an async receive cleans up failed, after its event loop was closed")


def _task_ended(
    ctx: Context, coroutine: Coroutine[Any, Any, Any], task: asyncio.Task[None]
) -> None:
    if not task.cancelled():
        task.exception()  # seen: of one that close() gave up, and whose loop ran again
    if _task_of(ctx) is task:  # it was cancelled before it began
        coroutine.close()
        settle(ctx, asyncio.CancelledError())


def run_now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that has nothing to wait for: an event that is applied."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise Error(
        "an async receive waited for something while it was given an event or a message of "
        "recovery: it only changes its state then"
    )


def inside(ctx: Context, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a method of the context in its actor, from an async receive."""
    done = threading.Event()
    outcome: list[Any] = [None, None]

    def job() -> None:
        try:
            outcome[0] = getattr(ctx, method)(*args, **kwargs)
        except BaseException as error:
            outcome[1] = error
        finally:
            done.set()

    ctx._post(job)
    ran = ctx.system._wait(done.is_set, None, ctx.self)
    if ran is None:
        done.wait()
    elif not ran:
        raise Closed(f"{ctx.self.address} does not go on")
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
