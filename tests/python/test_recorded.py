"""Recorded events: what an iteration gives, over many streams and many pages."""

from __future__ import annotations

import gc
import sqlite3
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import escqrs as es
import pytest


class Count(es.Command):
    by: int
    text: str = ""


class Counted(es.Event):
    by: int
    text: str


class Counter(es.Aggregate, snapshot_every=0):
    total: int

    @es.handles
    def count(self, cmd: Count) -> None:
        for _ in range(cmd.by):
            self.emit(Counted(1, cmd.text))

    @es.applies
    def counted(self, event: Counted) -> None:
        self.total += event.by


def test_names_of_many_streams() -> None:
    """More streams than names are kept for, some of them not ASCII, each met again and again."""
    names = [f"{'größe' if number % 3 == 0 else 'size'}-{number}" for number in range(200)]
    with es.open(":memory:", Counter) as system:
        for _ in range(20):
            replies = [system[Counter, name].submit(Count(1, name)) for name in names]
            for reply in replies:
                reply.result()
        seen: dict[str, int] = {}
        for recorded in system.events():
            assert recorded.stream == f"Counter/{recorded.event.text}"
            seen[recorded.stream] = seen.get(recorded.stream, 0) + 1
            assert recorded.version == seen[recorded.stream]
        assert seen == {f"Counter/{name}": 20 for name in names}


def test_outlives_iteration_and_system() -> None:
    with es.open(":memory:", Counter) as system:
        system[Counter, "a"].ask(Count(2000, "x" * 100))
        kept = list(system.events())
        again = list(system[Counter, "a"].history())
        assert kept == again
        assert hash(kept[7]) == hash(again[7])
        assert kept[0] != kept[1]
    assert [recorded.version for recorded in kept] == list(range(1, 2001))
    assert {recorded.data for recorded in kept} == {kept[0].data}
    assert kept[0].data.endswith(b"x" * 100)
    assert kept[1999].event == Counted(1, "x" * 100)


def test_empty_data() -> None:
    class Nothing(es.Event):
        pass

    class Do(es.Command):
        pass

    class Silent(es.Aggregate):
        @es.handles
        def do(self, cmd: Do) -> None:
            self.emit(Nothing())

        @es.applies
        def nothing(self, event: Nothing) -> None:
            pass

    with es.open(":memory:", Silent) as system:
        system[Silent, "a"].ask(Do())
        (recorded,) = system.events()
        assert recorded.data == b""
        assert recorded.event == Nothing()
        assert "Nothing()" in repr(recorded)


@pytest.mark.parametrize("read", [511, 513, 1025, 1500])
def test_close_in_the_middle(tmp_path: Path, read: int) -> None:
    """However far the core has read ahead, an iteration that meets close() raises."""
    system = es.open(tmp_path / "a.db", Counter)
    for _ in range(4):
        system[Counter, "a"].ask(Count(1000))
    events = iter(system.events())
    for _ in range(read):
        next(events)
    dropped = iter(system.events())
    for _ in range(read):
        next(dropped)
    del dropped
    system.close()
    with pytest.raises(es.Closed):
        next(events)


def test_damage_far_ahead(tmp_path: Path) -> None:
    with es.open(tmp_path / "a.db", Counter) as system:
        for _ in range(4):
            system[Counter, "a"].ask(Count(1000))
    with closing(sqlite3.connect(tmp_path / "a.db")) as db, db:
        db.execute("UPDATE escqrs_journal SET data = x'00' WHERE position = 3210")
    db.close()
    with es.open(tmp_path / "a.db", Counter) as system:
        versions = []
        with pytest.raises(es.Corrupt, match="3210"):
            for recorded in system[Counter, "a"].history():
                versions.append(recorded.version)
        assert versions == list(range(1, 3210))
        with pytest.raises(es.Corrupt, match="3210"):
            _ = system[Counter, "a"].state_at(4000)
        assert system[Counter, "a"].state_at(3209).total == 3209


def test_a_match_with_attributes_of_its_own() -> None:
    class Late(es.Match):
        @property
        def types(self) -> Any:
            return wanted

        @property
        def tags(self) -> Any:
            return []

        def __init__(self) -> None:
            pass

    with es.open(":memory:", Counter) as system:
        system[Counter, "a"].ask(Count(2))
        wanted: Any = [next(iter(system.events())).type]
        assert len(list(system.events(match=Late()))) == 2
        wanted = [3]
        with pytest.raises(TypeError, match="types is a list of event classes and names of types"):
            system.events(match=Late())


class Keeper(es.Store):
    last: es.Recorded


def test_a_store_that_keeps_its_last_event_is_freed(tmp_path: Path) -> None:
    store = Keeper(tmp_path / "kept.db", Counted)
    store.append("a", [Counted(1, "x")])
    store.last = next(iter(store.events()))
    store.close()
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None


def test_an_event_outlives_its_store(tmp_path: Path) -> None:
    with es.Store(tmp_path / "kept.db", Counted) as store:
        store.append("a", [Counted(1, "x")])
        kept = list(store.events())
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
    assert kept[0].event == Counted(1, "x")
    assert kept[0].type == "Counted" and kept[0]._schema  # of the core's memory
