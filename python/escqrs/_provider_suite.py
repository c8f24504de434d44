"""``escqrs.testing.ProviderSuite``: whether a provider of one's own keeps its promises."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ._core import NewEvent
from ._match import Match
from ._message import Event
from ._store import Commit, Store, Unless, Write
from .errors import (
    CheckpointBehind,
    Closed,
    ConditionFailed,
    Deleted,
    KeyReused,
    NotCovered,
    Timeout,
    UnknownType,
    WrongVersion,
)

__all__ = ["ProviderSuite"]

SECONDS = 20.0  # that a test waits for what has to come


class _Noted(Event, name="escqrs.testing.Noted"):
    text: str


def _raw(data: bytes = b"x", type: str = "Thing", *, tags: tuple[str, ...] = ()) -> NewEvent:
    return NewEvent(type, data, tags=tags)


class ProviderSuite:
    """What every store does. A subclass says how one is opened.

    persistent: whether ``open`` of the same folder, after ``close``, gives what was stored.
    """

    persistent = False

    def open(self, folder: Path) -> Store:
        """A store, empty where nothing was stored in that folder, which exists."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """An empty store, closed at the end."""
        made = self.open(tmp_path)
        yield made
        made.close()

    # ---- writing

    def test_append_answers_position_and_versions(self, store: Store) -> None:
        assert store.append("a", [_raw(), _raw()], expected=0) == Commit(2, {"a": 2})
        assert store.append("a", [_raw()]) == Commit(3, {"a": 3})
        assert (store.head, store.version("a"), store.version("b")) == (3, 3, 0)

    def test_a_commit_of_several_streams_is_one(self, store: Store) -> None:
        done = store.commit([Write("a", [_raw(), _raw()], 0), Write("b", [_raw()], 0)])
        assert done == Commit(3, {"a": 2, "b": 1})
        with pytest.raises(WrongVersion):
            store.commit([Write("a", [_raw()], 2), Write("b", [_raw()], 0)])
        assert (store.head, store.version("a")) == (3, 2)

    def test_a_commit_of_nothing(self, store: Store) -> None:
        store.append("a", [_raw()])
        assert store.commit([]) == Commit(1, {})
        assert store.commit([Write("b", [], 0)]).versions == {"b": 0}

    def test_wrong_version_says_what_there_is(self, store: Store) -> None:
        store.append("a", [_raw()])
        for expected in (0, 2):
            with pytest.raises(WrongVersion) as caught:
                store.append("a", [_raw()], expected=expected)
            said = (caught.value.stream, caught.value.expected, caught.value.actual)
            assert said == ("a", expected, 1)
        assert store.head == 1

    def test_a_condition(self, store: Store) -> None:
        store.append("a", [_raw(tags=("t",)), _raw(type="Other")])
        for match, position in (
            (Match(types=["Other"]), 2),
            (Match(tags=["t"]), 1),
            ([Match(types=["No"]), Match(types=["Thing"], tags=["t"])], 1),
            ((), 1),
        ):
            with pytest.raises(ConditionFailed) as caught:
                store.append("a", [_raw()], condition=Unless(match))
            assert caught.value.position == position
        assert store.head == 2
        store.append("a", [_raw()], condition=Unless(Match(types=["Thing"], tags=["u"])))
        store.append("a", [_raw()], condition=Unless((), after=3))
        assert store.head == 4

    def test_a_key_stores_once(self, store: Store) -> None:
        done = store.append("a", [_raw()], expected=0, key="k")
        store.append("a", [_raw()])
        again = store.append("a", [_raw()], expected=0, key="k")
        assert (again.position, again.versions, again.repeated) == (1, {"a": 1}, True)
        assert not done.repeated
        with pytest.raises(KeyReused):
            store.append("a", [_raw(b"other")], key="k")
        assert store.head == 2

    def test_names_are_not_empty(self, store: Store) -> None:
        for stream, key, checkpoint in (("", "k", ("c", 1)), ("a", "", None), ("a", None, ("", 1))):
            with pytest.raises(ValueError):
                store.append(stream, [_raw()], key=key, checkpoint=checkpoint)
        assert (store.head, store.checkpoint("c")) == (0, None)

    def test_ids_are_unique(self, store: Store) -> None:
        store.append("a", [NewEvent("Thing", b"", id="mine")])
        with pytest.raises(KeyReused):
            store.append("b", [_raw(), NewEvent("Thing", b"", id="mine")])
        assert store.head == 1

    def test_checkpoints_move_forward_with_a_commit(self, store: Store) -> None:
        assert store.checkpoint("c") is None
        store.append("a", [_raw()], checkpoint=("c", 5))
        assert store.checkpoint("c") == 5
        for position in (4, 5):
            with pytest.raises(CheckpointBehind) as caught:
                store.append("a", [_raw()], checkpoint=("c", position))
            said = (caught.value.name, caught.value.current, caught.value.given)
            assert said == ("c", 5, position)
        assert (store.head, store.checkpoint("c")) == (1, 5)
        store.set_checkpoint("c", 6)
        assert store.checkpoint("c") == 6

    def test_many_threads_commit(self, store: Store) -> None:
        lost: list[WrongVersion] = []

        def work(number: int) -> None:
            for _ in range(20):
                try:
                    store.append("one", [_raw()], expected=store.version("one"))
                except WrongVersion as error:
                    lost.append(error)
                store.append(f"own-{number}", [_raw()])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.version("one") + len(lost) == 80
        assert [event.position for event in store.events()] == list(range(1, store.head + 1))
        assert store.verify().ok

    # ---- reading

    def test_what_was_given_comes_back(self, store: Store) -> None:
        before = datetime.now(UTC) - timedelta(seconds=1)
        given = NewEvent(
            "Thing",
            b"\x00\xff",
            id="my id",
            tags=["t", "ü"],
            metadata={"k": "v"},
            correlation_id="trace",
            causation_id="cause",
        )
        store.append("a", [given])
        recorded = next(iter(store.history("a")))
        assert (recorded.position, recorded.stream, recorded.version) == (1, "a", 1)
        assert (recorded.type, recorded.data, recorded.id) == ("Thing", b"\x00\xff", "my id")
        assert (recorded.tags, dict(recorded.metadata)) == (("t", "ü"), {"k": "v"})
        assert (recorded.correlation_id, recorded.causation_id) == ("trace", "cause")
        assert before <= recorded.time <= datetime.now(UTC) + timedelta(seconds=1)
        with pytest.raises(UnknownType):
            _ = recorded.event

    def test_the_events_of_a_commit_share_their_cause(self, store: Store) -> None:
        store.append("a", [_raw(), _raw()])
        store.append("a", [_raw()])
        first, second, third = store.history("a")
        assert first.causation_id == second.causation_id != third.causation_id
        assert first.correlation_id == second.correlation_id
        assert len({first.id, second.id, third.id}) == 3
        assert first.time <= second.time <= third.time

    def test_messages(self, store: Store) -> None:
        store.append("a", [_Noted("x")])
        recorded = next(iter(store.events(match=Match(types=[_Noted]))))
        assert (recorded.type, recorded.event) == ("escqrs.testing.Noted", _Noted("x"))

    def test_history(self, store: Store) -> None:
        for number in range(10):
            store.append("a", [_raw(bytes([number]))])
            store.append("b", [_raw()])

        def versions(**options: int | bool | None) -> list[int]:
            return [event.version for event in store.history("a", **options)]  # type: ignore[arg-type]

        assert versions() == list(range(1, 11))
        assert versions(after=3, upto=5) == [4, 5]
        assert versions(after=3, limit=2) == [4, 5]
        assert versions(reverse=True, limit=2) == [10, 9]
        assert versions(reverse=True, after=8) == [10, 9]
        assert versions(reverse=True, upto=2) == [2, 1]
        assert versions(limit=0) == versions(upto=0) == versions(after=10) == []
        assert versions(upto=99) == versions(limit=99) == versions()
        assert list(store.history("nobody")) == []
        assert [event.data[0] for event in store.history("a")] == list(range(10))

    def test_events(self, store: Store) -> None:
        for number in range(5):
            store.append(f"s{number}", [_raw(tags=("even",) if number % 2 == 0 else ())])
            store.append("t", [_raw(type="Other")])

        def positions(**options: object) -> list[int]:
            return [event.position for event in store.events(**options)]  # type: ignore[arg-type]

        assert positions() == list(range(1, 11))
        assert positions(after=3, upto=5) == [4, 5]
        assert positions(reverse=True, limit=2) == [10, 9]
        assert positions(reverse=True, upto=3, after=1) == [3, 2]
        assert positions(limit=0) == positions(upto=0) == positions(after=10) == []
        assert positions(match=Match(types=["Other"])) == [2, 4, 6, 8, 10]
        assert positions(match=Match(tags=["even"])) == [1, 5, 9]
        both = [Match(types=["Other"]), Match(tags=["even"])]
        assert positions(match=both, after=4, limit=3) == [5, 6, 8]
        assert positions(match=both, reverse=True, limit=2) == [10, 9]
        assert positions(match=Match(types=["Other"], tags=["even"])) == []

    def test_streams(self, store: Store) -> None:
        store.commit([Write("b", [_raw()]), Write("a", [_raw(), _raw()])])
        assert list(store.streams()) == [("b", 1), ("a", 2)]

    def test_an_iteration_ends_where_the_store_ended(self, store: Store) -> None:
        store.append("a", [_raw(), _raw()])
        iteration = iter(store.events())
        next(iteration)
        store.append("a", [_raw()])
        assert [event.position for event in iteration] == [2]

    # ---- following

    def test_a_feed(self, store: Store) -> None:
        store.append("a", [_raw(), _raw(type="Other")])
        with store.subscribe(after=0, match=Match(types=["Other"])) as feed:
            assert feed.next(timeout=SECONDS).position == 2
            with pytest.raises(Timeout):
                feed.next(timeout=0)
            thread = threading.Thread(target=store.append, args=("a", [_raw(type="Other")]))
            thread.start()
            assert feed.next(timeout=SECONDS).position == feed.position == 3
            thread.join()
        assert list(feed) == []

    def test_an_awaited_feed(self, store: Store) -> None:
        async def main() -> list[int]:
            found: list[int] = []
            async with asyncio.timeout(SECONDS):
                async for recorded in store.subscribe():
                    found.append(recorded.position)
                    if len(found) == 2:
                        break
                    await asyncio.to_thread(store.append, "a", [_raw()])
            return found

        store.append("a", [_raw()])
        assert asyncio.run(main()) == [1, 2]

    # ---- snapshots

    def test_snapshots(self, store: Store) -> None:
        store.append("a", [_raw() for _ in range(5)])
        assert store.snapshot("a") is None
        for version in (1, 3, 5):
            store.save_snapshot("a", version, "State", bytes([version]))
        store.save_snapshot("a", 3, "State", b"again")

        def found(upto: int | None = None) -> tuple[int, str, bytes] | None:
            one = store.snapshot("a", upto=upto)
            return None if one is None else (one.version, one.type, one.data)

        assert found() == (5, "State", b"\x05")
        assert found(4) == (3, "State", b"again")
        assert found(0) is None
        store.delete_snapshots("a", upto=3)
        assert (found(4), found()) == (None, (5, "State", b"\x05"))
        store.delete_snapshots("a")
        assert found() is None
        for version in (0, 6):
            with pytest.raises(ValueError):
                store.save_snapshot("a", version, "State", b"")
        assert store.snapshot("nobody") is None

    # ---- the whole

    def test_it_verifies(self, store: Store) -> None:
        store.commit([Write("a", [_raw(), _Noted("x")]), Write("b", [_raw()])])
        found = store.verify()
        assert (found.ok, found.events, found.streams) == (True, 3, 2)
        assert store.stats().types == {"Thing": 2, "escqrs.testing.Noted": 1}

    # ---- deleting: of providers that can

    @pytest.fixture
    def shrinking(self, store: Store) -> Store:
        """One with two streams: positions 1, 2, 4, 5 and 3, 6; and a snapshot of the first at 3."""
        if not store._deletes:
            pytest.skip("this provider deletes nothing")
        for _ in range(2):
            store.append("a", [_raw(tags=("t",)), _raw()])
            store.append("b", [_raw()])
        store.save_snapshot("a", 3, "State", b"s")
        return store

    def test_truncate(self, shrinking: Store) -> None:
        with pytest.raises(NotCovered):
            shrinking.truncate("a", 4)
        assert shrinking.truncate("a", 2) == 2
        assert shrinking.truncate("a", 2) == 0
        assert (shrinking.truncated("a"), shrinking.truncated("b")) == (2, 0)
        assert (shrinking.version("a"), shrinking.head) == (4, 6)
        assert [one.version for one in shrinking.history("a", after=2)] == [3, 4]
        assert [one.position for one in shrinking.events(deleted="skip")] == [3, 4, 5, 6]
        assert shrinking.append("a", [_raw()], expected=4) == Commit(7, {"a": 5})
        assert shrinking.truncate("b", 2, force=True) == 2
        assert shrinking.verify().ok

    def test_who_reads_what_is_gone_is_told(self, shrinking: Store) -> None:
        shrinking.truncate("a", 2)
        with pytest.raises(Deleted) as caught:
            list(shrinking.history("a"))
        assert (caught.value.stream, caught.value.version) == ("a", 2)
        assert [one.version for one in shrinking.history("a", deleted="skip")] == [3, 4]
        for match in ((), Match(types=["Thing"]), Match(tags=["t"]), Match(types=["None"])):
            with pytest.raises(Deleted) as caught:
                list(shrinking.events(match=match))
            assert caught.value.position == 2
        tagged = shrinking.events(match=Match(tags=["t"]), deleted="skip")
        assert [one.position for one in tagged] == [4]
        with shrinking.subscribe() as feed, pytest.raises(Deleted):
            feed.next(timeout=60)
        with shrinking.subscribe(deleted="skip") as feed:
            assert [feed.next(timeout=60).position for _ in range(4)] == [3, 4, 5, 6]
        newest = shrinking.events(reverse=True)
        assert [next(newest).position for _ in range(4)] == [6, 5, 4, 3]
        with pytest.raises(Deleted):
            next(newest)

    def test_delete(self, shrinking: Store) -> None:
        assert shrinking.delete("a") == 4
        assert shrinking.delete("a") == 0
        assert shrinking.deleted("a")
        assert not shrinking.deleted("b")
        assert (shrinking.version("a"), shrinking.head) == (4, 6)
        assert shrinking.snapshot("a") is None
        assert dict(shrinking.streams()) == {"b": 2}
        for expected in (None, 0, 4):
            with pytest.raises(Deleted) as caught:
                shrinking.append("a", [_raw()], expected=expected)
            assert caught.value.stream == "a"
        with pytest.raises(Deleted):
            shrinking.commit([Write("b", [_raw()]), Write("a", [_raw()])])
        assert (shrinking.version("b"), shrinking.head) == (2, 6)
        with pytest.raises(ValueError):
            shrinking.delete("unknown")

    def test_retain(self, shrinking: Store) -> None:
        assert shrinking.retain(prefix="", keep=1) == 3
        assert shrinking.retain(prefix="", keep=1, force=True) == 1
        assert [one.position for one in shrinking.events(deleted="skip")] == [5, 6]

    def test_restart(self, store: Store) -> None:
        """Who begins anew, as a failure of its own may ask for, has lost nothing."""
        done = store.append("a", [_raw()], key="k", checkpoint=("c", 4))
        store.save_snapshot("a", 1, "State", b"s")
        feed = store.subscribe(after=1)
        if type(store).restart is Store.restart and type(store).commit is not Store.commit:
            with pytest.raises(TypeError, match="restart"):
                store.restart()
            return
        store.restart()
        store.restart()
        assert (store.head, store.version("a"), store.checkpoint("c")) == (1, 1, 4)
        assert store.snapshot("a") is not None
        again = store.append("a", [_raw()], key="k", checkpoint=("c", 4))
        assert (again.position, again.repeated) == (done.position, True)
        with pytest.raises(WrongVersion):
            store.append("a", [_raw()], expected=0)
        store.append("a", [_raw(b"later")], expected=1)
        assert feed.next(timeout=SECONDS).data == b"later"
        assert [recorded.version for recorded in store.history("a")] == [1, 2]
        feed.close()

    def test_after_close_everything_says_so(self, store: Store) -> None:
        store.append("a", [_raw()])
        feed = store.subscribe()
        store.close()
        store.close()
        for call in (
            lambda: store.append("a", [_raw()]),
            lambda: store.head,
            lambda: store.version("a"),
            lambda: list(store.history("a")),
            lambda: list(store.events()),
            lambda: store.checkpoint("c"),
            lambda: store.snapshot("a"),
            feed.next,
        ):
            with pytest.raises(Closed):
                call()

    def test_what_was_stored_is_there_when_opened_again(self, tmp_path: Path) -> None:
        if not self.persistent:
            pytest.skip("this provider keeps nothing")
        store = self.open(tmp_path)
        store.append("a", [_raw(tags=("t",)), _raw()], key="k", checkpoint=("c", 7))
        store.save_snapshot("a", 2, "State", b"s")
        events = list(store.events())
        store.close()
        store = self.open(tmp_path)
        assert list(store.events()) == events
        assert (store.checkpoint("c"), store.version("a")) == (7, 2)
        found = store.snapshot("a")
        assert found is not None
        assert found.data == b"s"
        assert store.append("a", [_raw(tags=("t",)), _raw()], key="k").repeated
        assert store.append("a", [_raw()], expected=2).position == 3
        store.close()
