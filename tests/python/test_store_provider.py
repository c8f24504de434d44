"""Providers of one's own: subclasses of es.Store; what es.Store builds on what they override."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import escqrs as es
import pytest
from support import SECONDS


class Renaming(es.Store):
    """Keeps its streams below a name of its own, in a store that it is given."""

    def __init__(self, below: es.Store) -> None:
        self.below = below
        self.commits = 0

    def commit(self, writes: Iterable[es.Write], **options: Any) -> es.Commit:
        self.commits += 1
        renamed = [es.Write("mine/" + w.stream, w.events, w.expected) for w in writes]
        done = self.below.commit(renamed, **options)
        versions = {name.removeprefix("mine/"): version for name, version in done.versions.items()}
        return es.Commit(done.position, versions, done.repeated)

    def history(self, stream: str, **options: Any) -> Iterator[es.Recorded]:
        return self.below.history("mine/" + stream, **options)

    def events(self, **options: Any) -> Iterator[es.Recorded]:
        return self.below.events(**options)

    def version(self, stream: str) -> int:
        return self.below.version("mine/" + stream)

    @property
    def head(self) -> int:
        return self.below.head

    def checkpoint(self, name: str) -> int | None:
        return self.below.checkpoint(name)

    def save_snapshot(self, stream: str, version: int, type: str, data: bytes) -> None:
        self.below.save_snapshot("mine/" + stream, version, type, data)

    def snapshot(self, stream: str, **options: Any) -> es.Snapshot | None:
        return self.below.snapshot("mine/" + stream, **options)

    def delete_snapshots(self, stream: str, **options: Any) -> None:
        self.below.delete_snapshots("mine/" + stream, **options)

    def close(self) -> None:
        self.below.close()


class Counting(es.Store):
    """Opens a file as es.Store does, and counts."""

    commits = 0

    def commit(self, writes: Iterable[es.Write], **options: Any) -> es.Commit:
        self.commits += 1
        return super().commit(writes, **options)


def raw() -> es.NewEvent:
    return es.NewEvent("Thing", b"x")


@pytest.fixture
def provider():
    with Renaming(es.Store(":memory:")) as made:
        yield made


def test_all_else_is_built_on_what_is_overridden(provider):
    assert provider.append("a", [raw()], expected=0, key="k") == es.Commit(1, {"a": 1})
    assert provider.append("a", [raw()], expected=0, key="k").repeated
    assert provider.set_checkpoint("c", 3).position == 1
    assert (provider.commits, provider.checkpoint("c")) == (3, 3)
    assert next(provider.history("a")).stream == "mine/a"
    with pytest.raises(es.WrongVersion):
        provider.append("a", [raw()], expected=0)
    with pytest.raises(es.ConditionFailed):
        provider.append("a", [raw()], condition=es.Unless(()))
    assert "Renaming" in repr(provider)


def test_following_a_provider(provider):
    feed = provider.subscribe(match=es.Match(types=["Thing"]))
    assert isinstance(feed, es.Feed)
    with pytest.raises(TimeoutError):
        feed.next(timeout=0)
    provider.append("a", [raw(), raw()])
    assert [feed.next(timeout=SECONDS).position for _ in range(2)] == [1, 2]
    threading.Thread(target=provider.append, args=("a", [raw()])).start()
    assert next(feed).position == feed.position == 3
    threading.Thread(target=feed.close).start()
    assert list(feed) == []
    with pytest.raises(es.Closed):
        feed.next()


def test_a_writer_below_a_provider_is_seen(provider):
    threading.Thread(target=provider.below.append, args=("b", [raw()])).start()
    assert next(provider.subscribe()).stream == "b"


def test_awaiting_a_provider(provider):
    async def follow():
        return [recorded.position async for recorded in provider.subscribe()]

    async def main():
        task = asyncio.create_task(follow())
        feed = provider.subscribe()
        await asyncio.to_thread(provider.append, "a", [raw()])
        assert (await asyncio.wait_for(anext(feed), SECONDS)).position == 1
        await asyncio.to_thread(provider.close)
        with pytest.raises(es.Closed):
            await asyncio.wait_for(task, SECONDS)

    asyncio.run(main())


def test_what_is_not_overridden_says_so():
    class Empty(es.Store):
        def __init__(self) -> None:
            pass

    empty = Empty()
    with pytest.raises(TypeError, match="overrides commit"):
        empty.append("a", [raw()])
    empty.close()


def test_a_subclass_with_a_file(tmp_path):
    with Counting(tmp_path / "s.db") as store:
        feed = store.subscribe()
        store.append("a", [raw()])
        store.set_checkpoint("c", 1)
        assert (store.commits, next(feed).position) == (2, 1)
        with es.open(store) as shop:
            shop.store.append("b", [raw()])
        assert (store.commits, store.version("b")) == (3, 1)
    assert store.closed


def test_what_a_provider_overrides_has_a_type():
    own: es.Provider = Renaming(es.Store(":memory:"))  # a type checker looks whether it is one
    file: es.Provider = es.Store(":memory:")
    names = {name for name in vars(es.Provider) if not name.startswith("_")}
    made = {"append", "subscribe", "stats", "truncate", "delete", "restart"}  # by es.Store
    assert names - set(vars(Renaming)) == made - set(vars(Renaming))
    assert names <= set(dir(file))
    own.close()
    file.close()
