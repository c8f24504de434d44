"""``es.Feed``: the events of a store as they become durable."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

from . import _core, _deadline
from ._core import Recorded
from ._match import Match, matches
from .errors import Closed, Timeout

if TYPE_CHECKING:
    from ._store import Store

__all__ = ["Feed"]

POSITION_MAX = 2**63 - 1
_LOOK_SECONDS = 0.1  # between two looks at a provider that others may write to

_news: weakref.WeakKeyDictionary[Store, _News] = weakref.WeakKeyDictionary()
_news_lock = threading.Lock()


class Feed:
    """The events of a store as they become durable; made by :meth:`Store.subscribe`.

    Iterating waits at the head, and Ctrl-C interrupts it; ``next(timeout=)`` waits so long; ``async
    for`` works in any event loop. ``close()``, from any thread or within the loop, ends the
    iteration; the store's ``close()`` ends it with ``es.Closed``. One thread or task at a time
    iterates.
    """

    _is_behind_parts = False  # its position moves with the last part of an event that is wanted

    @property
    def position(self) -> int:
        """That of the last event given; before the first one, where the feed begins."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        raise NotImplementedError

    @property
    def store(self) -> Store:
        """The store that it follows."""
        raise NotImplementedError

    def next(self, timeout: float | None = None) -> Recorded:
        """The next event; waits for one. timeout: seconds, then ``es.Timeout`` (a TimeoutError).

        ``es.Closed`` when the feed or the store is closed.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the iteration, whoever waits in it. From any thread; twice is once."""
        raise NotImplementedError

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Recorded:
        raise NotImplementedError

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Recorded:
        loop = asyncio.get_running_loop()
        while True:
            recorded = self._poll()
            if recorded is not None:
                return recorded
            if self.closed:
                raise StopAsyncIteration
            await self._changed(loop)

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        end = ", closed" if self.closed else ""
        return f"<escqrs.Feed of {self.store!r} at {self.position}{end}>"

    def _poll(self) -> Recorded | None:
        """The next event, or None where there is none now."""
        raise NotImplementedError

    @property
    def _looked(self) -> int:
        """All up to it was read, where _poll() has answered None, or a thread waits in next()."""
        raise NotImplementedError

    async def _changed(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until there may be something: an event, or an end."""
        raise NotImplementedError


class CoreFeed(_core.FeedBase, Feed):
    """Of a store of the core."""

    _is_behind_parts = True

    async def _changed(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        descriptor = self._arm()
        loop.add_reader(descriptor, _settle, future)
        try:
            await future
        finally:
            loop.remove_reader(descriptor)
            self._disarm()


def core_feed(
    store: Store,
    after: int,
    match: Match | Iterable[Match],
    deleted: Literal["raise", "skip"] = "raise",
) -> CoreFeed:
    """A feed of a store of the core, as that of a system always is."""
    return CoreFeed(store, min(after, POSITION_MAX), match, deleted)


class ProviderFeed(Feed):
    """Of a provider that reads in its own way: looks when a commit of this object has returned, and
    every now and then, since others may write below it."""

    def __init__(
        self, store: Store, after: int, match: Match | Iterable[Match], deleted: str
    ) -> None:
        matches(match)
        if deleted not in ("raise", "skip"):
            raise ValueError(f'deleted is "raise" or "skip", not {deleted!r}')
        # a provider that cannot delete does not take it
        self._options: dict[str, Any] = {"deleted": "skip"} if deleted == "skip" else {}
        self._store = store
        self._match = match if isinstance(match, Match) else tuple(match)
        self._after = self._upto = self._position = after
        self._page: Iterator[Recorded] | None = None
        self._ended = False
        self._news = _news_of(store)
        self._busy = threading.Lock()

    @property
    def position(self) -> int:
        return self._position

    @property
    def _looked(self) -> int:
        return self._after

    @property
    def closed(self) -> bool:
        return self._ended

    @property
    def store(self) -> Store:
        return self._store

    def close(self) -> None:
        self._ended = True
        self._news.tell()

    def __next__(self) -> Recorded:
        recorded = self._wait(None)
        if recorded is None:
            raise StopIteration
        return recorded

    def next(self, timeout: float | None = None) -> Recorded:
        recorded = self._wait(timeout)
        if recorded is None:
            raise Closed("the feed is closed")
        return recorded

    def _wait(self, timeout: float | None) -> Recorded | None:
        until = _deadline.until(timeout)
        while True:
            seen = self._news.count
            recorded = self._poll()
            if recorded is not None or self._ended:
                return recorded
            left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, until - time.monotonic())
            if left <= 0:
                raise Timeout(f"no event after position {self._after} came in time")
            self._news.wait(seen, left)

    def _poll(self) -> Recorded | None:
        if not self._busy.acquire(blocking=False):
            raise ValueError("another thread is reading from this feed")
        try:
            return self._look()
        finally:
            self._busy.release()

    def _look(self) -> Recorded | None:
        while not self._ended:
            if self._news.closed:
                raise Closed(f"{self._store!r} is closed")
            if self._page is None:
                self._upto = self._store.head
                if self._upto <= self._after:
                    return None
                self._page = iter(
                    self._store.events(
                        after=self._after, upto=self._upto, match=self._match, **self._options
                    )
                )
            for recorded in self._page:
                self._position = recorded.position
                return recorded
            self._page = None
            self._after = self._upto
        return None

    async def _changed(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        timer = loop.call_later(_LOOK_SECONDS, _settle, future)
        self._news.add(loop, future)
        try:
            await future
        finally:
            timer.cancel()
            self._news.remove(loop, future)


for _kind in (CoreFeed, ProviderFeed):  # errors name the class that people know
    _kind.__name__ = _kind.__qualname__ = Feed.__name__


class _News:
    """Tells who follows a provider that it has changed."""

    def __init__(self) -> None:
        self.count = 0
        self.closed = False
        self.followers: weakref.WeakSet[Store] = weakref.WeakSet()  # of the core, on the provider
        self._condition = threading.Condition()
        self._futures: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()

    def tell(self) -> None:
        with self._condition:
            self.count += 1
            self._condition.notify_all()
            waiting, self._futures = self._futures, set()
            followers = list(self.followers)
        for store in followers:
            store._provider_changed()
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits any more
                loop.call_soon_threadsafe(_settle, future)

    def wait(self, seen: int, seconds: float) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self.count != seen, seconds)

    def add(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
        with self._condition:
            self._futures.add((loop, future))

    def remove(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
        with self._condition:
            self._futures.discard((loop, future))


def _news_of(store: Store) -> _News:
    with _news_lock:
        return _news.setdefault(store, _News())


def follow(provider: Store, store: Store) -> None:
    """A store of the core that is open on a provider learns of its commits."""
    _news_of(provider).followers.add(store)


def telling(function: Callable[..., Any], closes: bool) -> Callable[..., Any]:
    """The method of a provider that changes it; who follows is told when it returns."""

    @functools.wraps(function)
    def method(self: Store, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(self, *args, **kwargs)
        finally:
            news = _news.get(self)
            if news is not None:
                news.closed = news.closed or closes
                news.tell()

    return method


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
