"""Random chains of changes and random events: the newest program reads what a model says."""

from __future__ import annotations

import itertools
import sys
import tempfile
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_modules = itertools.count()
TYPES = {"int": "7", "str": "'none'", "es.uint32": "3"}
VALUES = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "str": st.text(max_size=5),
    "es.uint32": st.integers(0, 2**32 - 1),
}


@dataclass
class Field:
    number: int
    type: str
    default: str | None
    was: list[str] = field(default_factory=list)

    @property
    def code(self) -> str:
        default = "" if self.default is None else f", default={self.default}"
        return f"{self.type} = es.field({self.number}, kw_only=True{default}, was={self.was})"


@dataclass
class Program:
    """What the source says now, and what is to be read: dictionaries, or numbers of `Extra`."""

    name: str = "Done"
    was: list[str] = field(default_factory=list)
    version: int = 1
    fields: dict[str, Field] = field(default_factory=lambda: {"f0": Field(1, "int", None)})
    upcasters: list[str] = field(default_factory=list)
    plain: bool = True  # all events of this version have just these fields
    next: int = 2
    gone: list[str] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    def class_code(self, name: str, version: str = "") -> str:
        keywords = f'name="{self.name}"{version}, reserved={self.gone}'
        if name == "Done":
            keywords += f", was={self.was}"
        body = "".join(f"    {one}: {what.code}\n" for one, what in self.fields.items())
        return f"class {name}(es.Event, {keywords}):\n{body or '    pass'}\n"

    @property
    def code(self) -> str:
        upcasters = "\n".join(self.upcasters).replace("EVENT", self.name)
        return f"class Extra(es.Event):\n    n: int\n{self.class_code('Done')}\n{upcasters}\n"

    def load(self) -> Any:
        module = types.ModuleType(f"generation_{next(_modules)}")
        sys.modules[module.__name__] = module
        module.__dict__["es"] = es
        exec(self.code, module.__dict__)
        return module

    def done(self) -> list[dict[str, Any]]:
        return [one for one in self.events if isinstance(one, dict)]

    # ---- changes

    def add(self, draw: Any) -> None:
        kind = draw(st.sampled_from(sorted(TYPES)))
        name = f"f{self.next}"
        self.fields[name] = Field(self.next, kind, TYPES[kind])
        self.next += 1
        self.plain = False
        for event in self.done():
            event[name] = eval(TYPES[kind])

    def remove(self, draw: Any) -> None:
        name = self._any(draw)
        if name is not None:
            self.gone += [name, *self.fields.pop(name).was]
            for event in self.done():
                del event[name]
            self.plain = False

    def rename(self, draw: Any) -> None:
        name = self._any(draw)
        if name is not None:
            new = f"{name}x"
            self._replace(name, new)
            self.fields[new].was.append(name)
            self.plain = False

    def widen(self, draw: Any) -> None:
        for one in self.fields.values():
            if one.type == "es.uint32":
                one.type = "int"

    def rename_class(self, draw: Any) -> None:
        self.was.append(self.name)
        self.name += "x"

    def upcast(self, draw: Any) -> None:
        name = self._any(draw)
        how = draw(st.sampled_from(["text", "split", "drop", "double", "none"]))
        old = f"Old{self.version}"
        lines = [f'@es.upcast("EVENT", version={self.version})']
        if self.plain and draw(st.booleans()):
            lines += [f"def up{self.version}(e):"]
        else:
            before = self.class_code(old, f", version={self.version}")
            self.upcasters.append(before.replace(f'"{self.name}"', '"EVENT"'))
            lines += [
                f"def up{self.version}(old: {old}):",
                f"    e = {{name: getattr(old, name) for name in {list(self.fields)}}}",
            ]
        if name is None:
            how = "none"
        if how == "text":
            lines.append(f"    e['{name}'] = str(e['{name}'])")
            one = self.fields[str(name)]
            one.type, one.default = "str", None if one.default is None else TYPES["str"]
            for event in self.done():
                event[name] = str(event[name])
        elif how == "split":
            lines.append(f"    return [e, Extra(len(str(e['{name}'])))]")
            self.events = [
                part
                for one in self.events
                for part in ([one, len(str(one[name]))] if isinstance(one, dict) else [one])
            ]
        elif how == "drop":
            lines.append(f"    if len(str(e['{name}'])) % 2: return []")
            self.events = [
                one
                for one in self.events
                if not isinstance(one, dict) or len(str(one[name])) % 2 == 0
            ]
        elif how == "double" and self.fields[str(name)].type == "str":
            lines.append(f"    e['{name}'] *= 2")
            for event in self.done():
                event[name] *= 2
        lines.append("    return e\n")
        self.upcasters.append("\n".join(lines))
        for one in self.fields.values():  # names of before are of the version before
            one.was = []
        self.version += 1
        self.plain = True

    def _any(self, draw: Any) -> str | None:
        return draw(st.sampled_from(sorted(self.fields))) if self.fields else None

    def _replace(self, name: str, new: str) -> None:
        self.fields = {new if one == name else one: what for one, what in self.fields.items()}
        for event in self.done():
            event[new] = event.pop(name)


CHANGES = ["add", "remove", "rename", "widen", "rename_class", "upcast"]


def shown(event: Any) -> Any:
    if type(event).__name__ == "Extra":
        return event.n
    return {name: getattr(event, name) for name in type(event).__escqrs_fields__}


@pytest.mark.timeout(600)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), changes=st.lists(st.lists(st.sampled_from(CHANGES), max_size=3), max_size=4))
def test_the_newest_program_reads_what_the_model_says(data: Any, changes: list[list[str]]) -> None:
    now = Program()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        for several in [[], *changes]:
            for change in several:
                getattr(now, change)(data.draw)
            module = now.load()
            with es.Store(path, module.Done, module.Extra) as store:
                for _ in range(data.draw(st.integers(0, 3))):
                    values = {name: data.draw(VALUES[one.type]) for name, one in now.fields.items()}
                    store.append("s", [module.Done(**values)])
                    now.events.append(values)
                read = [shown(one.event) for one in store.events()]
                assert read == now.events
                assert [shown(one.event) for one in store.history("s")] == read
                assert [shown(one.event) for one in store.events(reverse=True)] == read[::-1]
                kinds = [es.Match(types=[module.Done]), es.Match(types=[module.Extra])]
                parts = [[shown(one.event) for one in store.events(match=kind)] for kind in kinds]
                assert parts == [now.done(), [one for one in read if isinstance(one, int)]]
                assert store.verify().ok
