"""The consumers of one durable subscription in one process.

They share a group. Its one thread follows the store with a feed, as far ahead as the window allows,
and sleeps otherwise; consumers take from the group. Locks: ``registry_lock``, then a group's
``saving``, then its ``lock``; a group commits under ``saving`` alone.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import heapq
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ._core import Recorded
from ._log import logger
from ._match import Match
from ._message import Event
from ._part import Place, event_at, is_last_of, part_of
from ._subscription_record import (
    Acknowledged,
    ConsumptionRested,
    Dead,
    DeletedLeftOut,
    Facts,
    checkpoint_of,
    position_of,
    stream_of,
    troubles_of,
)
from .errors import Closed, Deleted

if TYPE_CHECKING:
    from ._feed import Feed
    from ._store import Store

_ENGINE = "escqrs."  # types or streams of the engine's own events begin so
_SAVE_SECONDS = 1.0  # after which the next acknowledgement is stored with those before it
_SAVE_EVENTS = 10_000  # events that nobody wanted, after which the position is stored all the same
_CHUNK = 64  # events that are taken in at once


class Entry:
    """An event on its way to be acknowledged."""

    __slots__ = ("attempts", "dead", "is_last", "place", "recorded")

    def __init__(self, recorded: Recorded, is_last: bool = True, dead: bool = False) -> None:
        self.recorded = recorded
        self.attempts = 0  # deliveries so far
        self.dead = dead  # a dead letter that is delivered again: below the position
        self.place = (recorded.position, part_of(recorded)[0])
        self.is_last = is_last  # of the parts of its event that are wanted

    def __lt__(self, other: Entry) -> bool:
        return self.place < other.place


@dataclass(frozen=True)
class Options:
    wanted: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    max_attempts: int | None
    backoff: float
    checkpoint_every: int
    window: int
    deleted: Literal["raise", "skip"]


class Group:
    def __init__(self, store: Store, name: str, options: Options, facts: Facts) -> None:
        self.store = store
        self.name = name
        self.options = options
        self.generation = facts.generation
        self.saving = threading.Lock()
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)  # for consumers
        self.room = threading.Condition(self.lock)  # for the thread: in the window
        # all below: `lock`
        self.consumers = 0
        self.in_hand = 0
        self.queues: dict[str, collections.deque[Entry]] = {}  # by stream; its first is out
        self.ready: list[Entry] = []  # heap by position
        self.delayed: list[tuple[float, Entry]] = []  # heap by time
        self.open: collections.OrderedDict[Place, Entry] = collections.OrderedDict()
        self.ahead: set[int] = set()  # acknowledged, above the lowest that is not
        self.waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self.looked = position_of(store, name, facts)  # all up to it was read
        self.news = 0  # how often somebody was woken
        self.is_full = False  # the window is
        self.is_level = False  # there was no more when it looked last
        self.unsaved = 0  # acknowledgements
        self.saved_at = time.monotonic()
        self.error: BaseException | None = None
        self.last_error: str | None = None
        self.ended = False
        # `saving`
        self.saved = self.looked
        self.saved_ahead: frozenset[int] = frozenset()

        troubles = troubles_of(store, name, facts)
        self.dead = troubles.dead
        self.failed = {place: one.attempts for place, one in troubles.failed.items()}
        # deliveries that are recorded one by one: consumers died, one of these may be why
        self.careful = 2 * options.checkpoint_every if troubles.died else 0
        for recorded in store.history(f"{stream_of(name)}/acknowledged", reverse=True, limit=1):
            last = recorded.event
            if isinstance(last, Acknowledged) and last.generation == self.generation:
                self.ahead = {one for one in last.positions if one > self.looked}
                self.saved_ahead = frozenset(self.ahead)
        with self.lock:
            for place, one in self.dead.items():
                event = event_at(store, place) if one.released else None
                if event is not None:
                    self._add(Entry(event, dead=True))
        self.match = [Match(types, tags) for types, tags in options.wanted]
        self.plain = not any(one.types for one in self.match)
        self.prepare()

    def prepare(self) -> None:
        """A feed behind what was read, and the thread that is to follow it."""
        self.feed: Feed = self.store.subscribe(
            after=self.looked, match=self.match, deleted=self.options.deleted
        )
        self.thread = threading.Thread(
            target=_follow, args=(self,), name=f"escqrs-{self.name}", daemon=True
        )

    @property
    def counts(self) -> bool:
        return self.options.max_attempts is not None

    # ---- reading ahead

    def follow(self) -> None:
        """The thread: takes what there is, then waits for more, or for room."""
        room = self.options.window
        while room > 0:
            several: list[Entry] = []
            is_level = False
            try:
                while len(several) < min(room, _CHUNK) and not is_level:
                    recorded = self.feed._poll()
                    if recorded is None:
                        is_level = True
                    else:
                        several.append(Entry(recorded, is_last_of(self.feed, recorded)))
            finally:  # what came before an event that cannot be read
                room = self._take_in_all(several, is_level)
            if is_level and room > 0:
                try:
                    recorded = self.feed.next()
                except Closed:
                    if self.feed.closed:
                        return
                    raise
                entry = Entry(recorded, is_last_of(self.feed, recorded))
                room = self._take_in_all([entry], False)

    def _take_in_all(self, several: list[Entry], is_level: bool) -> int:
        """Waits for room, and says how much there is; 0 at the end."""
        with self.lock:
            self.is_level = is_level
            for entry in several:
                self._take_in(entry)
            if is_level:
                self.looked = max(self.looked, self.feed._looked)
            self.wake()
            self.is_full = len(self.open) >= self.options.window
            while self.is_full and not self.ended:
                self.room.wait()
            return 0 if self.ended else self.options.window - len(self.open)

    def _take_in(self, entry: Entry) -> None:
        recorded = entry.recorded
        position = recorded.position
        self.looked = position if entry.is_last else position - 1
        is_engine = recorded.type.startswith(_ENGINE) or recorded.stream.startswith(_ENGINE)
        unwanted = self.plain and is_engine
        # a dead letter that is not behind the position: it was killed before it moved
        if unwanted or position in self.ahead or entry.place in self.dead:
            return
        entry.attempts = self.failed.get(entry.place, 0)
        self.open[entry.place] = entry
        self._add(entry)

    def _add(self, entry: Entry) -> None:
        queue = self.queues.get(entry.recorded.stream)
        if queue is not None:
            queue.append(entry)
            return
        self.queues[entry.recorded.stream] = collections.deque((entry,))
        heapq.heappush(self.ready, entry)

    def add_released(self, place: Place, dead: Dead) -> None:
        recorded = event_at(self.store, place)
        with self.lock:
            self.dead[place] = dead
            if recorded is not None:
                self._add(Entry(recorded, dead=True))
                self.wake()

    def wake(self) -> None:
        """Somebody may go on. Under `lock`."""
        self.news += 1
        self.changed.notify_all()
        waiters, self.waiters = self.waiters, set()
        for loop, future in waiters:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits any more
                loop.call_soon_threadsafe(settle_future, future)

    # ---- for consumers

    def pop(self) -> tuple[Entry | None, float | None]:
        """The next event, or None and the seconds until one is due. Under `lock`."""
        now = time.monotonic()
        while self.delayed and self.delayed[0][0] <= now:
            heapq.heappush(self.ready, heapq.heappop(self.delayed)[1])
        if self.ready:
            entry = heapq.heappop(self.ready)
            entry.attempts += 1
            self.in_hand += 1
            return entry, None
        return None, self.delayed[0][0] - now if self.delayed else None

    def has_looked(self, head: int) -> bool:
        """Whether all up to there was read, or as far as the window allows."""
        with self.lock:
            self.note_looked()
            looked = self.looked
            if looked >= head or self.is_full:
                return True
            if not self.is_level:
                return False
        # the thread sleeps until there is something that it wants: perhaps there is not
        options: dict[str, Any] = {"deleted": "skip"} if self.options.deleted == "skip" else {}
        try:
            found = self.store.events(after=looked, upto=head, match=self.match, limit=1, **options)
            if any(True for _ in found):
                return False
        except Deleted:
            return False
        with self.lock:
            self.looked = max(self.looked, head)
        return True

    def note_looked(self) -> None:
        """The thread that sleeps has looked at events that are not wanted. Under `lock`."""
        if self.is_level and not self.store.closed:
            self.looked = max(self.looked, self.feed._looked)

    def skip_deleted(self, upto: int, reason: str) -> bool:
        """Go on behind events that were deleted before they were read, at which it has stopped;
        whether it has. Under the registry's lock."""
        error = self.error
        if not isinstance(error, Deleted) or error.position != upto:
            return False
        self.thread.join()
        # first the record, then the position: whatever happens between, the gap is not silent
        self.save([DeletedLeftOut(self.generation, self.looked, upto, reason)])
        logger.warning(
            "subscription %s: leaves out events up to position %d, which have been deleted: %s",
            self.name,
            upto,
            reason,
        )
        self.feed.close()
        with self.lock:
            self.looked = max(self.looked, upto)
            self.prepare()
            self.error = None
            self.wake()
        self.thread.start()
        self.save(final=True)
        return True

    def done(self, entry: Entry) -> None:
        """It needs no further delivery. Under `lock`."""
        self.in_hand -= 1
        if not entry.dead:
            del self.open[entry.place]
            self.failed.pop(entry.place, None)
            if entry.is_last and self.open and next(iter(self.open)) < entry.place:
                self.ahead.add(entry.place[0])
            self.unsaved += 1
            # not for each one: what is read is read in chunks
            if self.is_full and len(self.open) <= self.options.window * 3 // 4:
                self.is_full = False
                self.room.notify()
        queue = self.queues[entry.recorded.stream]
        queue.popleft()
        if queue:
            heapq.heappush(self.ready, queue[0])
            self.wake()
        else:
            del self.queues[entry.recorded.stream]

    def put_back(self, entry: Entry, delay: float) -> None:
        """To be delivered again. Under `lock`."""
        self.in_hand -= 1
        if delay > 0:
            heapq.heappush(self.delayed, (time.monotonic() + delay, entry))
        else:
            heapq.heappush(self.ready, entry)
        self.wake()

    def is_save_due(self) -> bool:
        return self.unsaved > 0 and (
            self.unsaved >= self.options.checkpoint_every
            or time.monotonic() - self.saved_at >= _SAVE_SECONDS
        )

    def save(self, events: Iterable[Event] = (), *, final: bool = False) -> None:
        """Store what is acknowledged, and these events with it. Returns when it is durable."""
        from ._store import Write

        with self.saving:
            with self.lock:
                self.note_looked()
                low = next(iter(self.open))[0] - 1 if self.open else self.looked
                self.ahead = {one for one in self.ahead if one > low}
                ahead = frozenset(self.ahead)
                unsaved, self.unsaved = self.unsaved, 0
                self.saved_at = time.monotonic()
            writes: list[Write] = []
            given = tuple(events)
            if given:
                writes.append(Write(stream_of(self.name), given))
            if ahead - self.saved_ahead:
                event = Acknowledged(self.generation, sorted(ahead))
                writes.append(Write(f"{stream_of(self.name)}/acknowledged", [event]))
            moved = low > self.saved and (unsaved or final or low - self.saved >= _SAVE_EVENTS)
            if not writes and not moved:
                return
            try:
                self.store.commit(
                    writes,
                    checkpoint=(checkpoint_of(self.name, self.generation), low) if moved else None,
                )
            except BaseException:
                with self.lock:
                    self.unsaved += max(1, unsaved)
                raise
            if moved:
                self.saved = low
            self.saved_ahead = ahead

    def rest(self) -> None:
        """Nobody consumes any more."""
        self.save([ConsumptionRested(self.generation)] if self.counts else (), final=True)

    def end(self, error: BaseException | None = None) -> None:
        """No more is read nor given; who waits is woken. From any thread."""
        with self.lock:
            self.ended = True
            self.error = self.error or error
            self.room.notify_all()
            self.wake()
        if not self.store._forked:
            self.feed.close()
        if self.thread is not threading.current_thread() and self.thread.ident is not None:
            self.thread.join()


def _follow(group: Group) -> None:
    try:
        group.follow()
    except BaseException as error:
        with group.lock:
            group.error = group.error or error
            group.wake()


def settle_future(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


registry_lock = threading.RLock()
_groups: weakref.WeakKeyDictionary[Store, dict[str, Group]] = weakref.WeakKeyDictionary()


def group_of(store: Store, name: str) -> Group | None:
    group = _groups.get(store, {}).get(name)
    return None if group is None or group.ended else group


def join(group: Group) -> None:
    """It is the subscription's from now on. Under the registry's lock."""
    _groups.setdefault(group.store, {})[group.name] = group


def leave(group: Group) -> None:
    """A consumer has gone; the last one takes the group along."""
    with registry_lock:
        with group.lock:
            group.consumers -= 1
            last = group.consumers == 0
            group.wake()
        if not last:
            return
        groups = _groups.get(group.store, {})
        if groups.get(group.name) is group:
            del groups[group.name]
        _end(group)


def _end(group: Group) -> None:
    try:
        if not group.store.closed and not isinstance(group.error, Closed):
            group.rest()
    except Closed:
        pass
    finally:
        group.end()


def before_close(store: Store) -> None:
    """The store is about to be closed: store what is acknowledged, and end who consumes."""
    if store._forked:
        return
    with registry_lock:
        groups = list(_groups.pop(store, {}).values())
        for group in groups:
            with group.lock:
                group.error = group.error or Closed(f"{store!r} is closed")
            try:
                if not store.closed:
                    group.rest()
            except Exception as error:
                logger.error(
                    "subscription %s: what was acknowledged last could not be stored, and will "
                    "be delivered again",
                    group.name,
                    exc_info=error,
                )
            group.end()
