"""``Store.export`` and ``Store.import_``: the events of a store as JSON lines or protobuf.

docs/format.md describes what is written: a first line, the schemas and events in their order, and a
last line, without which what is read was cut short.

Deleted events. The export says of each run of deleted positions for which versions of which stream
it stands. The store does not know that any more, but it knows how many events of each stream are
gone, and that they stood before those that are left: so each run is given to the stream whose first
event that is left comes next. The import stores an event without content for each, and deletes them
with the batch that they came in.

The links of deleted events stay in a hash chain, and are exported with the run: a store that keeps
a chain takes them as they are, as it cannot make them, so that its chain is the same.

An export with a hash chain is read twice: only what comes behind its events, in a gap or the last
line, says where the chain has to lead, and of one that was changed nothing is to be stored. What
cannot be read twice, such as a pipe, is kept in a temporary file meanwhile.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import heapq
import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from . import _upcast
from ._chain import Chain
from ._core import NewEvent, Recorded, from_bytes, to_bytes
from ._field import field
from ._message import Event, Message
from .errors import ConditionFailed, Conflict, Corrupt

if TYPE_CHECKING:
    from ._store import Store

__all__ = ["Export", "export", "import_", "opened_export"]

VERSION = 1
VERSION_GAPS = 2  # of an export of a store whose events were deleted
GONE = "escqrs.Deleted"  # the type of an event that stands for a deleted one until it is deleted
_BATCH_EVENTS = 1000
_BATCH_BYTES = 4 << 20
_PROGRESS_EVENTS = 8192
_VARINT_BYTES = 10
_LINE_BYTES = 16 << 20  # of protobuf
_LINK_BYTES = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Progress = Callable[[int, int], object]


# ---- lines ---------------------------------------------------------------------------------------


class _Schema(Message, name="escqrs.v1.ExportSchema"):
    number: int = field(1)
    type: str = field(2)
    record: bytes = field(3)


class _Event(Message, name="escqrs.v1.ExportEvent"):
    position: int = field(1)
    stream: str = field(2)
    version: int = field(3)
    type: str = field(4)
    schema: int = field(5)
    time: datetime = field(6)
    id: str = field(7)
    correlation_id: str = field(8)
    causation_id: str = field(9)
    metadata: dict[str, str] = field(10)
    tags: list[str] = field(11)
    data: bytes = field(12)


class _Gap(Message, name="escqrs.v1.ExportGap"):
    """Deleted events: ``count`` positions, and as many versions of the stream."""

    position: int = field(1)
    count: int = field(2)
    stream: str = field(3)
    version: int = field(4)
    time: datetime = field(5)
    chain: bytes = field(6, default=b"")  # the links of these positions, one after the other


class _Line(Message, name="escqrs.v1.ExportLine"):
    """One of these is there; ``export`` in the first line, ``end`` in the last one."""

    export: int | None = field(1, default=None)
    after: int | None = field(2, default=None)
    upto: int | None = field(3, default=None)
    schema: _Schema | None = field(4, default=None)
    event: _Event | None = field(5, default=None)
    end: int | None = field(6, default=None)
    # in both, and before a gap, where the store keeps a hash chain
    chain: bytes | None = field(7, default=None)
    gap: _Gap | None = field(8, default=None)
    closed: str | None = field(9, default=None)  # a stream that was deleted


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _to_json(line: _Line) -> bytes:
    plain: dict[str, Any]
    if (event := line.event) is not None:
        plain = {
            "event": {
                "position": event.position,
                "stream": event.stream,
                "version": event.version,
                "type": event.type,
                "schema": event.schema,
                "time": event.time.isoformat(timespec="microseconds"),
                "id": event.id,
                "correlation_id": event.correlation_id,
                "causation_id": event.causation_id,
                "metadata": dict(event.metadata),
                "tags": list(event.tags),
                "data": _base64(event.data),
            }
        }
    elif (schema := line.schema) is not None:
        record = _base64(schema.record)
        plain = {"schema": {"number": schema.number, "type": schema.type, "record": record}}
    elif (gap := line.gap) is not None:
        plain = {
            "gap": {
                "position": gap.position,
                "count": gap.count,
                "stream": gap.stream,
                "version": gap.version,
                "time": gap.time.isoformat(timespec="microseconds"),
            }
        }
        if gap.chain:
            plain["gap"]["chain"] = _base64(gap.chain)
    elif line.closed is not None:
        plain = {"closed": line.closed}
    elif line.end is not None:
        plain = {"end": line.end}
    else:
        plain = {"export": line.export, "after": line.after, "upto": line.upto}
    if line.chain is not None:
        plain["chain"] = _base64(line.chain)
    return _encode(plain).encode() + b"\n"


def _of_json(found: Any) -> _Line:
    schema, event = found.pop("schema", None), found.pop("event", None)
    gap = found.pop("gap", None)
    if schema is not None:
        schema["record"] = base64.b64decode(schema["record"], validate=True)
        schema = _Schema(**schema)
    if event is not None:
        event["data"] = base64.b64decode(event["data"], validate=True)
        event["time"] = datetime.fromisoformat(event["time"])
        event = _Event(**event)
    if gap is not None:
        gap["time"] = datetime.fromisoformat(gap["time"])
        gap["chain"] = base64.b64decode(gap.get("chain", ""), validate=True)
        gap = _Gap(**gap)
    if found.get("chain") is not None:
        found["chain"] = base64.b64decode(found["chain"], validate=True)
    return _Line(schema=schema, event=event, gap=gap, **found)


def _to_protobuf(line: _Line) -> bytes:
    data = to_bytes(line)
    size, prefix = len(data), bytearray()
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + data


def _read_size(source: IO[bytes]) -> int | None:
    """The length of the next message; None at the end."""
    size = 0
    for index in range(_VARINT_BYTES):
        byte = source.read(1)
        if not byte:
            if index == 0:
                return None
            break
        size |= (byte[0] & 0x7F) << 7 * index
        if byte[0] < 0x80:
            if size > _LINE_BYTES:
                break
            return size
    raise ValueError("the length of a message does not read")


def _read_protobuf(source: IO[bytes], first: int = 1) -> Iterator[_Line]:
    while (size := _read_size(source)) is not None:
        data = source.read(size)
        if len(data) != size:
            raise ValueError("it ends in the middle of a message")
        yield from_bytes(_Line, data)


def _read_json(source: IO[bytes], first: int = 1) -> Iterator[_Line]:
    for number, text in enumerate(source, first):
        try:
            yield _of_json(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"line {number} does not read: {error}") from error


_WRITERS: dict[str, Callable[[_Line], bytes]] = {"jsonl": _to_json, "protobuf": _to_protobuf}
_READERS: dict[str, Callable[[IO[bytes], int], Iterator[_Line]]] = {
    "jsonl": _read_json,
    "protobuf": _read_protobuf,
}


def _check_format(format: str) -> None:
    if format not in _WRITERS:
        raise ValueError(f'format is "jsonl" or "protobuf", not {format!r}')


@contextlib.contextmanager
def _opened(
    file: str | os.PathLike[str] | IO[bytes], mode: str
) -> Generator[IO[bytes], None, None]:
    """The file of that path, or the file itself. One that was not written to its end goes."""
    if not isinstance(file, str | os.PathLike):
        yield file
        return
    path = Path(file)
    with path.open(mode) as made:
        try:
            yield cast("IO[bytes]", made)
        except BaseException:
            if "x" in mode:
                path.unlink()
            raise


# ---- export --------------------------------------------------------------------------------------


def export(
    store: Store, file: Any, format: str, after: int, upto: int | None, progress: Progress | None
) -> int:
    _check_format(format)
    write, last = _WRITERS[format], min(store.head if upto is None else upto, store.head)
    gone = _Gone(store) if after == 0 and store._is_core and store._deletions() > 0 else None
    schemas: dict[tuple[str, bytes], int] = {}
    count, position = 0, after
    with _opened(file, "xb") as target:

        def put(line: _Line) -> None:
            target.write(write(line))

        version = VERSION if gone is None else VERSION_GAPS
        begin = _link(store, min(after, last))
        put(_Line(export=version, after=after, upto=last, chain=begin))
        for recorded in _stored(store, after, last, skip=gone is not None):
            if gone is not None:
                gone.pass_over(put, position + 1, recorded.position - 1, recorded.time)
            position = recorded.position
            key = (recorded.type, recorded._schema)
            if key[1] and key not in schemas:
                schemas[key] = len(schemas) + 1
                put(_Line(schema=_Schema(schemas[key], *key)))
            put(_Line(event=_event(recorded, schemas.get(key, 0))))
            count += 1
            if progress is not None and count % _PROGRESS_EVENTS == 0:
                progress(recorded.position, last)
        if gone is not None:
            gone.end(put, position + 1, last, schemas=bool(count))
        put(_Line(end=last, chain=_link(store, last)))
    if progress is not None:
        progress(last, last)
    return count


class _Gone:
    """What was deleted, to be given out run by run: see above."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.chained = _link(store, 0) is not None
        self.deletions = store._deletions()
        self.time = _EPOCH
        # (first position that is left, stream, next version, last version), the nearest first
        self.left: list[tuple[float, str, int, int]] = []
        self.closed: list[str] = []
        for stream, _version, upto, closed in store._all_streams():
            if upto > 0:
                first = next(iter(store._history(stream, after=upto, limit=1, raw=True)), None)
                self.left.append((math.inf if first is None else first.position, stream, 1, upto))
            if closed:
                self.closed.append(stream)
        heapq.heapify(self.left)

    def pass_over(
        self, put: Callable[[_Line], None], position: int, upto: int, time: datetime
    ) -> None:
        """The events at these positions are missing; what comes next is of that time."""
        self.time = time
        while position <= upto:
            if not self.left:
                raise self._changed()
            deadline, stream, version, last = self.left[0]
            count = min(last - version + 1, upto - position + 1)
            if deadline < position:
                raise self._changed()
            chain, before = b"", None
            if self.chained:
                before = self._link(position - 1)
                count = min(count, _BATCH_EVENTS)
                chain = b"".join(self._link(position + index) for index in range(count))
            gap = _Gap(position, count, stream, version, time, chain)
            put(_Line(gap=gap, chain=before))
            position += count
            if version + count > last:
                heapq.heappop(self.left)
            else:
                heapq.heapreplace(self.left, (deadline, stream, version + count, last))

    def _link(self, position: int) -> bytes:
        found = _link(self.store, position)
        if found is None:
            raise Corrupt(f"the hash chain has no link at position {position}", position=position)
        return found

    def end(self, put: Callable[[_Line], None], position: int, upto: int, *, schemas: bool) -> None:
        self.pass_over(put, position, upto, self.time if schemas else datetime.now(UTC))
        if self.deletions != self.store._deletions() or (self.left and upto == self.store.head):
            raise self._changed()
        unfinished = {stream for _deadline, stream, _version, _last in self.left}
        for stream in self.closed:
            if stream not in unfinished:
                put(_Line(closed=stream))

    @staticmethod
    def _changed() -> Conflict:
        return Conflict("events were deleted while the store was exported: export it again")


def _stored(store: Store, after: int, upto: int, *, skip: bool = False) -> Iterable[Recorded]:
    """Events as they are stored, not as classes read them today."""
    if after >= upto:
        return ()
    if store._is_core:
        deleted = "skip" if skip else "raise"
        return store._events(after=after, upto=upto, raw=True, deleted=deleted)
    return store.events(after=after, upto=upto)


def _link(store: Store, position: int) -> bytes | None:
    found = store.chain_hash(position)
    return None if found is None else bytes.fromhex(found)


def _compare_link(store: Store, position: int, expected: bytes | None) -> None:
    """Where the export and the store both have a chain, it is one."""
    found = _link(store, position)
    if expected is not None and found is not None and found != expected:
        raise Conflict(
            f"the hash chain of the export has another link at position {position} than the store: "
            "the events up to there are not the same"
        )


def _event(recorded: Recorded, schema: int) -> _Event:
    return _Event(
        position=recorded.position,
        stream=recorded.stream,
        version=recorded.version,
        type=recorded.type,
        schema=schema,
        time=recorded.time,
        id=recorded.id,
        correlation_id=recorded.correlation_id,
        causation_id=recorded.causation_id,
        metadata=dict(recorded.metadata),
        tags=list(recorded.tags),
        data=recorded.data,
    )


# ---- import --------------------------------------------------------------------------------------


class _Known:
    """The events that the store has already, by position; asked in order."""

    def __init__(self, store: Store, after: int, head: int) -> None:
        self.head = head
        self._events = iter(_stored(store, after, head, skip=True))
        self._next = next(self._events, None)

    def at(self, position: int) -> Recorded | None:
        """None where it was deleted."""
        while self._next is not None and self._next.position < position:
            self._next = next(self._events, None)
        found = self._next
        return found if found is not None and found.position == position else None


@dataclasses.dataclass
class _Import:
    """What was read and is not stored yet."""

    store: Store
    head: int
    stored: int = 0
    size: int = 0
    events: list[_Event] = dataclasses.field(default_factory=list[_Event])
    gone: dict[str, int] = dataclasses.field(default_factory=dict[str, int])  # up to that version
    links: dict[int, bytes] = dataclasses.field(default_factory=dict[int, bytes])  # of deleted ones
    schemas: dict[int, tuple[str, bytes]] = dataclasses.field(
        default_factory=dict[int, tuple[str, bytes]]
    )

    def take_schema(self, schema: _Schema) -> None:
        _upcast.check_record(self.store, schema.type, schema.record)
        self.schemas[schema.number] = (schema.type, schema.record)

    def take(self, event: _Event) -> None:
        if event.position != self.head + len(self.events) + 1:
            raise Conflict(
                f"the event at position {event.position} does not follow position "
                f"{self.head + len(self.events)}"
            )
        self.events.append(event)
        self.size += len(event.data)
        if len(self.events) >= _BATCH_EVENTS or self.size >= _BATCH_BYTES:
            self.flush()

    def take_gap(self, gap: _Gap, known: _Known) -> None:
        """Deleted events, of which the store may have some already."""
        _check_gap(gap)
        for index in range(gap.count):
            position, version = gap.position + index, gap.version + index
            if position > known.head:
                if gap.chain:
                    self.links[position] = gap.chain[index * _LINK_BYTES :][:_LINK_BYTES]
                self.take(_nothing(gap, position, version))
            elif (recorded := known.at(position)) is not None and (
                recorded.type != GONE
                or recorded.stream != gap.stream
                or recorded.version != version
            ):
                raise Conflict(
                    f"the event at position {position} was deleted where this comes from, and the "
                    "store has it"
                )
            elif recorded is not None:  # an import was cut off here
                self.gone[gap.stream] = version
        if not self.events:
            self._delete()

    def close(self, stream: str) -> None:
        self.flush()
        if not self.store.deleted(stream):
            self.store._erase([(stream, None, False)])

    def _delete(self) -> None:
        if self.gone:
            self.store._erase([(stream, upto, True) for stream, upto in self.gone.items()])
            self.gone.clear()

    def flush(self) -> None:
        if not self.events:
            return
        writes: list[tuple[str, tuple[NewEvent | Event, ...], int | None]] = []
        for stream, run in itertools.groupby(self.events, key=lambda event: event.stream):
            several = list(run)
            given = tuple(_new_event(event) for event in several)
            writes.append((stream, given, several[0].version - 1))
        moved = tuple(
            (_microseconds(event.time), self._record(event), self.links.get(event.position))
            for event in self.events
        )
        everything: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        try:
            self.store._commit(writes, (everything, self.head), None, None, moved)
        except ConditionFailed:
            raise Conflict("another has written to the store during the import") from None
        self.head += len(self.events)
        for event in self.events:
            if _stands_for_deleted(event):
                self.gone[event.stream] = event.version
            else:
                self.stored += 1
        self._delete()
        self.size = 0
        self.events.clear()
        self.links.clear()

    def _record(self, event: _Event) -> bytes:
        if event.schema == 0:
            return b""
        type, record = self.schemas.get(event.schema, ("", b""))
        if type != event.type:
            raise ValueError(f"the event at position {event.position} names another's schema")
        return record


def _check_gap(gap: _Gap, *, chained: bool = False) -> None:
    if gap.count < 1:
        raise ValueError(f"the gap at position {gap.position} has no events")
    if len(gap.chain) != gap.count * _LINK_BYTES and (chained or gap.chain):
        raise ValueError(f"the gap at position {gap.position} has not a link for each event")


def _nothing(gap: _Gap, position: int, version: int) -> _Event:
    """What stands for a deleted event until it is deleted."""
    return _Event(position, gap.stream, version, GONE, 0, gap.time, "", "", "", {}, [], b"")


def _stands_for_deleted(event: _Event) -> bool:
    return event.type == GONE and not event.id


def _new_event(event: _Event) -> NewEvent:
    if _stands_for_deleted(event):
        return NewEvent(GONE, b"")
    return NewEvent(
        event.type,
        event.data,
        id=event.id,
        tags=event.tags,
        metadata=event.metadata,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
    )


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _same(event: _Event, recorded: Recorded | None) -> bool:
    return recorded is not None and event == _event(recorded, event.schema)


@dataclasses.dataclass(frozen=True)
class Export:
    """One that is being read: its first line is known to be one."""

    first: _Line
    lines: Iterator[_Line]

    @property
    def after(self) -> int:
        """The position that it begins behind."""
        return self.first.after or 0

    @property
    def chained(self) -> bool:
        """Whether its store keeps a hash chain."""
        return self.first.chain is not None

    def import_into(self, store: Store, progress: Progress | None) -> int:
        """See ``Store.import_``; once."""
        head, upto = store.head, self.first.upto or 0
        running = _Import(store, head)
        if self.after > head:
            raise Conflict(f"it begins after position {self.after}, and the store ends at {head}")
        _compare_link(store, min(self.after, upto), self.first.chain)
        known = _Known(store, self.after, head)
        if not _take_all(running, self.lines, known, upto, progress):
            running.flush()
            raise ValueError(f"it is cut short: it ends after position {running.head} of {upto}")
        return running.stored


@contextlib.contextmanager
def opened_export(
    file: Any, format: str, progress: Progress | None
) -> Generator[Export, None, None]:
    """An export to be read; ValueError where it is none, Conflict where its hash chain says that it
    was changed. progress: of reading one with a hash chain for the first time."""
    _check_format(format)
    with _opened(file, "rb") as source:
        read = _READERS[format]
        lines = read(source, 1)
        first = next(lines, None)
        if first is None or first.export is None or first.after is None or first.upto is None:
            raise ValueError("this is no export of a store")
        if first.export not in (VERSION, VERSION_GAPS):
            raise ValueError(
                f"this export has format {first.export}; known are {VERSION} and {VERSION_GAPS}"
            )
        if first.chain is None:
            yield Export(first, lines)
            return
        with _rereadable(source, format) as rest:
            begin = rest.tell()
            _check_chain(first, read(rest, 2), progress)
            rest.seek(begin)
            yield Export(first, read(rest, 2))


@contextlib.contextmanager
def _rereadable(source: IO[bytes], format: str) -> Generator[IO[bytes], None, None]:
    """What is left of the source, where it can be read twice."""
    if getattr(source, "seekable", bool)():
        yield source
        return
    with tempfile.TemporaryFile() as kept:
        if format == "jsonl":
            kept.writelines(source)
        else:
            shutil.copyfileobj(source, kept)
        kept.seek(0)
        yield kept


def _check_chain(first: _Line, lines: Iterable[_Line], progress: Progress | None) -> None:
    """The events lead from the link in the first line to the one in the last, and to each that
    stands before deleted ones, of which the links alone are left: else Conflict."""
    upto = first.upto or 0
    chain, ended = Chain(first.chain or b"", min(first.after or 0, upto)), False
    for line in lines:
        if (schema := line.schema) is not None:
            chain.learn(schema.number, schema.record)
        elif line.event is not None:
            chain.add(line.event)
            if progress is not None and chain.position % _PROGRESS_EVENTS == 0:
                progress(chain.position, upto)
        elif (gap := line.gap) is not None:
            _check_gap(gap, chained=True)
            if gap.position != chain.position + 1 or line.chain not in (None, chain.link):
                raise _was_changed(chain)
            chain.pass_over(gap.count, gap.chain[-_LINK_BYTES:])
        elif line.end is not None:
            ended = line.end == chain.position == upto
            if ended and line.chain != chain.link:
                raise _was_changed(chain)
            break
    if not ended:
        raise ValueError(
            f"it is cut short: it ends after position {chain.position} of {upto}. Nothing was "
            "stored, as the link of its hash chain at the end is missing"
        )
    if progress is not None:
        progress(upto, upto)


def _was_changed(chain: Chain) -> Conflict:
    return Conflict(
        "the events of this export do not lead to its hash chain's link at position "
        f"{chain.position}: it was changed since it was written. Nothing was stored"
    )


def import_(store: Store, file: Any, format: str, progress: Progress | None) -> int:
    with opened_export(file, format, progress) as export:
        return export.import_into(store, progress)


def _take_all(
    running: _Import,
    lines: Iterable[_Line],
    known: _Known,
    upto: int,
    progress: Progress | None,
) -> bool:
    """Whether the last line came."""
    for line in lines:
        if line.event is not None:
            event = line.event
            if event.position > known.head:
                running.take(event)
            elif not _same(event, known.at(event.position)):
                raise Conflict(f"the store has another event at position {event.position}")
            if progress is not None and event.position % _PROGRESS_EVENTS == 0:
                progress(event.position, upto)
        elif line.gap is not None:
            running.take_gap(line.gap, known)
        elif line.closed is not None:
            running.close(line.closed)
        elif line.schema is not None:
            running.take_schema(line.schema)
        elif line.end is not None:
            running.flush()
            if progress is not None:
                progress(upto, upto)
            if running.head >= upto:
                _compare_link(running.store, upto, line.chain)
            return line.end == upto and running.head >= upto
    return False
