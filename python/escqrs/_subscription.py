"""Durable subscriptions: a name, a position that is stored, and any number of consumers.

A consumer takes events from its group (``_subscription_group.py``), which it shares with those of
the same name in this process; what is remembered is events and a checkpoint
(``_subscription_record.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from . import _core, _deadline
from ._core import Recorded
from ._log import logger
from ._match import Match, matches
from ._subscription_group import (
    Entry,
    Group,
    Options,
    group_of,
    join,
    leave,
    registry_lock,
    settle_future,
)
from ._subscription_record import (
    REGISTRY,
    ConsumptionBegan,
    Dead,
    DeadLetterRemoved,
    DeliveryDeadLettered,
    DeliveryFailed,
    Facts,
    Subscribed,
    Wanted,
    claim_events,
    registered,
)
from .errors import Closed, Deadlock, Forked, ReadOnly, Timeout

if TYPE_CHECKING:
    from ._store import Store

__all__ = ["Subscription"]

_BACKOFF_MAX = 60.0  # seconds
_NAME_MAX = 1024  # bytes
_LATE_SECONDS = 0.05  # between two looks for what was there when the time began
_DIED = "its consumer died with it in hand"


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

    def __init__(self, group: Group) -> None:
        self._group = group
        self._hand: list[Entry] = []  # the event that was given and not settled
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
            with group.lock:
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
            timer = None if seconds is None else loop.call_later(seconds, settle_future, future)
            try:
                await future
            finally:
                if timer is not None:
                    timer.cancel()
                with group.lock:
                    group.waiters.discard((loop, future))

    def _admit(self, entry: Entry) -> bool:
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
                group.save(
                    [DeliveryFailed(group.generation, place[0], entry.attempts, _DIED, place[1])]
                )
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

    def _look(self) -> tuple[Entry | None, float | None]:
        """Under the group's `lock`: the next event, which is in hand from now on."""
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

    def _wait(self, timeout: float | None) -> Entry | None:
        self._check()
        group = self._group
        until = _deadline.until(timeout)
        head = 0 if timeout is None else group.store.head  # what is there counts as in time
        while True:
            news = group.news
            is_over = until is not None and until <= time.monotonic()
            is_late = is_over and group.has_looked(head)
            with group.lock:
                entry, seconds = self._look()
                if entry is not None or self._closed:
                    return entry
                if not (group.unsaved and group.is_level):
                    if is_late:
                        raise Timeout(f"no event for subscription {self.name!r} came in time")
                    if until is not None and not is_over:
                        left = max(0.0, until - time.monotonic())
                        seconds = left if seconds is None else min(seconds, left)
                    if is_over:
                        seconds = _LATE_SECONDS if seconds is None else min(seconds, _LATE_SECONDS)
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
        with group.lock:
            group.last_error = f"position {position}: {text}"
            if not entry.dead:
                group.failed[entry.place] = entry.attempts
        group.save(
            [DeliveryFailed(group.generation, position, entry.attempts, text, entry.place[1])]
        )
        if delay is None:
            delay = min(_BACKOFF_MAX, group.options.backoff * 2.0 ** min(entry.attempts - 1, 30))
        with group.lock:
            self._take_from_hand(entry)
            group.put_back(entry, delay)

    def skip(self, reason: BaseException | str | None = None) -> None:
        """Give the event in hand up: it becomes a dead letter, with the reason, and the rest goes
        on."""
        self._bury(self._in_hand(), _text_of(reason))

    def skip_deleted(self, upto: int, reason: str = "") -> bool:
        """Go on behind events that were deleted before this subscription read them, where it has
        stopped with ``es.Deleted``: for all its consumers, durably. What is left out is recorded,
        with the reason, and in ``gaps()`` of its status.

        upto: the ``position`` of that error.

        Whether it has stopped there: not where another consumer has done the same before.
        """
        from ._store import _check_position

        _check_position("upto", upto)
        if not isinstance(reason, str):
            raise TypeError(f"reason is a str, not {reason!r}")
        self._check()
        with registry_lock:
            # under the lock: what the last consumer or the store has ended is not begun again
            if self._closed or self._group.ended:
                raise Closed(f"this consumer of subscription {self.name!r} is closed")
            return self._group.skip_deleted(upto, reason)

    def _bury(self, entry: Entry, text: str) -> None:
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
        with group.lock:
            group.last_error = f"position {position}: {text}"
            group.dead[entry.place] = Dead(entry.attempts, text)
        buried = DeliveryDeadLettered(
            group.generation, position, entry.attempts, text, entry.place[1]
        )
        if entry.dead:  # below the position already
            group.save([buried])
            self._settle(entry, removed=False)
            return
        # first the dead letter, then the acknowledgement: whatever happens between, it is not lost
        group.save([buried])
        self._settle(entry)
        group.save()

    def _in_hand(self) -> Entry:
        self._check()
        with self._group.lock:
            if self._hand:
                return self._hand[0]
        if self._closed:
            raise Closed(f"this consumer of subscription {self.name!r} is closed")
        raise ValueError("there is no event in hand: the last one was settled already")

    def _settle(self, entry: Entry, removed: bool = True) -> None:
        group = self._group
        if entry.dead and removed:
            group.save([DeadLetterRemoved(group.generation, *entry.place, "acknowledged")])
        with group.lock:
            self._take_from_hand(entry)
            if entry.dead and removed:
                group.dead.pop(entry.place, None)
            group.done(entry)

    def _take_from_hand(self, entry: Entry) -> None:
        """Under the group's `lock`. Another thread may have closed this consumer meanwhile: then
        somebody else gets the event."""
        if self._hand != [entry]:
            raise Closed(f"this consumer of subscription {self.name!r} is closed")
        self._hand.clear()

    def _settle_in_hand(self) -> bool:
        """Acknowledge what is in hand; whether it is time to store that."""
        with self._group.lock:
            entry = self._hand[0] if self._hand else None
        if entry is None:
            return False
        self._settle(entry)
        with self._group.lock:
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
        with self._group.lock:
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


def _put_back(group: Group, hand: list[Entry], attempts: int = 0) -> None:
    """attempts: that do not count."""
    with group.lock:
        while hand:
            entry = hand.pop()
            entry.attempts -= attempts
            group.put_back(entry, 0.0)


def _release(group: Group, hand: list[Entry]) -> None:
    """A consumer has ended. What is in its hand has not failed."""
    if group.store._forked:
        return
    _put_back(group, hand, 1)
    leave(group)


def _drop(group: Group, hand: list[Entry]) -> None:
    """A consumer was dropped without close(); on any thread, which may hold any lock."""
    with contextlib.suppress(RuntimeError):  # the interpreter ends: no further thread
        threading.Thread(target=_release, args=(group, hand), name="escqrs-release").start()


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
    options = Options(wanted, max_attempts, float(backoff), checkpoint_every, window, deleted)
    with registry_lock:
        group = group_of(store, name)
        if group is None:
            claim_events(store)
            facts = registered(store).get(name)
            if facts is None or facts.removed or facts.wanted != wanted:
                generation = 1 if facts is None else facts.generation + facts.removed
                begins = after if facts is None or facts.removed else facts.after
                messages = [Wanted(list(types), list(tags)) for types, tags in wanted]
                store.commit([Write(REGISTRY, [Subscribed(name, generation, begins, messages)])])
                facts = Facts(generation, begins, wanted, False)
            group = Group(store, name, options, facts)
            if group.counts:
                group.save([ConsumptionBegan(group.generation)])
            group.thread.start()
            join(group)
        elif group.options != options:
            raise ValueError(
                f"subscription {name!r} has consumers with other options: {group.options}; all of "
                "them share the same"
            )
        with group.lock:
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
