"""What a store finds out about itself: ``Store.verify`` and ``Store.stats``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import Corrupt, UnknownType

if TYPE_CHECKING:
    from ._store import Store

__all__ = ["Problem", "Verification", "verify"]

PROBLEMS_KEPT = 1000
_PROGRESS_EVENTS = 8192

Progress = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in a store that is not as it should be.

    part: "file", "stream", "type", "event", "index", "tag", "id", "snapshot", "checkpoint", "key"
        or "read model". text: what is wrong. stream, version, position: where; None where it does
        not apply.
    """

    part: str
    text: str
    stream: str | None = None
    version: int | None = None
    position: int | None = None

    def __str__(self) -> str:
        where = [] if self.stream is None else [f"stream {self.stream}"]
        where += [] if self.version is None else [f"version {self.version}"]
        where += [] if self.position is None else [f"position {self.position}"]
        place = f" ({', '.join(where)})" if where else ""
        return f"{self.part}{place}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Verification:
    """What ``Store.verify`` has read, and what was wrong with it.

    problems: the first 1,000. problem_count: all of them. ok: there are none.
    """

    path: str
    events: int = 0
    streams: int = 0
    types: int = 0
    snapshots: int = 0
    checkpoints: int = 0
    keys: int = 0
    tags: int = 0
    ids: int = 0
    read_models: int = 0
    problem_count: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return self.problem_count == 0

    def __repr__(self) -> str:
        read = ", ".join(
            f"{count:,} {name.replace('_', ' ')}"
            for name, count in vars(self).items()
            if name not in ("path", "problem_count", "problems") and (count or name == "events")
        )
        if self.ok:
            return f"<Verification of {self.path!r}: {read}; no problems>"
        lines = "".join(f"\n  {problem}" for problem in self.problems[:20])
        more = self.problem_count - len(self.problems[:20])
        rest = f"\n  and {more:,} more" if more > 0 else ""
        said = "1 problem" if self.problem_count == 1 else f"{self.problem_count:,} problems"
        return f"<Verification of {self.path!r}: {read}; {said}{lines}{rest}>"


def verify(store: Store, progress: Progress | None) -> Verification:
    """A store of the core."""
    problems: list[Problem] = []

    def note(part: str, text: str, stream: str | None, version: int, position: int) -> None:
        if len(problems) < PROBLEMS_KEPT:
            problems.append(Problem(part, text, stream, version or None, position or None))

    return Verification(store.path, *store._verify(note, progress), problems=tuple(problems))


def verify_by_reading(store: Store, progress: Progress | None) -> Verification:
    """A provider of one's own, by what it overrides: order, versions, times, ids, decodability."""
    problems: list[Problem] = []
    versions: dict[str, int] = {}
    ids: set[str] = set()
    types: set[str] = set()
    last: Any = None
    head, position, count = store.head, 0, 0

    def note(recorded: Any, text: str) -> None:
        where = (recorded.stream, recorded.version, recorded.position)
        problems.append(Problem("event", text, *where))

    for recorded in store.events(upto=head):
        count += 1
        if recorded.position != position + 1:
            note(recorded, f"it follows position {position}")
        if recorded.version != versions.get(recorded.stream, 0) + 1:
            note(recorded, f"it follows version {versions.get(recorded.stream, 0)}")
        if last is not None and recorded.time < last.time:
            note(recorded, "it is older than the event before it")
        if recorded.id in ids:
            note(recorded, f"another event has its id {recorded.id}")
        try:
            _ = recorded.event
        except UnknownType:
            pass
        except Corrupt as error:
            note(recorded, str(error))
        versions[recorded.stream] = recorded.version
        ids.add(recorded.id)
        types.add(recorded.type)
        position, last = recorded.position, recorded
        if progress is not None and count % _PROGRESS_EVENTS == 0:
            progress(position, head)
    if position != head:
        problems.append(Problem("event", f"the head is {head}", position=position))
    for stream, version in versions.items():
        if store.version(stream) < version:
            text = f"it says to be at version {store.version(stream)}"
            problems.append(Problem("stream", text, stream, version))
    if progress is not None:
        progress(head, head)
    return Verification(
        type(store).__qualname__,
        events=count,
        streams=len(versions),
        types=len(types),
        problem_count=len(problems),
        problems=tuple(problems[:PROBLEMS_KEPT]),
    )
