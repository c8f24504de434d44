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

from . import testing as testing
from ._actor import (
    Actor,
    ActorDeadLetter,
    ActorFailed,
    ActorSystem,
    EventStream,
    EventSubscription,
    MailboxStatistics,
    Stream,
    Topic,
)
from ._aggregate import Aggregate, applies, handles
from ._annotation import int32, int64, naive_datetime, sint32, sint64, uint32, uint64
from ._comparison import Difference
from ._core import (
    ActorReply,
    ActorTimer,
    Context,
    Handle,
    NewEvent,
    Recorded,
    Ref,
    Reply,
    Rows,
    from_bytes,
    new_id,
    proto,
    to_bytes,
)
from ._dead_letter import ParkedEvent, Retry
from ._feed import Feed
from ._field import field
from ._foreign import ForeignReadModel
from ._inspect import Problem, Statistics, Verification
from ._json import from_json, to_json
from ._lock import check_schema_lock, write_schema_lock
from ._match import Match
from ._message import Command, Event, Message
from ._persist import (
    OfferSnapshot,
    PersistentActor,
    Replay,
    ReplayComplete,
    RequestSnapshot,
    persistence,
)
from ._process import Process, on, rejected, timer
from ._processes import ManualClock, Processes, ProcessInstance, ProcessStatus
from ._projection import sql
from ._props import (
    AllForOne,
    Backoff,
    Directive,
    Envelope,
    Mailbox,
    MessageTimes,
    OneForOne,
    Props,
    ReceiveTimeout,
    Restarting,
    Started,
    Stopped,
    Stopping,
    Terminated,
    bounded,
    escalate,
    log_messages,
    priority,
    restart,
    resume,
    stop,
    unbounded,
)
from ._protocol import Provider
from ._query import query
from ._readmodel import ReadModel
from ._readmodel_status import ReadModelStatus
from ._restore import restore
from ._router import (
    Router,
    broadcast,
    consistent_hash,
    random,
    round_robin,
    smallest_mailbox,
)
from ._store import Commit, Snapshot, Store, Unless, Write
from ._subscription import Subscription
from ._subscriptions import SubscriptionDeadLetter, SubscriptionGap, SubscriptionStatus
from ._system import DeadLetter, System, open
from ._upcast import SchemaChange, upcast
from ._watch import Watch
from .errors import (
    Aborted,
    CheckpointBehind,
    Closed,
    ConditionFailed,
    Conflict,
    Corrupt,
    Deadlock,
    Deleted,
    Error,
    Forked,
    Full,
    KeyReused,
    Locked,
    MailboxFull,
    NameClash,
    NameExists,
    NotAStore,
    NotCovered,
    ProcessStopped,
    ReadModelStopped,
    ReadOnly,
    Rejected,
    SchemaMismatch,
    StorageError,
    Timeout,
    TooLarge,
    Unanswered,
    UnknownType,
    WrongVersion,
)

__all__ = [
    "Aborted",
    "Actor",
    "ActorDeadLetter",
    "ActorFailed",
    "ActorReply",
    "ActorSystem",
    "ActorTimer",
    "Aggregate",
    "AllForOne",
    "Backoff",
    "CheckpointBehind",
    "Closed",
    "Command",
    "Commit",
    "ConditionFailed",
    "Conflict",
    "Context",
    "Corrupt",
    "DeadLetter",
    "Deadlock",
    "Deleted",
    "Difference",
    "Directive",
    "Envelope",
    "Error",
    "Event",
    "EventStream",
    "EventSubscription",
    "Feed",
    "ForeignReadModel",
    "Forked",
    "Full",
    "Handle",
    "KeyReused",
    "Locked",
    "Mailbox",
    "MailboxFull",
    "MailboxStatistics",
    "ManualClock",
    "Match",
    "Message",
    "MessageTimes",
    "NameClash",
    "NameExists",
    "NewEvent",
    "NotAStore",
    "NotCovered",
    "OfferSnapshot",
    "OneForOne",
    "ParkedEvent",
    "PersistentActor",
    "Problem",
    "Process",
    "ProcessInstance",
    "ProcessStatus",
    "ProcessStopped",
    "Processes",
    "Props",
    "Provider",
    "ReadModel",
    "ReadModelStatus",
    "ReadModelStopped",
    "ReadOnly",
    "ReceiveTimeout",
    "Recorded",
    "Ref",
    "Rejected",
    "Replay",
    "ReplayComplete",
    "Reply",
    "RequestSnapshot",
    "Restarting",
    "Retry",
    "Router",
    "Rows",
    "SchemaChange",
    "SchemaMismatch",
    "Snapshot",
    "Started",
    "Statistics",
    "Stopped",
    "Stopping",
    "StorageError",
    "Store",
    "Stream",
    "Subscription",
    "SubscriptionDeadLetter",
    "SubscriptionGap",
    "SubscriptionStatus",
    "System",
    "Terminated",
    "Timeout",
    "TooLarge",
    "Topic",
    "Unanswered",
    "UnknownType",
    "Unless",
    "Verification",
    "Watch",
    "Write",
    "WrongVersion",
    "applies",
    "bounded",
    "broadcast",
    "check_schema_lock",
    "consistent_hash",
    "escalate",
    "field",
    "from_bytes",
    "from_json",
    "handles",
    "int32",
    "int64",
    "log_messages",
    "naive_datetime",
    "new_id",
    "on",
    "open",
    "persistence",
    "priority",
    "proto",
    "query",
    "random",
    "rejected",
    "restart",
    "restore",
    "resume",
    "round_robin",
    "sint32",
    "sint64",
    "smallest_mailbox",
    "sql",
    "stop",
    "timer",
    "to_bytes",
    "to_json",
    "uint32",
    "uint64",
    "unbounded",
    "upcast",
    "write_schema_lock",
]
