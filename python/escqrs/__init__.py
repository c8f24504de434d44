"""Event sourcing and CQRS in one process and one file.

Commands, events, aggregates and read models are ordinary classes; a C core runs them in its own
threads and keeps them in one SQLite file::

    import escqrs as es

    class ItemAdded(es.Event):
        name: str
        quantity: int = 1

Every public name is here; modules whose names begin with ``_`` are private.
"""

from __future__ import annotations

from ._aggregate import Aggregate, applies, handles
from ._core import Handle, Recorded, Reply, Rows, from_bytes, new_id, proto, to_bytes
from ._match import Match
from ._message import Command, Event, Message, field
from ._readmodel import ReadModel, ReadModelStatus, on, query, sql
from ._system import DeadLetter, System, open
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
    "Aggregate",
    "CheckpointBehind",
    "Closed",
    "Command",
    "ConditionFailed",
    "Conflict",
    "Corrupt",
    "DeadLetter",
    "Deadlock",
    "Error",
    "Event",
    "Forked",
    "Full",
    "Handle",
    "KeyReused",
    "Locked",
    "MailboxFull",
    "Match",
    "Message",
    "NameClash",
    "NameExists",
    "NotAStore",
    "ReadModel",
    "ReadModelStatus",
    "ReadModelStopped",
    "ReadOnly",
    "Recorded",
    "Rejected",
    "Reply",
    "Rows",
    "SchemaMismatch",
    "StorageError",
    "System",
    "Timeout",
    "TooLarge",
    "UnknownType",
    "WrongVersion",
    "applies",
    "field",
    "from_bytes",
    "handles",
    "new_id",
    "on",
    "open",
    "proto",
    "query",
    "sql",
    "to_bytes",
]
