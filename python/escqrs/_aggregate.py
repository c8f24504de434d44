"""Aggregates: from a class with ``@es.handles`` and ``@es.applies`` methods to what the core runs.

The class itself is read here, once when it is defined (or when it is opened, where its annotations
name what does not exist yet); calling its methods is C (``csrc/python/dispatch.c``).
"""

# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false
# (annotations and replies are objects of any type)

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import hashlib
import inspect
import json
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, cast

from . import _core
from ._annotation import Names
from ._message import Message, layout_of_state
from .errors import UnknownType

__all__ = ["Aggregate", "applies", "handles"]

SNAPSHOT_EVERY = 100  # events, unless the class says otherwise
SNAPSHOT_KEEP = 2
_SECONDS_MAX = 1e9

_PLAIN = (type(None), bool, int, float, complex, str, bytes, types.EllipsisType)
_RESERVED = ("emit", "id", "version", "system")
_F = TypeVar("_F", bound=Callable[..., Any])


class _Mark:
    """What ``@es.handles`` and ``@es.applies`` leave on a method."""

    __slots__ = ("classes", "kind")

    def __init__(self, kind: str, classes: tuple[Any, ...]) -> None:
        self.kind = kind  # "command" or "event"
        self.classes = classes  # empty: as annotated


def _mark(decorator: str, kind: str, arguments: tuple[Any, ...]) -> Any:
    def apply(function: Any, classes: tuple[type, ...]) -> Any:
        if not inspect.isfunction(function):
            raise TypeError(f"@es.{decorator} decorates a method, not {function!r}")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__}: @es.{decorator} takes a plain method, not an async one: "
                "it runs to its end on a thread of the engine"
            )
        if inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{function.__qualname__}: @es.{decorator} takes a plain method, not a generator; "
                "use return"
            )
        marked: Any = function
        marked.__escqrs_mark__ = _Mark(kind, classes)
        return function

    if len(arguments) == 1 and not isinstance(arguments[0], type):
        return apply(arguments[0], ())
    if not arguments or not all(isinstance(one, type) for one in arguments):
        raise TypeError(
            f"@es.{decorator} stands alone before a method whose parameter is annotated, or takes "
            f"{kind} classes"
        )
    return functools.partial(apply, classes=arguments)


@typing.overload
def handles(command: type, /, *commands: type) -> Callable[[_F], _F]: ...
@typing.overload
def handles(function: _F, /) -> _F: ...
def handles(*arguments: Any) -> Any:
    """Mark a method that decides on a command: which one says the annotation of its parameter.

    The method looks at the state, calls ``self.emit(event)`` for what shall happen, and returns the
    reply. If it raises, nothing is stored and the caller gets the exception. ``@es.handles(AddItem,
    AddBox)`` names the classes instead.
    """
    return _mark("handles", "command", arguments)


@typing.overload
def applies(event: type, /, *events: type) -> Callable[[_F], _F]: ...
@typing.overload
def applies(function: _F, /) -> _F: ...
def applies(*arguments: Any) -> Any:
    """Mark the method that changes the state for an event: which one says the annotation of its
    parameter.

    It runs when the event is emitted and in every replay, so it does nothing but assign fields and
    change the lists and dicts in them. Anywhere else these raise AttributeError;
    ``list(self.names)`` is a copy to work with. What is put in has to be of the field's type
    (TypeError).
    """
    return _mark("applies", "event", arguments)


class _Snapshots(NamedTuple):
    """When snapshots are taken, as the class keywords say."""

    every: int = SNAPSHOT_EVERY
    after: float | None = None
    keep: int = SNAPSHOT_KEEP
    on_passivation: bool = False


def _snapshots(cls: type[Aggregate], every: Any, after: Any, leaving: Any, keep: Any) -> _Snapshots:
    """The class's settings: keywords, then attributes, then those of the base."""
    settings: dict[str, Any] = {}
    for name, given in (("every", every), ("after", after), ("keep", keep)):
        settings[name] = cls.__dict__.get(f"snapshot_{name}") if given is None else given
    on_passivation = cls.__dict__.get("snapshot_on_passivation") if leaving is None else leaving
    for name, unit in (("every", "events"), ("keep", "snapshots")):
        value = settings[name]
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63
        ):
            raise TypeError(
                f"{cls.__name__}: snapshot_{name}= is a number of {unit}, 0 for "
                f"{'none' if name == 'every' else 'all'}, got {value!r}"
            )
    after = settings["after"]
    if after is not None and (
        isinstance(after, bool) or not isinstance(after, int | float) or not after > 0
    ):
        raise TypeError(
            f"{cls.__name__}: snapshot_after= is a number of seconds above 0, got {after!r}"
        )
    if not isinstance(on_passivation, bool | None):
        raise TypeError(
            f"{cls.__name__}: snapshot_on_passivation= is True or False, got {on_passivation!r}"
        )
    settings["on_passivation"] = on_passivation
    given = {name: value for name, value in settings.items() if value is not None}
    return cls.__escqrs_snapshots__._replace(**given)


class Aggregate(_core.AggregateBase):
    """Base of aggregates: annotated fields are the state, ``@es.handles`` methods decide,
    ``@es.applies`` methods change the state.

    Class keywords: ``name`` is the aggregate's name in the store (the class's by default). Streams
    are named ``"{name}/{id}"``. When a snapshot of a state is taken, beside ``handle.snapshot()``,
    say these, as class keywords or as attributes of the class:

    snapshot_every: when the version passes a multiple of so many events (100 by default); 0: not
        for that.
    snapshot_after: seconds: when the events since the last snapshot take so long to replay, by what
        loading the entity took; None (the default): not for that.
    snapshot_on_passivation: bool: when a state that has changed leaves memory, because there are
        more than ``max_entities`` or the system is closed. False by default.
    snapshot_keep: how many of a stream are kept, the newest ones (2 by default); 0: all.

    No command waits until a snapshot is stored; the next one of the same entity waits while the
    state is packed, which takes long where the state is large. A snapshot that is damaged, or of
    another definition of the class, is passed over and said in the log, and the history is read
    instead. A class of the same module and qualified name as another (a function that makes both)
    is that one redefined: the newest serves.

    In its methods the engine offers ``self.emit(event)``, ``self.id``, ``self.version`` and
    ``self.system``.
    """

    __escqrs_name__: ClassVar[str]
    __escqrs_snapshots__: ClassVar[_Snapshots] = _Snapshots()

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        snapshot_every: int | None = None,
        snapshot_after: float | None = None,
        snapshot_on_passivation: bool | None = None,
        snapshot_keep: int | None = None,
        **keywords: Any,
    ) -> None:
        if "was" in keywords:
            raise TypeError(
                f"{cls.__name__}: an aggregate's name is part of the names of its streams, so it "
                f"stays: class {cls.__name__}(es.Aggregate, name={keywords['was']!r})"
            )
        super().__init_subclass__(**keywords)
        if name is None:
            name = cls.__name__
        if not isinstance(name, str) or not name:
            raise TypeError(f"{cls.__name__}: name= is a str and not empty, got {name!r}")
        if "/" in name or "@" in name or "\0" in name:
            raise TypeError(
                f"{cls.__name__}: name={name!r} cannot hold `/`, `@` or NUL: streams are named "
                "name/id"
            )
        cls.__escqrs_name__ = name
        cls.__escqrs_snapshots__ = _snapshots(
            cls, snapshot_every, snapshot_after, snapshot_on_passivation, snapshot_keep
        )
        _refuse_names(cls)
        try:
            _read(cls)
        except TypeError as error:
            if not isinstance(error.__context__, NameError):
                raise
        _core.register(cls)

    def __repr__(self) -> str:
        fields = "".join(f", {name}={value!r}" for name, value in self.__escqrs_fields__.items())
        return f"{type(self).__name__}({self.id!r}, version={self.version}{fields})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Aggregate) or type(other) is not type(self):
            return NotImplemented
        return (
            self.id == other.id
            and self.version == other.version
            and self.__escqrs_fields__ == other.__escqrs_fields__
        )

    __hash__ = None  # type: ignore[assignment]


def _refuse_names(cls: type) -> None:
    """TypeError if the class, or a base of it that is no aggregate, defines what is the
    engine's."""
    for base in cls.__mro__:
        if base is object or (issubclass(base, _core.AggregateBase) and base is not cls):
            continue
        defined = {*vars(base), *inspect.get_annotations(base)}
        for refused in _RESERVED:
            if refused in defined:
                raise TypeError(
                    f"{base.__name__}.{refused}: in an aggregate `{refused}` is the engine's; use "
                    "another name"
                )
        if base is not Generic and not defined.isdisjoint(("__init__", "__new__")):
            raise TypeError(
                f"{base.__name__}: an aggregate has no __init__: its state begins with the "
                "defaults of its annotated fields"
            )


# ---- reading a class -----------------------------------------------------------------------------


class _Description:
    """What was read of a class; message classes as they were then."""

    __slots__ = ("appliers", "fingerprint", "handlers", "layout")

    def __init__(self, cls: type[Aggregate]) -> None:
        marked = _marked(cls)
        names = Names(cls)
        self.handlers = _by_class(cls, marked, "command", names)
        self.appliers = _by_class(cls, marked, "event", names)
        self.layout = layout_of_state(
            cls, cls.__escqrs_name__, stop=(Aggregate, _core.AggregateBase, object)
        )
        self.fingerprint = _fingerprint(self.appliers)


_descriptions: weakref.WeakKeyDictionary[type[Aggregate], _Description] = (
    weakref.WeakKeyDictionary()
)


def _read(cls: type[Aggregate]) -> _Description:
    found = _descriptions.get(cls)
    if found is None:
        found = _descriptions[cls] = _Description(cls)
    return found


def describe(cls: type[Aggregate]) -> tuple[Any, ...]:
    """For C: (name, layout, fingerprint, handlers, appliers, (snapshot_every, _after in ns, _keep,
    _on_passivation)), message classes in their newest definitions. TypeError names what is wrong
    in the class."""
    read = _read(cls)
    every, after, keep, on_passivation = cls.__escqrs_snapshots__
    replay_ns = 0 if after is None else max(1, int(min(after, _SECONDS_MAX) * 1e9))
    return (
        cls.__escqrs_name__,
        read.layout,
        read.fingerprint,
        {
            _core.newest(command): (function, _reply_check(command))
            for command, function in read.handlers.items()
        },
        [(_core.newest(event), function) for event, function in read.appliers.items()],
        (every, replay_ns, keep, on_passivation),
    )


def _marked(cls: type) -> dict[str, Any]:
    """The marked methods of a class and its bases by attribute; what a subclass redefines counts
    alone."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for key, value in vars(base).items():
            if hasattr(value, "__escqrs_mark__"):
                found[key] = value
            else:
                found.pop(key, None)
    return found


def _by_class(
    cls: type, marked: dict[str, Any], kind: str, names: Names
) -> dict[type, Callable[..., Any]]:
    decorator = "handles" if kind == "command" else "applies"
    found: dict[type, Callable[..., Any]] = {}
    for function in marked.values():
        if function.__escqrs_mark__.kind != kind:
            continue
        classes = function.__escqrs_mark__.classes
        for given in classes or _annotated(cls, function, decorator, names):
            one = _core.twin(given, kind)
            if getattr(one, "__escqrs_kind__", None) != kind or one.__escqrs_abstract__:
                article = "a command" if kind == "command" else "an event"
                raise TypeError(
                    f"{function.__qualname__}: @es.{decorator} is for {article} class, not {one!r}"
                )
            before = found.get(one)
            if before is not None:
                raise TypeError(
                    f"{cls.__name__}: both {before.__name__} and {function.__name__} "
                    f"{'handle' if kind == 'command' else 'apply'} {one.__name__}; one {kind}, one "
                    "method"
                )
            found[one] = function
    return found


def _annotated(
    cls: type, function: Callable[..., Any], decorator: str, names: Names
) -> tuple[Any, ...]:
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2:
        raise TypeError(
            f"{function.__qualname__}: an @es.{decorator} method takes self and one more parameter"
        )
    annotation = parameters[1].annotation
    if annotation is inspect.Parameter.empty:
        raise TypeError(
            f"{function.__qualname__}: annotate the parameter {parameters[1].name!r}: its class "
            f"says what the method {decorator}"
        )
    if isinstance(annotation, type):
        return (annotation,)
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    variables = getattr(function, "__globals__", {})
    try:
        resolved = typing.get_type_hints(holder, variables, names)["it"]
    except NameError as error:
        raise TypeError(
            f"{function.__qualname__}: {error}; define it before {cls.__name__} is opened"
        ) from None
    if typing.get_origin(resolved) in (typing.Union, types.UnionType):
        return typing.get_args(resolved)
    return (resolved,)


def _fingerprint(appliers: dict[type, Callable[..., Any]]) -> str:
    """Of what replay does: snapshots of another reducer are not used."""
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for event, function in sorted(appliers.items(), key=lambda pair: pair[0].__name__):
        digest.update(event.__name__.encode())
        _digest_function(digest, function)
    return digest.hexdigest()[:16]


def _digest_function(digest: Any, function: Any) -> None:
    """Its code, its defaults and what it closes over."""
    _digest_code(digest, getattr(function, "__code__", None))
    _digest_values(digest, getattr(function, "__defaults__", None) or ())
    by_name = sorted((getattr(function, "__kwdefaults__", None) or {}).items())
    digest.update(repr([name for name, _value in by_name]).encode())
    _digest_values(digest, (value for _name, value in by_name))
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # still empty
            _digest_values(digest, (cell.cell_contents,))


def _digest_values(digest: Any, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, types.FunctionType):
            _digest_code(digest, value.__code__)
        else:
            digest.update(_constant_text(value).encode())


def _digest_code(digest: Any, code: types.CodeType | None) -> None:
    if code is None:
        return
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _digest_code(digest, constant)
        else:
            digest.update(_constant_text(constant).encode())


def _constant_text(constant: object) -> str:
    """The same in every process: the order of a set is not, nor is an object's address."""
    if isinstance(constant, tuple | list):
        items = [_constant_text(one) for one in cast("Iterable[object]", constant)]
        return f"({','.join(items)})"
    if isinstance(constant, frozenset | set):
        items = [_constant_text(one) for one in cast("Iterable[object]", constant)]
        return f"{{{','.join(sorted(items))}}}"
    if isinstance(constant, dict):
        pairs = cast("dict[object, object]", constant).items()
        items = [f"{_constant_text(key)}:{_constant_text(value)}" for key, value in pairs]
        return f"{{{','.join(items)}}}"
    return repr(constant) if isinstance(constant, _PLAIN) else type(constant).__qualname__


# ---- replies -------------------------------------------------------------------------------------


def _reply_annotation(command: Any) -> Any:
    """The R of ``Command[R]`` with its names resolved; None for a bare Command."""
    annotation = command.__escqrs_reply__
    plain = annotation is None or isinstance(annotation, (type, TypeVar))
    if plain and not typing.get_args(annotation):
        return annotation
    if isinstance(annotation, str):
        annotation = typing.ForwardRef(annotation)
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    variables = vars(sys.modules.get(command.__module__, types.SimpleNamespace()))
    try:
        return typing.get_type_hints(holder, variables, Names(command))["it"]
    except NameError as error:
        raise TypeError(
            f"{command.__name__}: {error}; define it before an aggregate that handles "
            f"{command.__name__} is opened"
        ) from None


def _reply_check(command: type) -> Any:
    """None (anything goes), a class, or a function that says whether a reply is of the type in
    ``Command[R]``."""
    annotation = _reply_annotation(command)
    if annotation is None or annotation is Any or annotation is object:
        return None
    if type(annotation) is type:
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, Message):
        return annotation if _core.newest(annotation) is annotation else _checker(annotation)
    return _checker(annotation)


def _checker(annotation: Any) -> Callable[[Any], bool]:
    origin: Any = typing.get_origin(annotation)
    arguments: tuple[Any, ...] = typing.get_args(annotation)
    if annotation is None:
        return lambda value: value is None
    if annotation is Any or annotation is object or isinstance(annotation, TypeVar):
        return lambda value: True
    if annotation is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is typing.Never or annotation is typing.NoReturn:
        return lambda value: False
    if origin in (typing.Union, types.UnionType):
        several = [_checker(one) for one in arguments]
        return lambda value: any(check(value) for check in several)
    if origin is Literal:
        return lambda value: any(value == one and type(value) is type(one) for one in arguments)
    if origin is typing.Annotated:
        return _checker(arguments[0])
    if origin is type:
        return lambda value: (
            isinstance(value, type)
            and (not isinstance(arguments[0], type) or issubclass(value, arguments[0]))
        )
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        several = [_checker(one) for one in arguments]
        return lambda value: (
            isinstance(value, tuple)
            and len(value) == len(several)
            and all(check(one) for check, one in zip(several, value, strict=True))
        )
    if inspect.isclass(origin) and not issubclass(origin, Generic):
        return _container_checker(origin, arguments)
    if isinstance(annotation, type):
        return _class_checker(annotation)
    # NewType; a type alias of Python 3.12
    inner = getattr(annotation, "__supertype__", getattr(annotation, "__value__", None))
    if inner is not None:
        return _checker(inner)
    return lambda value: True


def _class_checker(cls: type[Any]) -> Callable[[Any], bool]:
    if typing.is_typeddict(cls):
        return lambda value: isinstance(value, dict)
    if getattr(cls, "_is_protocol", False) and not getattr(cls, "_is_runtime_protocol", False):
        return lambda value: True  # nothing says what has it
    newest = _core.newest(cls)  # of a message class in a notebook whose cell was run again
    return lambda value: isinstance(value, (cls, newest))


def _container_checker(origin: type[Any], arguments: tuple[Any, ...]) -> Callable[[Any], bool]:
    if len(arguments) == 2 and arguments[-1] is not Ellipsis and hasattr(origin, "keys"):
        key, item = _checker(arguments[0]), _checker(arguments[1])
        return lambda value: (
            isinstance(value, origin)
            and all(key(one) and item(other) for one, other in value.items())
        )
    if hasattr(origin, "__len__") and arguments:
        item = _checker(arguments[0])
        return lambda value: isinstance(value, origin) and all(item(one) for one in value)
    return lambda value: isinstance(value, origin)


def _plain(value: Any) -> Any:
    """A reply as JSON can hold it: what JSON has no type for is an object with one key, the
    type."""
    kind: type = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if isinstance(value, Message):
        data = base64.b64encode(_core.to_bytes(value)).decode()
        return {"message": [type(value).__escqrs_name__, data]}
    if kind is float:
        return {"float": value.hex()}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if kind is datetime.datetime:
        return {"datetime": value.isoformat()}
    if kind in (list, tuple, set, frozenset):
        return {kind.__name__: [_plain(one) for one in value]}
    if kind is dict:
        return {"dict": [[_plain(key), _plain(item)] for key, item in value.items()]}
    raise TypeError(
        f"the reply to a command with a key is stored, and {kind.__name__} cannot be: use "
        "messages, str, int, float, bool, bytes, datetime, None, and lists, tuples, sets and dicts "
        "of these"
    )


def encode_reply(value: Any) -> bytes:
    """For C: a reply as it is stored with its command's key."""
    return json.dumps(_plain(value), separators=(",", ":")).encode()


def _rich(value: Any, classes: dict[str, type[Message]]) -> Any:
    if not isinstance(value, dict):
        return value
    tagged: dict[str, Any] = value
    ((kind, inner),) = tagged.items()
    if kind == "message":
        cls = classes.get(inner[0])
        if cls is None:
            raise UnknownType(
                f"the stored reply is a {inner[0]}, and no class of that name is known here"
            )
        return _core.from_bytes(cls, base64.b64decode(inner[1]))
    if kind == "float":
        return float.fromhex(inner)
    if kind == "bytes":
        return base64.b64decode(inner)
    if kind == "datetime":
        return datetime.datetime.fromisoformat(inner)
    if kind == "dict":
        return {_rich(key, classes): _rich(item, classes) for key, item in inner}
    makers: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    return makers[kind](_rich(one, classes) for one in inner)


def _messages_in(annotation: Any, found: dict[str, type[Message]]) -> None:
    if isinstance(annotation, type) and issubclass(annotation, Message):
        found[annotation.__escqrs_name__] = annotation
    for one in typing.get_args(annotation):
        _messages_in(one, found)


def decode_reply(system: Any, command: object, data: bytes) -> Any:
    """For C: the stored reply of a command whose key was used before."""
    classes: dict[str, type[Message]] = dict(system._events)
    _messages_in(_reply_annotation(_core.twin(type(command), "command")), classes)
    return _rich(json.loads(data), classes)
