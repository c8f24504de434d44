"""Message classes: what is checked when one is made, and the base classes.

The classes themselves, their instances and the codec are C (``escqrs._core``). What the author
of a class wrote is read here, its fields in ``_field.py``, their annotations in ``_annotation.py``,
and handed to C in small tuples. The metaclass calls :func:`_prepare` before a class is made and
:func:`_resolve` after it, and again at the first use of a class whose annotations named something
that did not exist yet.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from . import _core
from ._annotation import Names, evaluate, read_shape, spec_of
from ._field import (
    NUMBER_MAX,
    Declared,
    Field,
    check_order,
    declare,
    fields_of_state,
    former_names,
    is_unicode,
)

if TYPE_CHECKING:
    import typing_extensions

    R_co = typing_extensions.TypeVar("R_co", covariant=True, default=Any)
else:
    R_co = TypeVar("R_co", covariant=True)

__all__ = ["Command", "Event", "Message"]


_REFUSED = {
    "__init__": "write __post_init__ to check a message that was made",
    "__new__": "write __post_init__ to check a message, or a class method to make one",
    "__del__": "a message is a value",
    "__slots__": "they follow from the fields",
    "__setattr__": "a message is immutable",
    "__delattr__": "a message is immutable",
}


class _History(NamedTuple):
    """What a class says it has been: class keywords."""

    was: tuple[str, ...]
    version: int | None
    reserved: tuple[int | str, ...]


def _history(name: str, given: dict[str, Any], parents: Iterable[Any], kinds: set[str]) -> _History:
    was = former_names(f"{name}: was=", given.get("was", ()))
    version = given.get("version")
    if version is not None:
        if isinstance(version, bool) or not isinstance(version, int):
            raise TypeError(f"{name}: version= is an int, got {version!r}")
        if not 1 <= version < 2**32:
            raise TypeError(f"{name}: version= counts from 1 in 32 bits, got {version}")
        if kinds != {"event"}:
            raise TypeError(f"{name}: version= is for events; others are not stored by themselves")
    several = given.get("reserved", ())
    several = (several,) if isinstance(several, (int, str)) else tuple(several)
    for one in several:
        good = isinstance(one, str) or (isinstance(one, int) and not isinstance(one, bool))
        if not good or (isinstance(one, int) and not 1 <= one <= NUMBER_MAX):
            raise TypeError(
                f"{name}: reserved= has numbers and names of fields that were removed, got {one!r}"
            )
    inherited: list[int | str] = []
    for base in parents:
        names = cast("Mapping[str, Any]", vars(base))
        inherited.extend(names.get("__escqrs_reserved__", ()))
    return _History(was, version, tuple(dict.fromkeys([*inherited, *several])))


def _prepare(
    name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
    stored: object,
    history: dict[str, Any],
) -> tuple[dict[str, Any], tuple[Declared, ...], tuple[str, ...], str, object]:
    """Before a class is made: its namespace, all its fields, the names of its own ones, its stored
    name and the R of ``Command[R]`` (or None)."""
    variables = _globals_of(str(namespace.get("__module__", "")))
    if not isinstance(stored, str):
        raise TypeError(f"{name}: name= must be a str, got {stored!r}")
    if not stored:
        raise TypeError(f"{name}: name= must not be empty")
    if not is_unicode(stored):
        raise TypeError(f"{name}: name={stored!a} is not valid Unicode: it has a lone surrogate")
    for refused, reason in _REFUSED.items():
        if refused in namespace:
            raise TypeError(f"{name}: a message class cannot define {refused}: {reason}")

    parents = [base for base in bases if isinstance(base, _core.MessageMeta)]
    carriers = [base for base in parents if base.__escqrs_fields__]
    for base in carriers[1:]:
        if not issubclass(carriers[0], base):
            raise TypeError(
                f"{name}: fields can be inherited from one message class only, not from both "
                f"{carriers[0].__name__} and {base.__name__}; nest one of them as a field"
            )
    kinds = {base.__escqrs_kind__ for base in parents} - {"message"}
    if len(kinds) > 1:
        raise TypeError(f"{name}: a message is either an event or a command, not both")

    fields: dict[str, Declared] = {}
    if carriers:
        fields.update((one.name, one) for one in _core.declared(carriers[0]))
    past = _history(name, history, parents, kinds)
    own = declare(
        name, variables, namespace.get("__annotations__", {}), namespace, fields, past.reserved
    )
    fields.update(own)
    check_order(name, fields)
    for key, value in namespace.items():
        if isinstance(value, Field) and key not in own:
            raise TypeError(
                f"{name}.{key}: es.field needs an annotation: `{key}: int = es.field(...)`"
            )
        if key in fields and key not in own:
            raise TypeError(
                f"{name}.{key}: hides the inherited field; annotate it to declare it anew"
            )

    made = {key: value for key, value in namespace.items() if key not in own}
    made["__slots__"] = ()
    made["__escqrs_was__"] = tuple(one for one in past.was if one != stored)
    made["__escqrs_version__"] = past.version
    made["__escqrs_reserved__"] = past.reserved
    made.setdefault(
        "__match_args__", tuple(one.name for one in fields.values() if not one.keyword_only)
    )
    return made, tuple(fields.values()), tuple(own), stored, _reply_of(name, namespace, bases)


def _reply_of(name: str, namespace: dict[str, Any], bases: tuple[type, ...]) -> object:
    """The R of ``Command[R]`` among the bases as written; None where there is none."""
    for base in namespace.get("__orig_bases__", ()):
        origin = typing.get_origin(base)
        if isinstance(origin, _core.MessageMeta) and origin.__escqrs_kind__ == "command":
            inherited = origin.__escqrs_reply__
            arguments = typing.get_args(base)
            if origin.__escqrs_abstract__ or isinstance(inherited, TypeVar):
                return arguments[0]
            return inherited[arguments] if getattr(inherited, "__parameters__", ()) else inherited
    return None


def _globals_of(module: str) -> dict[str, Any]:
    """The globals of the code that defines a class: of the running frame if it is that module's."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is not globals() and frame.f_globals.get("__name__") == module:
            return frame.f_globals
        frame = frame.f_back
    return vars(sys.modules[module]) if module in sys.modules else {}


def _resolve(cls: type, final: bool) -> bool:
    """Read the annotations of a message class and seal its layout. False where a name is not
    defined yet; with ``final`` that is a TypeError."""
    declared: tuple[Declared, ...] = _core.declared(cls)
    names: Names | None = None
    complete = True
    for one in declared:
        if one.spec is not None:
            continue
        if names is None:
            names = Names(cls, final)
        try:
            one.spec = spec_of(one, evaluate(one, names))
        except NameError as error:
            if final:
                raise one.error(f"{error}; define it before the class is first used") from None
            complete = False
    if complete:
        was: tuple[str, ...] = vars(cls)["__escqrs_was__"]
        _core.seal(_core.layout_of(cls), tuple(one.spec for one in declared), was)
    return complete


def _signature(cls: type) -> inspect.Signature:
    """For help() and inspect: the fields as parameters."""
    parameters: list[inspect.Parameter] = []
    for one in sorted(_core.declared(cls), key=lambda one: one.keyword_only):
        default: object = inspect.Parameter.empty
        if one.has_default:
            default = one.factory if one.factory is not None else one.default
        parameters.append(
            inspect.Parameter(
                one.name,
                inspect.Parameter.KEYWORD_ONLY
                if one.keyword_only
                else inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=default,
                annotation=one.annotation,
            )
        )
    return inspect.Signature(parameters)


def layout_of_state(cls: type, name: str, *, stop: tuple[type, ...] = (object,)) -> _core.Layout:
    """The layout of the annotated fields of an ordinary class (an aggregate's state) under the
    stored name ``name``.

    Classes of the MRO that are in ``stop`` are left aside. Fields need no default. The class
    attributes stay as they are, ``es.field`` objects among them: see :func:`fields_of_state`.
    Raises TypeError naming class and field.
    """
    layout = _core.new_layout(cls.__name__, name)
    names: Names | None = None
    specs: list[tuple[Any, ...]] = []
    for one in fields_of_state(cls, stop=stop):
        if names is None:
            names = Names(cls)
        try:
            annotation = evaluate(one, names)
            specs.append(spec_of(one, annotation))
        except NameError as error:
            raise one.error(f"{error}; define it before the class is first used") from None
        if read_shape(one, annotation).collection == _core.AS_SET:
            raise one.error("a state has no set[T]: use frozenset[T], and assign a new one")
    _core.seal(layout, tuple(specs))
    return layout


_core.bind(_prepare, _resolve, _signature)


class Message(_core.MessageBase, metaclass=_core.MessageMeta):
    """Base of nested messages: a value with typed fields, immutable, comparable, stored as
    protobuf.

    A class derived from it declares its fields by annotations, as a dataclass does::

        >>> import escqrs as es
        >>> class Money(es.Message):
        ...     amount: int
        ...     currency: str = "EUR"
        >>> Money(5)
        Money(amount=5, currency='EUR')

    A field is str, int, float, bool, bytes, datetime, date, time, timedelta, Decimal, UUID, an
    Enum, a Literal, a message class, a union of message classes, T | None, list[T],
    tuple[T, ...], set[T], frozenset[T] or dict[K, T] of these; ``es.int32``, ``es.uint64`` and
    their like are ints of other ranges. ``name="shop.Money"`` as a class keyword is its name in a
    store, ``was="Money"`` the name that it had before, ``reserved=(3, "note")`` numbers and names
    of fields that were removed; ``= es.field(3)`` is a field's protobuf number, ``= es.field(3,
    was="old_name")`` one that was renamed. A ``__post_init__(self)`` may check a
    message that was just made; it is not called for stored ones.

    Two messages are equal if they are of one class (or of two definitions of the same class, as
    when a notebook's cell is run again) and all fields are. Integers have 64 bits. A datetime has a
    time zone and is kept in UTC. An enum's members are stored by their values where these are all
    ints of 32 bits, else by their order of declaration.
    """

    if TYPE_CHECKING:  # the metaclass takes it

        def __init_subclass__(
            cls,
            *,
            name: str | None = None,
            was: str | Iterable[str] = (),
            reserved: int | str | Iterable[int | str] = (),
            **keywords: Any,
        ) -> None: ...


class Event(Message):
    """Base of events: what has happened. See :class:`Message`.

    ``version=2`` as a class keyword counts the meanings of its fields: events that were stored with
    a lower one are read by ``es.upcast`` functions. Where none is given, it is one more than the
    highest of these, and 1 without them.
    """

    if TYPE_CHECKING:

        def __init_subclass__(
            cls,
            *,
            name: str | None = None,
            was: str | Iterable[str] = (),
            reserved: int | str | Iterable[int | str] = (),
            version: int | None = None,
            **keywords: Any,
        ) -> None: ...


class Command(Message, Generic[R_co]):
    """Base of commands: what somebody wants. ``Command[str]`` is one that is answered with a
    str."""


_core.set_base(Message, "message")
_core.set_base(Event, "event")
_core.set_base(Command, "command")
