"""es.Store.verify and stats: what is whole, what is wrong in files that were damaged one way each,
and how much there is."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS


class Added(es.Event, name="verify.Added"):
    name: str
    quantity: int = 1


class Add(es.Command[int]):
    name: str


class Basket(es.Aggregate, name="Basket"):
    items: dict[str, int]

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.name))
        return len(self.items)

    @es.applies
    def added(self, event: Added) -> None:
        self.items[event.name] = event.quantity


class Names(es.ReadModel):
    schema = "CREATE TABLE names (name TEXT)"
    on_added = es.sql(Added, "INSERT INTO names VALUES (:name)")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with something of everything; 206 events in three streams."""
    path = tmp_path_factory.mktemp("whole") / "s.db"
    with es.open(path, Basket, Names) as system:
        for number in range(3):
            system[Basket, "b"].ask(Add(f"n{number}"), key=f"k{number}")
        system.flush()
    with es.Store(path) as store:
        tagged = es.NewEvent("Thing", b"x", tags=["t", "u", "t"], metadata={"a": "b"}, id="mine")
        store.append("other", [tagged, es.NewEvent("Thing", b"y")])
        store.append("third", [Added(str(n)) for n in range(201)], key="key")
        store.set_checkpoint("c", 100)
        store.save_snapshot("other", 1, "State", b"state")
    return path


@pytest.fixture
def damaged(whole: Path, tmp_path: Path):
    """A copy on which SQL was run."""

    def damage(*statements: str) -> Path:
        path = tmp_path / "damaged.db"
        shutil.copy(whole, path)
        db = sqlite3.connect(path)
        for statement in statements:
            db.execute(statement)
        db.commit()
        db.close()
        return path

    return damage


def problems(path: Path) -> list[es.Problem]:
    with es.Store(path, readonly=True) as store:
        found = store.verify()
        assert found.problem_count == len(found.problems)
        return list(found.problems)


def test_a_whole_store_has_no_problems(whole):
    with es.Store(whole, readonly=True) as store:
        found = store.verify()
    assert found.ok
    assert found
    assert found.problems == ()
    assert (found.events, found.streams, found.keys, found.checkpoints) == (206, 3, 4, 1)
    assert (found.tags, found.ids, found.snapshots, found.read_models) == (2, 1, 1, 1)
    assert "206 events" in repr(found)
    assert "no problems" in repr(found)


@pytest.mark.parametrize(
    ("statement", "part", "stream", "version", "position"),
    [
        ("UPDATE escqrs_journal SET data = x'00' WHERE position = 7", "event", "third", 2, 7),
        ("UPDATE escqrs_journal SET header = x'00' WHERE position = 7", "event", "third", 2, 7),
        ("UPDATE escqrs_journal SET checksum = 1 WHERE position = 7", "event", "third", 2, 7),
        ("UPDATE escqrs_journal SET time = 1 WHERE position = 7", "event", "third", 2, 7),
        ("UPDATE escqrs_journal SET time = time + 10000000 WHERE position = 2", "event", "Basket/b",
         3, 3),
        ("UPDATE escqrs_journal SET ordinal = 9 WHERE position = 7", "event", "third", 2, 7),
        ("UPDATE escqrs_journal SET version = 9 WHERE position = 7", "event", "third", 9, 7),
        ("UPDATE escqrs_journal SET type = 99 WHERE position = 7", "event", "third", 2, 7),
        ("UPDATE escqrs_journal SET stream = 99 WHERE position = 7", "event", None, 2, 7),
        ("DELETE FROM escqrs_journal WHERE position = 7", "event", None, None, 7),
        ("UPDATE escqrs_stream SET name = 'x' WHERE name = 'other'", "event", "x", 1, 4),
        ("UPDATE escqrs_stream SET name = '' WHERE name = 'other'", "stream", None, None, None),
        ("INSERT INTO escqrs_stream(name) VALUES ('none')", "stream", "none", None, None),
        ("UPDATE escqrs_type SET name = 'x' WHERE name = 'Thing'", "event", "other", 1, 4),
        ("UPDATE escqrs_type SET record = x'ff' WHERE name = 'verify.Added'", "type", None, None,
         None),
        ("DELETE FROM escqrs_index WHERE first_version = 129", "index", "third", 129, 134),
        ("UPDATE escqrs_index SET count = 3 WHERE first_version = 129", "index", "third", 129,
         None),
        ("UPDATE escqrs_index SET positions = x'0101' WHERE count = 2", "index", "other", 1, 1),
        ("UPDATE escqrs_index SET positions = x'00' WHERE first_version = 129", "index", "third",
         129, None),
        ("UPDATE escqrs_index SET first_version = 2 WHERE count = 2", "index", "other", 2, None),
        ("UPDATE escqrs_index SET stream = 99 WHERE count = 2", "index", None, None, None),
        ("DELETE FROM escqrs_tag WHERE tag = 't'", "tag", "other", 1, 4),
        ("INSERT INTO escqrs_tag VALUES ('t', 5)", "tag", None, None, 5),
        ("INSERT INTO escqrs_tag VALUES ('t', 999)", "tag", None, None, 999),
        ("UPDATE escqrs_tag SET tag = 'v' WHERE tag = 'u'", "tag", "other", 1, 4),
        ("DELETE FROM escqrs_id", "id", "other", 1, 4),
        ("INSERT INTO escqrs_id VALUES ('yours', 4)", "id", None, None, 4),
        ("UPDATE escqrs_snapshot SET data = x'00'", "snapshot", "other", 1, None),
        ("UPDATE escqrs_snapshot SET version = 9", "snapshot", "other", 9, None),
        ("UPDATE escqrs_snapshot SET type = 99", "snapshot", "other", 1, None),
        ("UPDATE escqrs_checkpoint SET position = 207", "checkpoint", None, None, 207),
        ("UPDATE escqrs_key SET position = 207 WHERE key = 'key'", "key", None, None, 207),
        ("UPDATE escqrs_key SET versions = x'ff' WHERE key = 'key'", "key", None, None, 206),
        ("UPDATE escqrs_readmodel SET position = 207", "read model", None, None, 207),
        ("UPDATE escqrs_journal SET ordinal = 'x' WHERE position = 6", "event", "third", 1, 6),
        ("DROP TABLE escqrs_tag", "file", None, None, None),
        ("DROP TABLE escqrs_id", "file", None, None, None),
        ("UPDATE escqrs_checkpoint SET position = 'x'", "checkpoint", None, None, None),
        ("UPDATE escqrs_key SET position = 200 WHERE key = 'key'", "key", None, None, 200),
        ("UPDATE escqrs_key SET position = x'07' WHERE key = 'k0'", "key", None, None, None),
        ("UPDATE escqrs_readmodel SET position = 'x'", "read model", None, None, None),
        ("DELETE FROM escqrs_readmodel", "read model", None, None, None),
        ("DELETE FROM escqrs_store WHERE name = 'created'", "file", None, None, None),
        ("DROP TABLE names", "read model", None, None, None),
        ("DROP TABLE escqrs_snapshot", "snapshot", None, None, None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(damaged, statement, part, stream, version, position):
    found = problems(damaged(statement))
    where = [(one.part, one.stream, one.version, one.position) for one in found]
    assert (part, stream, version, position) in where, found
    assert all(one.text for one in found)


def test_statistics_of_a_damaged_file(damaged):
    path = damaged(
        "DELETE FROM escqrs_store WHERE name = 'created'",
        "UPDATE escqrs_journal SET time = 1 << 62 WHERE position = 206",
    )
    with es.Store(path, readonly=True) as store:
        found = store.stats()
    assert (found.events, found.created, found.last) == (206, None, None)


def test_a_type_without_a_readable_name(damaged):
    for name in ("x'fffe'", "x'410042'"):
        path = damaged(f"UPDATE escqrs_type SET name = {name} WHERE name = 'Thing'")
        with pytest.raises(es.Corrupt, match="type"):
            es.Store(path, readonly=True)


def test_an_event_that_does_not_decode(tmp_path):
    """Its checksum is right, and the recorded schema says other things."""
    with es.Store(tmp_path / "s.db") as store:
        store.append("a", [Added("x"), Added("y")])

    class Other(es.Event, name="verify.Added"):
        name: int

    with es.Store(tmp_path / "o.db") as store:
        store.append("a", [Other(1)])
    db = sqlite3.connect(tmp_path / "s.db")
    db.execute("ATTACH ? AS o", [str(tmp_path / "o.db")])
    db.execute("UPDATE escqrs_type SET record = (SELECT record FROM o.escqrs_type)")
    db.commit()
    db.close()
    found = problems(tmp_path / "s.db")
    where = [(one.part, one.version, one.position) for one in found]
    assert where == [("event", 1, 1), ("event", 2, 2)]
    assert "is no verify.Added" in found[0].text


def test_flipped_bytes_of_pages_are_found(whole, tmp_path):
    """A byte in each page but the first; some of them hold nothing."""
    data = whole.read_bytes()
    path = tmp_path / "flipped.db"
    pages = len(data) // 4096
    seen = 0
    for page in range(1, pages):
        at = page * 4096 + 5  # in the header of the page
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            seen += bool(problems(path))
        except es.Error:  # it does not even open
            seen += 1
    assert seen >= pages - 3


def test_a_store_in_memory_and_one_that_is_written_to(tmp_path):
    for path in (":memory:", tmp_path / "s.db"):
        with es.Store(path) as store:
            assert store.verify().ok
            store.append("a", [Added("x")])
            calls: list[tuple[int, int]] = []

            def write(
                position: int, head: int, store: es.Store = store, calls: Any = calls
            ) -> None:
                calls.append((position, head))
                store.append("b", [Added("y")])

            found = store.verify(progress=write)
            assert found.ok
            assert found.events == 1
            assert calls[0] == (0, 1)
            assert calls[-1] == (1, 1)
            assert store.verify().events == store.head > 1


def test_progress_ends_it_and_cannot_close_the_store():
    class Enough(Exception):
        pass

    with es.Store(":memory:") as store:

        def stop(position: int, head: int) -> None:
            raise Enough

        with pytest.raises(Enough):
            store.verify(progress=stop)

        def close(position: int, head: int) -> None:
            with pytest.raises(es.Deadlock):
                store.close()

        assert store.verify(progress=close).ok
    with pytest.raises(es.Closed):
        store.verify()


def test_the_list_of_problems_is_bounded(damaged):
    path = damaged(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)"
        " INSERT INTO escqrs_checkpoint SELECT 'c' || i, 1000 FROM n"
    )
    with es.Store(path, readonly=True) as store:
        found = store.verify()
    assert not found.ok
    assert not found
    assert (found.problem_count, len(found.problems)) == (1500, 1000)
    assert "and 1,480 more" in repr(found)
    assert str(found.problems[0]) == (
        "checkpoint (position 1000): c1 is at position 1000, and the store ends at 206"
    )


class Doubled(es.Store):
    """A provider that gives every event twice."""

    times = 1

    def events(self, **options: Any) -> Iterator[es.Recorded]:
        for recorded in super().events(**options):
            yield from [recorded] * self.times


def test_a_provider_of_ones_own():
    with Doubled(":memory:") as provider:
        provider.append("a", [Added("x"), Added("y")])
        found = provider.verify()
        assert (found.ok, found.events, found.streams, found.types) == (True, 2, 1, 1)
        provider.times = 2
        found = provider.verify()
        assert not found.ok
        assert es.Problem("event", "it follows version 1", "a", 1, 1) in found.problems


# ---- stats ---------------------------------------------------------------------------------------


def test_stats(whole):
    with es.Store(whole, readonly=True) as store:
        found = store.stats()
        events = list(store.events())
    assert found.types == {"Thing": 2, "verify.Added": 204}
    assert (found.head, found.events, found.streams, found.snapshots) == (206, 206, 3, 1)
    assert (found.checkpoints, found.keys, found.tags, found.ids) == (1, 4, 2, 1)
    assert (found.first, found.last) == (events[0].time, events[-1].time)
    assert found.created <= found.first
    assert found.bytes == whole.stat().st_size
    assert "type verify.Added  204" in repr(found)


def test_stats_of_an_empty_store_and_of_a_provider_of_ones_own():
    with es.Store(":memory:") as store:
        found = store.stats()
        assert (found.events, found.first, found.types) == (0, None, {})
        assert found.bytes > 0
    with pytest.raises(es.Closed):
        store.stats()
    with Doubled(":memory:") as provider:
        provider.append("a", [Added("x"), Added("y")])
        found = provider.stats()
        assert (found.events, found.streams, found.types) == (2, 1, {"verify.Added": 2})
        assert (found.bytes, found.first) == (None, next(provider.history("a")).time)


# ---- the shell -----------------------------------------------------------------------------------


def shell(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "escqrs", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return done.returncode, done.stdout, done.stderr


def test_from_the_shell(whole, damaged):
    status, out, _ = shell("verify", str(whole))
    assert (status, "no problems" in out) == (0, True)
    path = damaged("DELETE FROM escqrs_id")
    status, out, _ = shell("verify", str(path))
    assert (status, "id (stream other" in out) == (1, True)
    status, out, error = shell("verify", str(path) + "x")
    assert (status, out) == (2, "")
    assert "cannot open" in error


def test_stats_from_the_shell(whole):
    status, out, _ = shell("stats", str(whole))
    assert (status, "type verify.Added  204" in out) == (0, True)


def test_a_stream_that_the_index_has_lost(damaged):
    """It is not empty, and not written to from its first version once more."""
    path = damaged(
        "DELETE FROM escqrs_index WHERE stream ="
        " (SELECT id FROM escqrs_stream WHERE name = 'other')"
    )
    for readonly in (True, False):
        with es.Store(path, readonly=readonly) as store:
            for read in (store.version, lambda name: list(store.history(name))):
                with pytest.raises(es.Corrupt, match="other") as caught:
                    read("other")
                assert caught.value.stream == "other"
            assert store.version("third") == 201
            assert list(store.history("none")) == []
    with es.Store(path) as store:
        with pytest.raises(es.Corrupt, match="other"):
            store.append("other", [es.NewEvent("Thing", b"z")])
        assert store.append("new", [es.NewEvent("Thing", b"z")]).versions == {"new": 1}


def test_the_number_of_deletions_is_not_lost_silently(damaged):
    """Without it nobody would look at what says that events were deleted."""
    path = damaged()
    with es.Store(path) as store:
        store.truncate("third", 100, force=True)
    db = sqlite3.connect(path)
    db.execute("DELETE FROM escqrs_store WHERE name = 'deletions'")
    db.commit()
    db.close()
    for readonly in (True, False):
        with pytest.raises(es.Corrupt, match="deletions"):
            es.Store(path, readonly=readonly)
