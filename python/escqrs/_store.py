"""``es.Store``: raw events by stream, below ``es.open`` and without aggregates."""

from __future__ import annotations

import atexit
import dataclasses
import os
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import IO, Any, Literal, cast, overload

from . import _core, _deleting, _log, _subscription, _subscription_group, _upcast
from ._core import NewEvent, Recorded
from ._feed import POSITION_MAX, Feed, ProviderFeed, core_feed, telling
from ._inspect import (
    Statistics,
    Verification,
    stats,
    stats_by_reading,
    verify,
    verify_by_reading,
)
from ._match import Match, matches
from ._message import Event
from ._subscription import Subscription
from ._subscriptions import SubscriptionStatus, statuses
from ._transfer import export, import_
from .errors import Closed, NameClash

__all__ = ["Commit", "Snapshot", "Store", "Unless", "Write"]

MESSAGE_BYTES_MAX = 16 * 1024 * 1024

_unclosed: weakref.WeakSet[Store] = weakref.WeakSet()


# ---- values --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Write:
    """What one commit adds to one stream.

    stream: its name, 1 to 2,048 bytes of UTF-8 without NUL. events: ``es.NewEvent`` or instances of
        ``es.Event``.
    expected: the version that the writer has seen, 0 for a new stream, None for any.
    """

    stream: str
    events: tuple[NewEvent | Event, ...]
    expected: int | None = None

    def __init__(
        self, stream: str, events: Iterable[NewEvent | Event], expected: int | None = None
    ) -> None:
        object.__setattr__(self, "stream", stream)
        if not isinstance(events, Iterable):
            raise TypeError(f"events is a list of es.NewEvent and events, not {events!r}")
        object.__setattr__(self, "events", tuple(events))
        object.__setattr__(self, "expected", expected)


@dataclasses.dataclass(frozen=True)
class Unless:
    """A commit with this condition fails if an event after that position matches.

    match: an ``es.Match``, a list of them (any of these), or ``()`` for every event. after: a
        position.
    """

    match: Match | tuple[Match, ...]
    after: int = 0

    def __init__(self, match: Match | Iterable[Match], after: int = 0) -> None:
        _check_position("after", after)
        several = match if isinstance(match, Match) else tuple(match)
        matches(several)
        object.__setattr__(self, "match", several)
        object.__setattr__(self, "after", after)


@dataclasses.dataclass(frozen=True)
class Commit:
    """What was stored.

    position: that of its last event; the head, if it had none. versions: of each stream, after the
        commit. repeated: its key was used before, and this is the first one's result.
    """

    position: int
    versions: Mapping[str, int]
    repeated: bool = False


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A state that was saved for a stream: the type and bytes as they were given."""

    stream: str
    version: int
    type: str
    data: bytes


def _check_position(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} is not negative: {value}")


# ---- the store -----------------------------------------------------------------------------------


class Store(_core.StoreBase):
    """A store of events: streams of bytes, each event with a version in its stream and a position
    in the store.

    path: a file, or ``":memory:"`` for one that is gone when closed.
    classes: event classes that ``recorded.event`` is to decode; those of events that are appended
        are added by themselves. ``es.upcast`` functions, or modules that have them, that are not
        defined beside these classes.
    durability: ``"full"``: what was acknowledged survives power loss. ``"normal"``: it survives the
        death of the process, and a power loss may take the last seconds.
    readonly: read beside the process that writes.
    max_message_bytes: of one event, tags and metadata included; beyond it is ``es.TooLarge``.
    chain: keep a hash chain: a SHA-256 link for each event, over the link before it and all that
        the event says, so that :meth:`verify` names the first event that was changed, and
        :meth:`chain_hash` is a history in 32 bytes. A new store keeps one from then on, in the
        file; one that has none is refused (``ValueError``). It costs 42 bytes and
        some 2 microseconds an event.

    Raises ``es.Locked`` (naming the process that has it open), ``es.NotAStore``, ``es.Corrupt``,
    ``es.SchemaMismatch``, ``es.NameClash``, ``es.StorageError``. Any thread may call any of its
    methods; commits of many threads are written together. Close it, or use it in a ``with``
    statement. After ``fork`` the child cannot use it (``es.Forked``).

    A provider of one's own is a subclass that overrides ``commit``, ``history``, ``events``,
    ``version``, ``head``, ``checkpoint``, ``save_snapshot``, ``snapshot``, ``delete_snapshots`` and
    ``close``; all else is built on these. One that can delete overrides ``truncate``, ``delete``,
    ``truncated`` and ``deleted`` as well, and takes ``deleted=`` in ``history`` and ``events``. It
    need not call this ``__init__``, which opens a file.
    ``escqrs.testing.ProviderSuite`` are its tests; examples/provider.py is one.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("commit", "close"):
            if name in cls.__dict__:
                setattr(cls, name, telling(cls.__dict__[name], closes=name == "close"))

    def __init__(
        self,
        path: str | os.PathLike[str],
        *classes: type[Event] | Callable[..., Any] | types.ModuleType,
        durability: str = "full",
        readonly: bool = False,
        max_message_bytes: int = MESSAGE_BYTES_MAX,
        chain: bool = False,
    ) -> None:
        given: list[_upcast.Upcaster] = []
        events: list[type[Event]] = []
        for one in classes:
            upcasters = _upcast.upcasters_in(one)
            cls: Any = _core.twin(one, "event") if upcasters is None else None
            given.extend(upcasters or ())
            if cls is None:
                continue
            if not (isinstance(cls, type) and issubclass(cls, Event)) or cls.__escqrs_abstract__:
                raise TypeError(f"es.Store takes event classes, and {cls!r} is none")
            events.append(cls)
        self._open(*check_options(path, durability, readonly, max_message_bytes, chain))
        try:
            _unclosed.add(self)
            claim_all(self, events, given=given)
        except BaseException:
            self.close()
            raise

    # ---- writing

    def commit(
        self,
        writes: Iterable[Write],
        *,
        condition: Unless | None = None,
        checkpoint: tuple[str, int] | None = None,
        key: str | None = None,
    ) -> Commit:
        """Store events of several streams, and move a checkpoint: all of it or nothing. Returns
        when it is durable.

        writes: one ``es.Write`` a stream. condition: ``es.Unless(match, after)``. checkpoint: a
            name and the position that it is moved to; only forward. key: a name for this commit:
            one that was used stores nothing and returns the first one's result with
            ``repeated=True``.

        Ctrl-C takes it back while it waits behind a read model at work; nothing is stored then.

        Raises ``es.WrongVersion``, ``es.ConditionFailed``, ``es.CheckpointBehind``,
        ``es.KeyReused`` (all ``es.Conflict``: nothing is stored, trying again is safe),
        ``es.TooLarge`` (100,000 events, 1 GiB), ``es.ReadOnly``, ``es.Full``.
        """
        plain: list[tuple[str, tuple[NewEvent | Event, ...], int | None]] = []
        if isinstance(writes, Write):
            raise TypeError("commit takes a list of es.Write: commit([es.Write(...)])")
        for write in writes:
            if not isinstance(write, Write):
                raise TypeError(f"commit takes a list of es.Write, and {write!r} is none")
            plain.append((write.stream, write.events, write.expected))
        if condition is not None and not isinstance(condition, Unless):
            raise TypeError(f"condition is an es.Unless, not {type(condition).__name__}")
        if checkpoint is not None and (not isinstance(checkpoint, tuple) or len(checkpoint) != 2):
            raise TypeError(f"checkpoint is a name and a position, not {checkpoint!r}")
        unless = None
        if condition is not None:
            unless = (_upcast.plan_of(self).stored(matches(condition.match)), condition.after)
        return Commit(*self._commit(plain, unless, checkpoint, key))

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
        """Store events of one stream: :meth:`commit` of one ``es.Write``."""
        return self.commit(
            [Write(stream, events, expected)], condition=condition, checkpoint=checkpoint, key=key
        )

    def set_checkpoint(self, name: str, position: int) -> Commit:
        """Move a checkpoint forward: ``commit([], checkpoint=(name, position))``."""
        return self.commit([], checkpoint=(name, position))

    def new_event(self, event: NewEvent | Event) -> NewEvent:
        """For providers: what is to be stored, with a message packed to bytes. From then on the
        message's class is what ``recorded.event`` of this store decodes."""
        if isinstance(event, NewEvent):
            return event
        cls = _core.twin(type(event), "event")
        if not issubclass(cls, Event):
            raise TypeError(
                "what is stored is an es.NewEvent or an instance of es.Event, "
                f"not {type(event).__name__}"
            )
        claim(self, cls)
        return NewEvent(cls.__escqrs_name__, _core.event_bytes(event))

    # ---- reading

    def history(
        self,
        stream: str,
        *,
        after: int = 0,
        upto: int | None = None,
        reverse: bool = False,
        limit: int | None = None,
        deleted: Literal["raise", "skip"] = "raise",
    ) -> Iterator[Recorded]:
        """Iterate over the events of a stream, oldest first; ``after`` (exclusive) and ``upto``
        (inclusive) are versions.

        An unknown stream has no events. An event that does not verify raises ``es.Corrupt``;
        meeting ``close()`` raises ``es.Closed``. Where the next event would be one that was
        deleted it is ``es.Deleted``, or with ``deleted="skip"`` they are left out.
        """
        return self._history(
            stream, after=after, upto=upto, reverse=reverse, limit=limit, deleted=deleted
        )

    def events(
        self,
        *,
        after: int = 0,
        upto: int | None = None,
        match: Match | Iterable[Match] = (),
        reverse: bool = False,
        limit: int | None = None,
        deleted: Literal["raise", "skip"] = "raise",
    ) -> Iterator[Recorded]:
        """Iterate over the events of all streams in the order they were stored; ``after``
        (exclusive) and ``upto`` (inclusive) are positions. It ends at the head as it is now.

        match: an ``es.Match``, a list of them (any of these), or ``()`` for every event.
        deleted: ``"raise"``: ``es.Deleted`` where the next event would be one that was deleted,
            whatever it would have matched; ``after=error.position`` is behind them. ``"skip"``:
            they are left out.
        """
        return self._events(
            after=after, upto=upto, match=match, reverse=reverse, limit=limit, deleted=deleted
        )

    def version(self, stream: str) -> int:
        """How many events the stream has; 0 where there is none of that name."""
        return self._version(stream)

    def checkpoint(self, name: str) -> int | None:
        """The position that the checkpoint was moved to, or None."""
        return self._checkpoint(name)

    @overload
    def subscribe(
        self,
        name: None = None,
        *,
        types: Iterable[str | type] | None = None,
        match: Match | Iterable[Match] = (),
        after: int = 0,
        deleted: Literal["raise", "skip"] = "raise",
    ) -> Feed: ...
    @overload
    def subscribe(
        self,
        name: str,
        *,
        types: Iterable[str | type] | None = None,
        match: Match | Iterable[Match] = (),
        after: int = 0,
        deleted: Literal["raise", "skip"] = "raise",
        max_attempts: int | None = None,
        backoff: float = 0.1,
        checkpoint_every: int = 100,
        window: int = 1_000,
    ) -> Subscription: ...
    def subscribe(
        self,
        name: str | None = None,
        *,
        types: Iterable[str | type] | None = None,
        match: Match | Iterable[Match] = (),
        after: int = 0,
        deleted: Literal["raise", "skip"] = "raise",
        max_attempts: int | None = None,
        backoff: float = 0.1,
        checkpoint_every: int = 100,
        window: int = 1_000,
    ) -> Feed | Subscription:
        """Follow the store: every matching event after the position, in order, as it becomes
        durable. Without a name each once, in an ``es.Feed``; with one in an ``es.Subscription``,
        which is durable: it goes on where it was, in the next process, too, and delivers each event
        until it is acknowledged.

        types: event classes or names of types; or match: an ``es.Match`` or a list of them.
        after: where it begins; a durable one only when its name is new.
        deleted: as in :meth:`events`.
        max_attempts: failed deliveries, after which an event becomes a dead letter; None: never.
        backoff: seconds until a failed event is delivered again, doubled with each failure.
        checkpoint_every: how many acknowledgements are stored at once, at most.
        window: how many events it reads ahead of the lowest that is not acknowledged.
        """
        _check_position("after", after)
        if types is not None:
            if match != ():
                raise TypeError("subscribe takes types or match, not both")
            several: Any = tuple(types) if isinstance(types, Iterator) else types
            match = Match(several)
            for one in several:
                cls = _core.twin(one, "event")
                if isinstance(cls, type) and issubclass(cls, Event):
                    claim(self, cls)
        if name is not None:
            refuse_simulated(self, "a durable subscription")
            return _subscription.subscribe(
                self,
                name,
                match=match,
                after=after,
                max_attempts=max_attempts,
                backoff=backoff,
                checkpoint_every=checkpoint_every,
                window=window,
                deleted=deleted,
            )
        if not self._is_core:
            return ProviderFeed(self, after, match, deleted)
        return core_feed(self, after, match, deleted)

    def subscriptions(self) -> list[SubscriptionStatus]:
        """The durable subscriptions by name: where each stands, and what can be done with it."""
        return list(statuses(self))

    # ---- deleting: docs/deleting.md

    def truncate(self, stream: str, upto: int, *, force: bool = False) -> int:
        """Delete the events of a stream up to that version, and its snapshots before it. Returns
        how many events went; it is durable then.

        Versions and positions of what stays do not change. A snapshot at ``upto`` or later must
        stand for what goes, else it is ``es.NotCovered``; force: also without one, for streams
        that nobody folds into a state. ``ValueError`` where the stream has no such version.
        """
        _check_position("upto", upto)
        self._check_deletes("truncate")
        return self._erase([(stream, upto, force)])[0]

    def delete(self, stream: str) -> int:
        """Delete a stream: its events, its snapshots, and the keys of its commands. Returns how
        many events went; it is durable then.

        Its name is not used again: who writes to it gets ``es.Deleted``. ``ValueError`` where there
        is no stream of that name; deleting it again does nothing.
        """
        self._check_deletes("delete")
        return self._erase([(stream, None, False)])[0]

    def truncated(self, stream: str) -> int:
        """The version up to which events of the stream have been deleted; 0: none."""
        if not self._is_core:
            return 0
        return self._erased(stream)[0]

    def deleted(self, stream: str) -> bool:
        """Whether the stream was deleted, so that its name is not used again."""
        if not self._is_core:
            return False
        return self._erased(stream)[1]

    def retain(
        self,
        *,
        stream: str | None = None,
        category: str | None = None,
        prefix: str | None = None,
        keep: int | None = None,
        older_than: timedelta | datetime | None = None,
        force: bool = False,
    ) -> int:
        """Truncate streams by count or age, as far as snapshots allow. Returns how many events
        went.

        stream: the name of one; category: all whose names begin with it and a slash, such as those
            of an aggregate; prefix: all whose names begin with it, the engine's own (``escqrs.``)
            only where it says so. One of the three.
        keep: so many of the newest events stay. older_than: what is younger stays: a ``timedelta``
            back from now, or an aware ``datetime``. With both, an event goes where both say so.
        force: also beyond what a snapshot stands for; see :meth:`truncate`.

        Each stream is truncated whole or not at all, some together in one transaction.
        """
        names = _deleting.names_of(self, stream, category, prefix)
        cutoff = _deleting.cutoff_of(older_than)
        if keep is not None:
            _check_position("keep", keep)
        elif cutoff is None:
            raise TypeError("retain takes keep, older_than or both")

        def erase(together: list[tuple[str, int]]) -> int:
            if self._is_core:
                return sum(self._erase([(name, upto, force) for name, upto in together]))
            return sum(self.truncate(name, upto, force=force) for name, upto in together)

        return _deleting.retain(self, names, keep, cutoff, force, erase)

    def compact(self) -> int:
        """Give the space of what was deleted back to the file system, some pages at a time; readers
        and commits go on. Returns by how many bytes the file shrinks, which it does once no reader
        looks at an older state.

        A file of format 1 is rewritten whole the first time, and commits wait for that.
        """
        self._check_deletes("compact")
        return self._compact()

    def _all_events(self, upto: int | None = None) -> Iterator[Recorded]:
        """All that are there: a provider that cannot delete knows no ``deleted=``."""
        return self.events(upto=upto, deleted="skip") if self._deletes else self.events(upto=upto)

    @property
    def _deletes(self) -> bool:
        """Whether events can be deleted from it."""
        return self._is_core or type(self).truncate is not Store.truncate

    def _check_deletes(self, name: str) -> None:
        if not self._is_core:
            raise TypeError(f"{type(self).__name__} is a provider of its own without {name}()")

    # ---- the whole

    def streams(self) -> Iterator[tuple[str, int]]:
        """Iterate over the streams, in the order they were made: name and version of each."""
        if not self._is_core:
            found = dict.fromkeys(recorded.stream for recorded in self._all_events())
            yield from ((name, self.version(name)) for name in found)
            return
        for name, version, _truncated, deleted in self._all_streams():
            if not deleted:
                yield name, version

    def _all_streams(self) -> Iterator[tuple[str, int, int, bool]]:
        """Deleted ones among them: name, version, up to which it was truncated, whether deleted."""
        page = self._streams(0)
        while page:
            for _number, name, version, truncated, deleted in page:
                yield name, version, truncated, deleted
            page = self._streams(page[-1][0])

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the store, as it is at one moment, to a new file; commits go on meanwhile.

        ``es.StorageError`` (``.errno``) where the file exists or cannot be written; after a failure
        there is none. The copy is a store as this one is, and opens as such.
        """
        self._backup(os.fspath(path))

    def clone(
        self, path: str | os.PathLike[str] = ":memory:", *, durability: str = "full"
    ) -> Store:
        """Open a new store that begins as a copy of this one, as it is at one moment.

        path: where there is no file yet, or ``":memory:"``. The copy is written to and closed by
        itself; it knows the same classes. Errors are those of :meth:`backup` and of opening.
        """
        made = Store.__new__(Store)
        made._open(*check_options(path, durability, False, MESSAGE_BYTES_MAX), self)
        _unclosed.add(made)
        made._classes.update(self._classes)
        if self._plan is not None:
            made._learn(self._plan, self._plan.evolves)
        return made

    def export(
        self,
        file: str | os.PathLike[str] | IO[bytes],
        *,
        format: str = "jsonl",
        after: int = 0,
        upto: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> int:
        """Write the events after a position, up to the head as it is now, with their times, ids,
        tags and schemas. Returns how many.

        file: the path of a new file (FileExistsError), or a binary file to write to. format:
            ``"jsonl"``, or ``"protobuf"``: messages of at most 16 MiB, each after its length.
            progress: called with a position and the last one now and then.

        What was deleted is said where it stood, and an import deletes it there, so that positions
        and versions are the same; which of the deleted positions was which stream's is not known
        any more. A history with deleted events is exported from its beginning, else it is
        ``es.Deleted``. Of a hash chain the links of what was deleted are exported, too.

        Snapshots, checkpoints and keys are not exported; :meth:`backup` copies all.
        """
        _check_position("after", after)
        return export(self, file, format, after, upto, progress)

    def import_(
        self,
        file: str | os.PathLike[str] | IO[bytes],
        *,
        format: str = "jsonl",
        progress: Callable[[int, int], object] | None = None,
    ) -> int:
        """Store the events of an export behind those that are there, with their times and ids.
        Returns how many.

        What is there already has to be the same, event by event; so importing again goes on where
        it stopped. ``es.Conflict``: it does not continue this store's history. ``ValueError``: it
        does not read, is cut short (what came before that is stored), or goes back in time. While
        it runs, nobody else may commit (``es.Conflict``). What the export says was deleted is
        deleted here. An export with a hash chain is read once before anything is stored: where it
        was changed (``es.Conflict``) or cut short, nothing is. Where both keep a hash chain it is
        the same one, else ``es.Conflict``; of an export without one the store's chain is its own.
        progress: called with a position and the last one now and then, for each time it is read.
        Not for a provider of one's own.
        """
        if not self._is_core:
            raise TypeError(f"{type(self).__name__} is a provider of its own and cannot import")
        return import_(self, file, format, progress)

    def proto(self) -> str:
        """The .proto text of all event types that are stored; empty where none has a schema. Reads
        no event.

        What several schemas were written with is one definition with the fields of all of them, in
        the newest version= of each type. A message that was something else once, so that one
        definition cannot read both, is there twice, as ``Money`` and ``Money_2``.
        """
        from . import _store_proto

        return _store_proto.proto_of(self._types()) if self._is_core else ""

    def stats(self) -> Statistics:
        """How much of what the store holds, at one moment; reads the whole journal."""
        return stats(self) if self._is_core else stats_by_reading(self)

    def verify(self, *, progress: Callable[[int, int], object] | None = None) -> Verification:
        """Prove the whole store, as it is at one moment: its pages, gapless positions and versions,
        checksums, that every event and snapshot decodes with its recorded schema, the indexes of
        streams, tags and ids, and that no checkpoint or read model is beyond the head.

        It reads everything and blocks no writer. What is wrong is in the answer's ``problems``, not
        raised; the answer is true, as its ``ok`` is, where nothing is wrong. progress: called with
        a position and the head now and then; what it raises ends it. Of a provider of one's own,
        what can be read through it is proved.
        """
        if self._is_core:
            return verify(self, progress)
        return verify_by_reading(self, progress)

    def restart(self) -> None:
        """Begin anew without closing, after a failure that was final: when an fsync has failed, all
        commits are refused until this has succeeded.

        What was acknowledged is there; a commit that failed is not, but for one whose file was away
        when it was made sure of: ``head`` and ``version`` tell, and an entity that was loaded in
        between may raise ``es.WrongVersion`` once. Iterations, feeds and read models go on. Without
        a failure it changes nothing. ``es.StorageError``: the disk still fails (call it again), or
        the file, its WAL or its lock is not the one that was opened, or nothing but closing and
        opening will do, which the error says.
        """
        if not self._is_core:
            raise TypeError(f"{type(self).__name__} is a provider of its own without restart()")
        self._restart()

    def close(self) -> None:
        """Finish the commits that were submitted, and let go of the file. Twice is once."""
        _subscription_group.before_close(self)
        super().close()

    def chain_hash(self, position: int | None = None) -> str | None:
        """The link of the event at that position in the hash chain, of the last one by default, as
        64 hexadecimal digits; zeros before the first event. None where the store keeps no chain, or
        has no such position.

        Noted elsewhere, it tells later whether the history up to there is the same: who can write
        the file can make all links anew. A store of an export has the same links.
        """
        if not self._is_core:
            return None
        if position is not None:
            _check_position("position", position)
        at = self.head if position is None else min(position, POSITION_MAX)
        found = self._chain_hash(at)
        return None if found is None else found.hex()

    # ---- snapshots

    def save_snapshot(self, stream: str, version: int, type: str, data: bytes) -> None:
        """Save a state of the stream at that version; one of the same version is replaced.

        ValueError where the stream has no such version.
        """
        self._save_snapshot(stream, version, type, bytes(data))

    def snapshot(self, stream: str, *, upto: int | None = None) -> Snapshot | None:
        """The newest snapshot, of version ``upto`` at most, that verifies; bad ones are passed over
        and said in the log."""
        found = self._snapshot(stream, upto)
        return None if found is None else Snapshot(stream, *found)

    def delete_snapshots(self, stream: str, *, upto: int | None = None) -> None:
        """Delete the snapshots of a stream, those of version ``upto`` at most."""
        self._delete_snapshots(stream, upto)

    @property
    def _is_core(self) -> bool:
        """Whether its events are those of its file."""
        return self._opened and type(self).events is Store.events

    @property
    def _writes_itself(self) -> bool:
        """Whether what is stored goes through methods of one's own."""
        own = type(self)
        return own.commit is not Store.commit or own.save_snapshot is not Store.save_snapshot

    def __enter__(self) -> Store:
        if self.closed:
            raise Closed(f"{self.path} is closed")
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if not self._opened:
            return f"<{type(self).__qualname__}>"
        if self.closed or self._forked:
            return f"<escqrs.Store {self.path!r}, {'forked' if self._forked else 'closed'}>"
        mode = ", read-only" if self.readonly else ""
        return f"<escqrs.Store {self.path!r}{mode}; head {self.head}>"


# ---- for es.open and for C -----------------------------------------------------------------------


def check_numbers(**numbers: Any) -> None:
    """Each is an int from 1 on that C can hold, or TypeError and ValueError."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{name} is an int, not {type(number).__name__}")
        if not 1 <= number <= sys.maxsize:
            raise ValueError(f"{name} is at least 1 and at most {sys.maxsize}, not {number}")


def check_options(
    path: Any, durability: Any, readonly: Any, max_message_bytes: Any, chain: Any = False
) -> tuple[str, str, bool, int, bool]:
    """What a store is opened with, or TypeError and ValueError."""
    if durability not in ("full", "normal"):
        raise ValueError(f'durability is "full" or "normal", not {durability!r}')
    check_numbers(max_message_bytes=max_message_bytes)
    if not isinstance(readonly, bool):
        raise TypeError(f"readonly is a bool, not {type(readonly).__name__}")
    if not isinstance(chain, bool):
        raise TypeError(f"chain is a bool, not {type(chain).__name__}")
    where = cast("Any", os.fspath(path)) if hasattr(path, "__fspath__") else path
    if not isinstance(where, str):
        raise TypeError(f"path is a str or a Path, not {type(path).__name__}")
    if not where or "\0" in where:
        raise ValueError(f"path is not empty and holds no NUL: {where!r}")
    if any("\ud800" <= character <= "\udfff" for character in where):
        raise ValueError(f"path is valid Unicode, without lone surrogates: {where!a}")
    return where, durability, readonly, max_message_bytes, chain


def open_store(
    simulation: _core.ActorSystemBase | None, options: tuple[str, str, bool, int, bool]
) -> Store:
    """A store, by what :func:`check_options` gave; run by a seeded actor system where one is
    given."""
    made = Store.__new__(Store)
    made._open(*options, None, simulation)
    _unclosed.add(made)
    return made


def refuse_simulated(store: _core.StoreBase, what: str) -> None:
    """TypeError where a seeded system runs the store."""
    if store._simulation is not None:
        raise TypeError(
            f"{what} has a thread of its own, and a seeded system has none; es.open has"
        )


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def claim(store: _core.StoreBase, given: type[Event]) -> None:
    """The class stands for its stored name from now on.

    NameClash where another does, SchemaMismatch where it would misread what is stored.
    """
    claim_all(store, [given])


def claim_all(
    store: _core.StoreBase,
    events: Iterable[type[Event]],
    seen: Iterable[type] = (),
    given: Iterable[_upcast.Upcaster] = (),
) -> None:
    """The same for several at once. seen: other classes beside which upcasters may be defined.
    given: upcasters."""
    claimed: dict[str, type[Event]] = {}
    for cls in map(_core.newest, events):
        name = cls.__escqrs_name__
        before = store._classes.get(name) or claimed.get(name)
        if before is not None and before is not cls and _full_name(before) != _full_name(cls):
            raise NameClash(
                f"two events are named {name!r}: {_full_name(before)} and {_full_name(cls)}; "
                f'give one of them another name: class {cls.__name__}(..., name="...")'
            )
        claimed[name] = cls
    if store._opened:
        _upcast.learn(store, claimed.values(), seen, given)
    store._classes.update(claimed)


def _abandoned(store: Store) -> None:
    """A store was dropped without close: say so; C then lets go of its file."""
    warnings.warn(f"unclosed {store!r}", ResourceWarning, source=store, stacklevel=2)


def _close_all() -> None:
    """Before the interpreter goes, and after the systems: no thread of the core may be left."""
    for store in list(_unclosed):
        if not store.closed and not store._forked:
            store.close()


atexit.register(_close_all)

_core._bind_log(_log.text)
_core._bind_store(claim=claim, abandoned=_abandoned)
