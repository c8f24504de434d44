"""Message classes: from annotations to fields.

The classes themselves, their instances and the codec are C (``escqrs._core``). This module reads
what the author of a class wrote - annotations, defaults, ``es.field`` - checks it and hands it to C
in small tuples. It is called by the metaclass: :func:`_prepare` before a class is made,
:func:`_resolve` after it, and again at the first use of a class whose annotations named something
that did not exist yet.
"""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, NamedTuple, TypeVar, cast

from . import _core

if TYPE_CHECKING:
    import typing_extensions

    R_co = typing_extensions.TypeVar("R_co", covariant=True, default=Any)
else:
    R_co = TypeVar("R_co", covariant=True)

__all__ = [
    "Command",
    "Event",
    "Message",
    "field",
    "int32",
    "int64",
    "naive_datetime",
    "sint32",
    "sint64",
    "uint32",
    "uint64",
]

NUMBER_MAX = 536_870_911  # of a protobuf field
_RESERVED = range(19_000, 20_000)  # protobuf keeps these field numbers for itself
_INT32 = range(-(2**31), 2**31)

_SCALARS: dict[object, int] = {
    int: _core.INT,
    float: _core.FLOAT,
    bool: _core.BOOL,
    str: _core.STRING,
    bytes: _core.BYTES,
    datetime.datetime: _core.TIME,
    datetime.date: _core.DATE,
    datetime.time: _core.CLOCK,
    datetime.timedelta: _core.DURATION,
}
_IMPORTED = {("decimal", "Decimal"): _core.DECIMAL, ("uuid", "UUID"): _core.UUID}


class _Kind(NamedTuple):
    """Metadata of an ``Annotated``: stored as another kind than its type's own."""

    kind: int


int32 = Annotated[int, _Kind(_core.INT32)]
int64 = Annotated[int, _Kind(_core.INT)]
uint32 = Annotated[int, _Kind(_core.UINT32)]
uint64 = Annotated[int, _Kind(_core.UINT64)]
sint32 = Annotated[int, _Kind(_core.SINT32)]
sint64 = Annotated[int, _Kind(_core.SINT64)]
float32 = Annotated[float, _Kind(_core.FLOAT32)]
fixed32 = Annotated[int, _Kind(_core.FIXED32)]
fixed64 = Annotated[int, _Kind(_core.FIXED64)]
sfixed32 = Annotated[int, _Kind(_core.SFIXED32)]
sfixed64 = Annotated[int, _Kind(_core.SFIXED64)]
naive_datetime = Annotated[datetime.datetime, _Kind(_core.LOCAL)]

_KEYS = frozenset(
    {
        _core.STRING, _core.INT, _core.BOOL, _core.INT32, _core.UINT32, _core.UINT64, _core.SINT32,
        _core.SINT64, _core.DATE, _core.CLOCK, _core.LOCAL, _core.DECIMAL, _core.UUID,
        _core.FIXED32, _core.FIXED64, _core.SFIXED32, _core.SFIXED64,
    }
)  # fmt: skip
_COLLECTIONS: dict[object, int] = {
    list: _core.AS_LIST,
    tuple: _core.AS_TUPLE,
    set: _core.AS_SET,
    frozenset: _core.AS_FROZENSET,
}
_ALLOWED = (
    "a field is str, int, float, bool, bytes, datetime, date, time, timedelta, Decimal, UUID, an "
    "Enum, a Literal, a message class, a union of message classes, T | None, list[T], "
    "tuple[T, ...], set[T], frozenset[T], dict[K, T] or tuple[T1, T2] of these"
)
_KEYWORD_ONLY = re.compile(r"\s*(?:\w+\s*\.\s*)*KW_ONLY\s*$")
_CLASS_VAR = re.compile(r"\s*(?:\w+\s*\.\s*)*ClassVar\b")
_REFUSED = {
    "__init__": "write __post_init__ to check a message that was made",
    "__new__": "write __post_init__ to check a message, or a class method to make one",
    "__del__": "a message is a value",
    "__slots__": "they follow from the fields",
    "__setattr__": "a message is immutable",
    "__delattr__": "a message is immutable",
}


class _Missing:
    """The type of the one value that stands for "not given"."""

    def __repr__(self) -> str:
        return "<not given>"


_MISSING = _Missing()


class _Field:
    """What ``es.field(...)`` returns: number and default of one field, until the class is made."""

    __slots__ = ("default", "default_factory", "kw_only", "number", "was")

    def __init__(
        self,
        number: object,
        default: object,
        default_factory: object,
        kw_only: bool,
        was: tuple[str, ...],
    ) -> None:
        self.number = number
        self.was = was
        self.kw_only = kw_only
        self.default = default
        self.default_factory = default_factory


def field(
    number: int | None = None,
    *,
    default: Any = _MISSING,
    default_factory: Callable[[], Any] | _Missing = _MISSING,
    kw_only: bool = False,
    was: str | Iterable[str] = (),
) -> Any:
    """Say more of a field than its type: ``x: int = es.field(3, default=5)``.

    number: the field's protobuf number, 1 to 536,870,911; by default one more than the highest
    before it.
    default: the value where none is given, also for stored messages that do not have the field.
    default_factory: called without arguments for each message that needs the default.
    kw_only: the value is given by name only, as are those of all fields behind ``_: KW_ONLY``
    (of ``dataclasses``).
    was: the name, or names, that the field had in stored data: it was renamed.
    """
    if not isinstance(default, _Missing) and not isinstance(default_factory, _Missing):
        raise TypeError("es.field: give default or default_factory, not both")
    if not isinstance(default_factory, _Missing) and not callable(default_factory):
        raise TypeError(f"es.field: default_factory must be callable, got {default_factory!r}")
    return _Field(number, default, default_factory, kw_only, _names("es.field: was", was))


def _names(what: str, given: Any) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    try:
        several = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        several = (given,)
    if not all(isinstance(one, str) and one for one in several):
        raise TypeError(f"{what} is a former name or a list of them, got {given!r}")
    return tuple(dict.fromkeys(several))


def _is_of_dataclasses(given: object) -> bool:
    return isinstance(given, dataclasses.Field)


def _from_dataclasses(title: str, name: str, given: Any) -> _Field:
    """``dataclasses.field(...)``, as far as it says what ``es.field(...)`` can say."""
    if not (given.init and given.repr and given.compare and given.hash in (None, True)):
        raise TypeError(
            f"{title}.{name}: a field of a message is given, shown and compared; dataclasses.field "
            "with init, repr, compare or hash is for dataclasses"
        )
    missing = dataclasses.MISSING
    return _Field(
        None,
        _MISSING if given.default is missing else given.default,
        _MISSING if given.default_factory is missing else given.default_factory,
        given.kw_only is True,
        (),
    )


class _Declared:
    """One field as declared; ``spec`` is what C needs of it, once its annotation could be read."""

    __slots__ = (
        "annotation",
        "default",
        "factory",
        "keyword_only",
        "name",
        "number",
        "spec",
        "title",
        "variables",
        "was",
    )

    def __init__(
        self,
        title: str,
        variables: dict[str, Any],
        name: str,
        annotation: object,
        given: object,
        number: int,
        keyword_only: bool,
    ) -> None:
        self.keyword_only = keyword_only
        self.title = title  # the class that declared it
        self.variables = variables  # the globals that the annotation refers to
        self.name = name
        self.annotation = annotation
        self.number = number
        self.default: object = given
        self.factory: object = None
        self.spec: tuple[Any, ...] | None = None
        self.was: tuple[str, ...] = ()
        if isinstance(given, _Field):
            self.was = given.was
            self.default = given.default
            if not isinstance(given.default_factory, _Missing):
                self.factory = given.default_factory

    @property
    def has_default(self) -> bool:
        return self.factory is not None or not isinstance(self.default, _Missing)

    def error(self, text: str) -> TypeError:
        return TypeError(f"{self.title}.{self.name}: {text}")


def _is_class_var(annotation: object) -> bool:
    if isinstance(annotation, str):
        return _CLASS_VAR.match(annotation) is not None
    return annotation is typing.ClassVar or typing.get_origin(annotation) is typing.ClassVar


def _is_keyword_only(name: str, annotation: object) -> bool:
    """``_: KW_ONLY``, as dataclasses have it."""
    if isinstance(annotation, str):
        return name == "_" and _KEYWORD_ONLY.match(annotation) is not None
    return name == "_" and annotation is dataclasses.KW_ONLY


def _declare(
    title: str,
    variables: dict[str, Any],
    annotations: Mapping[str, object],
    values: Mapping[str, object],
    inherited: Mapping[str, _Declared],
    reserved: tuple[int | str, ...] = (),
) -> dict[str, _Declared]:
    """The fields that one class declares, by name, in order, numbered after the inherited ones;
    numbers and names that are reserved are left out."""
    highest = max((one.number for one in inherited.values()), default=0)
    numbers = {one.number: one.name for one in inherited.values()}
    found: dict[str, _Declared] = {}
    keyword_only = False
    for name, annotation in annotations.items():
        if _is_class_var(annotation):
            continue
        if _is_keyword_only(name, annotation):
            keyword_only = True
            continue
        if name.startswith("_"):
            raise TypeError(
                f"{title}.{name}: names that begin with `_` are reserved; choose another"
            )
        given = values.get(name, _MISSING)
        if _is_of_dataclasses(given):
            given = _from_dataclasses(title, name, given)
        asked = given.number if isinstance(given, _Field) else None
        before = inherited.get(name)
        if asked is None:
            number = _next(highest, reserved) if before is None else before.number
        elif isinstance(asked, bool) or not isinstance(asked, int):
            raise TypeError(f"{title}.{name}: a field's number is an int, got {asked!r}")
        else:
            number = asked
        if not 1 <= number <= NUMBER_MAX or number in _RESERVED:
            raise TypeError(
                f"{title}.{name}: {number} cannot be a field's number: protobuf allows 1 to "
                f"{NUMBER_MAX:,} without 19,000 to 19,999"
            )
        if number in reserved or name in reserved:
            raise TypeError(
                f"{title}.{name}: {name if name in reserved else number!r} is reserved: a field "
                "that was removed had it, and stored data has its values; choose another"
            )
        if numbers.get(number, name) != name:
            raise TypeError(
                f"{title}.{name}: the number {number} is taken by the field {numbers[number]!r}; "
                "give one of them another with es.field(number)"
            )
        numbers[number] = name
        highest = max(highest, number)
        by_name = keyword_only or (isinstance(given, _Field) and given.kw_only)
        found[name] = _Declared(title, variables, name, annotation, given, number, by_name)
    return found


def _next(number: int, reserved: tuple[int | str, ...]) -> int:
    number += 1
    while number in reserved:
        number += 1
    return number


class _History(NamedTuple):
    """What a class says it has been: class keywords."""

    was: tuple[str, ...]
    version: int | None
    reserved: tuple[int | str, ...]


def _history(name: str, given: dict[str, Any], parents: Iterable[Any], kinds: set[str]) -> _History:
    was = _names(f"{name}: was=", given.get("was", ()))
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


def _check_order(title: str, fields: Mapping[str, _Declared]) -> None:
    first: str | None = None
    for name, one in fields.items():
        if one.keyword_only:
            continue
        if one.has_default:
            first = first or name
        elif first is not None:
            raise TypeError(
                f"{title}.{name}: a field without a default cannot follow {first!r}, which has "
                "one; give it a default, or declare it earlier with its number: es.field(number)"
            )


def _is_unicode(text: str) -> bool:
    """Can it be written as UTF-8?"""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _prepare(
    name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
    stored: object,
    history: dict[str, Any],
) -> tuple[dict[str, Any], tuple[_Declared, ...], tuple[str, ...], str, object]:
    """Before a class is made: its namespace, all its fields, the names of its own ones, its stored
    name and the R of ``Command[R]`` (or None)."""
    variables = _globals_of(str(namespace.get("__module__", "")))
    if not isinstance(stored, str):
        raise TypeError(f"{name}: name= must be a str, got {stored!r}")
    if not stored:
        raise TypeError(f"{name}: name= must not be empty")
    if not _is_unicode(stored):
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

    fields: dict[str, _Declared] = {}
    if carriers:
        fields.update((one.name, one) for one in _core.declared(carriers[0]))
    past = _history(name, history, parents, kinds)
    own = _declare(
        name, variables, namespace.get("__annotations__", {}), namespace, fields, past.reserved
    )
    fields.update(own)
    _check_order(name, fields)
    for key, value in namespace.items():
        if isinstance(value, _Field) and key not in own:
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


class _Later:
    """What a running function has not assigned to a local variable yet."""


_LATER = _Later()


def _frames(cls: type) -> list[dict[str, Any]]:
    """Local variables of the functions and class bodies around a class that are running, innermost
    first. One that has no value yet is ``_LATER``: the class may mean what it will be, and not what
    has its name elsewhere."""
    around: set[str] = set()
    scope = cls.__qualname__.rpartition(".")[0]
    while scope:
        around.add(scope.removesuffix(".<locals>"))
        scope = scope.rpartition(".")[0]
    found: list[dict[str, Any]] = []
    frame: types.FrameType | None = sys._getframe(1) if around else None
    while frame is not None:
        if frame.f_code.co_qualname in around and frame.f_globals.get("__name__") == cls.__module__:
            code = frame.f_code
            found.append(dict.fromkeys((*code.co_varnames, *code.co_cellvars), _LATER))
            found[-1].update(frame.f_locals)
        frame = frame.f_back
    return found


class _Names(dict[str, Any]):
    """What an annotation may refer to beyond the module's globals: the class itself, classes nested
    in it, the local variables of the functions that are running, and message classes made in the
    same function before."""

    def __init__(self, cls: type, final: bool = True) -> None:
        super().__init__(
            (key, value)
            for base in reversed(cls.__mro__[:-1])
            for key, value in vars(base).items()
            if isinstance(value, type)
        )
        self.setdefault(cls.__name__, cls)
        self._module = cls.__module__
        self._scope = cls.__qualname__.rpartition(".")[0]
        self._frames = _frames(cls)
        self._final = final

    def __missing__(self, key: str) -> Any:
        for variables in self._frames:
            found = variables.get(key, _MISSING)
            if found is _LATER and not self._final:
                raise NameError(f"name {key!r} is not defined")
            if found is not _LATER and found is not _MISSING:
                return found
        scope = self._scope
        while scope:
            found = _core.find_class(self._module, f"{scope}.{key}")
            if found is not None:
                return found
            scope = scope.rpartition(".")[0]
        raise KeyError(key)


def _evaluate(one: _Declared, names: Mapping[str, Any]) -> object:
    if one.annotation in _PLAIN:
        return one.annotation
    holder = types.SimpleNamespace(__annotations__={one.name: one.annotation})
    try:
        hints = typing.get_type_hints(holder, one.variables, names, include_extras=True)
    except NameError:
        raise
    except Exception as error:
        raise one.error(f"the annotation {one.annotation!r} cannot be read: {error}") from error
    return hints[one.name]


class _Plain(dict[object, bool]):
    def __contains__(self, key: object) -> bool:
        try:
            return super().__contains__(key)
        except (
            TypeError
        ):  # an unhashable annotation; the reader of types refuses it with a better text
            return False


_PLAIN = _Plain((one, True) for one in _SCALARS)


def _resolve(cls: type, final: bool) -> bool:
    """Read the annotations of a message class and seal its layout. False where a name is not
    defined yet; with ``final`` that is a TypeError."""
    declared: tuple[_Declared, ...] = _core.declared(cls)
    names: _Names | None = None
    complete = True
    for one in declared:
        if one.spec is not None:
            continue
        if names is None:
            names = _Names(cls, final)
        try:
            one.spec = _spec(one, _evaluate(one, names))
        except NameError as error:
            if final:
                raise one.error(f"{error}; define it before the class is first used") from None
            complete = False
    if complete:
        was: tuple[str, ...] = vars(cls)["__escqrs_was__"]
        _core.seal(_core.layout_of(cls), tuple(one.spec for one in declared), was)
    return complete


class _Item(NamedTuple):
    """One value: its kind, its class if it has one, members of an enum or a union, values of a
    Literal, the items of a tuple of fixed size as fields."""

    kind: int
    cls: type | None = None
    members: tuple[tuple[object, str, int], ...] = ()
    literals: tuple[object, ...] = ()
    parts: tuple[tuple[Any, ...], ...] = ()


class _Shape(NamedTuple):
    """What an annotation stands for."""

    label: int
    item: _Item
    key: int = 0
    collection: int = _core.AS_LIST
    keys: tuple[tuple[object, str], ...] = ()  # members of an enum, and their names


def _spec(one: _Declared, annotation: object) -> tuple[Any, ...]:
    """(name, number, kind, label, key kind, has default, default, factory, class, members of an
    enum or a union, collection, literals, keyword-only, former names, items of a tuple, an enum's
    members as keys)"""
    label, item, key, collection, keys = _read(one, annotation)
    has = one.has_default
    default = one.default if has and one.factory is None else None
    return (
        one.name, one.number, item.kind, label, key, has, default, one.factory, item.cls,
        item.members, collection, item.literals, one.keyword_only, one.was, item.parts, keys,
    )  # fmt: skip


def _strip(annotation: Any) -> tuple[Any, int | None]:
    """Without Annotated, NewType and type aliases; and the kind that an Annotated asked for."""
    kind: int | None = None
    alias = getattr(typing, "TypeAliasType", ())
    while True:
        if typing.get_origin(annotation) is Annotated:
            for note in annotation.__metadata__:
                if isinstance(note, _Kind) and kind is None:
                    kind = note.kind
            annotation = annotation.__origin__
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif alias and isinstance(annotation, alias):
            annotation = annotation.__value__
        else:
            return annotation, kind


def _is_union(annotation: object) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _alternatives(annotation: object) -> list[object]:
    """The parts of a union, those of aliases and unions in it among them."""
    found: list[object] = []
    for part in typing.get_args(annotation):
        plain = _strip(part)[0]
        found.extend(_alternatives(plain) if _is_union(plain) else [part])
    return found


def _read(one: _Declared, annotation: object) -> _Shape:
    plain, _ = _strip(annotation)
    origin = typing.get_origin(plain)
    arguments = typing.get_args(plain)
    if _is_union(plain):
        parts = _alternatives(plain)
        inner = [part for part in parts if part is not type(None)]
        if len(inner) == len(parts):
            return _Shape(_core.ONE, _read_item(one, plain, inner))
        for part in inner:
            if _is_container(_strip(part)[0]) and not _is_fixed(_strip(part)[0]):
                raise one.error(
                    f"{_show(plain)} is not supported: protobuf does not tell an empty container "
                    "from an absent one; leave out `| None`, or wrap it in an es.Message"
                )
        return _Shape(_core.OPTIONAL, _read_item(one, plain, inner))
    if origin is typing.Literal and None in arguments:
        values = tuple(value for value in arguments if value is not None)
        return _Shape(_core.OPTIONAL, _literal(one, plain, values))
    container: object = origin or plain
    if _is_fixed(plain):
        return _Shape(_core.ONE, _read_one(one, annotation))
    if not arguments and _is_container(container):  # typing.List too
        raise one.error("say what it holds: list[T], tuple[T, ...], set[T], dict[K, T]")
    if origin is dict:
        key = _read_key(one, plain, arguments[0])
        keys = tuple((member, name) for member, name, _ in key.members)
        kind = _core.STRING if keys else key.kind
        return _Shape(_core.MAP, _read_inner(one, plain, arguments[1]), kind, keys=keys)
    if origin in _COLLECTIONS:
        item = _read_inner(one, plain, arguments[0])
        return _Shape(_core.LIST, item, collection=_COLLECTIONS[origin])
    return _Shape(_core.ONE, _read_one(one, annotation))


def _is_container(annotation: object) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, (list, dict, set, frozenset, tuple))


def _is_fixed(plain: object) -> bool:
    """tuple[T1, T2]"""
    arguments = typing.get_args(plain)
    return typing.get_origin(plain) is tuple and bool(arguments) and arguments[-1] is not ...


def _read_key(one: _Declared, whole: object, key: object) -> _Item:
    try:
        item = _read_one(one, key)
    except TypeError:
        item = _Item(0)
    if (item.kind not in _KEYS and item.kind != _core.ENUM) or item.literals:
        raise one.error(
            f"{_show(whole)} is not supported: a key is str, int, bool, date, time, Decimal, UUID "
            f"or an Enum, not {_show(key)}"
        )
    return item


def _read_parts(one: _Declared, whole: object) -> _Item:
    """tuple[T1, T2]: a message whose fields are item_1, item_2."""
    specs: list[tuple[Any, ...]] = []
    for number, annotation in enumerate(typing.get_args(whole), 1):
        part = _Declared(
            one.title, one.variables, f"item_{number}", annotation, _MISSING, number, False
        )
        plain = _strip(annotation)[0]
        if _is_container(plain) and not _is_fixed(plain):
            raise one.error(
                f"{_show(whole)} is not supported: what a container holds cannot be a list, a set "
                "or a dict; wrap it in an es.Message"
            )
        specs.append(_spec(part, annotation))
    return _Item(_core.MESSAGE, parts=tuple(specs))


def _read_inner(one: _Declared, whole: object, item: object) -> _Item:
    """What a container holds."""
    plain, _ = _strip(item)
    if _is_container(plain) and not _is_fixed(plain):
        raise one.error(
            f"{_show(whole)} is not supported: a container cannot hold containers; "
            "wrap the inner one in an es.Message"
        )
    parts = _alternatives(plain) if _is_union(plain) else [item]
    if type(None) in parts or (
        typing.get_origin(plain) is typing.Literal and None in typing.get_args(plain)
    ):
        raise one.error(
            f"{_show(whole)} is not supported: what a container holds cannot be None; wrap it in "
            "an es.Message"
        )
    return _read_item(one, whole, parts)


def _read_item(one: _Declared, whole: object, parts: list[object]) -> _Item:
    """One type, a union of message classes, or one of Literals, which is one with the values of
    all."""
    if len(parts) == 1:
        return _read_one(one, parts[0])
    plains = [_strip(part)[0] for part in parts]
    if all(typing.get_origin(plain) is typing.Literal for plain in plains):
        values = [value for plain in plains for value in typing.get_args(plain)]
        return _literal(one, whole, tuple(dict.fromkeys(values)))
    items = [plain if isinstance(plain, _core.MessageMeta) else None for plain in plains]
    classes = [cls for cls in items if cls is not None]
    if len(classes) < len(parts):
        raise one.error(
            f"{_show(whole)} is not supported: a union is T | None, or of message classes; "
            f"{_ALLOWED}"
        )
    members: dict[str, tuple[object, str, int]] = {}
    for number, cls in enumerate(classes, 1):
        _read_one(one, cls)
        name = _snake(cls.__escqrs_name__)
        if name in members:
            raise one.error(
                f"{_show(whole)}: two of its classes are named {name!r} in protobuf; give one of "
                "them another name with name="
            )
        members[name] = (cls, name, number)
    return _Item(_core.MESSAGE, None, tuple(members.values()))


def _snake(name: str) -> str:
    """ "shop.CardPayment" to "card_payment"."""
    last = name.rpartition(".")[2].lstrip("_")
    return re.sub(r"(?<=[^\W_])(?=[A-Z][^\WA-Z_])|(?<=[^\WA-Z_])(?=[A-Z])", "_", last).lower()


def _literal(one: _Declared, whole: object, values: tuple[object, ...]) -> _Item:
    if values and all(type(value) is str for value in values):
        if not all(_is_unicode(str(value)) for value in values):
            raise one.error(f"{_show(whole)} is not valid Unicode: it has a lone surrogate")
        return _Item(_core.STRING, literals=values)
    if values and all(type(value) is int for value in values):
        return _Item(_core.INT, literals=values)
    raise one.error(
        f"{_show(whole)} is not supported: the values of a Literal are all str or all int; use an "
        "Enum for others"
    )


def _read_one(one: _Declared, annotation: object) -> _Item:
    plain, kind = _strip(annotation)
    if kind is not None:
        return _Item(kind)
    if plain in _PLAIN:
        return _Item(_SCALARS[plain])
    if _is_fixed(plain):
        return _read_parts(one, plain)
    if typing.get_origin(plain) is typing.Literal:
        return _literal(one, plain, typing.get_args(plain))
    if isinstance(plain, _core.MessageMeta):
        if plain.__escqrs_abstract__:
            raise one.error(
                f"es.{plain.__name__} itself has no fields; name a class derived from it"
            )
        return _Item(_core.MESSAGE, plain)
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        if issubclass(plain, enum.Flag):
            raise one.error(
                f"{plain.__name__} is a Flag, whose values combine; use an int or a list"
            )
        return _Item(_core.ENUM, plain, _members(one, plain))
    for (module, name), imported in _IMPORTED.items():
        if module in sys.modules and plain is getattr(sys.modules[module], name):
            return _Item(imported)
    raise one.error(f"{_show(annotation)} is not supported; {_ALLOWED}")


def _members(one: _Declared, cls: type[enum.Enum]) -> tuple[tuple[enum.Enum, str, int], ...]:
    """Members of an enum with their numbers: their values where all of these are different ints of
    32 bits, else the order of declaration from 0."""
    members = list(cls)
    if not members:
        raise one.error(f"the enum {cls.__name__} has no members")
    values = [member.value for member in members]
    numbers = list(range(len(members)))
    if all(
        isinstance(value, int) and not isinstance(value, bool) and value in _INT32
        for value in values
    ):
        numbers = [int(value) for value in values]
    return tuple(
        (member, member.name, number) for member, number in zip(members, numbers, strict=True)
    )


def _show(annotation: object) -> str:
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__name__
    return str(annotation).replace("typing.", "")


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
    names: _Names | None = None
    specs: list[tuple[Any, ...]] = []
    for one in fields_of_state(cls, stop=stop):
        if names is None:
            names = _Names(cls)
        try:
            annotation = _evaluate(one, names)
            specs.append(_spec(one, annotation))
        except NameError as error:
            raise one.error(f"{error}; define it before the class is first used") from None
        if _read(one, annotation).collection == _core.AS_SET:
            raise one.error("a state has no set[T]: use frozenset[T], and assign a new one")
    _core.seal(layout, tuple(specs))
    return layout


def fields_of_state(cls: type, *, stop: tuple[type, ...] = (object,)) -> list[_Declared]:
    """The annotated fields of an ordinary class and its bases, base first: objects with ``name``,
    ``number``, ``has_default``, ``default`` and ``factory``. A default that is no field's is a
    ``_Missing``."""
    fields: dict[str, _Declared] = {}
    for base in reversed(cls.__mro__):
        if base in stop or base is Generic or base is object:
            continue
        namespace = vars(base)
        variables = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        own = _declare(
            base.__name__, variables, namespace.get("__annotations__", {}), namespace, fields
        )
        fields.update(own)
    return list(fields.values())


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
