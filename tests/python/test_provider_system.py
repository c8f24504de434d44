"""es.open on a provider that is written in Python: entities, snapshots, keys, read models."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS

EXAMPLE = Path(__file__).parents[2] / "examples" / "provider.py"


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("provider_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ListStore: Any = load_example().ListStore


class Add(es.Command[int]):
    name: str
    quantity: int = 1


class Refuse(es.Command[None]):
    pass


class Added(es.Event):
    name: str
    quantity: int


class Cart(es.Aggregate, snapshot_every=4):
    items: dict[str, int]

    @es.handles
    def add(self, cmd: Add) -> int:
        if cmd.quantity == 0:
            raise es.Rejected("nothing")
        self.emit(Added(cmd.name, cmd.quantity))
        return len(self.items)

    @es.handles
    def refuse(self, cmd: Refuse) -> None:
        self.emit(Added("never", 1))
        raise es.Rejected("no")

    @es.applies
    def added(self, event: Added) -> None:
        self.items[event.name] = self.items.get(event.name, 0) + event.quantity


class Items(es.ReadModel):
    schema = "CREATE TABLE items (cart TEXT, name TEXT, quantity INTEGER)"
    on_added = es.sql(Added, "INSERT INTO items VALUES (:_stream, :name, :quantity)")

    @es.query
    def total(self, db: es.Rows) -> int:
        return db.execute("SELECT coalesce(sum(quantity), 0) FROM items").fetchone()[0]


@pytest.fixture
def provider() -> Any:
    with ListStore() as made:
        yield made


def test_entities(provider: Any) -> None:
    with es.open(provider, Cart) as shop:
        cart = shop[Cart, "a"]
        assert cart.ask(Add("pen", 2), metadata={"by": "ann"}, correlation_id="trace") == 1
        with pytest.raises(es.Rejected):
            cart.ask(Refuse())
        assert [reply.result() for reply in [cart.submit(Add("ink")) for _ in range(5)]] == [2] * 5
        assert cart.state.items == {"pen": 2, "ink": 5}
        assert cart.state_at(1).items == {"pen": 2}
        assert (cart.version, provider.version("Cart/a"), shop.head) == (6, 6, 6)
        first, *rest = cart.history()
        assert (first.event, first.metadata, first.correlation_id) == (
            Added("pen", 2),
            {"by": "ann"},
            "trace",
        )
        assert first.causation_id != rest[0].causation_id
        assert [one.position for one in shop.events(reverse=True, limit=2)] == [6, 5]
        assert [one.id for one in shop.events()] == [one.id for one in provider.events()]
        match = es.Match(types=["Added"])
        assert len(list(shop.events(match=match))) == 6
        assert not list(shop.events(match=es.Match(types=["Other"])))
    with es.open(provider, Cart) as shop:
        assert shop[Cart, "a"].state.items == {"pen": 2, "ink": 5}
        assert shop.store.verify().ok
        assert dict(shop.store.streams()) == {"Cart/a": 6}
        assert shop.store.stats().events == 6


def test_many_events_and_threads(provider: Any) -> None:
    with es.open(provider, Cart, Items) as shop:

        def client(number: int) -> None:
            for _ in range(40):
                shop[Cart, str(number % 3)].ask(Add("pen"))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        replies = [shop[Cart, "0"].submit(Add("ink")) for _ in range(300)]
        assert all(reply.result() == 2 for reply in replies)
        shop.flush()
        assert shop[Items].total() == 540
        assert shop[Cart, "0"].state.items == {"pen": 80, "ink": 300}
    with es.open(provider, Cart, Items, max_entities=1) as shop:
        assert shop[Cart, "0"].state_at(380).items == {"pen": 80, "ink": 300}
        assert shop[Cart, "1"].state.items == {"pen": 80}
        shop.flush()
        assert shop[Items].total() == 540  # made anew


def test_snapshots(provider: Any) -> None:
    with es.open(provider, Cart) as shop:
        for _ in range(14):
            shop[Cart, "a"].ask(Add("pen"))
        shop.flush()
        saved = provider.snapshot("Cart/a")
        assert saved.version == 12
        assert provider.snapshot("Cart/a", upto=7) is None  # two are kept
        assert shop[Cart, "a"].snapshot() == 14
        found = shop.verify_snapshots()
        assert (found.ok, found.snapshots, found.outdated) == (True, 2, 0)
    reads: list[int] = []
    history = provider.history
    provider.history = lambda stream, **options: (
        reads.append(options["after"]) or history(stream, **options)
    )
    with es.open(provider, Cart) as shop:
        assert shop[Cart, "a"].ask(Add("pen")) == 1
        assert shop[Cart, "a"].state.items == {"pen": 15}
    assert 0 not in reads  # from the snapshot on


def test_keys(provider: Any) -> None:
    with es.open(provider, Cart) as shop:
        assert shop[Cart, "a"].ask(Add("pen"), key="k") == 1
        assert shop[Cart, "a"].ask(Add("ink"), key="k") == 1
        assert shop[Cart, "b"].ask(Add("ink"), key="k") == 1
        with pytest.raises(es.Rejected):
            shop[Cart, "a"].ask(Add("pen", 0), key="refused")
        assert shop[Cart, "a"].ask(Add("ink"), key="refused") == 2
    with es.open(provider, Cart) as shop:
        assert shop[Cart, "a"].ask(Add("cup"), key="k") == 1
        assert shop[Cart, "a"].state.items == {"pen": 1, "ink": 1}


def test_read_models_follow(provider: Any) -> None:
    with es.open(provider, Cart, Items) as shop:
        shop[Cart, "a"].ask(Add("pen", 3))
        shop.flush()
        assert shop[Items].total() == 3
        provider.append("Cart/b", [Added("ink", 4)])  # beside the system
        shop[Items].wait(2)
        assert shop[Items].total() == 7
        with shop.subscribe(after=1) as feed:
            assert feed.next(timeout=SECONDS).event == Added("ink", 4)


def test_another_writer(provider: Any) -> None:
    with es.open(provider, Cart) as shop:
        cart = shop[Cart, "a"]
        cart.ask(Add("pen"))
        provider.append("Cart/a", [Added("ink", 1)])
        with pytest.raises(es.WrongVersion):
            cart.ask(Add("cup"))
        assert cart.ask(Add("cup")) == 3
        assert cart.state.items == {"pen": 1, "ink": 1, "cup": 1}


class Broken(ListStore):
    failure: Exception | None = None

    def commit(self, *args: Any, **options: Any) -> es.Commit:
        if self.failure is not None:
            raise self.failure
        return super().commit(*args, **options)


@pytest.mark.parametrize(
    ("failure", "seen", "text"),
    [
        (KeyError("gone"), es.StorageError, "the provider raised KeyError: 'gone'"),
        (es.Full("no room"), es.Full, "no room"),
        (MemoryError("none"), MemoryError, "none"),
        (es.StorageError("disk"), es.StorageError, "disk"),
    ],
)
def test_a_commit_that_fails(failure: Exception, seen: type[Exception], text: str) -> None:
    with Broken() as provider, es.open(provider, Cart, Items) as shop:
        cart = shop[Cart, "a"]
        cart.ask(Add("pen"))
        provider.failure = failure
        with pytest.raises(seen, match=text):
            cart.ask(Add("pen"))
        provider.failure = None
        assert cart.ask(Add("ink")) == 2
        shop.flush()
        assert cart.state.items == {"pen": 1, "ink": 1}
        assert shop[Items].total() == 2


def test_a_provider_that_gives_what_it_should_not(provider: Any) -> None:
    with es.open(provider, Cart) as shop:
        for _ in range(3):
            shop[Cart, "a"].ask(Add("pen"))
    history = provider.history
    provider.history = lambda stream, **options: list(history(stream, **options))[1:]
    with es.open(provider, Cart) as shop:
        with pytest.raises(es.Corrupt, match="version 1"):
            shop[Cart, "a"].ask(Add("pen"))
        provider.history = lambda stream, **options: [7]
        with pytest.raises(es.StorageError, match="AttributeError"):
            shop[Cart, "a"].ask(Add("pen"))
        provider.history = history
        assert shop[Cart, "a"].ask(Add("ink")) == 2


def test_a_provider_may_not_wait_for_itself(provider: Any) -> None:
    opened: list[Any] = []
    seen: list[BaseException] = []

    class Asking(ListStore):
        def commit(self, *args: Any, **options: Any) -> es.Commit:
            try:
                opened[0][Cart, "b"].ask(Add("pen"))
            except es.Deadlock as error:
                seen.append(error)
            return super().commit(*args, **options)

    with Asking() as asking, es.open(asking, Cart) as shop:
        opened.append(shop)
        assert shop[Cart, "a"].ask(Add("pen")) == 1
    assert len(seen) == 1


def test_upcasters_are_said_not_to_run(provider: Any) -> None:
    class Named(es.Event, name="shop.Named", version=2):
        title: str

    class Shelf(es.Aggregate):
        count: int

        @es.applies
        def named(self, event: Named) -> None:
            self.count += 1

    @es.upcast("shop.Named", version=1)
    def titled(event: dict[str, Any]) -> dict[str, Any]:
        return {"title": event["name"]}

    with (
        pytest.warns(RuntimeWarning, match="records no schemas.*upcasters do not run"),
        es.open(provider, Shelf, titled) as system,
    ):
        assert system.schema_changes == []


def test_one_system_at_a_time(provider: Any) -> None:
    with es.open(provider, Cart) as shop:
        with pytest.raises(es.Locked):
            es.open(provider, Cart)
        for call in (shop.store.backup, shop.store.clone):
            with pytest.raises(TypeError, match="provider of its own"):
                call("x")
        assert shop.store.chain_hash() is None
        shop[Cart, "z"].ask(Add("pen"))
        for change in (
            lambda: shop.store.delete("Cart/z"),
            lambda: shop.store.truncate("Cart/z", 1, force=True),
            lambda: shop.store.compact(),
        ):
            with pytest.raises((TypeError, ValueError)):
                change()
        assert not shop.store.deleted("Cart/z")
    assert provider.append("a", [Added("x", 1)]).position == 2  # it is still open
    with pytest.raises(es.Closed):
        shop[Cart, "a"].ask(Add("pen"))


class Noted(es.Event):
    number: int


handled: list[int] = []


class Notes(es.ReadModel):
    schema = "CREATE TABLE notes (number INTEGER)"

    @es.on(Noted)
    def noted(self, db: es.Rows, event: Noted) -> None:
        handled.append(event.number)
        db.execute("INSERT INTO notes VALUES (:number)", {"number": event.number})

    @es.query
    def numbers(self, db: es.Rows) -> list[int]:
        return [number for (number,) in db.execute("SELECT number FROM notes").fetchall()]


def test_rows_in_a_file_stay(provider: Any, tmp_path: Path) -> None:
    class Kept(Notes):
        file = tmp_path / "notes.db"

    handled.clear()
    for number in range(3):
        with es.open(provider, Kept) as shop:
            shop.store.append("a", [Noted(number)])
            shop.flush(60)
            assert shop[Kept].numbers() == handled == list(range(number + 1))
    other = type(provider)()
    with pytest.raises(es.NotAStore, match="another store"):
        es.open(other, Kept)
    assert other.head == 0
    assert provider.checkpoint("escqrs.store") is not None


def test_a_provider_without_such_files_keeps_no_number(provider: Any) -> None:
    with es.open(provider, Notes) as shop:
        shop.store.append("a", [Noted(1)])
        shop.flush(60)
    assert provider.checkpoint("escqrs.store") is None
