"""Schemas as they were recorded with stored events: read, shown, and made into classes.

A record is what ``escqrs_type`` keeps beside a type's name (docs/format.md). Here it becomes
tuples, a text for error messages and for the schema lock, and a class that decodes what was written
with it. The text is read back, too: :func:`parse` of :func:`text` gives the same record.
"""

from __future__ import annotations

import ast
import datetime
import enum
import itertools
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast
from uuid import UUID

from . import _core
from ._annotation import (
    fixed32,
    fixed64,
    float32,
    int32,
    naive_datetime,
    sfixed32,
    sfixed64,
    sint32,
    sint64,
    uint32,
    uint64,
)
from ._field import field
from ._message import Event, Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Record", "class_of", "parse", "plain", "read", "record_of", "text"]

# names of scalar types as annotations have them; evaluated in this module
_SCALARS = {
    _core.INT: "int", _core.FLOAT: "float", _core.BOOL: "bool", _core.STRING: "str",
    _core.BYTES: "bytes", _core.TIME: "datetime", _core.INT32: "int32", _core.UINT32: "uint32",
    _core.UINT64: "uint64", _core.SINT32: "sint32", _core.SINT64: "sint64",
    _core.DURATION: "timedelta", _core.DATE: "date", _core.CLOCK: "time",
    _core.LOCAL: "naive_datetime", _core.DECIMAL: "Decimal", _core.UUID: "UUID",
    _core.FLOAT32: "float32", _core.FIXED32: "fixed32", _core.FIXED64: "fixed64",
    _core.SFIXED32: "sfixed32", _core.SFIXED64: "sfixed64",
}  # fmt: skip
_KINDS = {name: kind for kind, name in _SCALARS.items()}
_NAMES: dict[str, Any] = {
    "Literal": Literal,
    "datetime": datetime.datetime, "timedelta": datetime.timedelta, "date": datetime.date,
    "time": datetime.time, "int32": int32, "uint32": uint32, "uint64": uint64, "sint32": sint32,
    "sint64": sint64, "naive_datetime": naive_datetime, "Decimal": Decimal, "UUID": UUID,
    "float32": float32, "fixed32": fixed32, "fixed64": fixed64, "sfixed32": sfixed32,
    "sfixed64": sfixed64,
}  # fmt: skip
_serial = itertools.count()


class RecordField(NamedTuple):
    """One field. message: the index of its message in the record, or -1; union fields have one
    that is a union. Without literals, or key names, any value will do."""

    name: str
    number: int
    kind: int
    label: int
    key_kind: int
    has_default: bool
    message: int
    enum_name: str | None
    members: tuple[tuple[str, int], ...]
    was: tuple[str, ...]
    literals: tuple[str, ...] = ()  # a Literal's values, numbers as text
    key_names: tuple[str, ...] = ()  # of an enum's members as keys


class RecordMessage(NamedTuple):
    name: str
    is_union: bool
    was: tuple[str, ...]
    fields: tuple[RecordField, ...]


class Record(NamedTuple):
    """A type with all that it nests; the first message is the type itself."""

    version: int
    messages: tuple[RecordMessage, ...]


def read(record: bytes) -> Record:
    """A record's bytes as tuples. es.Corrupt where they are none."""
    version, messages = _core._describe_record(record)
    return Record(
        version,
        tuple(
            RecordMessage(name, is_union, was, tuple(RecordField(*one) for one in fields))
            for name, is_union, was, fields in messages
        ),
    )


def record_of(cls: Any, version: int = 1) -> Record:
    """The record of a message class."""
    return read(_core._schema_record(cls, version))


# ---- text ----------------------------------------------------------------------------------------


def _literal_text(kind: int, values: tuple[str, ...]) -> str:
    several = values if kind == _core.INT else map(repr, values)
    return f"Literal[{', '.join(several)}]"


def _type_text(record: Record, one: RecordField) -> str:
    if one.kind == _core.MESSAGE:
        nested = record.messages[one.message]
        if nested.is_union:
            value = " | ".join(record.messages[part.message].name for part in nested.fields)
        else:
            value = nested.name
    elif one.kind == _core.ENUM:
        value = str(one.enum_name)
    elif one.literals:
        value = _literal_text(one.kind, one.literals)
    else:
        value = _SCALARS[one.kind]
    if one.label == _core.OPTIONAL:
        return f"{value} | None"
    if one.label == _core.LIST:
        return f"list[{value}]"
    if one.label == _core.MAP:
        key = _SCALARS[one.key_kind]
        if one.key_names:
            key = _literal_text(one.key_kind, one.key_names)
        return f"dict[{key}, {value}]"
    return value


def field_text(record: Record, one: RecordField) -> str:
    """``name: type`` with what else is said of it."""
    default = " = default" if one.has_default else ""
    was = f"  (was {', '.join(one.was)})" if one.was else ""
    return f"{one.name}: {_type_text(record, one)}{default}{was}"


def _enums(record: Record) -> dict[str, tuple[tuple[str, int], ...]]:
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for message in record.messages:
        for one in message.fields:
            if one.enum_name is not None:
                found.setdefault(one.enum_name, one.members)
    return found


def text(record: Record, kind: str = "event", reserved: Iterable[int | str] = ()) -> str:
    """As lines: the type, then what it nests and its enums by name; fields by number."""
    lines: list[str] = []
    first, *others = record.messages
    blocks = [(kind, first, tuple(reserved))]
    blocks += [("message", one, ()) for one in sorted(others) if not one.is_union]
    for what, message, gone in blocks:
        version = f" version {record.version}" if what == kind else ""
        was = f"  (was {', '.join(message.was)})" if message.was else ""
        indent = "" if what == kind else "  "
        lines.append(f"{indent}{what} {message.name}{version}{was}")
        for one in sorted(message.fields, key=lambda one: one.number):
            lines.append(f"{indent}  {one.number} {field_text(record, one)}")
        for removed in sorted(gone, key=lambda one: (isinstance(one, str), one)):
            lines.append(f"{indent}  reserved {removed}")
    for name, members in sorted(_enums(record).items()):
        lines.append(f"  enum {name}")
        lines.extend(f"    {number} {member}" for member, number in members)
    return "\n".join(lines) + "\n"


_WAS = re.compile(r"^(?P<rest>.*?)(?:  \(was (?P<was>[^()]+)\))?$")
_HEAD = re.compile(r"^(?P<what>\w+) (?P<name>\S+?)(?: version (?P<version>\d+))?$")
_FIELD = re.compile(r"^(?P<number>\d+) (?P<name>\S+): (?P<type>.*?)(?P<default> = default)?$")
_VALUE = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+)"""
_LITERAL = re.compile(rf"Literal(\[{_VALUE}(?:, {_VALUE})*\])")
_MEMBER = re.compile(r"^(?P<number>-?\d+) (?P<name>\S+)$")


class _Block(NamedTuple):
    what: str
    name: str
    version: int
    was: tuple[str, ...]
    fields: list[tuple[int, str, str, bool, tuple[str, ...]]]
    members: list[tuple[str, int]]
    reserved: list[int | str]


def _blocks(lines: Iterable[tuple[int, str]]) -> Iterator[_Block]:
    block: _Block | None = None
    for number, line in lines:
        found = _WAS.match(line.strip())
        assert found is not None
        was = tuple((found["was"] or "").split(", ")) if found["was"] else ()
        rest = found["rest"]
        head = _HEAD.match(rest)
        if rest.startswith("reserved ") and block is not None:
            gone = rest.removeprefix("reserved ")
            block.reserved.append(int(gone) if gone.isdigit() else gone)
        elif (one := _FIELD.match(rest)) and block is not None and block.what != "enum":
            block.fields.append(
                (int(one["number"]), one["name"], one["type"], bool(one["default"]), was)
            )
        elif (one := _MEMBER.match(rest)) and block is not None and block.what == "enum":
            block.members.append((one["name"], int(one["number"])))
        elif head is not None and head["what"] in ("event", "message", "enum"):
            if block is not None:
                yield block
            version = int(head["version"] or 1)
            block = _Block(head["what"], head["name"], version, was, [], [], [])
        else:
            raise ValueError(f"line {number}: {line.strip()!r} cannot be read")
    if block is not None:
        yield block


class _Parser:
    """From lines to messages; those that are nested are entered as they are met."""

    def __init__(self, blocks: list[_Block]) -> None:
        self.blocks = {one.name: one for one in blocks if one.what != "enum"}
        self.enums = {one.name: tuple(one.members) for one in blocks if one.what == "enum"}
        self.found: list[RecordMessage | None] = []
        self.places: dict[str, int] = {}

    def message(self, name: str) -> int:
        if name in self.places:
            return self.places[name]
        if name not in self.blocks:
            raise ValueError(f"{name} is named, but not described")
        place = self.places[name] = len(self.found)
        self.found.append(None)
        block = self.blocks[name]
        fields = tuple(self.field(block, *one) for one in block.fields)
        self.found[place] = RecordMessage(name, False, block.was, fields)
        return place

    def union(self, name: str, parts: list[str]) -> int:
        place = len(self.found)
        self.found.append(None)
        fields = [
            RecordField(
                f"part_{number}", number, _core.MESSAGE, _core.OPTIONAL, 0, False,
                self.message(part), None, (), (),
            )
            for number, part in enumerate(parts, 1)
        ]  # fmt: skip
        self.found[place] = RecordMessage(name, True, (), tuple(fields))
        return place

    def field(
        self, block: _Block, number: int, name: str, type: str, default: bool, was: tuple[str, ...]
    ) -> RecordField:
        literals: list[list[str | int]] = []

        def hold(found: re.Match[str]) -> str:
            literals.append(ast.literal_eval(found[1]))
            return f"Literal[{len(literals) - 1}]"

        type = _LITERAL.sub(hold, type)
        label, key, value = _core.ONE, 0, type
        key_names: tuple[str, ...] = ()
        if type.startswith("list["):
            label, value = _core.LIST, type[5:-1]
        elif type.startswith("dict["):
            label = _core.MAP
            kind, _, value = type[5:-1].partition(", ")
            if literals and kind == "Literal[0]":
                key, key_names = _core.STRING, _texts(literals[0])
            else:
                key = _KINDS[kind]
        elif type.endswith(" | None"):
            label, value = _core.OPTIONAL, type.removesuffix(" | None")
        place, named = -1, None
        values: tuple[str, ...] = ()
        members: tuple[tuple[str, int], ...] = ()
        if literals and value == f"Literal[{len(literals) - 1}]":
            kind_of = _core.INT if isinstance(literals[-1][0], int) else _core.STRING
            values = _texts(literals[-1])
        elif value in _KINDS:
            kind_of = _KINDS[value]
        elif value in self.enums:
            kind_of, members, named = _core.ENUM, self.enums[value], value
        elif " | " in value:
            kind_of, place = _core.MESSAGE, self.union(f"{block.name}.{name}", value.split(" | "))
        else:
            kind_of, place = _core.MESSAGE, self.message(value)
        return RecordField(
            name, number, kind_of, label, key, default, place, named, members, was, values,
            key_names,
        )  # fmt: skip


def _texts(values: list[str | int]) -> tuple[str, ...]:
    return tuple(map(str, values))


def parse(lines: Iterable[tuple[int, str]]) -> tuple[Record, tuple[int | str, ...]]:
    """The record that numbered lines of :func:`text` describe, and what is reserved. ValueError
    where they do not."""
    blocks = list(_blocks(lines))
    if not blocks or blocks[0].what != "event":
        raise ValueError("a description begins with its event")
    parser = _Parser(blocks)
    try:
        parser.message(blocks[0].name)
    except (KeyError, IndexError, SyntaxError) as error:
        raise ValueError(f"{blocks[0].name}: {error} is no type") from None
    messages = tuple(one for one in parser.found if one is not None)
    return Record(blocks[0].version, messages), tuple(blocks[0].reserved)


# ---- classes -------------------------------------------------------------------------------------


def _annotation(record: Record, one: RecordField, exact: bool) -> str:
    if one.kind == _core.MESSAGE:
        nested = record.messages[one.message]
        parts = [part.message for part in nested.fields] if nested.is_union else [one.message]
        value = " | ".join(f"_m{part}" for part in parts)
    elif one.kind == _core.ENUM:
        value = f"_e{one.number}"
    elif exact and one.literals:
        value = _literal_text(one.kind, one.literals)
    else:
        value = _SCALARS[one.kind]
    if one.label == _core.OPTIONAL:
        return f"{value} | None"
    if one.label == _core.LIST:
        return f"list[{value}]"
    if one.label == _core.MAP:
        key = f"_k{one.number}" if exact and one.key_names else _SCALARS[one.key_kind]
        return f"dict[{key}, {value}]"
    return value


def class_of(record: Record, *, exact: bool = False) -> Any:
    """An event class that decodes what was written with the record, and packs to the same. Enums
    have their members by name; sets and tuples are lists, a Literal is what it is made of.

    exact: one that has the same record, for comparing: with Literals, an enum's members as keys,
        and defaults, though not the ones that they were.
    """
    return classes_of(record, exact=exact)[0]


def classes_of(record: Record, *, exact: bool = False) -> dict[int, Any]:
    """The classes of all messages of a record by their index, but for unions; the first is an
    event."""
    scope = f"recorded{next(_serial)}"
    made: dict[int, Any] = {}
    for place, message in enumerate(record.messages):
        if message.is_union:
            continue
        space: dict[str, Any] = {"__module__": __name__, "__qualname__": f"{scope}._m{place}"}
        annotations: dict[str, str] = {}
        for one in message.fields:
            annotations[one.name] = _annotation(record, one, exact)
            if exact and one.has_default:
                space[one.name] = field(one.number, was=one.was, default_factory=list, kw_only=True)
            else:
                space[one.name] = field(one.number, was=one.was)
            if exact and one.key_names:
                space[f"_k{one.number}"] = enum.Enum(f"Key{one.number}", one.key_names)
            if one.kind == _core.ENUM:
                space[f"_e{one.number}"] = enum.Enum(str(one.enum_name), dict(one.members))
        space["__annotations__"] = annotations
        base: Any = Event if place == 0 else Message
        meta: Any = _core.MessageMeta
        made[place] = meta(f"_m{place}", (base,), space, name=message.name, was=message.was)
    for cls in made.values():
        _core._schema_record(cls)  # while all of them are there to be found
    return made


globals().update(_NAMES)  # what the annotations refer to


# ---- values --------------------------------------------------------------------------------------


class _Spec(NamedTuple):
    """What _annotation.py says of a field, as far as its values go."""

    kind: int
    label: int
    cls: Any  # of a message or an enum; None: of a union or a tuple
    members: tuple[tuple[Any, str, int], ...]  # of a union: class, name, number
    collection: int
    parts: tuple[Any, ...]  # of a tuple of fixed size: the items' specs
    keys: tuple[tuple[Any, str], ...]  # of a dict: an enum's members, and their names

    @classmethod
    def of(cls, spec: tuple[Any, ...]) -> _Spec:
        return cls(spec[2], spec[3], spec[8], spec[9], spec[10], spec[14], spec[15])


def plain(message: Message) -> dict[str, Any]:
    """A message as a dictionary: nested ones are dictionaries, too, those of a union in one with
    the class's name as its key (``{"card_payment": {...}}``), tuples of fixed size with the keys
    ``item_1``, ``item_2``; enums are their members' names, also as keys."""
    return {
        one.name: _plain_value(_Spec.of(one.spec), getattr(message, one.name))
        for one in _core.declared(type(message))
    }


def _plain_value(spec: _Spec, value: Any) -> Any:
    if value is None:
        return None
    if spec.label == _core.MAP:
        return {
            key.name if isinstance(key, enum.Enum) else key: _plain_item(spec, item)
            for key, item in value.items()
        }
    if spec.label == _core.LIST:
        return [_plain_item(spec, item) for item in value]
    return _plain_item(spec, value)


def _plain_item(spec: _Spec, item: Any) -> Any:
    if isinstance(item, enum.Enum):
        return item.name
    if spec.kind != _core.MESSAGE:
        return item
    if spec.parts:
        pairs = zip(spec.parts, item, strict=True)
        return {
            f"item_{number}": _plain_value(_Spec.of(part), one)
            for number, (part, one) in enumerate(pairs, 1)
        }
    if spec.members:
        name = next(name for cls, name, _number in spec.members if isinstance(item, cls))
        return {name: plain(item)}
    return plain(item)


def build(cls: Any, given: Any) -> Any:
    """The other way round: an instance of a message class from a dictionary. An enum's member may
    be given as itself, by name or by value, a nested message as itself. Fields go by former names,
    too, and reserved names are left out: a function that was written for the class as it was goes
    on. TypeError and ValueError name class and field."""
    if isinstance(given, cls):
        return given
    if not isinstance(given, dict):
        raise TypeError(f"{cls.__name__} is made of a dictionary, not of {given!r}")
    rest = dict(cast("dict[str, Any]", given))
    values: dict[str, Any] = {}
    _core._schema_record(cls)  # its annotations are read now, if they were not before
    for one in _core.declared(cls):
        if one.spec is None:
            raise TypeError(
                f"{cls.__escqrs_name__} is a class that protobuf generated, and upcasters cannot "
                "make events of such classes: give the new events another name"
            )
        for name in (one.name, *one.was):
            if name in rest:
                title = f"{cls.__name__}.{one.name}"
                found = _built(title, _Spec.of(one.spec), rest.pop(name))
                values[one.name] = found
                break
    for name in cls.__escqrs_reserved__:
        rest.pop(name, None)
    if rest:
        raise TypeError(
            f"{cls.__name__} has no field {next(iter(rest))!r}; its fields are "
            f"{', '.join(cls.__escqrs_fields__) or 'none'}"
        )
    return cls(**values)


def _built(title: str, spec: _Spec, value: Any) -> Any:
    if value is None:
        return None
    if spec.label == _core.MAP and isinstance(value, dict):
        given = cast("dict[object, Any]", value)
        members: dict[object, Any] = {name: member for member, name in spec.keys}
        return {
            members.get(key, key) if members else key: _built_item(title, spec, item)
            for key, item in given.items()
        }
    if spec.label == _core.LIST and isinstance(value, (list, tuple, set, frozenset)):
        several = cast("Iterable[Any]", value)
        return _COLLECTED[spec.collection](_built_item(title, spec, item) for item in several)
    return _built_item(title, spec, value)


def _built_item(title: str, spec: _Spec, item: Any) -> Any:
    if spec.kind == _core.ENUM:
        return _member(title, spec.cls, item)
    if spec.kind != _core.MESSAGE or isinstance(item, Message):
        return item
    if spec.cls is not None:
        return build(spec.cls, item)
    if spec.parts:
        items: Any = list(cast("dict[str, Any]", item).values()) if isinstance(item, dict) else item
        if not isinstance(items, (list, tuple)):
            items = ()
        several = tuple(cast("Iterable[Any]", items))
        if len(several) != len(spec.parts):
            raise TypeError(f"{title}: a tuple of {len(spec.parts)} items; got {item!r}")
        pairs = zip(spec.parts, several, strict=True)
        return tuple(_built(title, _Spec.of(part), one) for part, one in pairs)
    names = {name: part for part, name, _number in spec.members}
    union: dict[str, Any] = {}
    if isinstance(item, dict):
        union = cast("dict[str, Any]", item)
    if len(union) != 1 or next(iter(union)) not in names:
        raise TypeError(
            f"{title}: one of a union is a dictionary with one key, of {', '.join(names)}; "
            f"got {item!r}"
        )
    ((name, inner),) = union.items()
    return build(names[name], inner)


_COLLECTED: dict[int, Any] = {
    _core.AS_LIST: list, _core.AS_TUPLE: tuple, _core.AS_SET: set, _core.AS_FROZENSET: frozenset,
}  # fmt: skip


def _member(title: str, cls: Any, item: Any) -> Any:
    if isinstance(item, cls):
        return item
    if isinstance(item, str) and item in cls.__members__:
        return cls.__members__[item]
    try:
        return cls(item)
    except ValueError:
        raise ValueError(f"{title}: {item!r} is no member of {cls.__name__}") from None
