"""What becomes of events that a read model cannot apply, and the list of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ._core import Rows

if TYPE_CHECKING:
    from ._readmodel import ReadModel

__all__ = ["ParkedEvent", "Retry"]


@dataclass(frozen=True)
class Retry:
    """A policy for events that a read model cannot take: try again, each time after twice as long.

    ``on_error = es.Retry(attempts=5, delay=0.1, max_delay=30.0, then="park")``, in the class's
    body.

    attempts: further ones after the first. delay, max_delay: seconds before the first of them, and
        at most. then: ``"stop"`` or ``"park"``, what is done when all have failed.

    Other read models go on meanwhile; this one waits at the event.
    """

    attempts: int = 5
    delay: float = 0.1
    max_delay: float = 30.0
    then: Literal["stop", "park"] = "stop"

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise TypeError(f"es.Retry: attempts is an int, not {self.attempts!r}")
        if not 1 <= self.attempts < 1 << 31:
            raise ValueError(f"es.Retry: attempts is at least 1, not {self.attempts}")
        for name in ("delay", "max_delay"):
            seconds = getattr(self, name)
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise TypeError(f"es.Retry: {name} is a number of seconds, not {seconds!r}")
            if not 0 < seconds <= 1e6:
                raise ValueError(f"es.Retry: {name} is above 0 and at most 1e6, not {seconds}")
        if self.then not in ("stop", "park"):
            raise ValueError(f'es.Retry: then is "stop" or "park", not {self.then!r}')


def policy_of(cls: type[ReadModel]) -> tuple[int, float, float, bool]:
    """What the core is told: (further attempts, delay, longest delay, park)."""
    policy = getattr(cls, "on_error", "stop")
    if isinstance(policy, Retry):
        return policy.attempts, policy.delay, policy.max_delay, policy.then == "park"
    if policy not in ("stop", "park"):
        raise TypeError(f'{cls.__name__}.on_error is "stop", "park" or an es.Retry, not {policy!r}')
    return 0, 0.0, 0.0, policy == "park"


@dataclass(frozen=True)
class ParkedEvent:
    """An event that a read model has not applied: a row of the table ``escqrs_dead_letter``.

    state: ``"parked"``: it failed, see ``error``; ``"held"``: it waits behind a parked event of
        its stream; ``"skipped"``: left out on purpose, see ``reason``.
    position, stream, version, type: of the event. event: its fields as JSON, None where it cannot
        be decoded. attempts: how often it failed. error, traceback: of the last attempt, None for
        one that is held; the traceback is that of a Python handler. time: when it was put there,
        text in UTC.
    """

    position: int
    stream: str
    version: int
    type: str
    state: Literal["parked", "held", "skipped"]
    attempts: int
    error: str | None
    traceback: str | None
    event: str | None
    time: str
    reason: str | None


def select_parked(_: object, db: Rows, name: str, *, skipped: bool) -> list[ParkedEvent]:
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'escqrs_dead_letter'").fetchall():
        return []  # the file is of an older escqrs, and was opened read-only
    states = "" if skipped else " AND state <> 'skipped'"
    rows = db.execute(
        "SELECT position, stream, version, type, state, attempts, error, traceback, event, time,"
        f" reason FROM escqrs_dead_letter WHERE readmodel = ?{states} ORDER BY position",
        (name,),
    )
    return [ParkedEvent(*row) for row in rows]
