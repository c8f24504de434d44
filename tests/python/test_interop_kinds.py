"""Every kind of field in every shape, bytes and JSON, both ways with Google's library: Hypothesis
draws schemas and values."""

from __future__ import annotations

import enum
import json
import shutil
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import escqrs as es
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_interop import google_classes

json_format = pytest.importorskip("google.protobuf.json_format")

pytestmark = pytest.mark.skipif(shutil.which("protoc") is None, reason="protoc is not installed")


class Card(es.Message):
    number: str


class Cash(es.Message):
    cents: int
    rest: Card | Cash | None = None


class Color(enum.Enum):
    RED = "r"
    LIGHT_BLUE = "b"


class Level(enum.IntEnum):
    LOW = -5
    NONE = 0
    HIGH = 2**31 - 1


class Size(enum.StrEnum):
    SMALL = "s"
    LARGE = "l"


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
CARD = st.builds(Card, TEXT)
CASH = st.builds(Cash, st.integers(-9, 9), st.none() | CARD)

# Annotation, values, and may it be the key of a dict?
KINDS: list[tuple[Any, Any, bool]] = [
    (int, st.integers(-(2**63), 2**63 - 1), True),
    (es.int32, st.integers(-(2**31), 2**31 - 1), True),
    (es.uint32, st.integers(0, 2**32 - 1), True),
    (es.uint64, st.integers(0, 2**64 - 1), True),
    (es.sint32, st.integers(-(2**31), 2**31 - 1), True),
    (es.sint64, st.integers(-(2**63), 2**63 - 1), True),
    (float, st.floats(allow_nan=False), False),
    (bool, st.booleans(), True),
    (str, TEXT, True),
    (bytes, st.binary(max_size=12), False),
    (datetime, st.datetimes(timezones=st.just(UTC)), False),
    (es.naive_datetime, st.datetimes(), True),
    (date, st.dates(), True),
    (time, st.times(), True),
    (timedelta, st.timedeltas(timedelta(days=-3652500), timedelta(days=3652499)), False),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False), True),
    (UUID, st.uuids(), True),
    (Color, st.sampled_from(Color), True),
    (Level, st.sampled_from(Level), True),
    (Size, st.sampled_from(Size), True),
    (Literal["a", "ü", ""], st.sampled_from(["a", "ü", ""]), False),
    (Literal[1, -1, 0], st.sampled_from([1, -1, 0]), False),
    (Cash, CASH, False),
    (Card | Cash, CARD | CASH, False),
]


@st.composite
def kinds(draw: Any, *, fixed: bool = True) -> tuple[Any, Any]:
    """An annotation of what is no container, and the values."""
    if fixed and draw(st.integers(0, 8)) == 0:
        parts = [draw(kinds(fixed=False)) for _ in range(draw(st.integers(1, 3)))]
        return tuple[*(part[0] for part in parts)], st.tuples(*(part[1] for part in parts))  # type: ignore[misc]
    annotation, values, _ = draw(st.sampled_from(KINDS))
    return annotation, values


@st.composite
def fields(draw: Any) -> tuple[Any, Any]:
    annotation, values = draw(kinds())
    shape = draw(st.sampled_from(["one", "one", "optional", "list", "tuple", "set", "dict"]))
    if shape == "optional":
        return annotation | None, st.none() | values
    if shape == "list":
        return list[annotation], st.lists(values, max_size=4)
    if shape == "tuple":
        return tuple[annotation, ...], st.lists(values, max_size=4).map(tuple)
    if shape == "set" and "float" not in str(annotation):
        return frozenset[annotation], st.frozensets(values, max_size=4)
    if shape == "dict":
        key, keys, _ = draw(st.sampled_from([one for one in KINDS if one[2]]))
        return dict[key, annotation], st.dictionaries(keys, values, max_size=3)
    return annotation, values


@st.composite
def classes(draw: Any, name: str) -> tuple[Any, Any]:
    several = [draw(fields()) for _ in range(draw(st.integers(1, 8)))]
    annotations = {f"field_{index}": one[0] for index, one in enumerate(several)}
    namespace = {"__annotations__": annotations, "__module__": __name__}
    cls: Any = type(es.Event)(name, (es.Event,), namespace, name=f"shop.{name}")
    return cls, st.builds(cls, *(one[1] for one in several))


def ordered(value: Any) -> Any:
    """Sets have an order of their own in bytes and in JSON."""
    if isinstance(value, list):
        return sorted((ordered(item) for item in value), key=json.dumps)
    if isinstance(value, dict):
        return {key: ordered(item) for key, item in sorted(value.items())}
    return value


def exchange(ours: Any, google: Any) -> None:
    cls = type(ours)
    written = es.to_bytes(ours)
    theirs = google.FromString(written)
    assert es.from_bytes(cls, theirs.SerializeToString()) == ours
    assert es.from_bytes(cls, written) == ours
    text = es.to_json(ours)
    assert ordered(json.loads(text)) == ordered(json.loads(json_format.MessageToJson(theirs)))
    assert es.from_json(cls, json_format.MessageToJson(theirs)) == ours
    parsed = json_format.Parse(text, google())
    assert es.from_bytes(cls, parsed.SerializeToString()) == ours  # never through our own bytes


@settings(
    max_examples=8,  # several classes each: it is protoc that takes its time
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much,
    ],
)  # fmt: skip
@given(st.data())
@pytest.mark.timeout(600)
def test_every_kind_in_every_shape(data: st.DataObject) -> None:
    several = [data.draw(classes(name)) for name in ("A", "B", "C")]
    for (_, values), google in zip(
        several, google_classes(*(cls for cls, _ in several)), strict=True
    ):
        for _ in range(3):
            exchange(data.draw(values), google)
