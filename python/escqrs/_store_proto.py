"""The .proto text of a whole store, whose events were written with the schemas of many years.

One file has one message of a name. So what was written of a type at different times becomes one
definition: the fields of all of them by number, each as it was written last. What cannot be one, as
a number meant another type once, is kept apart under a name with a number behind it. A type is what
its newest version is; upcasters read the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import _core, _record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._record import Record, RecordField, RecordMessage

__all__ = ["proto_of"]

_WIDER = {
    frozenset({_core.INT, _core.INT32}), frozenset({_core.INT, _core.UINT32}),
    frozenset({_core.UINT64, _core.UINT32}), frozenset({_core.SINT64, _core.SINT32}),
}  # fmt: skip


class _Field(NamedTuple):
    """A field, with the name of its message in place of an index."""

    field: RecordField
    message: str | None


class _Message(NamedTuple):
    is_union: bool
    fields: dict[int, _Field]


def proto_of(types: Iterable[tuple[str, bytes, bool]]) -> str:
    """Of a store's types as they were first written: (name, record, is any event of it stored)."""
    stored = [(name, _record.read(data)) for name, data, used in types if used and data]
    newest: dict[str, int] = {}
    for name, record in stored:
        newest[name] = max(record.version, newest.get(name, 0))
    merged = _Merged()
    for name, record in reversed(stored):
        if record.version == newest[name]:
            merged.add(record)
    return merged.text(list(newest)) if newest else ""


class _Merged:
    """What is known so far; records are added newest first."""

    def __init__(self) -> None:
        self.messages: dict[str, _Message] = {}
        self.enums: dict[str, dict[int, str]] = {}

    def add(self, record: Record) -> None:
        for message in record.messages:
            for one in message.fields:
                if one.enum_name is not None:
                    self._add_members(one.enum_name, one.members)
        names = self._names(record)
        for message, name in zip(record.messages, names, strict=True):
            known = self.messages.setdefault(name, _Message(message.is_union, {})).fields
            taken = {one.field.name for one in known.values()}
            for number, older in _fields(message, names).items():
                if number not in known:
                    known[number] = _renamed(older, taken)

    def _add_members(self, name: str, members: tuple[tuple[str, int], ...]) -> None:
        known = self.enums.setdefault(name, {})
        if all(known.get(number, member) == member for member, number in members):
            known.update((number, member) for member, number in members)

    def _names(self, record: Record) -> list[str]:
        """What the messages of a record are named here: as they are, but those that say something
        else than what is known of that name, and those that nest them."""
        names = [one.name for one in record.messages]
        settled = False
        while not settled:
            settled = True
            for place, message in enumerate(record.messages):
                serial = 1
                while not self._agrees(names[place], message, names):
                    serial += 1
                    names[place] = f"{message.name}_{serial}"
                    settled = False
        return names

    def _agrees(self, name: str, message: RecordMessage, names: list[str]) -> bool:
        before = self.messages.get(name)
        return before is None or (
            before.is_union == message.is_union
            and all(
                number not in before.fields or _agree(before.fields[number], one)
                for number, one in _fields(message, names).items()
            )
        )

    def text(self, types: list[str]) -> str:
        order = [*types, *(name for name in self.messages if name not in types)]
        places = {name: place for place, name in enumerate(order)}
        made = [self._message(name, self.messages[name], places) for name in order]
        classes = _record.classes_of(_record.Record(1, tuple(made)))
        return _core.proto(*(classes[places[name]] for name in types))

    def _message(self, name: str, message: _Message, places: dict[str, int]) -> RecordMessage:
        fields: list[RecordField] = []
        for _number, (one, nested) in sorted(message.fields.items()):
            known = self.enums.get(one.enum_name or "", {})
            whole = all(known.get(number) == member for member, number in one.members)
            members = tuple((member, number) for number, member in sorted(known.items()))
            fields.append(
                one._replace(
                    message=-1 if nested is None else places[nested],
                    members=members if whole else one.members,
                    was=(),
                )
            )
        return _record.RecordMessage(name, message.is_union, (), tuple(fields))


def _fields(message: RecordMessage, names: list[str]) -> dict[int, _Field]:
    return {
        one.number: _Field(one, None if one.message < 0 else names[one.message])
        for one in message.fields
    }


def _renamed(one: _Field, taken: set[str]) -> _Field:
    """A field that is gone, whose name another number has now."""
    if one.field.name not in taken:
        return one
    return one._replace(field=one.field._replace(name=f"{one.field.name}_{one.field.number}"))


def _agree(before: _Field, now: _Field) -> bool:
    """Can one definition read both?"""
    a, b = before.field, now.field
    kinds = frozenset({a.kind, b.kind})
    containers = {_core.LIST, _core.MAP}
    return (
        (len(kinds) == 1 or kinds in _WIDER)
        and (a.label == b.label or not containers & {a.label, b.label})
        and a.key_kind == b.key_kind
        and before.message == now.message
    )
