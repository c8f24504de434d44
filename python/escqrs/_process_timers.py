"""The timers of the instances of a process class: those that are set, the next to be due first."""

from __future__ import annotations

import datetime
import heapq
from collections.abc import Iterable

_STALE_MAX = 1_000  # timers in the heap that were taken back, beyond as many as are set

Timer = tuple[datetime.datetime, str, str]  # when it is due, stream of the instance, name


class Timers:
    """Belongs to its process's thread. One that was taken back or set anew may still come: whoever
    takes a timer asks its instance."""

    def __init__(self) -> None:
        self._due: dict[tuple[str, str], datetime.datetime] = {}  # that are set
        self._heap: list[Timer] = []  # more than are set

    def load(self, timers: Iterable[Timer]) -> None:
        """These, and no others."""
        self._due = {(stream, name): due for due, stream, name in timers}
        self._make_heap()

    def set(self, timer: Timer) -> None:
        due, stream, name = timer
        self._due[stream, name] = due
        heapq.heappush(self._heap, timer)

    def unset(self, stream: str, name: str) -> None:
        self._due.pop((stream, name), None)

    def compact(self) -> None:
        """Forget those that were taken back, where they are many."""
        if len(self._heap) > 2 * len(self._due) + _STALE_MAX:
            self._make_heap()

    def next_due(self) -> datetime.datetime | None:
        """When the first is due; None where there is none."""
        return self._heap[0][0] if self._heap else None

    def take(self) -> Timer:
        """The first; there is one."""
        return heapq.heappop(self._heap)

    def _make_heap(self) -> None:
        self._heap = [(due, stream, name) for (stream, name), due in self._due.items()]
        heapq.heapify(self._heap)
