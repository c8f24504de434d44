"""Whatever happens on the way, the rows of read models are a fold of the events."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import escqrs as es
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from support import SECONDS


class Put(es.Command[None]):
    numbers: list[int]


class Was(es.Event):
    number: int


class Zero(es.Event):
    pass


class Box(es.Aggregate):
    @es.handles
    def put(self, cmd: Put) -> None:
        for number in cmd.numbers:
            self.emit(Was(number) if number else Zero())

    @es.applies
    def was(self, event: Was) -> None: ...

    @es.applies
    def zero(self, event: Zero) -> None: ...


SUMS = "CREATE TABLE sums (stream TEXT PRIMARY KEY, n INTEGER NOT NULL, sum INTEGER NOT NULL)"
ADD = """INSERT INTO sums VALUES (:_stream, 1, :number)
    ON CONFLICT (stream) DO UPDATE SET n = n + 1, sum = sum + excluded.sum"""


def sums(version: int) -> Any:
    """In SQL. Nothing here may happen twice without being seen."""
    return type(
        "Sums",
        (es.ReadModel,),
        {
            "schema": SUMS,
            "version": version,
            "was": es.sql(Was, ADD),
            "zero": es.sql(Zero, "DELETE FROM sums WHERE stream = :_stream"),
            "all": es.query(lambda self, db: db.execute("SELECT * FROM sums").fetchall()),
            "__qualname__": f"sums.{version}.Sums",
        },
    )


class Log(es.ReadModel):
    """In Python and SQL, one row an event."""

    schema = """CREATE TABLE log (n INTEGER PRIMARY KEY, position INTEGER, text TEXT);
        CREATE TABLE totals (n INTEGER NOT NULL);
        INSERT INTO totals VALUES (0)"""

    count = es.sql(Was, Zero, "UPDATE totals SET n = n + 1")

    @es.on(Was, Zero)
    def note(self, db: es.Rows, recorded: es.Recorded) -> None:
        db.execute(
            "INSERT INTO log (position, text) VALUES (?, ?)",
            (recorded.position, f"{recorded.stream} {recorded.version}"),
        )

    @es.query
    def all(self, db: es.Rows) -> tuple[list[tuple], int]:
        rows = db.execute("SELECT * FROM log ORDER BY n").fetchall()
        return rows, db.execute("SELECT n FROM totals").fetchone()[0]


def check(system: es.System, model: Any, with_log: bool) -> None:
    system.flush(SECONDS)
    recorded = list(system.events())
    totals: dict[str, Counter[str]] = {}
    for one in recorded:
        if isinstance(one.event, Zero):
            totals.pop(one.stream, None)
        else:
            total = totals.setdefault(one.stream, Counter())
            total["n"] += 1
            total["sum"] += one.event.number
    expected = {(stream, one["n"], one["sum"]) for stream, one in totals.items()}
    assert set(system[model].all()) == expected
    if with_log:
        rows = [(one.position, one.position, f"{one.stream} {one.version}") for one in recorded]
        assert system[Log].all() == (rows, len(rows))


numbers = st.lists(st.integers(-3, 3), min_size=1, max_size=30)
steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("ab"), numbers),
    st.tuples(st.just("check")),
    st.tuples(st.just("rebuild")),
    st.tuples(st.sampled_from(["open", "crash"]), st.integers(1, 3), st.booleans()),
)


def crash_image(path: Path, to: Path) -> None:
    """The file as a crash would leave it now, while the threads of the system go on."""
    to.mkdir()
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            shutil.copy(source, to / source.name)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, max_size=15))
def test_rows_are_a_fold_of_the_feed(path_of_steps: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "0", "box.db")
        path.parent.mkdir()
        version, with_log, opened, answered = 1, True, 0, 0
        system = es.open(path, Box, sums(version), Log)
        try:
            for step in path_of_steps:
                note(repr(step))
                if step[0] == "put":
                    system[Box, step[1]].ask(Put(step[2]))
                    answered += len(step[2])
                elif step[0] == "check":
                    check(system, sums(version), with_log)
                elif step[0] == "rebuild":
                    system["Sums"].rebuild()  # type: ignore[union-attr]
                else:
                    what, version, with_log = step
                    opened += 1
                    if what == "crash":
                        to = path.parent.with_name(str(opened))
                        crash_image(path, to)
                        system.close()
                        path = to / path.name
                    else:
                        system.close()
                    system = es.open(path, Box, sums(version), *([Log] if with_log else []))
                    assert system.head == answered
            check(system, sums(version), with_log)
        finally:
            system.close()
