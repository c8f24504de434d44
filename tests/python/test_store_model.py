"""es.Store against a model of it in plain Python, and against SIGKILL."""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
from pathlib import Path

import escqrs as es
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support import SECONDS, finish, start

STREAMS = st.sampled_from(["a", "b", "c"])
TYPES = st.sampled_from(["A", "B", "C"])
TAGS = st.lists(st.sampled_from(["x", "y", "z"]), max_size=2).map(tuple)
EVENTS = st.lists(st.tuples(TYPES, TAGS, st.none() | st.integers(0, 6)), max_size=3)
MATCH = st.builds(es.Match, st.lists(TYPES, max_size=2), TAGS)
MATCHES = st.lists(MATCH, max_size=2)
BACK = st.integers(0, 12)


@dataclasses.dataclass
class Row:
    stream: str
    version: int
    type: str
    tags: tuple[str, ...]
    id: str | None


class Conflict(Exception):
    pass


class Model:
    """What es.Store promises, in a list."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.checkpoints: dict[str, int] = {}
        self.keys: dict[str, tuple[object, es.Commit]] = {}

    def version(self, stream: str) -> int:
        return sum(row.stream == stream for row in self.rows)

    def fits(self, row: Row, matches: list[es.Match]) -> bool:
        return not matches or any(
            (not one.types or row.type in one.types) and set(one.tags) <= set(row.tags)
            for one in matches
        )

    def positions(self, matches: list[es.Match], after: int = 0) -> list[int]:
        rows = enumerate(self.rows, 1)
        return [at for at, row in rows if at > after and self.fits(row, matches)]

    def commit(self, writes, expected, unless, checkpoint, key) -> tuple[type | None, object]:
        ids = [given for _, events in writes for _, _, given in events if given is not None]
        if len(set(ids)) < len(ids):
            return es.KeyReused, None
        if key in self.keys:
            before, done = self.keys[key]
            same = before == writes
            return (
                (None, dataclasses.replace(done, repeated=True)) if same else (es.KeyReused, None)
            )
        for stream, _events in writes:
            if expected is not None and expected != self.version(stream):
                return es.WrongVersion, (stream, expected, self.version(stream))
        if unless is not None:
            matching = self.positions(*unless)
            if matching:
                return es.ConditionFailed, matching[0]
        taken = {row.id for row in self.rows}
        if taken & {f"id-{given}" for given in ids}:
            return es.KeyReused, None
        if checkpoint is not None and checkpoint[1] <= self.checkpoints.get(checkpoint[0], -1):
            return es.CheckpointBehind, None
        return None, self.store(writes, checkpoint, key)

    def store(self, writes, checkpoint, key) -> es.Commit:
        for stream, events in writes:
            for name, tags, given in events:
                made = None if given is None else f"id-{given}"
                self.rows.append(Row(stream, self.version(stream) + 1, name, tags, made))
        if checkpoint is not None:
            self.checkpoints[checkpoint[0]] = checkpoint[1]
        done = es.Commit(len(self.rows), {stream: self.version(stream) for stream, _ in writes})
        if key is not None:
            self.keys[key] = (writes, done)
        return done


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "s.db"
        self.model = Model()
        self.store = es.Store(self.path, durability="normal")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(
        writes=st.lists(st.tuples(STREAMS, EVENTS), max_size=2, unique_by=lambda one: one[0]),
        expected=st.none() | st.integers(0, 4),
        unless=st.none() | st.tuples(MATCHES, BACK),
        checkpoint=st.none() | st.tuples(st.sampled_from(["p", "q"]), st.integers(0, 9)),
        key=st.none() | st.sampled_from(["k", "l"]),
    )
    def commit(self, writes, expected, unless, checkpoint, key) -> None:
        head = len(self.model.rows)
        if unless is not None:
            unless = (unless[0], max(0, head - unless[1]))
        error, detail = self.model.commit(writes, expected, unless, checkpoint, key)
        given = [
            es.Write(
                stream,
                [
                    es.NewEvent(name, b"", tags=tags, id=None if one is None else f"id-{one}")
                    for name, tags, one in events
                ],
                expected,
            )
            for stream, events in writes
        ]
        condition = None if unless is None else es.Unless(*unless)
        try:
            done = self.store.commit(given, condition=condition, checkpoint=checkpoint, key=key)
        except es.Conflict as conflict:
            assert type(conflict) is error, (conflict, error)
            if isinstance(conflict, es.WrongVersion):
                assert (conflict.stream, conflict.expected, conflict.actual) == detail
            if isinstance(conflict, es.ConditionFailed):
                assert conflict.position == detail
        else:
            assert error is None
            assert done == detail

    @precondition(lambda self: self.model.rows)
    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = es.Store(self.path, durability="normal")

    @rule(
        matches=MATCHES,
        after=BACK,
        upto=st.none() | BACK,
        reverse=st.booleans(),
        limit=st.none() | BACK,
    )
    def events(self, matches, after, upto, reverse, limit) -> None:
        wanted = [at for at in self.model.positions(matches, after) if upto is None or at <= upto]
        wanted = wanted[::-1] if reverse else wanted
        found = self.store.events(
            after=after, upto=upto, match=matches, reverse=reverse, limit=limit
        )
        assert [one.position for one in found] == wanted[:limit]

    @rule(
        stream=STREAMS,
        after=BACK,
        upto=st.none() | BACK,
        reverse=st.booleans(),
        limit=st.none() | BACK,
    )
    def history(self, stream, after, upto, reverse, limit) -> None:
        last = self.model.version(stream)
        wanted = list(range(after + 1, min(last, last if upto is None else upto) + 1))
        wanted = wanted[::-1] if reverse else wanted
        found = self.store.history(stream, after=after, upto=upto, reverse=reverse, limit=limit)
        assert [one.version for one in found] == wanted[:limit]

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        rows = [
            Row(
                one.stream,
                one.version,
                one.type,
                one.tags,
                one.id if one.id.startswith("id-") else None,
            )
            for one in self.store.events()
        ]
        assert rows == self.model.rows
        for name in ("p", "q"):
            assert self.store.checkpoint(name) == self.model.checkpoints.get(name)
        assert [self.store.version(name) for name in "abc"] == [
            self.model.version(name) for name in "abc"
        ]


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_killed_while_committing(tmp_path: Path) -> None:
    """What was acknowledged is there; each commit is there whole or not at all."""
    path = tmp_path / "s.db"
    total = 0
    for round_number in range(3):
        process = start(
            """
            store = es.Store(sys.argv[1])
            i = store.head
            while True:
                i += 1
                events = [es.NewEvent("A", str(i).encode(), tags=["t"])] * 3
                store.commit(
                    [es.Write("a", events[:1]), es.Write("b", events[1:])],
                    checkpoint=("c", i), key=f"k{i}",
                )
                print(i, flush=True)
            """,
            path,
        )
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20 + 7 * round_number)]
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = finish(process, status=-signal.SIGKILL, seconds=SECONDS)
        acknowledged += [int(line) for line in rest.split("\n")[:-1] if line.isdigit()]
        with es.Store(path) as store:
            positions = [one.position for one in store.events()]
            assert positions == list(range(1, store.head + 1))
            assert store.head % 3 == 0
            assert store.head >= total + 3 * len(acknowledged)
            assert store.version("a") * 2 == store.version("b")
            assert (store.checkpoint("c") or 0) >= acknowledged[-1]
            assert [one.position for one in store.events(match=es.Match(tags=["t"]))] == positions
            assert (
                len([one for one in store.events() if one.data == str(acknowledged[-1]).encode()])
                == 3
            )
            total = store.head
