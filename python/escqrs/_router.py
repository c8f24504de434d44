"""Routers: one reference for several actors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from . import _core
from ._core import Ref

__all__ = [
    "Router",
    "broadcast",
    "consistent_hash",
    "random",
    "round_robin",
    "smallest_mailbox",
]

_NAMES = ("round_robin", "random", "broadcast", "consistent_hash", "smallest_mailbox")
_POOL_MAX = 1_000_000
_TAKES = "a router takes the size of a pool, or the references of a group"


class Router:
    """How messages are dealt out; made by :func:`round_robin` and its like.

    With a number it is a pool: ``es.Props(Worker, router=es.round_robin(4))`` spawns that many
    actors of the same props as children of the router, which supervises them. With references it is
    a group, and is spawned itself: ``system.spawn(es.round_robin([a, b]))``.
    """

    __slots__ = ("_key", "_routees", "_routing")

    def __init__(
        self, routing: int, key: Callable[[Any], Hashable] | None, routees: int | Iterable[Ref]
    ) -> None:
        if isinstance(routees, bool) or not isinstance(routees, int | Iterable):
            raise TypeError(f"{_TAKES}, not {type(routees).__name__}")
        if not isinstance(routees, int):
            routees = tuple(routees)
            for one in routees:
                if not isinstance(one, Ref):
                    raise TypeError(f"{_TAKES}, not {type(one).__name__}")
        elif not 1 <= routees <= _POOL_MAX:
            raise ValueError(f"a pool has from 1 to {_POOL_MAX:,} actors, not {routees!r}")
        self._routing = routing
        self._key = key
        self._routees = routees

    def __repr__(self) -> str:
        routees = self._routees
        given = str(routees) if isinstance(routees, int) else f"[{', '.join(map(str, routees))}]"
        key = "" if self._key is None else f"{self._key!r}, "
        return f"es.{_NAMES[self._routing]}({key}{given})"

    @property
    def is_pool(self) -> bool:
        """Whether it was given a number."""
        return isinstance(self._routees, int)

    def _described(self) -> tuple[int, Callable[[Any], Hashable] | None, int | tuple[Ref, ...]]:
        return self._routing, self._key, self._routees

    @property
    def _recipe(self) -> _core.Recipe:
        if self.is_pool:
            raise TypeError("a pool needs what it is made of: es.Props(Worker, router=...)")
        return _core.Recipe(
            None, None, None, None, None, None, None, self._described(), 0, 0, False, 0.0, 0
        )


def round_robin(n: int | Iterable[Ref]) -> Router:
    """To one after the other. n: the size of a pool, or the references of a group."""
    return Router(0, None, n)


def random(n: int | Iterable[Ref]) -> Router:
    """To any of them."""
    return Router(1, None, n)


def broadcast(n: int | Iterable[Ref]) -> Router:
    """To all of them."""
    return Router(2, None, n)


def consistent_hash(key: Callable[[Any], Hashable], n: int | Iterable[Ref]) -> Router:
    """To the one that the key of the message belongs to; few keys move when routees come and go.

    key: a function from a message to something hashable. Numbers, ``str`` and ``bytes`` have the
    same place in every process. What it raises is a failure of the router, which its supervisor
    decides on; the message goes to nobody, and its asker gets the exception.
    """
    if not callable(key):
        raise TypeError(f"key is a function from a message, not {type(key).__name__}")
    return Router(3, key, n)


def smallest_mailbox(n: int | Iterable[Ref]) -> Router:
    """To the one with the fewest messages waiting."""
    return Router(4, None, n)
