"""Which events a reader wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ._core import MessageMeta, twin

__all__ = ["Match"]


def _names(what: str, given: Iterable[object]) -> tuple[str, ...]:
    texts = "event classes and names of types" if what == "types" else "texts"
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"es.Match: {what} is a list of {texts}, not {given!r}")
    names: list[str] = []
    for item in given:
        name = one = twin(item, "event")
        if isinstance(one, MessageMeta) and one.__escqrs_kind__ == "event":
            name = one.__escqrs_name__
        if not isinstance(name, str):
            raise TypeError(f"es.Match: {what} is a list of {texts}, and {name!r} is none")
        names.append(name)
    return tuple(names)


@dataclasses.dataclass(frozen=True)
class Match:
    """An event matches if its type is among ``types`` (or none are given) and it bears all
    ``tags``.

    types: names of types, or event classes. tags: texts. Where a match is taken, so is a list of
    them: any of these; ``()`` is every event.
    """

    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __init__(self, types: Iterable[str | type] = (), tags: Iterable[str] = ()) -> None:
        object.__setattr__(self, "types", _names("types", types))
        object.__setattr__(self, "tags", _names("tags", tags))


def matches(given: Match | Iterable[Match] | None) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """For C: the matches as plain tuples."""
    if given is None:
        return []
    if not isinstance(given, Iterable):
        given = [given]
    several = list(given)
    for one in several:
        if not isinstance(one, Match):
            raise TypeError(f"match is an es.Match or a list of them, and {one!r} is none")
    # a subclass may have other attributes of these names
    return [(_names("types", one.types), _names("tags", one.tags)) for one in several]
