"""What decorators leave on functions, and the runner of a process on exceptions: typed."""

from __future__ import annotations

from typing import Generic, TypeVar

_T = TypeVar("_T")


class Mark(Generic[_T]):
    """An attribute that an object of any class may have."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = f"__escqrs_{name}__"

    def put(self, one: object, value: _T) -> None:
        setattr(one, self._name, value)

    def of(self, one: object) -> _T | None:
        """What was put there; None without a mark."""
        found: _T | None = getattr(one, self._name, None)
        return found
