"""What becomes of events that a read model cannot take: stop, retry, park."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from boxes import Box, Put, Was
from support import SECONDS, finish, start


class Seen(es.Event):
    key: str


class Picky(es.ReadModel):
    """Takes a key once."""

    schema = "CREATE TABLE picky (key TEXT PRIMARY KEY, number INTEGER, at INTEGER)"
    on_error = "park"
    put = es.sql(Was, "INSERT INTO picky VALUES (:key, :number, :_position)")

    @es.query
    def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute("SELECT key, number FROM picky ORDER BY at").fetchall()


class Guarded(es.ReadModel):
    """Takes what the test allows."""

    schema = "CREATE TABLE guarded (key TEXT, number INTEGER)"
    on_error = "park"
    refused: set[str]
    calls: list[str]

    def __init__(self) -> None:
        self.refused = REFUSED
        self.calls = CALLS

    @es.on(Was)
    def put(self, db: es.Rows, event: Was) -> None:
        self.calls.append(event.key)
        db.execute("INSERT INTO guarded VALUES (?, ?)", (event.key, event.number))
        if event.key in self.refused:
            raise KeyError(f"no {event.key} today")

    @es.query
    def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute("SELECT key FROM guarded ORDER BY rowid").fetchall()


REFUSED: set[str] = set()
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    REFUSED.clear()
    CALLS.clear()


def put(shop: es.System, *pairs: tuple[str, str]) -> None:
    for box, key in pairs:
        shop[Box, box].ask(Put(key))


def test_parks_the_event_and_its_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Box, Picky) as shop:
        put(shop, ("1", "a"), ("2", "b"), ("1", "a"), ("1", "c"), ("2", "d"), ("1", "e"))
        shop.flush(SECONDS)
        assert [key for key, _ in shop[Picky].all()] == ["a", "b", "d"]
        parked = shop[Picky].parked()
        assert [(one.position, one.state) for one in parked] == [
            (3, "parked"), (4, "held"), (6, "held"),
        ]  # fmt: skip
        first = parked[0]
        assert (first.stream, first.version, first.type) == ("Box/1", 2, "Was")
        assert "UNIQUE constraint failed" in (first.error or "")
        assert json.loads(first.event or "") == {"key": "a", "number": "0"} or json.loads(
            first.event or ""
        ) == {"key": "a", "number": 0}
        assert first.attempts == 1 and parked[1].attempts == 0 and parked[1].error is None
        status = shop[Picky].status
        assert (status.state, status.position, status.parked) == ("live", 6, 3)
        assert status.failed_position == 3 and "UNIQUE" in (status.error or "")
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT readmodel, position, state FROM escqrs_dead_letter")
    assert rows.fetchall() == [("Picky", 3, "parked"), ("Picky", 4, "held"), ("Picky", 6, "held")]
    connection.close()


def test_parked_streams_wait_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Box, Picky) as shop:
        put(shop, ("1", "a"), ("1", "a"))
        shop.flush(SECONDS)
    with es.open(path, Box, Picky) as shop:
        put(shop, ("1", "b"), ("2", "c"))
        shop.flush(SECONDS)
        assert [key for key, _ in shop[Picky].all()] == ["a", "c"]
        assert [one.position for one in shop[Picky].parked()] == [2, 3]
        assert shop[Picky].status.parked == 2
    with es.open(path, Box, Picky, readonly=True) as shop:
        assert [one.position for one in shop[Picky].parked()] == [2, 3]


def test_a_stopping_policy_leaves_parked_streams_parked(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Box, Picky) as shop:
        put(shop, ("1", "a"), ("1", "a"))
        shop.flush(SECONDS)

    stopping = type("Picky", (Picky,), {"on_error": "stop", "__qualname__": "other.Picky"})
    with es.open(path, Box, stopping) as shop:
        put(shop, ("1", "b"), ("2", "c"))
        shop.flush(SECONDS)
        assert [key for key, _ in shop[stopping].all()] == ["a", "c"]
        assert [one.position for one in shop[stopping].parked()] == [2, 3]


def test_parked_events_are_retried_in_order() -> None:
    REFUSED.add("b")
    with es.open(":memory:", Box, Guarded) as shop:
        put(shop, ("1", "a"), ("1", "b"), ("2", "b"), ("1", "c"), ("2", "d"), ("3", "e"))
        shop.flush(SECONDS)
        model = shop[Guarded]
        assert model.all() == [("a",), ("e",)]
        assert CALLS == ["a", "b", "b", "e"]
        model.retry()  # fails again
        assert [one.attempts for one in model.parked()] == [2, 2, 0, 0]
        assert model.all() == [("a",), ("e",)]
        one = model.parked()[0]
        assert "KeyError" in (one.error or "") and "in put" in (one.traceback or "")
        assert one.traceback == model.status.traceback or model.status.failed_position != 2
        REFUSED.clear()
        model.retry("Box/2")
        assert model.all() == [("a",), ("e",), ("b",), ("d",)]
        assert [one.stream for one in model.parked()] == ["Box/1", "Box/1"]
        model.retry()
        assert model.all() == [("a",), ("e",), ("b",), ("d",), ("b",), ("c",)]
        assert model.parked() == [] and model.status.parked == 0 and model.status.error is None
        put(shop, ("1", "z"))
        shop.flush(SECONDS)
        assert model.all()[-1] == ("z",)
        with pytest.raises(ValueError, match="not stopped"):
            model.retry()
        with pytest.raises(ValueError, match="Box/1"):
            model.retry("Box/1")


def test_a_parked_event_is_left_out_with_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    REFUSED.add("b")
    with es.open(":memory:", Box, Guarded) as shop:
        put(shop, ("1", "a"), ("1", "b"), ("1", "c"), ("1", "b"), ("1", "d"))
        shop.flush(SECONDS)
        model = shop[Guarded]
        with pytest.raises(ValueError, match="not parked the event at position 1"):
            model.skip(1, "why not")
        with pytest.raises(ValueError, match="counts events from 1"):
            model.skip(0)
        model.skip(2, "double booking, see ticket 7")
        assert model.all() == [("a",), ("c",)]  # up to the next one that fails
        assert [(one.position, one.state) for one in model.parked()] == [
            (4, "parked"), (5, "held"),
        ]  # fmt: skip
        skipped = model.parked(skipped=True)[0]
        assert skipped.state == "skipped" and skipped.reason == "double booking, see ticket 7"
        assert "no b today" in (skipped.error or "")
        with pytest.raises(ValueError, match="not parked"):
            model.skip(2, "again")
    assert any("ticket 7" in one.getMessage() for one in caplog.records)


def test_a_stopped_one_says_why_an_event_was_left_out() -> None:
    stopping = type("Picky", (Picky,), {"on_error": "stop", "__qualname__": "third.Picky"})
    with es.open(":memory:", Box, stopping) as shop:
        put(shop, ("1", "a"), ("1", "a"), ("1", "b"))
        with pytest.raises(es.ReadModelStopped):
            shop.flush(SECONDS)
        status = shop[stopping].status
        assert (status.state, status.attempts, status.lag) == ("stopped", 1, 2)
        assert status.lag_seconds > 0
        shop[stopping].skip(reason="known twin")
        shop.flush(SECONDS)
        assert [key for key, _ in shop[stopping].all()] == ["a", "b"]
        assert shop[stopping].parked() == []
        one = shop[stopping].parked(skipped=True)[0]
        assert (one.position, one.reason, one.stream) == (2, "known twin", "Box/1")
        assert shop[stopping].status.lag_seconds == 0


def test_several_failures_in_one_batch() -> None:
    with es.open(":memory:", Box, Picky) as shop:
        for box in range(20):
            put(shop, *[(str(box), f"{box % 7}")])
        shop.flush(SECONDS)
        assert len(shop[Picky].all()) == 7
        assert [one.state for one in shop[Picky].parked()] == ["parked"] * 13


def test_failures_met_while_catching_up(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Box) as shop:
        for number in range(300):
            shop[Box, str(number)].ask(Put(str(number % 250)))
    with es.open(path, Box, Picky) as shop:
        shop.flush(SECONDS)
        assert len(shop[Picky].all()) == 250
        assert [one.position for one in shop[Picky].parked()] == list(range(251, 301))


@pytest.mark.parametrize("policy", ["INSERT OR ROLLBACK", "INSERT OR FAIL", "INSERT OR ABORT"])
def test_conflict_clauses_that_end_the_transaction(tmp_path: Path, policy: str) -> None:
    class Rough(es.ReadModel):
        schema = "CREATE TABLE rough (key TEXT PRIMARY KEY)"
        on_error = "park"
        put = es.sql(Was, f"{policy} INTO rough VALUES (:key)")

        @es.query
        def count(self, db: es.Rows) -> int:
            return int(db.execute("SELECT count(*) FROM rough").fetchall()[0][0])

    path = tmp_path / "a.db"
    with es.open(path, Box) as shop:
        for number in range(60):
            shop[Box, str(number)].ask(Put(str(number % 50)))
    with es.open(path, Box, Rough) as shop:
        shop.flush(SECONDS)
        assert shop[Rough].count() == 50
        assert [one.position for one in shop[Rough].parked()] == list(range(51, 61))
        assert shop[Rough].status.position == 60


def test_others_go_on_beside_a_parking_one() -> None:
    class All(es.ReadModel):
        schema = "CREATE TABLE everything (at INTEGER PRIMARY KEY)"
        put = es.sql(Was, "INSERT INTO everything VALUES (:_position)")

        @es.query
        def count(self, db: es.Rows) -> int:
            return int(db.execute("SELECT count(*) FROM everything").fetchall()[0][0])

    REFUSED.add("a")
    with es.open(":memory:", Box, Picky, All, Guarded) as shop:
        put(shop, *[("1", "a")] * 5, ("2", "b"))
        shop.flush(SECONDS)
        assert shop[All].count() == 6
        assert [key for key, _ in shop[Picky].all()] == ["a", "b"]
        assert shop[Guarded].all() == [("b",)]
        assert [len(shop[one].parked()) for one in (Picky, Guarded)] == [4, 5]


def test_retries_and_goes_on() -> None:
    met = threading.Event()

    class Patient(es.ReadModel):
        schema = "CREATE TABLE patient (key TEXT)"
        on_error = es.Retry(attempts=1_000_000, delay=0.001, max_delay=0.002)
        attempts = 0

        @es.on(Was)
        def put(self, db: es.Rows, event: Was) -> None:
            db.execute("INSERT INTO patient VALUES (?)", (event.key,))
            if event.key in REFUSED:
                type(self).attempts += 1
                if type(self).attempts >= 3:
                    met.set()
                raise OSError("not there yet")

        @es.query
        def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
            return db.execute("SELECT key FROM patient").fetchall()

    REFUSED.add("b")
    with es.open(":memory:", Box, Patient) as shop:
        put(shop, ("1", "a"), ("1", "b"), ("1", "c"))
        assert met.wait(SECONDS)
        status = shop[Patient].status
        assert (status.state, status.position, status.failed_position) == ("retrying", 1, 2)
        assert status.attempts >= 2 and "not there yet" in (status.traceback or "")
        assert "could not apply position 2" in (status.error or "")
        with pytest.raises(es.Timeout):
            shop.flush(0.01)
        REFUSED.clear()
        shop.flush(SECONDS)
        assert shop[Patient].all() == [("a",), ("b",), ("c",)]
        assert shop[Patient].status.error is None and shop[Patient].status.state == "live"


@pytest.mark.parametrize("then", ["stop", "park"])
def test_retries_end(then: Any) -> None:
    class Tried(Guarded):
        schema = "CREATE TABLE guarded (key TEXT, number INTEGER)"
        on_error = es.Retry(attempts=3, delay=0.001, then=then)

    REFUSED.add("b")
    with es.open(":memory:", Box, Tried) as shop:
        put(shop, ("1", "a"), ("1", "b"), ("2", "c"))
        if then == "stop":
            with pytest.raises(es.ReadModelStopped, match="stopped at position 2"):
                shop.flush(SECONDS)
            assert shop[Tried].status.attempts == 4
            assert shop[Tried].all() == [("a",)]
        else:
            shop.flush(SECONDS)
            assert [one.attempts for one in shop[Tried].parked()] == [4]
            assert shop[Tried].all() == [("a",), ("c",)]
        assert CALLS.count("b") == 4


def test_a_retry_can_be_had_at_once() -> None:
    class Slow(Guarded):
        schema = "CREATE TABLE guarded (key TEXT, number INTEGER)"
        on_error = es.Retry(attempts=9, delay=1e5, max_delay=1e6)

    REFUSED.add("b")
    with es.open(":memory:", Box, Slow) as shop:
        put(shop, ("1", "b"))
        while shop[Slow].status.state != "retrying":
            threading.Event().wait(0.001)
        REFUSED.clear()
        shop[Slow].retry()
        shop.flush(SECONDS)
        assert shop[Slow].all() == [("b",)]


def test_a_rebuild_parks_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    REFUSED.update("bc")
    with es.open(path, Box, Guarded) as shop:
        put(shop, ("1", "a"), ("1", "b"), ("2", "c"), ("3", "d"))
        shop.flush(SECONDS)
        model = shop[Guarded]
        model.skip(2, "never mind")
        assert [one.position for one in model.parked(skipped=True)] == [2, 3]
        REFUSED.discard("b")
        model.rebuild()
        shop.flush(SECONDS)
        assert model.all() == [("a",), ("b",), ("d",)]
        assert [(one.position, one.state) for one in model.parked(skipped=True)] == [(3, "parked")]
        assert model.status.parked == 1
        put(shop, ("2", "x"))
        shop.flush(SECONDS)
        assert [(one.position, one.state) for one in model.parked()] == [
            (3, "parked"), (5, "held"),
        ]  # fmt: skip
        REFUSED.clear()
        model.retry()
        assert model.all() == [("a",), ("b",), ("d",), ("c",), ("x",)]


def test_a_changed_one_parks_while_it_is_built(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    first = type("Picky", (Picky,), {"put": es.sql(Was, "INSERT OR IGNORE INTO picky VALUES"
                                                   " (:key, 1, :_position)"),
                                     "__qualname__": "fourth.Picky"})  # fmt: skip
    with es.open(path, Box, first) as shop:
        put(shop, ("1", "a"), ("1", "a"), ("2", "b"))
        shop.flush(SECONDS)
        assert shop[first].parked() == []
    with es.open(path, Box, Picky) as shop:
        shop.flush(SECONDS)
        assert [key for key, _ in shop[Picky].all()] == ["a", "b"]
        assert [one.position for one in shop[Picky].parked()] == [2]
        assert shop[Picky].status.parked == 1


def test_flush_tells_of_a_rebuild_that_was_given_up() -> None:
    class Moody(Guarded):
        schema = "CREATE TABLE guarded (key TEXT, number INTEGER)"
        on_error = "stop"

    with es.open(":memory:", Box, Moody) as shop:
        put(shop, ("1", "a"), ("1", "b"))
        shop.flush(SECONDS)
        REFUSED.add("a")
        shop[Moody].rebuild()
        with pytest.raises(es.ReadModelStopped, match="rebuilding was given up") as caught:
            shop.flush(SECONDS)
        assert isinstance(caught.value.__cause__, KeyError)
        shop.flush(SECONDS)  # told once; the old rows are followed
        put(shop, ("1", "c"))
        shop.flush(SECONDS)
        assert shop[Moody].all() == [("a",), ("b",), ("c",)]
        assert "KeyError" in (shop[Moody].status.error or "")
        REFUSED.clear()
        shop[Moody].rebuild()
        shop.flush(SECONDS)
        assert shop[Moody].status.error is None


def test_policies_that_are_none() -> None:
    for bad in ("ignore", 3, None, es.Retry):
        with pytest.raises(TypeError, match="on_error"):
            type("Bad", (es.ReadModel,), {"schema": "CREATE TABLE b (x)", "on_error": bad})
    for arguments in ({"attempts": 0}, {"delay": 0}, {"max_delay": 1e9}, {"then": "retry"}):
        with pytest.raises(ValueError, match=r"es\.Retry"):
            es.Retry(**arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="engine's"):
        type("Bad", (es.ReadModel,), {"schema": "CREATE TABLE b (x)", "parked": 1})


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from boxes import Box, Put
from test_readmodel_failures import Picky

shop = es.open(sys.argv[1], Box, Picky)
print("open", flush=True)
i = 0
while True:
    shop[Box, str(i % 5)].ask(Put(str(i % 11)))
    i += 1
    if i == 40:
        print("going", flush=True)
"""


def test_exactly_once_through_kills(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for _ in range(4):
        child = start(KILLED, path, Path(__file__).parent)
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "open"
        assert child.stdout.readline().strip() == "going"
        child.kill()
        finish(child, -9)
    with es.open(path, Box, Picky) as shop:
        shop.flush(SECONDS)
        applied: list[str] = []
        parked: dict[str, int] = {}
        waiting: list[int] = []
        for recorded in shop.events():
            key = recorded.event.key
            if recorded.stream in parked or key in applied:
                parked.setdefault(recorded.stream, recorded.position)
                waiting.append(recorded.position)
            else:
                applied.append(key)
        assert [key for key, _ in shop[Picky].all()] == applied
        assert [one.position for one in shop[Picky].parked()] == waiting
