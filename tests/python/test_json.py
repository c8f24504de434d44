"""es.to_json and es.from_json: protobuf's mapping, as Google's json_format has it."""

from __future__ import annotations

import doctest
import enum
import json
import math
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import escqrs as es
import pytest
from escqrs import _json
from hypothesis import given
from hypothesis import strategies as st
from support import SECONDS
from test_interop import INT64, SLOW, TEXT, TIMES, classes, google_classes

json_format = pytest.importorskip("google.protobuf.json_format")


class Color(enum.Enum):
    RED = "r"
    light_blue = "b"


class Level(enum.IntEnum):
    LOW = -5
    HIGH = 7


class Card(es.Message, name="shop.Card"):
    number: str


class GiftCard(es.Message):
    amount: Decimal
    rest: Card | GiftCard | None = None


class Paid(es.Event, name="shop.Paid"):
    order_id: int
    small: es.int32
    natural: es.uint32
    large: es.uint64
    zigzag: es.sint32
    zagzig: es.sint64
    ratio: float
    flag: bool
    raw: bytes
    at: datetime
    day: date
    clock: time
    span: timedelta
    local: es.naive_datetime
    price: Decimal
    id: UUID
    size: Literal["s", "m"]
    step: Literal[1, 2] | None
    color: Color
    level: Level
    pay_ment: Card | GiftCard
    tags: frozenset[str]
    colors: list[Color]
    prices: tuple[Decimal, ...]
    payments: list[Card | GiftCard]
    by_day: dict[date, Card | GiftCard]
    by_flag: dict[bool, timedelta]
    by_number: dict[es.sint64, Level]
    numbers: list[int]
    maybe: int | None = None


def paid(**changes: Any) -> Paid:
    values: dict[str, Any] = {
        "order_id": 2**63 - 1, "small": -5, "natural": 2**32 - 1, "large": 2**64 - 1, "zigzag": -1,
        "zagzig": -(2**63), "ratio": 1.5, "flag": True, "raw": b"\xfb\xff", "day": date(1, 2, 3),
        "at": datetime(2024, 2, 29, 1, 2, 3, 450000, tzinfo=UTC), "clock": time(1, 2, 3, 4),
        "span": timedelta(seconds=-1, microseconds=500), "local": datetime(2024, 1, 1, 5),
        "price": Decimal("-12.50"), "id": UUID(int=1), "size": "m", "step": None,
        "color": Color.light_blue, "level": Level.LOW, "pay_ment": GiftCard(Decimal(1), Card("x")),
        "tags": frozenset({"ü", "b"}), "colors": [Color.RED], "prices": (Decimal("1E+5"),),
        "payments": [Card("1"), GiftCard(Decimal(2))], "by_day": {date(9999, 12, 31): Card("")},
        "by_flag": {True: timedelta(1), False: timedelta(0)}, "by_number": {-1: Level.HIGH},
        "numbers": [],
    }  # fmt: skip
    return Paid(**{**values, **changes})


def test_what_is_written() -> None:
    assert json.loads(es.to_json(paid())) == {
        "orderId": "9223372036854775807", "small": -5, "natural": 4294967295,
        "large": "18446744073709551615", "zigzag": -1, "zagzig": "-9223372036854775808",
        "ratio": 1.5, "flag": True, "raw": "+/8=", "at": "2024-02-29T01:02:03.450Z",
        "day": "0001-02-03", "clock": "01:02:03.000004", "span": "-0.999500s",
        "local": "2024-01-01T05:00:00", "price": "-12.50",
        "id": "00000000-0000-0000-0000-000000000001", "size": "m", "color": "COLOR_light_blue",
        "level": "LEVEL_LOW",
        "payMent": {"giftCard": {"amount": "1", "rest": {"card": {"number": "x"}}}},
        "tags": ["b", "ü"], "colors": ["COLOR_RED"], "prices": ["1E+5"],
        "payments": [{"card": {"number": "1"}}, {"giftCard": {"amount": "2"}}],
        "byDay": {"9999-12-31": {"card": {"number": ""}}},
        "byFlag": {"true": "86400s", "false": "0s"}, "byNumber": {"-1": "LEVEL_HIGH"},
    }  # fmt: skip
    assert es.from_json(Paid, es.to_json(paid())) == paid()
    assert es.from_json(Paid, es.to_json(paid()).encode()) == paid()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"order_id": 5, "large": "5", "small": 5.0, "numbers": ["1", 2, 3e0]},
         {"order_id": 5, "large": 5, "small": 5, "numbers": [1, 2, 3]}),
        ({"ratio": "1e3", "raw": "-_8"}, {"ratio": 1000.0, "raw": b"\xfb\xff"}),
        ({"ratio": "-Infinity"}, {"ratio": -math.inf}),
        ({"at": "2024-02-29T02:02:03+01:00"},
         {"at": datetime(2024, 2, 29, 2, 2, 3, tzinfo=timezone(timedelta(hours=1)))}),
        ({"at": "1969-12-31T23:59:59.999999999Z"},
         {"at": datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)}),
        ({"span": "-1.000000999s"}, {"span": timedelta(seconds=-1)}),
        ({"color": 0, "level": -5}, {"color": Color.RED, "level": Level.LOW}),
        ({"numbers": None, "maybe": None, "tags": None}, {"numbers": [], "tags": frozenset()}),
        ({"maybe": "0", "step": 2}, {"maybe": 0, "step": 2}),
        ({"payMent": {"card": {}}}, {"pay_ment": Card("")}),
        ({"ratio": None, "flag": None, "raw": None}, {"ratio": 0.0, "flag": False, "raw": b""}),
        ({"span": None, "price": None}, {"span": timedelta(0), "price": Decimal(0)}),
        ({"payment": None}, None),
    ],
)  # fmt: skip
def test_what_is_read(changes: dict[str, Any], expected: dict[str, Any] | None) -> None:
    given = json.loads(es.to_json(paid()))
    for key in ("orderId",) if "order_id" in changes else ():
        del given[key]
    text = json.dumps({**given, **changes})
    if expected is None:
        with pytest.raises(ValueError, match="Paid has no field 'payment'; it has orderId, "):
            es.from_json(Paid, text)
    else:
        assert es.from_json(Paid, text) == paid(**expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"order_id": 1}, "Paid.order_id: given twice"),
        ({"unknown": 1}, "Paid has no field 'unknown'"),
        ({"pay_ment": None}, "Paid.pay_ment: given twice"),
        ({"payMent": None}, "Paid.pay_ment: is missing and has no default"),
        ({"payMent": {}}, "Paid.pay_ment: expected an object with one of card or giftCard, got {}"),
        ({"payMent": {"card": {"number": ""}, "giftCard": {"amount": "1"}}}, "Paid.pay_ment"),
        ({"payMent": {"card": {"number": "", "x": 1}}}, "Card has no field 'x'; it has number"),
        ({"payMent": {"card": 5}}, "Paid.pay_ment: expected an object for Card, got"),
        ({"payments": [None]}, "Paid.payments"),
        ({"payments": {}}, "Paid.payments: expected an array, got {}"),
        ({"byDay": []}, "Paid.by_day: expected an object"),
        ({"byDay": {"x": {"card": {"number": ""}}}}, "Paid.by_day: expected a date"),
        ({"byFlag": {"True": "0s"}}, 'Paid.by_flag: expected the key "true"'),
        ({"byNumber": {"1": 7, "01": 7}}, "Paid.by_number: the key '01' is there twice"),
        ({"orderId": True}, "Paid.order_id: expected an integer"),
        ({"orderId": 1.5}, "Paid.order_id: expected an integer"),
        ({"orderId": "1_0"}, "Paid.order_id"),
        ({"orderId": "9" * 5000}, "Paid.order_id"),
        ({"orderId": 2**63}, "Paid.order_id: 9223372036854775808 does not fit in 64 bits"),
        ({"natural": -1}, "Paid.natural: -1 does not fit"),
        ({"flag": 1}, "Paid.flag: expected true or false, got 1"),
        ({"ratio": "inf"}, "Paid.ratio: expected a number"),
        ({"ratio": 10**400}, "Paid.ratio: the number is beyond a float"),
        ({"ratio": "1e999"}, "Paid.ratio: the number is beyond a float"),
        ({"ratio": True}, "Paid.ratio"),
        ({"raw": "a"}, "Paid.raw: expected bytes as base64"),
        ({"raw": "!!!!"}, "Paid.raw"),
        ({"raw": "é"}, "Paid.raw"),
        ({"at": "2024-02-30T00:00:00Z"}, "Paid.at: expected a time like"),
        ({"at": "0001-01-01T00:00:00+01:00"}, "Paid.at"),
        ({"at": "2024-02-29T00:00:00"}, "Paid.at"),
        ({"day": "20240229"}, "Paid.day: expected a date"),
        ({"day": "2023-02-29"}, "Paid.day"),
        ({"clock": "24:00:00"}, "Paid.clock"),
        ({"local": "2024-01-01"}, "Paid.local"),
        ({"span": "1"}, "Paid.span: expected a duration like 1.5s"),
        ({"span": "999999999999s"}, "Paid.span.*10,000 years"),
        ({"price": 1.5}, "Paid.price: expected a decimal number as text"),
        ({"price": "NaN"}, "Paid.price"),
        ({"price": "1" * 5000}, "Paid.price"),
        ({"id": "x"}, "Paid.id: expected a UUID"),
        ({"size": "l"}, "Paid.size: 'l' is not one of"),
        ({"color": "RED"}, "Paid.color: expected one of COLOR_RED, COLOR_light_blue"),
        ({"color": 2}, "Paid.color"),
        ({"color": True}, "Paid.color"),
        ({"level": 0}, "Paid.level"),
        ({"level": None}, "Paid.level: is missing"),
        ({"size": None}, "Paid.size: is missing"),
        ({"at": None}, "Paid.at: is missing"),
        ({"tags": ["\ud800"]}, "Paid.tags"),
        ({"\ud800": 1}, "Paid has no field"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], words: str) -> None:
    text = json.dumps({**json.loads(es.to_json(paid())), **changes})
    with pytest.raises(ValueError, match=words):
        es.from_json(Paid, text)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "5", "null", '"x"', '{"number": "1", "number": "2"}', '{"number": NaN}',
     '{"number": ' * 100_000, "[" * 100_000, b"\xff"],
)  # fmt: skip
def test_texts_that_are_no_card(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        es.from_json(Card, text)


def test_nested_too_deep() -> None:
    value: dict[str, Any] = {"card": {"number": ""}}
    for _ in range(200):
        value = {"giftCard": {"amount": "1", "rest": value}}
    with pytest.raises(ValueError, match="nested deeper"):
        es.from_json(GiftCard, json.dumps({"amount": "1", "rest": value}))


def test_what_is_no_message() -> None:
    wrong: Any
    for wrong in (5, None, Card):
        with pytest.raises(TypeError):
            es.to_json(wrong)
    for wrong in (5, int, es.Event, es.Message, Card("")):
        with pytest.raises(TypeError):
            es.from_json(wrong, "{}")
    with pytest.raises(TypeError):
        es.from_json(Card, 5)  # type: ignore[arg-type]


def test_defaults_and_absence() -> None:
    class Kept(es.Message):
        number: int = 7
        maybe: int | None = 5
        numbers: list[int] = es.field(default_factory=lambda: [1])

    assert es.to_json(Kept(0, None, [])) == '{"number":"0"}'
    assert es.from_json(Kept, es.to_json(Kept(0, None, []))) == Kept(0, None, [])
    assert es.from_json(Kept, "{}") == Kept(7, None, []) == es.from_bytes(Kept, b"")


def test_absence_is_as_in_bytes() -> None:
    class Zeros(es.Message):
        number: int
        natural: es.uint64
        ratio: float
        flag: bool
        text: str
        raw: bytes
        span: timedelta
        price: Decimal
        color: Color
        size: Literal["", "m"]
        step: Literal[1, 0]
        inner: Kept | None

    class Kept(es.Message):
        number: int

    assert es.from_json(Zeros, "{}") == es.from_bytes(Zeros, b"")
    assert es.from_json(Zeros, '{"inner": {}}').inner == Kept(0)
    for kind in (datetime, date, time, es.naive_datetime, UUID, Kept, Level, Literal["m"]):
        cls = type(es.Message)("One", (es.Message,), {"__annotations__": {"x": kind}})
        with pytest.raises(ValueError, match=r"One\.x: is missing"):
            es.from_json(cls, "{}")
        with pytest.raises(es.Corrupt, match=r"One\.x"):
            es.from_bytes(cls, b"")


def test_post_init_checks() -> None:
    class Positive(es.Message):
        x: int

        def __post_init__(self) -> None:
            if self.x <= 0:
                raise ValueError("x is not positive")

    assert es.from_json(Positive, '{"x": 1}') == Positive(1)
    with pytest.raises(ValueError, match="not positive"):
        es.from_json(Positive, '{"x": 0}')


def test_sets_have_one_order() -> None:
    program = (
        "import escqrs as es\n"
        "class S(es.Event):\n    t: set[str]\n"
        "print(es.to_json(S({str(i) for i in range(50)})))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed},
            capture_output=True, text=True, timeout=SECONDS, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(seen) == 1


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(_json).failed == 0


# ---- Google's -----------------------------------------------------------------------------------

with_protoc = pytest.mark.skipif(shutil.which("protoc") is None, reason="protoc is not installed")


def compare(ours: Any, google: Any) -> None:
    theirs = google.FromString(es.to_bytes(ours))
    text = es.to_json(ours)
    assert json.loads(text) == json.loads(json_format.MessageToJson(theirs))
    assert json_format.Parse(text, google()) == theirs
    for keep in (False, True):
        again = json_format.MessageToJson(theirs, preserving_proto_field_name=keep)
        assert es.from_json(type(ours), again) == ours


@with_protoc
@SLOW
@given(st.data())
def test_any_class(data: st.DataObject) -> None:
    made = data.draw(classes())
    (google,) = google_classes(made.cls)
    for _ in range(3):
        compare(data.draw(made.values), google)


@with_protoc
@SLOW
@given(
    st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**64 - 1), INT64, TIMES, st.dates(),
    st.timedeltas(timedelta(days=-3652500), timedelta(days=3652500)), st.sets(TEXT, max_size=1),
    st.decimals(allow_nan=False, allow_infinity=False), st.uuids(),
    st.sampled_from([math.inf, -math.inf, 0.1, -0.0, 1e300, 5e-324]), st.binary(max_size=9),
)  # fmt: skip
def test_the_other_kinds(
    small: int,
    large: int,
    signed: int,
    at: datetime,
    day: date,
    span: timedelta,
    tags: set[str],
    price: Decimal,
    id: UUID,
    ratio: float,
    raw: bytes,
) -> None:
    ours = paid(
        small=small, zigzag=small, large=large, zagzig=signed, order_id=signed, maybe=signed,
        numbers=[signed, 0], by_number={signed: Level.HIGH}, at=at, day=day, span=span, id=id,
        by_flag={True: span}, tags=frozenset(tags), price=price, ratio=ratio, raw=raw,
    )  # fmt: skip
    compare(ours, PAID)


@with_protoc
def test_names_that_are_bent() -> None:
    class Größe(enum.Enum):
        groß = 1

    class Odd(es.Event, name="läden.Größe.Odd"):
        foo_bar: int
        fooBar: int  # noqa: N815
        größe: Größe
        a__b_1_: str

    (google,) = google_classes(Odd, names=["l_u00e4den.Gr_u00f6_u00dfe.Odd"])
    ours = Odd(1, 2, Größe.groß, "x")
    assert "fooBar2" in es.to_json(ours)
    compare(ours, google)


if shutil.which("protoc") is not None:
    (PAID,) = google_classes(Paid)
