"""Deleting against a model of it in plain Python, with copies, reopening and SIGKILL."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import escqrs as es
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support import SECONDS, finish, start

STREAMS = st.sampled_from(["a", "b", "c"])
TAGS = st.sampled_from([(), ("x",), ("y",), ("x", "y")])


class Model(RuleBasedStateMachine):
    """A list of (stream, version, tags) by position, None where it was deleted."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store.db"
        self.store = es.Store(self.path)
        self.rows: list[tuple[str, int, tuple[str, ...]] | None] = []
        self.versions: dict[str, int] = {}
        self.truncated: dict[str, int] = {}
        self.closed: set[str] = set()
        self.snapshots: dict[str, set[int]] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    def kept(self, stream: str) -> list[int]:
        return [row[1] for row in self.rows if row is not None and row[0] == stream]

    def erase(self, stream: str, upto: int) -> int:
        gone = 0
        for at, row in enumerate(self.rows):
            if row is not None and row[0] == stream and row[1] <= upto:
                self.rows[at] = None
                gone += 1
        self.truncated[stream] = max(self.truncated.get(stream, 0), upto)
        return gone

    @rule(stream=STREAMS, count=st.integers(1, 140), tags=TAGS)
    def append(self, stream: str, count: int, tags: tuple[str, ...]) -> None:
        events = [es.NewEvent("E", b"", tags=tags)] * count
        if stream in self.closed:
            with pytest.raises(es.Deleted):
                self.store.append(stream, events)
            return
        version = self.versions.get(stream, 0)
        done = self.store.append(stream, events, expected=version)
        self.rows += [(stream, version + number, tags) for number in range(1, count + 1)]
        self.versions[stream] = version + count
        assert done.position == len(self.rows)

    @rule(stream=STREAMS, back=st.integers(0, 200))
    def snapshot(self, stream: str, back: int) -> None:
        version = self.versions.get(stream, 0) - back
        if version < 1 or stream in self.closed:
            return
        self.store.save_snapshot(stream, version, "S", b"")
        self.snapshots.setdefault(stream, set()).add(version)

    @rule(stream=STREAMS, back=st.integers(0, 200), force=st.booleans())
    def truncate(self, stream: str, back: int, force: bool) -> None:
        upto = self.versions.get(stream, 0) - back
        if upto < 1:
            return
        if stream in self.closed:
            with pytest.raises(es.Deleted):
                self.store.truncate(stream, upto, force=force)
        elif upto <= self.truncated.get(stream, 0):
            assert self.store.truncate(stream, upto, force=force) == 0
        elif not force and max(self.snapshots.get(stream, set()), default=0) < upto:
            with pytest.raises(es.NotCovered):
                self.store.truncate(stream, upto)
        else:
            assert self.store.truncate(stream, upto, force=force) == self.erase(stream, upto)
            left = {one for one in self.snapshots.get(stream, set()) if one >= upto}
            self.snapshots[stream] = left

    @rule(stream=STREAMS)
    def delete(self, stream: str) -> None:
        if stream not in self.versions:
            with pytest.raises(ValueError):
                self.store.delete(stream)
            return
        assert self.store.delete(stream) == self.erase(stream, self.versions[stream])
        self.closed.add(stream)
        self.snapshots[stream] = set()

    @rule(keep=st.integers(0, 300), force=st.booleans())
    def retain(self, keep: int, force: bool) -> None:
        gone = 0
        for stream in self.versions.keys() - self.closed:
            upto = self.versions[stream] - keep
            if not force:
                upto = min(upto, max(self.snapshots.get(stream, set()), default=0))
            if upto > self.truncated.get(stream, 0):
                gone += self.erase(stream, upto)
                left = {one for one in self.snapshots.get(stream, set()) if one >= upto}
                self.snapshots[stream] = left
        assert self.store.retain(prefix="", keep=keep, force=force) == gone

    @rule()
    def compact(self) -> None:
        assert self.store.compact() >= 0

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = es.Store(self.path)

    @rule()
    def clone(self) -> None:
        path = self.path.with_name(f"{self.path.stem}x.db")
        with self.store:
            self.store.backup(path)
        self.path = path
        self.store = es.Store(path)

    @rule(stream=STREAMS, after=st.integers(0, 300), limit=st.none() | st.integers(1, 50))
    def read_a_stream(self, stream: str, after: int, limit: int | None) -> None:
        gone = self.truncated.get(stream, 0)
        there = [one for one in self.kept(stream) if one > after]
        left = self.store.history(stream, after=after, limit=limit, deleted="skip")
        assert [one.version for one in left] == there[:limit]
        if after < gone:
            with pytest.raises(es.Deleted) as failure:
                list(self.store.history(stream, after=after, limit=limit))
            assert failure.value.version == gone
        else:
            found = self.store.history(stream, after=after, limit=limit)
            assert [one.version for one in found] == there[:limit]
        newest = []
        try:
            for one in self.store.history(stream, after=after, limit=limit, reverse=True):
                newest.append(one.version)
            assert after >= gone or len(newest) == limit
        except es.Deleted:
            assert after < gone and newest == there[::-1]
        assert newest == there[::-1][:limit]

    @rule(after=st.integers(0, 600), tags=TAGS, reverse=st.booleans())
    def read_all(self, after: int, tags: tuple[str, ...], reverse: bool) -> None:
        match = es.Match(tags=tags) if tags else ()
        expected, until_gap, gap = [], [], False
        places = range(after + 1, len(self.rows) + 1)
        for position in reversed(places) if reverse else places:
            row = self.rows[position - 1]
            gap = gap or row is None
            if row is not None and set(tags) <= set(row[2]):
                expected.append(position)
                if not gap:
                    until_gap.append(position)
        skipping = self.store.events(after=after, match=match, reverse=reverse, deleted="skip")
        assert [one.position for one in skipping] == expected
        found = []
        try:
            for one in self.store.events(after=after, match=match, reverse=reverse):
                found.append(one.position)
            assert not gap
        except es.Deleted as error:
            assert gap and error.position is not None
            assert self.rows[error.position - 1] is None
            assert error.position == len(self.rows) or self.rows[error.position] is not None
        assert found == until_gap

    @invariant()
    def knows_all(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.head == len(self.rows)
        for stream, version in self.versions.items():
            assert self.store.version(stream) == version
            assert self.store.truncated(stream) == self.truncated.get(stream, 0)
            assert self.store.deleted(stream) == (stream in self.closed)
        found = self.store.verify()
        assert found.ok, found
        assert found.events == sum(row is not None for row in self.rows)


Model.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestDeletingAgainstAModel = Model.TestCase


KILLED = """
store = es.Store(sys.argv[1])
event = es.NewEvent("E", b"x" * 200, tags=["t"])
for number in range(10_000):
    name = f"s{number}"
    store.append(name, [event] * 150)
    store.append("all", [event] * 10)
    print("stored", number, flush=True)
    store.truncate(name, 140, force=True)
    print("truncated", number, flush=True)
    if number % 3 == 0:
        store.delete(name)
        print("deleted", number, flush=True)
    if number % 4 == 0:
        store.compact()
"""


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 8, 13, 21, 34])
def test_a_killed_process_has_deleted_all_or_nothing(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "store.db"
    process = start(KILLED, path)
    assert process.stdout is not None
    said = [process.stdout.readline().split() for _ in range(lines)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = finish(process, status=-signal.SIGKILL, seconds=SECONDS)
    said += [line.split() for line in rest.splitlines() if len(line.split()) == 2]
    with es.Store(path) as store:
        for word, number in said:
            name = f"s{number}"
            if word == "truncated":
                assert store.truncated(name) in (140, 150)
            if word == "deleted":
                assert store.deleted(name)
        for name, version in list(store.streams()):
            assert version % 10 == 0
            left = len(list(store.history(name, deleted="skip")))
            assert left == version - store.truncated(name)
            assert store.truncated(name) in (0, 140)
        found = store.verify()
        assert found.ok, found
        store.append("after", [es.NewEvent("E", b"")], expected=0)
        store.compact()
        assert store.verify().ok
