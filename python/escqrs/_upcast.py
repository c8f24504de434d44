"""Upcasters: functions that make events of today of events that were stored long ago.

Every stored type is a name with the schema that it was written with, and the schema has a version,
as the author of the class counts them. A store has a :class:`Plan`: its event classes, their former
names, and the upcasters that count for it. C asks the plan once for each stored type how its events
are read (``csrc/python/upcast.h``), and keeps the answer; only events that need it come here again.
"""

from __future__ import annotations

import hashlib
import inspect
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from . import _core
from ._message import Event
from .errors import Corrupt, Error, NameClash, SchemaMismatch, UnknownType

if TYPE_CHECKING:
    from ._core import Recorded

__all__ = ["SchemaChange", "upcast"]

_F = TypeVar("_F", bound=Callable[..., Any])
_STEPS_MAX = 1_000  # of one event
_KINDS = ("misread", "added", "removed", "renamed", "widened")

Step = tuple[str, int]  # a type's name as it is now, and a version


class Upcaster(NamedTuple):
    """What ``@es.upcast`` says of a function."""

    function: Callable[..., Any]
    type: str  # as given: may be a former name
    version: int
    into: str | None  # the type that a dictionary becomes; None: the same, of the next version
    into_version: int

    @property
    def full_name(self) -> str:
        return _full_name(self.function)


class SchemaChange(NamedTuple):
    """One thing in which a class differs from what events were stored with.

    kind: "added", "removed", "renamed", "widened": compatible; "upcast": ``es.upcast`` functions
        make the events of today of them; "misread": the store is not opened with that class.
    type: the event's name as it is now. version: of the stored events. message, field: where; a
        nested message is named itself. text: what it is.
    """

    kind: str
    type: str
    version: int
    message: str
    field: str
    text: str

    @property
    def compatible(self) -> bool:
        return self.kind != "misread"


_registry: dict[tuple[str, str], tuple[Upcaster, ...]] = {}  # by module and qualified name


def _full_name(one: Any) -> str:
    return f"{one.__module__}.{one.__qualname__}"


# ---- the decorator -------------------------------------------------------------------------------


def upcast(
    event: str | type[Event],
    /,
    *,
    version: int | None = None,
    into: str | type[Event] | None = None,
    into_version: int | None = None,
) -> Callable[[_F], _F]:
    """Make a function an upcaster: it is called with each stored event of that type and version.

    event: the event's name in the store, or a class (an old one that is kept, whose ``version=``
        counts where ``version`` is not given).
    version: of the stored events: 1 for those of a class that never said ``version=``.
    into, into_version: the type and version that a returned dictionary is of, where it is not the
        same type's next version.

    The parameter is a dictionary of the fields as they were stored: nested messages are
    dictionaries, enums are names of members. Where it is annotated with an event class, it is an
    instance of that. A second parameter is the ``es.Recorded`` as it was stored. What is returned::

        @es.upcast("shop.ItemAdded", version=1)
        def with_currency(event: dict) -> dict:
            return event | {"price": {"amount": event.pop("cents"), "currency": "EUR"}}

    - a dictionary: of version 2 then, for the upcaster of version 2 or the class;
    - an event (of any class): as it is, or for the upcasters of its class's ``version=``;
    - a list of these: the event has become several. An empty one: it is dropped.

    None is an error, not a way to drop one. A function counts for the event classes, aggregates and
    read models of its module (or of the function in which it is defined); given to ``es.open`` or
    ``es.Store``, by itself or with its module, it counts there.
    """
    old = event if isinstance(event, type) else None
    if old is not None and (not issubclass(old, Event) or old.__escqrs_abstract__):
        raise TypeError(f"@es.upcast takes an event's name or class, and {event!r} is none")
    name = event if old is None else old.__escqrs_name__
    if not isinstance(name, str) or not name:
        raise TypeError(f"@es.upcast takes an event's name or class, not {event!r}")
    if version is None:
        version = getattr(old, "__escqrs_version__", None)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise TypeError(
            f"@es.upcast({name!r}): say which version it reads: version=1 for events of a class "
            f"that never said version=; got {version!r}"
        )
    target = into if into is None or isinstance(into, str) else into.__escqrs_name__
    becomes: int = getattr(into, "__escqrs_version__", None) or 1
    if into_version is not None:
        becomes = into_version
    counted: int = version

    def decorate(decorated: _F) -> _F:
        if not inspect.isfunction(cast("object", decorated)):
            raise TypeError(f"@es.upcast decorates a function, not {decorated!r}")
        function = cast("Any", decorated)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__}: @es.upcast takes a plain function")
        one = Upcaster(function, name, counted, target, becomes)
        several = (*getattr(function, "__escqrs_upcasts__", ()), one)
        function.__escqrs_upcasts__ = several
        _registry[function.__module__, function.__qualname__] = several
        return decorated

    return decorate


def upcasters_in(given: Any) -> tuple[Upcaster, ...] | None:
    """Those of a function, or of a module; None where it is neither."""
    if isinstance(given, types.ModuleType):
        found = [getattr(one, "__escqrs_upcasts__", ()) for one in vars(given).values()]
        return tuple(dict.fromkeys(one for several in found for one in several))
    found_one: tuple[Upcaster, ...] | None = getattr(given, "__escqrs_upcasts__", None)
    return found_one if inspect.isfunction(given) else None


def newest_of(events: Iterable[type[Event]]) -> list[type[Event]]:
    """Of several classes of one name, old ones that are kept for upcasters, the newest."""
    found: dict[str, type[Event]] = {}
    for cls in events:
        before = found.setdefault(cls.__escqrs_name__, cls)
        said, counted = before.__escqrs_version__, cls.__escqrs_version__
        if said is not None and (counted is None or counted > said):
            found[cls.__escqrs_name__] = cls
    return list(found.values())


# ---- the plan ------------------------------------------------------------------------------------


class _Step(NamedTuple):
    upcaster: Upcaster
    old: Any  # the class of its parameter, or None: a dictionary
    takes_recorded: bool
    targets: tuple[Step, ...]  # where what it returns goes, as far as it says


class Plan:
    """How a store's events are read. It is made anew whenever something is learned."""

    def __init__(self) -> None:
        self.classes: dict[str, type[Event]] = {}  # by stored name
        self.scopes: dict[tuple[str, str], None] = {}  # of what was opened: module, qualified name
        self.given: tuple[Upcaster, ...] = ()
        self.former: dict[str, str] = {}  # former name: name
        self.steps: dict[Step, _Step] = {}
        self.digest = ""  # of all upcasters, for snapshots

    # ---- making it

    def with_(
        self,
        events: Iterable[type[Event]] = (),
        seen: Iterable[type] = (),
        given: Iterable[Upcaster] = (),
        stored: Iterable[tuple[str, bytes]] = (),
    ) -> Plan:
        """One that has learned of more: event classes, other classes that were opened, upcasters;
        types that are stored, with their records. NameClash, SchemaMismatch and TypeError where
        they do not fit."""
        made = Plan()
        made.classes = self.classes | {one.__escqrs_name__: one for one in events}
        made.scopes = dict(self.scopes)
        for one in (*made.classes.values(), *seen):
            made.scopes[one.__module__, one.__qualname__] = None
        made.given = tuple(dict.fromkeys((*self.given, *given)))
        made.former = _former_names(made.classes)
        for name, record in stored:
            made._recognize(name, record)
        made._collect()
        made._check()
        return made

    def _recognize(self, name: str, record: bytes) -> None:
        """A newer program has renamed a class that is still known under its former name here."""
        if not record or name in self.classes or name in self.former:
            return
        try:
            names = _core._describe_record(record)[1][0][2]
        except Corrupt:  # it matters to those who read such events, and to verify()
            return
        for former in names:
            if former in self.classes:
                self.former[name] = former
                return

    def _collect(self) -> None:
        chosen: dict[Step, Upcaster] = {}
        for several in (self.given, tuple(self._visible())):
            found: dict[Step, Upcaster] = {}
            for one in several:
                key = (self.current_name(one.type), one.version)
                if key in chosen:
                    continue  # what was given counts
                before = found.setdefault(key, one)
                if before.full_name != one.full_name:
                    raise NameClash(
                        f"two upcasters read version {one.version} of {key[0]}: "
                        f"{before.full_name} and {one.full_name}; keep one of them"
                    )
                found[key] = one
            chosen.update(found)
        digest = hashlib.sha256()
        for key, one in sorted(chosen.items(), key=lambda pair: pair[0]):
            self.steps[key] = self._step(key, one)
            digest.update(repr((key, one.into, one.into_version)).encode())
            digest.update(_code_of(one.function))
        self.digest = f".{digest.hexdigest()[:12]}" if chosen else ""

    def _visible(self) -> Iterator[Upcaster]:
        """Registered ones that some class that was opened could name: of its module or of a
        function around it."""
        for (module, qualname), several in list(_registry.items()):
            scope = qualname.rpartition(".")[0]
            for opened, name in self.scopes:
                inside = not scope or name == scope or name.startswith(f"{scope}.")
                if opened == module and inside:
                    yield from several
                    break

    def _step(self, key: Step, one: Upcaster) -> _Step:
        parameters = [
            parameter
            for parameter in inspect.signature(one.function).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        if not 1 <= len(parameters) <= 2:
            raise TypeError(
                f"{one.full_name}: an upcaster takes the event, and perhaps what is recorded"
            )
        hints = _hints(one.function)
        old = hints.get(parameters[0].name)
        old = old if isinstance(old, type) and issubclass(old, Event) else None
        if old is not None:
            stored = old.__escqrs_version__
            if self.current_name(old.__escqrs_name__) != key[0] or stored not in (None, key[1]):
                raise TypeError(
                    f"{one.full_name} reads version {key[1]} of {key[0]}, and its parameter is "
                    f"{old.__name__}, which is {old.__escqrs_name__!r}"
                    + (f", version {stored}" if stored else "")
                )
        takes_recorded = len(parameters) == 2 and (parameters[1].default is inspect.Parameter.empty)
        targets: list[Step] = []
        returned = _parts(hints.get("return", dict))
        events = [part for part in returned if isinstance(part, type) and issubclass(part, Event)]
        for cls in events:
            if cls.__escqrs_abstract__:
                continue
            version = cls.__escqrs_version__
            name = self.current_name(cls.__escqrs_name__)
            if version is not None:
                targets.append((name, version))
        if len(events) < len(returned):
            into = None if one.into is None else self.current_name(one.into)
            targets.append((key[0], key[1] + 1) if into is None else (into, one.into_version))
        return _Step(one, old, takes_recorded, tuple(targets))

    def _check(self) -> None:
        """No gaps, no cycles, nothing beyond the newest version."""
        for (name, version), step in self.steps.items():
            newest = self._version(name)
            if version >= newest:
                raise SchemaMismatch(
                    f"{step.upcaster.full_name} reads version {version} of {name}, and its class "
                    f"{self.classes[name].__name__} is version={newest}, which needs none: give "
                    f"the class version={version + 1}, or take the function away",
                    type=name,
                )
            for target in step.targets:
                if target[1] < self._version(target[0]) and target not in self.steps:
                    raise SchemaMismatch(
                        f"{step.upcaster.full_name} makes version {target[1]} of {target[0]}, "
                        f"which is at version {self._version(target[0])}, and nothing reads that: "
                        f'write @es.upcast("{target[0]}", version={target[1]})',
                        type=target[0],
                    )
        done: set[Step] = set()
        for key in self.steps:
            self._walk(key, [], done)

    def _walk(self, key: Step, path: list[Step], done: set[Step]) -> None:
        if key in path:
            circle = " -> ".join(f"{name} {version}" for name, version in [*path, key])
            raise SchemaMismatch(f"upcasters form a cycle: {circle}", type=key[0])
        if key in done or key not in self.steps:
            return
        for target in self.steps[key].targets:
            self._walk(target, [*path, key], done)
        done.add(key)

    # ---- asking it

    def current_name(self, name: str) -> str:
        """The name that a type has now."""
        return self.former.get(name, name)

    def _version(self, name: str) -> int:
        cls = self.classes.get(name)
        said = None if cls is None else cls.__escqrs_version__
        if said is not None:
            return said
        return max((version for step, version in self.steps if step == name), default=0) + 1

    def version_of(self, cls: type[Event]) -> int:
        """The version that events of the class are stored with. Called by C."""
        return self._version(cls.__escqrs_name__)

    @property
    def evolves(self) -> bool:
        return bool(self.steps or self.former)

    def __call__(self, name: str, record: bytes) -> Any:
        """How events of that type, written with that record, are read: see csrc/python/upcast.h.
        Called by C."""
        current = self.current_name(name)
        cls = self.classes.get(current)
        if not record:
            return cls  # raw bytes: somebody said that they are an event of that name
        version = _core._describe_record(record)[0]
        try:
            return self._reading(current, version, cls, record)
        except SchemaMismatch as error:
            return error
        except TypeError as error:
            return _Broken(str(error))

    def _reading(self, name: str, version: int, cls: Any, record: bytes) -> Any:
        step = self.steps.get((name, version))
        if step is not None:
            if step.old is not None:
                compare(step.old, record)
            return Chain(self, name, version, record)
        if cls is None:
            return None
        newest = self._version(name)
        if version > newest:
            raise SchemaMismatch(
                f"{name}: events of version {version} are stored, and {cls.__name__} is version "
                f"{newest}: a newer program wrote them, and only one that knows version {version} "
                "can read them",
                type=name,
            )
        if version < newest:
            raise SchemaMismatch(
                f"{name}: events of version {version} are stored, and {cls.__name__} is version "
                f'{newest}: write a function @es.upcast("{name}", version={version}) that makes '
                f"version {version + 1} of them",
                type=name,
            )
        compare(cls, record)
        return cls

    def widen(self, matches: list[Any]) -> tuple[list[Any], list[Any]]:
        """What the store is to look for, and what of it is wanted in the end. Called by C."""
        sources = {name for name, _version in self.steps}
        names: dict[str, list[str]] = {}
        for former, name in self.former.items():
            names.setdefault(name, []).append(former)
        widened: list[Any] = []
        wanted: list[Any] = []
        for asked, tags in matches:
            now = dict.fromkeys(self.current_name(one) for one in asked)
            found = dict.fromkeys((*now, *sources)) if now else {}
            stored = [old for name in found for old in (name, *names.get(name, ()))]
            widened.append((tuple(dict.fromkeys(stored)), tags))
            wanted.append((tuple(now), tags))
        return widened, wanted

    def stored(self, matches: list[Any]) -> list[Any]:
        """For conditions, which look at events as they are stored: former names, too."""
        if not self.former:
            return matches
        return [
            (tuple(dict.fromkeys(old for one in types for old in self.stored_names(one))), tags)
            for types, tags in matches
        ]

    def stored_names(self, name: str) -> list[str]:
        """The names under which events of that type may be stored."""
        current = self.current_name(name)
        return [current, *(former for former, now in self.former.items() if now == current)]


def _former_names(classes: dict[str, type[Event]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, cls in classes.items():
        for former in vars(cls).get("__escqrs_was__", ()):
            other = classes.get(former) or classes.get(found.get(former, ""))
            if other is not None and other is not cls:
                raise NameClash(
                    f"{former!r} is a former name of {_full_name(cls)}, and {_full_name(other)} "
                    f"has{'' if former in classes else ' had'} it, too: what is stored under it "
                    "can be of one of them only"
                )
            found[former] = name
    return found


def _code_of(function: Callable[..., Any]) -> bytes:
    from ._aggregate import _digest_code

    digest = hashlib.sha256()
    _digest_code(digest, getattr(function, "__code__", None))
    return digest.digest()


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations as far as they can be read."""
    found: dict[str, Any] = {}
    for name, annotation in inspect.get_annotations(function).items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        variables = {**getattr(function, "__globals__", {}), **_closure(function)}
        try:
            found.update(typing.get_type_hints(holder, variables))
        except Exception:  # names that only a type checker sees
            continue
    return found


def _closure(function: Any) -> dict[str, Any]:
    try:
        return dict(inspect.getclosurevars(function).nonlocals)
    except (TypeError, ValueError):
        return {}


def _parts(annotation: Any) -> list[Any]:
    """The plain types in an annotation: of unions, lists and iterators."""
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is dict or not arguments:
        return [annotation]
    return [part for one in arguments if one is not ... for part in _parts(one)]


# ---- comparing -----------------------------------------------------------------------------------


def changes(cls: Any, record: bytes) -> list[tuple[str, str, str, str]]:
    """(kind, message, field, text) of each difference between a class and a record."""
    return [
        (_KINDS[kind], message, field, text)
        for kind, message, field, text in _core._schema_changes(cls, record)
    ]


def compare(cls: Any, record: bytes) -> None:
    """SchemaMismatch, with both schemas, where the class would misread what was written with the
    record."""
    for kind, message, field, text in changes(cls, record):
        if kind == "misread":
            from . import _record

            stored = _record.text(_record.read(record))
            declared = _record.text(_record.record_of(cls))
            raise SchemaMismatch(
                f"{text}\n\nstored:\n{_indent(stored)}\nnow:\n{_indent(declared)}",
                type=message,
                field=field,
                stored=stored,
                declared=declared,
            )


def _indent(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


class _Broken(Error):
    """A class whose definition cannot be used: the TypeError is raised by who needs it."""

    def _again(self) -> TypeError:
        return TypeError(*self.args)


# ---- upcasting -----------------------------------------------------------------------------------


class Chain:
    """The reading of a type whose events are upcast: called with an ``es.Recorded`` as it is
    stored, it makes the events that it is now."""

    __slots__ = ("_decoder", "_name", "_plan", "_record", "_version")

    def __init__(self, plan: Plan, name: str, version: int, record: bytes) -> None:
        self._plan = plan
        self._name = name
        self._version = version
        self._record = record
        self._decoder: Any = plan.steps[name, version].old

    def __call__(self, recorded: Recorded) -> list[Event]:
        from . import _record

        if self._decoder is None:
            self._decoder = _record.class_of(_record.read(self._record))
        run = _Run(self._plan, recorded)
        try:
            event = _core.from_bytes(self._decoder, recorded.data)
            run.step((self._name, self._version), event)
        except Exception as error:
            note = (
                f"while {recorded.stream}, version {recorded.version} (position "
                f"{recorded.position}), was upcast from {self._name}, version {self._version}"
            )
            if note not in getattr(error, "__notes__", ()):  # the same object again and again
                error.add_note(note)
            raise
        return run.made


class _Run:
    def __init__(self, plan: Plan, recorded: Recorded) -> None:
        self.plan = plan
        self.recorded = recorded
        self.made: list[Event] = []
        self.steps = 0

    def step(self, key: Step, value: Any) -> None:
        """A dictionary or an instance of that type and version: go on to its end."""
        from . import _record

        step = self.plan.steps.get(key)
        if step is None:
            self.made.append(self._finish(key, value))
            return
        self.steps += 1
        if self.steps > _STEPS_MAX:
            raise SchemaMismatch(
                f"{step.upcaster.full_name}: more than {_STEPS_MAX} upcasts of one event, which "
                "is a cycle",
                type=key[0],
            )
        if step.old is not None:
            value = _record.build(step.old, value)
        elif isinstance(value, Event):
            value = _record.plain(value)
        arguments = (value, self.recorded) if step.takes_recorded else (value,)
        returned: Any = step.upcaster.function(*arguments)
        if isinstance(returned, (list, tuple, Iterator)):
            for one in cast("Iterable[Any]", returned):
                self._take(key, step, one)
        else:
            self._take(key, step, returned)

    def _take(self, key: Step, step: _Step, one: Any) -> None:
        if isinstance(one, dict):
            into = step.upcaster.into
            self.step(
                (key[0], key[1] + 1)
                if into is None
                else (self.plan.current_name(into), step.upcaster.into_version),
                one,
            )
        elif isinstance(one, Event):
            cls: Any = type(one)
            name = self.plan.current_name(cls.__escqrs_name__)
            version = cls.__escqrs_version__ or self.plan._version(name)
            self.step((name, version), one)
        else:
            raise TypeError(
                f"{step.upcaster.full_name} returned {one!r}: an upcaster returns a dictionary, an "
                "event, or a list of these; an empty list drops the event"
            )

    def _finish(self, key: Step, value: Any) -> Event:
        from . import _record

        name, version = key
        cls: Any = self.plan.classes.get(name)
        if isinstance(value, Event) and (cls is None or isinstance(value, cls)):
            return value
        if cls is None:
            raise UnknownType(
                f"upcasting makes an event of type {name}, and no event class of that name was "
                "given to es.open or es.Store",
                type=name,
                stream=self.recorded.stream,
            )
        if version != self.plan._version(name):
            raise SchemaMismatch(
                f"upcasting makes version {version} of {name}, which is at version "
                f"{self.plan._version(name)}",
                type=name,
            )
        if isinstance(value, Event):
            value = _record.plain(value)  # of another definition of the class
        made: Any = _record.build(cls, value)
        if not isinstance(made, Event):
            raise TypeError(f"upcasting makes {made!r}, which is no es.Event")
        return made


# ---- stores --------------------------------------------------------------------------------------


def plan_of(store: Any) -> Plan:
    found = store._plan
    return found if isinstance(found, Plan) else Plan()


def learn(
    store: Any,
    events: Iterable[type[Event]] = (),
    seen: Iterable[type] = (),
    given: Iterable[Upcaster] = (),
) -> None:
    """Have a store read its events by these as well. What would be misread is refused, and then
    nothing is learned."""
    before = plan_of(store)
    types = store._types()
    stored = [(name, record) for name, record, used in types if used]
    plan = before.with_(events, seen, given, stored)
    same = store._plan is not None and (
        plan.classes == before.classes
        and plan.scopes == before.scopes
        and plan.steps == before.steps
        and plan.former == before.former
    )
    if same:
        return
    again = plan.steps != before.steps or plan.former != before.former
    for name, record, used in types:
        current = plan.current_name(name)
        known = before.classes.get(current) is plan.classes.get(current)
        if used and record and (again or not known):
            _refuse(plan(name, record))
    store._learn(plan, plan.evolves)
    provider = getattr(store, "provider", None)
    if provider is not None and plan.steps and not before.steps:
        warnings.warn(
            f"{type(provider).__name__} is a provider of its own, which records no schemas: no "
            "event there has a version, and upcasters do not run",
            RuntimeWarning,
            stacklevel=2,
        )


def _refuse(reading: Any) -> None:
    if isinstance(reading, _Broken):
        raise reading._again()
    if isinstance(reading, Exception):
        raise reading


def check_record(store: Any, name: str, record: bytes) -> None:
    """SchemaMismatch where the store's classes would misread what was written with the record."""
    _refuse(plan_of(store)(name, record))


def schema_changes(store: Any) -> list[SchemaChange]:
    """How the classes that a store was opened with differ from what its events were written
    with."""
    plan = plan_of(store)
    found: list[SchemaChange] = []
    for name, record, used in store._types():
        if not used or not record:
            continue
        current = plan.current_name(name)
        version = _core._describe_record(record)[0]
        if current != name:
            text = f"the class {current} was named {name}"
            found.append(SchemaChange("renamed", current, version, current, "", text))
        if (current, version) in plan.steps:
            step = plan.steps[current, version]
            text = f"version {version} is read by {step.upcaster.full_name}"
            found.append(SchemaChange("upcast", current, version, current, "", text))
        elif current in plan.classes:
            found.extend(
                SchemaChange(kind, current, version, message, field, text)
                for kind, message, field, text in changes(plan.classes[current], record)
            )
    return list(dict.fromkeys(found))
