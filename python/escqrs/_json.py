"""Messages as JSON, by protobuf's mapping (https://protobuf.dev/programming-guides/json/).

Python's ``json`` reads and prints the text; here is what the values of fields are in it. The names
of fields and of enum members are those of the class's ``.proto`` text, where they may differ from
Python's, so that text is what they are taken from. The limits of values are checked where they
always are, by the message's class.
"""

from __future__ import annotations

import base64
import datetime
import functools
import json
import math
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from . import _core
from ._message import Message

__all__ = ["from_json", "to_json"]

_M = TypeVar("_M", bound=Message)
_Convert = Callable[[Any], Any]

_MICROSECOND = datetime.timedelta(microseconds=1)
_CODECS_MAX = 1024  # classes that are kept ready

# ---- names: what the .proto text calls them ------------------------------------------------------

_LINE = re.compile(
    r"""\s*(?:
      (?P<end>\})
    | package\ (?P<package>[\w.]+);
    | (?P<block>message|enum|oneof)\ (?P<name>\w+)\ \{.*
    | (?:optional\ |repeated\ )?(?:map<\w+,\ (?P<value>[\w.]+)>|(?P<type>[\w.]+))
      \ (?P<field>\w+)\ =\ (?P<number>\d+);.*
    | (?P<member>\w+)\ =\ (?P<at>-?\d+);.*
    )""",
    re.VERBOSE,
)


class Names:
    """Names by number: of a message's fields with their types, of an enum's members."""

    def __init__(self, cls: type[Message]) -> None:
        self.fields: dict[str, dict[int, tuple[str, str]]] = {}
        self.members: dict[str, dict[int, str]] = {}
        self.root = ""  # the type of `cls`: its name's first chain of messages
        inside: list[tuple[str, str]] = []  # kind of block, type
        package = ""
        components = cls.__escqrs_name__.count(".") + 1
        for line in _core.proto(cls).splitlines():
            match = _LINE.fullmatch(line)
            if match is None:
                continue
            if match["end"]:
                inside.pop()
            elif match["package"]:
                package = "." + match["package"]
            elif match["block"] == "oneof":
                inside.append(("oneof", inside[-1][1]))
            elif match["block"]:
                name = f"{inside[-1][1] if inside else package}.{match['name']}"
                inside.append((match["block"], name))
                if name.count(".") == components and not self.root:
                    self.root = name
            elif match["field"]:
                fields = self.fields.setdefault(inside[-1][1], {})
                fields[int(match["number"])] = match["field"], match["value"] or match["type"]
            else:
                self.members.setdefault(inside[-1][1], {})[int(match["at"])] = match["member"]


def _json_name(name: str) -> str:
    return re.sub("_+(.?)", lambda match: match[1].upper(), name)


# ---- values --------------------------------------------------------------------------------------


class _Wrong(ValueError):
    """What a value in JSON should have been; the caller says where."""


def _same(value: Any) -> Any:
    return value


def _must_be(cls: type, value: object, what: str) -> None:
    if type(value) is not cls:
        raise _Wrong(f"expected {what}")


def _exactly(cls: type, what: str) -> _Convert:
    def read(value: Any) -> Any:
        _must_be(cls, value, what)
        return value

    return read


def _read_integer(value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and re.fullmatch("-?[0-9]{1,20}", value):
        return int(value)
    raise _Wrong("expected an integer, as a number or text")


def _write_float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _read_float(value: Any) -> float:
    if type(value) is str:
        if value in ("NaN", "Infinity", "-Infinity"):
            return float(value)
        number = (
            float(value) if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", value) else None
        )
    elif type(value) is int or type(value) is float:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    else:
        number = None
    if number is None:
        raise _Wrong('expected a number, "NaN", "Infinity" or "-Infinity"')
    if math.isinf(number):
        raise _Wrong("the number is beyond a float")
    return number


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _read_bytes(value: Any) -> bytes:
    if type(value) is str:
        plain = value.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except ValueError:
            pass
    raise _Wrong("expected bytes as base64")


def _fraction(micros: int) -> str:
    """Of a second, in three digits if they suffice, as protobuf writes it."""
    if micros == 0:
        return ""
    return f".{micros // 1000:03}" if micros % 1000 == 0 else f".{micros:06}"


def _write_time(value: datetime.datetime) -> str:
    plain = value.replace(microsecond=0, tzinfo=None)
    return f"{plain.isoformat()}{_fraction(value.microsecond)}Z"


_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})"
)


def _read_time(value: Any) -> datetime.datetime:
    match = _TIME.fullmatch(value) if type(value) is str else None
    if match is not None:
        micros = (match[2] or "").ljust(6, "0")[:6]
        zone = match[3].replace("Z", "+00:00")
        try:
            found = datetime.datetime.fromisoformat(f"{match[1]}.{micros}{zone}")
            return found.astimezone(datetime.UTC)
        except (ValueError, OverflowError):
            pass
    raise _Wrong("expected a time like 2024-02-29T23:59:59.123456Z")


def _write_duration(value: datetime.timedelta) -> str:
    micros = value // _MICROSECOND
    seconds, rest = divmod(abs(micros), 1_000_000)
    return f"{'-' if micros < 0 else ''}{seconds}{_fraction(rest)}s"


def _read_duration(value: Any) -> datetime.timedelta:
    match = None
    if type(value) is str:
        match = re.fullmatch(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s", value)
    if match is None:
        raise _Wrong("expected a duration like 1.5s")
    micros = int((match[3] or "").ljust(6, "0")[:6])
    span = datetime.timedelta(seconds=int(match[2]), microseconds=micros)
    return -span if match[1] else span


def _form(pattern: str, make: Callable[[str], Any], what: str) -> _Convert:
    compiled = re.compile(pattern)

    def read(value: Any) -> Any:
        if type(value) is str and compiled.fullmatch(value):
            try:
                return make(value)
            except ValueError:
                pass
        raise _Wrong(f"expected {what}")

    return read


_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
_HEX = "[0-9a-fA-F]"


def _decimal(text: str) -> Any:
    return sys.modules["decimal"].Decimal(text)  # imported, as there is a field of that type


def _uuid(text: str) -> Any:
    return sys.modules["uuid"].UUID(text)


_CONVERT: dict[int, tuple[_Convert, _Convert]] = {
    _core.INT: (str, _read_integer),
    _core.UINT64: (str, _read_integer),
    _core.SINT64: (str, _read_integer),
    _core.INT32: (_same, _read_integer),
    _core.UINT32: (_same, _read_integer),
    _core.SINT32: (_same, _read_integer),
    _core.FLOAT: (_write_float, _read_float),
    _core.FLOAT32: (_write_float, _read_float),
    _core.FIXED32: (_same, _read_integer),
    _core.SFIXED32: (_same, _read_integer),
    _core.FIXED64: (str, _read_integer),
    _core.SFIXED64: (str, _read_integer),
    _core.BOOL: (_same, _exactly(bool, "true or false")),
    _core.STRING: (_same, _exactly(str, "text")),
    _core.BYTES: (_write_bytes, _read_bytes),
    _core.TIME: (_write_time, _read_time),
    _core.DURATION: (_write_duration, _read_duration),
    _core.DATE: (
        datetime.date.isoformat,
        _form(_DATE, datetime.date.fromisoformat, "a date like 2024-02-29"),
    ),
    _core.CLOCK: (
        datetime.time.isoformat,
        _form(_CLOCK, datetime.time.fromisoformat, "a time like 23:59:59"),
    ),
    _core.LOCAL: (
        datetime.datetime.isoformat,
        _form(
            f"{_DATE}T{_CLOCK}", datetime.datetime.fromisoformat,
            "a date and time like 2024-02-29T23:59:59",
        ),
    ),
    _core.DECIMAL: (
        str,
        _form(
            r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?", _decimal,
            "a decimal number as text",
        ),
    ),
    _core.UUID: (
        str,
        _form(f"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}", _uuid, "a UUID as text"),
    ),
}  # fmt: skip


def _write_bool_key(value: bool) -> str:
    return "true" if value else "false"


def _read_bool_key(value: str) -> bool:
    if value not in ("true", "false"):
        raise _Wrong('expected the key "true" or "false"')
    return value == "true"


def _enum(
    members: tuple[tuple[Any, str, int], ...], names: dict[int, str]
) -> tuple[_Convert, _Convert]:
    text = {member: names[number] for member, _, number in members}
    known: dict[object, Any] = {names[number]: member for member, _, number in members}
    known.update((number, member) for member, _, number in members)

    def read(value: Any) -> Any:
        if type(value) in (str, int) and value in known:
            return known[value]
        raise _Wrong(f"expected one of {', '.join(text.values())}")

    return text.__getitem__, read


# ---- fields and messages -------------------------------------------------------------------------

_COLLECTIONS: dict[int, Callable[[list[Any]], Any]] = {
    _core.AS_LIST: list,
    _core.AS_TUPLE: tuple,
    _core.AS_SET: set,
    _core.AS_FROZENSET: frozenset,
}


def _list(collection: int, write: _Convert, read: _Convert) -> tuple[_Convert, _Convert]:
    is_set = collection in (_core.AS_SET, _core.AS_FROZENSET)

    def write_all(value: Any) -> list[Any]:
        items = [write(item) for item in value]
        return sorted(items, key=_text) if is_set else items

    def read_all(value: Any) -> Any:
        _must_be(list, value, "an array")
        return _COLLECTIONS[collection]([read(item) for item in value])

    return write_all, read_all


def _keys(spec: tuple[Any, ...]) -> tuple[_Convert, _Convert]:
    if spec[4] == _core.BOOL:
        return _write_bool_key, _read_bool_key
    if not spec[15]:
        return _CONVERT[spec[4]]
    names = dict(spec[15])
    members = {name: member for member, name in spec[15]}

    def read(text: Any) -> Any:
        if text not in members:
            raise _Wrong(f"expected one of the keys {', '.join(members)}")
        return members[text]

    return names.__getitem__, read


def _map(spec: tuple[Any, ...], write: _Convert, read: _Convert) -> tuple[_Convert, _Convert]:
    write_key, read_key = _keys(spec)

    def write_all(value: Any) -> dict[str, Any]:
        return {str(write_key(key)): write(item) for key, item in value.items()}

    def read_all(value: Any) -> Any:
        _must_be(dict, value, "an object")
        found: dict[Any, Any] = {}
        for text, item in value.items():
            key = read_key(text)
            if key in found:
                raise _Wrong(f"the key {text!r} is there twice")
            found[key] = read(item)
        return found

    return write_all, read_all


_text = functools.partial(json.dumps, ensure_ascii=False, separators=(",", ":"))

_SINGULAR = (_core.ONE, _core.OPTIONAL)


_ZEROS: dict[int, Callable[[], Any]] = {
    **dict.fromkeys((_core.INT, _core.INT32, _core.SINT32, _core.SINT64), int),
    **dict.fromkeys((_core.UINT32, _core.UINT64, _core.FIXED32, _core.FIXED64), int),
    **dict.fromkeys((_core.SFIXED32, _core.SFIXED64), int),
    **dict.fromkeys((_core.FLOAT, _core.FLOAT32), float),
    _core.BOOL: bool,
    _core.STRING: str,
    _core.BYTES: bytes,
    _core.DURATION: datetime.timedelta,
    _core.DECIMAL: lambda: _decimal("0"),
}


def _zero(spec: tuple[Any, ...]) -> tuple[Any, ...]:
    """What protobuf takes an absent field for, as ``from_bytes`` does: (value,); () where its type
    has no such value."""
    kind, members, literals = spec[2], spec[9], spec[11]
    if kind == _core.ENUM:
        return tuple(member for member, _, number in members if number == 0)
    if kind not in _ZEROS:
        return ()
    value = _ZEROS[kind]()
    return (value,) if not literals or value in literals else ()


class _Field(NamedTuple):
    name: str  # in Python
    json_name: str
    write: _Convert
    read: _Convert
    label: int
    has_default: bool
    empty: Callable[[], Any]  # the value where the field is absent on purpose
    zero: tuple[Any, ...]  # see _zero


class _Codec:
    """One message class."""

    def __init__(self, cls: type[Message]) -> None:
        self.cls = cls
        self.fields: list[_Field] = []
        self.by_key: dict[str, _Field] = {}

    def write(self, message: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field in self.fields:
            value = getattr(message, field.name)
            if value is not None and (field.label in _SINGULAR or value):
                found[field.json_name] = field.write(value)
        return found

    def read(self, value: Any) -> Any:
        title = self.cls.__name__
        _must_be(dict, value, f"an object for {title}")
        values: dict[str, Any] = {}
        seen: set[str] = set()
        for key, item in value.items():
            field = self.by_key.get(key)
            if field is None:
                raise ValueError(f"{title} has no field {key!r}; {self.known()}")
            if field.name in seen:
                raise ValueError(f"{title}.{field.name}: given twice, as {key!r} too")
            seen.add(field.name)
            if item is not None:
                try:
                    values[field.name] = field.read(item)
                except _Wrong as error:
                    raise ValueError(f"{title}.{field.name}: {error}, got {_show(item)}") from None
        for field in self.fields:
            if field.name in values:
                continue
            if field.label != _core.ONE:
                values[field.name] = field.empty()
            elif not field.has_default and field.zero:
                values[field.name] = field.zero[0]
            elif not field.has_default:
                raise ValueError(f"{title}.{field.name}: is missing and has no default")
        return self.cls(**values)

    def known(self) -> str:
        return "it has " + (", ".join(field.json_name for field in self.fields) or "none")


class _Union:
    """One of several classes, each under its name."""

    def __init__(self) -> None:
        self.names: dict[type, tuple[str, _Codec]] = {}
        self.by_key: dict[str, _Codec] = {}

    def add(self, name: str, codec: _Codec) -> None:
        self.names[codec.cls] = _json_name(name), codec
        self.by_key[name] = self.by_key[_json_name(name)] = codec

    def write(self, message: Any) -> dict[str, Any]:
        name, codec = self.names[type(message)]
        return {name: codec.write(message)}

    def read(self, value: Any) -> Any:
        names = " or ".join(name for name, _ in self.names.values())
        what = f"an object with one of {names}"
        _must_be(dict, value, what)
        given = [key for key, item in value.items() if item is not None]
        if len(given) != 1 or not all(key in self.by_key for key in value):
            raise _Wrong(f"expected {what}")
        return self.by_key[given[0]].read(value[given[0]])


class _Parts:
    """A tuple of fixed size: an object whose fields are item1, item2."""

    def __init__(self, parts: list[_Field]) -> None:
        self.parts = parts
        self.by_key = {one.name: one for one in parts} | {one.json_name: one for one in parts}

    def write(self, value: Any) -> dict[str, Any]:
        return {
            one.json_name: one.write(item)
            for one, item in zip(self.parts, value, strict=True)
            if item is not None
        }

    def read(self, value: Any) -> Any:
        what = f"an object with {', '.join(one.json_name for one in self.parts)}"
        _must_be(dict, value, what)
        given = {self.by_key[key].name: item for key, item in value.items() if key in self.by_key}
        if len(given) != len(value):
            raise _Wrong(f"expected {what}")
        items: list[Any] = []
        for one in self.parts:
            item = given.get(one.name)
            if item is not None:
                items.append(one.read(item))
            elif one.label == _core.ONE and not one.zero:
                raise _Wrong(f"expected {what}")
            else:
                items.append(one.zero[0] if one.label == _core.ONE else None)
        return tuple(items)


def _show(value: Any) -> str:
    text = json.dumps(value)  # in ASCII: what was given may have lone surrogates
    return text if len(text) <= 100 else text[:100] + "..."


def _convert_item(
    spec: tuple[Any, ...], type_name: str, names: Names, codecs: dict[type, _Codec]
) -> tuple[_Convert, _Convert]:
    kind, cls, members = spec[2], spec[8], spec[9]
    if kind == _core.ENUM:
        return _enum(members, names.members[type_name])
    if kind != _core.MESSAGE:
        return _CONVERT[kind]
    if cls is not None:
        codec = _codec_in(cls, type_name, names, codecs)
        return codec.write, codec.read
    if spec[14]:
        parts = _Parts([_part(one, type_name, names, codecs) for one in spec[14]])
        return parts.write, parts.read
    union = _Union()
    for member, _, number in members:
        name, inner = names.fields[type_name][number]
        union.add(name, _codec_in(member, inner, names, codecs))
    return union.write, union.read


def _part(
    spec: tuple[Any, ...], type_name: str, names: Names, codecs: dict[type, _Codec]
) -> _Field:
    name, inner = names.fields[type_name][spec[1]]
    write, read = _convert_item(spec, inner, names, codecs)
    return _Field(name, _json_name(name), write, read, spec[3], False, lambda: None, _zero(spec))


def _codec_in(
    cls: type[Message], type_name: str, names: Names, codecs: dict[type, _Codec]
) -> _Codec:
    if cls in codecs:
        return codecs[cls]
    codec = codecs[cls] = _Codec(cls)
    for one in _core.declared(cls):
        spec = one.spec
        name, inner = names.fields[type_name][one.number]
        write, read = _convert_item(spec, inner, names, codecs)
        empty: Callable[[], Any] = lambda: None  # noqa: E731
        if spec[3] == _core.LIST:
            write, read = _list(spec[10], write, read)
            empty = functools.partial(_COLLECTIONS[spec[10]], [])
        elif spec[3] == _core.MAP:
            write, read = _map(spec, write, read)
            empty = dict
        field = _Field(
            one.name, _json_name(name), write, read, spec[3], one.has_default, empty, _zero(spec)
        )
        codec.fields.append(field)
        codec.by_key[name] = codec.by_key[field.json_name] = field
    return codec


@functools.lru_cache(_CODECS_MAX)
def _codec(cls: type[Message]) -> _Codec:
    names = Names(cls)
    return _codec_in(cls, names.root, names, {})


# ---- texts ---------------------------------------------------------------------------------------


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice in one object")
        found[key] = value
    return found


def _constant(name: str) -> Any:
    raise ValueError(f'{name} is no JSON; a float is "{name}" in quotes')


def to_json(message: Message) -> str:
    """The message as JSON, by protobuf's mapping.

    Names are in lowerCamelCase, integers of 64 bits and bytes (base64) are text, enums are the
    names of their values in ``es.proto``, times and timedeltas are like ``"2024-02-29T23:59:59Z"``
    and ``"1.500s"``. Left out is what is None or empty; a set is sorted by the texts of its items.

        >>> import escqrs as es
        >>> class Paid(es.Event):
        ...     order_id: str
        ...     cents: int
        >>> es.to_json(Paid("7", 250))
        '{"orderId":"7","cents":"250"}'
        >>> es.from_json(Paid, '{"orderId": "7", "cents": 250}')
        Paid(order_id='7', cents=250)
    """
    if not isinstance(message, Message):
        raise TypeError(f"expected a message, got {type(message).__name__}")
    found = _codec(type(message)).write(message)
    return _text(found)


def from_json(cls: type[_M], text: str | bytes) -> _M:
    """The message that a JSON text is, by protobuf's mapping: see :func:`to_json`.

    cls: the message class.
    text: JSON, as :func:`to_json` and other writers of protobuf's mapping make it. Fields may also
    have their names of the ``.proto`` text, and integers may be numbers or text. ``null`` is as
    good as left out: the field has its default, is None or empty; without a default it is 0, "",
    False or whatever else its type's zero is, as in :func:`from_bytes`.

    The message is made as by a call of its class, ``__post_init__`` included. Raises ValueError
    for all that the class does not take: other fields than it has, a field that is missing and has
    neither default nor zero (a message, a datetime), a value of another type or beyond its field's
    limits, and text that is not JSON.
    """
    if not isinstance(cls, _core.MessageMeta) or not issubclass(cls, Message):
        raise TypeError(f"expected a message class, got {cls!r}")
    codec = _codec(cls)
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
        made: _M = codec.read(value)
    except RecursionError:
        raise ValueError(f"{cls.__name__}: the text is nested too deep") from None
    except _Wrong as error:
        raise ValueError(str(error)) from None
    return made
