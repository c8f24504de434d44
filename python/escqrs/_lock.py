"""``escqrs.schema.lock``: the events of a program as they are stored, in a file that it commits.

The file has a block for each event and version, with one line a field, sorted, so that it merges as
source code does. A test that checks it fails where a class no longer reads what is described there,
before anything is deployed.
"""

from __future__ import annotations

import os
import types
from pathlib import Path
from typing import Any, NamedTuple

from . import _core, _record, _upcast
from ._aggregate import Aggregate
from ._message import Event
from ._process import Process
from ._readmodel import ReadModel
from .errors import SchemaMismatch

__all__ = ["check_schema_lock", "write_schema_lock"]

DEFAULT = "escqrs.schema.lock"
_HEAD = """\
# The events of this program as they are stored; docs/evolution.md says how they may change.
# Written by `python -m escqrs lock`. Commit it, and have a test call es.check_schema_lock.
"""


class _Locked(NamedTuple):
    """One block of the file."""

    record: _record.Record
    reserved: tuple[int | str, ...]

    @property
    def name(self) -> str:
        return self.record.messages[0].name

    @property
    def text(self) -> str:
        return _record.text(self.record, reserved=self.reserved)


def _read(path: Path) -> list[_Locked]:
    """The blocks of a file; ValueError names path and line."""
    found: list[_Locked] = []
    block: list[tuple[int, str]] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate([*lines, "event"], 1):
        if line.startswith("event") and block:
            try:
                found.append(_Locked(*_record.parse(block)))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            block = []
        if line.strip() and not line.startswith("#"):
            block.append((number, line))
    return found


class _Program(NamedTuple):
    plan: _upcast.Plan
    names: tuple[str, ...]

    def current(self, locked: dict[tuple[str, int], _Locked]) -> dict[tuple[str, int], _Locked]:
        """What its classes are now, with what is reserved: by them, and by what is locked."""
        made: dict[tuple[str, int], _Locked] = {}
        for name in self.names:
            cls: Any = self.plan.classes[name]
            version = self.plan._version(name)
            record = _record.record_of(cls, version)
            numbers = {one.number for one in record.messages[0].fields}
            reserved: set[int | str] = set(cls.__escqrs_reserved__)
            for old in self.plan.stored_names(name):
                before = locked.get((old, version))
                if before is not None:
                    reserved.update(before.reserved)
                    reserved.update(one.number for one in before.record.messages[0].fields)
            gone = tuple(one for one in reserved if one not in numbers)
            made[name, version] = _Locked(record, gone)
        return made


def _program(given: tuple[Any, ...]) -> _Program:
    from ._system import _sort

    given = tuple(one for several in given for one in _all_of(several))
    events = _sort(given)[-1]
    upcasters = [one for several in given for one in _upcast.upcasters_in(several) or ()]
    classes = [one for one in given if isinstance(one, type)]
    plan = _upcast.Plan().with_(events, classes, upcasters)
    return _Program(plan, tuple(sorted(plan.classes)))


def _all_of(given: Any) -> list[Any]:
    """A module is all that it defines itself: aggregates, read models, processes and events (the
    newest class of each name), and its upcasters."""
    if not isinstance(given, types.ModuleType):
        return [given]
    classes = [
        one
        for one in vars(given).values()
        if isinstance(one, type) and one.__module__ == given.__name__
    ]
    events = _upcast.newest_of(one for one in classes if _is_event(one))
    others = [one for one in classes if issubclass(one, (Aggregate, ReadModel, Process))]
    return [*others, *events, given]


def _is_event(cls: type) -> bool:
    return issubclass(cls, Event) and not cls.__escqrs_abstract__


def _check(path: Path, program: _Program, locked: list[_Locked]) -> None:
    """SchemaMismatch where a class does not read what is locked."""
    for one in locked:
        record = _core._schema_record(_record.class_of(one.record, exact=True), one.record.version)
        reading = program.plan(one.name, record)
        if reading is None:
            raise SchemaMismatch(
                f"{path} has the event {one.name}, and no class of that name was given: keep the "
                f'class, say was="{one.name}" in the one that it has become, or write an '
                "@es.upcast function for it; if no event of it was ever stored, take its lines out",
                type=one.name,
            )
        try:
            _upcast._refuse(reading)
        except SchemaMismatch as error:
            error.args = (f"{path}: {error}",)
            raise
        cls = program.plan.classes.get(program.plan.current_name(one.name))
        version = 0 if cls is None else program.plan.version_of(cls)
        if cls is None or version != one.record.version:
            continue
        for field in _core.declared(cls):
            for taken in (field.number, field.name):
                if taken in one.reserved:
                    raise SchemaMismatch(
                        f"{path}: {cls.__escqrs_name__}.{field.name} has "
                        f"{'the number' if taken == field.number else 'the name'} {taken}, which "
                        "is reserved: a field that was removed had it; choose another",
                        type=one.name,
                        field=field.name,
                    )


def check_schema_lock(
    path: str | os.PathLike[str] = DEFAULT, /, *classes: Any, exact: bool = True
) -> None:
    """Raise where the classes would not read what a schema lock describes: for a test.

    ::

        def test_schema_lock() -> None:
            es.check_schema_lock("escqrs.schema.lock", Cart, Items)

    path: of the lock. classes: as ``es.open`` takes them; a module is all that it defines.
    exact: also where the lock does not have all that the classes say now, and
        ``python -m escqrs lock`` has to be run.

    Raises ``es.SchemaMismatch``, ``FileNotFoundError``, ``ValueError`` where the file cannot be
    read.
    """
    where = Path(path)
    locked = _read(where)
    program = _program(classes)
    _check(where, program, locked)
    if not exact:
        return
    known = {(one.name, one.record.version): one for one in locked}
    for key, now in program.current(known).items():
        before = known.get(key)
        if before is None or before.text != now.text:
            what = "is not in it" if before is None else "has changed, compatibly"
            raise SchemaMismatch(
                f"{where} is out of date: {key[0]}, version {key[1]}, {what}. Run "
                "`python -m escqrs lock` with the same classes, and commit the file",
                type=key[0],
            )


def write_schema_lock(path: str | os.PathLike[str] = DEFAULT, /, *classes: Any) -> None:
    """Write a schema lock, or bring one up to date. One whose events the classes would not read is
    left as it is.

    Arguments and errors are those of :func:`check_schema_lock`.
    """
    where = Path(path)
    locked = _read(where) if where.exists() else []
    program = _program(classes)
    _check(where, program, locked)
    known = {(one.name, one.record.version): one for one in locked}
    made = program.current(known)
    for key, one in known.items():  # older versions; one that was renamed has its new name
        current = program.plan.current_name(key[0])
        if (current, key[1]) not in made:
            made[key] = one
    blocks = [_HEAD, *(one.text for _key, one in sorted(made.items(), key=lambda item: item[0]))]
    text = "\n".join(blocks)
    if not where.exists() or where.read_text(encoding="utf-8") != text:
        where.write_text(text, encoding="utf-8")
