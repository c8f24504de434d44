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


VALUES = """
from typing import Literal

class Color(enum.Enum):
    RED = 1
    GREEN = 2

class Done(es.Event):
    size: Literal["s", "m"]
    counts: dict[Color, int]

def make(i):
    return Done("s", {Color.RED: i})
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"s", "m"', '"m", "s"', []),
        ('"s", "m"', '"s", "m", "l"', [("added", "the Literal has got `l`")]),
        (
            'Literal["s", "m"]',
            "str",
            [("widened", "field 1, `size`, takes any value now, and not those of a Literal alone")],
        ),
        ("GREEN = 2", "GREEN = 3", []),
        (
            "GREEN = 2",
            "GREEN = 2\n    BLUE = 3",
            [("added", "the enum of the keys has got `BLUE`")],
        ),
    ],
)
def test_values_that_may_be_read(
    tmp_path: Path, old: str, new: str, said: list[tuple[str, str]]
) -> None:
    store(tmp_path / "a.db", VALUES)
    program = define(changed(old, new, VALUES) + TAIL)
    with es.open(tmp_path / "a.db", program["Thing"]) as system:
        assert [(one.kind, one.text) for one in system.schema_changes] == said
        assert [one.event.size for one in system.events()] == ["s", "s", "s"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"s", "m"', '"s"', "the Literal had `m`"),
        ("    GREEN = 2\n", "", "the enum of the keys had `GREEN`"),
    ],
)
def test_values_that_have_gone_are_refused_until_they_are_upcast(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = tmp_path / "a.db"
    store(path, VALUES)
    code = changed(old, new, VALUES)
    program = define(code + TAIL)
    with pytest.raises(es.SchemaMismatch, match=words) as caught:
        es.open(path, program["Thing"])
    assert caught.value.field in ("size", "counts")
    upcaster = '@es.upcast("Done", version=1)\ndef keep(event):\n    return event\n'
    assert [one.size for one in reopened(path, code + upcaster)] == ["s", "s", "s"]


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


# ---- renamed, moved, reserved ------------------------------------------------------------------


PAIR = """
class Done(es.Event):
    a: int
    b: str = "b"
def make(i):
    return Done(i, f"text {i}")
"""


def test_a_renamed_field(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store(path, PAIR)
    renamed = PAIR.replace("a: int", "count: int = es.field(1, was='a')")
    assert [one.count for one in reopened(path, renamed)] == [0, 1, 2]
    store(path, renamed)
    twice = PAIR.replace("a: int", "total: int = es.field(1, was=['a', 'count'])")
    assert [one.total for one in reopened(path, twice)] == [0, 1, 2, 0, 1, 2]
    # the older programs again: what the newer one wrote says what its fields were
    assert [one.count for one in reopened(path, renamed)] == [0, 1, 2, 0, 1, 2]
    assert [one.a for one in reopened(path, PAIR)] == [0, 1, 2, 0, 1, 2]
    with pytest.raises(es.SchemaMismatch, match="was="):
        reopened(path, PAIR.replace("a: int", "total: int"))


def test_a_renamed_field_of_another_type(tmp_path: Path) -> None:
    store(tmp_path / "a.db", PAIR)
    with pytest.raises(es.SchemaMismatch, match="a: int.*count: str"):
        reopened(tmp_path / "a.db", PAIR.replace("a: int", "count: str = es.field(1, was='a')"))


def test_a_renamed_class(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store(path, PAIR)
    renamed = PAIR.replace(
        "class Done(es.Event)", 'class Done(es.Event, name="x.Done", was="Done")'
    )
    with pytest.raises(es.UnknownType):
        reopened(path, renamed.replace(', was="Done"', ""))
    assert [one.a for one in reopened(path, renamed)] == [0, 1, 2]
    store(path, renamed)
    program = define(renamed + TAIL)
    with es.open(path, program["Thing"]) as system:
        assert {one.type for one in system.events()} == {"x.Done"}
        for name in ("x.Done", "Done"):  # either name finds them all
            found = list(system.events(match=es.Match(types=[name])))
            assert [one.position for one in found] == [1, 2, 3, 4, 5, 6]
        with system.store.subscribe(match=es.Match(types=["x.Done"])) as feed:
            assert [feed.next(timeout=support.SECONDS).position for _ in range(6)] == [
                1,
                2,
                3,
                4,
                5,
                6,
            ]
        with pytest.raises(es.ConditionFailed) as caught:
            system.store.append(
                "s",
                [es.NewEvent("N", b"")],
                condition=es.Unless(es.Match(types=[program["Done"]])),
            )
        assert caught.value.position == 1
        assert [(one.kind, one.type) for one in system.schema_changes] == [("renamed", "x.Done")]
    # rolled back: the record of what was written as x.Done says that it was Done
    assert [one.a for one in reopened(path, PAIR)] == [0, 1, 2, 0, 1, 2]


def test_read_models_of_a_renamed_class(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store(path, PAIR)
    model = """
class Rows(es.ReadModel):
    schema = "CREATE TABLE rows (a, type)"
    done = es.sql(Done, "INSERT INTO rows VALUES (:a, :_type)")
    @es.query
    def all(self, db):
        assert {type for type, in db.execute("SELECT type FROM rows")} == {"x.Done"}
        return [a for a, in db.execute("SELECT a FROM rows")]
class Handled(es.ReadModel):
    schema = "CREATE TABLE handled (a)"
    @es.on(Done)
    def done(self, db, event):
        db.execute("INSERT INTO handled VALUES (?)", (event.a,))
    @es.query
    def all(self, db):
        return [a for a, in db.execute("SELECT a FROM handled")]
"""
    renamed = PAIR.replace(
        "class Done(es.Event)", 'class Done(es.Event, name="x.Done", was="Done")'
    )
    program = define(renamed + TAIL + model)
    with es.open(path, program["Thing"], program["Rows"], program["Handled"]) as system:
        system[program["Thing"], "a"].ask(program["Do"]())
        system.flush()
        assert system[program["Rows"]].all() == [0, 1, 2, 0]
        assert system[program["Handled"]].all() == [0, 1, 2, 0]


def test_a_renamed_nested_class(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store(path)
    code = FIRST.replace("class Inner(es.Message)", 'class Other(es.Message, was="Inner")')
    code = code.replace("inner: Inner", "inner: Other").replace("Inner(i)", "Other(i)")
    assert [one.inner.a for one in reopened(path, code)] == [0, 1, 2]
    with pytest.raises(es.SchemaMismatch, match="Other"):
        reopened(path, code.replace(', was="Inner"', ""))
    store(path, code)
    assert [one.inner.a for one in reopened(path, FIRST)] == [0, 1, 2, 0, 1, 2]


def test_a_union_of_renamed_classes(tmp_path: Path) -> None:
    simple = """
class Card(es.Message):
    n: int
class Cash(es.Message):
    n: int
class Done(es.Event):
    paid: Card | Cash
def make(i):
    return Done(Card(i) if i % 2 else Cash(i))
"""
    path = tmp_path / "a.db"
    store(path, simple)
    code = simple.replace("class Card(es.Message)", 'class Plastic(es.Message, was="Card")')
    code = code.replace("Card | Cash", "Plastic | Cash").replace("Card(i)", "Plastic(i)")
    assert [type(one.paid).__name__ for one in reopened(path, code)] == ["Cash", "Plastic", "Cash"]
    with pytest.raises(es.SchemaMismatch):
        reopened(path, code.replace(', was="Card"', ""))


def test_classes_that_moved_to_another_module(tmp_path: Path) -> None:
    store(tmp_path / "a.db")  # `define` makes a module of its own each time
    assert len(reopened(tmp_path / "a.db", FIRST)) == 3


@pytest.mark.parametrize(
    ("classes", "error"),
    [
        ('class A(es.Event, was="C"): pass\nclass B(es.Event, was="C"): pass', es.NameClash),
        ('class A(es.Event, was="B"): pass\nclass B(es.Event): pass', es.NameClash),
    ],
)
def test_two_classes_for_one_former_name(classes: str, error: type[Exception]) -> None:
    program = define(classes)
    with pytest.raises(error, match="former name"):
        es.open(":memory:", program["A"], program["B"])


@pytest.mark.parametrize(
    "code",
    [
        "class A(es.Event, was=5): pass",
        "class A(es.Event, was=''): pass",
        "class A(es.Event, was='a b'): pass",
        "class A(es.Event, version=0): pass",
        "class A(es.Event, version='1'): pass",
        "class A(es.Event, version=True): pass",
        "class A(es.Message, version=1): pass",
        "class A(es.Command, version=1): pass",
        "class A(es.Event, reserved=0): pass",
        "class A(es.Event, reserved=[1.5]): pass",
        "class A(es.Event, reserved='a'):\n    a: int",
        "class A(es.Event, reserved=3):\n    a: int = es.field(3)",
        "class A(es.Event):\n    a: int = es.field(1, was=7)",
        "class A(es.Event):\n    a: int = es.field(1, was='b c')",
    ],
)
def test_wrong_histories(code: str) -> None:
    with pytest.raises(TypeError):
        es.proto(define(code)["A"])


def test_reserved_numbers_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    three = "class Done(es.Event):\n    a: int\n    b: int = 0\n    c: int = 0\n"
    make = "def make(i):\n    return Done(a=i, c=i)\n"
    store(path, three + make)
    two = "class Done(es.Event, reserved=(2, 'b')):\n    a: int\n    c: int = 0\n"
    assert [(one.a, one.c) for one in reopened(path, two + make)] == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(TypeError, match="reserved"):
        define("class A(es.Event, reserved=2): pass\nclass B(A):\n    x: int = es.field(2)\n")


@pytest.mark.parametrize("field", ["note: str | None", "note: list[str]", "note: dict[str, int]"])
def test_a_new_field_without_default_is_refused_whatever_it_is(tmp_path: Path, field: str) -> None:
    store(tmp_path / "a.db", PAIR)
    code = PAIR.replace("    a: int\n", f"    a: int\n    {field} = es.field(9)\n")
    with pytest.raises(es.SchemaMismatch, match="default"):
        reopened(tmp_path / "a.db", code)


def test_the_error_has_both_schemas(tmp_path: Path) -> None:
    store(tmp_path / "a.db")
    program = define(changed("    a: int\n", "    a: str\n") + TAIL)
    with pytest.raises(es.SchemaMismatch) as caught:
        es.open(tmp_path / "a.db", program["Thing"])
    error = caught.value
    assert (error.type, error.field) == ("Inner", "a")
    assert "1 a: int" in str(error.stored) and "1 a: str" in str(error.declared)
    assert str(error.stored).splitlines()[0] in str(error)
    assert "es.upcast" in str(error)


def test_what_has_changed_is_told(tmp_path: Path) -> None:
    store(
        tmp_path / "a.db",
        "class Done(es.Event):\n    a: es.int32\n    b: int\n    c: int\n"
        "def make(i):\n    return Done(i, i, i)\n",
    )
    program = define(
        "class Done(es.Event):\n    a: int\n    e: int = es.field(3, was='c')\n"
        "    d: int = 4\ndef make(i):\n    return Done(i, i)\n" + TAIL
    )
    with es.open(tmp_path / "a.db", program["Thing"]) as system:
        found = {(one.kind, one.field) for one in system.schema_changes}
        assert found == {("widened", "a"), ("removed", "b"), ("renamed", "e"), ("added", "d")}
        assert all(one.compatible and one.text for one in system.schema_changes)


# ---- two versions of a program on one file -----------------------------------------------------


def test_a_reader_meets_what_a_newer_program_writes(tmp_path: Path) -> None:
    """Opened before it was written: what fits is served, what is unknown stops who needs it."""
    path = tmp_path / "a.db"
    store(path, PAIR)
    older = define(PAIR + TAIL)
    with es.open(path, older["Thing"], readonly=True) as reader:
        assert reader[older["Thing"], "a"].state.count == 3
        newer = define(PAIR.replace('b: str = "b"', 'b: str = "b"\n    c: int = 5') + TAIL)
        with es.open(path, newer["Thing"]) as writer:
            writer[newer["Thing"], "b"].ask(newer["Do"](2))
        assert reader[older["Thing"], "b"].state.count == 2
        with es.Store(path) as raw:
            raw.append("Thing/d", [es.NewEvent("Unknown", b"")])
        with pytest.raises(es.UnknownType, match="Thing/d"):
            _ = reader[older["Thing"], "d"].state
        assert reader[older["Thing"], "a"].state.count == 3
        assert [one.type for one in reader.events(after=5)] == ["Unknown"]


def test_events_that_would_be_misread_come_into_an_open_store(tmp_path: Path) -> None:
    """A reader opened before: the newer class is another one, and its entity says so."""
    path = tmp_path / "a.db"
    store(path, PAIR)
    older = define(PAIR + TAIL)
    with es.open(path, older["Thing"], readonly=True) as reader:
        assert reader[older["Thing"], "a"].state.count == 3
        newer = define(
            "class Done(es.Event, version=2):\n    a: int\n    b: float = 1.0\n"
            "def make(i):\n    return Done(i)\n"
            "@es.upcast('Done', version=1)\ndef up(e):\n    return {'a': e['a']}\n" + TAIL
        )
        with es.open(path, newer["Thing"]) as writer:
            writer[newer["Thing"], "b"].ask(newer["Do"](2))
            assert writer[newer["Thing"], "a"].state.count == 3
        with pytest.raises(es.SchemaMismatch, match="Thing/b, version 1.*newer program"):
            _ = reader[older["Thing"], "b"].state
        assert reader[older["Thing"], "a"].state.count == 3
        with pytest.raises(es.SchemaMismatch, match="newer program"):
            _ = list(reader.events())[-1].event
    with pytest.raises(es.SchemaMismatch, match="newer program"):  # rolled back
        es.open(path, older["Thing"])
    with es.open(path, newer["Thing"]) as again:
        assert again[newer["Thing"], "b"].state.count == 2


def test_rolling_back(tmp_path: Path) -> None:
    """The older program on what the newer one has written."""
    path = tmp_path / "a.db"
    store(path, PAIR)
    added = PAIR.replace('b: str = "b"', 'b: str = "b"\n    c: int = 5')
    store(path, added)
    assert [one.a for one in reopened(path, PAIR)] == [0, 1, 2] * 2  # served
    removed = "class Done(es.Event):\n    a: int\ndef make(i):\n    return Done(i)\n"
    store(path, removed)
    assert [one.b for one in reopened(path, PAIR)][-1] == "b"  # it has a default
    without = PAIR.replace('b: str = "b"', "b: str")
    with pytest.raises(es.SchemaMismatch, match="default"):
        reopened(path, without)
    narrow = "class Done(es.Event):\n    a: es.int32\ndef make(i):\n    return Done(i)\n"
    with pytest.raises(es.SchemaMismatch, match="es.int32"):  # widened, and not back
        reopened(path, narrow)


def test_an_event_of_unknown_type_stops_those_that_need_it_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    more = PAIR + "class More(es.Event):\n    x: int\n"
    method = "    def more(self, event: More) -> None:\n        pass\n"
    both = TAIL.replace(
        "    @es.applies\n", f"    @es.applies\n{method}    @es.applies\n", 1
    ).replace("self.emit(make(i))", "self.emit(make(i) if cmd.count < 9 else More(i))")
    program = define(more + both)
    with es.open(path, program["Thing"]) as system:
        system[program["Thing"], "a"].ask(program["Do"](2))
        system[program["Thing"], "b"].ask(program["Do"](9))
    model = """
class Rows(es.ReadModel):
    schema = "CREATE TABLE rows (a)"
    done = es.sql(Done, "INSERT INTO rows VALUES (:a)")
    @es.query
    def all(self, db):
        return [a for a, in db.execute("SELECT a FROM rows")]
"""
    program = define(PAIR + TAIL + model)
    with es.open(path, program["Thing"], program["Rows"]) as system:
        assert system[program["Thing"], "a"].state.count == 2
        for _ in range(2):
            with pytest.raises(es.UnknownType, match="Thing/b, version 1.*More"):
                system[program["Thing"], "b"].ask(program["Do"]())
        system[program["Thing"], "c"].ask(program["Do"]())
        system.flush()
        assert system[program["Rows"]].all() == [0, 1, 0]
        assert len(list(system.events())) == 12


def test_a_tuple_in_a_renamed_class_and_field(tmp_path: Path) -> None:
    simple = (
        "class Done(es.Event):\n    at: tuple[int, str]\ndef make(i):\n    return Done((i, 'x'))\n"
    )
    store(tmp_path / "a.db", simple)
    code = simple.replace("(es.Event)", '(es.Event, name="x.Done", was="Done")').replace(
        "at: tuple[int, str]", "place: tuple[int, str] = es.field(1, was='at')"
    )
    assert [one.place for one in reopened(tmp_path / "a.db", code)] == [
        (0, "x"),
        (1, "x"),
        (2, "x"),
    ]
    with pytest.raises(es.SchemaMismatch):
        reopened(tmp_path / "a.db", code.replace("tuple[int, str]", "tuple[str, int]"))


def test_a_renamed_aggregate_keeps_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store(path, PAIR)
    with pytest.raises(TypeError, match="name='Thing'"):
        define(PAIR + TAIL.replace("Thing(es.Aggregate)", "Other(es.Aggregate, was='Thing')"))
    program = define(
        PAIR + TAIL.replace("Thing(es.Aggregate)", "Other(es.Aggregate, name='Thing')")
    )
    with es.open(path, program["Other"]) as system:
        assert system[program["Other"], "a"].state.count == 3
