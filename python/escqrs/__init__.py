"""Event sourcing and CQRS in one process and one file.

Commands, events, aggregates and read models are ordinary classes; a C core runs them in its own threads and keeps
them in one SQLite file::

    import escqrs as es

    class ItemAdded(es.Event):
        name: str
        quantity: int = 1

Every public name is here; modules whose names begin with ``_`` are private.
"""

from __future__ import annotations

from ._core import from_bytes, new_id, proto, to_bytes
from ._message import Command, Event, Message, field
from .errors import (
    Aborted,
    CheckpointBehind,
    Closed,
    ConditionFailed,
    Conflict,
    Corrupt,
    Deadlock,
    Error,
    Forked,
    Full,
    KeyReused,
    Locked,
    MailboxFull,
    NameClash,
    NameExists,
    NotAStore,
    ReadModelStopped,
    ReadOnly,
    Rejected,
    SchemaMismatch,
    StorageError,
    Timeout,
    TooLarge,
    UnknownType,
    WrongVersion,
)

__all__ = [
    "Aborted",
    "CheckpointBehind",
    "Closed",
    "Command",
    "ConditionFailed",
    "Conflict",
    "Corrupt",
    "Deadlock",
    "Error",
    "Event",
    "Forked",
    "Full",
    "KeyReused",
    "Locked",
    "MailboxFull",
    "Message",
    "NameClash",
    "NameExists",
    "NotAStore",
    "ReadModelStopped",
    "ReadOnly",
    "Rejected",
    "SchemaMismatch",
    "StorageError",
    "Timeout",
    "TooLarge",
    "UnknownType",
    "WrongVersion",
    "field",
    "from_bytes",
    "new_id",
    "proto",
    "to_bytes",
]
