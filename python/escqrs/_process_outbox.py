"""The commands that a process has requested and that have no answer yet.

A command waits in the outbox, is in flight from its delivery to its reply, and waits again, a
little longer each time, where the engine could not carry it out.
"""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Callable, Iterable

from ._process_record import CommandRequested

BACKOFF_MAX = 30.0  # seconds between two attempts to deliver, or to store

Place = tuple[str, int]  # where a command was requested: stream of the instance, version
Entry = tuple[str, int, CommandRequested]


class Outbox:
    """Belongs to its process's thread.

    now: the time in seconds, time.monotonic or a seeded system's.
    """

    def __init__(self, in_flight_max: int, now: Callable[[], float]) -> None:
        self._now = now
        self.in_flight: set[Place] = set()
        self._in_flight_max = in_flight_max
        self._ready: collections.deque[Entry] = collections.deque()
        self._later: list[tuple[float, int, Entry]] = []  # a heap
        self._attempts: dict[Place, int] = {}
        self._numbers = itertools.count()

    @property
    def is_empty(self) -> bool:
        """Nothing waits, and nothing is in flight."""
        return not (self.in_flight or self._ready or self._later)

    @property
    def has_room(self) -> bool:
        under_way = len(self.in_flight) + len(self._ready) + len(self._later)
        return under_way < self._in_flight_max

    def load(self, entries: Iterable[Entry]) -> None:
        """What is ready: these, and no others."""
        self._ready = collections.deque(entries)

    def add(self, entries: Iterable[Entry]) -> None:
        self._ready.extend(entries)

    def strike(self, place: Place) -> None:
        """Take back what is ready there."""
        self._ready = collections.deque(one for one in self._ready if one[:2] != place)

    def retry_at(self) -> float | None:
        """When the first that was postponed is ready again."""
        return self._later[0][0] if self._later else None

    def make_ready(self) -> bool:
        """Those whose time has come; whether there were any."""
        now, before = self._now(), len(self._ready)
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        return len(self._ready) > before

    def first(self) -> Entry | None:
        """What is to be delivered next; None where nothing is ready or too many are in flight."""
        if self._ready and len(self.in_flight) < self._in_flight_max:
            return self._ready[0]
        return None

    def send(self) -> Place:
        """The first is in flight from now on."""
        stream, version, _ = self._ready.popleft()
        self.in_flight.add((stream, version))
        return stream, version

    def drop(self) -> None:
        """The first is not to be delivered now: it is postponed, or left to the next start."""
        self._ready.popleft()

    def postpone(self, entry: Entry) -> None:
        place = entry[:2]
        attempts = self._attempts[place] = self._attempts.get(place, 0) + 1
        delay = min(BACKOFF_MAX, 0.05 * 2.0 ** min(attempts - 1, 30))
        heapq.heappush(self._later, (self._now() + delay, next(self._numbers), entry))

    def answered(self, place: Place) -> None:
        """It is no longer in flight."""
        self.in_flight.discard(place)

    def settled(self, place: Place) -> None:
        """It is not sent again."""
        self._attempts.pop(place, None)
