"""``es.open`` on a provider of one's own: what stands between the core (csrc/python/provider.c) and
a subclass of ``es.Store``.

A provider keeps events, snapshots and checkpoints. What an entity needs besides is made of these:
the reply of a command with a key is an event ``escqrs.Reply`` of a stream that is named after the
key and expected to be new, so that a key is used once, whoever commits.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from ._core import ActorSystemBase, NewEvent, Recorded
from ._feed import follow
from ._inspect import Statistics, Verification
from ._match import Match
from ._store import MESSAGE_BYTES_MAX, Store, Unless, Write
from .errors import CheckpointBehind, WrongVersion

__all__ = ["ProviderStore"]

REPLY = "escqrs.Reply"
_NUMBER = "escqrs.store"  # the checkpoint that is the number of a provider
_NUMBER_MAX = 2**53 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANY = -1

Row = tuple[int, int, int, str, str, bytes, str, str, str, dict[str, str], tuple[str, ...]]
EventParts = tuple[str, bytes, str | None, list[str], dict[str, str], str, str]


class ProviderStore(Store):
    """A provider of one's own as the core sees it; ``provider`` is the object that was given."""

    provider: Store

    def __init__(self, provider: Store, simulation: ActorSystemBase | None = None) -> None:
        self.provider = provider
        name = type(provider).__qualname__
        self._open_provider(Bridge(provider), name, MESSAGE_BYTES_MAX, simulation)
        follow(provider, self)

    def keep_files(self) -> None:
        """Files of read models are those of one store, known by a number: the provider keeps that,
        so that they are its own when it is opened again."""
        number = self.provider.checkpoint(_NUMBER)
        if number is None:
            with contextlib.suppress(CheckpointBehind):  # somebody else was first
                self.provider.set_checkpoint(_NUMBER, 1 + secrets.randbelow(_NUMBER_MAX))
            number = self.provider.checkpoint(_NUMBER)
        self._name_rows(number or 0)

    def streams(self) -> Iterator[tuple[str, int]]:
        return self.provider.streams()

    def stats(self) -> Statistics:
        return self.provider.stats()

    def verify(self, *, progress: Callable[[int, int], object] | None = None) -> Verification:
        return self.provider.verify(progress=progress)

    def backup(self, path: Any) -> None:
        raise TypeError(
            f"{type(self.provider).__name__} is a provider of its own: it backs itself up"
        )

    def clone(self, path: Any = ":memory:", *, durability: str = "full") -> Store:
        raise TypeError(
            f"{type(self.provider).__name__} is a provider of its own: it has no clones"
        )

    def restart(self) -> None:
        self.provider.restart()
        self._provider_changed()

    def _snapshots(
        self, number: int, version: int, /
    ) -> list[tuple[int, str, int, str | None, bool]]:
        """As of the core; streams are numbered in their order, and each comes at once."""
        for at, (stream, _version) in enumerate(self.provider.streams(), 1):
            if at <= number:
                continue
            found: list[tuple[int, str, int, str | None, bool]] = []
            one = self.provider.snapshot(stream)
            while one is not None:
                found.append((at, stream, one.version, one.type, True))
                one = self.provider.snapshot(stream, upto=one.version - 1)
            if found:
                return found[::-1]
        return []


class Bridge:
    """What C calls, on any thread, with values that it takes apart."""

    def __init__(self, provider: Store) -> None:
        self._provider = provider

    def head(self) -> int:
        return self._provider.head

    def version(self, stream: str) -> int:
        return self._provider.version(stream)

    def checkpoint(self, name: str) -> int | None:
        return self._provider.checkpoint(name)

    def commit(
        self,
        writes: list[tuple[str, int, list[EventParts]]],
        condition: tuple[list[tuple[list[str], list[str]]], int] | None,
        checkpoint: tuple[str, int] | None,
        key: tuple[str, str, bytes] | None,
        snapshot: tuple[str, int, str, bytes, int] | None,
    ) -> tuple[int, list[int], bool]:
        plain = [
            Write(
                stream,
                [_new_event(event) for event in events],
                None if expected == _ANY else expected,
            )
            for stream, expected, events in writes
        ]
        keyed = None
        if key is not None:
            keyed = _key_stream(key[0], key[1])
            plain.append(Write(keyed, [NewEvent(REPLY, key[2])], 0))
        unless = None
        if condition is not None:
            matches = [Match(types=types, tags=tags) for types, tags in condition[0]]
            unless = Unless(matches, condition[1])
        position = self._provider.head
        versions: list[int] = []
        if plain or checkpoint is not None:
            try:
                done = self._provider.commit(plain, condition=unless, checkpoint=checkpoint)
            except WrongVersion as error:
                if keyed is None or error.stream != keyed:
                    raise
                return position, [0 for _write in writes], True
            position = done.position
            versions = [done.versions[stream] for stream, _expected, _events in writes]
        if snapshot is not None:
            self._save(*snapshot)
        return position, versions, False

    def _save(self, stream: str, version: int, type: str, data: bytes, keep: int) -> None:
        self._provider.save_snapshot(stream, version, type, data)
        if keep > 0:
            one = self._provider.snapshot(stream)
            for _newer in range(keep):
                if one is None:
                    return
                one = self._provider.snapshot(stream, upto=one.version - 1)
            if one is not None:
                self._provider.delete_snapshots(stream, upto=one.version)

    def read(
        self, stream: str | None, after: int, upto: int, reverse: bool, limit: int
    ) -> list[Row]:
        options: dict[str, Any] = {"after": after, "upto": upto, "reverse": reverse, "limit": limit}
        found = (
            self._provider.events(**options)
            if stream is None
            else self._provider.history(stream, **options)
        )
        return [_row(recorded) for recorded in itertools.islice(found, limit)]

    def snapshot(self, stream: str, upto: int) -> tuple[int, str, bytes] | None:
        found = self._provider.snapshot(stream, upto=upto or None)
        return None if found is None else (found.version, found.type, found.data)

    def delete_snapshots(self, stream: str, upto: int) -> None:
        self._provider.delete_snapshots(stream, upto=upto or None)

    def key(self, scope: str, key: str) -> tuple[bytes, int] | None:
        for recorded in self._provider.history(_key_stream(scope, key), limit=1):
            return recorded.data, recorded.position
        return None


def _key_stream(scope: str, key: str) -> str:
    digest = hashlib.sha256(f"{scope}\0{key}".encode()).hexdigest()
    return f"escqrs.key/{digest}"


def _new_event(parts: EventParts) -> NewEvent:
    type, data, id, tags, metadata, correlation_id, causation_id = parts
    return NewEvent(
        type,
        data,
        id=id,
        tags=tags,
        metadata=metadata,
        correlation_id=correlation_id,
        causation_id=causation_id,
    )


def _row(one: Recorded) -> Row:
    return (
        one.position,
        one.version,
        (one.time - _EPOCH) // timedelta(microseconds=1),
        one.stream,
        one.type,
        one.data,
        one.id,
        one.correlation_id,
        one.causation_id,
        dict(one.metadata),
        tuple(one.tags),
    )
