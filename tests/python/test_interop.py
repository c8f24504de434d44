"""What is written is plain protobuf: Google's library reads our bytes by our .proto text, and we
read its own.

Schemas and values are Hypothesis's. protoc turns the text of ``es.proto`` into descriptors.
"""

from __future__ import annotations

import enum
import math
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import escqrs as es
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import SECONDS

descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
descriptor_pool = pytest.importorskip("google.protobuf.descriptor_pool")
message_factory = pytest.importorskip("google.protobuf.message_factory")

pytestmark = pytest.mark.skipif(shutil.which("protoc") is None, reason="protoc is not installed")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# Google's own file, in short: its library wants the options left out, and protoc needs no more.
TIMESTAMP = """syntax = "proto3";
package google.protobuf;
message Timestamp { int64 seconds = 1; int32 nanos = 2; }
"""


DURATION = TIMESTAMP.replace("Timestamp", "Duration")


def google_classes(*classes: Any, names: list[str] | None = None) -> list[Any]:
    """The classes that Google's library makes of our .proto text; `names` where they have others
    there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "google/protobuf").mkdir(parents=True)
        (folder / "google/protobuf/timestamp.proto").write_text(TIMESTAMP)
        (folder / "google/protobuf/duration.proto").write_text(DURATION)
        (folder / "ours.proto").write_text(es.proto(*classes))
        done = subprocess.run(
            ["protoc", f"-I{folder}", "--include_imports", f"--descriptor_set_out={folder}/set",
             "ours.proto"],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + es.proto(*classes)
        files = descriptor_pb2.FileDescriptorSet.FromString((folder / "set").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        for name in names or [cls.__escqrs_name__ for cls in classes]
    ]


def numbers_of(cls: type[enum.Enum]) -> dict[enum.Enum, int]:
    members = list(cls)
    if all(type(member.value) is int for member in members):
        return {member: member.value for member in members}
    return {member: index for index, member in enumerate(members)}


def fill(target: Any, ours: Any) -> None:
    """Set the fields of Google's message to the values of ours."""
    for name in type(ours).__escqrs_fields__:
        value = getattr(ours, name)
        if value is None:
            continue
        if isinstance(value, list):
            for item in value:
                if isinstance(item, es.Message):
                    fill(getattr(target, name).add(), item)
                elif isinstance(item, datetime):
                    set_time(getattr(target, name).add(), item)
                else:
                    getattr(target, name).append(plain(item))
        elif isinstance(value, dict):
            entries = getattr(target, name)
            for key, item in value.items():
                if isinstance(item, es.Message):
                    fill(entries[key], item)
                elif isinstance(item, datetime):
                    set_time(entries[key], item)
                else:
                    entries[key] = plain(item)
        elif isinstance(value, es.Message):
            getattr(target, name).SetInParent()
            fill(getattr(target, name), value)
        elif isinstance(value, datetime):
            getattr(target, name).SetInParent()
            set_time(getattr(target, name), value)
        else:
            setattr(target, name, plain(value))


def plain(value: Any) -> Any:
    return numbers_of(type(value))[value] if isinstance(value, enum.Enum) else value


def set_time(target: Any, value: datetime) -> None:
    microseconds = (value - EPOCH) // MICROSECOND
    target.seconds, rest = divmod(microseconds, 1_000_000)
    target.nanos = rest * 1000


def same(google: Any, value: Any) -> bool:
    if isinstance(value, es.Message):
        return same_message(google, value)
    if isinstance(value, datetime):
        since = timedelta(seconds=google.seconds, microseconds=google.nanos // 1000)
        return bool(EPOCH + since == value)
    if isinstance(value, float) and math.isnan(value):
        return math.isnan(google)
    return bool(google == plain(value))


def same_message(google: Any, ours: Any) -> bool:
    for name in type(ours).__escqrs_fields__:
        value = getattr(ours, name)
        theirs = getattr(google, name)
        if value is None:
            ok = not google.HasField(name)
        elif isinstance(value, list):
            ok = len(theirs) == len(value) and all(map(same, theirs, value))
        elif isinstance(value, dict):
            ok = set(theirs) == set(value) and all(same(theirs[key], value[key]) for key in value)
        else:
            ok = google.HasField(name) and same(theirs, value)
        if not ok:
            return False
    return True


# ---- random schemas and values ------------------------------------------------------------------

INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [0, 1, -1, 127, 128, 2**63 - 1, -(2**63)]
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
TIMES = st.datetimes(timezones=st.just(UTC))
SCALARS: dict[Any, Any] = {
    int: INT64,
    float: st.floats(allow_nan=False) | st.integers(-(2**53), 2**53).map(float),
    bool: st.booleans(),
    str: TEXT,
    bytes: st.binary(max_size=200),
    datetime: TIMES,
}


class Made:
    """A message class and the strategy of its instances."""

    def __init__(self, cls: Any, values: Any) -> None:
        self.cls = cls
        self.values = values


@st.composite
def enums(draw: Any, name: str) -> type[enum.Enum]:
    count = draw(st.integers(1, 5))
    names = [f"M{i}" for i in range(count)]
    values: list[Any] = names
    if draw(st.booleans()):
        values = draw(
            st.lists(st.integers(-(2**31), 2**31 - 1), min_size=count, max_size=count, unique=True)
        )
    return enum.Enum(name, dict(zip(names, values, strict=True)))  # type: ignore[no-any-return]


@st.composite
def classes(draw: Any, depth: int = 2, name: str = "Root") -> Made:
    count = draw(st.integers(0, 6))
    numbers = draw(
        st.lists(
            st.integers(1, 18_999) | st.integers(20_000, 2**29 - 1) | st.integers(1, 20),
            min_size=count, max_size=count, unique=True,
        )
    )  # fmt: skip
    explicit = draw(st.booleans())
    annotations: dict[str, Any] = {}
    namespace: dict[str, Any] = {"__annotations__": annotations, "__module__": __name__}
    values = {}
    for index in range(count):
        field = f"f{index}"
        kind = draw(st.sampled_from([*SCALARS, "enum", "message" if depth else int]))
        if kind == "enum":
            kind = draw(enums(f"{name}E{index}"))
            strategy = st.sampled_from(list(kind))
        elif kind == "message":
            made = draw(classes(depth - 1, f"{name}M{index}"))
            kind, strategy = made.cls, made.values
        else:
            strategy = SCALARS[kind]
        shape = draw(st.sampled_from(["one", "one", "optional", "list", "dict"]))
        if shape == "optional":
            kind, strategy = kind | None, st.none() | strategy
        elif shape == "list":
            kind, strategy = list[kind], st.lists(strategy, max_size=20)
        elif shape == "dict":
            key = draw(st.sampled_from([str, int]))
            kind, strategy = dict[key, kind], st.dictionaries(SCALARS[key], strategy, max_size=8)
        annotations[field] = kind
        values[field] = strategy
        if explicit:
            namespace[field] = es.field(numbers[index])
    cls: Any = type(es.Message)(name, (es.Message,), namespace)
    return Made(cls, st.builds(cls, **values))


SLOW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)


@settings(SLOW, max_examples=20)  # several classes each: it is protoc that takes its time
@given(st.data())
@pytest.mark.timeout(600)
def test_google_reads_what_we_write_and_we_what_it_writes(data: st.DataObject) -> None:
    several = [data.draw(classes(name=name)) for name in ("A", "B", "C")]
    for made, google in zip(several, google_classes(*(one.cls for one in several)), strict=True):
        exchange(data, made, google)


def exchange(data: st.DataObject, made: Made, google: Any) -> None:
    for _ in range(3):
        ours = data.draw(made.values)
        written = es.to_bytes(ours)
        theirs = google.FromString(written)
        assert same_message(theirs, ours)
        filled = google()
        fill(filled, ours)
        read = es.from_bytes(made.cls, filled.SerializeToString())
        assert read == ours
        assert hash(read) == hash(ours)
        assert repr(es.from_bytes(made.cls, written)) == repr(ours)
        assert es.from_bytes(made.cls, es.to_bytes(read)) == ours
        assert es.from_bytes(made.cls, written) == ours
        assert google.FromString(es.to_bytes(read)) == filled


@SLOW
@given(st.data())
def test_bytes_with_noise(data: st.DataObject) -> None:
    """Cut, changed or prolonged bytes are read or refused, never anything else."""
    made = data.draw(classes())
    written = bytearray(es.to_bytes(data.draw(made.values)))
    for _ in range(10):
        noisy = bytearray(written)
        for _ in range(data.draw(st.integers(1, 4))):
            if noisy and data.draw(st.booleans()):
                noisy[data.draw(st.integers(0, len(noisy) - 1))] = data.draw(st.integers(0, 255))
            elif data.draw(st.booleans()):
                noisy += data.draw(st.binary(max_size=5))
            else:
                del noisy[data.draw(st.integers(0, len(noisy))) :]
        try:
            read = es.from_bytes(made.cls, bytes(noisy))
        except (es.Corrupt, es.TooLarge):
            continue
        repr(read)
        hash(read)
        again = es.from_bytes(made.cls, es.to_bytes(read))
        assert es.to_bytes(again) == es.to_bytes(read)
        read.__replace__()


class Shade(enum.Enum):
    DARK = "d"
    LIGHT = "l"


class Inner(es.Message):
    x: int = 0


class Outer(es.Event, name="shop.orders.Outer"):
    text: str
    at: datetime
    shade: Shade
    inner: Inner
    inners: dict[str, Inner]
    numbers: list[int]
    maybe: int | None = None


def test_a_package() -> None:
    (google,) = google_classes(Outer)
    ours = Outer("x", EPOCH, Shade.DARK, Inner(), {"": Inner(5)}, [0, -1, 300], 0)
    theirs = google.FromString(es.to_bytes(ours))
    assert same_message(theirs, ours)
    assert theirs.DESCRIPTOR.full_name == "shop.orders.Outer"
    assert es.from_bytes(Outer, theirs.SerializeToString()) == ours


def test_unpacked_lists_and_repeated_singular_fields() -> None:
    """What another writer may do: lists item by item, a field twice, fields in any order."""

    class Numbers(es.Event):
        numbers: list[int]
        ratios: list[float]
        last: int

    data = b"\x18\x01\x08\x05\x08\x06\x18\x02\x0a\x02\x07\x08"
    assert es.from_bytes(Numbers, data) == Numbers([5, 6, 7, 8], [], 2)


def test_unknown_fields_of_googles_making() -> None:
    class Small(es.Event, name="Big"):
        text: str

    class Big(es.Event):
        text: str
        more: list[str]
        inner: Inner
        ratio: float

    (google,) = google_classes(Big)
    theirs = google(text="t", more=["a", "b"], inner={"x": 5}, ratio=0.5)
    small = es.from_bytes(Small, theirs.SerializeToString())
    assert small.text == "t"
    assert google.FromString(es.to_bytes(small)) == theirs
    changed = small.__replace__(text="u")
    theirs.text = "u"
    assert google.FromString(es.to_bytes(changed)) == theirs


# ---- the command line ----------------------------------------------------------------------------


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "orders.py").write_text(
        "import escqrs as es\n"
        "class Money(es.Message):\n    amount: int\n"
        "class Paid(es.Event, name='orders.Paid'):\n    money: Money\n"
        "class Outer:\n    class Pay(es.Command[None]):\n        money: Money\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "escqrs", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def test_the_command_line_prints_the_proto_of_classes(tmp_path: Path) -> None:
    one = run(tmp_path, "proto", "orders:Paid")
    assert one.returncode == 0, one.stderr
    assert "message Paid {" in one.stdout and "message Money {" in one.stdout
    module = run(tmp_path, "proto", "orders", "orders:Outer.Pay", "orders:Paid")
    assert module.returncode == 0, module.stderr
    for name in ("Paid", "Money", "Pay"):
        assert module.stdout.count(f"message {name} {{") == 1


@pytest.mark.parametrize("wrong", ["orders:Outer", "orders:Missing", "missing:Paid", "json", ":x"])
def test_the_command_line_says_what_is_no_message_class(tmp_path: Path, wrong: str) -> None:
    done = run(tmp_path, "proto", wrong)
    assert done.returncode == 2 and done.stdout == ""
    assert wrong in done.stderr and "Traceback" not in done.stderr


class Card(es.Message):
    number: str


class Cash(es.Message):
    amount: Decimal


class Paid(es.Event, name="shop.Paid"):
    small: es.int32
    natural: es.uint32
    large: es.uint64
    zigzag: es.sint32
    zagzig: es.sint64
    day: date
    price: Decimal
    id: UUID
    span: timedelta
    payment: Card | Cash
    payments: list[Card | Cash]
    zigzags: list[es.sint64]
    spans: dict[bool, timedelta]
    tags: frozenset[str]


@SLOW
@given(
    st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), INT64,
    st.dates(), st.decimals(allow_nan=False, allow_infinity=False), st.uuids(),
    st.timedeltas(timedelta(days=-3652500), timedelta(days=3652499)), st.sets(TEXT, max_size=5),
)  # fmt: skip
def test_sized_numbers_texts_durations_unions(
    small: int,
    natural: int,
    large: int,
    signed: int,
    day: date,
    price: Decimal,
    id: UUID,
    span: timedelta,
    tags: set[str],
) -> None:
    ours = Paid(
        small, natural, large, small, signed, day, price, id, span, Card("x"),
        [Cash(price), Card("")], [signed, small], {True: span}, frozenset(tags),
    )  # fmt: skip
    theirs = PAID.FromString(es.to_bytes(ours))
    assert (theirs.small, theirs.natural, theirs.large) == (small, natural, large)
    assert (theirs.zigzag, theirs.zagzig, list(theirs.zigzags)) == (small, signed, [signed, small])
    assert (theirs.day, theirs.price, theirs.id) == (day.isoformat(), str(price), str(id))
    for duration in (theirs.span, theirs.spans[True]):
        whole = timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
        assert whole == span
        assert duration.seconds * duration.nanos >= 0
    assert theirs.payment.WhichOneof("value") == "card"
    assert [one.WhichOneof("value") for one in theirs.payments] == ["cash", "card"]
    assert set(theirs.tags) == tags
    assert es.from_bytes(Paid, theirs.SerializeToString()) == ours


if shutil.which("protoc") is not None:
    (PAID,) = google_classes(Paid)
