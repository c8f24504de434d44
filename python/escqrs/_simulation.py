"""What runs in a repeatable order: ``escqrs.testing.System``, ``Client`` and ``explore``."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, Self, TypeVar, cast

from . import _system
from ._actor import ActorSystem
from ._core import Context, Ref
from ._props import OneForOne, check_seconds
from ._seeded_loop import SeededLoop
from ._store import Store, check_numbers
from .errors import Timeout

__all__ = ["Client", "System", "explore"]

_T = TypeVar("_T")

_FOR_EVER = 1e9  # seconds
_CLOSE_SECONDS = 86_400.0  # of its time, that close() waits for what is under way
_GO = object()


class System(ActorSystem):
    """An actor system for tests, with entities, read models and processes beside the actors: one
    thread, an order that a seed decides, a clock that does not wait.

    ``open`` gives a system of entities and read models, as ``es.open`` does. All of it runs only
    while the thread that made this one waits for something of theirs (``ask``, ``Reply.result``,
    ``Stream.get``, ``flush``, ``close``) or calls ``run``. What goes next is drawn from the seed:
    which actor or entity handles a message, whether what entities decided is committed now (all of
    it in one batch) or later, whether read models and processes take what is committed. So the same
    seed gives the same order, and the same history: positions, times, ids (``es.new_id`` in this
    thread, too).

    Timers, timeouts and retries go by ``now``, which moves to the next of them when nothing else is
    left to do; an answer that can no longer come is ``es.Timeout`` at once. Persistent actors
    commit before the next message is handled. A handler that asks waits on this thread, and only
    what it waits for goes on meanwhile. Async actors run on an event loop of the system's, whose
    callbacks are steps as well. What needs threads is refused: durable subscriptions.

    seed: any int.
    supervisor: as for ``es.ActorSystem``.
    """

    seed: int
    _opened: list[_system.System]
    _clients: list[Client[Any]]
    _seeded_loop: SeededLoop | None
    _stuck: list[str]  # addresses of actors whose receive close() has cancelled

    def __new__(cls, seed: int = 0, *, supervisor: OneForOne | None = None) -> Self:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed is an int, not {type(seed).__name__}")
        self = cls._make(supervisor, None, seed)
        self.seed = seed
        self._opened = []
        self._clients = []
        self._seeded_loop = None
        self._stuck = []
        return self

    def open(
        self,
        store: str | os.PathLike[str] | Store | type = ":memory:",
        *classes: Any,
        durability: str = "full",
        max_in_flight: int = 100_000,
        max_entities: int = 100_000,
    ) -> _system.System:
        """A system of entities and read models that runs beside the actors, in the same order.

        store: the path of a file; where a class stands in its place, a store in memory. Or a
            provider of one's own (a subclass of ``es.Store`` that keeps its events itself), whose
            methods are called on this thread; times are those that it gives its events.
        classes: aggregates, read models, processes, events, as for ``es.open``; the rest likewise.

        It is closed with this one, after the actors.
        """
        if isinstance(store, type):
            store, classes = ":memory:", (store, *classes)
        opened = _system.open_with(
            self,
            store,
            classes,
            durability=durability,
            max_in_flight=max_in_flight,
            max_entities=max_entities,
        )
        self._opened.append(opened)
        return opened

    def client(self, steps: Generator[Any, Any, _T] | Coroutine[Any, Any, _T]) -> Client[_T]:
        """Run a generator or a coroutine beside the others, as one who uses the system from
        outside.

        What a generator yields is a reply (of ``submit``), for whose result it waits, or None, to
        let others go on first. A coroutine awaits them, and what asyncio has that waits for nothing
        outside. An exception that nobody takes from its ``result()`` is raised by ``run``, or at
        the end of the ``with`` statement.
        """
        found = Client(self, steps)
        self._clients.append(found)
        found._begin()
        return found

    @property
    def now(self) -> float:
        """Seconds, from 0."""
        return self._now

    def run(self, seconds: float | None = None) -> None:
        """Let everything run until nothing is left to do, or until so many seconds have passed."""
        until = _FOR_EVER if seconds is None else self.now + check_seconds("seconds", seconds, True)
        while self._step(until):
            pass
        self._raise_untold()

    def close(self, timeout: float | None = None) -> None:
        """As of ``es.ActorSystem``; then what was opened is closed as well. ``es.Timeout`` where an
        async receive waited for what could no longer come: it was cancelled, and all is closed."""
        super().close(timeout)
        while self._opened:
            self._opened[-1].close()
            self._opened.pop()
        if self._stuck:
            stuck, self._stuck = ", ".join(self._stuck), []
            raise Timeout(f"an async receive waited for what can no longer come: {stuck}")

    def _raise_untold(self) -> None:
        for client in self._clients:
            client._raise_untold()

    def _is_a_clients(self, error: BaseException) -> bool:
        return any(client._raises(error) for client in self._clients)

    @property
    def children(self) -> tuple[Ref, ...]:
        """As of ``es.ActorSystem``."""
        loop = self._seeded_loop
        return tuple(ref for ref in super().children if loop is None or not loop.is_run_by(ref))

    @property
    def actor_count(self) -> int:
        """As of ``es.ActorSystem``."""
        return super().actor_count - (self._seeded_loop is not None and not self._ended)

    def _event_loop(self) -> SeededLoop:
        if self._seeded_loop is None:
            self._seeded_loop = SeededLoop(self)
        return self._seeded_loop

    def _is_on_loop(self) -> bool:
        running = asyncio._get_running_loop()
        return running is not None and running is self._seeded_loop

    def _check_loop(self) -> None:
        if not self._is_on_loop():
            raise TypeError(
                "nothing of a seeded system goes on while another event loop waits: use "
                "`reply.result()`, or await in an async actor or in a coroutine given to "
                "`system.client`"
            )

    def _end_actors(self, until: float | None) -> None:
        longest = self._now + _CLOSE_SECONDS
        super()._end_actors(longest if until is None else min(until, longest))
        if self._receiving and (self._rests or self._now >= longest):
            for ctx, (_, task) in list(self._receiving.items()):
                self._stuck.append(ctx.self.address)
                ctx.self.stop()
                if task is not None:
                    task.cancel()
            super()._end_actors(self._now + _CLOSE_SECONDS)
        if self._seeded_loop is not None and not self.children:
            self._seeded_loop.end()

    def __exit__(self, *exception: object) -> None:
        try:
            super().__exit__(*exception)
        except Timeout:
            if exception[0] is None:
                raise
        if exception[0] is None:
            self._raise_untold()

    def __repr__(self) -> str:
        return f"<escqrs.testing.System: seed {self.seed}, {super().__repr__()[1:-1]}>"


class Client(Generic[_T]):
    """What :meth:`System.client` runs."""

    def __init__(
        self, system: System, steps: Generator[Any, Any, _T] | Coroutine[Any, Any, _T]
    ) -> None:
        if not isinstance(steps, (Generator, Coroutine)):
            raise TypeError(f"a client is a generator or a coroutine, not {type(steps).__name__}")
        self._system = system
        self._steps = steps
        self._task: asyncio.Task[_T] | None = None
        self._done = False
        self._told = False
        self._value: Any = None
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether it has returned or raised."""
        return self._done

    def result(self) -> _T:
        """What it returned, or raised; runs the system until it has. ``es.Timeout`` where nothing
        is left to do before."""
        while not self._done:
            if not self._system._step(_FOR_EVER):
                raise Timeout("the client waits for what can no longer come")
        self._told = True
        if self._error is not None:
            raise self._error
        return cast("_T", self._value)

    def _raise_untold(self) -> None:
        if self._error is not None and not self._told:
            self._told = True
            raise self._error

    def _begin(self) -> None:
        if isinstance(self._steps, Coroutine):
            self._task = self._system._event_loop().create_task(self._steps)
            self._task.add_done_callback(self._ended)
        else:
            self._system.spawn(lambda: _Runner(self)).tell(_GO)

    def _raises(self, error: BaseException) -> bool:
        task = self._task
        return (
            task is not None and task.done() and not task.cancelled() and task.exception() is error
        )

    def _ended(self, task: asyncio.Task[_T]) -> None:
        self._done = True
        if task.cancelled():
            self._error = asyncio.CancelledError()
            self._told = self._system.closed  # by its close()
        else:
            self._error = task.exception()
            self._value = None if self._error is not None else task.result()

    def _go_on(self, ctx: Context, resume: Callable[[Any], Any], value: Any) -> None:
        try:
            awaited = resume(value)
        except StopIteration as end:
            self._done, self._value = True, end.value
        except BaseException as error:
            self._done, self._error = True, error
        else:
            if awaited is None:
                ctx.tell(ctx.self, _GO)
            else:
                ctx.reenter_after(awaited, lambda reply: self._answered(ctx, reply))
            return
        ctx.stop()

    def _answered(self, ctx: Context, reply: Any) -> None:
        error = reply.exception()
        if error is None:
            self._go_on(ctx, self._steps.send, reply.result())
        else:
            self._go_on(ctx, self._steps.throw, error)


class _Runner:
    """The actor of a client."""

    def __init__(self, client: Client[Any]) -> None:
        self.client = client

    def receive(self, ctx: Context, message: object) -> None:
        if message is _GO:
            self.client._go_on(ctx, self.client._steps.send, None)


def explore(
    test: Callable[[System], object], seeds: int = 1000, *, supervisor: OneForOne | None = None
) -> None:
    """Run a test with many orders: ``test(system)`` with each seed from 0 to ``seeds - 1``. It may
    be ``async def``, or a generator, and is a client then.

    The first one that raises ends it: the seed is printed to ``sys.stderr``, the exception has a
    note of it, and ``System(seed)`` repeats it.
    """
    if not callable(test):
        raise TypeError(f"explore takes a function of a system, not {test!r}")
    check_numbers(seeds=seeds)
    for seed in range(seeds):
        try:
            with System(seed, supervisor=supervisor) as system:
                steps = test(system)
                if inspect.iscoroutine(steps) or inspect.isgenerator(steps):
                    system.client(steps).result()
        except BaseException as error:
            note = f"with seed {seed} of {seeds}; System({seed}) repeats it"
            error.add_note(note)
            print(f"{type(error).__name__} {note}", file=sys.stderr)
            raise
