"""Deleting: truncate, delete, retain and compact, and whoever meets what is gone. See
docs/deleting.md."""

from __future__ import annotations

import pickle
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS, finish, run, start


class Add(es.Command[int]):
    amount: int


class Look(es.Command[int]):
    pass


class Added(es.Event):
    amount: int


class Counter(es.Aggregate, snapshot_every=10):
    total: int

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.amount))
        return self.total

    @es.handles
    def look(self, cmd: Look) -> int:
        return self.total

    @es.applies
    def added(self, event: Added) -> None:
        self.total += event.amount


class Totals(es.ReadModel):
    schema = "CREATE TABLE totals (stream TEXT PRIMARY KEY, total INTEGER NOT NULL)"
    on_added = es.sql(
        Added,
        "INSERT INTO totals VALUES (:_stream, :amount)"
        " ON CONFLICT (stream) DO UPDATE SET total = total + :amount",
    )

    @es.query
    def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute("SELECT stream, total FROM totals ORDER BY stream").fetchall()


def some(count: int, size: int = 1, **options: Any) -> list[es.NewEvent]:
    return [es.NewEvent("E", bytes([number % 256]) * size, **options) for number in range(count)]


def places(events: Any) -> tuple[list[int], es.Deleted | None]:
    """Positions given, and the error behind them."""
    found = []
    try:
        for recorded in events:
            found.append(recorded.position)
    except es.Deleted as error:
        return found, error
    return found, None


def verified(store: es.Store) -> None:
    found = store.verify()
    assert found.ok, found


@pytest.fixture(params=["file", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ":memory:" if request.param == "memory" else str(tmp_path / "store.db")


@pytest.fixture
def store(path: str) -> Any:
    """Streams a and b in turns, two events and one, with a snapshot of a at version 14."""
    with es.Store(path) as store:
        for _ in range(10):
            store.append("a", some(2))
            store.append("b", some(1, tags=["t"]))
        store.save_snapshot("a", 14, "S", b"of 14")
        yield store


def test_truncate(store: es.Store) -> None:
    before = list(store.events())
    assert store.truncate("a", 12) == 12
    assert store.truncated("a") == 12
    assert store.truncated("b") == store.truncated("unknown") == 0
    assert (store.version("a"), store.head) == (20, 30)
    assert list(store.history("a", after=12)) == [
        one for one in before if one.stream == "a" and one.version > 12
    ]
    assert list(store.events(deleted="skip")) == [
        one for one in before if one.stream == "b" or one.version > 12
    ]
    assert store.append("a", some(1), expected=20).versions == {"a": 21}
    assert store.truncate("a", 12) == store.truncate("a", 3) == 0
    assert store.truncate("a", 14) == 2
    verified(store)
    assert store.stats().deleted == 14 and store.stats().events == 17


def test_truncate_wants_a_snapshot(store: es.Store) -> None:
    with pytest.raises(es.NotCovered, match="no snapshot at version 15") as failure:
        store.truncate("a", 15)
    assert (failure.value.stream, failure.value.version) == ("a", 15)
    assert pickle.loads(pickle.dumps(failure.value)).stream == "a"
    with pytest.raises(es.NotCovered):
        store.truncate("b", 1)
    assert len(list(store.events())) == 30
    assert store.truncate("b", 4, force=True) == 4
    verified(store)


def test_a_snapshot_that_does_not_verify_covers_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with es.Store(path) as store:
        store.append("a", some(3))
        store.save_snapshot("a", 3, "S", b"good")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE escqrs_snapshot SET data = x'00'")
    connection.close()
    with es.Store(path) as store, pytest.raises(es.NotCovered):
        store.truncate("a", 1)


def test_arguments(store: es.Store) -> None:
    for call in (
        lambda: store.truncate("a", 21),
        lambda: store.truncate("unknown", 1),
        lambda: store.truncate("a", -1),
        lambda: store.truncate("", 1),
        lambda: store.delete("unknown"),
        lambda: store.delete(""),
        lambda: store.history("a", deleted="perhaps"),  # type: ignore[arg-type]
        lambda: store.events(deleted="perhaps"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError):
            call()
    for call in (
        lambda: store.truncate("a", None),  # type: ignore[arg-type]
        lambda: store.truncate("a", True),
        lambda: store.retain(keep=1),
        lambda: store.retain(stream="a"),
        lambda: store.retain(stream="a", category="a", keep=1),
        lambda: store.retain(stream="a", older_than=datetime(2020, 1, 1)),
        lambda: store.retain(stream="a", keep="1"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()
    assert store.stats().deleted == 0


def test_history_says_what_is_gone(store: es.Store) -> None:
    store.truncate("a", 12)
    for after in (0, 5, 11):
        with pytest.raises(es.Deleted, match="up to version 12") as failure:
            next(store.history("a", after=after))
        error = failure.value
        assert (error.stream, error.version, error.position) == ("a", 12, None)
        assert pickle.loads(pickle.dumps(error)).version == 12
        left = store.history("a", after=after, deleted="skip")
        assert [one.version for one in left] == list(range(13, 21))
    assert next(store.history("a", after=error.version)).version == 13
    newest = store.history("a", reverse=True)
    assert [next(newest).version for _ in range(8)] == list(range(20, 12, -1))
    with pytest.raises(es.Deleted):
        next(newest)
    assert len(list(store.history("a", reverse=True, limit=8))) == 8
    assert len(list(store.history("a", reverse=True, deleted="skip"))) == 8
    assert list(store.history("a", upto=12, deleted="skip")) == []
    assert list(store.history("a", upto=12, reverse=True, deleted="skip")) == []
    assert list(store.history("b")) != []


def test_events_say_what_is_gone(store: es.Store) -> None:
    store.truncate("a", 4)  # positions 1, 2, 4, 5
    found, error = places(store.events())
    assert found == [] and error is not None
    assert (error.stream, error.version, error.position) == (None, None, 2)
    found, error = places(store.events(after=2))
    assert found == [3] and error is not None and error.position == 5
    assert places(store.events(after=5)) == (list(range(6, 31)), None)
    assert places(store.events(after=1, upto=2))[1] is not None
    assert places(store.events(after=4, upto=5))[1] is not None
    found, error = places(store.events(reverse=True))
    assert found == list(range(30, 5, -1)) and error is not None and error.position == 5
    assert places(store.events(reverse=True, upto=4))[0] == []
    assert places(store.events(reverse=True, limit=25)) == (list(range(30, 5, -1)), None)
    left = [3, *range(6, 31)]
    assert places(store.events(deleted="skip")) == (left, None)
    assert places(store.events(deleted="skip", reverse=True)) == (left[::-1], None)
    assert places(store.events(deleted="skip", upto=4, after=1)) == ([3], None)
    assert places(store.events(deleted="skip", upto=5, after=3)) == ([], None)


def test_a_match_may_have_been_deleted(store: es.Store) -> None:
    store.truncate("a", 4)
    for match in (es.Match(tags=["t"]), es.Match(types=["E"], tags=["t"]), es.Match(["Other"])):
        expected = [*range(3, 31, 3)] if match.tags else []
        found, error = places(store.events(match=match))
        assert found == [] and error is not None and error.position == 2
        found, error = places(store.events(after=2, match=match))
        assert found == expected[:1] and error is not None and error.position == 5
        assert places(store.events(after=5, match=match)) == (expected[1:], None)
        assert places(store.events(match=match, deleted="skip")) == (expected, None)
        found, error = places(store.events(match=match, reverse=True))
        assert found == expected[:0:-1] and error is not None and error.position == 5


def test_delete(store: es.Store) -> None:
    store.append("b", some(1), key="k")
    assert store.delete("b") == 11
    assert store.delete("b") == 0
    assert store.deleted("b") and not store.deleted("a") and not store.deleted("unknown")
    assert (store.version("b"), store.truncated("b"), store.head) == (11, 11, 31)
    assert list(store.streams()) == [("a", 20)]
    assert (store.stats().streams, store.verify().streams) == (1, 1)
    for call in (
        lambda: store.append("b", some(1)),
        lambda: store.append("b", some(1), expected=11),
        lambda: store.append("b", some(1), expected=0),
        lambda: store.commit([es.Write("a", some(1)), es.Write("b", some(1))]),
        lambda: store.save_snapshot("b", 1, "S", b""),
        lambda: store.truncate("b", 1),
        lambda: list(store.history("b")),
        lambda: list(store.history("b", reverse=True)),
    ):
        with pytest.raises(es.Deleted) as failure:
            call()
        assert failure.value.stream == "b" and failure.value.version == 11
    assert store.head == 31 and store.version("a") == 20
    assert list(store.history("b", after=11)) == list(store.history("b", deleted="skip")) == []
    assert store.append("b", some(1), key="k").repeated  # whatever has happened since
    assert store.snapshot("b") is None
    verified(store)


def test_what_was_deleted_stays_deleted(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with es.Store(path) as store:
        store.append("a", some(300))
        store.append("b", some(3))
        store.truncate("a", 256, force=True)
        store.delete("b")
    for readonly in (False, True, False):
        with es.Store(path, readonly=readonly) as store:
            assert (store.head, store.version("a"), store.version("b")) == (303, 300, 3)
            assert store.truncated("a") == 256 and store.deleted("b")
            assert list(store.streams()) == [("a", 300)]
            verified(store)
            if not readonly:
                with pytest.raises(es.Deleted):
                    store.append("b", some(1))
    with es.Store(path) as store:
        store.truncate("a", 300, force=True)
    with es.Store(path) as store:  # nothing is left
        assert (store.head, store.version("a")) == (303, 300)
        last = store.append("a", some(1), expected=300)
        assert last.position == 304 and last.versions == {"a": 301}
        verified(store)


def test_time_does_not_go_back_behind_what_was_deleted(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with es.Store(path) as store:
        store.append("a", some(1))
        (last,) = store.events()
        store.delete("a")
    with es.Store(path) as store:
        store.append("b", some(1))
        (next_one,) = store.events(after=1)
    assert next_one.time >= last.time and next_one.position == 2


def test_tags_and_ids_go_along(store: es.Store) -> None:
    store.append("c", [es.NewEvent("E", b"", id="mine", tags=["x", "y", "x"])])
    assert store.stats().tags == 12 and store.stats().ids == 1
    store.delete("c")
    assert store.stats().tags == 10 and store.stats().ids == 0
    store.append("d", [es.NewEvent("E", b"", id="mine")])
    verified(store)


def test_conditions_see_what_is_stored(store: es.Store) -> None:
    store.delete("b")
    done = store.append("a", some(1), condition=es.Unless(es.Match(tags=["t"])))
    assert done.position == 31
    with pytest.raises(es.ConditionFailed):
        store.append("a", some(1), condition=es.Unless(()))


def test_the_snapshot_that_stands_for_events_is_kept(store: es.Store) -> None:
    store.save_snapshot("a", 5, "S", b"of 5")
    store.truncate("a", 12)
    assert store.snapshot("a", upto=13) is None  # older ones went along
    for upto in (None, 14, 20):
        with pytest.raises(es.NotCovered, match="at version 14"):
            store.delete_snapshots("a", upto=upto)
    store.delete_snapshots("a", upto=13)
    store.save_snapshot("a", 18, "S", b"of 18")
    store.delete_snapshots("a", upto=14)
    found = store.snapshot("a")
    assert found is not None and found.version == 18


def test_feeds(store: es.Store) -> None:
    with store.subscribe() as feed, store.subscribe(deleted="skip") as skipping:
        store.truncate("a", 14)
        with pytest.raises(es.Deleted):
            feed.next(SECONDS)
        assert [skipping.next(SECONDS).position for _ in range(2)] == [3, 6]
    with store.subscribe(after=18) as feed:
        with pytest.raises(es.Deleted) as failure:
            for _ in range(31):
                feed.next(SECONDS)
        assert failure.value.position == 20
    with store.subscribe(after=failure.value.position) as feed:
        assert feed.next(SECONDS).position == 21


def test_an_iteration_under_which_events_are_deleted(tmp_path: Path) -> None:
    with es.Store(tmp_path / "store.db") as store:
        store.append("a", some(5000))
        store.append("b", some(5000))
        by_version, by_position = store.history("a"), store.events()
        skipping = store.history("a", deleted="skip")
        for one in (by_version, by_position, skipping):
            assert next(one).version == 1
        store.truncate("a", 4000, force=True)
        seen = 1
        with pytest.raises(es.Deleted) as failure:
            for one in by_version:
                seen += 1
                assert one.version == seen
        assert failure.value.version == 4000 and seen < 4000
        found, error = places(by_position)
        assert found == list(range(2, found[-1] + 1)) and error is not None
        assert error.position == 4000
        versions = [one.version for one in skipping]
        begun = versions.index(4001)
        assert versions == [*range(2, begun + 2), *range(4001, 5001)]
        verified(store)


def test_retain_by_count(store: es.Store) -> None:
    assert store.retain(stream="a", keep=10) == 10
    assert store.truncated("a") == 10
    assert store.retain(stream="a", keep=2) == 4  # as far as the snapshot goes
    assert store.truncated("a") == 14
    assert store.retain(stream="b", keep=2) == 0
    assert store.retain(stream="b", keep=2, force=True) == 8
    assert store.retain(stream="a", keep=0, force=True) == 6
    assert store.retain(stream="unknown", keep=0) == 0
    assert (store.version("a"), store.version("b"), store.head) == (20, 10, 30)
    verified(store)


def test_retain_of_many_streams(path: str) -> None:
    with es.Store(path) as store:
        for number in range(700):
            name = f"{'log' if number % 2 else 'other'}/{number}"
            store.append(name, some(3))
        assert store.retain(category="log", keep=1, force=True) == 700
        assert all(store.truncated(f"log/{number}") == 2 for number in range(1, 700, 2))
        assert store.retain(prefix="other/1", keep=2, force=True) == 55
        store.delete("log/1")
        store.append("escqrs.own", some(3))
        assert store.retain(prefix="", keep=1, force=True) == 700 - 55
        assert store.truncated("escqrs.own") == 0
        assert store.retain(prefix="escqrs.", keep=1, force=True) == 2
        verified(store)


def test_retain_by_age(path: str) -> None:
    with es.Store(path) as store:
        for _ in range(20):
            store.append("a", some(3))
            store.append("b", some(1))
        every = list(store.events())
        moment = every[40].time
        old = [one for one in every if one.time < moment]
        kept = store.retain(stream="b", keep=1000, older_than=moment, force=True)
        assert kept == 0  # both have to say so
        assert store.retain(prefix="", older_than=moment, force=True) == len(old)
        assert places(store.events(deleted="skip"))[0] == list(range(len(old) + 1, 81))
        assert store.retain(prefix="", older_than=moment, force=True) == 0
        assert store.retain(prefix="", older_than=timedelta(days=1), force=True) == 0
        later = datetime.now(UTC) + timedelta(days=1)
        assert store.retain(prefix="", older_than=later, force=True) == 80 - len(old)
        assert places(store.events(deleted="skip")) == ([], None)
        assert store.head == 80
        verified(store)


def test_compact(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with es.Store(path) as store:
        for _ in range(40):
            store.append("a", some(100, 1000))
            store.append("b", some(1))
        before = store.stats().bytes
        assert before is not None
        store.truncate("a", 4000, force=True)
        assert store.compact() > before * 0.8
        after = store.stats().bytes
        assert after is not None and after < before * 0.2
        assert store.compact() == 0
        assert len(list(store.history("b"))) == 40
        verified(store)
    assert path.stat().st_size < before * 0.2


def test_compact_beside_readers_and_commits(tmp_path: Path) -> None:
    with es.Store(tmp_path / "store.db") as store:
        store.append("a", some(5000, 1000))
        store.append("b", some(5000, 10))
        store.truncate("a", 5000, force=True)
        reading = store.history("b")
        next(reading)
        done = threading.Event()
        stored = 0

        def commit() -> None:
            nonlocal stored
            while not done.is_set():
                store.append("c", some(1))
                stored += 1

        thread = threading.Thread(target=commit)
        thread.start()
        try:
            assert store.compact() > 0
        finally:
            done.set()
            thread.join()
        assert len(list(reading)) == 4999
        assert store.version("c") == stored
        verified(store)


def test_a_file_of_format_1(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with es.Store(path) as store:
        store.append("a", some(2000, 100))
        store.append("b", some(5))
    connection = sqlite3.connect(path)
    connection.executescript(
        "DROP TABLE escqrs_gap; DROP TABLE escqrs_deleted; PRAGMA user_version = 1;"
        "PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = NONE; VACUUM;"
    )
    connection.close()
    with es.Store(path, readonly=True) as store:
        assert store.truncated("a") == 0 and len(list(store.events())) == 2005
        verified(store)
    with es.Store(path) as store:
        assert len(list(store.history("a"))) == 2000
        store.append("b", some(1))
        assert store.compact() == 0
        with es.Store(path, readonly=True) as reader:
            assert reader.truncated("a") == 0
            store.truncate("a", 1990, force=True)
            assert reader.truncated("a") == 1990
            assert len(list(reader.events(deleted="skip"))) == 16
        verified(store)
        assert store.compact() > 100_000
        verified(store)
        store.truncate("a", 1991, force=True)
        verified(store)
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        ("UPDATE escqrs_gap SET last = last + 1", "deleted"),
        ("DELETE FROM escqrs_gap WHERE first = 1", "deleted"),
        ("UPDATE escqrs_deleted SET upto = upto + 1", "deleted"),
        ("DELETE FROM escqrs_deleted", "deleted"),
        ("DELETE FROM escqrs_journal WHERE position = 9", "event"),
    ],
)
def test_verify_names_what_is_wrong_with_what_was_deleted(
    tmp_path: Path, damage: str, part: str
) -> None:
    path = tmp_path / "store.db"
    with es.Store(path) as store:
        store.append("a", some(3))
        store.append("b", some(1))
        store.append("a", some(10))
        store.truncate("a", 5, force=True)
        verified(store)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    connection.close()
    with es.Store(path, readonly=True) as store:
        assert part in [problem.part for problem in store.verify().problems]


def test_a_gap_that_nobody_made_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with es.Store(path) as store:
        store.append("a", some(9))
        store.truncate("a", 3, force=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM escqrs_journal WHERE position = 6")
    connection.close()
    with es.Store(path) as store, pytest.raises(es.Corrupt) as failure:
        list(store.events(after=3))
    assert failure.value.position == 6


def test_copies(store: es.Store, tmp_path: Path) -> None:
    store.truncate("a", 12)
    store.delete("b")
    store.backup(tmp_path / "copy.db")
    with store.clone() as clone, es.Store(tmp_path / "copy.db") as copy:
        for one in (clone, copy):
            assert one.truncated("a") == 12 and one.deleted("b") and one.head == 30
            verified(one)
            with pytest.raises(es.Deleted):
                one.append("b", some(1))


def test_a_hash_chain_is_proved_over_what_is_gone(tmp_path: Path) -> None:
    with es.Store(tmp_path / "store.db", chain=True) as store:
        store.append("a", some(5))
        store.append("b", some(5))
        before = store.chain_hash(10)
        store.truncate("a", 5, force=True)
        store.truncate("b", 2, force=True)
        assert store.chain_hash(10) == before
        verified(store)
        store.append("b", some(1))
        verified(store)


def test_entities(path: str) -> None:
    with es.open(path, Counter) as system:
        counter = system[Counter, "c"]
        for _ in range(25):
            counter.ask(Add(1))
        assert system.store.truncate("Counter/c", 20) == 20
        assert counter.ask(Add(1)) == 26  # it is in memory
        assert counter.state.total == 26 and counter.state_at(22).total == 22
        with pytest.raises(es.Deleted):
            counter.state_at(12)
        with pytest.raises(es.Deleted):
            list(counter.history())
        assert [one.version for one in counter.history(after=20)] == list(range(21, 27))
        assert len(list(counter.history(deleted="skip"))) == 6
        with pytest.raises(es.Deleted):
            list(system.events())
        assert len(list(system.events(deleted="skip"))) == 6
        with pytest.raises(es.NotCovered):
            system.store.truncate("Counter/c", 26)
        assert counter.snapshot() == 26
        assert system.store.truncate("Counter/c", 26) == 6


def test_entities_are_loaded_from_their_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system:
        for _ in range(25):
            system[Counter, "c"].ask(Add(1))
        system.store.truncate("Counter/c", 20)
    with es.open(path, Counter) as system:
        assert system[Counter, "c"].ask(Add(1)) == 26
    with es.Store(path) as store:  # as a changed state class would leave it
        assert store.snapshot("Counter/c") is not None
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE escqrs_snapshot SET data = x'00'")
    connection.close()
    with es.open(path, Counter) as system:
        for _ in range(2):
            with pytest.raises(es.Deleted, match="up to version 20"):
                system[Counter, "c"].ask(Add(1))
        assert system[Counter, "d"].ask(Add(1)) == 1


@pytest.mark.parametrize("command", [Add(1), Look()])
def test_an_entity_of_a_deleted_stream(path: str, command: es.Command[int]) -> None:
    with es.open(path, Counter) as system:
        counter, other = system[Counter, "c"], system[Counter, "d"]
        assert counter.ask(Add(1)) == other.ask(Add(5)) == 1 or True
        assert system.store.delete("Counter/c") == 1
        for _ in range(2):
            with pytest.raises(es.Deleted) as failure:
                counter.ask(command)
            assert failure.value.stream == "Counter/c"
            with pytest.raises(es.Deleted):
                counter.submit(command).result(SECONDS)
        with pytest.raises(es.Deleted):
            _ = counter.state
        assert other.ask(Look()) == 5
        system.flush()
        verified(system.store)


def test_commands_while_their_stream_is_deleted(path: str) -> None:
    """Each is either stored before, or refused."""
    with es.open(path, Counter) as system:
        counter = system[Counter, "c"]
        counter.ask(Add(1))
        replies = [counter.submit(Add(1)) for _ in range(500)]
        system.store.delete("Counter/c")
        replies += [counter.submit(Add(1)) for _ in range(20)]
        stored = 1
        for reply in replies:
            try:
                stored = reply.result(SECONDS)
            except (es.Deleted, es.Aborted):
                break
        assert system.store.version("Counter/c") == stored
        with pytest.raises((es.Deleted, es.Aborted)):
            replies[-1].result(SECONDS)
        verified(system.store)


def test_read_models(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter, Totals) as system:
        for number in range(12):
            system[Counter, f"c{number % 2}"].ask(Add(number))
        system.flush()
        before = system[Totals].all()
        system.store.delete("Counter/c1")
        assert system[Totals].all() == before  # it has taken them
        system[Counter, "c0"].ask(Add(1))
        system.flush()
        with pytest.raises(es.ReadModelStopped):  # a new copy would not be the same table
            system[Totals].rebuild()
            system.flush()


def test_a_read_model_that_comes_too_late(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system:
        for number in range(12):
            system[Counter, f"c{number % 2}"].ask(Add(1))
        system.store.delete("Counter/c1")
    with es.open(path, Counter, Totals) as system:
        with pytest.raises(es.ReadModelStopped, match="deleted"):
            system.flush()
        model = system[Totals]
        assert model.status.position == 1
        while model.status.state == "stopped":
            model.skip()
            try:
                system.flush()
            except es.ReadModelStopped:
                continue
        assert model.all() == [("Counter/c0", 6)]


def test_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with es.Store(path) as store:
        store.append("a", some(400))
        reader = start(
            """
            store = es.Store(sys.argv[1], readonly=True)
            history = store.history("a", after=300)
            print(next(history).version, store.truncated("a"), flush=True)
            sys.stdin.readline()
            print(store.truncated("a"), store.version("a"), store.deleted("b"), store.head)
            for read in (lambda: list(store.history("a")), lambda: list(store.events())):
                try:
                    read()
                except es.Deleted as error:
                    print(error.version, error.position)
            print(len(list(store.history("a", deleted="skip"))), len(list(history)))
            with store.subscribe(after=store.head) as feed:
                print("waits", flush=True)
                print(feed.next(10).stream)
            assert store.verify().ok
            store.close()
            """,
            path,
        )
        assert reader.stdin is not None and reader.stdout is not None
        assert reader.stdout.readline() == "301 0\n"
        store.append("b", some(1))
        store.truncate("a", 250, force=True)
        store.delete("b")
        reader.stdin.write("\n")
        reader.stdin.flush()
        lines = [reader.stdout.readline().strip() for _ in range(5)]
        assert lines == ["250 400 True 401", "250 None", "None 250", "150 99", "waits"]
        store.append("c", some(1))
        assert finish(reader)[0] == "c\n"


def test_read_only(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with es.Store(path) as store:
        store.append("a", some(1))
    with es.Store(path, readonly=True) as store:
        for call in (
            lambda: store.truncate("a", 1),
            lambda: store.delete("a"),
            store.compact,
        ):
            with pytest.raises(es.ReadOnly):
                call()
    with pytest.raises(es.Closed):
        store.truncate("a", 1)


def test_a_provider_without_deleting() -> None:
    class Own(es.Store):
        head = 0

        def __init__(self) -> None:
            pass

        def events(self, **options: Any) -> Any:
            return iter(())

    own = Own()
    for call in (lambda: own.truncate("a", 1), lambda: own.delete("a"), own.compact):
        with pytest.raises(TypeError, match="provider of its own"):
            call()
    assert own.truncated("a") == 0 and not own.deleted("a")


def test_not_in_a_read_models_handler(tmp_path: Path) -> None:
    run(
        """
        class Bad(es.ReadModel):
            schema = "CREATE TABLE bad (x INTEGER)"

            @es.on(Added)
            def added(self, event: Added, db: es.Rows) -> None:
                for call in (lambda: store.truncate("a", 1), lambda: store.delete("a"),
                             store.compact):
                    try:
                        call()
                        print("not refused")
                    except es.Deadlock:
                        pass

        store = es.Store(sys.argv[1])
        with es.open(store, Counter, Bad) as system:
            system[Counter, "c"].ask(Add(1))
            system.flush()
        store.close()
        """,
        tmp_path / "shop.db",
    )


def test_commit_takes_a_list(store: es.Store) -> None:
    with pytest.raises(TypeError, match=r"commit\(\[es\.Write"):
        store.commit(es.Write("c", some(1)))  # type: ignore[arg-type]
