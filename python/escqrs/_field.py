"""The fields that a class declares: names, numbers, defaults, and what ``es.field`` says of them.

What their annotations mean is read in ``_annotation.py``, later: an annotation may name what does
not exist yet when the class is made.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic

NUMBER_MAX = 536_870_911  # of a protobuf field
_RESERVED = range(19_000, 20_000)  # protobuf keeps these field numbers for itself
_KEYWORD_ONLY = re.compile(r"\s*(?:\w+\s*\.\s*)*KW_ONLY\s*$")
_CLASS_VAR = re.compile(r"\s*(?:\w+\s*\.\s*)*ClassVar\b")


class Missing:
    """The type of the one value that stands for "not given"."""

    def __repr__(self) -> str:
        return "<not given>"


MISSING = Missing()


class Field:
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
    default: Any = MISSING,
    default_factory: Callable[[], Any] | Missing = MISSING,
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
    if not isinstance(default, Missing) and not isinstance(default_factory, Missing):
        raise TypeError("es.field: give default or default_factory, not both")
    if not isinstance(default_factory, Missing) and not callable(default_factory):
        raise TypeError(f"es.field: default_factory must be callable, got {default_factory!r}")
    return Field(number, default, default_factory, kw_only, former_names("es.field: was", was))


def former_names(what: str, given: Any) -> tuple[str, ...]:
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


def _from_dataclasses(title: str, name: str, given: Any) -> Field:
    """``dataclasses.field(...)``, as far as it says what ``es.field(...)`` can say."""
    if not (given.init and given.repr and given.compare and given.hash in (None, True)):
        raise TypeError(
            f"{title}.{name}: a field of a message is given, shown and compared; dataclasses.field "
            "with init, repr, compare or hash is for dataclasses"
        )
    missing = dataclasses.MISSING
    return Field(
        None,
        MISSING if given.default is missing else given.default,
        MISSING if given.default_factory is missing else given.default_factory,
        given.kw_only is True,
        (),
    )


class Declared:
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
        if isinstance(given, Field):
            self.was = given.was
            self.default = given.default
            if not isinstance(given.default_factory, Missing):
                self.factory = given.default_factory

    @property
    def has_default(self) -> bool:
        return self.factory is not None or not isinstance(self.default, Missing)

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


def declare(
    title: str,
    variables: dict[str, Any],
    annotations: Mapping[str, object],
    values: Mapping[str, object],
    inherited: Mapping[str, Declared],
    reserved: tuple[int | str, ...] = (),
) -> dict[str, Declared]:
    """The fields that one class declares, by name, in order, numbered after the inherited ones;
    numbers and names that are reserved are left out."""
    highest = max((one.number for one in inherited.values()), default=0)
    numbers = {one.number: one.name for one in inherited.values()}
    found: dict[str, Declared] = {}
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
        given = values.get(name, MISSING)
        if _is_of_dataclasses(given):
            given = _from_dataclasses(title, name, given)
        asked = given.number if isinstance(given, Field) else None
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
        by_name = keyword_only or (isinstance(given, Field) and given.kw_only)
        found[name] = Declared(title, variables, name, annotation, given, number, by_name)
    return found


def _next(number: int, reserved: tuple[int | str, ...]) -> int:
    number += 1
    while number in reserved:
        number += 1
    return number


def check_order(title: str, fields: Mapping[str, Declared]) -> None:
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


def is_unicode(text: str) -> bool:
    """Can it be written as UTF-8?"""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def fields_of_state(cls: type, *, stop: tuple[type, ...] = (object,)) -> list[Declared]:
    """The annotated fields of an ordinary class and its bases, base first: objects with ``name``,
    ``number``, ``has_default``, ``default`` and ``factory``. A default that is no field's is a
    ``Missing``."""
    fields: dict[str, Declared] = {}
    for base in reversed(cls.__mro__):
        if base in stop or base is Generic or base is object:
            continue
        namespace = vars(base)
        variables = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        own = declare(
            base.__name__, variables, namespace.get("__annotations__", {}), namespace, fields
        )
        fields.update(own)
    return list(fields.values())
