"""Persistent actors: ``es.PersistentActor`` and ``es.persistence``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, cast

from . import _core
from ._core import Context
from ._message import Event, Message
from ._store import Store, Write, claim
from .errors import Corrupt, Error, NameClash, UnknownType

__all__ = [
    "OfferSnapshot",
    "Persistence",
    "PersistentActor",
    "Replay",
    "ReplayComplete",
    "RequestSnapshot",
    "persistence",
]

_log = logging.getLogger("escqrs")


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """Recovery begins: a snapshot, if there is one, and the events after it follow."""


@dataclasses.dataclass(frozen=True, slots=True)
class OfferSnapshot:
    """The state that ``persist_snapshot`` stored, and the version that it was of."""

    snapshot: Any
    version: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ReplayComplete:
    """Recovery has ended; the actor is at this version, and messages follow."""

    version: int


@dataclasses.dataclass(frozen=True, slots=True)
class RequestSnapshot:
    """It is time for a snapshot: call ``self.persist_snapshot(state)``."""


class PersistentActor(_core.PersistentActorBase):
    """An actor whose state is the events that it has persisted.

    ``receive`` gets commands from others, and its own events: from ``persist`` at once, and again
    when the actor is recovered. Spawn it with a name, under which its events are stored, and with
    ``es.Props(..., middleware=[es.persistence(store)])``.
    """

    def receive(self, ctx: Context, message: Any) -> Any:
        """Handle one message."""
        raise NotImplementedError(f"{type(self).__name__} has no receive(ctx, message)")


@dataclasses.dataclass(frozen=True)
class Persistence:
    """What :func:`persistence` makes: a store, and how often a snapshot is asked for."""

    store: Store
    snapshot_every: int | None

    def __call__(self, following: Callable[..., Any]) -> Callable[..., Any]:
        return following  # the core knows it by its type


def persistence(store: Store, *, snapshot_every: int | None = None) -> Persistence:
    """Middleware that gives a persistent actor its store.

    store: an ``es.Store``, or a provider of one's own.
    snapshot_every: send ``RequestSnapshot`` when the version passes a multiple of it; None and 0:
        never.
    """
    if not isinstance(store, Store):
        raise TypeError(f"es.persistence takes an es.Store, not {type(store).__name__}")
    if snapshot_every is not None:
        if isinstance(snapshot_every, bool) or not isinstance(snapshot_every, int):
            raise TypeError(f"snapshot_every is an int, not {type(snapshot_every).__name__}")
        if snapshot_every < 0:
            raise ValueError(f"snapshot_every is not negative: {snapshot_every}")
    return Persistence(store, snapshot_every)


# ---- what C calls --------------------------------------------------------------------------------


def _class_of(store: Store, name: str) -> type[Any]:
    """The class for a stored name: one that the store knows, or the only one there is."""
    known = store._classes.get(name)
    if known is not None:
        return _core.newest(known)
    found: set[type[Any]] = {
        cls
        for cls in map(_core.newest, _core._message_classes())
        if cls.__escqrs_name__ == name and issubclass(cls, (Event, Message))
    }
    if not found:
        raise UnknownType(
            f"no class named {name!r} is defined; import the module that defines it", type=name
        )
    if len(found) > 1:
        texts = sorted(f"{cls.__module__}.{cls.__qualname__}" for cls in found)
        raise NameClash(
            f"{len(found)} classes are named {name!r}: {', '.join(texts)}; give the one that is "
            "meant to es.Store(path, ...)"
        )
    cls = found.pop()
    claim(store, cls)  # SchemaMismatch where it would misread what is stored
    return cls


def recover(ctx: Context, store: Store, name: str) -> int:
    """Hand snapshot and events to the actor; returns its version."""
    actor = ctx.actor
    version = 0
    _give(ctx, Replay())
    if store._is_core and store.version(name) == 0:
        return 0  # a new one, found out in memory
    snapshot = store.snapshot(name)
    while snapshot is not None:
        try:
            state = _core.from_bytes(_class_of(store, snapshot.type), snapshot.data)
        except Error as error:  # an aid only: an older one, or all the events
            ctx.log.warning("the snapshot at version %d is not used: %s", snapshot.version, error)
            snapshot = (
                store.snapshot(name, upto=snapshot.version - 1) if snapshot.version > 1 else None
            )
            continue
        version = snapshot.version
        actor._at(version)
        _give(ctx, OfferSnapshot(state, version))
        break
    for recorded in store.history(name, after=version):
        try:
            event = _event_of(store, recorded)
        except Error as error:
            raise _explained(error, name, recorded, "read") from error
        version = recorded.version
        actor._at(version)
        try:
            _give(ctx, event)
        except Exception as error:
            raise _explained(error, name, recorded, "applied") from error
    return version


def delete_events(store: Store, name: str, upto: int | None) -> None:
    """``actor.delete_events``: a snapshot stands for them, or it is es.NotCovered."""
    _check_version(upto)
    stored = store.version(name)
    version = stored if upto is None else min(upto, stored)
    if version > store.truncated(name):
        store.truncate(name, version)


def delete_snapshots(store: Store, name: str, upto: int | None) -> None:
    """``actor.delete_snapshots``."""
    _check_version(upto)
    store.delete_snapshots(name, upto=upto)


def _check_version(upto: Any) -> None:
    if upto is not None and (isinstance(upto, bool) or not isinstance(upto, int)):
        raise TypeError(f"upto is a version or None, not {type(upto).__name__}")
    if upto is not None and upto < 0:
        raise ValueError(f"upto is not negative: {upto}")


def _event_of(store: Store, recorded: Any) -> Any:
    try:
        return recorded.event
    except UnknownType:
        _class_of(store, recorded.type)
        return recorded.event


def _explained(error: Exception, name: str, recorded: Any, what: str) -> Corrupt:
    return Corrupt(
        f"{name}, version {recorded.version}: event {recorded.type} cannot be {what}: "
        f"{type(error).__name__}: {error}",
        stream=name,
        version=recorded.version,
        position=recorded.position,
    )


def _give(ctx: Context, message: Any) -> None:
    ctx._call(message)


def commit_provider(
    store: Store, name: str, events: tuple[Any, ...], expected: int, snapshot: Any
) -> None:
    """Store a message's events with a provider that is written in Python."""
    if events:
        store.commit([Write(name, events, expected)])
    if snapshot is not None:
        version, state = snapshot
        cls = cast("Any", type(state))
        try:
            store.save_snapshot(name, version, cls.__escqrs_name__, _core.to_bytes(state))
        except Exception:  # the events are stored, and the truth
            _log.exception("the snapshot of %s at version %d was not stored", name, version)
