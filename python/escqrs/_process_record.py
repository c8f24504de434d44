"""What is stored of processes: the events of an instance, an instance as the fold of these, and a
read model of what is pending."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Literal

from . import _core
from ._core import Rows
from ._message import Event
from ._projection import sql
from ._query import query
from ._readmodel import ReadModel

if TYPE_CHECKING:
    from ._process import Definition
    from ._store import Store

# ---- events --------------------------------------------------------------------------------------


class ProcessStarted(Event, name="escqrs.ProcessStarted"):
    """cause: position of the event."""

    cause: int


class CommandRequested(Event, name="escqrs.CommandRequested"):
    """A command in the outbox; its key follows from the version of this event. The command is JSON,
    which goes by names: it may be delivered by a newer program. is_generated: its class is one
    that Google's protobuf generated."""

    aggregate: str
    id: str
    command: str
    data: str
    cause: int
    correlation_id: str
    metadata: dict[str, str]
    is_generated: bool


class CommandDelivered(Event, name="escqrs.CommandDelivered"):
    """request: version of its CommandRequested."""

    request: int


class CommandRejected(Event, name="escqrs.CommandRejected"):
    """The instance has heard of it, or was told to go on without."""

    request: int
    error: str


class TimerSet(Event, name="escqrs.TimerSet"):
    """command: empty where a method is run."""

    timer: str
    due: datetime.datetime
    cause: int
    correlation_id: str
    aggregate: str = ""
    id: str = ""
    command: str = ""
    data: str = ""
    is_generated: bool = False


class TimerCancelled(Event, name="escqrs.TimerCancelled"):
    timer: str


class TimerFired(Event, name="escqrs.TimerFired"):
    timer: str


class EventParked(Event, name="escqrs.EventParked"):
    """The instance has failed; it reacts when it is told to go on. part: of the events that an
    upcaster has made of the one at the position; mostly 0."""

    position: int
    part: int


class EventUnparked(Event, name="escqrs.EventUnparked"):
    position: int
    part: int


class EventSkipped(Event, name="escqrs.EventSkipped"):
    """The process was told to leave an event or a timer out, at which it had stopped."""

    position: int
    timer: str
    error: str
    reason: str


class ProcessFailed(Event, name="escqrs.ProcessFailed"):
    """A command was rejected, and no method takes that."""

    request: int
    error: str


class ProcessResumed(Event, name="escqrs.ProcessResumed"):
    """It was told to try its command again, or to go on without it."""

    retries: bool
    reason: str


class ProcessEnded(Event, name="escqrs.ProcessEnded"):
    pass


CLASSES: tuple[type[Event], ...] = (
    ProcessStarted,
    CommandRequested,
    CommandDelivered,
    CommandRejected,
    TimerSet,
    TimerCancelled,
    TimerFired,
    EventParked,
    EventUnparked,
    EventSkipped,
    ProcessFailed,
    ProcessResumed,
    ProcessEnded,
)


class Ledger(ReadModel, name="escqrs.processes"):
    """What is pending."""

    schema = """
        CREATE TABLE es_process (
            stream TEXT PRIMARY KEY, state TEXT NOT NULL, error TEXT) WITHOUT ROWID;
        CREATE TABLE es_process_command (
            stream TEXT, version INTEGER, PRIMARY KEY (stream, version)) WITHOUT ROWID;
        CREATE TABLE es_process_timer (
            stream TEXT, timer TEXT, due TEXT NOT NULL, PRIMARY KEY (stream, timer)) WITHOUT ROWID;
        CREATE TABLE es_process_parked (
            stream TEXT, position INTEGER, part INTEGER,
            PRIMARY KEY (stream, position, part)) WITHOUT ROWID
    """
    started = sql(ProcessStarted, "INSERT INTO es_process VALUES (:_stream, 'active', NULL)")
    requested = sql(CommandRequested, "INSERT INTO es_process_command VALUES (:_stream, :_version)")
    settled = sql(
        CommandDelivered,
        "DELETE FROM es_process_command WHERE stream = :_stream AND version = :request",
    )
    refused = sql(
        CommandRejected,
        "DELETE FROM es_process_command WHERE stream = :_stream AND version = :request",
    )
    set = sql(TimerSet, "REPLACE INTO es_process_timer VALUES (:_stream, :timer, :due)")
    cancelled = sql(
        TimerCancelled,
        "DELETE FROM es_process_timer WHERE stream = :_stream AND timer = :timer",
    )
    fired = sql(
        TimerFired, "DELETE FROM es_process_timer WHERE stream = :_stream AND timer = :timer"
    )
    held = sql(EventParked, "INSERT INTO es_process_parked VALUES (:_stream, :position, :part)")
    taken = sql(
        EventUnparked,
        "DELETE FROM es_process_parked "
        "WHERE stream = :_stream AND position = :position AND part = :part",
    )
    failed = sql(
        ProcessFailed,
        "UPDATE es_process SET error = :error, state = "
        "iif(state = 'ended', 'ended', 'failed') WHERE stream = :_stream",
    )
    resumed = sql(
        ProcessResumed,
        "UPDATE es_process SET error = NULL, state = "
        "iif(state = 'ended', 'ended', 'active') WHERE stream = :_stream",
    )
    ended = sql(
        ProcessEnded,
        "UPDATE es_process SET state = 'ended' WHERE stream = :_stream",
        "DELETE FROM es_process_timer WHERE stream = :_stream",
    )

    @query
    def commands(self, db: Rows, prefix: str) -> list[tuple[Any, ...]]:
        return db.execute(
            "SELECT stream, version FROM es_process_command "
            "WHERE stream >= :low AND stream < :high ORDER BY stream, version",
            _range(prefix),
        ).fetchall()

    @query
    def timers(self, db: Rows, prefix: str) -> list[tuple[Any, ...]]:
        return db.execute(
            "SELECT due, stream, timer FROM es_process_timer "
            "WHERE stream >= :low AND stream < :high",
            _range(prefix),
        ).fetchall()

    @query
    def untaken(self, db: Rows, prefix: str) -> list[tuple[Any, ...]]:
        """Events that were parked by instances that go on."""
        return db.execute(
            "SELECT stream, position, part FROM es_process_parked JOIN es_process USING (stream) "
            "WHERE stream >= :low AND stream < :high AND state <> 'failed' "
            "ORDER BY stream, position, part",
            _range(prefix),
        ).fetchall()

    @query
    def counts(self, db: Rows, prefix: str) -> tuple[int, int, int]:
        ((active, failed, ended),) = db.execute(
            "SELECT count(*) FILTER (WHERE state = 'active'), "
            "count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'ended') "
            "FROM es_process WHERE stream >= :low AND stream < :high",
            _range(prefix),
        ).fetchall()
        return active, failed, ended

    @query
    def instances(
        self, db: Rows, prefix: str, state: str | None, after: str, limit: int
    ) -> list[tuple[Any, ...]]:
        return db.execute(
            "SELECT stream FROM es_process WHERE (:state IS NULL OR state = :state) "
            "AND stream > :after AND stream >= :low AND stream < :high ORDER BY stream LIMIT :n",
            {"state": state, "after": prefix + after, "n": limit, **_range(prefix)},
        ).fetchall()


def _range(prefix: str) -> dict[str, str]:
    return {"low": prefix, "high": prefix[:-1] + chr(ord(prefix[-1]) + 1)}


# ---- an instance ---------------------------------------------------------------------------------


class Instance:
    """A fold of one stream."""

    __slots__ = (
        "definition",
        "error",
        "failures",
        "packed",
        "parked",
        "pending",
        "process",
        "status",
        "stream",
        "timers",
        "version",
    )

    def __init__(self, definition: Definition, stream: str) -> None:
        self.definition = definition
        self.stream = stream
        self.version = 0
        self.status: Literal["new", "active", "failed", "ended"] = "new"
        self.error: str | None = None
        self.pending: dict[int, CommandRequested] = {}  # by the version of the event
        self.failures: dict[int, str] = {}  # of pending ones
        self.timers: dict[str, TimerSet] = {}
        self.parked: list[tuple[int, int]] = []  # positions and parts
        self.process = definition.cls()
        self.packed = b""
        for name, value in definition.layout.initial().items():
            object.__setattr__(self.process, name, value)

    @property
    def id(self) -> str:
        return self.stream.removeprefix(self.definition.prefix)

    def load(self, store: Store) -> Instance:
        for recorded in store.history(self.stream):
            self.fold(recorded.event)
        return self

    def fold(self, event: Event) -> None:
        """The one place where an instance changes."""
        self.version += 1
        match event:
            case ProcessStarted():
                self.status = "active"
            case CommandRequested():
                self.pending[self.version] = event
            case CommandDelivered(request=request) | CommandRejected(request=request):
                self.pending.pop(request, None)
                self.failures.pop(request, None)
            case TimerSet(timer=timer):
                self.timers[timer] = event
            case TimerCancelled(timer=timer) | TimerFired(timer=timer):
                self.timers.pop(timer, None)
            case EventParked(position=position, part=part):
                self.parked.append((position, part))
            case EventUnparked(position=position, part=part):
                self.parked.remove((position, part))
            case ProcessFailed(request=request, error=error):
                self.failures[request] = self.error = error
                if self.status == "active":
                    self.status = "failed"
            case ProcessResumed():
                self.failures.clear()
                self.error = None
                if self.status == "failed":
                    self.status = "active"
            case ProcessEnded():
                self.status = "ended"
                self.timers.clear()
            case EventSkipped():
                pass
            case _:
                self.packed = _core.to_bytes(event)
                for name in self.definition.cls.__escqrs_state__:
                    object.__setattr__(self.process, name, getattr(event, name))

    def state(self) -> Event:
        """The fields as they are now."""
        values = vars(self.process)
        names = self.definition.cls.__escqrs_state__
        for name in names:
            if name not in values:
                raise TypeError(
                    f"{self.definition.name}.{name} has no value: assign it in the method that "
                    "starts an instance, or give it a default"
                )
        return self.definition.state(**{name: values[name] for name in names})
