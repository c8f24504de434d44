"""The parts of an event: an upcaster may have made several of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._core import Recorded
from .errors import Deleted

if TYPE_CHECKING:
    from ._feed import Feed
    from ._store import Store

Place = tuple[int, int]  # position, and which of the parts that an upcaster made of the event


def part_of(recorded: Recorded) -> tuple[int, int]:
    """Which it is of how many that an upcaster has made of one: 0 and 1 for an ordinary one."""
    return getattr(recorded, "part", 0), getattr(recorded, "parts", 1)


def is_last_of(feed: Feed, recorded: Recorded) -> bool:
    """Whether the feed, which has just given it, gives no further part of the same event: others
    may not be of a type that is wanted."""
    part, parts = part_of(recorded)
    is_ahead = feed._is_behind_parts and feed.position >= recorded.position
    return is_ahead or part == parts - 1


def event_at(store: Store, place: Place) -> Recorded | None:
    """The event, or None where it has been deleted."""
    position, part = place
    try:
        several = list(store.events(after=position - 1, upto=position))
    except Deleted:
        return None
    return next((one for one in several if part_of(one)[0] == part), None)
