"""Message classes: making them, defaults, what an instance can do."""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import pickle
import sys
import weakref
from datetime import UTC, datetime, timedelta, timezone
from typing import (
    Any,
    ClassVar,
)

import escqrs as es
import pytest
from messages import (
    AddItem,
    Color,
    Everything,
    ItemAdded,
    Level,
    Money,
    Node,
    Size,
    again,
    everything,
)

# ---- making --------------------------------------------------------------------------------------


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


# ---- what an instance can do ---------------------------------------------------------------------


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


# ---- defaults ------------------------------------------------------------------------------------


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
