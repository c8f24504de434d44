"""es.Store.clone: a store that begins as a copy of another."""

from __future__ import annotations

import threading
from pathlib import Path

import escqrs as es
import pytest


class Added(es.Event, name="clone.Added"):
    name: str


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    with es.Store(tmp_path / "s.db" if request.param == "file" else ":memory:") as opened:
        opened.append("a", [Added("x"), es.NewEvent("Thing", b"y", tags=["t"])], key="k")
        opened.save_snapshot("a", 1, "State", b"s")
        opened.set_checkpoint("c", 1)
        yield opened


@pytest.mark.parametrize("place", ["file", "memory"])
def test_a_clone_is_the_same_and_goes_its_own_way(store, place, tmp_path):
    with store.clone(tmp_path / "c.db" if place == "file" else ":memory:") as clone:
        assert list(clone.events()) == list(store.events())
        assert next(clone.history("a")).event == Added("x")
        assert (clone.checkpoint("c"), clone.snapshot("a").data) == (1, b"s")
        assert clone.append("a", [], key="other").position == 2
        assert clone.append("a", [Added("z")], expected=2).position == 3
        assert clone.verify().ok
        assert store.head == 2
        store.append("b", [Added("w")])
        assert clone.version("b") == 0
        with clone.clone() as second:
            assert second.head == 3


def test_a_clone_outlives_its_source(store):
    clone = store.clone()
    store.close()
    assert clone.append("a", [Added("z")], expected=2).position == 3
    clone.close()


def test_a_clone_while_others_write(store):
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            store.commit([es.Write("x", [Added("1")]), es.Write("y", [Added("2")])])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(10):
            with store.clone() as clone:
                assert clone.version("x") == clone.version("y")
                assert clone.verify().ok
    finally:
        ended.set()
        thread.join()


def test_what_cannot_be_cloned(store, tmp_path):
    (tmp_path / "there").write_bytes(b"mine")
    with pytest.raises(es.StorageError):
        store.clone(tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"mine"
    with pytest.raises(ValueError, match="durability"):
        store.clone(durability="none")
    store.close()
    with pytest.raises(es.Closed):
        store.clone()
