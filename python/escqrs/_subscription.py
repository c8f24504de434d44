"""Durable subscriptions: a name, a position that is stored, and any number of consumers.

What a subscription needs to remember is events and a checkpoint, so that it works on every store:

- ``escqrs.subscriptions`` (a stream): which there are, and where each began;
- ``escqrs.subscription/{name}`` (a stream): failures, dead letters and what became of them;
- ``escqrs.subscription/{name}/acknowledged`` (a stream): what was acknowledged beyond the lowest
  event that is not, where consumers were out of step;
- a checkpoint, up to which all is acknowledged.

Consumers of one process share a group. Its one thread follows the store with a feed, as far ahead
as the window allows, and sleeps otherwise; consumers take from the group. Locks:
``_registry_lock``, then a group's ``saving``, then its ``changed``; a group commits under
``saving`` alone.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import heapq
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from . import _core, _deadline
from ._core import Recorded
from ._log import logger
from ._match import Match, matches
from ._message import Event, Message
from .errors import Closed, Deadlock, Deleted, Forked, ReadOnly, Timeout

if TYPE_CHECKING:
    from ._store import Feed, Store

__all__ = ["Subscription", "SubscriptionDeadLetter", "SubscriptionStatus"]

ENGINE = "escqrs."  # types of the engine's own events begin so
_REGISTRY = "escqrs.subscriptions"
_SAVE_SECONDS = 1.0  # after which the next acknowledgement is stored with those before it
_SAVE_EVENTS = 10_000  # events that nobody wanted, after which the position is stored all the same
_BACKOFF_MAX = 60.0  # seconds
_NAME_MAX = 1024  # bytes
_CHUNK = 64  # events that are taken in at once
_DIED = "its consumer died with it in hand"


# ---- what is stored ------------------------------------------------------------------------------


class _Wanted(Message, name="escqrs.Wanted"):
    types: list[str]
    tags: list[str]


class _Subscribed(Event, name="escqrs.Subscribed"):
    """A subscription begins, begins again (another generation), or wants other events."""

    subscription: str
    generation: int
    after: int
    wanted: list[_Wanted]


class _Unsubscribed(Event, name="escqrs.Unsubscribed"):
    subscription: str
    generation: int


class _Failed(Event, name="escqrs.DeliveryFailed"):
    """part: of the events that an upcaster has made of the one at the position; mostly 0."""

    generation: int
    position: int
    attempts: int
    error: str
    part: int


class _DeadLettered(Event, name="escqrs.DeliveryDeadLettered"):
    generation: int
    position: int
    attempts: int
    error: str
    part: int


class _Released(Event, name="escqrs.DeadLetterReleased"):
    """A dead letter is to be delivered again."""

    generation: int
    position: int
    part: int


class _Removed(Event, name="escqrs.DeadLetterRemoved"):
    """A dead letter was acknowledged after all, or dismissed."""

    generation: int
    position: int
    part: int
    reason: str


class _Began(Event, name="escqrs.ConsumptionBegan"):
    """Consumers that count attempts have begun; without the next one behind it, they died."""

    generation: int


class _Rested(Event, name="escqrs.ConsumptionRested"):
    generation: int


class _Acknowledged(Event, name="escqrs.Acknowledged"):
    generation: int
    positions: list[int]


_CLASSES: tuple[type[Event], ...] = (
    _Subscribed,
    _Unsubscribed,
    _Failed,
    _DeadLettered,
    _Released,
    _Removed,
    _Began,
    _Rested,
    _Acknowledged,
)


_Place = tuple[int, int]  # position, and which of the parts that an upcaster made of the event


@dataclass
class _Facts:
    """What the registry says of one subscription."""

    generation: int
    after: int
    wanted: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    removed: bool


@dataclass
class _Dead:
    """A dead letter, or an event that has failed so far."""

    attempts: int
    error: str
    released: bool = False


def _claim(store: Store) -> None:
    from ._store import claim

    for cls in _CLASSES:
        claim(store, cls)


def _registered(store: Store) -> dict[str, _Facts]:
    found: dict[str, _Facts] = {}
    for recorded in store.history(_REGISTRY):
        event = recorded.event
        if isinstance(event, _Subscribed):
            wanted = tuple((tuple(one.types), tuple(one.tags)) for one in event.wanted)
            found[event.subscription] = _Facts(event.generation, event.after, wanted, False)
        elif isinstance(event, _Unsubscribed):
            found[event.subscription].removed = True
    return found


def _stream_of(name: str) -> str:
    return f"escqrs.subscription/{name}"


def _checkpoint_of(name: str, generation: int) -> str:
    return f"escqrs.subscription/{name}/{generation}"


def _position_of(store: Store, name: str, facts: _Facts) -> int:
    stored = store.checkpoint(_checkpoint_of(name, facts.generation))
    return facts.after if stored is None else stored


@dataclass
class _Troubles:
    dead: dict[_Place, _Dead]
    failed: dict[_Place, _Dead]  # and not given up
    died: bool = False  # consumers that count attempts did not come to rest


def _troubles_of(store: Store, name: str, facts: _Facts) -> _Troubles:
    dead: dict[_Place, _Dead] = {}
    failed: dict[_Place, _Dead] = {}
    found = _Troubles(dead, failed)
    for recorded in store.history(_stream_of(name)):
        event = recorded.event
        if getattr(event, "generation", None) != facts.generation:
            continue
        if isinstance(event, _Failed):
            failed[event.position, event.part] = _Dead(event.attempts, event.error)
        elif isinstance(event, _DeadLettered):
            failed.pop((event.position, event.part), None)
            dead[event.position, event.part] = _Dead(event.attempts, event.error)
        elif isinstance(event, _Released):
            dead[event.position, event.part].released = True
        elif isinstance(event, _Removed):
            dead.pop((event.position, event.part), None)
        elif isinstance(event, (_Began, _Rested)):
            found.died = isinstance(event, _Began)
    return found


# ---- status --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SubscriptionDeadLetter:
    """An event that a subscription has given up.

    recorded: the event; None where it has been deleted. attempts: how often it was delivered.
    error: why it was given up. released: it is to be delivered again.
    """

    recorded: Recorded | None
    attempts: int
    error: str
    released: bool = False


@dataclass(frozen=True)
class SubscriptionStatus:
    """Where a durable subscription stands, and what can be done with it.

    state: ``"live"``: it has consumers and nothing waits; ``"behind"``: it has consumers, and
        events wait for them; ``"idle"``: nobody consumes; ``"failed"``: the store could not be
        read, see ``error``.
    position: all up to it is acknowledged, durably. head: of the last event of the store.
    consumers: in this process. in_hand: events given to consumers and not acknowledged.
    dead_letter_count: events that were given up. error: what failed last, or None.
    """

    name: str
    state: Literal["live", "behind", "idle", "failed"]
    position: int
    head: int
    consumers: int
    in_hand: int
    dead_letter_count: int
    error: str | None
    match: tuple[Match, ...]
    _store: Store = field(repr=False, compare=False)

    @property
    def lag(self) -> int:
        """How many events lie behind its position, those that it does not want included."""
        return max(0, self.head - self.position)

    def reset(self, after: int = 0) -> None:
        """Begin again after that position; what it remembers of failures is forgotten.

        ValueError while it has consumers in this process.
        """
        from ._store import Write, _check_position

        _check_position("after", after)
        with _registry_lock:
            facts = self._unused("reset")
            wanted = [_Wanted(list(types), list(tags)) for types, tags in facts.wanted]
            event = _Subscribed(self.name, facts.generation + 1, after, wanted)
            self._store.commit([Write(_REGISTRY, [event])])

    def remove(self) -> None:
        """Forget it; a subscription of the same name begins anew. ValueError while it has
        consumers in this process."""
        from ._store import Write

        with _registry_lock:
            facts = self._unused("removed")
            self._store.commit([Write(_REGISTRY, [_Unsubscribed(self.name, facts.generation)])])

    def dead_letters(self) -> list[SubscriptionDeadLetter]:
        """The events that were given up, oldest first."""
        facts = self._facts()
        dead = _troubles_of(self._store, self.name, facts).dead
        return [
            SubscriptionDeadLetter(
                event_at(self._store, place), one.attempts, one.error, one.released
            )
            for place, one in sorted(dead.items(), key=lambda item: item[0])
        ]

    def retry(self, position: int) -> None:
        """Deliver a dead letter again: to a consumer there is, or to the next one. ValueError if
        there is none at that position."""
        self._settle_dead(position, None)

    def dismiss(self, position: int, reason: str) -> None:
        """Strike a dead letter off the list, for a reason that is recorded. ValueError if there is
        none at that position."""
        self._settle_dead(position, reason)

    def _settle_dead(self, position: int, reason: str | None) -> None:
        from ._store import Write

        with _registry_lock:
            facts = self._facts()
            dead = _troubles_of(self._store, self.name, facts).dead
            places = [place for place in dead if place[0] == position]
            if reason is None:
                places = [place for place in places if not dead[place].released]
            if not places:
                raise ValueError(f"subscription {self.name!r} has no dead letter at {position}")
            events: list[Event] = [
                _Released(facts.generation, *place)
                if reason is None
                else _Removed(facts.generation, *place, reason)
                for place in places
            ]
            self._store.commit([Write(_stream_of(self.name), events)])
            group = _group_of(self._store, self.name)
            for place in places if group is not None and reason is None else ():
                group.add_released(place, dead[place])  # type: ignore[union-attr]

    def _facts(self) -> _Facts:
        facts = _registered(self._store).get(self.name)
        if facts is None or facts.removed:
            raise ValueError(f"there is no subscription named {self.name!r} any more")
        return facts

    def _unused(self, what: str) -> _Facts:
        if _group_of(self._store, self.name) is not None:
            raise ValueError(
                f"subscription {self.name!r} has consumers; close them before it is {what}"
            )
        return self._facts()


def part_of(recorded: Recorded) -> tuple[int, int]:
    """Which it is of how many that an upcaster has made of one: 0 and 1 for an ordinary one."""
    return getattr(recorded, "part", 0), getattr(recorded, "parts", 1)


def is_last_of(feed: Feed, recorded: Recorded) -> bool:
    """Whether the feed, which has just given it, gives no further part of the same event: others
    may not be of a type that is wanted."""
    part, parts = part_of(recorded)
    is_ahead = feed._is_behind_parts and feed.position >= recorded.position
    return is_ahead or part == parts - 1


def event_at(store: Store, place: _Place) -> Recorded | None:
    """The event, or None where it has been deleted."""
    position, part = place
    try:
        several = list(store.events(after=position - 1, upto=position))
    except Deleted:
        return None
    return next((one for one in several if part_of(one)[0] == part), None)


# ---- a group: the consumers of one subscription in one process -----------------------------------


class _Entry:
    """An event on its way to be acknowledged."""

    __slots__ = ("attempts", "dead", "is_last", "place", "recorded")

    def __init__(self, recorded: Recorded, is_last: bool = True, dead: bool = False) -> None:
        self.recorded = recorded
        self.attempts = 0  # deliveries so far
        self.dead = dead  # a dead letter that is delivered again: below the position
        self.place = (recorded.position, part_of(recorded)[0])
        self.is_last = is_last  # of the parts of its event that are wanted

    def __lt__(self, other: _Entry) -> bool:
        return self.place < other.place


@dataclass(frozen=True)
class _Options:
    wanted: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    max_attempts: int | None
    backoff: float
    checkpoint_every: int
    window: int
    deleted: Literal["raise", "skip"]


class _Group:
    def __init__(self, store: Store, name: str, options: _Options, facts: _Facts) -> None:
        self.store = store
        self.name = name
        self.options = options
        self.generation = facts.generation
        self.saving = threading.Lock()
        self.changed = threading.Condition(threading.Lock())
        self.room = threading.Condition(self.changed._lock)  # type: ignore[attr-defined]
        # all below: `changed`
        self.consumers = 0
        self.in_hand = 0
        self.queues: dict[str, collections.deque[_Entry]] = {}  # by stream; its first is out
        self.ready: list[_Entry] = []  # heap by position
        self.delayed: list[tuple[float, _Entry]] = []  # heap by time
        self.open: collections.OrderedDict[_Place, _Entry] = collections.OrderedDict()
        self.ahead: set[int] = set()  # acknowledged, above the lowest that is not
        self.waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self.looked = _position_of(store, name, facts)  # all up to it was read
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

        troubles = _troubles_of(store, name, facts)
        self.dead = troubles.dead
        self.failed = {place: one.attempts for place, one in troubles.failed.items()}
        # deliveries that are recorded one by one: consumers died, one of these may be why
        self.careful = 2 * options.checkpoint_every if troubles.died else 0
        for recorded in store.history(f"{_stream_of(name)}/acknowledged", reverse=True, limit=1):
            last = recorded.event
            if isinstance(last, _Acknowledged) and last.generation == self.generation:
                self.ahead = {one for one in last.positions if one > self.looked}
                self.saved_ahead = frozenset(self.ahead)
        with self.changed:
            for place, one in self.dead.items():
                event = event_at(store, place) if one.released else None
                if event is not None:
                    self._add(_Entry(event, dead=True))
        self.match = [Match(types, tags) for types, tags in options.wanted]
        self.plain = not any(one.types for one in self.match)
        self.feed: Feed = store.subscribe(
            after=self.looked, match=self.match, deleted=options.deleted
        )
        self.thread = threading.Thread(
            target=_follow, args=(self,), name=f"escqrs-{name}", daemon=True
        )

    @property
    def counts(self) -> bool:
        return self.options.max_attempts is not None

    # ---- reading ahead

    def follow(self) -> None:
        """The thread: takes what there is, then waits for more, or for room."""
        room = self.options.window
        while room > 0:
            several: list[_Entry] = []
            is_level = False
            try:
                while len(several) < min(room, _CHUNK) and not is_level:
                    recorded = self.feed._poll()
                    if recorded is None:
                        is_level = True
                    else:
                        several.append(_Entry(recorded, is_last_of(self.feed, recorded)))
            finally:  # what came before an event that cannot be read
                room = self._take_in_all(several, is_level)
            if is_level and room > 0:
                try:
                    recorded = self.feed.next()
                except Closed:
                    if self.feed.closed:
                        return
                    raise
                entry = _Entry(recorded, is_last_of(self.feed, recorded))
                room = self._take_in_all([entry], False)

    def _take_in_all(self, several: list[_Entry], is_level: bool) -> int:
        """Waits for room, and says how much there is; 0 at the end."""
        with self.changed:
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

    def _take_in(self, entry: _Entry) -> None:
        recorded = entry.recorded
        position = recorded.position
        self.looked = position if entry.is_last else position - 1
        unwanted = self.plain and recorded.type.startswith(ENGINE)
        # a dead letter that is not behind the position: it was killed before it moved
        if unwanted or position in self.ahead or entry.place in self.dead:
            return
        entry.attempts = self.failed.get(entry.place, 0)
        self.open[entry.place] = entry
        self._add(entry)

    def _add(self, entry: _Entry) -> None:
        queue = self.queues.get(entry.recorded.stream)
        if queue is not None:
            queue.append(entry)
            return
        self.queues[entry.recorded.stream] = collections.deque((entry,))
        heapq.heappush(self.ready, entry)

    def add_released(self, place: _Place, dead: _Dead) -> None:
        recorded = event_at(self.store, place)
        with self.changed:
            self.dead[place] = dead
            if recorded is not None:
                self._add(_Entry(recorded, dead=True))
                self.wake()

    def wake(self) -> None:
        """Somebody may go on. Under `changed`."""
        self.news += 1
        self.changed.notify_all()
        waiters, self.waiters = self.waiters, set()
        for loop, future in waiters:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits any more
                loop.call_soon_threadsafe(_settle, future)

    # ---- for consumers

    def pop(self) -> tuple[_Entry | None, float | None]:
        """The next event, or None and the seconds until one is due. Under `changed`."""
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
        with self.changed:
            looked = self.looked
            if looked >= head or self.is_full:
                return True
            if not self.is_level:
                return False
        # the thread sleeps until there is something that it wants: perhaps there is not
        try:
            found = self.store.events(after=looked, upto=head, match=self.match, limit=1)
            if any(True for _ in found):
                return False
        except Deleted:
            return False
        with self.changed:
            self.looked = max(self.looked, head)
        return True

    def done(self, entry: _Entry) -> None:
        """It needs no further delivery. Under `changed`."""
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

    def put_back(self, entry: _Entry, delay: float) -> None:
        """To be delivered again. Under `changed`."""
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
            with self.changed:
                low = next(iter(self.open))[0] - 1 if self.open else self.looked
                self.ahead = {one for one in self.ahead if one > low}
                ahead = frozenset(self.ahead)
                unsaved, self.unsaved = self.unsaved, 0
                self.saved_at = time.monotonic()
            writes: list[Write] = []
            given = tuple(events)
            if given:
                writes.append(Write(_stream_of(self.name), given))
            if ahead - self.saved_ahead:
                event = _Acknowledged(self.generation, sorted(ahead))
                writes.append(Write(f"{_stream_of(self.name)}/acknowledged", [event]))
            moved = low > self.saved and (unsaved or final or low - self.saved >= _SAVE_EVENTS)
            if not writes and not moved:
                return
            try:
                self.store.commit(
                    writes,
                    checkpoint=(_checkpoint_of(self.name, self.generation), low) if moved else None,
                )
            except BaseException:
                with self.changed:
                    self.unsaved += max(1, unsaved)
                raise
            if moved:
                self.saved = low
            self.saved_ahead = ahead

    def rest(self) -> None:
        """Nobody consumes any more."""
        self.save([_Rested(self.generation)] if self.counts else (), final=True)

    def end(self, error: BaseException | None = None) -> None:
        """No more is read nor given; who waits is woken. From any thread."""
        with self.changed:
            self.ended = True
            self.error = self.error or error
            self.room.notify_all()
            self.wake()
        if not self.store._forked:
            self.feed.close()
        if self.thread is not threading.current_thread() and self.thread.ident is not None:
            self.thread.join()


def _follow(group: _Group) -> None:
    try:
        group.follow()
    except BaseException as error:
        with group.changed:
            group.error = group.error or error
            group.wake()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_registry_lock = threading.RLock()
_groups: weakref.WeakKeyDictionary[Store, dict[str, _Group]] = weakref.WeakKeyDictionary()


def _group_of(store: Store, name: str) -> _Group | None:
    group = _groups.get(store, {}).get(name)
    return None if group is None or group.ended else group


def _leave(group: _Group) -> None:
    """A consumer has gone; the last one takes the group along."""
    with _registry_lock:
        with group.changed:
            group.consumers -= 1
            last = group.consumers == 0
            group.wake()
        if not last:
            return
        groups = _groups.get(group.store, {})
        if groups.get(group.name) is group:
            del groups[group.name]
        _end(group)


def _end(group: _Group) -> None:
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
    with _registry_lock:
        groups = list(_groups.pop(store, {}).values())
        for group in groups:
            with group.changed:
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


# ---- consumers -----------------------------------------------------------------------------------


class Subscription:
    """A consumer of a durable subscription; made by ``subscribe(name)`` of a system or a store.

    Iterating waits for the next event, gives it, and acknowledges it when the next one is asked
    for: an event whose loop body raised, or that the loop was left with (``break``), is not
    acknowledged and will be delivered again. ``ack()`` acknowledges at once, durably. Several
    consumers of one name, in any threads and event loops, share the events; those of one stream
    stay in order, one at a time.

    One thread or task at a time iterates over one consumer. Close it, or use it in a ``with``
    statement: an exception that leaves the statement counts as a failed delivery.
    """

    def __init__(self, group: _Group) -> None:
        self._group = group
        self._hand: list[_Entry] = []  # the event that was given and not settled
        self._closed = False
        self._dropped = weakref.finalize(self, _drop, group, self._hand)
        self._dropped.atexit = False

    # ---- what it is

    @property
    def name(self) -> str:
        """The subscription's."""
        return self._group.name

    @property
    def store(self) -> Store:
        """The store that it follows."""
        return self._group.store

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    @property
    def position(self) -> int:
        """All up to it is acknowledged, durably."""
        return self._group.saved

    @property
    def attempt(self) -> int:
        """How often the event in hand was delivered, this time included; 0 without one."""
        return self._hand[0].attempts if self._hand else 0

    # ---- taking

    def __iter__(self) -> Subscription:
        self._give_back()
        return self

    def __next__(self) -> Recorded:
        self._acknowledge_in_hand()
        while (entry := self._wait(None)) is not None:
            if self._admit(entry):
                return entry.recorded
        raise StopIteration

    def next(self, timeout: float | None = None) -> Recorded:
        """Acknowledge the event in hand, and wait for the next one.

        timeout: seconds, then ``es.Timeout``. ``es.Closed`` when it, or the store, is closed.
        """
        self._acknowledge_in_hand()
        while (entry := self._wait(timeout)) is not None:
            if self._admit(entry):
                return entry.recorded
        raise Closed(f"this consumer of subscription {self.name!r} is closed")

    def __aiter__(self) -> Subscription:
        self._give_back()
        return self

    async def __anext__(self) -> Recorded:
        loop = asyncio.get_running_loop()
        group = self._group
        self._check()
        if self._settle_in_hand():
            await asyncio.to_thread(group.save)
        while True:
            future: asyncio.Future[None] = loop.create_future()
            with group.changed:
                entry, seconds = self._look()
                if entry is None and self._closed:
                    raise StopAsyncIteration
                saves = group.unsaved > 0 and group.is_level
                if entry is None and not saves:
                    group.waiters.add((loop, future))
            if entry is not None:
                plain = not group.careful and entry.attempts == 1
                if plain or await asyncio.to_thread(self._admit, entry):
                    return entry.recorded
                continue
            if saves:
                await asyncio.to_thread(group.save)
                continue
            timer = None if seconds is None else loop.call_later(seconds, _settle, future)
            try:
                await future
            finally:
                if timer is not None:
                    timer.cancel()
                with group.changed:
                    group.waiters.discard((loop, future))

    def _admit(self, entry: _Entry) -> bool:
        """Whether an event that is in hand may be given: not one that has killed its consumers too
        often. Records the delivery where they died before."""
        group = self._group
        limit = group.options.max_attempts
        if limit is None:
            return True
        try:
            if entry.attempts > limit:
                self._bury(entry, _DIED)
                return False
            if group.careful > 0:
                group.careful -= 1
                place = entry.place
                group.save([_Failed(group.generation, place[0], entry.attempts, _DIED, place[1])])
        except BaseException:
            _put_back(group, self._hand)
            raise
        return True

    def _check(self) -> None:
        if self._group.store._forked:
            raise Forked("the subscription belongs to the parent process; open the store again")
        if _core.in_projection():
            raise Deadlock(
                "a read model that handles an event holds the store's writer, so it cannot wait "
                "for a subscription"
            )

    def _look(self) -> tuple[_Entry | None, float | None]:
        """Under the group's `changed`: the next event, which is in hand from now on."""
        if self._closed:
            return None, None
        group = self._group
        if isinstance(group.error, Closed):
            raise group.error
        entry, seconds = group.pop()
        if entry is not None:
            self._hand.append(entry)
        elif group.error is not None and not group.delayed:
            raise group.error
        elif group.ended and group.error is None:
            raise Closed(f"subscription {self.name!r} has ended")
        return entry, seconds

    def _wait(self, timeout: float | None) -> _Entry | None:
        self._check()
        group = self._group
        until = _deadline.until(timeout)
        head = 0 if timeout is None else group.store.head  # what is there counts as in time
        while True:
            news = group.news
            is_over = until is not None and until <= time.monotonic()
            is_late = is_over and group.has_looked(head)
            with group.changed:
                entry, seconds = self._look()
                if entry is not None or self._closed:
                    return entry
                if not (group.unsaved and group.is_level):
                    if is_late:
                        raise Timeout(f"no event for subscription {self.name!r} came in time")
                    if until is not None and not is_over:
                        left = max(0.0, until - time.monotonic())
                        seconds = left if seconds is None else min(seconds, left)
                    if news == group.news:
                        group.changed.wait(seconds)
                    continue
            group.save()

    # ---- settling

    def ack(self) -> None:
        """Acknowledge the event in hand now; durable when it returns. ValueError without one."""
        self._settle(self._in_hand())
        self._group.save()

    def retry(
        self, error: BaseException | str | None = None, *, delay: float | None = None
    ) -> None:
        """Have the event in hand delivered again, and its failure recorded.

        error: what failed, for whoever looks later. delay: seconds until then; by default
            ``backoff``, doubled with each attempt, at most a minute. Later events of the same
            stream wait. After ``max_attempts`` it becomes a dead letter instead.
        """
        entry = self._in_hand()
        group = self._group
        text = _text_of(error)
        limit = group.options.max_attempts
        if limit is not None and entry.attempts >= limit:
            self._bury(entry, text)
            return
        position = entry.recorded.position
        with group.changed:
            group.last_error = f"position {position}: {text}"
            if not entry.dead:
                group.failed[entry.place] = entry.attempts
        group.save([_Failed(group.generation, position, entry.attempts, text, entry.place[1])])
        if delay is None:
            delay = min(_BACKOFF_MAX, group.options.backoff * 2.0 ** min(entry.attempts - 1, 30))
        with group.changed:
            self._take_from_hand(entry)
            group.put_back(entry, delay)

    def skip(self, reason: BaseException | str | None = None) -> None:
        """Give the event in hand up: it becomes a dead letter, with the reason, and the rest goes
        on."""
        self._bury(self._in_hand(), _text_of(reason))

    def _bury(self, entry: _Entry, text: str) -> None:
        group = self._group
        position = entry.recorded.position
        logger.error(
            "subscription %s: gave up %s at position %d after %d deliveries: %s",
            self.name,
            entry.recorded.type,
            position,
            entry.attempts,
            text,
        )
        with group.changed:
            group.last_error = f"position {position}: {text}"
            group.dead[entry.place] = _Dead(entry.attempts, text)
        buried = _DeadLettered(group.generation, position, entry.attempts, text, entry.place[1])
        if entry.dead:  # below the position already
            group.save([buried])
            self._settle(entry, removed=False)
            return
        # first the dead letter, then the acknowledgement: whatever happens between, it is not lost
        group.save([buried])
        self._settle(entry)
        group.save()

    def _in_hand(self) -> _Entry:
        self._check()
        with self._group.changed:
            if self._hand:
                return self._hand[0]
        if self._closed:
            raise Closed(f"this consumer of subscription {self.name!r} is closed")
        raise ValueError("there is no event in hand: the last one was settled already")

    def _settle(self, entry: _Entry, removed: bool = True) -> None:
        group = self._group
        if entry.dead and removed:
            group.save([_Removed(group.generation, *entry.place, "acknowledged")])
        with group.changed:
            self._take_from_hand(entry)
            if entry.dead and removed:
                group.dead.pop(entry.place, None)
            group.done(entry)

    def _take_from_hand(self, entry: _Entry) -> None:
        """Under the group's `changed`. Another thread may have closed this consumer meanwhile: then
        somebody else gets the event."""
        if self._hand != [entry]:
            raise Closed(f"this consumer of subscription {self.name!r} is closed")
        self._hand.clear()

    def _settle_in_hand(self) -> bool:
        """Acknowledge what is in hand; whether it is time to store that."""
        with self._group.changed:
            entry = self._hand[0] if self._hand else None
        if entry is None:
            return False
        self._settle(entry)
        with self._group.changed:
            return self._group.is_save_due()

    def _acknowledge_in_hand(self) -> None:
        self._check()
        if self._settle_in_hand():
            self._group.save()

    def _give_back(self) -> None:
        """What is in hand was not acknowledged: it will be delivered again."""
        self._check()
        if not self._hand:
            return
        limit = self._group.options.max_attempts
        if limit is not None and self._hand[0].attempts >= limit:
            self._bury(self._hand[0], "not acknowledged")
            return
        _put_back(self._group, self._hand)

    def close(self) -> None:
        """Consume no more, and store what was acknowledged. The event in hand will be delivered
        again. From any thread; twice is once."""
        if self._dropped.detach() is None:
            return
        with self._group.changed:
            self._closed = True
            self._group.wake()
        _release(self._group, self._hand)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if isinstance(error, Exception) and self._hand and not self._group.store.closed:
                self.retry(error)
        finally:
            self.close()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"at {self.position:,}"
        return f"<escqrs.Subscription {self.name!r}, {state}>"


def _text_of(error: BaseException | str | None) -> str:
    if isinstance(error, BaseException):
        return f"{type(error).__name__}: {error}"
    return "" if error is None else str(error)


def _put_back(group: _Group, hand: list[_Entry], attempts: int = 0) -> None:
    """attempts: that do not count."""
    with group.changed:
        while hand:
            entry = hand.pop()
            entry.attempts -= attempts
            group.put_back(entry, 0.0)


def _release(group: _Group, hand: list[_Entry]) -> None:
    """A consumer has ended. What is in its hand has not failed."""
    if group.store._forked:
        return
    _put_back(group, hand, 1)
    _leave(group)


def _drop(group: _Group, hand: list[_Entry]) -> None:
    """A consumer was dropped without close(); on any thread, which may hold any lock."""
    with contextlib.suppress(RuntimeError):  # the interpreter ends: no further thread
        threading.Thread(target=_release, args=(group, hand), name="escqrs-release").start()


# ---- opening -------------------------------------------------------------------------------------


def subscribe(
    store: Store,
    name: str,
    *,
    match: Match | Iterable[Match],
    after: int,
    max_attempts: int | None,
    backoff: float,
    checkpoint_every: int,
    window: int,
    deleted: Literal["raise", "skip"],
) -> Subscription:
    """A further consumer of the subscription; it is made if there is none of that name."""
    from ._store import Write, check_numbers

    _check_name(name)
    check_numbers(checkpoint_every=checkpoint_every, window=window)
    if max_attempts is not None:
        check_numbers(max_attempts=max_attempts)
    if isinstance(backoff, bool) or not isinstance(backoff, (int, float)) or not backoff >= 0:
        raise ValueError(f"backoff is a number of seconds, not {backoff!r}")
    if store.readonly:
        raise ReadOnly(
            f"{store!r} is read-only, and a durable subscription stores what was acknowledged; "
            "subscribe without a name to follow it"
        )
    wanted = tuple(matches(match))
    options = _Options(wanted, max_attempts, float(backoff), checkpoint_every, window, deleted)
    with _registry_lock:
        group = _group_of(store, name)
        if group is None:
            _claim(store)
            facts = _registered(store).get(name)
            if facts is None or facts.removed or facts.wanted != wanted:
                generation = 1 if facts is None else facts.generation + facts.removed
                begins = after if facts is None or facts.removed else facts.after
                messages = [_Wanted(list(types), list(tags)) for types, tags in wanted]
                store.commit([Write(_REGISTRY, [_Subscribed(name, generation, begins, messages)])])
                facts = _Facts(generation, begins, wanted, False)
            group = _Group(store, name, options, facts)
            if group.counts:
                group.save([_Began(group.generation)])
            group.thread.start()
            _groups.setdefault(store, {})[name] = group
        elif group.options != options:
            raise ValueError(
                f"subscription {name!r} has consumers with other options: {group.options}; all of "
                "them share the same"
            )
        with group.changed:
            group.consumers += 1
        return Subscription(group)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"a subscription's name is a str, not {type(name).__name__}")
    if not name or "\0" in name or "/" in name or len(name.encode()) > _NAME_MAX:
        raise ValueError(
            f"a subscription's name is not empty, has at most {_NAME_MAX:,} bytes of UTF-8, and "
            f"holds no `/` nor NUL: {name!r}"
        )


def statuses(store: Store) -> Iterator[SubscriptionStatus]:
    """Of all subscriptions of the store, by name."""
    _claim(store)
    head = store.head
    for name, facts in sorted(_registered(store).items()):
        if facts.removed:
            continue
        match = tuple(Match(types, tags) for types, tags in facts.wanted)
        group = _group_of(store, name)
        if group is None:
            position = _position_of(store, name, facts)
            dead = _troubles_of(store, name, facts).dead
            yield SubscriptionStatus(
                name, "idle", position, head, 0, 0, len(dead), None, match, store
            )
            continue
        looked = group.error is not None or group.has_looked(head)
        with group.changed:
            failed = group.error is not None
            waits = bool(group.open) or not looked
            error = repr(group.error) if failed else group.last_error
            yield SubscriptionStatus(
                name,
                "failed" if failed else "behind" if waits else "live",
                group.saved,
                head,
                group.consumers,
                group.in_hand,
                len(group.dead),
                error,
                match,
                store,
            )
