"""``System.verify_snapshots``: every snapshot beside the state that the events make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ._inspect import PROBLEMS_KEPT, Problem, Verification
from .errors import Deleted, Error, SchemaMismatch

if TYPE_CHECKING:
    from ._store import Store
    from ._system import System

__all__ = ["verify_snapshots"]

Progress = Callable[[int, int], object]
Row = tuple[int, str, int, str | None, bool]  # stream's number and name, version, type, verifies


def verify_snapshots(system: System, progress: Progress | None) -> Verification:
    definitions = {one.name: one for one in list(system._definitions.values())}
    problems: list[Problem] = []
    streams: set[int] = set()
    total = system.store.stats().snapshots or 0
    count = outdated = events = 0

    for number, stream, version, _type, verifies in _rows(system.store):
        name, _slash, id = stream.partition("/")
        if name not in definitions or not id:
            continue
        found = "it does not match its checksum"
        if verifies:
            try:
                compared = _compare(system[definitions[name].cls, id], version)
            except Deleted:
                compared = ""  # it stands for events that are gone
            except SchemaMismatch:
                outdated += 1
                compared = ""
            except Error as error:
                compared = f"the state cannot be made of the events: {error}"
            if compared is None:
                continue
            found = compared
        count += 1
        events += version
        streams.add(number)
        if found:
            problems.append(Problem("snapshot", found, stream, version))
        if progress is not None:
            progress(count, max(count, total))
    return Verification(
        system.path,
        events=events,
        streams=len(streams),
        snapshots=count,
        outdated=outdated,
        problem_count=len(problems),
        problems=tuple(problems[:PROBLEMS_KEPT]),
    )


def _rows(store: Store) -> Iterator[Row]:
    page = store._snapshots(0, 0)
    while page:
        yield from page
        page = store._snapshots(page[-1][0], page[-1][2])


def _compare(handle: Any, version: int) -> str | None:
    """What differs, or ""; None where the snapshot is gone meanwhile."""
    taken = handle._snapshot_state(version)
    if taken is None:
        return None
    folded = handle._refold(version).__escqrs_fields__
    for name, value in taken.__escqrs_fields__.items():
        other = folded[name]
        if value != other and repr(value) != repr(other):  # NaN is not itself
            return f"{name} is {_short(value)}, and the events make {_short(other)}"
    return ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
