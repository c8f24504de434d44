"""Notebook cells that run again: the newest definition of a class serves its name."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS

FIRST = """
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
"""

COUNTER = """
class Counter(es.Aggregate):
    total: int

    @es.handles
    def add(self, cmd: Add) -> int:
        if cmd.amount > 100:
            raise es.Rejected("too much")
        self.emit(Added(cmd.amount))
        return self.total

    @es.applies
    def added(self, event: Added) -> None:
        self.total += 10 * event.amount
"""

MORE = """
class Reset(es.Command):
    pass

class WasReset(es.Event):
    pass

class Counter(es.Aggregate):
    total: int
    resets: int

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.amount))
        return self.total

    @es.handles
    def reset(self, cmd: Reset) -> None:
        self.emit(WasReset())

    @es.applies
    def added(self, event: Added) -> None:
        self.total += event.amount

    @es.applies
    def was_reset(self, event: WasReset) -> None:
        self.total = 0
        self.resets += 1
"""


class Notebook:
    """A module whose cells are run into one namespace, as a notebook does."""

    def __init__(self, name: str) -> None:
        self.module = types.ModuleType(name)
        sys.modules[name] = self.module

    def run(self, cell: str) -> None:
        exec(compile(cell, "<cell>", "exec"), self.module.__dict__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


@pytest.fixture
def notebook(request: pytest.FixtureRequest) -> Iterator[Notebook]:
    made = Notebook(f"notebook_{abs(hash(request.node.name))}")
    made.run(FIRST)
    yield made
    del sys.modules[made.module.__name__]


def test_the_same_cells_again(notebook: Notebook, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, notebook.Counter) as system:
        assert system[notebook.Counter, "a"].ask(notebook.Add(1)) == 1
        old = notebook.Counter, notebook.Add
        for _ in range(3):
            notebook.run(FIRST)
        assert notebook.Counter is not old[0]
        assert system[notebook.Counter, "a"].ask(notebook.Add(1)) == 2
        assert system[old[0], "a"].ask(old[1](1)) == 3  # what was made before works on
        assert system[old[0], "a"] == system[notebook.Counter, "a"]
        (first, *_) = system.events()
        assert first.event == notebook.Added(1)
    with es.open(path, notebook.Counter) as system:
        assert system[notebook.Counter, "a"].state.total == 3
    with es.open(path, old[0]) as system:  # an older definition of it is the same class
        assert system[notebook.Counter, "a"].ask(notebook.Add(1)) == 4
        assert isinstance(system[notebook.Counter, "a"].state, notebook.Counter)


def test_an_open_system_takes_the_new_class_up_with_the_next_command(notebook: Notebook) -> None:
    with es.open(":memory:", notebook.Counter) as system:
        handle = system[notebook.Counter, "a"]
        assert handle.ask(notebook.Add(1)) == 1
        assert handle.ask(notebook.Add(200)) == 201
        notebook.run(COUNTER)
        with pytest.raises(es.Rejected, match="too much"):
            handle.ask(notebook.Add(200))
        assert handle.ask(notebook.Add(2)) == 2030  # replayed with the new method
        assert type(handle.state) is notebook.Counter
        assert handle.state_at(1).total == 10
        notebook.run(FIRST)
        assert handle.state.total == 203
        assert handle.submit(notebook.Add(1)).result(SECONDS) == 204


def test_new_commands_events_and_fields(notebook: Notebook, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, notebook.Counter) as system:
        handle = system[notebook.Counter, "a"]
        handle.ask(notebook.Add(5))
        notebook.run(MORE)
        handle.ask(notebook.Reset())
        assert (handle.state.total, handle.state.resets) == (0, 1)
        handle.ask(notebook.Add(3))
        assert [one.type for one in handle.history()] == ["Added", "WasReset", "Added"]
        assert [one.event for one in handle.history()][1] == notebook.WasReset()
        assert system[notebook.Counter, "b"].ask(notebook.Add(1)) == 1
    with es.open(path, notebook.Counter) as system:
        assert (
            system[notebook.Counter, "a"].state.total,
            system[notebook.Counter, "a"].state.resets,
        ) == (3, 1)


def test_a_handler_that_is_gone(notebook: Notebook) -> None:
    with es.open(":memory:", notebook.Counter) as system:
        handle = system[notebook.Counter, "a"]
        handle.ask(notebook.Add(5))
        add = notebook.Add
        notebook.run(
            "class Counter(es.Aggregate):\n"
            "    total: int\n"
            "    @es.applies\n"
            "    def added(self, event: Added) -> None:\n"
            "        self.total += event.amount\n"
        )
        with pytest.raises(TypeError, match="Add"):
            handle.ask(add(1))
        assert handle.state.total == 5


def test_an_event_with_a_field_more(notebook: Notebook) -> None:
    with es.open(":memory:", notebook.Counter) as system:
        handle = system[notebook.Counter, "a"]
        handle.ask(notebook.Add(5))
        notebook.run("class Added(es.Event):\n    amount: int\n    note: str = 'none'\n")
        notebook.run(MORE)
        assert handle.ask(notebook.Add(1)) == 6
        assert [one.event.note for one in handle.history()] == ["none", "none"]


def test_an_event_that_would_misread_what_is_stored(notebook: Notebook) -> None:
    with es.open(":memory:", notebook.Counter) as system:
        handle = system[notebook.Counter, "a"]
        handle.ask(notebook.Add(5))
        notebook.run("class Added(es.Event):\n    amount: str\n")
        notebook.run(MORE)
        for _ in range(2):
            with pytest.raises(es.SchemaMismatch, match="amount"):
                handle.ask(notebook.Add(1))
        notebook.run(FIRST)
        assert handle.ask(notebook.Add(1)) == 6


def test_a_broken_cell_leaves_the_old_class_in_force(notebook: Notebook) -> None:
    with es.open(":memory:", notebook.Counter) as system:
        handle = system[notebook.Counter, "a"]
        handle.ask(notebook.Add(5))
        with pytest.raises(TypeError):
            notebook.run(
                "class Counter(es.Aggregate):\n"
                "    total: int\n"
                "    @es.handles\n"
                "    async def add(self, cmd: Add) -> int:\n"
                "        return 1\n"
            )
        assert handle.ask(notebook.Add(1)) == 6


def test_redefined_while_commands_are_under_way(notebook: Notebook) -> None:
    with es.open(":memory:", notebook.Counter) as system:
        for _ in range(20):
            replies = [
                system[notebook.Counter, str(i % 5)].submit(notebook.Add(1)) for i in range(100)
            ]
            notebook.run(FIRST)
            for one in replies:
                one.result(SECONDS)
        assert all(system[notebook.Counter, str(i)].state.total == 400 for i in range(5))


LOG = """
class Log(es.Aggregate):
    {fields}
    amounts: list[int]

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.amount))
        if cmd.amount == 1:
            meanwhile()
            self.system[Log, "other"].ask(Add(2))
            self.emit(Added(cmd.amount))
        return len(self.amounts)

    @es.applies
    def added(self, event: Added) -> None:
        self.amounts.append(event.amount)
"""


def test_redefined_by_a_handler_that_goes_on(notebook: Notebook) -> None:
    """The state of the old definition takes the events until the command ends."""
    notebook.module.meanwhile = lambda: notebook.run(LOG.format(fields="more: int"))
    notebook.run(LOG.format(fields=""))
    with es.open(":memory:", notebook.Log) as system:
        log = system[notebook.Log, "a"]
        assert log.ask(notebook.Add(1)) == 2
        assert log.state.amounts == [1, 1] and log.state.more == 0
        assert log.ask(notebook.Add(3)) == 3
        assert system[notebook.Log, "other"].state.amounts == [2]


def test_a_field_that_is_gone_while_a_handler_goes_on(notebook: Notebook) -> None:
    changed = LOG.format(fields="").replace("list[int]", "dict[int, int]")
    changed = changed.replace("append(event.amount)", "setdefault(event.amount, 1)")
    notebook.module.meanwhile = lambda: notebook.run(changed)
    notebook.run(LOG.format(fields=""))
    with es.open(":memory:", notebook.Log) as system:
        log = system[notebook.Log, "a"]
        with pytest.raises(AttributeError):
            log.ask(notebook.Add(1))
        assert log.state.amounts == {} and system[notebook.Log, "other"].state.amounts == {2: 1}


def test_a_snapshot_of_another_reducer_is_not_used(notebook: Notebook, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    notebook.run(FIRST.replace("(es.Aggregate)", "(es.Aggregate, snapshot_every=1)"))
    with es.open(path, notebook.Counter) as system:
        for _ in range(3):
            system[notebook.Counter, "a"].ask(notebook.Add(1))
    notebook.run(COUNTER)
    with es.open(path, notebook.Counter) as system:
        assert system[notebook.Counter, "a"].state.total == 30


# ---- clashes -------------------------------------------------------------------------------------


FIELDS = """
applied = []

class Counter(es.Aggregate, snapshot_every=2):
    {fields}

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.amount))
        return cmd.amount

    @es.applies
    def added(self, event: Added) -> None:
        applied.append(event.amount)
        self.total += event.amount
"""


@pytest.mark.parametrize(
    ("fields", "used"),
    [
        ("total: int", True),
        ("total: int; more: int", False),
        ("more: int = 3; total: int", False),
        ("total: float", False),
        ("total: int = es.field(2)", False),
    ],
)
def test_a_snapshot_of_a_changed_state_is_not_used(
    notebook: Notebook, tmp_path: Path, fields: str, used: bool
) -> None:
    path = tmp_path / "counter.db"
    notebook.run(FIELDS.format(fields="total: int"))
    with es.open(path, notebook.Counter) as system:
        for amount in (1, 2, 3):
            system[notebook.Counter, "a"].ask(notebook.Add(amount))
    notebook.run(FIELDS.format(fields=fields))
    for at, total in ((3, 6), (2, 3), (1, 1), (0, 0)):
        with es.open(path, notebook.Counter) as system:
            notebook.applied.clear()
            handle = system[notebook.Counter, "a"]
            state = handle.state if at == 3 else handle.state_at(at)
            assert state.total == total and state.version == at
            assert notebook.applied == [1, 2, 3][2 if used and at >= 2 else 0 : at]


def test_a_snapshot_is_used_in_another_process(tmp_path: Path) -> None:
    """Though the order of a set, which is a constant of the reducer, is another there."""
    code = """
import sys
import escqrs as es

class Add(es.Command):
    word: str

class Added(es.Event):
    word: str

applied = []

class Words(es.Aggregate, snapshot_every=2):
    known: int

    @es.handles
    def add(self, cmd: Add) -> None:
        self.emit(Added(cmd.word))

    @es.applies
    def added(self, event: Added) -> None:
        applied.append(event.word)
        self.known += event.word in {"one", "two", "three", "four", "five", "six"}

with es.open(sys.argv[1], Words) as system:
    if system.head == 0:
        for word in ("one", "2", "three", "4"):
            system[Words, "a"].ask(Add(word))
    else:
        assert system[Words, "a"].state.known == 2 and applied == [], applied
"""
    for seed in "1234":
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "words.db")],
            check=True,
            timeout=SECONDS,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )


def namesake(kind: type, name: str, where: str, **space: Any) -> Any:
    return type(name, (kind,), {"__module__": __name__, "__qualname__": f"{where}.{name}", **space})


def test_two_definitions_are_looked_up_at_once() -> None:
    """As by two threads: a class is met for the first time while another one is looked up."""
    meanwhile: list[Any] = []

    def module(cls: type) -> str:
        while meanwhile:
            assert system[meanwhile.pop(), "a"].id == "a"
        return __name__

    named: Any = type("Named", (type(es.Aggregate),), {"__module__": property(module)})
    first, second, newest = (named("Thing", (es.Aggregate,), {}) for _ in range(3))
    with es.open(":memory:", named("Other", (es.Aggregate,), {}), newest) as system:
        meanwhile.append(second)
        assert system[first, "b"].id == "b" and not meanwhile
        assert repr(system) == "<escqrs.System ':memory:': Other, Thing; head 0>"


def test_two_classes_for_one_name_are_an_error_that_names_both() -> None:
    one, two = namesake(es.Aggregate, "Thing", "One"), namesake(es.Aggregate, "Thing", "Two")
    with pytest.raises(es.NameClash) as caught:
        es.open(":memory:", one, two)
    assert (
        "One.Thing" in str(caught.value)
        and "Two.Thing" in str(caught.value)
        and "name=" in str(caught.value)
    )
    es.open(":memory:", one, one).close()


def test_two_events_for_one_name() -> None:
    one, two = namesake(es.Event, "Happened", "One"), namesake(es.Event, "Happened", "Two")

    def aggregate(name: str, event: Any) -> Any:
        return namesake(
            es.Aggregate, name, "Any", applied=es.applies(event)(lambda self, event: None)
        )

    with pytest.raises(es.NameClash, match=r"One\.Happened.*Two\.Happened"):
        es.open(":memory:", aggregate("A", one), aggregate("B", two))
    with pytest.raises(es.NameClash, match="Happened"):
        es.open(":memory:", aggregate("A", one), two)
    with pytest.raises(es.NameClash, match="Happened"):
        namesake(
            es.Aggregate,
            "C",
            "Any",
            a=es.applies(one)(lambda self, event: None),
            b=es.applies(two)(lambda self, event: None),
        )
        es.open(
            ":memory:",
            namesake(
                es.Aggregate,
                "C",
                "Any",
                a=es.applies(one)(lambda self, event: None),
                b=es.applies(two)(lambda self, event: None),
            ),
        )
    es.open(":memory:", aggregate("A", one), aggregate("B", one), one).close()


def test_other_names_end_the_clash() -> None:
    one = namesake(es.Aggregate, "Thing", "One")
    two = type(
        "Thing",
        (es.Aggregate,),
        {"__module__": __name__, "__qualname__": "Three.Thing"},
        name="other.Thing",
    )
    with es.open(":memory:", one, two) as system:
        assert system[one, "a"].stream == "Thing/a"
        assert system[two, "a"].stream == "other.Thing/a"


def test_an_emitted_event_of_a_namesake() -> None:
    right, wrong = namesake(es.Event, "Happened", "One"), namesake(es.Event, "Happened", "Two")

    class Do(es.Command):
        pass

    def do(self: Any, cmd: Do) -> None:
        self.emit(wrong())

    cls = namesake(
        es.Aggregate,
        "Doer",
        "Any",
        do=es.handles(Do)(do),
        applied=es.applies(right)(lambda self, event: None),
    )
    with es.open(":memory:", cls) as system:
        with pytest.raises((es.NameClash, TypeError), match="Happened"):
            system[cls, "a"].ask(Do())
        assert system.head == 0


@pytest.mark.parametrize("wrong", [3, "Counter", es.Aggregate, es.Event, es.Command, int, None])
def test_what_cannot_be_opened(wrong: Any) -> None:
    with pytest.raises(TypeError):
        es.open(":memory:", wrong)


def test_commands_are_found_by_their_aggregates() -> None:
    class Lonely(es.Command):
        pass

    with pytest.raises(TypeError, match="commands are found"):
        es.open(":memory:", Lonely)
