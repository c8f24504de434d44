"""Classes that changed since events were stored: what is fine, what is refused, and how."""

from __future__ import annotations

import enum
import itertools
import logging
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
import support

_modules = itertools.count()


def define(code: str) -> dict[str, Any]:
    """The classes of some code, each time in a module of its own, as of a changed program."""
    space: dict[str, Any] = {"__name__": f"program_{next(_modules)}", "es": es, "enum": enum}
    exec("from __future__ import annotations\nimport datetime\n" + code, space)
    import sys
    import types

    module = types.ModuleType(space["__name__"])
    module.__dict__.update(space)
    sys.modules[space["__name__"]] = module
    return space


TAIL = """
class Do(es.Command):
    count: int = 1

class Thing(es.Aggregate):
    count: int

    @es.handles
    def do(self, cmd: Do) -> None:
        for i in range(cmd.count):
            self.emit(make(i))

    @es.applies
    def done(self, event: Done) -> None:
        self.count += 1
"""

FIRST = """
class Inner(es.Message):
    a: int
    b: str = "b"

class Kind(enum.Enum):
    ONE = 1
    TWO = 2

class Done(es.Event):
    number: int
    text: str
    maybe: int | None
    many: list[int]
    table: dict[str, int]
    inner: Inner
    kind: Kind
    ratio: float

def make(i):
    maybe = None if i % 2 else i
    return Done(i, f"text {i}", maybe, [i, i], {"k": i}, Inner(i), Kind(1 + i % 2), i / 2)
"""


def store(path: Path, code: str = FIRST, count: int = 3) -> None:
    program = define(code + TAIL)
    with es.open(path, program["Thing"]) as system:
        system[program["Thing"], "a"].ask(program["Do"](count))


def changed(old: str, new: str, code: str = FIRST) -> str:
    assert code.count(old) == 1
    return code.replace(old, new)


def reopened(path: Path, code: str) -> list[Any]:
    """The stored events, as the changed classes read them; and the changed program works on."""
    program = define(code + TAIL)
    with es.open(path, program["Thing"]) as system:
        events = [one.event for one in system.events()]
        assert system[program["Thing"], "a"].state.count == len(events)
    return events


# ---- fine ----------------------------------------------------------------------------------------


def test_the_same(tmp_path: Path) -> None:
    store(tmp_path / "a.db")
    events = reopened(tmp_path / "a.db", FIRST)
    assert [one.number for one in events] == [0, 1, 2]
    assert events[1].inner.a == 1 and events[1].kind.value == 2 and events[1].table == {"k": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("note: str = 'none'", "none"),
        ("note: int = 7", 7),
        ("note: bool = True", True),
        ("note: float = 2.5", 2.5),
        ("note: bytes = b'x'", b"x"),
        ("note: str | None = None", None),
        ("note: list[str] = []", []),
        ("note: dict[str, int] = {}", {}),
        ("note: Kind = Kind.TWO", "Kind.TWO"),
        ("note: Inner | None = None", None),
    ],
)
def test_a_new_field_with_a_default_at_the_end(tmp_path: Path, field: str, value: Any) -> None:
    path = tmp_path / "a.db"
    store(path)
    events = reopened(path, changed("    ratio: float\n", f"    ratio: float\n    {field}\n"))
    for one in events:
        assert (
            str(one.note) == value if isinstance(value, str) and "." in value else one.note == value
        )
    store(path, changed("    ratio: float\n", f"    ratio: float\n    {field}\n"))
    assert (
        len(reopened(path, changed("    ratio: float\n", f"    ratio: float\n    {field}\n"))) == 6
    )


def test_a_field_removed_at_the_end(tmp_path: Path) -> None:
    store(tmp_path / "a.db")
    code = changed("    ratio: float\n", "").replace(", i / 2)", ")")
    events = reopened(tmp_path / "a.db", code)
    assert not hasattr(events[0], "ratio") and events[2].number == 2


def test_a_field_removed_in_the_middle_while_the_others_keep_their_numbers(tmp_path: Path) -> None:
    store(tmp_path / "a.db")
    code = """
class Inner(es.Message):
    a: int
    b: str = "b"
class Done(es.Event):
    number: int = es.field(1)
    inner: Inner = es.field(6)
    ratio: float = es.field(8)
def make(i):
    return Done(i, Inner(i), i / 2)
"""
    events = reopened(tmp_path / "a.db", code)
    assert [(one.number, one.inner.a, one.ratio) for one in events] == [
        (0, 0, 0.0),
        (1, 1, 0.5),
        (2, 2, 1.0),
    ]


def test_fields_in_another_order_with_their_numbers(tmp_path: Path) -> None:
    simple = (
        "class Done(es.Event):\n    a: int\n    b: int\n"
        "def make(i):\n    return Done(a=i, b=10 * i)\n"
    )
    store(tmp_path / "a.db", simple)
    code = changed(
        "    a: int\n    b: int\n", "    b: int = es.field(2)\n    a: int = es.field(1)\n", simple
    )
    assert [(one.a, one.b) for one in reopened(tmp_path / "a.db", code)] == [
        (0, 0),
        (1, 10),
        (2, 20),
    ]


def test_a_nested_message_with_a_field_more(tmp_path: Path) -> None:
    store(tmp_path / "a.db")
    code = changed('    b: str = "b"\n', '    b: str = "b"\n    c: int = 5\n')
    assert [one.inner.c for one in reopened(tmp_path / "a.db", code)] == [5, 5, 5]


def test_an_enum_with_a_member_more(tmp_path: Path) -> None:
    store(tmp_path / "a.db")
    assert (
        len(reopened(tmp_path / "a.db", changed("    TWO = 2\n", "    TWO = 2\n    THREE = 3\n")))
        == 3
    )


def test_a_field_that_may_be_none_now(tmp_path: Path) -> None:
    store(tmp_path / "a.db")
    assert (
        len(reopened(tmp_path / "a.db", changed("    number: int\n", "    number: int | None\n")))
        == 3
    )


def test_commands_are_not_stored_and_not_compared(tmp_path: Path) -> None:
    store(tmp_path / "a.db")
    program = define(
        FIRST
        + TAIL.replace(
            "    count: int = 1\n", "    count: str = '1'\n    more: bytes = b''\n", 1
        ).replace("range(cmd.count)", "range(int(cmd.count))")
    )
    with es.open(tmp_path / "a.db", program["Thing"]) as system:
        system[program["Thing"], "a"].ask(program["Do"]("2"))
        assert system.head == 5


def test_a_type_that_no_event_is_stored_of(tmp_path: Path) -> None:
    """Defined, opened, never emitted: there is nothing to misread."""
    path = tmp_path / "a.db"
    store(path, count=0)
    assert (
        reopened(
            path, "class Done(es.Event):\n    other: bytes\ndef make(i):\n    return Done(b'x')\n"
        )
        == []
    )


def test_a_changed_state_drops_snapshots(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.db"
    with_snapshots = TAIL.replace("(es.Aggregate)", "(es.Aggregate, snapshot_every=1)")
    program = define(FIRST + with_snapshots)
    with es.open(path, program["Thing"]) as system:
        for _ in range(5):
            system[program["Thing"], "a"].ask(program["Do"]())
    for state, value in (
        ("count: int\n    numbers: list[int]", [0, 0, 0, 0, 0]),
        ("count: int\n    numbers: list[float]", [0.0] * 5),
        ("numbers: list[str]\n    count: int", ["0"] * 5),
    ):
        kind = state.partition("list[")[2].partition("]")[0]
        code = with_snapshots.replace(
            "    count: int\n\n    @es.handles", f"    {state}\n\n    @es.handles"
        ).replace(
            "        self.count += 1\n",
            f"        self.count += 1\n        self.numbers.append({kind}(event.number))\n",
        )
        program = define(FIRST + code)
        for _ in range(2):
            with es.open(path, program["Thing"]) as system:
                found = system[program["Thing"], "a"].state
                assert found.count == 5 and found.numbers == value
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


# ---- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    ratio: float\n", "    ratio: float\n    note: str\n", ["note", "default"]),
        ("    number: int\n", "    total: int\n", ["total", "number"]),
        ("    ratio: float\n", "    share: float\n", ["share", "ratio"]),
        ("    number: int\n", "    number: str\n", ["number"]),
        ("    number: int\n", "    number: float\n", ["number"]),
        ("    number: int\n", "    number: bool\n", ["number"]),
        ("    text: str\n", "    text: bytes\n", ["text"]),
        ("    number: int\n", "    number: list[int]\n", ["number"]),
        ("    many: list[int]\n", "    many: list[str]\n", ["many"]),
        ("    many: list[int]\n", "    many: int\n", ["many"]),
        ("    table: dict[str, int]\n", "    table: dict[int, int]\n", ["table"]),
        ("    table: dict[str, int]\n", "    table: dict[str, str]\n", ["table"]),
        ("    inner: Inner\n", "    inner: str\n", ["inner"]),
        ("    kind: Kind\n", "    kind: int\n", ["kind"]),
        ("    number: int\n    text: str\n", "    text: str\n    number: int\n", ["number"]),
        ("    text: str\n", "", []),
        ("    text: str\n", "    added: int\n    text: str\n", []),
        ("    number: int\n", "    number: int = es.field(20)\n", ["number"]),
        ("    a: int\n", "    a: str\n", ["a", "Inner"]),
        ("    a: int\n", "    other: int\n", ["other", "Inner"]),
        ("    TWO = 2\n", "    TWO = 3\n", ["TWO"]),
    ],
)
def test_what_would_misread_is_refused(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    path = tmp_path / "a.db"
    store(path)
    before = path.read_bytes()
    program = define(changed(old, new) + TAIL)
    for readonly in (False, True):
        for _ in range(2):
            with pytest.raises(es.SchemaMismatch) as caught:
                es.open(path, program["Thing"], readonly=readonly)
            for word in words:
                assert word in str(caught.value)
    assert path.read_bytes() == before
    left = {
        name
        for name, data in support.contents(tmp_path).items()
        if data or not name.endswith("-wal")
    }
    assert left <= {"a.db", "a.db-lock", "a.db-shm"}  # a reader of SQLite leaves its index
    assert len(reopened(path, FIRST)) == 3


def test_the_mend_that_an_error_names_mends(tmp_path: Path) -> None:
    """A renamed field: its old number, or its old name."""
    path = tmp_path / "a.db"
    simple = (
        "class Done(es.Event):\n    a: int\n    b: int\ndef make(i):\n    return Done(i, 10 * i)\n"
    )
    store(path, simple)
    with pytest.raises(es.SchemaMismatch) as caught:
        reopened(
            path,
            simple.replace("    b: int\n", "    b: int\n    c: int\n").replace(
                "10 * i)", "10 * i, 5)"
            ),
        )
    assert "default" in str(caught.value)
    events = reopened(path, simple.replace("    b: int\n", "    b: int\n    c: int = 0\n"))
    assert [(one.a, one.b, one.c) for one in events] == [(0, 0, 0), (1, 10, 0), (2, 20, 0)]


def test_a_removed_number_is_not_given_to_another(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    simple = (
        "class Done(es.Event):\n    a: int\n    b: int\ndef make(i):\n    return Done(i, 10 * i)\n"
    )
    store(path, simple)
    without = "class Done(es.Event):\n    a: int\ndef make(i):\n    return Done(i)\n"
    assert len(reopened(path, without)) == 3
    store(path, without)
    again = "class Done(es.Event):\n    a: int\n    c: int = 3\ndef make(i):\n    return Done(i)\n"
    with pytest.raises(es.SchemaMismatch):
        reopened(path, again)
    other = (
        "class Done(es.Event):\n    a: int\n    c: int = es.field(3, default=3)\n"
        "def make(i):\n    return Done(i)\n"
    )
    events = reopened(path, other)
    assert [one.c for one in events] == [3] * 6


def test_every_step_of_a_long_history(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fields: list[str] = ["a: int"]
    for i in range(8):
        code = (
            "class Done(es.Event):\n"
            + "".join(f"    {one}\n" for one in fields)
            + "def make(i):\n    return Done(i)\n"
        )
        store(path, code, 2)
        events = reopened(path, code)
        assert len(events) == 2 * (i + 1)
        assert [one.a for one in events] == [0, 1] * (i + 1)
        assert all(getattr(one, f"f{n}") == n for one in events for n in range(i))
        fields.append(f"f{i}: int = {i}")


def test_an_event_class_that_is_only_read(tmp_path: Path) -> None:
    store(tmp_path / "a.db")
    program = define(changed("    number: int\n", "    number: str\n"))
    with pytest.raises(es.SchemaMismatch, match="number"):
        es.open(tmp_path / "a.db", program["Done"])
    program = define(FIRST)
    with es.open(tmp_path / "a.db", program["Done"]) as system:
        assert [one.event.number for one in system.events()] == [0, 1, 2]
    with es.open(tmp_path / "a.db") as system:
        assert [one.type for one in system.events()] == ["Done"] * 3
