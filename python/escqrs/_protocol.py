"""What a provider written in Python has to do, as types; see ``es.Store`` and docs/providers.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ._core import NewEvent, Recorded
from ._feed import Feed
from ._inspect import Statistics
from ._match import Match
from ._message import Event
from ._store import Commit, Snapshot, Unless, Write

__all__ = ["Provider"]


class Provider(Protocol):
    """What a subclass of ``es.Store`` that keeps its events itself overrides. ``es.Store`` is one,
    and a type checker tells by this whether another is: ``provider: es.Provider = MyStore()``.

    It has to override those up to ``close``. The others, from ``append`` on, ``es.Store`` makes of
    them, or raises a ``TypeError`` that says that the provider has none.

    Each of them raises an ``es.Error`` where it fails and has then changed nothing; any thread may
    call any of them. ``escqrs.testing.ProviderSuite`` has the tests.
    """

    def commit(
        self,
        writes: Iterable[Write],
        *,
        condition: Unless | None = None,
        checkpoint: tuple[str, int] | None = None,
        key: str | None = None,
    ) -> Commit:
        """Store the events of all streams and move the checkpoint, or nothing of it."""
        ...

    def history(
        self,
        stream: str,
        *,
        after: int = 0,
        upto: int | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Recorded]:
        """The events of a stream by version."""
        ...

    def events(
        self,
        *,
        after: int = 0,
        upto: int | None = None,
        match: Match | Iterable[Match] = (),
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Recorded]:
        """All events by position."""
        ...

    def version(self, stream: str) -> int:
        """Of a stream; 0 where it is unknown."""
        ...

    @property
    def head(self) -> int:
        """The position of the last event; 0 in an empty store."""
        ...

    def checkpoint(self, name: str) -> int | None:
        """The position that was stored under the name."""
        ...

    def save_snapshot(self, stream: str, version: int, type: str, data: bytes) -> None:
        """Store a snapshot; one of the same version is replaced."""
        ...

    def snapshot(self, stream: str, *, upto: int | None = None) -> Snapshot | None:
        """The newest, at most of that version."""
        ...

    def delete_snapshots(self, stream: str, *, upto: int | None = None) -> None:
        """Delete those up to a version, or all."""
        ...

    def close(self) -> None:
        """Let go of what it holds; later calls raise ``es.Closed``."""
        ...

    # ---- what es.Store has for all

    def append(
        self,
        stream: str,
        events: Iterable[NewEvent | Event],
        *,
        expected: int | None = None,
        condition: Unless | None = None,
        checkpoint: tuple[str, int] | None = None,
        key: str | None = None,
    ) -> Commit:
        """A commit to one stream."""
        ...

    def subscribe(self) -> Feed:
        """Follow the events as they are committed."""
        ...

    def stats(self) -> Statistics:
        """How much it holds, made by reading."""
        ...

    def truncate(self, stream: str, upto: int, *, force: bool = False) -> int:
        """Delete the events of a stream up to a version; who can overrides it."""
        ...

    def delete(self, stream: str) -> int:
        """Delete a stream, whose name is not used again; who can overrides it."""
        ...

    def restart(self) -> None:
        """Begin anew after a failure, as when it was opened; who has something to forget overrides
        it."""
        ...
