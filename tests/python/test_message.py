"""Message classes: definition, construction, what an instance can do."""

from __future__ import annotations

import copy
import dataclasses
import doctest
import enum
import gc
import inspect
import pickle
import subprocess
import sys
import weakref
from datetime import UTC, datetime, timedelta, timezone
from typing import (  # noqa: UP035
    Annotated,
    Any,
    ClassVar,
    Dict,
    Generic,
    List,
    Literal,
    NewType,
    Optional,
    TypeVar,
    Union,
)

import escqrs as es
import pytest
from escqrs import _core, _message


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class Level(enum.IntEnum):
    LOW = -5
    HIGH = 2**31 - 1


class ItemAdded(es.Event):
    item_id: str
    name: str
    quantity: int


class AddItem(es.Command[str]):
    name: str
    quantity: int = 1


class Money(es.Message):
    amount: int
    currency: str = "EUR"


class Everything(es.Event):
    text: str
    number: int
    ratio: float
    flag: bool
    data: bytes
    at: datetime
    color: Color
    size: Size
    level: Level
    money: Money
    maybe: int | None
    maybe_text: Optional[str]  # noqa: UP045
    maybe_at: datetime | None
    maybe_money: Union[Money, None]  # noqa: UP007
    numbers: list[int]
    texts: List[str]  # noqa: UP006
    times: list[datetime]
    colors: list[Color]
    moneys: list[Money]
    counts: dict[str, int]
    names: Dict[int, str]  # noqa: UP006
    moneys_by_name: dict[str, Money]
    sizes: dict[int, Size]


class Node(es.Message):
    value: int
    children: list[Node] = []
    next: Node | None = None


def everything(**changes: Any) -> Everything:
    values: dict[str, Any] = {
        "text": "grüße, 世界 🌍",
        "number": -(2**63),
        "ratio": 0.5,
        "flag": True,
        "data": b"\x00\xff",
        "at": datetime(2024, 2, 29, 12, 30, 15, 123456, UTC),
        "color": Color.GREEN,
        "size": Size.LARGE,
        "level": Level.LOW,
        "money": Money(5),
        "maybe": None,
        "maybe_text": "",
        "maybe_at": None,
        "maybe_money": Money(1, "USD"),
        "numbers": [0, -1, 2**63 - 1],
        "texts": ["", "a", "ä"],
        "times": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)],
        "colors": [Color.RED, Color.GREEN],
        "moneys": [Money(1), Money(2, "CHF")],
        "counts": {"": 0, "ü": 2},
        "names": {0: "", -7: "x"},
        "moneys_by_name": {"a": Money(3)},
        "sizes": {1: Size.SMALL},
    }
    return Everything(**{**values, **changes})


def again(message: Any) -> Any:
    """As replay makes it: from its bytes."""
    return es.from_bytes(type(message), es.to_bytes(message))


# ---- making -------------------------------------------------------------------------------------


def test_positional_and_keyword() -> None:
    event = ItemAdded("1", "book", 2)
    assert (event.item_id, event.name, event.quantity) == ("1", "book", 2)
    assert ItemAdded("1", quantity=2, name="book") == event
    assert ItemAdded(quantity=2, name="book", item_id="1") == event
    assert AddItem("book").quantity == 1
    assert AddItem(quantity=3, name="pen").quantity == 3
    assert ItemAdded.__new__(ItemAdded, "1", "book", 2) == event
    assert ItemAdded(**{"item_id": "1", "na" + "me": "book", "quantity": 2}) == event


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ItemAdded(), ["ItemAdded", "item_id", "name", "quantity"]),
        (lambda: ItemAdded("1", "book"), ["ItemAdded", "quantity", "missing"]),
        (lambda: ItemAdded("1", "book", 1, 2), ["ItemAdded", "3", "4"]),
        (lambda: ItemAdded("1", "book", 1, name="x"), ["ItemAdded", "name", "twice"]),
        (lambda: ItemAdded("1", "book", 1, colour=2), ["ItemAdded", "colour", "item_id"]),
        (lambda: ItemAdded(1, "book", 1), ["ItemAdded.item_id", "str", "int"]),
        (lambda: ItemAdded("1", "book", "2"), ["ItemAdded.quantity", "int", "str"]),
        (lambda: ItemAdded("1", None, 2), ["ItemAdded.name", "str", "NoneType"]),
        (lambda: ItemAdded("1", "book", True), ["ItemAdded.quantity", "int", "bool"]),
        (lambda: ItemAdded("1", "book", 1.0), ["ItemAdded.quantity", "int", "float"]),
        (lambda: everything(ratio="1"), ["Everything.ratio", "float", "str"]),
        (lambda: everything(ratio=True), ["Everything.ratio", "float", "bool"]),
        (lambda: everything(flag=1), ["Everything.flag", "bool", "int"]),
        (lambda: everything(data="x"), ["Everything.data", "bytes", "str"]),
        (lambda: everything(data=bytearray(b"x")), ["Everything.data", "bytes", "bytearray"]),
        (lambda: everything(at=5), ["Everything.at", "datetime"]),
        (lambda: everything(at="2024-01-01"), ["Everything.at", "datetime"]),
        (lambda: everything(at=datetime(2024, 1, 1).date()), ["Everything.at", "datetime"]),
        (lambda: everything(color=1), ["Everything.color", "Color"]),
        (lambda: everything(color=Size.SMALL), ["Everything.color", "Color", "Size"]),
        (lambda: everything(money=5), ["Everything.money", "Money"]),
        (lambda: everything(money={"amount": 5}), ["Everything.money", "Money"]),
        (lambda: everything(money=AddItem("x")), ["Everything.money", "Money", "AddItem"]),
        (lambda: everything(maybe="x"), ["Everything.maybe", "int or None"]),
        (lambda: everything(maybe_money=1), ["Everything.maybe_money", "Money or None"]),
        (lambda: everything(numbers=5), ["Everything.numbers", "list[int]"]),
        (lambda: everything(numbers=(1, 2)), ["Everything.numbers", "list[int]", "tuple"]),
        (lambda: everything(numbers=None), ["Everything.numbers", "list[int]"]),
        (lambda: everything(texts="abc"), ["Everything.texts", "list[str]"]),
        (lambda: everything(numbers=[1, "2"]), ["Everything.numbers[1]", "int", "str"]),
        (lambda: everything(numbers=[None]), ["Everything.numbers[0]", "int"]),
        (lambda: everything(counts=[1]), ["Everything.counts", "dict[str, int]"]),
        (lambda: everything(counts={1: 1}), ["Everything.counts[1]", "str"]),
        (lambda: everything(counts={"a": "b"}), ["Everything.counts['a']", "int"]),
        (lambda: everything(names={"a": "b"}), ["Everything.names['a']", "int"]),
        (lambda: everything(names={True: "b"}), ["Everything.names[True]", "int", "bool"]),
        (lambda: everything(moneys=[5]), ["Everything.moneys[0]", "Money"]),
    ],
)
def test_wrong_arguments(make: Any, words: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"number": 2**63}, ["Everything.number", "64 bits"]),
        ({"number": -(2**63) - 1}, ["Everything.number", "64 bits"]),
        ({"number": 10**400}, ["Everything.number"]),
        ({"maybe": 2**64}, ["Everything.maybe"]),
        ({"numbers": [0, 2**63]}, ["Everything.numbers[1]"]),
        ({"names": {2**63: "x"}}, ["Everything.names"]),
        ({"ratio": 10**400}, ["Everything.ratio", "float"]),
        ({"text": "a\ud800"}, ["Everything.text", "Unicode"]),
        ({"text": "\udfff🌍"}, ["Everything.text", "Unicode"]),
        ({"texts": ["ok", "\udc80"]}, ["Everything.texts[1]", "Unicode"]),
        ({"counts": {"\ud800": 1}}, ["Everything.counts", "Unicode"]),
        ({"at": datetime(2024, 1, 1)}, ["Everything.at", "time zone"]),
        ({"times": [datetime(2024, 1, 1)]}, ["Everything.times[0]", "time zone"]),
        ({"at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, ["Everything.at"]),
        ({"at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}, ["Everything.at"]),
    ],
)
def test_wrong_values(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        everything(**changes)
    for word in words:
        assert word in str(caught.value)


def test_values_become_exact() -> None:
    class Text(str):
        pass

    class Number(int):
        pass

    class Ratio(float):
        pass

    class Data(bytes):
        pass

    event = everything(
        text=Text("x"),
        number=Number(7),
        ratio=Ratio(1.5),
        data=Data(b"d"),
        numbers=[Level.LOW],
        counts={Text("k"): Number(1)},
    )
    assert type(event.text) is str
    assert type(event.number) is int
    assert type(event.ratio) is float
    assert type(event.data) is bytes
    assert type(event.numbers[0]) is int
    assert [type(key) for key in event.counts] == [str]
    assert event == again(event)


def test_an_int_is_a_float() -> None:
    event = everything(ratio=3)
    assert type(event.ratio) is float
    assert event.ratio == 3.0
    for special in (float("inf"), float("-inf")):
        assert again(everything(ratio=special)).ratio == special
    nan = again(everything(ratio=float("nan"))).ratio
    assert nan != nan


def test_datetimes_are_kept_in_utc() -> None:
    zone = timezone(timedelta(hours=2, minutes=30))
    event = everything(at=datetime(2024, 1, 1, 1, 0, 0, 7, zone))
    assert event.at == datetime(2023, 12, 31, 22, 30, 0, 7, UTC)
    assert event.at.tzinfo is UTC
    assert event.at.hour == again(event).at.hour == 22

    class Special(datetime):
        pass

    event = everything(at=Special(2024, 1, 1, tzinfo=UTC))
    assert type(event.at) is datetime
    for at in (datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), datetime(1970, 1, 1, tzinfo=UTC)):
        assert again(everything(at=at)).at == at


def test_containers_are_copied_in_and_out() -> None:
    numbers = [1, 2]
    counts = {"a": 1}
    event = everything(numbers=numbers, counts=counts)
    numbers.append(3)
    counts["b"] = 2
    assert event.numbers == [1, 2]
    assert event.counts == {"a": 1}
    event.numbers.append(9)
    event.counts["z"] = 9
    assert event.numbers == [1, 2]
    assert event.counts == {"a": 1}
    decoded = again(event)
    decoded.numbers.append(9)
    decoded.counts.clear()
    assert decoded == event


def test_everything_survives() -> None:
    event = everything()
    decoded = again(event)
    assert decoded == event
    assert hash(decoded) == hash(event)
    assert repr(decoded) == repr(event)
    assert es.to_bytes(decoded) == es.to_bytes(event)
    for name in Everything.__escqrs_fields__:
        assert getattr(again(event), name) == getattr(event, name)
        assert type(getattr(decoded, name)) is type(getattr(event, name))
    empty = everything(numbers=[], texts=[], counts={}, moneys_by_name={}, text="", number=0)
    assert again(empty) == empty


def test_base_classes_cannot_be_made() -> None:
    for base in (es.Message, es.Event, es.Command):
        with pytest.raises(TypeError, match="base class"):
            base()


def test_no_fields() -> None:
    class Ping(es.Command[None]):
        pass

    assert Ping() == Ping() == again(Ping())
    assert repr(Ping()) == "Ping()"
    assert es.to_bytes(Ping()) == b""
    with pytest.raises(TypeError, match="Ping takes 0 values"):
        Ping(1)  # type: ignore[call-arg]


# ---- what an instance can do --------------------------------------------------------------------


def test_immutable() -> None:
    event = ItemAdded("1", "book", 2)
    with pytest.raises(AttributeError, match=r"ItemAdded is immutable.*name"):
        event.name = "pen"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        del event.name  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        event.other = 1  # type: ignore[attr-defined]
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(event, "name", "pen")
    assert not hasattr(event, "__dict__")
    assert event.name == "book"


def test_equality_and_hash() -> None:
    event = ItemAdded("1", "book", 2)
    assert event == ItemAdded("1", "book", 2)
    assert event != ItemAdded("1", "book", 3)
    assert event != ("1", "book", 2)
    assert event != AddItem("book")
    assert {event: 1}[ItemAdded("1", "book", 2)] == 1
    assert hash(everything()) == hash(everything(counts={"ü": 2, "": 0}))

    class Other(es.Event):
        item_id: str
        name: str
        quantity: int

    assert Other("1", "book", 2) != event
    with pytest.raises(TypeError):
        sorted([event, event])  # type: ignore[type-var]


def test_repr() -> None:
    assert repr(ItemAdded("1", "book", 2)) == "ItemAdded(item_id='1', name='book', quantity=2)"
    node = Node(1, [Node(2)])
    assert repr(node) == (
        "Node(value=1, children=[Node(value=2, children=[], next=None)], next=None)"
    )
    assert repr(again(node)) == repr(node)


def test_match() -> None:
    match ItemAdded("1", "book", 2):
        case ItemAdded(item_id, "book", quantity=quantity):
            assert (item_id, quantity) == ("1", 2)
        case _:
            raise AssertionError
    match AddItem("pen"):
        case ItemAdded():
            raise AssertionError
        case AddItem(name=name):
            assert name == "pen"
    assert ItemAdded.__match_args__ == ("item_id", "name", "quantity")


def test_pickle_and_copy() -> None:
    for event in (everything(), again(everything()), Node(1, [Node(2)], Node(3)), AddItem("x")):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(event, protocol)) == event
        assert copy.copy(event) is event
        assert copy.deepcopy(event) is event
    big = everything(data=b"x" * (17 << 20))
    assert pickle.loads(pickle.dumps(big)) == big


def test_replace() -> None:
    event = everything()
    for one in (event, again(event)):
        changed = one.__replace__(number=5, numbers=[7])
        assert changed == everything(number=5, numbers=[7])
        assert one == event
        assert one.__replace__() == one
        assert changed.moneys_by_name == one.moneys_by_name
    with pytest.raises(TypeError, match=r"Everything\.number: expected int"):
        event.__replace__(number="5")
    with pytest.raises(TypeError, match="no field 'nmber'"):
        event.__replace__(nmber=5)
    with pytest.raises(TypeError):
        event.__replace__(5)
    if sys.version_info >= (3, 13):
        assert copy.replace(event, number=5) == event.__replace__(number=5)


def test_post_init() -> None:
    calls = []

    class Range(es.Message):
        low: int
        high: int

        def __post_init__(self) -> None:
            calls.append(self.low)
            if self.low > self.high:
                raise ValueError("low is above high")

    assert Range(1, 2).high == 2
    with pytest.raises(ValueError, match="low is above"):
        Range(2, 1)
    with pytest.raises(ValueError, match="low is above"):
        Range(1, 2).__replace__(low=3)
    before = len(calls)
    assert es.from_bytes(Range, es.to_bytes(Range(1, 2))).low == 1
    assert len(calls) == before + 1  # only the one that was made


def test_methods_properties_and_class_attributes() -> None:
    class Line(es.Message):
        price: int
        count: int = 2
        LIMIT: ClassVar[int] = 10
        tax = 3

        @property
        def total(self) -> int:
            return self.price * self.count

        @classmethod
        def free(cls) -> Line:
            return cls(0)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Line) and self.price == other.price

        def __hash__(self) -> int:
            return 7

    assert Line(5).total == 10
    assert Line.free().price == 0
    assert Line(5).tax == Line.tax == 3
    assert Line.LIMIT == 10
    assert Line.__escqrs_fields__ == ("price", "count")
    assert Line(5, 1) == Line(5, 2)
    assert hash(Line(5)) == 7


def test_names_of_every_kind_are_free() -> None:
    class Odd(es.Event):
        name: str
        keys: int
        type: str
        data: bytes
        self: int
        cls: int
        fields: int
        count: int
        index: int

    odd = Odd("a", 1, "t", b"", 2, 3, 4, 5, 6)
    assert again(odd) == odd
    assert (
        Odd(self=1, cls=2, name="n", keys=3, type="t", data=b"", fields=4, count=5, index=6).self
        == 1
    )


def test_mixins() -> None:
    class Named:
        """A plain class, whose own instances have a dictionary."""

        def label(self) -> str:
            return f"<{self.name}>"  # type: ignore[attr-defined]

    class Pen(Named, es.Event):
        name: str

    class Marker(Pen):
        width: int = 1

    for pen in (Pen("red"), Marker("red", 2)):
        assert pen.label() == "<red>"
        assert not hasattr(pen, "__dict__")
        with pytest.raises(AttributeError):
            pen.other = 1  # type: ignore[union-attr]
        with pytest.raises(TypeError):
            weakref.ref(pen)
        assert again(pen) == pen
    assert not gc.is_tracked(Marker("red"))


def test_signature() -> None:
    signature = inspect.signature(AddItem)
    assert list(signature.parameters) == ["name", "quantity"]
    assert signature.parameters["quantity"].default == 1


def test_many_instances_do_not_leak() -> None:
    before = sys.getrefcount(ItemAdded)
    many = [ItemAdded(str(i), "x" * i, i) for i in range(100)]
    assert sys.getrefcount(ItemAdded) == before + 100
    del many
    assert sys.getrefcount(ItemAdded) == before
    for _ in range(100):
        with pytest.raises(TypeError):
            ItemAdded("1", "2", "3")  # type: ignore[arg-type]
    assert sys.getrefcount(ItemAdded) == before


# ---- defaults -----------------------------------------------------------------------------------


def test_defaults() -> None:
    made = []

    def factory() -> list[int]:
        made.append(1)
        return [len(made)]

    class Order(es.Event):
        a: int = 1
        b: list[str] = ["x"]
        c: dict[str, int] = {}
        d: float = 2
        e: datetime | None = None
        f: list[int] = es.field(default_factory=factory)
        g: int = es.field(20, default=5)
        h: Money = Money(3)
        i: Color = Color.RED

    order = Order()
    assert (order.a, order.b, order.c, order.d, order.e, order.g) == (1, ["x"], {}, 2.0, None, 5)
    assert type(order.d) is float
    assert order.h == Money(3)
    assert order.i is Color.RED
    order.b.append("y")
    assert Order().b == ["x"]
    assert (order.f, Order().f) != ([1], [1])
    decoded = es.from_bytes(Order, b"")
    assert (decoded.a, decoded.g, decoded.h, decoded.i) == (1, 5, Money(3), Color.RED)
    assert (decoded.b, decoded.c) == ([], {})  # an empty list is stored as none at all


def test_fields_of_dataclasses() -> None:
    class Order(es.Event):
        a: int = dataclasses.field(default=3)
        b: list[int] = dataclasses.field(default_factory=list)
        c: str = dataclasses.field(default="c", kw_only=True)
        d: int = dataclasses.field(kw_only=True)

    assert (Order(d=1).a, Order(d=1).b, Order(d=1).c) == (3, [], "c")
    with pytest.raises(TypeError, match="missing field 'd'"):
        Order(1, [2])

    class Cart(es.Aggregate):
        items: list[int] = dataclasses.field(default_factory=lambda: [1])

    with es.open(":memory:", Cart) as shop:
        assert shop[Cart, "a"].state.items == [1]
    with pytest.raises(TypeError, match=r"Bad\.x: .*is for dataclasses"):

        class Bad(es.Event):
            x: int = dataclasses.field(init=False)


def test_wrong_defaults() -> None:
    with pytest.raises(TypeError, match=r"Bad\.x: expected int, got 'a'"):

        class Bad(es.Event):
            x: int = "a"  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"Bad2\.x: expected int, got None"):

        class Bad2(es.Event):
            x: int = None  # type: ignore[assignment]

    with pytest.raises(ValueError, match=r"Bad3\.x"):

        class Bad3(es.Event):
            x: int = 2**63

    class Late(es.Event):
        x: int = es.field(default_factory=lambda: "a")

    with pytest.raises(TypeError, match=r"Late\.x: expected int"):
        Late()
    with pytest.raises(TypeError, match="not both"):
        es.field(default=1, default_factory=int)
    with pytest.raises(TypeError, match="callable"):
        es.field(default_factory=5)  # type: ignore[arg-type]


def test_order_of_defaults() -> None:
    with pytest.raises(TypeError, match=r"Bad\.b: .*without a default.*'a'"):

        class Bad(es.Event):
            a: int = 1
            b: int


# ---- definitions that are refused ---------------------------------------------------------------


class Flags(enum.Flag):
    A = 1
    B = 2


class Empty(enum.Enum):
    pass


T = TypeVar("T")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (object, ["x", "object", "str, int, float"]),
        (Any, ["x", "Any"]),
        (complex, ["complex"]),
        (None, ["x"]),
        (set, ["set[T]"]),
        (list, ["list[T]"]),
        (dict, ["dict[K, T]"]),
        (List, ["list[T]"]),  # noqa: UP006
        (list[list[int]], ["es.Message", "wrap"]),
        (list[dict[str, int]], ["es.Message"]),
        (dict[str, list[int]], ["es.Message"]),
        (dict[str, dict[str, int]], ["es.Message"]),
        (list[int | None], ["es.Message"]),
        (dict[str, int | None], ["es.Message"]),
        (list[int] | None, ["es.Message"]),
        (Optional[dict[str, int]], ["es.Message"]),  # noqa: UP045  # noqa: UP045
        (dict[float, int], ["float", "a key is str, int"]),
        (Literal[1, "a"], ["Literal", "all str or all int"]),
        (Money | int, ["Money", "a union is"]),
        (list[Money | None], ["None", "es.Message"]),
        (int | str, ["int | str"]),
        (int | str | None, ["T | None"]),
        (Flags, ["Flags", "Flag"]),
        (Empty, ["Empty", "members"]),
        (es.Message, ["es.Message", "derived"]),
        (list[es.Event], ["es.Event"]),
        (T, ["T"]),
        ("int +", ["int +"]),
        ("1 / 0", ["division"]),
        ([1], ["x"]),
    ],
)
def test_refused_types(annotation: object, words: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        type(es.Event)("Refused", (es.Event,), {"__annotations__": {"x": annotation}})
    text = str(caught.value)
    assert "Refused.x" in text
    for word in words:
        assert word in text


def test_refused_definitions() -> None:
    def define(namespace: dict[str, Any], *bases: type, **keywords: Any) -> type:
        return type(es.Event)("Refused", bases or (es.Event,), namespace, **keywords)

    for namespace, match in [
        ({"__annotations__": {"_x": int}}, r"Refused\._x.*reserved"),
        ({"__annotations__": {"__x": int}}, "reserved"),
        ({"__annotations__": {"x": int}, "x": es.field(0)}, r"Refused\.x.*0 cannot"),
        ({"__annotations__": {"x": int}, "x": es.field(19_500)}, "19,000"),
        ({"__annotations__": {"x": int}, "x": es.field(2**29)}, "536,870,911"),
        ({"__annotations__": {"x": int}, "x": es.field(True)}, "number is an int"),
        (
            {"__annotations__": {"x": int, "y": int}, "y": es.field(1)},
            r"Refused\.y.*1 is taken.*'x'",
        ),
        ({"x": es.field(1)}, r"Refused\.x.*annotation"),
        ({"__init__": lambda self: None}, "__post_init__"),
        ({"__new__": lambda self: None}, "__post_init__"),
        ({"__slots__": ("x",)}, "__slots__"),
        ({"__del__": lambda self: None}, "__del__"),
        ({"__setattr__": lambda self, n, v: None}, "immutable"),
    ]:
        with pytest.raises(TypeError, match=match):
            define(namespace)
    for name in ("", 5, None, b"x", "a b", ".x", "x.", "a..b", "1a", "x" * 300, "a\0b"):
        with pytest.raises(TypeError):
            define({}, name=name)
    with pytest.raises(TypeError, match=r"Refused: name='a\\ud800' is not valid Unicode"):
        define({}, name="a\ud800")
    with pytest.raises(TypeError):
        define({}, surprise=1)
    with pytest.raises(TypeError, match="either an event or a command"):
        define({}, es.Event, es.Command)

    class HasSlots:
        __slots__ = ("x",)

    with pytest.raises(TypeError):
        define({"__annotations__": {"y": int}}, HasSlots, es.Event)
    with pytest.raises(TypeError, match="both ItemAdded and Everything"):
        define({}, ItemAdded, Everything)
    with pytest.raises(TypeError, match=r"Refused\.name.*inherited"):
        define({"name": 5}, ItemAdded)


# ---- names, numbers, inheritance ----------------------------------------------------------------


def test_stored_names() -> None:
    class Added(es.Event, name="shop.Added"):
        x: int

    class More(Added):
        pass

    assert Added.__escqrs_name__ == "shop.Added"
    assert More.__escqrs_name__ == "More"
    assert ItemAdded.__escqrs_name__ == "ItemAdded"
    assert Added.__name__ == "Added"
    assert repr(Added(1)) == "Added(x=1)"


def test_init_subclass_keywords() -> None:
    seen = []

    class Base(es.Event):
        def __init_subclass__(cls, *, tag: str = "", **keywords: Any) -> None:
            super().__init_subclass__(**keywords)
            seen.append((cls.__name__, tag))

    class Derived(Base, tag="t", name="d.Derived"):
        x: int

    assert seen == [("Derived", "t")]
    assert Derived.__escqrs_name__ == "d.Derived"


def test_numbers() -> None:
    class Numbered(es.Event):
        a: int
        b: int = es.field(5)
        c: int = es.field()
        d: int = es.field(2, default=0)

    assert es.to_bytes(Numbered(1, 2, 3, 4)) == b"\x08\x01\x10\x04\x28\x02\x30\x03"
    assert again(Numbered(1, 2, 3, 4)) == Numbered(1, 2, 3, 4)
    assert "int64 c = 6;" in es.proto(Numbered)


def test_inheritance() -> None:
    class Base(es.Event):
        a: int
        b: str = "b"

    class Derived(Base):
        c: float = 1.0

    class Changed(Derived):
        b: str = "changed"

    assert Derived.__escqrs_fields__ == Changed.__escqrs_fields__ == ("a", "b", "c")
    assert Derived(1, "x", 2.0) == again(Derived(1, "x", 2.0))
    assert Changed(1).b == "changed"
    assert isinstance(Changed(1), Base)
    assert Base(1) != Derived(1)
    assert Derived(1).a == 1
    assert Base.a.__get__(Derived(4)) == 4  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="is not one of"):
        Base.a.__get__(ItemAdded("1", "2", 3))  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="without a default"):

        class Bad(Base):
            d: int

    class Holder(es.Message):
        base: Base

    with pytest.raises(TypeError, match=r"Holder\.base: expected Base"):
        Holder(Derived(1))  # it would be read back as a Base


def test_kinds() -> None:
    assert AddItem.__escqrs_kind__ == "command"
    assert ItemAdded.__escqrs_kind__ == "event"
    assert Money.__escqrs_kind__ == "message"
    assert issubclass(es.Event, es.Message)
    assert issubclass(es.Command, es.Message)
    assert _core.layout_of(ItemAdded).names == ("item_id", "name", "quantity")


R = TypeVar("R")


def test_replies() -> None:
    class Bare(es.Command):  # type: ignore[type-arg]
        pass

    class Nothing(es.Command[None]):
        pass

    class Numbers(es.Command[list[int]]):
        pass

    class Base(es.Command[R], Generic[R]):
        x: int

    class Derived(Base[bytes]):
        pass

    class Further(Derived):
        pass

    assert AddItem.__escqrs_reply__ is str
    assert Bare.__escqrs_reply__ is None
    assert Nothing.__escqrs_reply__ is type(None)
    assert Numbers.__escqrs_reply__ == list[int]
    assert Base.__escqrs_reply__ is R
    assert Derived.__escqrs_reply__ is bytes
    assert Further.__escqrs_reply__ is bytes
    assert Base[int](5).x == 5


# ---- annotations --------------------------------------------------------------------------------


UserId = NewType("UserId", str)


class Tagged(es.Event):
    user: UserId
    count: Annotated[int, "how many"]
    later: list[DefinedLater]
    by_name: dict[str, DefinedLater] = {}


class DefinedLater(es.Message):
    x: int
    back: Tagged | None = None


def test_forward_references() -> None:
    tagged = Tagged(UserId("u"), 1, [DefinedLater(2)])
    assert again(tagged) == tagged
    assert again(DefinedLater(1, tagged)).back == tagged


def test_classes_in_functions() -> None:
    class Inner(es.Message):
        x: int
        shade: Shade | None = None

    class Outer(es.Event):
        inner: Inner
        more: list[Outer] = []
        other: Other | None = None

    class Shade(enum.Enum):
        DARK = 1

    class Other(es.Message):
        outer: Outer

    outer = Outer(Inner(1, Shade.DARK), [Outer(Inner(2))], Other(Outer(Inner(3))))
    assert again(outer) == outer


def test_nested_classes() -> None:
    class Order(es.Event):
        class Line(es.Message):
            price: int

        lines: list[Line]

    assert again(Order([Order.Line(5)])) == Order([Order.Line(5)])


def test_unresolved_names() -> None:
    class Broken(es.Event):
        x: Missing  # type: ignore[name-defined]  # noqa: F821

    class Around(es.Event):
        broken: Broken

    for make in (lambda: Broken(1), lambda: es.from_bytes(Broken, b""), lambda: es.proto(Around)):
        with pytest.raises(TypeError, match=r"Broken\.x.*'Missing' is not defined"):
            make()


def test_without_the_future_import() -> None:
    code = """
import escqrs as es
from typing import Optional

class Node(es.Message):
    value: int
    left: Optional["Node"] = None
    many: list["Leaf"] = []

class Leaf(es.Message):
    name: str

node = Node(1, Node(2), [Leaf("x")])
assert es.from_bytes(Node, es.to_bytes(node)) == node

def function():
    class A(es.Event):
        b: "B"
    class B(es.Message):
        x: int
    return A(B(1))

assert function().b.x == 1
import pickle
assert pickle.loads(pickle.dumps(node)) == node
first = Node
class Node(es.Message):
    value: int
    left: Optional["Node"] = None
    many: list["Leaf"] = []
assert Node is not first
assert pickle.loads(pickle.dumps(node)) == node  # as an instance of the newest definition
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "fine\n", done.stderr


def test_exec_without_a_module() -> None:
    namespace: dict[str, Any] = {"es": es, "__name__": "nowhere"}
    exec(
        "from __future__ import annotations\n"
        "class A(es.Event):\n    b: B\n"
        "class B(es.Message):\n    x: int\n",
        namespace,
    )
    assert namespace["A"](namespace["B"](1)).b.x == 1


# ---- redefinition -------------------------------------------------------------------------------


def test_redefinition() -> None:
    def define() -> tuple[Any, Any, Any]:
        class Shade(enum.Enum):
            DARK = 1
            LIGHT = 2

        class Part(es.Message):
            x: int
            shade: Shade

        class Whole(es.Event):
            part: Part
            parts: list[Part] = []

        return Shade, Part, Whole

    generation = _core.generation()
    shade1, part1, whole1 = define()
    shade2, part2, whole2 = define()
    assert _core.generation() == generation + 4
    assert _core.newest(whole1) is _core.newest(whole2) is whole2
    assert part1(1, shade1.DARK) != part2(1, shade2.DARK)  # members of two enums differ
    assert part2(1, shade1.LIGHT) == part2(1, shade2.LIGHT)
    assert whole2(part1(1, shade1.DARK)) == whole2(part2(1, shade2.DARK))
    assert whole2(part2(1, shade2.DARK), [part1(1, shade1.DARK)]).parts == [part2(1, shade2.DARK)]

    def again_defined() -> Any:
        class Same(es.Event):
            x: int

        return Same

    first, second = again_defined(), again_defined()
    assert first(1) == second(1)
    assert hash(first(1)) == hash(second(1))
    assert first(1) != second(2)
    assert {first(1)} == {second(1)}


def test_the_registry_does_not_keep_classes() -> None:
    def define() -> weakref.ref[type]:
        class Temporary(es.Event):
            x: int
            me: Temporary | None = None
            other: list[Companion] = []

        class Companion(es.Message):
            back: Temporary | None = None

        assert Temporary(1, Temporary(2), [Companion()]).x == 1
        return weakref.ref(Temporary)

    alive = define()
    gc.collect()
    assert alive() is None


# ---- bytes --------------------------------------------------------------------------------------


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


# ---- states -------------------------------------------------------------------------------------


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
    fields = _message.fields_of_state(Cart, stop=(object,))
    assert [(one.name, one.number) for one in fields][-1] == ("note", 9)

    class Broken:
        x: float
        y: dict[float, int]

    with pytest.raises(TypeError, match=r"Broken\.y.*float"):
        _message.layout_of_state(Broken, "Broken")


def test_out_of_memory() -> None:
    """Every allocation of Python fails once: MemoryError, and the next try is as good as ever."""
    pytest.importorskip("_testcapi")
    code = """
import _testcapi, datetime, pickle
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

work()
failed = 0
for n in range(1, 3000):
    _testcapi.set_nomemory(n, n + 1)
    try:
        work()
    except MemoryError:
        failed += 1
    finally:
        _testcapi.remove_mem_hooks()
work()
print("failed often" if failed > 100 else failed)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout == "failed often\n", done.stderr


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
