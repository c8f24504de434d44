"""``escqrs.schema.lock``: a file that says how events are stored, and a test that holds classes
against it."""

from __future__ import annotations

import itertools
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import escqrs as es
import pytest

_modules = itertools.count()

CODE = """
import escqrs as es
import datetime
import enum
from typing import Literal

class Color(enum.Enum):
    RED = 1
    GREEN = 2

class Mood(enum.Enum):
    RED = 1

class Money(es.Message, name="shop.Money"):
    cents: int
    color: Color = Color.RED

class Card(es.Message):
    number: str

class Node(es.Message):
    children: list["Node"]

class ItemAdded(es.Event, name="shop.ItemAdded"):
    name: str
    price: Money
    note: str | None = None
    table: dict[str, Money] = {}
    paid: Card | Money = Card("1")
    several: list[Card | Money] = []
    tree: Node | None = None
    at: datetime.datetime = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    small: es.uint32 = 0

class Ended(es.Event):
    reason: Literal["it's \\"over\\"", " = default", "\\n"] | None
    codes: dict[Color, Literal[-1, 1]]

class Add(es.Command):
    name: str

class Cart(es.Aggregate):
    count: int

    @es.handles
    def add(self, cmd: Add) -> None:
        self.emit(ItemAdded(cmd.name, Money(1)))

    @es.applies
    def added(self, event: ItemAdded) -> None:
        self.count += 1

class Items(es.ReadModel):
    schema = "CREATE TABLE items (name)"
    on_ended = es.sql(Ended, "INSERT INTO items VALUES (:_position)")
"""


def program(code: str = CODE) -> Any:
    module = types.ModuleType(f"locked_{next(_modules)}")
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    return module


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "escqrs.schema.lock"
    es.write_schema_lock(path, program())
    return path


def test_what_it_looks_like(lock: Path) -> None:
    text = lock.read_text()
    assert text.startswith("# ") and text.endswith("\n")
    assert (
        "event Ended version 1\n"
        "  1 reason: Literal['\\n', ' = default', 'it\\'s \"over\"'] | None\n"
        "  2 codes: dict[Literal['GREEN', 'RED'], Literal[-1, 1]]\n"
    ) in text
    assert "\nevent shop.ItemAdded version 1\n  1 name: str\n" in text
    assert "  2 price: shop.Money\n  3 note: str | None = default\n" in text
    assert "  5 paid: Card | shop.Money = default\n" in text
    assert "  4 table: dict[str, shop.Money] = default\n" in text
    assert "  message shop.Money\n    1 cents: int\n    2 color: Color = default\n" in text
    assert "  enum Color\n    1 RED\n    2 GREEN\n" in text


def test_the_same_program_is_fine(lock: Path) -> None:
    before = lock.read_bytes()
    new = program()
    es.check_schema_lock(lock, new)
    es.check_schema_lock(lock, new.Cart, new.Items)
    es.check_schema_lock(str(lock), new.Items, new.ItemAdded)
    es.write_schema_lock(lock, new.Items, new.Cart)
    assert lock.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    name: str\n    price", "    name: bytes\n    price", "name: bytes"),
        ("    name: str\n    price", "    title: str\n    price", "was="),
        ("    name: str\n    price: Money", "    price: Money\n    name: str", "name"),
        ("    cents: int", "    cents: float", "cents"),
        ("GREEN = 2", "GREEN = 3", "GREEN"),
        (', " = default"', "", "the Literal had ` = default`"),
        ("[-1, 1]", "[1]", "the Literal had `-1`"),
        ("codes: dict[Color, ", "codes: dict[Mood, ", "the enum of the keys had `GREEN`"),
        ("small: es.uint32", "small: es.int32", "small"),
        ("paid: Card | Money", "paid: Money | Card", "union"),
        ("children: list", "offspring: list", "children"),
        (
            "es.uint32 = 0",
            "es.uint32 = 0\n    more: list[int] = es.field(30, kw_only=True)",
            "more",
        ),
        ('name="shop.ItemAdded"', 'name="shop.Added"', 'was="shop.ItemAdded"'),
    ],
)
def test_what_would_misread_fails(lock: Path, old: str, new: str, words: str) -> None:
    before = lock.read_bytes()
    assert CODE.count(old) >= 1
    changed = program(CODE.replace(old, new, 1))
    for function in (es.check_schema_lock, es.write_schema_lock):
        with pytest.raises(es.SchemaMismatch) as caught:
            function(lock, changed)
        assert words in str(caught.value) and str(lock) in str(caught.value)
    with pytest.raises(es.SchemaMismatch):
        es.check_schema_lock(lock, changed, exact=False)
    assert lock.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("es.uint32 = 0", "es.uint32 = 0\n    more: int = 1", "  10 more: int = default\n"),
        ("small: es.uint32", "small: int", "  9 small: int = default\n"),
        ("GREEN = 2", "GREEN = 2\n    BLUE = 3", "    3 BLUE\n"),
        ("[-1, 1]", "[-1, 0, 1]", "Literal[-1, 0, 1]]\n"),
        ("    small: es.uint32 = 0\n", "", "  reserved 9\n"),
        (
            "    name: str\n    price",
            "    title: str = es.field(1, was='name')\n    price",
            "  1 title: str  (was name)\n",
        ),
        (
            'ItemAdded(es.Event, name="shop.ItemAdded")',
            'ItemAdded(es.Event, name="shop.Added", was="shop.ItemAdded")',
            "event shop.Added version 1  (was shop.ItemAdded)\n",
        ),
        (
            "class Card(es.Message)",
            "class Card(es.Message, name='C', was='Card')",
            "message C  (was",
        ),
    ],
)
def test_what_is_compatible_has_to_be_locked(lock: Path, old: str, new: str, line: str) -> None:
    changed = program(CODE.replace(old, new, 1))
    es.check_schema_lock(lock, changed, exact=False)
    with pytest.raises(es.SchemaMismatch, match="out of date"):
        es.check_schema_lock(lock, changed)
    es.write_schema_lock(lock, changed)
    assert line in lock.read_text()
    es.check_schema_lock(lock, changed)


def test_a_number_that_was_removed_stays_reserved(lock: Path) -> None:
    without = CODE.replace("    small: es.uint32 = 0\n", "")
    es.write_schema_lock(lock, program(without))
    es.check_schema_lock(lock, program(without))
    at = "tzinfo=datetime.UTC)\n"
    again = without.replace(at, f"{at}    other: str = es.field(9, default='')\n")
    with pytest.raises(es.SchemaMismatch, match="reserved"):
        es.check_schema_lock(lock, program(again))
    es.write_schema_lock(lock, program(without))
    assert lock.read_text().count("reserved 9") == 1


UP = """
@es.upcast("shop.ItemAdded", version=1)
def later(event):
    return ItemAdded(event["name"])
"""


def test_versions_stay_in_it(lock: Path) -> None:
    second = CODE[: CODE.index("    price: Money\n")] + CODE[CODE.index("class Ended") :]
    second = second.replace("ItemAdded(cmd.name, Money(1))", "ItemAdded(cmd.name)")
    second = second.replace("    name: str\n", "    name: str\n    price: float = 1.0\n", 1)
    with pytest.raises(es.SchemaMismatch, match="es.upcast"):
        es.write_schema_lock(lock, program(second))
    es.write_schema_lock(lock, program(second + UP))
    text = lock.read_text()
    assert "event shop.ItemAdded version 1\n" in text and "event shop.ItemAdded version 2\n" in text
    es.check_schema_lock(lock, program(second + UP))
    with pytest.raises(es.SchemaMismatch):  # the upcaster is gone, and version 1 is still there
        es.check_schema_lock(lock, program(second))


def test_an_event_that_is_gone(lock: Path) -> None:
    ended = CODE[CODE.index("class Ended") : CODE.index("class Add(")]
    without = CODE[: CODE.index("class Items")].replace(ended, "")
    with pytest.raises(es.SchemaMismatch, match="Ended"):
        es.check_schema_lock(lock, program(without))
    dropped = without + '\n@es.upcast("Ended", version=1)\ndef gone(event): return []\n'
    es.check_schema_lock(lock, program(dropped))


@pytest.mark.parametrize(
    "line",
    ["event", "nonsense here", "event X version one", "event X\n  1 a: Nothing", "  1 a: int"],
)
def test_a_file_that_does_not_read(lock: Path, line: str) -> None:
    lock.write_text(line + "\n")
    with pytest.raises(ValueError, match="schema.lock"):
        es.check_schema_lock(lock, program())


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        es.check_schema_lock(tmp_path / "none", program())


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "escqrs", "lock", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(CODE)
    made = run(tmp_path, "shop")
    assert (made.returncode, made.stderr) == (0, "")
    text = (tmp_path / "escqrs.schema.lock").read_text()
    assert run(tmp_path, "--check", "shop").returncode == 0
    assert run(tmp_path, "--check", "shop:Cart", "shop:Items").returncode == 0
    (tmp_path / "shop.py").write_text(CODE.replace("    cents: int", "    cents: str"))
    for arguments in (["--check", "shop"], ["shop"]):
        failed = run(tmp_path, *arguments)
        assert failed.returncode == 1 and "cents" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert (tmp_path / "escqrs.schema.lock").read_text() == text
    (tmp_path / "shop.py").write_text(
        CODE.replace("    cents: int", "    cents: int\n    x: int = 1")
    )
    assert run(tmp_path, "--check", "shop").returncode == 1
    assert run(tmp_path, "--file", "other.lock", "shop").returncode == 0
    assert run(tmp_path, "nothing").returncode == 2
