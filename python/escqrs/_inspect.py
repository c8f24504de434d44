"""What a store finds out about itself: ``Store.verify`` and ``Store.stats``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .errors import Corrupt, UnknownType

if TYPE_CHECKING:
    from ._store import Store

__all__ = ["Problem", "Statistics", "Verification"]

PROBLEMS_KEPT = 1000
_PROGRESS_EVENTS = 8192

Progress = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in a store that is not as it should be.

    part: "file", "stream", "type", "event", "index", "tag", "id", "snapshot", "checkpoint", "key",
        "read model", "chain" or "deleted". text: what is wrong. stream, version, position: where;
        None where it does not apply.
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
    """What ``Store.verify`` or ``System.verify_snapshots`` has read, and what was wrong with it.

    streams: but those that were deleted. links: of the hash chain, where the store keeps one.
    outdated: snapshots of another definition of their aggregate, which are not used. problems: the
    first 1,000. problem_count: all of them. ok: there are none. It is true where it is ok, so that
    ``if store.verify():`` and ``assert store.verify()`` mean what they say.
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
    links: int = 0
    problem_count: int = 0
    problems: tuple[Problem, ...] = ()
    outdated: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return self.problem_count == 0

    def __bool__(self) -> bool:
        return self.ok

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


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What a store holds, at one moment.

    types: events of each type's name. bytes: of the database, read models included; None where a
        provider does not tell. created, first, last: times of the store, its first and its last
        event that is there. deleted: events that were deleted.
    """

    path: str
    head: int = 0
    events: int = 0
    streams: int = 0
    snapshots: int | None = None
    checkpoints: int | None = None
    keys: int | None = None
    tags: int | None = None
    ids: int | None = None
    bytes: int | None = None
    created: datetime | None = None
    first: datetime | None = None
    last: datetime | None = None
    deleted: int | None = None
    types: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])

    def __repr__(self) -> str:
        lines = [f"<Statistics of {self.path!r}"]
        for name, value in vars(self).items():
            if value is None or name in ("path", "types"):
                continue
            text = f"{value:,}" if isinstance(value, int) else value.isoformat()
            lines.append(f"  {name:12}{text}")
        lines += [f"  type {name}  {count:,}" for name, count in self.types.items()]
        return "\n".join(lines) + ">"


def _time(microseconds: int) -> datetime | None:
    if microseconds == 0:
        return None
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:  # a damaged one: verify() says more
        return None


def stats(store: Store) -> Statistics:
    """Of a store of the core."""
    found = store._stats()
    created, first, last = (_time(one) for one in found[9:12])
    return Statistics(
        store.path,
        *found[:9],
        created=created,
        first=first,
        last=last,
        deleted=found[12],
        types=found[13],
    )


def stats_by_reading(store: Store) -> Statistics:
    """Of a provider of one's own, by reading its events."""
    head = store.head
    events, first, last = 0, None, None
    streams: set[str] = set()
    types: dict[str, int] = {}
    for recorded in store._all_events(head):
        events += 1
        first = recorded.time if first is None else first
        last = recorded.time
        streams.add(recorded.stream)
        types[recorded.type] = types.get(recorded.type, 0) + 1
    return Statistics(
        type(store).__qualname__,
        head,
        events,
        len(streams),
        first=first,
        last=last,
        types=dict(sorted(types.items())),
    )


def verify(store: Store, progress: Progress | None) -> Verification:
    """A store of the core."""
    problems: list[Problem] = []

    def note(part: str, text: str, stream: str | None, version: int, position: int) -> None:
        if len(problems) < PROBLEMS_KEPT:
            problems.append(Problem(part, text, stream, version or None, position or None))

    found = store._verify(note, progress)
    return Verification(store.path, *found, problems=tuple(problems))


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

    for recorded in store._all_events(head):
        count += 1
        if recorded.position <= position or (
            recorded.position != position + 1 and not store._deletes
        ):
            note(recorded, f"it follows position {position}")
        before = versions.get(recorded.stream)
        before = store.truncated(recorded.stream) if before is None else before
        if recorded.version != before + 1:
            note(recorded, f"it follows version {before}")
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
    if position > head or (position != head and not store._deletes):
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
