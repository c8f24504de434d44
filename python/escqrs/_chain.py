"""The hash chain of an export, made anew from what the export says.

What a link is made of stands in docs/format.md; csrc/store/chain.c makes those of a store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Chain"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Event(Protocol):
    """What an export says of an event."""

    @property
    def position(self) -> int: ...
    @property
    def stream(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def schema(self) -> int: ...
    @property
    def time(self) -> datetime: ...
    @property
    def id(self) -> str: ...
    @property
    def correlation_id(self) -> str: ...
    @property
    def causation_id(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def tags(self) -> Sequence[str]: ...
    @property
    def data(self) -> bytes: ...


def _number(number: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)


def _text(text: str | bytes) -> bytes:
    plain = text.encode() if isinstance(text, str) else text
    return _number(len(plain)) + plain


class Chain:
    """Where the chain stands: ``link`` is that of the event at ``position``."""

    def __init__(self, link: bytes, position: int) -> None:
        self.link = link
        self.position = position
        self._records: dict[int, bytes] = {}
        self._types: dict[tuple[str, bytes], bytes] = {}

    def learn(self, schema: int, record: bytes) -> None:
        """The schema of that number."""
        self._records[schema] = record

    def _type(self, type: str, schema: int) -> bytes:
        key = (type, self._records.get(schema, b""))
        found = self._types.get(key)
        if found is None:
            found = hashlib.sha256(_text(key[0]) + _text(key[1])).digest()
            self._types[key] = found
        return found

    def add(self, event: _Event) -> None:
        """The next event."""
        pairs = sorted((key.encode(), value.encode()) for key, value in event.metadata.items())
        parts = [
            self.link,
            _number(event.position),
            _number(event.version),
            _number((event.time - _EPOCH) // _MICROSECOND),
            _text(event.stream),
            self._type(event.type, event.schema),
            _text(event.id),
            _text(event.correlation_id),
            _text(event.causation_id),
            _number(len(pairs)),
        ]
        parts += [_text(text) for pair in pairs for text in pair]
        parts.append(_number(len(event.tags)))
        parts += [_text(tag) for tag in event.tags]
        parts.append(_text(event.data))
        self.link = hashlib.sha256(b"".join(parts)).digest()
        self.position = event.position

    def pass_over(self, count: int, link: bytes) -> None:
        """Deleted events, the last of which has that link."""
        self.position += count
        self.link = link
