"""What is said about a read model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ReadModelStatus"]

STATES = {1: "catching up", 2: "live", 3: "stopped", 4: "retrying"}  # by the core's number


@dataclass(frozen=True)
class ReadModelStatus:
    """Where a read model stands.

    state: ``"live"``: it has been level with the store and follows it; ``"catching up"``;
        ``"rebuilding"``: a new copy is being made, queries see the old rows; ``"stopped"``: at an
        event that it cannot take, see ``error``; ``"retrying"``: at such an event, which it tries
        again after a while.
    position: of the last event that it has seen. head: of the last event of the store.
    error: what failed and is not mended, or None: the event that has stopped it or is tried
        again, the one that was parked last, or a rebuild that was given up, until the
        next one begins or ``cancel_rebuild()`` says that it has been seen.
    failed_position: of the event that ``error`` is about, or None. traceback: of the Python
        handler that failed there, or None.
    attempts: how often that event has failed, where it has stopped it or is tried again.
    parked: how many events are parked, or held behind parked ones; see ``ReadModel.parked``.
    lag_seconds: how long the first event is stored that it has not seen; 0.0 where it is level.
    rate: events a second, lately.
    rebuild_position: of the last event in the copy that is being built, or None.
    """

    state: Literal["live", "catching up", "rebuilding", "stopped", "retrying"]
    position: int
    head: int
    error: str | None = None
    failed_position: int | None = None
    traceback: str | None = None
    attempts: int = 0
    parked: int = 0
    lag_seconds: float = 0.0
    rate: float = 0.0
    rebuild_position: int | None = None

    @property
    def lag(self) -> int:
        """How many events it is behind."""
        return self.head - self.position
