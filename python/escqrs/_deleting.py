"""What ``Store.retain`` deletes: how far each stream is truncated. See docs/deleting.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._store import Store

_TOGETHER_STREAMS = 256  # truncated in one transaction
_TOGETHER_EVENTS = 10_000

_OWN = "escqrs."  # streams of subscriptions and processes

Erase = Callable[[list[tuple[str, int]]], int]


def names_of(store: Store, stream: Any, category: Any, prefix: Any) -> Iterator[tuple[str, int]]:
    """The streams that are meant, with their versions; checked at once."""
    given = [one for one in (stream, category, prefix) if one is not None]
    if len(given) != 1 or not isinstance(given[0], str):
        raise TypeError("retain takes one of stream, category and prefix, a str")
    if stream is not None:
        return iter([(stream, store.version(stream))])
    start = prefix if category is None else f"{category}/"
    own = start.startswith(_OWN)  # the engine's are meant only where they are named
    return (
        (name, version)
        for name, version in store.streams()
        if name.startswith(start) and (own or not name.startswith(_OWN))
    )


def cutoff_of(older_than: Any) -> datetime | None:
    """The moment before which events are old."""
    if isinstance(older_than, timedelta):
        return datetime.now(UTC) - older_than
    if older_than is None or (isinstance(older_than, datetime) and older_than.tzinfo is not None):
        return older_than
    raise TypeError(f"older_than is a timedelta or an aware datetime, not {older_than!r}")


def _last_old_position(store: Store, cutoff: datetime) -> int:
    """The last position of an event before that moment. Times never go back, so it is found by
    halving."""
    low, high = 0, store.head
    while low < high:
        middle = (low + high + 1) // 2
        found = next(store.events(after=middle - 1, upto=high, limit=1, deleted="skip"), None)
        if found is not None and found.time < cutoff:
            low = found.position
        else:
            high = middle - 1
    return low


def _last_old_version(store: Store, name: str, version: int, position: int) -> int:
    """The last version of the stream that stands at the position or before it."""
    low, high = store.truncated(name), version
    while low < high:
        middle = (low + high + 1) // 2
        found = next(store.history(name, after=middle - 1, limit=1), None)
        if found is not None and found.position <= position:
            low = middle
        else:
            high = middle - 1
    return low


def retain(
    store: Store,
    names: Iterator[tuple[str, int]],
    keep: int | None,
    cutoff: datetime | None,
    force: bool,
    erase: Erase,
) -> int:
    """Truncate each stream as far as it is to go; how many events went."""
    position = store.head if cutoff is None else _last_old_position(store, cutoff)
    together: list[tuple[str, int]] = []
    deleted = events = 0
    for name, version in names:
        if position == 0 or store.deleted(name):
            continue
        upto = version if keep is None else version - keep
        if cutoff is not None and upto > 0:
            upto = min(upto, _last_old_version(store, name, version, position))
        before = store.truncated(name)
        if upto > before and not force:
            snapshot = store.snapshot(name)
            upto = 0 if snapshot is None else min(upto, snapshot.version)
        if upto <= before:
            continue
        together.append((name, upto))
        events += upto - before
        if len(together) == _TOGETHER_STREAMS or events >= _TOGETHER_EVENTS:
            deleted += erase(together)
            together, events = [], 0
    return deleted + (erase(together) if together else 0)
