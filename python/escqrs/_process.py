"""Process managers: classes that react to events, keep state, send commands and set timers.

What a process instance has decided is a stream of its own, ``escqrs.process/{name}/{id}``: its
state, commands that it wants sent (the outbox), timers, and what became of them. All that follows
from one event is in one commit, with the checkpoint ``escqrs.process/{name}``.

The classes are read here. What is stored is ``_process_record.py``, the thread that runs them
``_process_runner.py`` (with ``_process_batch.py``, ``_process_outbox.py`` and
``_process_timers.py``), what a program sees of them ``_processes.py``.
"""

from __future__ import annotations

import datetime
import functools
import inspect
import weakref
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Any, ClassVar, TypeVar, cast

from . import _core, _projection
from ._annotation import Names, evaluate
from ._core import Recorded
from ._field import field, fields_of_state
from ._json import from_json, to_json
from ._mark import Mark
from ._message import Command, Event, Message, layout_of_state
from ._process_record import CommandRequested, Instance, TimerCancelled, TimerSet

__all__ = ["Process", "on", "rejected", "timer"]

_F = TypeVar("_F", bound=Callable[..., Any])

_RESERVED = ("after", "at", "cancel", "done", "id", "now", "send")
_ID_MAX = 1024  # bytes


# ---- what the author of a class writes -----------------------------------------------------------


class Reaction:
    """What ``@es.on`` leaves on a method, for processes."""

    __slots__ = ("events", "key", "starts", "takes_recorded")

    def __init__(
        self, events: tuple[type[Event], ...], key: Any, starts: bool, takes_recorded: bool
    ) -> None:
        self.events = events
        self.key = key
        self.starts = starts
        self.takes_recorded = takes_recorded


# of methods
_REACTION: Mark[Reaction] = Mark("reaction")
_REJECTED: Mark[tuple[type[Command[Any]], ...]] = Mark("rejected")
_TIMER: Mark[str] = Mark("timer")


class _NoProjection:
    """What ``@es.on`` leaves for read models on a method that only a process can have."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = function.__qualname__

    def __getattr__(self, name: str) -> Any:
        raise TypeError(
            f"{self._name}: an @es.on method takes self, db and event, and perhaps recorded"
        )


def on(
    *events: type[Event],
    key: str | Callable[[Any], object] | None = None,
    starts: bool = False,
    **options: Any,
) -> Callable[[_F], _F]:
    """Say what happens with an event: in a read model, or in a process.

    In an ``es.ReadModel`` the method is ``def added(self, db, event)``, see
    :func:`escqrs._projection.on`.

    In an ``es.Process`` it is ``def placed(self, event)``, or ``def placed(self, event,
    recorded)``. ``key`` says whose event it is: a field of the event, or a function of the event;
    None as a result is nobody's. Without it, the class's ``key`` counts, and without that the id of
    the entity. ``starts=True``: the event begins an instance where there is none; where a process
    has no such method, every event does.
    """
    classes = _projection.check_events("@es.on", events)

    def decorate(function: _F) -> _F:
        parameters = list(inspect.signature(function).parameters) if callable(function) else []
        marked: Any = function
        if len(parameters) != 2:
            if key is None and not starts:
                marked = _projection.on(*events, **options)(function)
            elif len(parameters) != 3:
                raise TypeError(
                    f"{function.__qualname__}: an @es.on method of a process takes self and event, "
                    "and perhaps recorded"
                )
        if len(parameters) in (2, 3) and not options:
            _projection.check_plain("@es.on", function)
            _REACTION.put(marked, Reaction(classes, key, starts, len(parameters) == 3))
            if _projection.HANDLER.of(marked) is None:
                _projection.HANDLER.put(marked, cast("Any", _NoProjection(function)))
        return cast("_F", marked)

    return decorate


def rejected(*commands: type[Command[Any]]) -> Callable[[_F], _F]:
    """Say what a process does when a command that it sent failed.

    ``@es.rejected(Ship)`` on ``def not_shipped(self, command, error)``; error is the exception that
    the handler raised, an ``es.Rejected`` as a rule. Commands of which no method takes the failure
    mark the instance as failed.
    """
    classes = tuple(_core.twin(one, "command") for one in commands)
    for command in classes:
        if getattr(command, "__escqrs_kind__", None) != "command":
            raise TypeError(f"@es.rejected takes command classes, not {command!r}")
    if not commands:
        raise TypeError("@es.rejected takes at least one command class")

    def decorate(function: _F) -> _F:
        _check_method("@es.rejected", function, 3, "self, command and error")
        _REJECTED.put(function, classes)
        return function

    return decorate


def timer(name: str) -> Callable[[_F], _F]:
    """Say what a process does when a timer is due.

    ``@es.timer("payment")`` on ``def payment_is_late(self)``; ``self.after(delay, "payment")`` sets
    it.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"@es.timer takes the timer's name, not {name!r}")

    def decorate(function: _F) -> _F:
        _check_method("@es.timer", function, 1, "self alone")
        _TIMER.put(function, name)
        return function

    return decorate


def _check_method(what: str, function: Any, count: int, takes: str) -> None:
    if not inspect.isfunction(function):
        raise TypeError(f"{what} decorates a method, not {function!r}")
    _projection.check_plain(what, function)
    if len(inspect.signature(function).parameters) != count:
        raise TypeError(f"{function.__qualname__}: an {what} method takes {takes}")


class Process:
    """Base of process managers: annotated fields are the state, ``@es.on`` methods react to events,
    ``@es.timer`` methods to timers, ``@es.rejected`` methods to commands that failed.

    Class keywords: ``name``, in the store (the class's by default); ``key``, a field of the events,
    or a function of an event, that says which instance an event belongs to (by default it is the
    id of the entity that the event happened to); ``start="head"``: a process that is new to the
    store ignores what was there before (by default it reacts to all events from the first one);
    ``max_in_flight``: commands under way, beyond which it takes no further event (1,000).

    Methods may assign fields and call ``self.send``, ``self.after``, ``self.at``, ``self.cancel``
    and ``self.done``; ``self.id`` is the instance's, ``self.now`` the time of what it reacts to.
    They should do nothing else: a method that runs again after a crash must do the same. All that
    one method did is stored in one commit, with the position of the event; only then do the
    commands leave. A method that raises stops the process at that event, with nothing of it
    stored; ``system[Fulfilment].retry()`` and ``.skip()`` go on. After ``done()`` an instance
    reacts to nothing any more.
    """

    __escqrs_name__: ClassVar[str]
    __escqrs_key__: ClassVar[Any] = None
    __escqrs_start__: ClassVar[str] = "beginning"
    __escqrs_in_flight__: ClassVar[int] = 1_000
    __escqrs_state__: ClassVar[tuple[str, ...]] = ()
    _escqrs_step: Step | None = None

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        key: str | Callable[[Any], object] | None = None,
        start: str | None = None,
        max_in_flight: int | None = None,
        **keywords: Any,
    ) -> None:
        super().__init_subclass__(**keywords)
        name = cls.__name__ if name is None else name
        if not isinstance(name, str) or not name:
            raise TypeError(f"{cls.__name__}: name= is a str and not empty, got {name!r}")
        if "/" in name or "\0" in name:
            raise TypeError(f"{cls.__name__}: name={name!r} cannot hold `/` or NUL")
        cls.__escqrs_name__ = name
        if key is not None:
            cls.__escqrs_key__ = key if isinstance(key, str) else staticmethod(key)
        if start is not None:
            if start not in ("beginning", "head"):
                raise ValueError(f'{cls.__name__}: start= is "beginning" or "head", not {start!r}')
            cls.__escqrs_start__ = start
        if max_in_flight is not None:
            if isinstance(max_in_flight, bool) or max_in_flight < 1:
                raise ValueError(f"{cls.__name__}: max_in_flight= is at least 1")
            cls.__escqrs_in_flight__ = max_in_flight
        _refuse_names(cls)
        _members(cls)
        cls.__escqrs_state__ = tuple(one.name for one in fields_of_state(cls, stop=(Process,)))
        _core.register(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__escqrs_state__:
            raise AttributeError(
                f"{type(self).__name__} has no field {name!r}: declare it, {name}: its type, in "
                "the class; what is no field would be lost"
            )
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name, None)!r}" for name in self.__escqrs_state__]
        step = self._escqrs_step
        return f"{type(self).__name__}({', '.join([repr(step.id), *shown] if step else shown)})"

    def _escqrs_now(self) -> Step:
        if self._escqrs_step is None:
            raise RuntimeError("what a process does, it does in its methods")
        return self._escqrs_step

    @property
    def id(self) -> str:
        """The instance's."""
        return self._escqrs_now().id

    @property
    def now(self) -> datetime.datetime:
        """The time of what it reacts to: that of the event; of a timer or a rejection, the
        clock's."""
        return self._escqrs_now().now

    def send(
        self, aggregate: type | str, id: str, command: Command[Any], *, metadata: Any = None
    ) -> None:
        """Send a command to an entity once all that this method does is durable; it is carried out
        once, whatever happens.

        aggregate: a class or its name. metadata: of the events that follow, texts by name.
        """
        step = self._escqrs_now()
        target, kind, data = _pack_command(aggregate, id, command)
        step.events.append(
            CommandRequested(
                target,
                id,
                kind,
                data,
                step.cause,
                step.correlation_id,
                dict(metadata or {}),
                not isinstance(command, Command),
            )
        )

    def after(
        self,
        delay: datetime.timedelta,
        what: str | type,
        id: str | None = None,
        command: Command[Any] | None = None,
        *,
        name: str | None = None,
    ) -> None:
        """Set a timer that is due so long after ``self.now``.

        ``self.after(delay, "payment")`` runs the ``@es.timer("payment")`` method then;
        ``self.after(delay, Order, id, Cancel())`` sends that command, and its ``name`` is the
        command's unless given. A timer of the same name is replaced. It survives restarts, and
        fires late rather than never.
        """
        if not isinstance(delay, datetime.timedelta):
            raise TypeError(f"delay is a timedelta, not {type(delay).__name__}")
        self.at(self.now + delay, what, id, command, name=name)

    def at(
        self,
        when: datetime.datetime,
        what: str | type,
        id: str | None = None,
        command: Command[Any] | None = None,
        *,
        name: str | None = None,
    ) -> None:
        """Set a timer that is due at that time: as :meth:`after`."""
        step = self._escqrs_now()
        if command is None and id is None:
            if not isinstance(what, str) or what not in step.members.timers:
                raise ValueError(f"{type(self).__name__} has no method @es.timer({what!r})")
            step.set_timer(TimerSet(what, when, step.cause, step.correlation_id))
            return
        if command is None or id is None:
            raise TypeError("a timer takes a name, or an aggregate, an id and a command")
        target, kind, data = _pack_command(what, id, command)
        generated = not isinstance(command, Command)
        place = (step.cause, step.correlation_id, target, id)
        step.set_timer(TimerSet(name or kind, when, *place, kind, data, generated))

    def cancel(self, name: str) -> bool:
        """Take a timer back. Whether there was one."""
        return self._escqrs_now().cancel(name)

    def done(self) -> None:
        """End this instance when the method returns: its timers are dropped, the commands that it
        sent are still delivered, and events are none of its any more."""
        self._escqrs_now().ends = True


def _pack_command(aggregate: object, id: object, command: Any) -> tuple[str, str, str]:
    """For the outbox: names of the aggregate and the command, and the command as JSON."""
    target = aggregate if isinstance(aggregate, str) else getattr(aggregate, "__escqrs_name__", 0)
    if not isinstance(target, str) or not isinstance(id, str) or not id:
        raise TypeError("a command is sent to an aggregate (a class or its name) and an id (a str)")
    cls = _core.twin(type(command), "command")
    if getattr(cls, "__escqrs_kind__", None) != "command":
        raise TypeError(f"{command!r} is no command")
    if isinstance(command, Message):
        return target, cls.__escqrs_name__, to_json(command)
    from google.protobuf import json_format

    return target, cls.__escqrs_name__, json_format.MessageToJson(command, indent=None)


def unpack_command(cls: type[Command[Any]], request: CommandRequested) -> Command[Any]:
    """A command from the outbox, of that class or of the generated one that it stands for."""
    if not request.is_generated:
        return from_json(cls, request.data)
    from google.protobuf import descriptor_pool, json_format, message_factory

    descriptor = descriptor_pool.Default().FindMessageTypeByName(request.command)
    made: Any = message_factory.GetMessageClass(descriptor)()
    return cast("Command[Any]", json_format.Parse(request.data, made))


def _refuse_names(cls: type) -> None:
    defined = {*vars(cls), *inspect.get_annotations(cls)}
    for refused in _RESERVED:
        if refused in defined:
            raise TypeError(
                f"{cls.__name__}.{refused}: in a process `{refused}` is the engine's; use another "
                "name"
            )
    if not defined.isdisjoint(("__init__", "__new__")):
        raise TypeError(
            f"{cls.__name__}: a process has no __init__: its state begins with the defaults of its "
            "annotated fields"
        )


# ---- what a method does --------------------------------------------------------------------------


class Step:
    """What one method does."""

    __slots__ = ("cause", "correlation_id", "ends", "events", "id", "members", "now", "timers")

    def __init__(
        self, instance: Instance, now: datetime.datetime, cause: int, correlation_id: str
    ) -> None:
        self.id = instance.id
        self.members = instance.definition.members
        self.now = now
        self.cause = cause
        self.correlation_id = correlation_id
        self.events: list[Event] = []
        self.timers = set(instance.timers)
        self.ends = False

    def set_timer(self, event: TimerSet) -> None:
        self.timers.add(event.timer)
        self.events.append(event)

    def cancel(self, name: str) -> bool:
        if name not in self.timers:
            return False
        self.timers.remove(name)
        self.events.append(TimerCancelled(name))
        return True


# ---- reading a class -----------------------------------------------------------------------------


class Members:
    """The methods of a class by what they react to."""

    __slots__ = ("any_starts", "reactions", "rejections", "timers")

    def __init__(self) -> None:
        self.reactions: dict[type[Event], tuple[Callable[..., Any], Reaction]] = {}
        self.rejections: dict[type[Command[Any]], Callable[..., Any]] = {}
        self.timers: dict[str, Callable[..., Any]] = {}
        self.any_starts = False


def _members(cls: type) -> Members:
    functions: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        functions.update(vars(base))
    found = Members()
    for function in functions.values():
        reaction = _REACTION.of(function)
        commands = _REJECTED.of(function)
        timer = _TIMER.of(function)
        keys: tuple[tuple[dict[Any, Any], Any, Any], ...] = ()
        if reaction is not None:
            found.any_starts = found.any_starts or reaction.starts
            keys = tuple((found.reactions, one, (function, reaction)) for one in reaction.events)
        elif commands is not None:
            keys = tuple((found.rejections, one, function) for one in commands)
        elif timer is not None:
            keys = ((found.timers, timer, function),)
        elif _projection.HANDLER.of(function) is not None:
            raise TypeError(
                f"{function.__qualname__}: an @es.on method of a process takes self and event, "
                "and perhaps recorded"
            )
        for table, one, value in keys:
            if getattr(one, "__escqrs_abstract__", False):
                raise TypeError(f"{function.__qualname__}: a process names the events it reacts to")
            if one in table:
                raise TypeError(f"{cls.__name__}: two methods for {one!r}")
            table[one] = value
    return found


_state_classes: weakref.WeakKeyDictionary[type, type[Event]] = weakref.WeakKeyDictionary()


def _state_class(cls: type[Process], layout: _core.Layout) -> type[Event]:
    """The event that holds an instance's state: all fields of the class, by name."""
    found = _state_classes.get(cls)
    if found is not None:
        return found
    name = f"{cls.__escqrs_name__}.State"
    initial = layout.initial()
    names = Names(cls)
    annotations: dict[str, Any] = {"_": KW_ONLY}
    namespace: dict[str, Any] = {
        "__annotations__": annotations,
        "__module__": cls.__module__,
        "__qualname__": f"{cls.__qualname__}.State",
        "__doc__": f"The state of a {cls.__name__}.",
    }
    for one in fields_of_state(cls, stop=(Process,)):
        annotations[one.name] = evaluate(one, names)
        if one.name in initial:
            make = functools.partial(_initial_of, layout, one.name)
            namespace[one.name] = field(one.number, default_factory=make)
        else:
            namespace[one.name] = field(one.number)
    made = cast(
        "type[Event]", _core.MessageMeta(f"{cls.__name__}State", (Event,), namespace, name=name)
    )
    _state_classes[cls] = made
    return made


def _initial_of(layout: _core.Layout, name: str) -> Any:
    return layout.initial()[name]


class Definition:
    """What a system knows of a process class."""

    def __init__(self, cls: type[Process]) -> None:
        self.cls = cls
        self.name = cls.__escqrs_name__
        self.prefix = f"escqrs.process/{self.name}/"
        self.checkpoint = f"escqrs.process/{self.name}"
        self.members = _members(cls)
        self.layout = layout_of_state(cls, f"{self.name}.State", stop=(Process,))
        self.state = _state_class(cls, self.layout)
        self.reactions = {
            _core.newest(event).__escqrs_name__: found
            for event, found in self.members.reactions.items()
        }
        self.rejections = {
            _core.newest(command).__escqrs_name__: found
            for command, found in self.members.rejections.items()
        }
        if not self.reactions:
            raise TypeError(f"{cls.__name__}: a process reacts to events: give it @es.on methods")
        for event, (function, reaction) in self.members.reactions.items():
            key = reaction.key if reaction.key is not None else cls.__escqrs_key__
            if isinstance(key, str) and key not in event.__escqrs_fields__:
                raise TypeError(
                    f"{function.__qualname__}: {event.__name__} has no field {key!r} to say whose "
                    "event it is"
                )

    @property
    def events(self) -> list[type[Event]]:
        return list(self.members.reactions)

    def whose(self, recorded: Recorded, reaction: Reaction) -> str | None:
        """The id of the instance that the event belongs to."""
        key: Any = reaction.key if reaction.key is not None else self.cls.__escqrs_key__
        found: object
        if key is None:
            found = recorded.stream.partition("/")[2] or recorded.stream
        elif isinstance(key, str):
            found = getattr(recorded.event, key)
        else:
            found = key(recorded.event)
        if found is None:
            return None
        text = str(found) if not isinstance(found, (bytes, bool, float)) else ""
        if not text or "\0" in text or len(text.encode()) > _ID_MAX:
            raise ValueError(
                f"{self.name}: {found!r}, whose {recorded.type} is at position "
                f"{recorded.position}, cannot be an id: a text of 1 to {_ID_MAX:,} bytes without "
                "NUL, or an int"
            )
        return text
