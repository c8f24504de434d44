"""Classes of other modules that bear the name of one that a system was opened with."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import escqrs as es
import pytest

CLASSES = """
import escqrs as es

class Add(es.Command[int]):
    amount: int

class Added(es.Event):
    amount: int

class Counter(es.Aggregate):
    total: int

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.amount))
        return self.total

    @es.applies
    def added(self, event: Added) -> None:
        self.total += event.amount

class Amounts(es.ReadModel):
    schema = "CREATE TABLE amounts (amount INTEGER)"
    on_added = es.sql(Added, "INSERT INTO amounts VALUES (:amount)")
"""


def run(name: str, source: str) -> Any:
    module = sys.modules.setdefault(name, types.ModuleType(name))
    exec(compile(source, name, "exec"), module.__dict__)
    return module


@pytest.fixture
def ours() -> Iterator[Any]:
    yield run("namesake_ours", CLASSES)
    del sys.modules["namesake_ours"]


@pytest.fixture
def theirs() -> Iterator[Any]:
    yield run("namesake_theirs", CLASSES)
    del sys.modules["namesake_theirs"]


def both(kind: str, name: str) -> str:
    return (
        rf"two {kind} are named '{name}': namesake_ours\.{name} and namesake_theirs\.{name}; "
        rf"give one of them another name: class {name}\(\.\.\., name="
    )


def test_an_aggregate(ours: Any, theirs: Any) -> None:
    with es.open(":memory:", ours.Counter) as system:
        for _ in range(2):
            with pytest.raises(es.NameClash, match=both("aggregates", "Counter")):
                system[theirs.Counter, "a"]
        assert system[ours.Counter, "a"].ask(ours.Add(1)) == 1


def test_a_read_model(ours: Any, theirs: Any) -> None:
    with es.open(":memory:", ours.Counter, ours.Amounts) as system:
        with pytest.raises(es.NameClash, match=both("read models", "Amounts")):
            system[theirs.Amounts]
        assert system[ours.Amounts].status is not None


@pytest.mark.parametrize("how", ["ask", "submit", "tell"])
def test_a_command(ours: Any, theirs: Any, how: str) -> None:
    with es.open(":memory:", ours.Counter) as system:
        with pytest.raises(es.NameClash, match=both("commands", "Add")):
            getattr(system[ours.Counter, "a"], how)(theirs.Add(1))
        assert system.head == 0


def test_an_emitted_event(ours: Any, theirs: Any) -> None:
    ours.emitted = theirs.Added
    run(
        "namesake_ours",
        """
class Counter(es.Aggregate):
    total: int

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(emitted(cmd.amount))
        return self.total

    @es.applies
    def added(self, event: Added) -> None:
        self.total += event.amount
""",
    )
    with es.open(":memory:", ours.Counter) as system:
        with pytest.raises(es.NameClash, match=both("events", "Added")):
            system[ours.Counter, "a"].ask(ours.Add(1))
        assert system.head == 0


def test_an_event_that_a_new_definition_applies(ours: Any, theirs: Any) -> None:
    """What was in force stays so, until a definition comes that can be."""
    with es.open(":memory:", ours.Counter) as system:
        counter = system[ours.Counter, "a"]
        assert counter.ask(ours.Add(1)) == 1
        mine, ours.Added = ours.Added, theirs.Added
        source = CLASSES[CLASSES.index("class Counter") : CLASSES.index("class Amounts")]
        run("namesake_ours", source)
        for _ in range(2):
            with pytest.raises(es.NameClash, match=both("events", "Added")):
                counter.ask(ours.Add(1))
        ours.Added = mine
        run("namesake_ours", source)
        assert counter.ask(ours.Add(1)) == 2


def test_the_same_module_and_name_is_a_redefinition(ours: Any) -> None:
    before = ours.Counter, ours.Add
    with es.open(":memory:", ours.Counter, ours.Amounts) as system:
        run("namesake_ours", CLASSES)
        assert ours.Counter is not before[0]
        assert system[ours.Counter, "a"].ask(ours.Add(1)) == 1
        assert system[before[0], "a"].ask(before[1](1)) == 2
        assert system[ours.Amounts].status is not None
