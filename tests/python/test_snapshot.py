"""Snapshots: when they are taken, which are kept, and what is done with one that is no good."""

from __future__ import annotations

import sqlite3
import types
from contextlib import closing
from pathlib import Path
from typing import Any

import escqrs as es
import pytest


class Count(es.Command[int]):
    by: int = 1


class Counted(es.Event):
    by: int


_factor = 1


def counter(**settings: Any) -> Any:
    """The same aggregate with other settings."""

    class Counter(es.Aggregate, name="Counter", **settings):
        total: int
        seen: list[int]

        @es.handles
        def count(self, cmd: Count) -> int:
            self.emit(Counted(cmd.by))
            return self.total

        @es.applies
        def counted(self, event: Counted) -> None:
            self.total += event.by * _factor  # what replay must not do
            self.seen.append(event.by)

    return Counter


def versions(path: Path, stream: str = "Counter/a") -> list[int]:
    with closing(sqlite3.connect(path)) as db, db:
        rows = db.execute(
            "SELECT version FROM escqrs_snapshot JOIN escqrs_stream ON id = stream WHERE name = ?"
            " ORDER BY version",
            (stream,),
        )
        return [version for (version,) in rows]


# ---- when ----------------------------------------------------------------------------------------


def test_every_so_many_events_and_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, made := counter(snapshot_every=4)) as shop:
        for _ in range(18):
            shop[made, "a"].ask(Count())
        shop.flush()
        assert versions(path) == [12, 16]


@pytest.mark.parametrize(("keep", "left"), [(1, [9]), (3, [7, 8, 9]), (0, list(range(1, 10)))])
def test_snapshot_keep(tmp_path: Path, keep: int, left: list[int]) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, made := counter(snapshot_every=1, snapshot_keep=keep)) as shop:
        for _ in range(9):
            shop[made, "a"].ask(Count())
        shop.flush()
        assert versions(path) == left
        assert [shop[made, "a"].state_at(version).total for version in range(10)] == list(range(10))


def test_by_replay_time(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, made := counter(snapshot_every=0)) as shop:
        shop[made, "a"].ask(Count())
        shop[made, "a"].ask(Count())
    with es.open(path, made := counter(snapshot_every=0, snapshot_after=1e9)) as shop:
        assert shop[made, "a"].state.total == 2
    assert versions(path) == []
    with es.open(path, made := counter(snapshot_every=0, snapshot_after=1e-9)) as shop:
        assert shop[made, "a"].state.total == 2  # loading it took longer than that
        shop.flush()
        assert versions(path) == [2]
        shop[made, "a"].ask(Count())
        shop.flush()
        assert versions(path) == [2, 3]


def test_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, made := counter(snapshot_every=0)) as shop:
        assert shop[made, "a"].snapshot() == 0
        assert versions(path) == []
        shop[made, "a"].tell(Count(3))
        shop[made, "a"].tell(Count(4))
        assert shop[made, "a"].snapshot() == 2
        assert versions(path) == [2]
        assert shop[made, "a"].snapshot() == 2
    with es.open(path, made, readonly=True) as shop, pytest.raises(es.ReadOnly):
        shop[made, "a"].snapshot()
    with closing(sqlite3.connect(path)) as db, db:  # it is used: the events before it are not read
        db.execute("UPDATE escqrs_journal SET data = x'00' WHERE version = 1")
    with es.open(path, made) as shop:
        assert shop[made, "a"].state.total == 7
    with pytest.raises(es.Closed):
        shop[made, "a"].snapshot()


def test_a_handler_may_ask_for_one_of_another_entity_but_not_of_itself() -> None:
    class Save(es.Command[int]):
        of: str

    class Saver(es.Aggregate, name="Saver"):
        @es.handles
        def save(self, cmd: Save) -> int:
            return self.system[made if cmd.of == "a" else Saver, cmd.of].snapshot()

    with es.open(":memory:", Saver, made := counter(snapshot_every=0)) as shop:
        shop[made, "a"].ask(Count())
        assert shop[Saver, "s"].ask(Save("a")) == 1
        with pytest.raises(es.Deadlock):
            shop[Saver, "s"].ask(Save("s"))


def test_on_passivation(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    made = counter(snapshot_every=0, snapshot_on_passivation=True)
    with es.open(path, made, max_entities=1) as shop:
        for id in "abc":
            shop[made, id].ask(Count())
        shop.flush()
        assert versions(path) == [1]  # the others needed the room
    assert versions(path, "Counter/b") == versions(path, "Counter/c") == [1]  # closing too
    with es.open(path, made) as shop:
        assert shop[made, "a"].state.total == 1
        shop[made, "b"].ask(Count())
    assert versions(path) == [1]  # it has not changed
    assert versions(path, "Counter/b") == [1, 2]


def test_the_settings_may_be_attributes_and_are_inherited() -> None:
    class Base(es.Aggregate, snapshot_keep=5, snapshot_after=2):
        snapshot_every = 7
        snapshot_on_passivation = True

    class Derived(Base, snapshot_keep=1):
        pass

    assert tuple(Base.__escqrs_snapshots__) == (7, 2, 5, True)
    assert tuple(Derived.__escqrs_snapshots__) == (7, 2, 1, True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"snapshot_every": -1},
        {"snapshot_every": 2.0},
        {"snapshot_keep": True},
        {"snapshot_keep": -1},
        {"snapshot_after": 0},
        {"snapshot_after": "1s"},
        {"snapshot_after": float("nan")},
        {"snapshot_on_passivation": 1},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(wrong))):
        counter(**wrong)


# ---- no good -------------------------------------------------------------------------------------


def test_a_damaged_one_is_passed_over_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shop.db"
    made = counter(snapshot_every=2)
    with es.open(path, made) as shop:
        for _ in range(5):
            shop[made, "a"].ask(Count())
    for damaged in ([4], [2, 4]):
        with closing(sqlite3.connect(path)) as db, db:
            db.executemany(
                "UPDATE escqrs_snapshot SET data = x'0807' WHERE version = ?",
                [(version,) for version in damaged],
            )
        caplog.clear()
        with es.open(path, made, readonly=True) as shop:
            assert shop[made, "a"].state.total == 5
        assert "does not verify and was passed over" in caplog.text
        assert "Counter/a" in caplog.text


def test_an_outdated_one_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, first := counter(snapshot_every=2)) as shop:
        for _ in range(3):
            shop[first, "a"].ask(Count())

    class Counter(es.Aggregate, snapshot_every=2):
        total: int

        @es.handles
        def count(self, cmd: Count) -> int:
            self.emit(Counted(cmd.by))
            return self.total

        @es.applies
        def counted(self, event: Counted) -> None:
            self.total += 10 * event.by

    with es.open(path, Counter) as shop:
        assert shop[Counter, "a"].state.total == 30
        shop.flush()
        assert versions(path) == [2, 3]
        found = shop.verify_snapshots()
        assert (found.ok, found.snapshots, found.outdated) == (True, 2, 1)
    assert "is not used" in caplog.text


def with_defaults(function: Any, defaults: Any = None, by_name: Any = None) -> Any:
    made = types.FunctionType(function.__code__, globals(), function.__name__)
    made.__annotations__ = function.__annotations__
    made.__defaults__, made.__kwdefaults__ = defaults, by_name
    return made


def test_the_fingerprint_covers_defaults_and_closures() -> None:
    def fingerprint(defaults: Any = None, by_name: Any = None, closed: Any = None) -> str:
        def counted(self: Any, event: Counted) -> None:
            self.total += event.by

        def closing(self: Any, event: Counted) -> None:
            self.total += event.by * closed

        function = closing if closed is not None else with_defaults(counted, defaults, by_name)
        if defaults or by_name:
            function = es.applies(Counted)(function)
        namespace = {"__annotations__": {"total": int}, "counted": es.applies(Counted)(function)}
        cls: Any = type(es.Aggregate)("Other", (es.Aggregate,), namespace)
        from escqrs import _aggregate

        return _aggregate.describe(cls)[2]

    plain = fingerprint()
    assert plain == fingerprint()
    several = [
        plain,
        fingerprint(by_name={"factor": 1}),
        fingerprint(by_name={"factor": 2}),
        fingerprint(by_name={"other": 2}),
        fingerprint(defaults=(1,)),
        fingerprint(defaults=(2,)),
        fingerprint(closed=1),
        fingerprint(closed=2),
        fingerprint(closed=lambda: 1),
        fingerprint(closed=lambda: 2),
    ]
    assert len(set(several)) == len(several)
    assert fingerprint(by_name={"factor": object()}) == fingerprint(by_name={"factor": object()})
    assert fingerprint(closed={"b", "a"}) == fingerprint(closed={"a", "b"})


# ---- verify_snapshots ----------------------------------------------------------------------------


def test_verify_snapshots_names_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.db"
    made = counter(snapshot_every=2)
    with es.open(path, made) as shop:
        for id in ("a", "b", "c"):
            for _ in range(5):
                shop[made, id].ask(Count())
        shop.flush()
        shop.store.append("Other/x", [es.NewEvent("Counted", b"")])
        shop.store.save_snapshot("Other/x", 1, "Other", b"")
        found = shop.verify_snapshots()
        assert (found.ok, found.snapshots, found.streams, found.outdated) == (True, 6, 3, 0)
        progress: list[tuple[int, int]] = []
        shop.verify_snapshots(progress=lambda *seen: progress.append(seen))
        assert progress[-1][0] == 6

        monkeypatch.setattr(f"{__name__}._factor", 2)
        shop[made, "d"].ask(Count())
        shop[made, "d"].ask(Count())
        shop.flush()
        monkeypatch.undo()
        found = shop.verify_snapshots()
        assert not found.ok
        (problem,) = found.problems
        assert (problem.part, problem.stream, problem.version) == ("snapshot", "Counter/d", 2)
        assert "total is 4, and the events make 2" in problem.text
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE escqrs_snapshot SET data = x'' WHERE stream = 1 AND version = 4")
    with es.open(path, made) as shop:
        found = shop.verify_snapshots()
        assert [(one.stream, one.version) for one in found.problems] == [
            ("Counter/a", 4),
            ("Counter/d", 2),
        ]
        assert "checksum" in found.problems[0].text
        assert "2 problems" in repr(found)


def test_verify_snapshots_of_a_truncated_stream(tmp_path: Path) -> None:
    made = counter(snapshot_every=2)
    with es.open(tmp_path / "shop.db", made) as shop:
        for _ in range(5):
            shop[made, "a"].ask(Count())
        shop.flush()
        shop.store.truncate("Counter/a", 4)
        found = shop.verify_snapshots()
        assert (found.ok, found.snapshots) == (True, 1)
        assert shop[made, "a"].snapshot() == 5


def test_verify_snapshots_says_what_cannot_be_folded(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    made = counter(snapshot_every=2)
    with es.open(path, made) as shop:
        shop[made, "a"].ask(Count())
        shop[made, "a"].ask(Count())
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE escqrs_journal SET data = x'0809' WHERE version = 1")
    with es.open(path, made) as shop:
        (problem,) = shop.verify_snapshots().problems
        assert problem.stream == "Counter/a"
        assert "cannot be made of the events" in problem.text
