"""Message classes: bytes, also hostile ones, and layouts of states."""

from __future__ import annotations

import doctest
import gc
import pickle
from datetime import UTC, datetime
from typing import (
    Any,
    ClassVar,
)

import escqrs as es
import pytest
from escqrs import _field, _message
from messages import AddItem, Color, Everything, ItemAdded, Money, Node, Size, again, everything
from support import fail_allocations

# ---- bytes ---------------------------------------------------------------------------------------


def test_absent_fields() -> None:
    class Old(es.Event):
        x: int

    class New(es.Event):
        x: int
        text: str
        ratio: float
        flag: bool
        data: bytes
        level: Color = Color.GREEN
        maybe: str | None = None
        many: list[int] = []

    new = es.from_bytes(New, es.to_bytes(Old(7)))
    assert (new.x, new.text, new.ratio, new.flag, new.data) == (7, "", 0.0, False, b"")
    assert (new.level, new.maybe, new.many) == (Color.GREEN, None, [])

    class NeedsTime(es.Event):
        x: int
        at: datetime

    class NeedsMoney(es.Event):
        x: int
        money: Money

    class NeedsColor(es.Event):
        x: int
        color: Color

    class NeedsSize(es.Event):
        x: int
        size: Size

    for cls, name in ((NeedsTime, "at"), (NeedsMoney, "money"), (NeedsColor, "color")):
        with pytest.raises(es.Corrupt, match=rf"{cls.__name__}\.{name}.*default"):
            es.from_bytes(cls, es.to_bytes(Old(7)))
    assert es.from_bytes(NeedsSize, es.to_bytes(Old(7))).size is Size.SMALL  # number 0


def test_unknown_enum_numbers() -> None:
    class Numbered(es.Event):
        color: int

    class Colored(es.Event):
        color: Color

    class ManyColored(es.Event):
        colors: list[Color]

    class Nested(es.Event):
        colored: Colored

    class Mapped(es.Event):
        colored: dict[int, Color]

    assert es.from_bytes(Colored, es.to_bytes(Numbered(2))).color is Color.GREEN
    for number in (0, 3, -1):
        with pytest.raises(es.Corrupt, match=rf"Colored\.color: {number} "):
            es.from_bytes(Colored, es.to_bytes(Numbered(number)))
    with pytest.raises(es.Corrupt, match=r"ManyColored\.colors: 7"):
        es.from_bytes(ManyColored, b"\x0a\x02\x01\x07")
    with pytest.raises(es.Corrupt, match=r"Colored\.color: 7"):
        es.from_bytes(Nested, b"\x0a\x02\x08\x07")
    with pytest.raises(es.Corrupt, match=r"Mapped\.colored: 7"):
        es.from_bytes(Mapped, b"\x0a\x04\x08\x01\x10\x07")
    with pytest.raises(es.Corrupt, match=r"Mapped\.colored"):
        es.from_bytes(Mapped, b"\x0a\x02\x08\x01")


def test_unknown_fields_survive() -> None:
    class New(es.Event):
        x: int
        text: str
        more: list[str]
        nested: Money
        ratio: float = 0.0

    class Old(es.Event):
        x: int

    class OldAround(es.Event):
        old: Old

    new = New(1, "later", ["a", "b" * 300], Money(5), 2.5)
    old = es.from_bytes(Old, es.to_bytes(new))
    assert old == Old(1)
    assert es.from_bytes(New, es.to_bytes(old)) == new
    changed = es.from_bytes(New, es.to_bytes(old.__replace__(x=2)))
    assert changed == new.__replace__(x=2)
    assert es.from_bytes(New, es.to_bytes(pickle_free_copy(old))) == new
    around = OldAround(old)
    again_old = again(again(around)).old
    assert es.from_bytes(New, es.to_bytes(again_old)) == new
    assert es.from_bytes(New, es.to_bytes(around.__replace__().old)) == new


def pickle_free_copy(message: Any) -> Any:
    """What pickle does, for classes that it cannot find."""
    function, arguments = message.__reduce__()
    return function(*arguments)


def test_hostile_bytes() -> None:
    for data in (
        b"\x0a",
        b"\x0a\x05ab",
        b"\xff" * 11,
        b"\x0a\x02\xc3\x28",
        b"\x08\x01",
        b"\x0b\x0c",
    ):
        with pytest.raises(es.Corrupt):
            es.from_bytes(ItemAdded, data)
    with pytest.raises(es.TooLarge):
        es.from_bytes(ItemAdded, b"\x0a" + b"\xff\xff\xff\x0f" + b"x" * (17 << 20))
    deep = b""
    for _ in range(200):
        length = len(deep)
        size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
        deep = b"\x12" + size + deep
    with pytest.raises((es.TooLarge, es.Corrupt)):
        es.from_bytes(Node, deep)
    for wrong in (5, "text", None):
        with pytest.raises(TypeError):
            es.from_bytes(ItemAdded, wrong)  # type: ignore[arg-type]
    assert es.from_bytes(AddItem, bytearray(b"\x0a\x01x")).name == "x"
    assert es.from_bytes(AddItem, memoryview(b"\x0a\x01x")).name == "x"
    with pytest.raises(TypeError):
        es.from_bytes(int, b"")  # type: ignore[type-var]
    with pytest.raises(TypeError):
        es.from_bytes(es.Event, b"")
    with pytest.raises(TypeError):
        es.to_bytes(5)  # type: ignore[arg-type]


def test_times_beyond_the_years() -> None:
    class Timed(es.Event):
        at: datetime

    class Raw(es.Message):
        seconds: int
        nanos: int = 0

    class RawTimed(es.Event):
        at: Raw

    def read(seconds: int, nanos: int = 0) -> datetime:
        return es.from_bytes(Timed, es.to_bytes(RawTimed(Raw(seconds, nanos)))).at

    assert read(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert read(-1, 999_999_999) == datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)
    assert read(253402300799) == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    for seconds, nanos in ((253402300800, 0), (-62135596801, 0), (2**62, 0), (0, 10**9), (0, -1)):
        with pytest.raises(es.Corrupt):
            read(seconds, nanos)


def test_nesting_is_bounded() -> None:
    node = Node(0)
    with pytest.raises(ValueError, match=r"Node\.next: .*deeper than 100"):
        for i in range(200):
            node = Node(i, [], node)
    depth = 0
    inner: Node | None = node
    while inner is not None:
        depth += 1
        inner = inner.next
    assert depth == 100
    assert again(node) == node
    assert hash(again(node)) == hash(node)
    with pytest.raises(ValueError, match="deeper"):
        Node(1, [], again(node))
    with pytest.raises(ValueError, match="deeper"):
        Node(1, [again(node)])

    class Tree(es.Message):
        branches: dict[str, Tree] = {}
        at: datetime | None = None

    tree = Tree()
    with pytest.raises(ValueError, match="deeper"):
        for _ in range(200):
            tree = Tree({"x": tree}, datetime(2024, 1, 1, tzinfo=UTC))
    assert again(tree) == tree


def test_nested_messages_outlive_their_parent() -> None:
    inner = again(everything()).moneys
    gc.collect()
    assert inner == [Money(1), Money(2, "CHF")]
    assert es.to_bytes(inner[1]) == es.to_bytes(Money(2, "CHF"))
    reused = everything(money=inner[0], moneys=inner)
    assert again(reused) == reused


def test_equal_keys() -> None:
    class Mapped(es.Event):
        counts: dict[str, int]

    assert es.from_bytes(Mapped, b"\x0a\x05\x0a\x01a\x10\x01\x0a\x05\x0a\x01a\x10\x02").counts == {
        "a": 2
    }
    assert es.from_bytes(Mapped, b"\x0a\x00").counts == {"": 0}


def test_large_lengths() -> None:
    for size in (0, 1, 127, 128, 129, 16383, 16384, 70000, 2**21):
        event = everything(text="ä" * size, data=b"x" * size, numbers=[1] * min(size, 20000))
        assert again(event) == event
    event = everything(moneys=[Money(i, "x" * i) for i in range(300)])
    assert again(event) == event
    event = everything(moneys_by_name={str(i): Money(i, "é" * i) for i in range(300)})
    assert again(event) == event


def test_proto() -> None:
    text = es.proto(Everything, Node)
    assert 'syntax = "proto3";' in text
    assert "message Everything" in text
    assert "message Money" in text
    assert "google.protobuf.Timestamp at = 6" in text
    with pytest.raises(TypeError):
        es.proto()
    with pytest.raises(TypeError):
        es.proto(int)  # type: ignore[arg-type]


def test_new_id() -> None:
    ids = [es.new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert all(len(one) == 36 and one[14] == "7" for one in ids)


# ---- states --------------------------------------------------------------------------------------


def test_layout_of_a_state() -> None:
    class Base:
        items: dict[str, int]
        _private: ClassVar[int] = 5

    class Cart(Base):
        count: int = 3
        lines: list[Money]
        owner: str | None
        at: datetime
        color: Color
        size: Size
        note: str = es.field(9, default="n")
        LIMIT: ClassVar[int] = 5

    layout = _message.layout_of_state(Cart, "shop.Cart", stop=(object,))
    assert layout.names == ("items", "count", "lines", "owner", "at", "color", "size", "note")
    first = layout.initial()
    assert first == {
        "items": {}, "count": 3, "lines": [], "owner": None, "size": Size.SMALL, "note": "n",
    }  # fmt: skip
    first["items"]["x"] = 1
    assert layout.initial()["items"] == {}
    assert layout.check("items", {"a": 1}) == {"a": 1}
    with pytest.raises(TypeError, match=r"Cart\.items\['a'\]"):
        layout.check("items", {"a": "b"})
    with pytest.raises(TypeError, match="no field 'other'"):
        layout.check("other", 1)
    fields = _field.fields_of_state(Cart, stop=(object,))
    assert [(one.name, one.number) for one in fields][-1] == ("note", 9)

    class Broken:
        x: float
        y: dict[float, int]

    with pytest.raises(TypeError, match=r"Broken\.y.*float"):
        _message.layout_of_state(Broken, "Broken")


def test_out_of_memory() -> None:
    code = """
import datetime, pickle
import escqrs as es

class Inner(es.Message):
    x: int

class Outer(es.Event):
    text: str
    number: int
    ratio: float
    at: datetime.datetime
    inner: Inner
    many: list[Inner]
    counts: dict[str, int] = {}

at = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))

def work():
    inners = [Inner(i << 40) for i in range(9)]
    outer = Outer("ä" * 300, 2**40, 2, at, Inner(2**40), inners, {"a": 1})
    data = es.to_bytes(outer)
    read = es.from_bytes(Outer, data)
    assert read == outer and hash(read) == hash(outer) and repr(read) == repr(outer)
    assert read.__replace__(text="x").many == outer.many
    function, arguments = read.__reduce__()
    assert function(*arguments) == outer
    try:
        Outer("x", "y", 1.0, at, Inner(1), [])
    except TypeError:
        pass
"""
    fail_allocations(code, tries=3000)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(_message).failed == 0


def test_errors_can_be_pickled() -> None:
    for name in es.errors.__all__:
        error = getattr(es.errors, name)("what happened")
        copied = pickle.loads(pickle.dumps(error))
        assert type(copied) is type(error)
        assert str(copied) == "what happened"
        assert isinstance(error, es.Error)
    wrong = es.WrongVersion("x", stream="s", expected=1, actual=2)
    copied = pickle.loads(pickle.dumps(wrong))
    assert (copied.stream, copied.expected, copied.actual) == ("s", 1, 2)
    assert pickle.loads(pickle.dumps(es.Full("x", errno=28))).errno == 28
    assert isinstance(es.Timeout("x"), TimeoutError)
    assert isinstance(wrong, es.Conflict)


def test_reading_follows_what_becomes_of_the_class() -> None:
    class Part(es.Message):
        name: str
        numbers: list[int]

    class Derived(Part):
        more: int = 1

    part, derived = Part("a", [1]), es.from_bytes(Derived, es.to_bytes(Derived("b", [2])))
    for _ in range(3):
        assert (part.name, part.numbers, derived.name, derived.numbers) == ("a", [1], "b", [2])
    own = Part.name
    Part.name = property(lambda self: "replaced")  # type: ignore[assignment]
    for _ in range(3):
        assert (part.name, part.numbers, derived.name) == ("replaced", [1], "replaced")
    Part.name = own
    for _ in range(3):
        assert (part.name, derived.name) == ("a", "b")
    assert getattr(part, "".join(["na", "me"])) == "a"
    del Part.name
    with pytest.raises(AttributeError):
        part.name
    Part.name = own
    assert derived.name == "b"


def test_reading_where_names_share_a_place() -> None:
    names = [f"field_{number}" for number in range(300)]
    cls = type(es.Message)("Wide", (es.Message,), {"__annotations__": dict.fromkeys(names, int)})
    wide = cls(*range(300))
    again = es.from_bytes(cls, es.to_bytes(wide))
    for number, name in enumerate(names):
        assert getattr(wide, name) == getattr(again, name) == number


def test_a_getattr_of_ones_own() -> None:
    class Lenient(es.Message):
        x: int

        def __getattr__(self, name: str) -> str:
            return name

        def twice(self) -> int:
            return 2 * self.x

    lenient = Lenient(4)
    assert (lenient.x, lenient.other, lenient.twice()) == (4, "other", 8)  # type: ignore[comparison-overlap]
