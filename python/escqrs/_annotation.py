"""What the annotation of a field means: names are looked up, then types become kinds, labels and
the tuples that ``_core.seal`` takes."""

from __future__ import annotations

import datetime
import enum
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from . import _core
from ._field import MISSING, Declared, is_unicode

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


class Names(dict[str, Any]):
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
            found = variables.get(key, MISSING)
            if found is _LATER and not self._final:
                raise NameError(f"name {key!r} is not defined")
            if found is not _LATER and found is not MISSING:
                return found
        scope = self._scope
        while scope:
            found = _core.find_class(self._module, f"{scope}.{key}")
            if found is not None:
                return found
            scope = scope.rpartition(".")[0]
        raise KeyError(key)


def evaluate(one: Declared, names: Mapping[str, Any]) -> object:
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
        except TypeError:  # unhashable; the reader of types refuses it with a better text
            return False


_PLAIN = _Plain((one, True) for one in _SCALARS)


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


def spec_of(one: Declared, annotation: object) -> tuple[Any, ...]:
    """(name, number, kind, label, key kind, has default, default, factory, class, members of an
    enum or a union, collection, literals, keyword-only, former names, items of a tuple, an enum's
    members as keys)"""
    label, item, key, collection, keys = read_shape(one, annotation)
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


def read_shape(one: Declared, annotation: object) -> _Shape:
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


def _read_key(one: Declared, whole: object, key: object) -> _Item:
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


def _read_parts(one: Declared, whole: object) -> _Item:
    """tuple[T1, T2]: a message whose fields are item_1, item_2."""
    specs: list[tuple[Any, ...]] = []
    for number, annotation in enumerate(typing.get_args(whole), 1):
        part = Declared(
            one.title, one.variables, f"item_{number}", annotation, MISSING, number, False
        )
        plain = _strip(annotation)[0]
        if _is_container(plain) and not _is_fixed(plain):
            raise one.error(
                f"{_show(whole)} is not supported: what a container holds cannot be a list, a set "
                "or a dict; wrap it in an es.Message"
            )
        specs.append(spec_of(part, annotation))
    return _Item(_core.MESSAGE, parts=tuple(specs))


def _read_inner(one: Declared, whole: object, item: object) -> _Item:
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


def _read_item(one: Declared, whole: object, parts: list[object]) -> _Item:
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


def _literal(one: Declared, whole: object, values: tuple[object, ...]) -> _Item:
    if values and all(type(value) is str for value in values):
        if not all(is_unicode(str(value)) for value in values):
            raise one.error(f"{_show(whole)} is not valid Unicode: it has a lone surrogate")
        return _Item(_core.STRING, literals=values)
    if values and all(type(value) is int for value in values):
        return _Item(_core.INT, literals=values)
    raise one.error(
        f"{_show(whole)} is not supported: the values of a Literal are all str or all int; use an "
        "Enum for others"
    )


def _read_one(one: Declared, annotation: object) -> _Item:
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


def _members(one: Declared, cls: type[enum.Enum]) -> tuple[tuple[enum.Enum, str, int], ...]:
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
