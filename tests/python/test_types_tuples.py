"""Tuples of fixed size, and dicts whose keys are members of an enum."""

from __future__ import annotations

import enum
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import escqrs as es
import pytest


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Size(enum.StrEnum):
    SMALL = "s"
    LARGE = "l"


class Card(es.Message):
    number: str


class Cash(es.Message):
    cents: int


class Placed(es.Event, name="shop.Placed"):
    line: tuple[int, str]
    lines: list[tuple[str, int | None]]
    by_name: dict[str, tuple[Color, Card]]
    by_color: dict[Color, int]
    by_size: dict[Size, Card]
    maybe: tuple[datetime, Card | Cash] | None = None
    points: set[tuple[int, int]] = es.field(default_factory=set)
    deep: tuple[tuple[int, int], str] = ((1, 2), "x")
    words: tuple[str, ...] = ()


def placed(**changes: Any) -> Placed:
    values: dict[str, Any] = {
        "line": (2, "book"),
        "lines": [("a", None), ("b", 5)],
        "by_name": {"x": (Color.BLUE, Card("1"))},
        "by_color": {Color.RED: 1, Color.BLUE: 2},
        "by_size": {Size.LARGE: Card("2")},
        "maybe": (datetime(2024, 2, 29, tzinfo=UTC), Cash(5)),
        "points": {(1, 2), (3, 4)},
    }
    return Placed(**(values | changes))


def test_a_part_that_is_absent_is_zero() -> None:
    assert es.from_json(Placed, '{"line": {"item1": 1}}').line == (1, "")
    assert es.from_bytes(Placed, b"\x0a\x02\x08\x01").line == (1, "")
    with pytest.raises(es.Corrupt, match=r"Maybe\.item_1"):
        es.from_bytes(Placed, b"\x0a\x00\x32\x06\x12\x04\x12\x02\x08\x05")


def test_there_and_back() -> None:
    for message in (placed(), placed(maybe=None, lines=[], by_color={})):
        again = es.from_bytes(Placed, es.to_bytes(message))
        assert again == message
        assert hash(again) == hash(message)
        assert repr(again) == repr(message)
        assert es.to_bytes(again) == es.to_bytes(message)
        assert es.from_json(Placed, es.to_json(message)) == message
        assert pickle.loads(pickle.dumps(message)) == message
    message = es.from_bytes(Placed, es.to_bytes(placed()))
    assert message.line == (2, "book")
    assert type(message.line) is tuple
    assert message.lines == [("a", None), ("b", 5)]
    assert message.by_color == {Color.RED: 1, Color.BLUE: 2}
    assert list(message.by_size) == [Size.LARGE]
    assert message.deep == ((1, 2), "x")


def test_the_text_of_the_schema() -> None:
    text = es.proto(Placed)
    assert "optional int64 item_1 = 1;" in text
    assert "optional string item_2 = 2;" in text
    assert "map<string, int64> by_color = 4;" in text


def test_json() -> None:
    text = es.to_json(placed(by_name={}, by_size={}, maybe=None, points=set()))
    assert text == (
        '{"line":{"item1":"2","item2":"book"},"lines":[{"item1":"a"},{"item1":"b","item2":"5"}],'
        '"byColor":{"RED":"1","BLUE":"2"},"deep":{"item1":{"item1":"1","item2":"2"},"item2":"x"}}'
    )
    for wrong in (
        '{"line": ["a"]}',
        '{"line": {"item1": 1}, "maybe": {"item2": {"cash": {}}}}',
        '{"line": {"item1": 1, "item2": "a", "item3": 1}}',
        '{"line": {"item1": 1, "item2": "a"}, "byColor": {"GREEN": 1}}',
    ):
        with pytest.raises(ValueError, match="Placed"):
            es.from_json(Placed, wrong)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"line": (1, 2)}, r"Placed\.line\[1\]: expected str, got 2"),
        ({"line": (1,)}, r"Placed\.line: expected tuple\[int, str\], got \(1,\)"),
        ({"line": [1, "a"]}, r"expected tuple\[int, str\]"),
        ({"line": None}, r"expected tuple\[int, str\]"),
        ({"lines": [("a", 1), ("b",)]}, r"Placed\.lines\[1\]: expected tuple\[str, int \| None\]"),
        ({"by_color": {"RED": 1}}, r"Placed\.by_color\['RED'\]: expected Color, got 'RED'"),
        ({"by_color": {Size.LARGE: 1}}, "expected Color"),
        ({"by_color": []}, r"expected dict\[Color, int\]"),
        ({"by_size": {"l": Card("1")}}, "expected Size"),
    ],
)
def test_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        placed(**changes)


def test_annotations_that_are_refused() -> None:
    for annotation in (
        tuple[list[int], str],
        tuple[int, dict[str, int]],
        list[tuple[set[int], int]],
    ):
        with pytest.raises(TypeError, match="wrap it in an es.Message"):
            type(es.Message)("M", (es.Message,), {"__annotations__": {"x": annotation}})


def test_what_does_not_decode() -> None:
    class Counts(es.Message):
        counts: dict[Color, int]

    class Plain(es.Message):
        counts: dict[str, int]

    good = es.to_bytes(Plain({"RED": 1}))
    assert es.from_bytes(Counts, good) == Counts({Color.RED: 1})
    for key in ("GREEN", "", "RE", "REDD"):
        with pytest.raises(es.Corrupt, match="name of a member"):
            es.from_bytes(Counts, es.to_bytes(Plain({key: 1})))
    with pytest.raises(es.Corrupt, match="name of a member"):
        es.from_bytes(Counts, bytes([0x0A, 0x02, 0x10, 0x01]))  # an entry without a key


def test_enums_that_were_defined_again() -> None:
    def define() -> tuple[type[enum.Enum], type[es.Message]]:
        namespace: dict[str, Any] = {"__name__": "a_notebook", "es": es, "enum": enum}
        exec(
            "class Kind(enum.Enum):\n    A = 1\n"
            "class Counts(es.Message):\n    counts: dict[Kind, int]\n",
            namespace,
        )
        return namespace["Kind"], namespace["Counts"]

    older, _ = define()
    newer, counts = define()
    assert counts({older["A"]: 1}) == counts({newer["A"]: 1})


def test_depth_is_bounded() -> None:
    class Nest(es.Message):
        inner: tuple[Nest, int] | None = None

    nest = Nest()
    with pytest.raises(ValueError, match="deeper"):
        for _ in range(100):
            nest = Nest((nest, 1))
    assert es.from_bytes(Nest, es.to_bytes(nest)) == nest


class Count(es.Command[int]):
    color: Color


class Counted(es.Event):
    color: Color
    pair: tuple[int, str]


class Tally(es.Aggregate):
    by_color: dict[Color, int]
    pairs: list[tuple[int, str]]
    last: tuple[int, str] | None

    @es.handles
    def count(self, cmd: Count) -> int:
        self.emit(Counted(cmd.color, (len(self.pairs), cmd.color.name)))
        return self.by_color[cmd.color]

    @es.applies
    def counted(self, event: Counted) -> None:
        self.by_color[event.color] = self.by_color.get(event.color, 0) + 1
        self.pairs.append(event.pair)
        self.last = event.pair


class Rows(es.ReadModel):
    schema = "CREATE TABLE counted (pair TEXT)"
    on_counted = es.sql(Counted, "INSERT INTO counted VALUES (:pair)")

    @es.query
    def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute("SELECT pair FROM counted").fetchall()


def test_states_and_sql(tmp_path: Path) -> None:
    with es.open(tmp_path / "t.db", Tally, Rows) as system:
        tally = system[Tally, "t"]
        assert tally.ask(Count(Color.RED)) == 1
        assert tally.ask(Count(Color.BLUE)) == 1
        assert tally.ask(Count(Color.RED)) == 2
        system.flush()
        assert system[Rows].all()[:1] == [('{"item_1":0,"item_2":"RED"}',)]
    with es.open(tmp_path / "t.db", Tally) as system:
        state = system[Tally, "t"].state
        assert state.by_color == {Color.RED: 2, Color.BLUE: 1}
        assert state.pairs == [(0, "RED"), (1, "BLUE"), (2, "RED")]
        assert state.last == (2, "RED")


def test_upcasters_take_them(tmp_path: Path) -> None:
    class Older(es.Event, name="shop.Moved"):
        pair: tuple[Color, tuple[int, str] | None]
        pairs: list[tuple[int, int]]
        counts: dict[Color, int]

    class Newer(es.Event, name="shop.Moved", version=2):
        pair: tuple[Color, tuple[int, str] | None]
        pairs: list[tuple[int, int]]
        counts: dict[Color, int]
        note: str = ""

    with es.Store(tmp_path / "m.db", Older) as store:
        store.append("s", [Older((Color.BLUE, (1, "x")), [(1, 2)], {Color.RED: 5})])
        store.append("s", [Older((Color.RED, None), [], {})])

    @es.upcast("shop.Moved", version=1)
    def with_note(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "note": str(event["pair"]["item_1"])}

    with es.Store(tmp_path / "m.db", Newer, with_note) as store:
        first, second = (recorded.event for recorded in store.events())
        assert first == Newer((Color.BLUE, (1, "x")), [(1, 2)], {Color.RED: 5}, "BLUE")
        assert second == Newer((Color.RED, None), [], {}, "RED")
