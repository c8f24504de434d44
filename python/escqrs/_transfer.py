"""``Store.export`` and ``Store.import_``: the events of a store as JSON lines or protobuf.

docs/format.md describes what is written: a first line, the schemas and events in their order, and a
last line, without which what is read was cut short.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from . import _upcast
from ._core import NewEvent, Recorded, from_bytes, to_bytes
from ._message import Event, Message, field
from .errors import ConditionFailed, Conflict

if TYPE_CHECKING:
    from ._store import Store

__all__ = ["export", "import_"]

VERSION = 1
_BATCH_EVENTS = 1000
_BATCH_BYTES = 4 << 20
_PROGRESS_EVENTS = 8192
_VARINT_BYTES = 10
_LINE_BYTES = 16 << 20  # of protobuf
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


class _Line(Message, name="escqrs.v1.ExportLine"):
    """One of these is there; ``export`` in the first line, ``end`` in the last one."""

    export: int | None = field(1, default=None)
    after: int | None = field(2, default=None)
    upto: int | None = field(3, default=None)
    schema: _Schema | None = field(4, default=None)
    event: _Event | None = field(5, default=None)
    end: int | None = field(6, default=None)
    chain: bytes | None = field(7, default=None)  # in both, where the store keeps a hash chain


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
    elif line.end is not None:
        plain = {"end": line.end}
    else:
        plain = {"export": line.export, "after": line.after, "upto": line.upto}
    if line.chain is not None:
        plain["chain"] = _base64(line.chain)
    return _encode(plain).encode() + b"\n"


def _of_json(found: Any) -> _Line:
    schema, event = found.pop("schema", None), found.pop("event", None)
    if schema is not None:
        schema["record"] = base64.b64decode(schema["record"], validate=True)
        schema = _Schema(**schema)
    if event is not None:
        event["data"] = base64.b64decode(event["data"], validate=True)
        event["time"] = datetime.fromisoformat(event["time"])
        event = _Event(**event)
    if found.get("chain") is not None:
        found["chain"] = base64.b64decode(found["chain"], validate=True)
    return _Line(schema=schema, event=event, **found)


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


def _read_protobuf(source: IO[bytes]) -> Iterator[_Line]:
    while (size := _read_size(source)) is not None:
        data = source.read(size)
        if len(data) != size:
            raise ValueError("it ends in the middle of a message")
        yield from_bytes(_Line, data)


def _read_json(source: IO[bytes]) -> Iterator[_Line]:
    for number, text in enumerate(source, 1):
        try:
            yield _of_json(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"line {number} does not read: {error}") from error


_WRITERS: dict[str, Callable[[_Line], bytes]] = {"jsonl": _to_json, "protobuf": _to_protobuf}
_READERS: dict[str, Callable[[IO[bytes]], Iterator[_Line]]] = {
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
    schemas: dict[tuple[str, bytes], int] = {}
    count = 0
    with _opened(file, "xb") as target:
        begin = _link(store, min(after, last))
        target.write(write(_Line(export=VERSION, after=after, upto=last, chain=begin)))
        for recorded in _stored(store, after, last):
            key = (recorded.type, recorded._schema)
            if key[1] and key not in schemas:
                schemas[key] = len(schemas) + 1
                target.write(write(_Line(schema=_Schema(schemas[key], *key))))
            target.write(write(_Line(event=_event(recorded, schemas.get(key, 0)))))
            count += 1
            if progress is not None and count % _PROGRESS_EVENTS == 0:
                progress(recorded.position, last)
        target.write(write(_Line(end=last, chain=_link(store, last))))
    if progress is not None:
        progress(last, last)
    return count


def _stored(store: Store, after: int, upto: int) -> Iterable[Recorded]:
    """Events as they are stored, not as classes read them today."""
    if after >= upto:
        return ()
    if store._is_core:
        return store._events(after=after, upto=upto, raw=True)
    return store.events(after=after, upto=upto)


def _link(store: Store, position: int) -> bytes | None:
    found = store.chain_hash(position)
    return None if found is None else bytes.fromhex(found)


def has_chain(path: str | os.PathLike[str], format: str) -> bool:
    """Whether its store keeps a hash chain; False where it does not read."""
    with _opened(path, "rb") as source, contextlib.suppress(ValueError):
        first = next(_READERS[format](source), None)
        return first is not None and first.chain is not None
    return False


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


@dataclasses.dataclass
class _Import:
    """What was read and is not stored yet."""

    store: Store
    head: int
    stored: int = 0
    size: int = 0
    events: list[_Event] = dataclasses.field(default_factory=list[_Event])
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

    def flush(self) -> None:
        if not self.events:
            return
        writes: list[tuple[str, tuple[NewEvent | Event, ...], int | None]] = []
        for stream, run in itertools.groupby(self.events, key=lambda event: event.stream):
            several = list(run)
            given = tuple(_new_event(event) for event in several)
            writes.append((stream, given, several[0].version - 1))
        moved = tuple((_microseconds(event.time), self._record(event)) for event in self.events)
        everything: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        try:
            self.store._commit(writes, (everything, self.head), None, None, moved)
        except ConditionFailed:
            raise Conflict("another has written to the store during the import") from None
        self.head += len(self.events)
        self.stored += len(self.events)
        self.size = 0
        self.events.clear()

    def _record(self, event: _Event) -> bytes:
        if event.schema == 0:
            return b""
        type, record = self.schemas.get(event.schema, ("", b""))
        if type != event.type:
            raise ValueError(f"the event at position {event.position} names another's schema")
        return record


def _new_event(event: _Event) -> NewEvent:
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


def import_(store: Store, file: Any, format: str, progress: Progress | None) -> int:
    _check_format(format)
    head = store.head
    running = _Import(store, head)
    with _opened(file, "rb") as source:
        lines = _READERS[format](source)
        first = next(lines, None)
        if first is None or first.export is None or first.after is None or first.upto is None:
            raise ValueError("this is no export of a store")
        if first.export != VERSION:
            raise ValueError(f"this export has format {first.export}; known is {VERSION}")
        if first.after > head:
            raise Conflict(f"it begins after position {first.after}, and the store ends at {head}")
        _compare_link(store, first.after, first.chain)
        known = iter(_stored(store, first.after, head))
        if not _take_all(running, lines, known, first.upto, head, progress):
            running.flush()
            raise ValueError(
                f"it is cut short: it ends after position {running.head} of {first.upto}"
            )
    return running.stored


def _take_all(
    running: _Import,
    lines: Iterable[_Line],
    known: Iterator[Recorded],
    upto: int,
    head: int,
    progress: Progress | None,
) -> bool:
    """Whether the last line came."""
    for line in lines:
        if line.event is not None:
            event = line.event
            if event.position > head:
                running.take(event)
            elif not _same(event, next(known, None)):
                raise Conflict(f"the store has another event at position {event.position}")
            if progress is not None and event.position % _PROGRESS_EVENTS == 0:
                progress(event.position, upto)
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
