"""es.Store: what is committed, what is refused, what is read."""

from __future__ import annotations

import contextlib
import copy
import errno
import gc
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
import warnings
from datetime import UTC
from pathlib import Path

import escqrs as es
import pytest
from support import SECONDS, run


class ItemAdded(es.Event):
    name: str
    quantity: int = 1


class Moved(es.Event):
    to: str


class Cart(es.Aggregate):
    items: dict[str, int]

    @es.handles
    def add(self, cmd: Add) -> str:
        self.emit(ItemAdded(cmd.name))
        return cmd.name

    @es.applies
    def added(self, event: ItemAdded) -> None:
        self.items[event.name] = event.quantity


class Add(es.Command[str]):
    name: str


def raw(type: str = "Thing", data: bytes = b"x", **options: object) -> es.NewEvent:
    return es.NewEvent(type, data, **options)  # type: ignore[arg-type]


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    with es.Store(tmp_path / "s.db" if request.param == "file" else ":memory:") as opened:
        yield opened


# ---- writing -------------------------------------------------------------------------------------


def test_append_answers_position_and_versions(store):
    done = store.append("Cart/cart-1", [ItemAdded("book", 2)], expected=0)
    assert (done.position, done.versions, done.repeated) == (1, {"Cart/cart-1": 1}, False)
    done = store.append("Cart/cart-1", [raw(), raw()], expected=1)
    assert (done.position, done.versions) == (3, {"Cart/cart-1": 3})
    assert store.head == 3
    assert store.version("Cart/cart-1") == 3
    assert store.version("nobody") == 0


def test_commit_of_several_streams(store):
    done = store.commit(
        [es.Write("a", [raw(), raw()], 0), es.Write("b", [raw()]), es.Write("c", [])]
    )
    assert done == es.Commit(3, {"a": 2, "b": 1, "c": 0})
    assert [(e.stream, e.version) for e in store.events()] == [("a", 1), ("a", 2), ("b", 1)]
    assert store.version("c") == 0


def test_same_stream_twice_in_a_commit(store):
    done = store.commit(
        [es.Write("a", [raw()], 0), es.Write("b", [raw()]), es.Write("a", [raw()], 1)]
    )
    assert done.versions == {"a": 2, "b": 1}


def test_nothing_is_a_commit_too(store):
    assert store.commit([]) == es.Commit(0, {})
    store.append("a", [raw()])
    assert store.commit([]) == es.Commit(1, {})
    assert store.append("a", []) == es.Commit(1, {"a": 1})


def test_wrong_version(store):
    store.append("a", [raw()])
    with pytest.raises(es.WrongVersion) as caught:
        store.commit([es.Write("b", [raw()]), es.Write("a", [raw()], expected=3)])
    assert (caught.value.stream, caught.value.expected, caught.value.actual) == ("a", 3, 1)
    assert isinstance(caught.value, es.Conflict)
    assert store.head == 1
    with pytest.raises(es.WrongVersion):
        store.append("new", [raw()], expected=1)
    with pytest.raises(es.WrongVersion):
        store.append("a", [], expected=0)


def test_errors_have_whole_names(store):
    name = "ä" * 1000
    store.append(name, [raw()], checkpoint=(name, 3), key=name)
    with pytest.raises(es.WrongVersion) as wrong:
        store.commit([es.Write("a", [raw()], 0), es.Write(name, [raw()], 4)])
    assert wrong.value.stream == name
    with pytest.raises(es.CheckpointBehind) as behind:
        store.set_checkpoint(name, 3)
    assert behind.value.name == name
    with pytest.raises(es.KeyReused) as reused:
        store.append(name, [raw("Other")], key=name)
    assert reused.value.key == name


def test_condition(store):
    room = es.Match(types=["Booked"], tags=["room-7"])
    store.append("a", [raw("Booked", tags=["room-7"]), raw("Booked", tags=["room-8"]), raw("Left")])
    with pytest.raises(es.ConditionFailed) as caught:
        store.append("a", [raw("Booked", tags=["room-7"])], condition=es.Unless(room))
    assert caught.value.position == 1
    assert store.append("a", [raw()], condition=es.Unless(room, after=1)).position == 4
    with pytest.raises(es.ConditionFailed) as caught:
        store.commit([], condition=es.Unless([es.Match(types=["Left"]), es.Match(tags=["room-8"])]))
    assert caught.value.position == 2
    with pytest.raises(es.ConditionFailed) as caught:
        store.commit([], condition=es.Unless((), after=2))
    assert caught.value.position == 3
    store.commit([], condition=es.Unless((), after=4))
    store.commit([], condition=es.Unless(es.Match(types=["Never"], tags=["room-7"])))
    with pytest.raises(es.ConditionFailed):
        store.commit([], condition=es.Unless(es.Match(types=[ItemAdded, "Left"])))


def test_condition_after_reopening(tmp_path):
    with es.Store(tmp_path / "s.db") as store:
        store.append("a", [raw("A"), raw("B", tags=["x", "y"])])
    with es.Store(tmp_path / "s.db") as store:
        for _ in range(2):
            with pytest.raises(es.ConditionFailed) as caught:
                store.commit([], condition=es.Unless(es.Match(types=["B"])))
            assert caught.value.position == 2
            store.commit([], condition=es.Unless(es.Match(types=["B"]), after=2))
            store.commit([], condition=es.Unless(es.Match(types=["C"])))
            store.commit([], condition=es.Unless(es.Match(types=["A"], tags=["x"])))
            with pytest.raises(es.ConditionFailed):
                store.commit([], condition=es.Unless(es.Match(tags=["y", "x"])))


def test_checkpoint(store):
    assert store.checkpoint("billing") is None
    assert store.set_checkpoint("billing", 0) == es.Commit(0, {})
    assert store.checkpoint("billing") == 0
    store.append("a", [raw()], checkpoint=("billing", 21))
    assert store.checkpoint("billing") == 21
    for given in (21, 3):
        with pytest.raises(es.CheckpointBehind) as caught:
            store.append("a", [raw()], checkpoint=("billing", given))
        error = caught.value
        assert (error.name, error.current, error.given) == ("billing", 21, given)
        assert isinstance(error, es.Conflict)
    assert store.head == 1
    store.set_checkpoint("other", 1)
    assert (store.checkpoint("billing"), store.checkpoint("other")) == (21, 1)


def test_key(tmp_path):
    with es.Store(tmp_path / "s.db") as store:
        first = store.commit([es.Write("b", [raw()]), es.Write("a", [raw(), raw()], 0)], key="k")
        store.append("a", [raw()])
    with es.Store(tmp_path / "s.db") as store:
        again = store.commit([es.Write("b", [raw()]), es.Write("a", [raw(), raw()], 0)], key="k")
        assert again == es.Commit(first.position, first.versions, repeated=True)
        assert store.head == 4
        others = [raw(data=b"y")], [raw("Other")], [raw(tags=["t"])], [raw(id="me")], []
        for other in others:
            with pytest.raises(es.KeyReused) as caught:
                store.commit([es.Write("b", other), es.Write("a", [raw(), raw()])], key="k")
            assert caught.value.key == "k"
        with pytest.raises(es.KeyReused):
            store.commit([es.Write("c", [raw()]), es.Write("a", [raw(), raw()])], key="k")


def test_key_comes_before_all_else(store):
    store.append("a", [raw("A")], expected=0, checkpoint=("c", 5), key="k")
    done = store.append(
        "a",
        [raw("A", metadata={"try": "2"})],
        expected=0,
        checkpoint=("c", 5),
        condition=es.Unless(()),
        key="k",
    )
    assert done.repeated
    assert store.commit([], key="nothing") == es.Commit(1, {})
    assert store.commit([], key="nothing").repeated


def test_ids_are_unique(store):
    one = str(uuid.uuid4())
    store.append("a", [raw(id=one), raw(id="order-1"), raw()])
    first, second, third = store.events()
    assert (first.id, second.id) == (one, "order-1")
    for taken in (one, "order-1", third.id):
        with pytest.raises(es.KeyReused):
            store.append("b", [raw(), raw(id=taken)])
    with pytest.raises(es.KeyReused):
        store.append("b", [raw(id="twice"), raw(id="twice")])
    assert store.head == 3
    upper = str(uuid.uuid4()).upper()
    store.append("b", [raw(id=upper)])
    assert next(store.history("b")).id == upper


def test_limits(tmp_path):
    with es.Store(":memory:", max_message_bytes=1000) as store:
        with pytest.raises(es.TooLarge):
            store.append("a", [raw(data=b"x" * 1001)])
        with pytest.raises(es.TooLarge):
            store.append("a", [raw()] * 100_001)
        assert store.append("a", [raw()] * 100_000).position == 100_000
        with pytest.raises(ValueError, match="2048"):
            store.append("s" * 2049, [raw()])
        with pytest.raises(es.TooLarge):
            store.append("a", [raw("t" * 256)])
        assert store.head == 100_000


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s: s.append("", [raw()]), ValueError),
        (lambda s: s.append("a\0b", [raw()]), ValueError),
        (lambda s: s.append("\ud800", [raw()]), ValueError),
        (lambda s: s.append(1, [raw()]), TypeError),
        (lambda s: s.append("a", [b"x"]), TypeError),
        (lambda s: s.append("a", "xy"), TypeError),
        (lambda s: s.append("a", raw()), TypeError),
        (lambda s: s.append("a", [Add("x")]), TypeError),
        (lambda s: s.append("a", [raw()], expected=-1), ValueError),
        (lambda s: s.append("a", [raw()], expected=True), TypeError),
        (lambda s: s.append("a", [raw()], key=""), ValueError),
        (lambda s: s.append("a", [raw()], key=3), TypeError),
        (lambda s: s.append("a", [raw()], checkpoint="billing"), TypeError),
        (lambda s: s.append("a", [raw()], checkpoint=("", 1)), ValueError),
        (lambda s: s.append("a", [raw()], checkpoint=("x", -1)), ValueError),
        (lambda s: s.append("a", [raw()], checkpoint=("x", 2**70)), ValueError),
        (lambda s: s.append("a", [raw()], condition=es.Match()), TypeError),
        (lambda s: s.commit([("a", [raw()])]), TypeError),
        (lambda s: s.history(""), ValueError),
        (lambda s: s.history("a", after=-1), ValueError),
        (lambda s: s.events(limit="x"), TypeError),
        (lambda s: s.events(match="x"), TypeError),
        (lambda s: s.subscribe(after=-1), ValueError),
        (lambda s: s.subscribe(match=[1]), TypeError),
        (lambda s: s.save_snapshot("a", 1, "S", b""), ValueError),
        (lambda s: es.Unless(es.Match(), after=-1), ValueError),
        (lambda s: es.Unless([1]), TypeError),
    ],
)
def test_what_cannot_be(store, call, error):
    with pytest.raises(error):
        call(store)
    assert store.head == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda s: s.append("a", ItemAdded("x")),
            "a list of es.NewEvent and events, not ItemAdded",
        ),
        (lambda s: s.subscribe(types=ItemAdded), "types is a list of event classes and names"),
        (lambda s: s.events(match=ItemAdded), "match is an es.Match or a list of them"),
    ],
)
def test_what_lacks_its_brackets(store, call, says):
    with pytest.raises(TypeError, match=says):
        call(store)


# ---- values --------------------------------------------------------------------------------------


def test_new_event():
    event = raw("A", b"d", id="i", tags=["t"], metadata={"k": "v"}, correlation_id="c")
    assert (event.type, event.data, event.id, event.tags) == ("A", b"d", "i", ("t",))
    assert (dict(event.metadata), event.correlation_id, event.causation_id) == (
        {"k": "v"},
        "c",
        None,
    )
    assert event == raw(
        "A", bytearray(b"d"), id="i", tags=("t",), metadata={"k": "v"}, correlation_id="c"
    )
    assert event != raw("A", b"d")
    assert len({event, copy.copy(event), pickle.loads(pickle.dumps(event))}) == 1
    assert pickle.loads(pickle.dumps(event)) == event
    assert repr(raw("A", b"d", tags=["t"])) == "NewEvent('A', b'd', tags=('t',))"
    match event:
        case es.NewEvent(name, data):
            assert (name, data) == ("A", b"d")
    with pytest.raises(AttributeError):
        event.data = b""


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"type": ""}, ValueError),
        ({"type": "a\0"}, ValueError),
        ({"type": 3}, TypeError),
        ({"data": "text"}, TypeError),
        ({"data": 3}, TypeError),
        ({"tags": "vip"}, TypeError),
        ({"tags": [3]}, TypeError),
        ({"tags": ["\ud800"]}, ValueError),
        ({"metadata": {"a": 1}}, TypeError),
        ({"metadata": [("a", "b")]}, TypeError),
        ({"id": ""}, ValueError),
        ({"id": 7}, TypeError),
        ({"correlation_id": 7}, TypeError),
    ],
)
def test_new_events_that_cannot_be(options, error):
    with pytest.raises(error):
        es.NewEvent(**{"type": "A", "data": b"", **options})


def test_what_is_given_comes_back(store):
    chain = str(uuid.uuid4())
    store.append(
        "a",
        [
            raw(
                tags=["vip", "eu"], metadata={"by": "ann"}, correlation_id=chain, causation_id="cmd"
            ),
            raw(causation_id="cmd"),
            raw(),
        ],
    )
    first, second, third = store.history("a")
    assert (first.tags, first.data, dict(first.metadata)) == (("vip", "eu"), b"x", {"by": "ann"})
    assert (first.correlation_id, first.causation_id) == (chain, "cmd")
    assert (second.correlation_id, second.causation_id) == ("cmd", "cmd")
    assert third.correlation_id == third.causation_id
    assert (third.tags, dict(third.metadata)) == ((), {})
    assert uuid.UUID(third.id)
    assert third.time.tzinfo is UTC
    assert (third.position, third.version, third.stream, third.type) == (3, 3, "a", "Thing")


def test_types_of_events(tmp_path):
    with es.Store(tmp_path / "s.db") as store:
        store.append("a", [ItemAdded("book"), raw("Unknown")])
        first, second = store.events()
        assert first.event == ItemAdded("book")
        with pytest.raises(es.UnknownType) as caught:
            second.event
        error = caught.value
        assert (error.type, error.stream, error.version, error.position) == ("Unknown", "a", 2, 2)
    with es.Store(tmp_path / "s.db") as store:
        with pytest.raises(es.UnknownType):
            next(store.events()).event
    with es.Store(tmp_path / "s.db", ItemAdded) as store:
        assert next(store.events()).event == ItemAdded("book")
    with pytest.raises(TypeError):
        es.Store(tmp_path / "s.db", Cart)  # type: ignore[arg-type]


def test_a_class_that_would_misread_is_refused(tmp_path):
    with es.Store(tmp_path / "s.db") as store:
        store.append("a", [Moved("x")])

    def other():
        class Moved(es.Event):
            to: int

        return Moved

    with pytest.raises(es.SchemaMismatch):
        es.Store(tmp_path / "s.db", other())
    with es.Store(tmp_path / "s.db") as store:
        with pytest.raises(es.SchemaMismatch):
            store.append("a", [other()(3)])
    with es.Store(tmp_path / "s.db", Moved) as store:
        with pytest.raises(es.NameClash):
            store.append("a", [other()(3)])
        assert store.head == 1


# ---- reading -------------------------------------------------------------------------------------


def positions(events):
    return [event.position for event in events]


def test_ranges(store):
    for i in range(1, 11):
        store.append(
            "a" if i % 2 else "b",
            [raw("Odd" if i % 2 else "Even", tags=["t"] if i % 3 == 0 else [])],
        )
    assert positions(store.events()) == list(range(1, 11))
    assert positions(store.events(after=3, upto=6)) == [4, 5, 6]
    assert positions(store.events(after=3, upto=6, reverse=True)) == [6, 5, 4]
    assert positions(store.events(reverse=True, limit=2)) == [10, 9]
    assert positions(store.events(limit=0)) == positions(store.events(upto=0)) == []
    assert positions(store.events(match=es.Match(types=["Even"]))) == [2, 4, 6, 8, 10]
    assert positions(store.events(match=es.Match(tags=["t"]))) == [3, 6, 9]
    assert positions(store.events(match=es.Match(["Odd"], ["t"]), reverse=True)) == [9, 3]
    both = [es.Match(types=["Even"], tags=["t"]), es.Match(types=["Odd"])]
    assert positions(store.events(match=both, after=4, limit=3)) == [5, 6, 7]
    assert [e.version for e in store.history("a")] == [1, 2, 3, 4, 5]
    assert [e.version for e in store.history("a", after=1, upto=3, reverse=True)] == [3, 2]
    assert positions(store.history("b", limit=2)) == [2, 4]
    assert list(store.history("nobody")) == []
    assert list(store.history(stream="nobody")) == []


def test_events_end_at_the_head_as_it_was(store):
    store.append("a", [raw()])
    events = store.events()
    store.append("a", [raw()])
    assert positions(events) == [1]


def test_an_event_that_does_not_verify(tmp_path):
    path = tmp_path / "s.db"
    with es.Store(path) as store:
        store.append("a", [raw(tags=["t"]), raw(tags=["t"]), raw()])
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE escqrs_journal SET data = 'y' WHERE position = 2")
        db.commit()
    with es.Store(path) as store:
        for read in (
            lambda: store.events(),
            lambda: store.history("a"),
            lambda: store.events(match=es.Match(tags=["t"])),
            lambda: store.subscribe(),
        ):
            events = iter(read())
            assert next(events).position == 1
            for _ in range(2):
                with pytest.raises(es.Corrupt) as caught:
                    next(events)
                error = caught.value
                assert (error.stream, error.version, error.position) == ("a", 2, 2)
        assert next(store.events(after=2)).position == 3


def test_snapshots(store):
    assert store.snapshot("a") is None
    store.append("a", [raw()] * 5)
    store.save_snapshot("a", 2, "State", b"two")
    store.save_snapshot("a", 4, "State", b"four")
    store.save_snapshot("a", 4, "State", b"4")
    assert store.snapshot("a") == es.Snapshot("a", 4, "State", b"4")
    assert store.snapshot("a", upto=3) == es.Snapshot("a", 2, "State", b"two")
    assert store.snapshot("a", upto=1) is None
    assert store.snapshot("a", upto=0) is None
    store.delete_snapshots("a", upto=2)
    assert store.snapshot("a", upto=3) is None
    assert store.snapshot("a") is not None
    store.delete_snapshots("a")
    assert store.snapshot("a") is None
    with pytest.raises(ValueError, match="version 6"):
        store.save_snapshot("a", 6, "State", b"")


# ---- life ----------------------------------------------------------------------------------------


def test_closed(store):
    store.append("a", [raw()] * 3)
    events = store.events()
    next(events)
    feed = store.subscribe()
    store.close()
    store.close()
    for call in (
        lambda: store.append("a", [raw()]),
        lambda: store.head,
        lambda: store.version("a"),
        lambda: store.checkpoint("c"),
        lambda: next(events),
        lambda: next(feed),
        lambda: feed.next(timeout=0),
        lambda: store.events(),
        lambda: store.history("a"),
        lambda: store.snapshot("a"),
        lambda: store.subscribe(),
    ):
        with pytest.raises(es.Closed):
            call()
    assert store.closed
    assert "closed" in repr(store)


def test_dropped_without_close(tmp_path):
    store = es.Store(tmp_path / "s.db")
    with pytest.warns(ResourceWarning, match="unclosed"):
        del store
        gc.collect()
    es.Store(tmp_path / "s.db").close()


def test_an_iteration_keeps_its_store(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        es.Store(tmp_path / "s.db").append("a", [raw()] * 2)
        assert len(list(es.Store(tmp_path / "s.db").events())) == 2


def test_locked_and_read_only(tmp_path):
    path = tmp_path / "s.db"
    with es.Store(path) as store:
        store.append("a", [raw(tags=["t"])])
        with pytest.raises(es.Locked):
            es.Store(path)
        with es.Store(path, readonly=True) as reader:
            assert reader.readonly
            store.append("a", [raw()])
            assert (reader.head, reader.version("a"), len(list(reader.events()))) == (2, 2, 2)
            assert positions(reader.events(match=es.Match(tags=["t"]))) == [1]
            for call in (
                lambda: reader.append("a", [raw()]),
                lambda: reader.set_checkpoint("c", 1),
                lambda: reader.save_snapshot("a", 1, "S", b""),
                lambda: reader.delete_snapshots("a"),
            ):
                with pytest.raises(es.ReadOnly):
                    call()


def test_a_read_only_store_learns_of_new_types(tmp_path):
    path = tmp_path / "s.db"
    with es.Store(path) as store, es.Store(path, readonly=True) as reader:
        store.append("a", [raw()])
        store.save_snapshot("a", 1, "NewState", b"one")
        assert reader.snapshot("a").data == b"one"


def test_many_threads_commit(tmp_path):
    with es.Store(tmp_path / "s.db") as store:
        won = []

        def work(me: int) -> None:
            for i in range(20):
                store.append(f"own-{me}", [raw()], expected=i)
                try:
                    store.append("shared", [raw()], condition=es.Unless((), after=store.head))
                    won.append(me)
                except es.ConditionFailed:
                    pass

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [store.version(f"own-{i}") for i in range(4)] == [20] * 4
        assert store.version("shared") == len(won)
        assert positions(store.events()) == list(range(1, store.head + 1))


def test_a_child_of_fork_is_refused():
    out, _ = run(
        """
        store = es.Store(":memory:")
        store.append("a", [es.NewEvent("A", b"")])
        feed = store.subscribe()
        child = os.fork()
        if child == 0:
            for call in (lambda: store.append("a", []), lambda: store.head, lambda: next(feed)):
                try:
                    call()
                except es.Forked:
                    print("forked", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(store.append("a", [es.NewEvent("A", b"")]).position)
        store.close()
        """
    )
    assert out.split() == ["forked"] * 3 + ["2"]


# ---- with es.open --------------------------------------------------------------------------------


def test_a_system_on_a_store(tmp_path):
    with es.Store(tmp_path / "s.db") as store:
        store.append("Cart/1", [ItemAdded("book", 2)])
        with es.open(store, Cart) as shop:
            assert shop.store is store
            assert shop[Cart, "1"].state.items == {"book": 2}
            assert shop[Cart, "1"].ask(Add("pen")) == "pen"
            with pytest.raises(es.Locked):
                es.open(store, Cart)
            assert [e.event.name for e in store.history("Cart/1")] == ["book", "pen"]
        assert not store.closed
        store.append("Cart/1", [raw("ItemAdded", es.to_bytes(ItemAdded("ink", 3)))])
        with es.open(store, Cart) as shop:
            assert shop[Cart, "1"].state.items == {"book": 2, "pen": 1, "ink": 3}
            assert positions(shop.events(after=1, match=es.Match(types=[ItemAdded]), limit=1)) == [
                2
            ]
            assert positions(shop[Cart, "1"].history(reverse=True, limit=2)) == [3, 2]
    with pytest.raises(es.Closed):
        es.open(store, Cart)


def test_a_system_has_a_store(tmp_path):
    with es.open(tmp_path / "s.db", Cart) as shop:
        shop.store.append("other", [raw()], checkpoint=("c", 1))
        assert shop.head == 1
        store = shop.store
    assert store.closed
    with pytest.raises(TypeError):
        es.open(store, Cart, durability="normal")


def test_an_entity_meets_another_writer(tmp_path):
    with es.open(":memory:", Cart) as shop:
        shop[Cart, "1"].ask(Add("book"))
        shop.store.append("Cart/1", [ItemAdded("pen")])
        with pytest.raises(es.WrongVersion):
            shop[Cart, "1"].ask(Add("ink"))
        assert shop[Cart, "1"].ask(Add("ink")) == "ink"
        assert shop[Cart, "1"].state.items == {"book": 1, "pen": 1, "ink": 1}


def test_a_closed_store_below_a_system(tmp_path):
    with es.Store(tmp_path / "s.db") as store, es.open(store, Cart) as shop:
        shop[Cart, "1"].ask(Add("book"))
        store.close()
        with pytest.raises(es.Closed):
            shop[Cart, "1"].ask(Add("pen"))


def test_time_limit_of_waiting(store):
    began = time.monotonic()
    with store.subscribe() as feed, pytest.raises(TimeoutError):
        feed.next(timeout=0.01)
    assert time.monotonic() - began < SECONDS


# ---- the whole -----------------------------------------------------------------------------------


def test_streams(store):
    assert list(store.streams()) == []
    store.append("b", [raw()])
    store.append("a", [raw()] * 3)
    store.append("b", [raw()])
    store.commit([es.Write("empty", [])])
    assert list(store.streams()) == [("b", 2), ("a", 3)]
    store.commit([es.Write(f"many-{i}", [raw()]) for i in range(2500)])
    assert [name for name, _ in store.streams()][2:] == [f"many-{i}" for i in range(2500)]
    assert dict(store.streams())["many-7"] == 1


def test_backup(store, tmp_path):
    store.append("a", [raw(tags=["t"]), ItemAdded("book")], key="k", checkpoint=("c", 7))
    store.save_snapshot("a", 2, "State", b"s")
    store.backup(tmp_path / "copy.db")
    store.append("a", [raw()])
    with es.Store(tmp_path / "copy.db", ItemAdded) as copy:
        assert [e.id for e in copy.events()] == [e.id for e in store.events(upto=2)]
        assert (copy.head, copy.checkpoint("c"), copy.version("a")) == (2, 7, 2)
        assert positions(copy.events(match=es.Match(tags=["t"]))) == [1]
        assert copy.snapshot("a").data == b"s"
        assert copy.append("a", [raw(tags=["t"]), ItemAdded("book")], key="k").repeated
        assert copy.append("a", [raw()]).position == 3
    with pytest.raises(es.StorageError) as caught:
        store.backup(tmp_path / "copy.db")
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(es.StorageError):
        store.backup(tmp_path / "nowhere" / "copy.db")


def test_backup_while_others_write(tmp_path):
    with es.Store(tmp_path / "s.db", durability="normal") as store:
        store.append("a", [raw()] * 5000)
        ends = threading.Event()

        def write():
            while not ends.is_set():
                store.commit([es.Write("a", [raw()]), es.Write("b", [raw()])])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for i in range(3):
                store.backup(tmp_path / f"copy-{i}.db")
        finally:
            ends.set()
            writer.join()
    for i in range(3):
        with es.Store(tmp_path / f"copy-{i}.db") as copy:
            assert positions(copy.events()) == list(range(1, copy.head + 1))
            assert copy.version("a") - 5000 == copy.version("b")


def test_a_lone_surrogate_is_a_value_error_that_names_the_argument():
    with es.Store(":memory:") as store:
        event = es.NewEvent("A", b"")
        for call, what in (
            (lambda: store.append("\ud800", [event]), "stream"),
            (lambda: store.append("a", [event], key="\ud800"), "key"),
            (lambda: store.version("\ud800"), "stream"),
            (lambda: list(store.history("\ud800")), "stream"),
            (lambda: store.checkpoint("\ud800"), "the name of a checkpoint"),
        ):
            with pytest.raises(ValueError, match=f"^{what} holds a lone surrogate") as failure:
                call()
            assert type(failure.value) is ValueError
        assert store.head == 0


def test_the_proto_of_a_store(tmp_path: Path) -> None:
    class Money(es.Message, name="printed.Money"):
        amount: int

    class Paid(es.Event, name="printed.Paid"):
        price: Money

    class Refunded(es.Event, name="printed.Refunded"):
        prices: list[Money]

    path = tmp_path / "s.db"
    with es.Store(path) as store:
        assert store.proto() == ""
        store.append("a", [Paid(Money(1)), Refunded([Money(2)])])
        assert store.proto() == es.proto(Paid, Refunded)
    command = [sys.executable, "-m", "escqrs", "proto", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == es.proto(Paid, Refunded)


def test_a_module_that_fails_in_code_without_a_file_name(tmp_path):
    tmp_path.joinpath("generated.py").write_text('exec(compile("1 / 0", "", "exec"))\n')
    command = [sys.executable, "-m", "escqrs", "proto", "generated"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "generated: ZeroDivisionError: division by zero (" in done.stderr
    assert "generated.py, line 1)" in done.stderr
