"""Read models: tables that follow the events.

The classes are read here, once when they are defined; following the events, binding SQL and running
queries is C (``csrc/readmodel``, ``csrc/python/readmodel.c``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import threading
import time
import traceback
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

from . import _core, _deadline
from ._core import Cursor, Rows
from ._message import Event, _Names
from .errors import Closed, ReadModelStopped, SchemaMismatch, Timeout

if TYPE_CHECKING:
    from ._system import System

__all__ = [
    "Cursor",
    "Difference",
    "ParkedEvent",
    "ReadModel",
    "ReadModelStatus",
    "Retry",
    "Rows",
    "Watch",
    "on",
    "query",
    "sql",
]

_log = logging.getLogger("escqrs")

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", bound="ReadModel")
_F = TypeVar("_F", bound=Callable[..., Any])

_RESERVED = (
    "status",
    "rebuild",
    "cancel_rebuild",
    "retry",
    "skip",
    "wait",
    "parked",
    "watch",
    "compare",
)
_STATES = {1: "catching up", 2: "live", 3: "stopped", 4: "retrying"}


# ---- what the author of a class writes -----------------------------------------------------------


class _Sql:
    """What ``es.sql`` leaves in a class: statements for events."""

    __slots__ = ("each", "events", "statements", "tags")

    def __init__(
        self,
        events: tuple[type[Event], ...],
        statements: tuple[str, ...],
        each: str,
        tags: tuple[str, ...],
    ) -> None:
        self.events = events
        self.statements = statements
        self.each = each
        self.tags = tags

    def __repr__(self) -> str:
        events = ", ".join(event.__name__ for event in self.events)
        return f"es.sql({events}, {', '.join(map(repr, self.statements))})"


class _Handler:
    """What ``@es.on`` leaves on a method."""

    __slots__ = ("_wants_recorded", "events", "parameter", "tags", "takes_both")

    def __init__(
        self,
        events: tuple[type[Event], ...],
        tags: tuple[str, ...],
        parameter: inspect.Parameter,
        *,
        takes_both: bool,
    ) -> None:
        self.events = events
        self.tags = tags
        self.parameter = parameter  # the third
        self.takes_both = takes_both  # the event, and as a fourth what is recorded with it
        self._wants_recorded: bool | None = None  # not known yet

    def wants_recorded(self, cls: type, function: Callable[..., Any]) -> bool:
        """Whether the method, of that class, takes the recorded event rather than the event.

        The annotation says so; where it says neither, the parameter's name does.
        """
        if self._wants_recorded is not None:
            return self._wants_recorded
        annotation = self.parameter.annotation
        if isinstance(annotation, str):
            holder = types.SimpleNamespace(__annotations__={"it": annotation})
            try:
                names = _Names(cls)
                annotation = typing.get_type_hints(holder, function.__globals__, names)["it"]
            except Exception:  # a name that only type checkers see, or one that comes later
                return self._guess(annotation.rpartition(".")[2])
        annotation = _core.twin(annotation, "event")
        if annotation is _core.Recorded:
            self._wants_recorded = True
        elif isinstance(annotation, type) and issubclass(annotation, Event):
            self._wants_recorded = False
        else:
            self._wants_recorded = self.parameter.name == "recorded"
        return self._wants_recorded

    def _guess(self, written: str) -> bool:
        if any(event.__name__ == written for event in self.events):
            return False
        return written == "Recorded" or self.parameter.name == "recorded"


def _with_both(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(self: ReadModel, db: Rows, recorded: _core.Recorded) -> None:
        function(self, db, recorded.event, recorded)

    return run


def _check_events(what: str, events: Iterable[object]) -> tuple[type[Event], ...]:
    found: list[type[Event]] = []
    for given in events:
        event: Any = _core.twin(given, "event")
        if event is not Event and (
            not isinstance(event, type) or not issubclass(event, Event) or event.__escqrs_abstract__
        ):
            raise TypeError(f"{what} takes event classes, not {event!r}")
        if event in found:
            raise TypeError(f"{what}: {event.__name__} is given twice")
        found.append(event)
    if not found:
        raise TypeError(f"{what} takes at least one event class")
    if Event in found and len(found) > 1:
        raise TypeError(f"{what}: es.Event stands for every event; give it alone")
    return tuple(found)


def _check_tags(what: str, tags: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise TypeError(f"{what}: tags are several; write tags=[{tags!r}]")
    found = tuple(tags)
    for tag in found:
        if not isinstance(tag, str):
            raise TypeError(f"{what}: a tag is a str, not {tag!r}")
        if not tag or "\0" in tag:
            raise ValueError(f"{what}: a tag is not empty, and has no NUL: {tag!r}")
    return found


def sql(*arguments: type[Event] | str, each: str | None = None, tags: Iterable[str] = ()) -> Any:
    """Say in SQL what an event does to the tables.

    ``on_added = es.sql(ItemAdded, "INSERT INTO items VALUES (:name)")``, in the class's body.

    arguments: one or more event classes, then one or more statements, which run in order.
        Parameters are the event's fields (``:name``) and what is recorded with it:
        ``:_stream :_position :_version :_time :_id :_type :_part``, and ``:_event``, all of it as
        JSON.
        ``es.Event`` stands for every event; it has recorded parameters alone.
    each: name of a field that is a list or a dict: the statements run once for each of its items,
        with the parameters ``:_index`` (from 0), ``:_item``, of items that are messages
        ``:_item_{field}``, and for dicts ``:_key``.
    tags: only events that bear all of these.

    A field is bound as it is; a bool as 0 or 1, an enum by its name, a datetime as text
    ``2026-01-31 12:00:00.000000+00:00`` in UTC, lists, dicts and messages as JSON, None as NULL;
    NaN is refused, and stops the read model.

    The statements run in C. A wrong one is refused when the read model is opened, with SQLite's
    text.
    """
    count = next((i for i, one in enumerate(arguments) if isinstance(one, str)), len(arguments))
    events = _check_events("es.sql", arguments[:count])
    statements = arguments[count:]
    if not statements:
        raise TypeError("es.sql takes at least one statement")
    for statement in statements:
        if not isinstance(statement, str):
            raise TypeError(f"es.sql takes event classes and then SQL, not {statement!r} after SQL")
        if not statement.strip().strip(";").strip():
            raise ValueError("es.sql: empty SQL")
    if each is not None and not isinstance(each, str):
        raise TypeError(f"es.sql: each is the name of a field, not {each!r}")
    if each is not None and not each:
        raise ValueError("es.sql: each is the name of a field, not empty")
    return _Sql(
        events,
        tuple(str(statement) for statement in statements),
        each or "",
        _check_tags("es.sql", tags),
    )


def _check_plain(what: str, function: object) -> None:
    if not inspect.isfunction(function):
        raise TypeError(f"{what} decorates a method, not {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__}: {what} takes a plain method, not an async one")
    if inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{function.__qualname__}: {what} takes a plain method, not a generator; return a "
            "list, for instance that of fetchall()"
        )


def on(*events: type[Event], tags: Iterable[str] = ()) -> Callable[[_F], _F]:
    """Say in Python what an event does to the tables.

    ``@es.on(ItemAdded)`` on ``def added(self, db, event)``. Several classes may be given, or
    ``es.Event`` for every event; with ``tags`` only events that bear all of them are taken.

    ``db`` is an ``es.Rows`` within the transaction that also moves the read model's checkpoint; it
    reads and writes the read model's own tables. A fourth parameter gets the ``es.Recorded``; so
    does a third one that is annotated with ``es.Recorded``, or called ``recorded`` without being
    annotated with an event. The method runs on a thread of the engine; it cannot ask entities nor
    wait for the system.

    An exception fails the event, with nothing of it applied; what then becomes of it, the read
    model's ``on_error`` says.
    """
    checked = _check_events("@es.on", events)
    checked_tags = _check_tags("@es.on", tags)

    def decorate(function: _F) -> _F:
        _check_plain("@es.on", function)
        parameters = list(inspect.signature(function).parameters.values())
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if len(parameters) not in (3, 4) or any(one.kind not in positional for one in parameters):
            raise TypeError(
                f"{function.__qualname__}: an @es.on method takes self, db and event, and perhaps "
                "recorded"
            )
        handler = _Handler(checked, checked_tags, parameters[2], takes_both=len(parameters) == 4)
        function.__escqrs_on__ = handler  # type: ignore[attr-defined]
        return function

    return decorate


@overload
def query(
    function: Callable[Concatenate[_S, Rows, _P], _R], /
) -> Callable[Concatenate[_S, _P], _R]: ...
@overload
def query(
    *, timeout: float | None = None, consistent: bool = False
) -> Callable[[Callable[Concatenate[_S, Rows, _P], _R]], Callable[Concatenate[_S, _P], _R]]: ...
def query(
    function: Callable[..., Any] | None = None,
    /,
    *,
    timeout: float | None = None,
    consistent: bool = False,
) -> Any:
    """Make a method a query.

    ``@es.query`` on ``def by_name(self, db, name)``, called as ``shop[Items].by_name("book")``.

    It runs on the calling thread with a reading connection of its own, beside the writer; all its
    statements see the same state of the store. ``db`` (an ``es.Rows``) and its cursors end with the
    call. Queries may call each other.

    ``@es.query(timeout=2.0)``: a statement that is still running after so many seconds ends with
    ``es.Timeout``. ``@es.query(consistent=True)``: it first waits until the read model has seen
    every event that is stored when it is called, for at most ``timeout`` seconds. A call can ask
    for that as well: ``by_name("book", consistent=True)``, or ``consistent=reply.position``.
    """
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f"@es.query: timeout is a number of seconds, not {timeout!r}")
        if not timeout > 0:
            raise ValueError(f"@es.query: timeout is above 0, not {timeout}")
    if not isinstance(consistent, bool):
        raise TypeError(f"@es.query: consistent is True or False, not {consistent!r}")
    if function is None:
        return functools.partial(_query, timeout=timeout, consistent=consistent)
    return _query(function, timeout, consistent=consistent)


def _query(function: Callable[..., Any], timeout: float | None, *, consistent: bool) -> Any:
    _check_plain("@es.query", function)
    parameters = inspect.signature(function).parameters
    if len(parameters) < 2:
        raise TypeError(f"{function.__qualname__}: an @es.query method takes self and db")
    takes_consistent = "consistent" in parameters or any(
        one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()
    )

    @functools.wraps(function)
    def run(self: ReadModel, /, *args: Any, **kwargs: Any) -> Any:
        core = _core_of(self)
        until = consistent
        if not takes_consistent and "consistent" in kwargs:
            until = kwargs.pop("consistent")
        left = timeout
        if until is not False:
            begun = time.monotonic()
            self.wait(None if until is True else until, timeout)
            left = None if timeout is None else max(0.0, timeout - (time.monotonic() - begun))
        return core.query(function, self, args, kwargs, left)

    return run


# ---- failures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Retry:
    """A policy for events that a read model cannot take: try again, each time after twice as long.

    ``on_error = es.Retry(attempts=5, delay=0.1, max_delay=30.0, then="park")``, in the class's
    body.

    attempts: further ones after the first. delay, max_delay: seconds before the first of them, and
        at most. then: ``"stop"`` or ``"park"``, what is done when all have failed.

    Other read models go on meanwhile; this one waits at the event.
    """

    attempts: int = 5
    delay: float = 0.1
    max_delay: float = 30.0
    then: Literal["stop", "park"] = "stop"

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise TypeError(f"es.Retry: attempts is an int, not {self.attempts!r}")
        if not 1 <= self.attempts < 1 << 31:
            raise ValueError(f"es.Retry: attempts is at least 1, not {self.attempts}")
        for name in ("delay", "max_delay"):
            seconds = getattr(self, name)
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise TypeError(f"es.Retry: {name} is a number of seconds, not {seconds!r}")
            if not 0 < seconds <= 1e6:
                raise ValueError(f"es.Retry: {name} is above 0 and at most 1e6, not {seconds}")
        if self.then not in ("stop", "park"):
            raise ValueError(f'es.Retry: then is "stop" or "park", not {self.then!r}')


def _policy(cls: type[ReadModel]) -> tuple[int, float, float, bool]:
    """What the core is told: (further attempts, delay, longest delay, park)."""
    policy = getattr(cls, "on_error", "stop")
    if isinstance(policy, Retry):
        return policy.attempts, policy.delay, policy.max_delay, policy.then == "park"
    if policy not in ("stop", "park"):
        raise TypeError(f'{cls.__name__}.on_error is "stop", "park" or an es.Retry, not {policy!r}')
    return 0, 0.0, 0.0, policy == "park"


@dataclass(frozen=True)
class ParkedEvent:
    """An event that a read model has not applied: a row of the table ``escqrs_dead_letter``.

    state: ``"parked"``: it failed, see ``error``; ``"held"``: it waits behind a parked event of
        its stream; ``"skipped"``: left out on purpose, see ``reason``.
    position, stream, version, type: of the event. event: its fields as JSON, None where it cannot
        be decoded. attempts: how often it failed. error, traceback: of the last attempt, None for
        one that is held; the traceback is that of a Python handler. time: when it was put there,
        text in UTC.
    """

    position: int
    stream: str
    version: int
    type: str
    state: Literal["parked", "held", "skipped"]
    attempts: int
    error: str | None
    traceback: str | None
    event: str | None
    time: str
    reason: str | None


def _select_parked(_: object, db: Rows, name: str, *, skipped: bool) -> list[ParkedEvent]:
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'escqrs_dead_letter'").fetchall():
        return []  # the file is of an older escqrs, and was opened read-only
    states = "" if skipped else " AND state <> 'skipped'"
    rows = db.execute(
        "SELECT position, stream, version, type, state, attempts, error, traceback, event, time,"
        f" reason FROM escqrs_dead_letter WHERE readmodel = ?{states} ORDER BY position",
        (name,),
    )
    return [ParkedEvent(*row) for row in rows]


# ---- status --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadModelStatus:
    """Where a read model stands.

    state: ``"live"``: it has been level with the store and follows it; ``"catching up"``;
        ``"rebuilding"``: a new copy is being made, queries see the old rows; ``"stopped"``: at an
        event that it cannot take, see ``error``; ``"retrying"``: at such an event, which it tries
        again after a while.
    position: of the last event that it has seen. head: of the last event of the store.
    error: what failed and is not mended, or None: the event that has stopped it or is tried
        again, the one that was parked last, or a rebuild that was given up.
    failed_position: of the event that ``error`` is about, or None. traceback: of the Python
        handler that failed there, or None.
    attempts: how often that event has failed, where it has stopped it or is tried again.
    parked: how many events are parked, or held behind parked ones; see ``ReadModel.parked``.
    lag_seconds: how long the first event is stored that it has not seen; 0.0 where it is level.
    rate: events a second, lately.
    rebuild_position: of the last event in the copy that is being built, or None.
    """

    state: Literal["live", "catching up", "rebuilding", "stopped", "retrying"]
    position: int
    head: int
    error: str | None = None
    failed_position: int | None = None
    traceback: str | None = None
    attempts: int = 0
    parked: int = 0
    lag_seconds: float = 0.0
    rate: float = 0.0
    rebuild_position: int | None = None

    @property
    def lag(self) -> int:
        """How many events it is behind."""
        return self.head - self.position


# ---- comparing -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A row in which a read model and a fresh build of it differ; see ``ReadModel.compare``.

    kind: ``"missing"``: the fresh build has it, the read model has not; ``"extra"``: the other way
        round. A row with another value somewhere is one of each.
    """

    table: str
    kind: Literal["missing", "extra"]
    row: dict[str, Any]


def _rank(value: object) -> int:
    """SQLite's order of types."""
    if value is None:
        return 0
    return 1 if isinstance(value, (int, float)) else 2 if isinstance(value, str) else 3


def _order(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((_rank(value), 0 if value is None else value) for value in row)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _differences(live: Rows, fresh: Rows) -> Iterator[Difference]:
    tables = live.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        r" AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT LIKE 'escqrs\_%' ESCAPE '\'"
        " ORDER BY name"
    ).fetchall()
    for (table,) in tables:
        columns = [
            name
            for (name,) in live.execute(
                "SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid", (table,)
            )
        ]
        order = ", ".join(f"{_quoted(name)} COLLATE BINARY" for name in columns)
        sql = f"SELECT {', '.join(map(_quoted, columns))} FROM {_quoted(table)} ORDER BY {order}"
        for kind, row in _merged(iter(live.execute(sql)), iter(fresh.execute(sql))):
            yield Difference(table, kind, dict(zip(columns, row, strict=True)))


def _merged(
    live: Iterator[tuple[Any, ...]], fresh: Iterator[tuple[Any, ...]]
) -> Iterator[tuple[Literal["missing", "extra"], tuple[Any, ...]]]:
    """What only one of two sorted sequences has."""
    one, other = next(live, None), next(fresh, None)
    while one is not None or other is not None:
        if one is not None and other is not None and _order(one) == _order(other):
            one, other = next(live, None), next(fresh, None)
        elif other is None or (one is not None and _order(one) < _order(other)):
            assert one is not None
            yield "extra", one
            one = next(live, None)
        else:
            yield "missing", other
            other = next(fresh, None)


# ---- live queries --------------------------------------------------------------------------------


class _Hub:
    """Tells the watches of one read model that it has moved on; a thread while there are any."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._watches: weakref.WeakSet[Watch[Any]] = weakref.WeakSet()
        self._running = False

    def add(self, watch: Watch[Any]) -> None:
        with self._lock:
            self._watches.add(watch)
            if not self._running:
                self._running = True
                thread = threading.Thread(target=self._run, name="escqrs-watch", daemon=True)
                thread.start()

    def remove(self, watch: Watch[Any]) -> None:
        with self._lock:
            self._watches.discard(watch)

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            position = self._core.status()[1]
            while True:
                with self._lock:
                    if not self._watches:
                        self._running = False
                        return
                    watches = list(self._watches)
                try:
                    self._core.wait(position + 1, _HUB_SECONDS)
                except (Timeout, ReadModelStopped):
                    if self._core.status()[1] <= position:
                        self._pause()
                        continue
                position = self._core.status()[1]
                for watch in watches:
                    watch._wake(None)
        except BaseException as error:
            failure = error
        with self._lock:
            self._running = False
            watches = list(self._watches)
            self._watches.clear()
        for watch in watches:
            watch._wake(failure)

    def _pause(self) -> None:
        if _STATES[self._core.status()[0]] == "stopped":
            time.sleep(_HUB_SECONDS / 10)


_hub_lock = threading.Lock()
_HUB_SECONDS = 1.0  # after which the thread looks whether anybody still watches


class Watch(Generic[_R]):
    """The results of a query as they change; see :meth:`ReadModel.watch`."""

    def __init__(self, model: ReadModel, query: Callable[[], _R]) -> None:
        self._core = _core_of(model)
        self._query = query
        self._moved = threading.Event()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._failure: BaseException | None = None
        self._closed = False
        self._last: list[_R] = []  # none yet, or one
        with _hub_lock:
            if model._escqrs_hub is None:
                model._escqrs_hub = _Hub(self._core)
            self._hub = model._escqrs_hub
        self._moved.set()
        self._hub.add(self)

    def _wake(self, failure: BaseException | None) -> None:
        self._failure = self._failure or failure
        self._moved.set()
        waiter = self._waiter
        if waiter is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                waiter[0].call_soon_threadsafe(waiter[1].set)

    def close(self) -> None:
        """End the iteration, also of a thread or task that waits in it."""
        self._closed = True
        self._hub.remove(self)
        self._wake(None)

    def _check(self) -> bool:
        """Whether it is over; whoever asks again is told again."""
        if self._closed or self._failure is not None:
            self._moved.set()
        if self._failure is not None and not self._closed:
            raise self._failure
        return self._closed

    def _changed(self) -> bool:
        """Run the query; whether its result is another."""
        result = self._query()
        if self._last and self._last[0] == result:
            return False
        self._last = [result]
        return True

    def __iter__(self) -> Watch[_R]:
        return self

    def __next__(self) -> _R:
        while True:
            self._moved.wait()
            self._moved.clear()
            if self._check():
                raise StopIteration
            if self._changed():
                return self._last[0]

    def __aiter__(self) -> Watch[_R]:
        return self

    async def __anext__(self) -> _R:
        event = asyncio.Event()
        self._waiter = (asyncio.get_running_loop(), event)
        try:
            while True:
                if not self._moved.is_set():
                    await event.wait()
                event.clear()
                self._moved.clear()
                if self._check():
                    raise StopAsyncIteration
                if await asyncio.to_thread(self._changed):
                    return self._last[0]
        finally:
            self._waiter = None

    def __enter__(self) -> Watch[_R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        hub = getattr(self, "_hub", None)
        if hub is not None:
            hub.remove(self)


# ---- the base class ------------------------------------------------------------------------------


class ReadModel:
    """Base of read models: tables that are filled from events.

    ``schema``: SQL that makes the tables (and indexes, views, triggers); they are the read model's
    alone. ``es.sql`` and ``@es.on`` say what events do to them, ``@es.query`` what is asked of
    them.

    ``version``: change it to have the read model built anew where neither schema nor SQL has
    changed. ``rebuild``: what happens when they differ from the stored ones: ``"auto"`` builds
    anew, beside the old rows, and swaps when level; ``"manual"`` refuses to open
    (``es.SchemaMismatch``).

    ``on_error``: what becomes of an event that cannot be applied. ``"stop"``: the read model stops
    there, until ``retry()`` or ``skip()``. ``es.Retry(...)``: it is tried again, a limited number
    of times. ``"park"``: the event and the later ones of its stream are listed in the table
    ``escqrs_dead_letter``, and the rest goes on; see ``parked()``.

    ``file = "reports.db"``: its tables lie in an SQLite file of their own, relative to the store's
    folder, with their checkpoint: exactly once like any other. Several read models may share one.
    ``file = ":memory:"``: they lie in memory, and are built from the first event with each open.

    ``inline = True``: its rows are written in the commit of the events themselves, and are there
    when the reply is. A command whose events it cannot apply (a UNIQUE constraint, say) raises
    ``es.Rejected`` naming the read model, and nothing is stored. For SQL alone, and for what is
    cheap: every commit pays for it. ``es.open`` waits until it is level.

    ``class Items(es.ReadModel, name="shop.Items")`` gives it another name in the store than the
    class's.
    """

    schema: ClassVar[str]
    version: ClassVar[str | int]
    on_error: ClassVar[Literal["stop", "park"] | Retry]
    inline: ClassVar[bool]
    file: ClassVar[str | os.PathLike[str]]
    __escqrs_name__: ClassVar[str]
    __escqrs_manual__: ClassVar[bool] = False
    _escqrs_core: Any = None
    _escqrs_hub: _Hub | None = None

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is None:
            name = cls.__name__
        if not isinstance(name, str):
            raise TypeError(f"{cls.__name__}: name= must be a str, got {name!r}")
        if not name or "\0" in name:
            raise ValueError(f"{cls.__name__}: name= must not be empty, nor hold a NUL: {name!r}")
        cls.__escqrs_name__ = name
        _check_reserved(cls)
        _check_attributes(cls)
        _check_inline(cls, _projections(cls))
        _core.register(cls)

    @property
    def status(self) -> ReadModelStatus:
        """Where it stands now."""
        core = _core_of(self)
        state, position, head, rebuilding, error, failed, *rest = core.status()
        lag, rate, parked, attempts, rebuilt = rest
        shown = _STATES[state]
        if rebuilding and shown not in ("stopped", "retrying"):
            shown = "rebuilding"
        failed_at = failed if error is not None and failed > 0 else None
        failure = core.failure
        return ReadModelStatus(
            shown,  # type: ignore[arg-type]
            position,
            head,
            error,
            failed_at,
            failure[1] if failure is not None and failure[0] == failed_at else None,
            attempts,
            parked,
            lag / 1e6,
            rate,
            rebuilt if rebuilding and rebuilt >= 0 else None,
        )

    if TYPE_CHECKING:
        rebuild: Any
    else:

        def rebuild(self, *, progress: Callable[[int, int], object] | None = None) -> None:
            """Build it anew from the first event, beside the live rows, and swap when level.

            Returns at once; ``flush()`` waits for it. What ``skip()`` left out is tried again.
            Where it fails, the old rows stay and are followed as before; ``flush()`` raises once,
            the log and ``status.error`` say why.

            progress: called as ``progress(position, head)`` while the copy grows; then this
                returns when the rebuild is over, and raises ``es.ReadModelStopped`` where it
                failed. If it raises, the rebuild is cancelled.
            """
            core = _core_of(self)
            core.rebuild()
            if progress is not None:
                _follow_rebuild(core, progress)

    def cancel_rebuild(self) -> None:
        """Give a rebuild up that is under way; the old rows stay and are followed as before.

        ValueError if none is, or where the old rows are those of an older definition.
        """
        _core_of(self).cancel_rebuild()

    def compare(
        self, *, progress: Callable[[int, int], object] | None = None
    ) -> Iterator[Difference]:
        """The rows that differ from those of a fresh build; none where all is well.

        The rows are copied as they are when the iteration begins, and the events up to there are
        applied to empty tables beside them, on this thread; the read model goes on meanwhile. All
        columns count, rowids do not.

        progress: called as ``progress(position, target)`` while the fresh build goes on.

        Raises ``es.ReadModelStopped`` where an event cannot be applied that was not skipped,
        ValueError for virtual tables, and while it is being built anew.
        """
        core = _core_of(self)
        comparison = _core.readmodel_compare(core.system(), self, _description(type(self)))
        try:
            while (at := comparison.step()) is not None:
                if progress is not None:
                    progress(*at)
            yield from _differences(comparison.rows(False), comparison.rows(True))
        finally:
            comparison.close()

    def watch(self, query: Callable[..., _R], *args: Any, **kwargs: Any) -> Watch[_R]:
        """The results of a query, now and whenever they have changed.

        ``for rows in shop[Items].watch(Items.by_name, "book")``, or ``async for``.

        query: an ``@es.query`` method of the class, or of the instance; the rest is given to it.

        A result is given when it differs from the one before (by ``==``); of several changes in
        quick succession only the last may be seen. Nothing polls: the query runs again when the
        read model has seen further events. The iteration ends with ``close()`` of the watch, and
        raises ``es.Closed`` where the system is closed.
        """
        bound = query if inspect.ismethod(query) else functools.partial(query, self)
        return Watch(self, functools.partial(bound, *args, **kwargs))

    def retry(self, stream: str | None = None) -> None:
        """Try again what has failed.

        One that has stopped, or waits before a further attempt, tries the event there now; this
        returns at once.

        Else its parked events are applied in their order, those of ``stream`` or of every stream,
        each stream's until one fails again; this returns when they have been tried, and
        ``parked()`` says what is left. ValueError where nothing is parked.
        """
        core = _core_of(self)
        if stream is None and _STATES[core.status()[0]] in ("stopped", "retrying"):
            core.retry()
            return
        if stream is not None and not isinstance(stream, str):
            raise TypeError(f"stream is a str, not {stream!r}")
        if not any(stream in (None, one.stream) for one in self.parked()):
            where = "" if stream is None else f" of stream {stream}"
            raise ValueError(
                f"read model {self.__escqrs_name__} has not stopped, and no event{where} is parked"
            )
        core.unpark(stream or "", 0, "")

    def skip(self, position: int | None = None, reason: str = "") -> None:
        """Leave out an event on purpose, and go on after it.

        Without ``position``: the event at which it has stopped. With: that event, which is parked
        or held; the rest of its stream is applied, until one fails. The event stays listed in
        ``parked(skipped=True)``, with the reason, until the read model is built anew.

        ValueError if it has not stopped, or there is no such parked event.
        """
        if not isinstance(reason, str):
            raise TypeError(f"reason is a str, not {reason!r}")
        core = _core_of(self)
        if position is None:
            core.skip(reason)
            return
        _check_position(position, least=1)
        core.unpark("", position, reason)

    def parked(self, *, skipped: bool = False) -> list[ParkedEvent]:
        """The events that it has not applied because they, or earlier ones of their streams,
        failed, in the order of their positions. ``skipped``: also those left out on purpose.

        They are the rows of the table ``escqrs_dead_letter``, which other tools can read.
        """
        found: list[ParkedEvent] = _core_of(self).query(
            _select_parked, self, (self.__escqrs_name__,), {"skipped": skipped}, None
        )
        return found

    def wait(self, position: int | None = None, timeout: float | None = None) -> None:
        """Wait until it has seen the event at ``position``, by default the newest there is now.

        A position that no event has yet is waited for as well: until an event gets it.

        Raises ``es.ReadModelStopped`` if it stops before, ``es.Timeout`` after ``timeout`` seconds,
        ``ValueError`` for a position that is negative or beyond 64 bits.
        """
        core = _core_of(self)
        if position is None:
            at: int = core.status()[2]
        else:
            _check_position(position)
            at = position
        _wait(core, at, timeout)

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._escqrs_core is None:
            return f"<{name}, a read model that is not open>"
        try:
            status = self.status
        except Closed:
            return f"<{name}, a read model of a closed system>"
        text = f"{status.state} at {status.position:,}"
        if status.state == "stopped":
            text = f"stopped at {status.failed_position or status.position:,}"
        elif status.lag:
            text += f" of {status.head:,}"
        return f"<{name}, read model, {text}>"


def _core_of(model: ReadModel) -> Any:
    if model._escqrs_core is None:
        raise Closed(
            f"{type(model).__name__} is not part of an open system; use "
            f"system[{type(model).__name__}]"
        )
    return model._escqrs_core


def _follow_rebuild(core: Any, progress: Callable[[int, int], object]) -> None:
    position = -1
    try:
        while (position := core.progress(position)) is not None:
            progress(position, core.status()[2])
    except BaseException:
        with contextlib.suppress(ValueError, Closed):
            core.cancel_rebuild()
        raise
    _wait(core, -1, None)


def _check_position(position: object, *, least: int = 0) -> None:
    if isinstance(position, bool) or not isinstance(position, int):
        raise TypeError(f"position is an int, not {type(position).__name__}")
    if not least <= position < 1 << 63:
        raise ValueError(f"a position counts events from 1, in 64 bits; got {position}")


def _wait(core: Any, position: int, timeout: float | None) -> None:
    try:
        core.wait(position, timeout)
    except ReadModelStopped as error:
        if core.failure is not None:
            raise error from core.failure[2]
        raise


# ---- reading a class -----------------------------------------------------------------------------


def _check_reserved(cls: type[ReadModel]) -> None:
    names = [*vars(cls), *vars(cls).get("__annotations__", {})]
    for name in _RESERVED:
        if name not in names:
            continue
        if name == "rebuild" and isinstance(vars(cls).get("rebuild"), str):
            continue
        hint = (
            '; rebuild = "auto" or "manual" says when it is built anew' if name == "rebuild" else ""
        )
        raise TypeError(f"{cls.__name__}.{name}: the name is the engine's in a read model{hint}")


def _check_attributes(cls: type[ReadModel]) -> None:
    rebuild = vars(cls).get("rebuild")
    if rebuild is not None:
        if rebuild not in ("auto", "manual"):
            raise ValueError(f'{cls.__name__}.rebuild is "auto" or "manual", not {rebuild!r}')
        cls.__escqrs_manual__ = rebuild == "manual"
        del cls.rebuild  # instances have the method
    schema = getattr(cls, "schema", None)
    if schema is not None:
        if not isinstance(schema, str):
            raise TypeError(f"{cls.__name__}.schema is SQL, a str, not {schema!r}")
        if not schema.strip().strip(";").strip():
            raise ValueError(f"{cls.__name__}.schema: empty SQL")
    version = getattr(cls, "version", "")
    if isinstance(version, bool) or not isinstance(version, (str, int)):
        raise TypeError(f"{cls.__name__}.version is a str or an int, not {version!r}")
    _policy(cls)
    _file(cls)


class _Projection(NamedTuple):
    """What is done with one type of event; the core takes it as a tuple."""

    event: type[Event] | None  # None: every event
    sql: str | None
    function: Callable[..., Any] | None
    wants_recorded: bool
    name: str
    each: str
    tags: tuple[str, ...]


def _class_or_every(event: type[Event]) -> type[Event] | None:
    return None if event is Event else event


def _projections(cls: type[ReadModel]) -> list[_Projection]:
    """What a class does with events, inherited ones first, in order of definition."""
    found: dict[str, tuple[type, _Sql | Callable[..., Any]]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, _Sql) or hasattr(value, "__escqrs_on__"):
                found[name] = (base, value)
            else:
                found.pop(name, None)  # a subclass has taken it away
    projections: list[_Projection] = []
    for name, (base, one) in found.items():
        if isinstance(one, _Sql):
            projections.extend(
                _Projection(
                    _class_or_every(event), statement, None, False, name, one.each, one.tags
                )
                for event in one.events
                for statement in one.statements
            )
        else:
            handler: _Handler = one.__escqrs_on__  # type: ignore[attr-defined]
            recorded = handler.takes_both or handler.wants_recorded(base, one)
            function = _with_both(one) if handler.takes_both else one
            projections.extend(
                _Projection(
                    _class_or_every(event), None, function, recorded, name, "", handler.tags
                )
                for event in handler.events
            )
    return projections


def events_of(cls: type[ReadModel]) -> list[type[Event]]:
    """The event classes that a read model names, each once."""
    return list(dict.fromkeys(one.event for one in _projections(cls) if one.event is not None))


def _definition(cls: type[ReadModel]) -> tuple[Any, ...]:
    """All that decides whether the stored tables are those of the class."""
    return (
        cls.__escqrs_name__,
        getattr(cls, "schema", ""),
        str(getattr(cls, "version", "")),
        tuple(
            (
                "" if one.event is None else one.event.__escqrs_name__,
                one.sql,
                one.name if one.sql is None else "",
                one.each,
                one.tags,
            )
            for one in _projections(cls)
        ),
    )


def _file(cls: type[ReadModel]) -> str:
    file = getattr(cls, "file", None)
    if file is None:
        return ""
    if not isinstance(file, (str, os.PathLike)):
        raise TypeError(f"{cls.__name__}.file is a path, not {file!r}")
    path = os.fspath(cast("str | os.PathLike[str]", file))
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"{cls.__name__}.file is a path, not {file!r}")
    return path


def _is_inline(cls: type[ReadModel]) -> bool:
    return getattr(cls, "inline", False) is True


def _check_inline(cls: type[ReadModel], projections: list[_Projection]) -> None:
    inline = getattr(cls, "inline", False)
    if not isinstance(inline, bool):
        raise TypeError(f"{cls.__name__}.inline is True or False, not {inline!r}")
    if not inline:
        return
    for one in projections:
        if one.function is not None:
            raise TypeError(
                f"{cls.__name__}.{one.name}: an inline read model is written in the transaction of "
                "the commits, where no Python runs; use es.sql, or leave inline = True out"
            )
    if _policy(cls) != (0, 0.0, 0.0, False):
        raise TypeError(
            f"{cls.__name__}.on_error: an inline read model fails the command whose events it "
            "cannot apply; there is nothing to park or to try again"
        )


# ---- opening -------------------------------------------------------------------------------------


def _description(cls: type[ReadModel]) -> tuple[Any, ...]:
    """What the core is told: (name, schema, version, file, manual, inline, policy, projections)."""
    name, schema, version, _ = _definition(cls)
    projections = tuple(
        one if one.event is None else one._replace(event=_core.newest(one.event))
        for one in _projections(cls)
    )
    manual = cls.__escqrs_manual__
    return name, schema, version, _file(cls), manual, _is_inline(cls), _policy(cls), projections


def check(classes: Iterable[type[ReadModel]]) -> None:
    """Refuse what can be refused before a file is opened, or made: bad SQL, names that clash."""
    _core.readmodel_check(tuple(_description(cls) for cls in classes))


def attach(system: System, classes: Iterable[type[ReadModel]]) -> dict[type[ReadModel], ReadModel]:
    """Add the read models to a system that has just been opened, and let them follow.

    All or none: if one is refused, the file is as it was.
    """
    found: dict[type[ReadModel], ReadModel] = {}
    for cls in classes:
        instance = cls()
        instance._escqrs_core = _core.readmodel_add(system, instance, _description(cls))
        found[cls] = instance
    _core.readmodel_start(system)
    return found


def redefined(instance: ReadModel, cls: type[ReadModel]) -> ReadModel:
    """The read model as an instance of a newer definition of its class, whose queries may differ.

    Raises ``es.SchemaMismatch`` if what it does with events has changed: that needs the system to
    be opened again.
    """
    if _definition(type(instance)) != _definition(cls):
        raise SchemaMismatch(
            f"read model {cls.__name__} was defined anew with another schema, SQL or version; "
            "close the system and open it again to have it built anew"
        )
    newer = cls()
    newer._escqrs_core = instance._escqrs_core
    return newer


def flush(system: System, position: int, timeout: float | None) -> None:
    """Wait until every read model has seen the event at ``position``, and rebuilds are done.

    Raises for one that has stopped once the others are there.
    """
    until = _deadline.until(timeout)
    stopped: ReadModelStopped | None = None
    readmodels = list(system._readmodels.values())  # another thread may add to it
    for core in {id(one._escqrs_core): one._escqrs_core for one in readmodels}.values():
        try:
            for target in (position, -1):
                _wait(core, target, _deadline.left(until))
        except ReadModelStopped as error:
            stopped = stopped or error
    if stopped is not None:
        raise stopped


def _failed(name: str, position: int, error: BaseException) -> str:
    """A handler has raised; the core says what becomes of it, here is where it happened."""
    _log.error("read model %s: a handler failed at position %d", name, position, exc_info=error)
    return "".join(traceback.format_exception(error))


_core.readmodel_bind(_failed)
