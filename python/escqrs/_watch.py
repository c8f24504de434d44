"""Live queries: results as they change."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._query import core_of
from .errors import Error, Timeout

if TYPE_CHECKING:
    from ._core import ActorSystemBase
    from ._readmodel import ReadModel

__all__ = ["Watch"]

_R = TypeVar("_R")


class Hub:
    """Tells the watches of one read model that its rows have changed; a thread while there are any.

    The thread waits in the core, without a time limit; it holds no watch meanwhile, so that one
    that nobody refers to ends by itself. Whoever takes a watch away kicks it, and it looks whether
    there are any left. The lock guards ``_running`` and what is added; a watch that is gone is
    taken away without it, as that may happen anywhere.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._watches: set[weakref.ref[Watch[Any]]] = set()
        self._running = False

    def add(self, watch: Watch[Any]) -> None:
        with self._lock:
            self._watches.add(weakref.ref(watch, self._forget))
            if not self._running:
                self._running = True
                thread = threading.Thread(target=self._run, name="escqrs-watch", daemon=True)
                thread.start()

    def remove(self, watch: Watch[Any]) -> None:
        self._forget(weakref.ref(watch))

    def _forget(self, watch: weakref.ref[Watch[Any]]) -> None:
        self._watches.discard(watch)
        with contextlib.suppress(Error):  # the system is closed, and the thread ends by itself
            self._core.kick()

    def _wake(self, *, last: BaseException | None = None) -> bool:
        """Whether the thread goes on; after a failure it does not."""
        with self._lock:
            watches = [watch for one in list(self._watches) if (watch := one()) is not None]
            if last is not None:
                self._watches.clear()
            self._running = bool(watches) and last is None
            running = self._running
        for watch in watches:
            watch._wake(last)
        return running

    def _run(self) -> None:
        seen = 0
        try:
            while self._wake():
                seen = self._core.changed(seen)
        except BaseException as error:
            self._wake(last=error)


_hub_lock = threading.Lock()


class Watch(Generic[_R]):
    """The results of a query as they change; see :meth:`ReadModel.watch`."""

    def __init__(self, model: ReadModel, query: Callable[[], _R]) -> None:
        self._core = core_of(model)
        self._query = query
        self._simulation: ActorSystemBase | None = self._core.system().store._simulation
        self._moved = threading.Event()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._failure: BaseException | None = None
        self._closed = False
        self._last: list[_R] = []  # none yet, or one
        self._hub: Hub | None = None
        if self._simulation is not None:  # which is run, and has no thread
            return
        with _hub_lock:
            if model._escqrs_hub is None:
                model._escqrs_hub = Hub(self._core)
            self._hub = model._escqrs_hub
        self._moved.set()
        self._hub.add(self)

    def _wake(self, failure: BaseException | None) -> None:
        self._failure = self._failure or failure
        self._moved.set()
        waiter = self._waiter
        if waiter is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                waiter[0].call_soon_threadsafe(waiter[1].set)

    def close(self) -> None:
        """End the iteration, also of a thread or task that waits in it."""
        self._closed = True
        if self._hub is not None:
            self._hub.remove(self)
        self._wake(None)

    def _check(self) -> bool:
        """Whether it is over; whoever asks again is told again."""
        if self._closed or self._failure is not None:
            self._moved.set()
        if self._failure is not None and not self._closed:
            raise self._failure
        return self._closed

    def _changed(self) -> bool:
        """Run the query; whether its result is another."""
        result = self._query()
        if self._last and self._last[0] == result:
            return False
        self._last = [result]
        return True

    def __iter__(self) -> Watch[_R]:
        return self

    def _run(self, simulation: ActorSystemBase) -> _R:
        """The next result of a seeded system, which goes on until there is one."""
        found = simulation._wait(lambda: self._closed or self._changed(), None)
        if found is None:
            raise TypeError("a watch of a seeded system is for the thread that runs it")
        if not found:
            raise Timeout("nothing is left to do that could change the result of the query")
        if self._closed:
            raise StopIteration
        return self._last[0]

    def __next__(self) -> _R:
        if self._simulation is not None:
            return self._run(self._simulation)
        while True:
            self._moved.wait()
            self._moved.clear()
            if self._check():
                raise StopIteration
            if self._changed():
                return self._last[0]

    def __aiter__(self) -> Watch[_R]:
        return self

    async def __anext__(self) -> _R:
        if self._simulation is not None:
            raise TypeError("an event loop does not run a seeded system: iterate without `async`")
        event = asyncio.Event()
        self._waiter = (asyncio.get_running_loop(), event)
        try:
            while True:
                if not self._moved.is_set():
                    await event.wait()
                event.clear()
                self._moved.clear()
                if self._check():
                    raise StopAsyncIteration
                if await asyncio.to_thread(self._changed):
                    return self._last[0]
        finally:
            self._waiter = None

    def __enter__(self) -> Watch[_R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
