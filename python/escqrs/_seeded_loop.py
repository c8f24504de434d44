"""The event loop of a seeded system: async actors and async clients in the order of its seed.

Who drives whom: the loop is an actor of the system (:class:`_Turns`) that ``children`` does not
show. Each callback that becomes ready sends it a message, and each message runs one callback, the
oldest. So the seed decides when the loop goes on, as it does for every actor; callbacks among
themselves keep asyncio's order. The loop's time is the system's clock; its next timer is one of its
actor's. Nothing waits here: there is no selector, and what needs one or a thread is refused.

Nested runs: a callback that waits for an actor (``ref.ask``) steps the system on top of itself. The
loop's actor is in its message then and cannot go on meanwhile, as the thread of a real loop could
not; an actor that waits steps the loop's as any other.

Failures: asyncio's, in tasks and in callbacks (the exception handler, which logs). What is no
``Exception`` is logged as well, as on a loop of the system's own: other actors need it. Ctrl-C goes
to who runs the system; that of a client's task waits for its ``result()``.

Ends: ``close()`` of the system ends the actors first, which need the loop; a receive that waits for
what can no longer come is cancelled, and named. Then what tasks are left are cancelled and run to
their ends, and the loop is closed. Locks: none; one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import sys
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVarTuple, Unpack, cast

from ._actor_async import cancel_others
from ._core import Context, Ref
from ._log import logger

if TYPE_CHECKING:
    from ._core import ActorTimer
    from ._simulation import System

__all__ = ["SeededLoop"]

_Ts = TypeVarTuple("_Ts")

_GO = object()
_DUE = object()  # the timer of the actor
_EXACT = 2e-9  # seconds that a sum of floats may be off


class _Future(asyncio.Future[Any]):
    """Sets of futures, as asyncio keeps them, have the same order in every run."""

    _number: int

    def __new__(cls, *_: Any, **options: Any) -> _Future:
        self = super().__new__(cls)
        self._number = options["loop"].next_number()
        return self

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[Any]):
    """Likewise: a task group that fails cancels a set of tasks."""

    _number: int

    def __new__(cls, *_: Any, **options: Any) -> _Task:
        self = super().__new__(cls)
        self._number = options["loop"].next_number()
        return self

    def __hash__(self) -> int:
        return self._number


class SeededLoop(asyncio.BaseEventLoop):
    """Made by a seeded system with its first async actor or client."""

    _ready: Any  # asyncio's own, as in all its versions: handles that are ready, oldest first
    _scheduled: list[Any]  # a heap of timers by time
    _thread_id: Any
    _asyncgen_firstiter_hook: Any
    _asyncgen_finalizer_hook: Any

    def __init__(self, system: System) -> None:
        super().__init__()
        self._system = system
        self._numbers = itertools.count()
        self._armed: tuple[float, ActorTimer] | None = None
        self._told: KeyboardInterrupt | None = None  # each task that awaits another raises it again
        self._turns: Ref = system._spawn_loop(lambda: _Turns(self), "escqrs-loop")
        self.set_task_factory(_make_task)

    def is_run_by(self, ref: Ref) -> bool:
        return ref == self._turns

    def next_number(self) -> int:
        return next(self._numbers)

    def time(self) -> float:
        return self._system._now

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(loop=self)

    # ---- what is ready ---------------------------------------------------------------------------

    def _call_soon(self, *args: Any) -> asyncio.Handle:
        handle: asyncio.Handle = cast("Any", super())._call_soon(*args)
        self._turns.tell(_GO)
        return handle

    def _write_to_self(self) -> None:
        """Whoever calls has told the actor."""

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        if self._thread_id is None:  # else it is seen when the callback has ended
            self._turns.tell(_GO)
        return handle

    def take_turn(self, ctx: Context) -> None:
        """In the loop's actor: one callback, if there is one."""
        if self.is_closed():
            return
        self._take_due(ctx)
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                with self._running():
                    handle._run()
                break
        self._arm(ctx)

    def tell_interrupt(self, error: KeyboardInterrupt) -> None:
        if error is not self._told and not self._system._is_a_clients(error):
            self._system._interrupt(error)
        self._told = error

    def _take_due(self, ctx: Context) -> None:
        until = self.time() + _EXACT
        while self._scheduled and self._scheduled[0].when() <= until:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            if not handle.cancelled():
                self._ready.append(handle)
                ctx.tell(ctx.self, _GO)

    def _arm(self, ctx: Context) -> None:
        """One timer of the actor's, for the first of the loop's."""
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)._scheduled = False
        first = self._scheduled[0].when() if self._scheduled else None
        if self._armed is not None and self._armed[0] != first:
            self._armed[1].cancel()
            self._armed = None
        if first is not None and self._armed is None:
            seconds = max(1e-9, first - self.time())
            self._armed = first, ctx.schedule_once(seconds, _DUE)

    @contextlib.contextmanager
    def _running(self) -> Generator[None]:
        before = asyncio._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        self._thread_id = threading.get_ident()
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(before)
            sys.set_asyncgen_hooks(*hooks)
            self._thread_id = None

    # ---- its end ---------------------------------------------------------------------------------

    def end(self) -> None:
        """Cancel what is left, run it to its end, and close. Nothing else needs the loop."""
        if self.is_closed():
            return
        last = self.create_task(cancel_others())
        if self._system._wait(last.done, None):
            self.close()

    # ---- what it has not -------------------------------------------------------------------------

    def run_forever(self) -> NoReturn:
        raise TypeError(
            "a seeded system runs its event loop itself, while the thread waits for something of "
            "it: use system.client(coroutine).result(), or system.run()"
        )

    def run_until_complete(self, future: Any) -> NoReturn:
        if asyncio.iscoroutine(future):
            future.close()
        self.run_forever()


def _refuse_thread(*_: Any, **__: Any) -> NoReturn:
    raise TypeError(
        "what runs on a thread has no place in a seeded order: call the function itself, or give "
        "the actor something else to call in tests"
    )


def _refuse_outside(*_: Any, **__: Any) -> NoReturn:
    raise TypeError(
        "the event loop of a seeded system waits for nothing outside of it, as files, sockets, "
        "processes and signals are: give the actor something else to call in tests"
    )


for _name in (
    "add_reader",
    "remove_reader",
    "add_writer",
    "remove_writer",
    "add_signal_handler",
    "remove_signal_handler",
    "getaddrinfo",
    "getnameinfo",
    "create_connection",
    "create_server",
    "create_datagram_endpoint",
    "create_unix_connection",
    "create_unix_server",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "subprocess_exec",
    "subprocess_shell",
    "sendfile",
    "start_tls",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendfile",
    "sock_sendall",
    "sock_sendto",
    "sock_connect",
    "sock_accept",
):
    setattr(SeededLoop, _name, _refuse_outside)
setattr(SeededLoop, "run_in_executor", _refuse_thread)  # noqa: B010 - of another type


def _make_task(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    return _Task(coroutine, loop=loop, **options)


class _Turns:
    """The actor that is the loop."""

    def __init__(self, loop: SeededLoop) -> None:
        self.loop = loop

    def receive(self, ctx: Context, message: object) -> None:
        if message is _DUE:
            self.loop._armed = None
        elif message is not _GO:
            return
        try:
            self.loop.take_turn(ctx)
        except KeyboardInterrupt as error:
            self.loop.tell_interrupt(error)
        except BaseException:
            logger.exception("a callback of the event loop ended with what ends event loops")
