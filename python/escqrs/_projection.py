"""Projections: what an event does to the tables of a read model, in SQL or in Python."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import _core
from ._annotation import Names
from ._core import Rows
from ._mark import Mark
from ._message import Event

if TYPE_CHECKING:
    from ._readmodel import ReadModel

__all__ = ["on", "sql"]

_F = TypeVar("_F", bound=Callable[..., Any])


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
                names = Names(cls)
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


HANDLER: Mark[_Handler] = Mark("on")  # of a method


def _with_both(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(self: ReadModel, db: Rows, recorded: _core.Recorded) -> None:
        function(self, db, recorded.event, recorded)

    return run


def check_events(what: str, events: Iterable[object]) -> tuple[type[Event], ...]:
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
    events = check_events("es.sql", arguments[:count])
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


def check_plain(what: str, function: object) -> None:
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
    checked = check_events("@es.on", events)
    checked_tags = _check_tags("@es.on", tags)

    def decorate(function: _F) -> _F:
        check_plain("@es.on", function)
        parameters = list(inspect.signature(function).parameters.values())
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if len(parameters) not in (3, 4) or any(one.kind not in positional for one in parameters):
            raise TypeError(
                f"{function.__qualname__}: an @es.on method takes self, db and event, and perhaps "
                "recorded"
            )
        handler = _Handler(checked, checked_tags, parameters[2], takes_both=len(parameters) == 4)
        HANDLER.put(function, handler)
        return function

    return decorate


# ---- reading a class -----------------------------------------------------------------------------


class Projection(NamedTuple):
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


def projections_of(cls: type) -> list[Projection]:
    """What a class does with events, inherited ones first, in order of definition."""
    found: dict[str, tuple[type, _Sql | Callable[..., Any]]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, _Sql) or HANDLER.of(value) is not None:
                found[name] = (base, value)
            else:
                found.pop(name, None)  # a subclass has taken it away
    projections: list[Projection] = []
    for name, (base, one) in found.items():
        if isinstance(one, _Sql):
            projections.extend(
                Projection(_class_or_every(event), statement, None, False, name, one.each, one.tags)
                for event in one.events
                for statement in one.statements
            )
        else:
            handler = HANDLER.of(one)
            assert handler is not None
            recorded = handler.takes_both or handler.wants_recorded(base, one)
            function = _with_both(one) if handler.takes_both else one
            projections.extend(
                Projection(_class_or_every(event), None, function, recorded, name, "", handler.tags)
                for event in handler.events
            )
    return projections


def events_of(cls: type[ReadModel]) -> list[type[Event]]:
    """The event classes that a read model names, each once."""
    return list(dict.fromkeys(one.event for one in projections_of(cls) if one.event is not None))
