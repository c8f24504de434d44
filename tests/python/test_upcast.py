"""Upcasters: events of old versions as the events of today, wherever events are read."""

from __future__ import annotations

import datetime
import decimal
import itertools
import sys
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS

_modules = itertools.count()


def program(code: str, name: str | None = None) -> Any:
    """A program: the classes and functions of some code, in a module of its own."""
    module = types.ModuleType(name or f"shop_{next(_modules)}")
    sys.modules[module.__name__] = module
    exec("import escqrs as es\nimport enum, datetime, decimal, uuid\n" + code, module.__dict__)
    return module


V1 = """
class Inner(es.Message):
    cents: int

class ItemAdded(es.Event, name="shop.ItemAdded"):
    name: str
    price: Inner
    tags: list[str]

class Ended(es.Event):
    reason: str

class Add(es.Command):
    name: str
    cents: int = 100
    tags: list[str] = []

class End(es.Command):
    reason: str = "done"

class Cart(es.Aggregate, snapshot_every=0):
    items: dict[str, int]
    ended: int

    @es.handles
    def add(self, cmd: Add) -> None:
        self.emit(ItemAdded(cmd.name, Inner(cmd.cents), cmd.tags))

    @es.handles
    def end(self, cmd: End) -> None:
        self.emit(Ended(cmd.reason))

    @es.applies
    def added(self, event: ItemAdded) -> None:
        self.items[event.name] = event.price.cents

    @es.applies
    def over(self, event: Ended) -> None:
        self.ended += 1
"""

V2 = """
class ItemAdded(es.Event, name="shop.ItemAdded"):
    name: str
    price: float

class Tagged(es.Event):
    name: str
    tag: str

class Ended(es.Event):
    reason: str

class Add(es.Command):
    name: str
    price: float = 1.0

class Cart(es.Aggregate, snapshot_every=0):
    items: dict[str, float]
    tags: dict[str, str]
    ended: int

    @es.handles
    def add(self, cmd: Add) -> None:
        self.emit(ItemAdded(cmd.name, cmd.price))

    @es.applies
    def added(self, event: ItemAdded) -> None:
        self.items[event.name] = event.price

    @es.applies
    def tagged(self, event: Tagged) -> None:
        self.tags[event.name] = event.tag

    @es.applies
    def over(self, event: Ended) -> None:
        self.ended += 1

class Items(es.ReadModel):
    schema = "CREATE TABLE items (position, part, name, price, id, UNIQUE (position, part))"
    on_added = es.sql(ItemAdded,
        "INSERT INTO items VALUES (:_position, :_part, :name, :price, :_id)")
    on_tagged = es.sql(Tagged,
        "INSERT INTO items VALUES (:_position, 1, :tag, NULL, :_id)")

    @es.query
    def all(self, db):
        return db.execute("SELECT position, name, price, id FROM items ORDER BY position, part"
            ).fetchall()

class Seen(es.ReadModel):
    schema = "CREATE TABLE seen (position, part, parts, version, type, text)"

    @es.on(ItemAdded, Tagged, Ended)
    def event(self, db, event, recorded):
        assert recorded.event == event
        db.execute("INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?)", (recorded.position,
            recorded.part, recorded.parts, recorded.version, recorded.type, repr(event)))

    @es.query
    def all(self, db):
        return db.execute("SELECT position, part, parts, version, type FROM seen").fetchall()
"""

UP = """
@es.upcast("shop.ItemAdded", version=1)
def with_price(event: dict) -> list[ItemAdded | Tagged]:
    if event["name"] == "dropped":
        return []
    made = [ItemAdded(event["name"], event["price"]["cents"] / 100)]
    return made + [Tagged(event["name"], tag) for tag in event["tags"]]
"""

WORDS = [("a", []), ("b", ["x"]), ("dropped", []), ("c", ["x", "y"])]


def fill(path: Path, words: list[tuple[str, list[str]]] = WORDS) -> Any:
    first = program(V1)
    with es.open(path, first.Cart) as shop:
        for name, tags in words:
            shop[first.Cart, "1"].ask(first.Add(name, 150, tags))
        shop[first.Cart, "2"].ask(first.End())
    return first


@pytest.fixture
def path(tmp_path: Path) -> Path:
    fill(tmp_path / "shop.db")
    return tmp_path / "shop.db"


EVENTS = [(1, 0, 1), (2, 0, 2), (2, 1, 2), (4, 0, 3), (4, 1, 3), (4, 2, 3), (5, 0, 1)]


def places(events: Any) -> list[tuple[int, int, int]]:
    return [(one.position, one.part, one.parts) for one in events]


# ---- where events are read -----------------------------------------------------------------------


def test_replay(path: Path) -> None:
    new = program(V2 + UP)
    with es.open(path, new.Cart) as shop:
        cart = shop[new.Cart, "1"]
        assert cart.state.items == {"a": 1.5, "b": 1.5, "c": 1.5}
        assert cart.state.tags == {"b": "x", "c": "y"}
        assert cart.state.version == 4
        assert cart.state_at(2).tags == {"b": "x"} and cart.state_at(3).version == 3
        assert "dropped" not in cart.state_at(3).items
        cart.ask(new.Add("d", 2.5))
        assert cart.state.items["d"] == 2.5 and cart.state.version == 5
        assert shop[new.Cart, "2"].state.ended == 1
    with es.open(path, new.Cart) as shop:
        assert shop[new.Cart, "1"].state.items == {"a": 1.5, "b": 1.5, "c": 1.5, "d": 2.5}


def test_iterations(path: Path) -> None:
    new = program(V2 + UP)
    with es.open(path, new.Cart) as shop:
        assert places(shop.events()) == EVENTS
        assert places(shop.events(reverse=True)) == EVENTS[::-1]
        assert places(shop[new.Cart, "1"].history()) == EVENTS[:-1]
        assert places(shop.store.history("Cart/1", after=1, upto=3)) == EVENTS[1:3]
        assert places(shop.events(after=1)) == EVENTS[1:]
        recorded = list(shop.events())
        first, second = recorded[3], recorded[4]
        assert first.event == new.ItemAdded("c", 1.5) and first.type == "shop.ItemAdded"
        assert second.event == new.Tagged("c", "x") and second.type == "Tagged"
        assert second.id == f"{first.id}.1" and len({one.id for one in recorded}) == 7
        assert second.version == first.version == 4 and second.time == first.time
        assert second.data == es.to_bytes(second.event)
        assert (first.correlation_id, first.causation_id) == (
            second.correlation_id,
            second.causation_id,
        )
        assert first != second and first == recorded[3]


def test_a_limit_keeps_the_parts_of_an_event_together(path: Path) -> None:
    new = program(V2 + UP)
    with es.open(path, new.Cart) as shop:
        for limit in range(8):
            found = places(shop.events(limit=limit))
            assert found == EVENTS[: len(found)] and len(found) >= min(limit, 7)
            assert not found or found[-1][1] + 1 == found[-1][2]
            pages: list[tuple[int, int, int]] = []
            while limit:
                page = places(shop.events(after=pages[-1][0] if pages else 0, limit=limit))
                if not page:
                    break
                pages += page
            assert not limit or pages == EVENTS


def test_matches_are_of_the_events_of_today(path: Path) -> None:
    new = program(V2 + UP)
    with es.open(path, new.Cart) as shop:
        tagged = es.Match(types=["Tagged"])
        assert places(shop.events(match=tagged)) == [(2, 1, 2), (4, 1, 3), (4, 2, 3)]
        assert places(shop.events(match=es.Match(types=[new.ItemAdded]))) == [
            (1, 0, 1),
            (2, 0, 2),
            (4, 0, 3),
        ]
        assert places(shop.events(match=es.Match(types=["Ended"]))) == [(5, 0, 1)]
        assert places(shop.events(match=[tagged, es.Match(types=["Ended"])])) == [
            (2, 1, 2),
            (4, 1, 3),
            (4, 2, 3),
            (5, 0, 1),
        ]
        assert places(shop.events(match=es.Match(tags=["none"]))) == []


def test_feeds(path: Path) -> None:
    new = program(V2 + UP)
    with es.open(path, new.Cart) as shop, shop.store.subscribe() as feed:
        found = []
        positions = []
        for recorded in feed:
            found.append(recorded)
            positions.append(feed.position)
            if len(found) == 7:
                break
        assert places(found) == EVENTS
        # the position counts once the last part was given: to go on from it loses nothing
        assert positions == [1, 1, 2, 2, 2, 4, 5]
        shop[new.Cart, "3"].ask(new.Add("late"))
        assert feed.next(timeout=SECONDS).event == new.ItemAdded("late", 1.0)
    with es.open(path, new.Cart) as shop:
        with shop.store.subscribe(match=es.Match(types=["Tagged"])) as feed:
            assert places([feed.next(timeout=SECONDS) for _ in range(3)]) == [
                (2, 1, 2),
                (4, 1, 3),
                (4, 2, 3),
            ]


def test_where_the_last_part_is_not_wanted(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    fill(path, WORDS[1:2])  # one event, which becomes an item and a tag
    code = """
class Count(es.Process, key=lambda event: "all"):
    count: int = 0

    @es.on(ItemAdded)
    def added(self, event: ItemAdded) -> None:
        self.count += 1
"""
    new = program(V2 + UP + code)
    with es.open(path, new.Cart) as shop:
        with shop.store.subscribe(match=es.Match(types=["shop.ItemAdded"])) as feed:
            assert places([feed.next(timeout=SECONDS)]) == [(1, 0, 2)]
            assert feed.position == 1
        with shop.subscribe("mailer", types=[new.ItemAdded]) as mailer:
            mailer.next(timeout=SECONDS)
            mailer.ack()
            assert mailer.position >= 1
    with es.open(path, new.Cart, new.Count) as shop:
        shop.flush()
        # what follows from the event was stored together with the position behind it
        assert shop.store.checkpoint("escqrs.process/Count") == 1
        assert shop[new.Count].instance("all").state.count == 1


def test_a_process_reacts_to_all_parts_of_an_event_or_to_none(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    fill(path)
    code = """
is_bad = True

class Count(es.Process, key=lambda event: event.name):
    seen: list[str] = []

    @es.on(ItemAdded, Tagged)
    def added(self, event: ItemAdded | Tagged) -> None:
        if is_bad and event == Tagged("c", "y"):
            raise ValueError("bad")
        self.seen = [*self.seen, getattr(event, "tag", "added")]
"""
    new = program(V2 + UP + code)
    for _ in range(2):
        with es.open(path, new.Cart, new.Count) as shop:
            with pytest.raises(es.ProcessStopped, match="position 4: ValueError: bad"):
                shop.flush()
            assert shop[new.Count].instance("c") is None
            assert list(shop[new.Count].instance("b").state.seen) == ["added", "x"]
    new.is_bad = False
    with es.open(path, new.Cart, new.Count) as shop:
        shop.flush()
        assert list(shop[new.Count].instance("c").state.seen) == ["added", "x", "y"]
        assert list(shop[new.Count].instance("b").state.seen) == ["added", "x"]


def test_a_process_stops_where_an_upcaster_fails_and_can_try_again(path: Path) -> None:
    code = UP.replace("    if event", "    assert not is_bad\n    if event", 1)
    code = (
        """
is_bad = False

class First(es.Process):
    @es.on(Tagged)
    def tagged(self, event: Tagged) -> None: ...

class Second(es.Process):
    count: int = 0

    @es.on(Tagged)
    def tagged(self, event: Tagged) -> None:
        self.count += 1
"""
        + code
    )
    new = program(V2 + code)
    with es.open(path, new.Cart, new.First) as shop:
        shop.flush()
    new.is_bad = True
    with es.open(path, new.Cart, new.First, new.Second) as shop:
        with pytest.raises(es.ProcessStopped, match="AssertionError"):
            shop.flush()
        new.is_bad = False
        shop[new.Second].retry()
        shop.flush()
        assert shop[new.Second].instance("1").state.count == 3


def test_read_models(path: Path) -> None:
    new = program(V2 + UP)
    with es.open(path, new.Cart, new.Seen) as shop:
        shop.flush()
        assert [row[:3] for row in shop[new.Seen].all()] == EVENTS
        assert [row[3] for row in shop[new.Seen].all()] == [1, 2, 2, 4, 4, 4, 1]
        shop[new.Cart, "1"].ask(new.Add("d"))
        shop.flush()
        assert shop[new.Seen].all()[-1] == (6, 0, 1, 5, "shop.ItemAdded")


def test_read_models_in_sql(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    fill(path, WORDS[:3])
    new = program(V2 + UP)
    with es.open(path, new.Cart, new.Items) as shop:
        shop.flush()
        rows = shop[new.Items].all()
        assert [row[:3] for row in rows] == [(1, "a", 1.5), (2, "b", 1.5), (2, "x", None)]
        assert [row[3] for row in rows] == [one.id for one in shop.events()][:3]
        shop[new.Items].rebuild()
        shop.flush()
        assert shop[new.Items].all() == rows
        assert list(shop[new.Items].compare()) == []


def test_a_read_model_that_fails_at_a_part_has_nothing_of_the_event(path: Path) -> None:
    new = program(V2 + UP)  # of position 4 a second tag violates the constraint
    with es.open(path, new.Cart, new.Items) as shop:
        with pytest.raises(es.ReadModelStopped) as caught:
            shop.flush()
        assert caught.value.position == 4
        status = shop[new.Items].status
        assert (status.state, status.position, status.failed_position) == ("stopped", 3, 4)
        assert [row[0] for row in shop[new.Items].all()] == [1, 2, 2]
        shop[new.Items].skip()
        shop.flush()
        assert [row[0] for row in shop[new.Items].all()] == [1, 2, 2]


def test_a_python_handler_that_fails_at_a_part_has_nothing_of_the_event(path: Path) -> None:
    code = V2 + UP
    old, mended = "assert recorded.event == event\n", "db.execute('SELECT 1')\n"
    failing = code.replace(old, "assert (recorded.position, recorded.part) != (4, 2)\n")
    new = program(failing)
    with es.open(path, new.Seen) as shop:
        with pytest.raises(es.ReadModelStopped):
            shop.flush()
        assert [row[:2] for row in shop[new.Seen].all()] == [(1, 0), (2, 0), (2, 1)]
    new = program(code.replace(old, mended))
    with es.open(path, new.Seen) as shop:
        shop.flush()
        assert [row[:3] for row in shop[new.Seen].all()] == EVENTS


def test_snapshots_are_not_used_across_upcasters(tmp_path: Path) -> None:
    """The state of a class that has not changed, after events that mean something else now."""
    path = tmp_path / "shop.db"
    every = V1.replace("snapshot_every=0", "snapshot_every=1")
    first = program(every)
    with es.open(path, first.Cart) as shop:
        for name in "abc":
            shop[first.Cart, "1"].ask(first.Add(name))
    up = """
@es.upcast("shop.ItemAdded", version=1)
def halved(event):
    event["price"]["cents"] //= 2
    return [] if event["name"] == "b" else event
"""
    new = program(every + up)
    for _ in range(2):
        with es.open(path, new.Cart) as shop:
            assert shop[new.Cart, "1"].state.items == {"a": 50, "c": 50}
    again = program(every + up.replace("//= 2", "//= 4"))
    with es.open(path, again.Cart) as shop:
        assert shop[again.Cart, "1"].state.items == {"a": 25, "c": 25}
        shop[again.Cart, "1"].ask(again.Add("d"))
    with es.open(path, again.Cart) as shop:
        assert shop[again.Cart, "1"].state.items == {"a": 25, "c": 25, "d": 100}
        assert shop.verify_snapshots().ok


def test_a_store_below_upcasts_with_the_classes_that_it_is_given(path: Path) -> None:
    new = program(V2 + UP)
    with es.Store(path, new.ItemAdded, new.Tagged, new.Ended) as store:
        assert places(store.events()) == EVENTS
        assert [one.event for one in store.events()][1:3] == [
            new.ItemAdded("b", 1.5),
            new.Tagged("b", "x"),
        ]
    with es.Store(path) as store:  # and as they are stored, without
        assert places(store.events()) == [(n, 0, 1) for n in range(1, 6)]
        with pytest.raises(es.UnknownType):
            _ = next(iter(store.events())).event


def test_exports_have_what_is_stored(path: Path, tmp_path: Path) -> None:
    new = program(V2 + UP)
    with es.Store(path) as store:
        store.export(tmp_path / "plain.jsonl")
    with es.open(path, new.Cart) as shop:
        shop.store.export(tmp_path / "upcast.jsonl")
    assert (tmp_path / "plain.jsonl").read_bytes() == (tmp_path / "upcast.jsonl").read_bytes()
    with es.Store(":memory:", new.ItemAdded, new.Tagged, new.Ended) as store:
        store.import_(tmp_path / "upcast.jsonl")
        assert places(store.events()) == EVENTS
    with es.Store(path, new.ItemAdded) as store, store.clone() as copy:
        assert places(copy.events()) == EVENTS
        assert copy.verify().ok


def test_events_are_written_with_the_version_that_they_have(path: Path) -> None:
    new = program(V2 + UP)
    with es.open(path, new.Cart) as shop:
        shop[new.Cart, "1"].ask(new.Add("d"))
        shop.store.append("raw", [new.ItemAdded("e", 3.0)])
        assert [one.event for one in shop.events(after=5)] == [
            new.ItemAdded("d", 1.0),
            new.ItemAdded("e", 3.0),
        ]
    third = V2.replace("price: float\n", "euros: float\n", 1).replace("event.price", "event.euros")
    up = UP.replace("list[ItemAdded | Tagged]", "list").replace(
        'ItemAdded(event["name"], event["price"]["cents"] / 100)',
        '{"name": event["name"], "price": event["price"]["cents"] / 100}',
    )
    up += """
@es.upcast("shop.ItemAdded", version=2)
def in_euros(event: dict) -> dict:
    return {"name": event["name"], "euros": event["price"]}
"""
    newest = program(third + up)
    with es.open(path, newest.Cart) as shop:
        assert shop[newest.Cart, "1"].state.items == {"a": 1.5, "b": 1.5, "c": 1.5, "d": 1.0}
        assert list(shop.events())[-1].event == newest.ItemAdded("e", 3.0)
        versions = {change.version for change in shop.schema_changes if change.kind == "upcast"}
        assert versions == {1, 2}


# ---- what upcasters are given and return ---------------------------------------------------------


RICH = """
class Color(enum.Enum):
    RED = 1
    GREEN = 2

class Card(es.Message):
    number: str

class Cash(es.Message):
    notes: int

class Node(es.Message):
    name: str
    children: list["Node"] = []

class Rich(es.Event):
    a: int
    b: es.uint32
    c: float
    d: bool
    e: bytes
    at: datetime.datetime
    day: date
    clock: datetime.time
    span: datetime.timedelta
    price: decimal.Decimal
    key: uuid.UUID
    color: Color
    maybe: int | None
    paid: Card | Cash
    many: list[Card | Cash]
    tree: Node
    table: dict[str, Color]
    marks: frozenset[int]
    pair: tuple[str, ...]
    fixed: tuple[int, Color]
    colors: dict[Color, Card]
""".replace("day: date", "day: datetime.date")


def rich(new: Any) -> Any:
    return new.Rich(
        1, 2, 2.5, True, b"\x00", datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        datetime.date(2024, 2, 29), datetime.time(1, 2, 3), datetime.timedelta(seconds=1.5),
        decimal.Decimal("1.50"), uuid.UUID(int=7), new.Color.GREEN, None, new.Card("4"),
        [new.Cash(3), new.Card("5")], new.Node("r", [new.Node("s", [new.Node("t")])]),
        {"k": new.Color.RED}, frozenset([1, 2]), ("p", "q"), (5, new.Color.RED),
        {new.Color.GREEN: new.Card("6")},
    )  # fmt: skip


def test_every_type_as_a_dictionary_and_back(tmp_path: Path) -> None:
    old = program(RICH)
    with es.Store(tmp_path / "a.db", old.Rich) as store:
        store.append("s", [rich(old)])
    up = """
given = []
@es.upcast("Rich", version=1)
def same(event):
    given.append(event)
    return event
"""
    new = program(RICH + up)
    with es.Store(tmp_path / "a.db", new.Rich) as store:
        assert [one.event for one in store.events()] == [rich(new)]
    (given,) = new.given
    assert given["color"] == "GREEN" and given["maybe"] is None
    assert given["paid"] == {"card": {"number": "4"}}
    assert given["many"] == [{"cash": {"notes": 3}}, {"card": {"number": "5"}}]
    assert given["tree"]["children"][0]["children"] == [{"name": "t", "children": []}]
    assert given["table"] == {"k": "RED"} and given["pair"] == ["p", "q"]
    assert given["fixed"] == {"item_1": 5, "item_2": "RED"}
    assert given["colors"] == {"GREEN": {"number": "6"}}
    assert given["at"] == datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)
    assert given["price"] == decimal.Decimal("1.50") and type(given["key"]) is uuid.UUID


def test_an_old_class_and_what_is_recorded(path: Path) -> None:
    code = (
        V2
        + """
class Inner(es.Message):
    cents: int
class ItemAdded1(es.Event, name="shop.ItemAdded", version=1):
    name: str
    price: Inner
    tags: list[str]
@es.upcast(ItemAdded1)
def later(old: ItemAdded1, recorded: es.Recorded) -> ItemAdded:
    assert recorded.type == "shop.ItemAdded" and recorded.stream == "Cart/1"
    return ItemAdded(f"{old.name}@{recorded.version}", old.price.cents / 100)
"""
    )
    new = program(code)
    with es.open(path, new.Cart) as shop:
        assert list(shop[new.Cart, "1"].state.items) == ["a@1", "b@2", "dropped@3", "c@4"]


def test_an_old_class_in_the_middle_of_a_chain(path: Path) -> None:
    code = (
        V2
        + """
class ItemAdded2(es.Event, name="shop.ItemAdded", version=2):
    name: str
    euros: float
@es.upcast("shop.ItemAdded", version=1)
def first(event: dict) -> ItemAdded2:
    return ItemAdded2(event["name"], event["price"]["cents"] / 100)
@es.upcast("shop.ItemAdded", version=2)
def second(event: ItemAdded2) -> dict:
    return {"name": event.name.upper(), "price": event.euros}
"""
    )
    new = program(code)
    with es.open(path, new.Cart) as shop:
        assert list(shop[new.Cart, "1"].state.items) == ["A", "B", "DROPPED", "C"]


def test_an_old_class_that_would_misread_is_refused(path: Path) -> None:
    code = (
        V2
        + """
class ItemAdded1(es.Event, name="shop.ItemAdded", version=1):
    name: bytes
@es.upcast(ItemAdded1)
def later(old: ItemAdded1) -> list:
    return []
"""
    )
    with pytest.raises(es.SchemaMismatch, match="name: str"):
        es.open(path, program(code).Cart)


def test_a_type_without_a_class_and_one_that_becomes_another(path: Path) -> None:
    without = V2.replace("class Ended(es.Event):\n    reason: str\n", "").replace(
        "    @es.applies\n    def over(self, event: Ended) -> None:\n        self.ended += 1\n", ""
    )
    without = without.replace("@es.on(ItemAdded, Tagged, Ended)", "@es.on(ItemAdded, Tagged)")
    into = """
@es.upcast("Ended", version=1, into="Tagged")
def as_tag(event: dict) -> dict:
    return {"name": "end", "tag": event["reason"]}
"""
    new = program(without + UP + into)
    with es.open(path, new.Cart, new.Seen) as shop:
        assert shop[new.Cart, "2"].state.tags == {"end": "done"}
        shop.flush()
        assert shop[new.Seen].all()[-1] == (5, 0, 1, 1, "Tagged")
    gone = program(without + UP + into.replace('{"name": "end", "tag": event["reason"]}', "[]"))
    with es.open(path, gone.Cart) as shop:
        assert shop[gone.Cart, "2"].state.version == 1
        assert places(shop.events()) == EVENTS[:-1]


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        ("None", TypeError, "None"),
        ("5", TypeError, "5"),
        ("{'name': 'x'}", TypeError, "price"),
        ("{'name': 'x', 'price': 1.0, 'more': 1}", TypeError, "more"),
        ("{'name': 'x', 'price': 'y'}", TypeError, "price"),
        ("[{'name': 'x', 'price': 1.0}, None]", TypeError, "None"),
        ("1 / 0", ZeroDivisionError, "division"),
    ],
)
def test_what_an_upcaster_does_wrong_is_said(
    path: Path, result: str, error: type[Exception], words: str
) -> None:
    up = f"""
@es.upcast("shop.ItemAdded", version=1)
def wrong(event):
    return {result} if event["name"] == "b" else ItemAdded(event["name"], 1.0)
"""
    new = program(V2 + up)
    with es.open(path, new.Cart, new.Seen, new.Items) as shop:
        events = shop.events()
        assert next(events).position == 1
        for _ in range(2):  # it never ends short
            with pytest.raises(error, match=words) as caught:
                next(events)
        assert any("Cart/1, version 2" in note for note in caught.value.__notes__)
        with pytest.raises(es.Error, match=r"(?s)Cart/1, version 2.*upcasting") as stopped:
            shop[new.Cart, "1"].ask(new.Add("x"))
        assert words in str(stopped.value)
        assert shop[new.Cart, "2"].state.ended == 1  # others go on
        with pytest.raises(es.ReadModelStopped):
            shop.flush()
        for model in (new.Seen, new.Items):
            status = shop[model].status
            assert (status.position, status.failed_position) == (1, 2)
            assert words in str(status.error)


# ---- which upcasters count -----------------------------------------------------------------------


def test_given_by_themselves_or_with_their_module(path: Path) -> None:
    names = V2 + "\nclass Nothing(es.Event):\n    pass\n"
    new = program(names)
    with pytest.raises(es.SchemaMismatch):
        es.open(path, new.Cart)
    elsewhere = program(f"from {new.__name__} import ItemAdded, Tagged\n" + UP)
    for given in (elsewhere.with_price, elsewhere):
        with es.open(path, new.Cart, given) as shop:
            assert shop[new.Cart, "1"].state.items == {"a": 1.5, "b": 1.5, "c": 1.5}
        with es.Store(path, new.ItemAdded, given) as store:
            assert places(store.events()) == EVENTS
    with pytest.raises(es.SchemaMismatch):
        es.open(path, new.Cart)


def test_those_of_another_function_do_not_count(path: Path) -> None:
    code = """
def here():
    {}
    return Cart
def there():
    {}
    {}
    return Cart
"""

    def indented(text: str) -> str:
        return text.replace("\n", "\n    ")

    new = program(code.format(indented(V2), indented(V2), indented(UP)))
    assert new.there() is not None
    with pytest.raises(es.SchemaMismatch):
        es.open(path, new.here())
    cart = new.there()
    with es.open(path, cart) as shop:
        assert shop[cart, "1"].state.version == 4


def test_two_for_one_step(path: Path) -> None:
    new = program(V2 + UP + UP.replace("with_price", "another"))
    with pytest.raises(es.NameClash, match="with_price.*another"):
        es.open(path, new.Cart)
    with es.open(path, new.Cart, new.another) as shop:  # what is given counts
        assert places(shop.events()) == EVENTS


def test_a_notebook_cell_run_again(path: Path) -> None:
    """The newest definition of a function counts, also for a system that is open."""
    new = program(V2 + UP, "notebook")
    with es.open(path, new.Cart) as shop:
        assert shop[new.Cart, "1"].state.items["a"] == 1.5
        again = V2.replace("price: float = 1.0", "price: float = 2.0") + UP.replace("/ 100", "/ 10")
        exec(again, new.__dict__)
        shop[new.Cart, "1"].ask(new.Add("d"))
        assert shop[new.Cart, "1"].state.items == {"a": 15.0, "b": 15.0, "c": 15.0, "d": 2.0}
        assert [one.event.price for one in shop.events() if one.part == 0 and one.position < 4] == [
            15.0,
            15.0,
        ]


# ---- refused when opened -------------------------------------------------------------------------


def step(version: int, name: str = "shop.ItemAdded", more: str = "") -> str:
    return f"""
@es.upcast("{name}", version={version}{more})
def step_{name.replace(".", "_")}_{version}(event: dict) -> dict:
    return event
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "es.upcast"),
        (step(1) + step(3), "version=2"),
        (step(2), "version=1"),
        (step(1, more=', into="Tagged"') + step(1, "Tagged", ', into="shop.ItemAdded"'), "cycle"),
        (step(1, more=', into="shop.ItemAdded", into_version=1'), "cycle"),
        (step(1, more=', into="Tagged"') + step(2, "Tagged"), 'upcast("Tagged", version=1)'),
    ],
)
def test_gaps_and_cycles(path: Path, code: str, words: str) -> None:
    before = path.read_bytes()
    with pytest.raises(es.SchemaMismatch) as caught:
        es.open(path, program(V2 + code).Cart)
    assert words in str(caught.value)
    assert path.read_bytes() == before


def test_explicit_versions(path: Path) -> None:
    def versioned(number: int) -> str:
        return V2.replace('"shop.ItemAdded")', f'"shop.ItemAdded", version={number})')

    with pytest.raises(es.SchemaMismatch, match="version=1"):
        es.open(path, program(versioned(2)).Cart)
    with pytest.raises(es.SchemaMismatch, match="version=2"):
        es.open(path, program(versioned(3) + UP.replace(" -> list[ItemAdded | Tagged]", "")).Cart)
    with pytest.raises(es.SchemaMismatch, match="needs none"):
        es.open(path, program(versioned(1) + UP).Cart)
    new = program(versioned(2) + UP)
    with es.open(path, new.Cart) as shop:
        assert places(shop.events()) == EVENTS
        shop[new.Cart, "1"].ask(new.Add("d"))
    # a program of version 1 again: what the newer one wrote is not for it
    with pytest.raises(es.SchemaMismatch, match="newer program"):
        es.open(path, program(V1).Cart)
    with es.open(path, program(V1).Ended) as shop:  # nor does it need it
        assert shop.head == 6


@pytest.mark.parametrize(
    "line",
    [
        "@es.upcast\ndef f(e): pass",
        "@es.upcast('x')\ndef f(e): pass",
        "@es.upcast('x', version=0)\ndef f(e): pass",
        "@es.upcast('x', version=True)\ndef f(e): pass",
        "@es.upcast('', version=1)\ndef f(e): pass",
        "@es.upcast(5, version=1)\ndef f(e): pass",
        "@es.upcast(int, version=1)\ndef f(e): pass",
        "@es.upcast(es.Event, version=1)\ndef f(e): pass",
        "@es.upcast('x', version=1)\nasync def f(e): pass",
        "es.upcast('x', version=1)(5)",
    ],
)
def test_wrong_decorations(line: str) -> None:
    with pytest.raises(TypeError):
        program(line)


@pytest.mark.parametrize("signature", ["", "a, b, c", "*, event"], ids=["none", "three", "keyword"])
def test_wrong_functions(path: Path, signature: str) -> None:
    new = program(V2 + f"@es.upcast('shop.ItemAdded', version=1)\ndef f({signature}): return []\n")
    with pytest.raises(TypeError, match="upcaster"):
        es.open(path, new.Cart)


def test_an_open_without_upcasters_keeps_no_chain(path: Path) -> None:
    first = program(V1)
    with es.open(path, first.Cart) as shop:
        assert shop.schema_changes == []
        assert places(shop.events()) == [(n, 0, 1) for n in range(1, 6)]


def test_a_generator_is_a_list(path: Path) -> None:
    code = """
@es.upcast("shop.ItemAdded", version=1)
def parts(event):
    yield ItemAdded(event["name"], 1.0)
    for tag in event["tags"]:
        yield Tagged(event["name"], tag)
"""
    new = program(V2 + code)
    with es.open(path, new.Cart) as shop:
        assert [one.parts for one in shop.events()] == [1, 2, 2, 1, 3, 3, 3, 1]


def test_while_another_thread_reads(path: Path) -> None:
    new = program(V2 + UP)
    with es.open(path, new.Cart) as shop:
        several: list[Iterator[Any]] = [iter(shop.events()) for _ in range(3)]
        together = list(zip(*several, strict=True))
        assert all(a == b == c for a, b, c in together)


def test_subscriptions(path: Path) -> None:
    new = program(V2 + UP)
    with es.open(path, new.Cart) as shop:
        found = []
        with shop.subscribe("mailer", types=[new.Tagged]) as mailer:
            for recorded in mailer:
                found.append((recorded.position, recorded.part, recorded.event))
                if len(found) == 3:
                    break
        assert found == [
            (2, 1, new.Tagged("b", "x")),
            (4, 1, new.Tagged("c", "x")),
            (4, 2, new.Tagged("c", "y")),
        ]


def test_an_old_class_as_a_dictionary(tmp_path: Path) -> None:
    """What a class says beyond its record, enums as keys and tuples, goes the same way."""
    old = program(RICH)
    with es.Store(tmp_path / "a.db", old.Rich) as store:
        store.append("s", [rich(old)])
    up = RICH.replace("class Rich(es.Event)", 'class Rich1(es.Event, name="Rich", version=1)')
    up += """
@es.upcast(Rich1)
def first(event: Rich1) -> Rich1:
    return Rich2(**{name: getattr(event, name) for name in type(event).__escqrs_fields__})
"""
    up += RICH.replace("class Rich(es.Event)", 'class Rich2(es.Event, name="Rich", version=2)')
    up += """
given = []
@es.upcast("Rich", version=2)
def second(event: dict) -> dict:
    given.append(event)
    return event
"""
    new = program(up.replace("-> Rich1", "-> list") + RICH[RICH.index("class Rich") :])
    with es.Store(tmp_path / "a.db", new.Rich, new) as store:
        (event,) = [one.event for one in store.events()]
        assert event.colors == {new.Color.GREEN: new.Card("6")} and event.fixed[0] == 5
        assert event.fixed[1] is new.Color.RED


def test_a_class_that_protobuf_generated_is_not_made(tmp_path: Path) -> None:
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="up.proto", package="shop", syntax="proto3")
    file.message_type.add(name="Added").field.add(name="name", number=1, type=9, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    added = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Added"))
    old = program('class Old(es.Event, name="shop.Added"):\n    cents: int\n')
    with es.Store(tmp_path / "a.db", old.Old) as store:
        store.append("s", [old.Old(5)])
    up = program('@es.upcast("shop.Added", version=1)\ndef up(e): return {"name": "x"}\n')
    with es.Store(tmp_path / "a.db", added, up) as store:
        with pytest.raises(TypeError, match="protobuf generated"):
            next(iter(store.events()))
