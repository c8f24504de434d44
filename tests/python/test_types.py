"""The types of fields beyond the plain ones of test_message.py: checks, bytes, reading."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from dataclasses import KW_ONLY
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType
from uuid import UUID, uuid4

import escqrs as es
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SECONDS, fail_allocations

Cents = NewType("Cents", int)
ONE = UUID(int=1)


class Card(es.Message):
    number: str


class Cash(es.Message):
    amount: Decimal
    change: Card | Cash | None = None


class Paid(es.Event, name="shop.Paid"):
    small: es.int32
    natural: es.uint32
    large: es.uint64
    zigzag: es.sint32
    zagzig: es.sint64
    day: date
    clock: time
    span: timedelta
    local: es.naive_datetime
    price: Decimal
    id: UUID
    size: Literal["s", "m"]
    step: Literal[1, 2, -3] | None
    tags: set[str]
    numbers: frozenset[int]
    prices: tuple[Decimal, ...]
    payment: Card | Cash
    payments: list[Card | Cash]
    by_day: dict[date, Card | Cash]
    by_flag: dict[bool, timedelta]
    ids: set[UUID]
    naturals: list[es.uint32]
    zigzags: list[es.sint32]
    by_number: dict[es.uint64, Cents]
    doubly: Annotated[es.int32, "a note"]
    maybe: Card | Cash | None = None
    _: KW_ONLY
    reason: str
    weight: int = 5


def paid(**changes: Any) -> Paid:
    values: dict[str, Any] = {
        "small": -(2**31),
        "natural": 2**32 - 1,
        "large": 2**64 - 1,
        "zigzag": -5,
        "zagzig": -(2**63),
        "day": date(2024, 2, 29),
        "clock": time(1, 2, 3, 4),
        "span": timedelta(days=-1, microseconds=5),
        "local": datetime(2024, 1, 1, 5, 6, 7, 8),
        "price": Decimal("-12.50"),
        "id": ONE,
        "size": "m",
        "step": -3,
        "tags": {"a", "b", "ü"},
        "numbers": frozenset({1, 2, 3000}),
        "prices": (Decimal(1), Decimal("1E+5")),
        "payment": Cash(Decimal(1), Card("x")),
        "payments": [Card("1"), Cash(Decimal(2))],
        "by_day": {date(1, 1, 1): Card("a"), date(9999, 12, 31): Cash(Decimal(0))},
        "by_flag": {True: timedelta(1), False: timedelta(0)},
        "ids": {ONE, UUID(int=2**128 - 1)},
        "naturals": [0, 2**32 - 1],
        "zigzags": [-1, 0, 2**31 - 1],
        "by_number": {2**64 - 1: Cents(1)},
        "doubly": 7,
        "reason": "because",
    }
    return Paid(**{**values, **changes})


def again(message: Any) -> Any:
    return es.from_bytes(type(message), es.to_bytes(message))


def test_all_of_them() -> None:
    made = paid()
    read = again(made)
    assert read == made
    assert hash(again(made)) == hash(made)
    assert repr(again(made).payments) == repr(made.payments)
    assert es.to_bytes(again(made)) == es.to_bytes(made)
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == made
    changed = read.__replace__(weight=6, tags=set())
    assert (changed.weight, changed.tags, changed.price) == (6, set(), made.price)
    for name in Paid.__escqrs_fields__:
        assert type(getattr(read, name)) is type(getattr(made, name)), name


def test_sets_have_one_order_of_bytes() -> None:
    words = [f"w{i}" for i in range(50)]
    program = (
        "import escqrs as es\n"
        "class S(es.Event):\n    t: set[str]\n    n: frozenset[int]\n"
        f"print(es.to_bytes(S(set({words}), frozenset(range(300)))).hex())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True, text=True, timeout=SECONDS, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"small": 2**31}, ValueError, "Paid.small: 2147483648 does not fit in 32 bits"),
        ({"zigzag": -(2**31) - 1}, ValueError, "Paid.zigzag"),
        ({"natural": -1}, ValueError, "Paid.natural: -1 does not fit"),
        ({"natural": 2**32}, ValueError, "Paid.natural"),
        ({"large": -1}, ValueError, "Paid.large: -1 does not fit in 64 bits without a sign"),
        ({"large": 2**64}, ValueError, "Paid.large"),
        ({"zagzig": 2**63}, ValueError, "Paid.zagzig"),
        ({"naturals": [0, -1]}, ValueError, r"Paid.naturals\[1\]"),
        ({"day": datetime(2024, 1, 1)}, TypeError, "Paid.day: expected date"),
        ({"clock": time(1, tzinfo=UTC)}, ValueError, "Paid.clock.*time zone"),
        ({"span": 5}, TypeError, "Paid.span: expected timedelta"),
        ({"span": timedelta(days=3652501)}, ValueError, "Paid.span.*10,000 years"),
        ({"local": datetime(2024, 1, 1, tzinfo=UTC)}, ValueError, "Paid.local.*time zone"),
        ({"price": Decimal("NaN")}, ValueError, "Paid.price.*finite"),
        ({"price": Decimal("1E+1000000")}, ValueError, "Paid.price"),
        ({"price": 1.5}, TypeError, "Paid.price: expected Decimal"),
        ({"id": "x"}, TypeError, "Paid.id: expected UUID"),
        ({"size": "l"}, ValueError, r"Paid.size: 'l' is not one of \['s', 'm'\]"),
        ({"size": 1}, TypeError, "Paid.size: expected str"),
        ({"step": 4}, ValueError, "Paid.step: 4 is not one of"),
        ({"tags": ["a"]}, TypeError, r"Paid.tags: expected set\[str\]"),
        ({"tags": {1}}, TypeError, r"Paid.tags\[1\]: expected str"),
        ({"numbers": {1}}, TypeError, r"Paid.numbers: expected frozenset\[int\]"),
        ({"prices": [Decimal(1)]}, TypeError, r"Paid.prices: expected tuple\[Decimal, ...\]"),
        ({"payment": 5}, TypeError, r"Paid.payment: expected Card \| Cash"),
        ({"payment": None}, TypeError, r"Paid.payment: expected Card \| Cash"),
        ({"payments": [None]}, TypeError, r"Paid.payments\[0\]"),
        ({"by_day": {5: Card("")}}, TypeError, r"Paid.by_day\[5\]: expected date"),
        ({"by_flag": {1: timedelta()}}, TypeError, r"Paid.by_flag\[1\]: expected bool"),
    ],
)
def test_refused(changes: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        paid(**changes)


def test_keyword_only() -> None:
    class Kept(es.Message):
        first: int
        second: int = es.field(kw_only=True)
        third: int = 3
        _: KW_ONLY
        fourth: int

    assert Kept(1, 4, second=2, fourth=5) == Kept(first=1, second=2, third=4, fourth=5)
    assert Kept.__match_args__ == ("first", "third")
    assert again(Kept(1, second=2, fourth=5)).second == 2
    with pytest.raises(TypeError, match="2 values by position"):
        Kept(1, 2, 3)  # type: ignore[misc]
    with pytest.raises(TypeError, match="missing field 'fourth'"):
        Kept(1, second=2)  # type: ignore[call-arg]
    kinds = [one.kind for one in inspect.signature(Kept).parameters.values()]
    assert (
        kinds
        == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 2 + [inspect.Parameter.KEYWORD_ONLY] * 2
    )


TEXTS = {
    "day": (["2024-02-29", "0001-01-01"], ["2023-02-29", "2024-1-1", "", "0000-01-01", "x"]),
    "clock": (["00:00:00", "23:59:59.5"], ["24:00:00", "1:00", "12:00:00.", "12:00:00Z", ""]),
    "local": (["2024-01-01T00:00:00"], ["2024-01-01 00:00:00", "2024-01-01", "T"]),
    "price": (["0", "-1.50", "1E+5", ".5", "5."], ["", ".", "NaN", "1e", "1E1000000", "1,5"]),
    "id": ([str(ONE)], ["", ONE.hex, str(ONE)[:-1] + "g"]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_proved_when_decoded(name: str) -> None:
    class Plain(es.Event):
        text: str

    types: Any = {
        "day": date, "clock": time, "local": es.naive_datetime, "price": Decimal, "id": UUID,
    }  # fmt: skip
    namespace = {"__annotations__": {"value": types[name]}, "__module__": __name__}
    cls: Any = type(es.Event)("Formed", (es.Event,), namespace)
    good, bad = TEXTS[name]
    for text in good:
        assert cls(es.from_bytes(cls, es.to_bytes(Plain(text))).value)
    for text in bad:
        with pytest.raises(es.Corrupt, match=r"byte 0: field 1 \(`value`\): text that is not"):
            es.from_bytes(cls, es.to_bytes(Plain(text)))


def test_unions_that_do_not_decode() -> None:
    class Holder(es.Event):
        value: Card | Cash

    for inner in (b"", b"\x0a\x00\x12\x00", b"\x1a\x00"):  # none, both, one that is not known
        with pytest.raises(es.Corrupt, match=r"Holder.value: the stored union"):
            es.from_bytes(Holder, b"\x0a" + bytes([len(inner)]) + inner)
    with pytest.raises(es.Corrupt, match="Holder.value"):
        es.from_bytes(Holder, b"")


def test_literals_that_do_not_decode() -> None:
    class Plain(es.Event):
        text: str

    class Sized(es.Event):
        size: Literal["s", "m"]

    assert es.from_bytes(Sized, es.to_bytes(Plain("m"))) == Sized("m")
    with pytest.raises(es.Corrupt, match=r"Sized.size.*Literal"):
        es.from_bytes(Sized, es.to_bytes(Plain("l")))


def test_literals_with_lone_surrogates() -> None:
    with pytest.raises(TypeError, match="Odd.x: .* is not valid Unicode"):

        class Odd(es.Message):
            x: Literal["a", "\ud800"]


def test_a_uuid_that_was_read_is_as_others() -> None:
    class Named(es.Message):
        id: UUID

    for value in (ONE, UUID(int=0), UUID(int=2**128 - 1), uuid4()):
        read = again(Named(value)).id
        assert (read, hash(read), str(read)) == (value, hash(value), str(value))
        assert read.is_safe is value.is_safe
        assert pickle.loads(pickle.dumps(read)) == value
        with pytest.raises(TypeError, match="immutable"):
            read.int = 5


def test_the_longest_spans() -> None:
    class Span(es.Message):
        span: timedelta

    for days in (3652500, -3652500):
        assert again(Span(timedelta(days))) == Span(timedelta(days))
        with pytest.raises(ValueError, match="10,000 years"):
            Span(timedelta(days) + timedelta(microseconds=1 if days > 0 else -1))


def test_entries_without_key_or_value() -> None:
    class Maps(es.Event):
        by_day: dict[date, int] = {}
        ids: dict[int, UUID] = {}
        unions: dict[int, Card | Cash] = {}
        by_price: dict[Decimal, timedelta] = {}

    for data, words in (
        (b"\x0a\x02\x10\x01", "Maps.by_day: an entry has no key"),
        (b"\x12\x02\x08\x01", "Maps.ids: an entry has no value"),
        (b"\x1a\x02\x08\x01", "Maps.unions: an entry has no value"),
    ):
        with pytest.raises(es.Corrupt, match=words):
            es.from_bytes(Maps, data)
    assert es.from_bytes(Maps, b"\x22\x00").by_price == {Decimal(0): timedelta(0)}


def test_depth_of_unions_is_bounded() -> None:
    value = Cash(Decimal(0))
    with pytest.raises(ValueError, match="nested deeper"):
        for _ in range(100):
            value = Cash(Decimal(0), value)
    assert again(value) == value


@given(
    st.timedeltas(timedelta(days=-3652500), timedelta(days=3652500)),
    st.dates(), st.times(), st.datetimes(), st.uuids(),
    st.decimals(allow_nan=False, allow_infinity=False),
)  # fmt: skip
def test_any_value(span: Any, day: Any, clock: Any, local: Any, id: Any, price: Any) -> None:
    made = paid(span=span, day=day, clock=clock.replace(fold=0), local=local, id=id, price=price)
    read = again(made)
    assert read == made
    assert str(read.price) == str(price)


def test_states_and_sql() -> None:
    class Pay(es.Command[Decimal]):
        what: Card | Cash
        at: date

    class Payed(es.Event):
        what: Card | Cash
        at: date
        price: Decimal = Decimal("1.50")
        span: timedelta = timedelta(seconds=90)
        tags: frozenset[str] = frozenset({"x"})
        number: es.uint64 = 2**63 - 1

    class Till(es.Aggregate):
        total: Decimal
        last: date | None
        paid: list[Card | Cash]
        days: frozenset[date]
        sizes: tuple[Literal["s", "m"], ...]

        @es.handles
        def pay(self, cmd: Pay) -> Decimal:
            self.emit(Payed(cmd.what, cmd.at))
            return self.total

        @es.applies
        def payed(self, event: Payed) -> None:
            self.total += event.price
            self.last = event.at
            self.paid.append(event.what)
            self.days |= {event.at}
            self.sizes += ("s",)

    class Payments(es.ReadModel):
        schema = "CREATE TABLE payments (what, at, price, span, tags, number)"
        on_payed = es.sql(
            Payed, "INSERT INTO payments VALUES (:what, :at, :price, :span, :tags, :number)"
        )

        @es.query
        def rows(self, db: es.Rows) -> list[tuple[Any, ...]]:
            return db.execute("SELECT * FROM payments").fetchall()

    with es.open(":memory:", Till, Payments) as shop:
        assert shop[Till, "1"].ask(Pay(Card("5"), date(2024, 1, 2))) == Decimal("1.50")
        assert shop[Till, "1"].ask(Pay(Cash(Decimal(3)), date(2024, 1, 3))) == Decimal("3.00")
        shop.flush()
        state = shop[Till, "1"].state_at(2)
        assert (state.total, state.last) == (Decimal("3.00"), date(2024, 1, 3))
        assert state.paid == [Card("5"), Cash(Decimal(3))]
        assert state.days == frozenset({date(2024, 1, 2), date(2024, 1, 3)})
        assert state.sizes == ("s", "s")
        assert shop[Payments].rows()[0] == (
            '{"card":{"number":"5"}}', "2024-01-02", "1.50", 90.0, '["x"]', 2**63 - 1,
        )  # fmt: skip


def test_a_state_has_no_set() -> None:
    with pytest.raises(TypeError, match=r"Bag.tags: a state has no set\[T\]: use frozenset"):

        class Bag(es.Aggregate):
            tags: set[str]


def test_literals_in_a_list_of_a_state() -> None:
    class Sized(es.Event):
        size: str

    class Size(es.Command):
        size: str

    class Sizes(es.Aggregate):
        sizes: list[Literal["s", "m"]]

        @es.handles
        def size(self, cmd: Size) -> None:
            self.emit(Sized(cmd.size))

        @es.applies
        def sized(self, event: Sized) -> None:
            self.sizes.append(event.size)  # type: ignore[arg-type]

    with es.open(":memory:", Sizes) as shop:
        shop[Sizes, "1"].ask(Size("s"))
        with pytest.raises(ValueError, match=r"Sizes.sizes.*'l' is not one of"):
            shop[Sizes, "1"].ask(Size("l"))
        assert shop[Sizes, "1"].state.sizes == ["s"]


def test_out_of_memory() -> None:
    code = """
import escqrs as es
import test_types

def work():
    made = test_types.paid(tags={"a"}, step=None)
    read = test_types.again(made)
    assert read == made and hash(read) == hash(made) and read.__replace__(weight=6).weight == 6
"""
    fail_allocations(code, tries=600)


def test_a_union_of_literals_is_one_literal() -> None:
    small = Literal["s", "m"]

    class Sized(es.Event):
        size: small | Literal["l"]  # type: ignore[valid-type]
        step: Literal[1] | Literal[2, 1] | None = None

    for sized in (Sized("l"), Sized("s", 2)):
        assert es.from_bytes(Sized, es.to_bytes(sized)) == sized
    with pytest.raises((TypeError, ValueError), match=r"Sized\.size"):
        Sized("x")
    with pytest.raises(TypeError, match="all str or all int"):

        class Mixed(es.Event):
            size: small | Literal[1]  # type: ignore[valid-type]

        es.proto(Mixed)
