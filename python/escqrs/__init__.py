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

from . import _protobuf
from ._aggregate import Aggregate, applies, handles
from ._core import Handle, NewEvent, Recorded, Reply, Rows, from_bytes, new_id, proto, to_bytes
from ._inspect import Problem, Statistics, Verification
from ._json import from_json, to_json
from ._match import Match
from ._message import (
    Command,
    Event,
    Message,
    field,
    int32,
    int64,
    naive_datetime,
    sint32,
    sint64,
    uint32,
    uint64,
)
from ._process import Process, on, rejected, timer
from ._processes import ManualClock, Processes, ProcessInstance, ProcessStatus
from ._readmodel import ParkedEvent, ReadModel, ReadModelStatus, Retry, Watch, query, sql
from ._restore import restore
from ._store import Commit, Feed, Snapshot, Store, Unless, Write
from ._subscription import Subscription, SubscriptionDeadLetter, SubscriptionStatus
from ._system import DeadLetter, System, open
from ._upcast import SchemaChange, upcast
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
    ProcessStopped,
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
    "Commit",
    "ConditionFailed",
    "Conflict",
    "Corrupt",
    "DeadLetter",
    "Deadlock",
    "Error",
    "Event",
    "Feed",
    "Forked",
    "Full",
    "Handle",
    "KeyReused",
    "Locked",
    "MailboxFull",
    "ManualClock",
    "Match",
    "Message",
    "NameClash",
    "NameExists",
    "NewEvent",
    "NotAStore",
    "ParkedEvent",
    "Problem",
    "Process",
    "ProcessInstance",
    "ProcessStatus",
    "ProcessStopped",
    "Processes",
    "ReadModel",
    "ReadModelStatus",
    "ReadModelStopped",
    "ReadOnly",
    "Recorded",
    "Rejected",
    "Reply",
    "Retry",
    "Rows",
    "SchemaChange",
    "SchemaMismatch",
    "Snapshot",
    "Statistics",
    "StorageError",
    "Store",
    "Subscription",
    "SubscriptionDeadLetter",
    "SubscriptionStatus",
    "System",
    "Timeout",
    "TooLarge",
    "UnknownType",
    "Unless",
    "Verification",
    "Watch",
    "Write",
    "WrongVersion",
    "applies",
    "field",
    "from_bytes",
    "from_json",
    "handles",
    "int32",
    "int64",
    "naive_datetime",
    "new_id",
    "on",
    "open",
    "proto",
    "query",
    "rejected",
    "restore",
    "sint32",
    "sint64",
    "sql",
    "timer",
    "to_bytes",
    "to_json",
    "uint32",
    "uint64",
    "upcast",
]
