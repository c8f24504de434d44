"""Live queries: results as they change."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._query import core_of
from ._readmodel_status import STATES
from .errors import ReadModelStopped, Timeout

if TYPE_CHECKING:
    from ._readmodel import ReadModel

__all__ = ["Watch"]

_R = TypeVar("_R")


class Hub:
    """Tells the watches of one read model that it has moved on; a thread while there are any."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._watches: weakref.WeakSet[Watch[Any]] = weakref.WeakSet()
        self._running = False

    def add(self, watch: Watch[Any]) -> None:
        with self._lock:
            self._watches.add(watch)
            if not self._running:
                self._running = True
                thread = threading.Thread(target=self._run, name="escqrs-watch", daemon=True)
                thread.start()

    def remove(self, watch: Watch[Any]) -> None:
        with self._lock:
            self._watches.discard(watch)

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            position = self._core.status()[1]
            while True:
                with self._lock:
                    if not self._watches:
                        self._running = False
                        return
                    watches = list(self._watches)
                try:
                    self._core.wait(position + 1, _HUB_SECONDS)
                except (Timeout, ReadModelStopped):
                    if self._core.status()[1] <= position:
                        self._pause()
                        continue
                position = self._core.status()[1]
                for watch in watches:
                    watch._wake(None)
        except BaseException as error:
            failure = error
        with self._lock:
            self._running = False
            watches = list(self._watches)
            self._watches.clear()
        for watch in watches:
            watch._wake(failure)

    def _pause(self) -> None:
        if STATES[self._core.status()[0]] == "stopped":
            time.sleep(_HUB_SECONDS / 10)


_hub_lock = threading.Lock()
_HUB_SECONDS = 1.0  # after which the thread looks whether anybody still watches


class Watch(Generic[_R]):
    """The results of a query as they change; see :meth:`ReadModel.watch`."""

    def __init__(self, model: ReadModel, query: Callable[[], _R]) -> None:
        self._core = core_of(model)
        self._query = query
        self._moved = threading.Event()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._failure: BaseException | None = None
        self._closed = False
        self._last: list[_R] = []  # none yet, or one
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

    def __next__(self) -> _R:
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

    def __del__(self) -> None:
        hub = getattr(self, "_hub", None)
        if hub is not None:
            hub.remove(self)
