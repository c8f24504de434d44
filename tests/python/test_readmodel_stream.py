"""Making the rows of one stream anew, and the read models for which that is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from boxes import Box, Put, Was
from support import SECONDS


class Rows(es.ReadModel):
    schema = """CREATE TABLE rows (box TEXT, key TEXT, number INTEGER, PRIMARY KEY (box, key));
        CREATE TABLE log (box TEXT, at INTEGER UNIQUE ON CONFLICT REPLACE);
        CREATE TRIGGER logged AFTER INSERT ON rows BEGIN
            INSERT INTO log VALUES (new.box, new.number); END"""
    stream_column = "box"
    put = es.sql(Was, "INSERT INTO rows VALUES (:_stream, :key, :number)")

    @es.query
    def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
        rows = db.execute("SELECT * FROM rows ORDER BY box, key").fetchall()
        return rows + db.execute("SELECT * FROM log ORDER BY at").fetchall()


class Handled(es.ReadModel):
    schema = "CREATE TABLE handled (box TEXT, key TEXT, number INTEGER)"
    stream_column = "box"

    @es.on(Was)
    def put(self, db: es.Rows, event: Was, recorded: es.Recorded) -> None:
        db.execute(
            "INSERT INTO handled VALUES (?, ?, ?)", (recorded.stream, event.key, event.number)
        )

    @es.query
    def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute("SELECT * FROM handled ORDER BY box, key").fetchall()


def put(system: es.System, *all_of: tuple[str, str, int]) -> None:
    for box, key, number in all_of:
        system[Box, box].ask(Put(key, number))


def harm(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for one in statements:
            connection.execute(one)
    connection.close()


@pytest.mark.parametrize(("inline", "file"), [(False, None), (True, None), (False, "own.db")])
def test_rows_of_one_stream(tmp_path: Path, inline: bool, file: str | None) -> None:
    path = tmp_path / "a.db"
    own: Any = type("Own", (Rows,), {"inline": inline, **({"file": file} if file else {})})
    with es.open(path, Box, own) as system:
        put(system, ("1", "a", 1), ("2", "a", 2), ("1", "b", 3), ("2", "b", 4))
        system.flush(SECONDS)
        right = system[own].all()
        harm(
            tmp_path / (file or "a.db"),
            "DROP TRIGGER logged",
            "UPDATE rows SET number = number + 10",
            "DELETE FROM rows WHERE key = 'a'",
            "INSERT INTO rows VALUES ('Box/1', 'stray', 0)",
        )
        position = system[own].status.position
        system[own].rebuild(stream="Box/1")
        assert system[own].all() == [
            ("Box/1", "a", 1),
            ("Box/1", "b", 3),
            ("Box/2", "b", 14),
            ("Box/1", 1),
            ("Box/2", 2),
            ("Box/1", 3),
            ("Box/2", 4),
        ]
        assert system[own].status.position == position
        system[own].rebuild(stream="Box/2")
        assert system[own].all() == right


def test_handlers_and_what_comes_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Box, Handled) as system:
        put(system, *(("1", f"{n:04}", n) for n in range(60)), ("2", "x", 1))
        system.flush(SECONDS)
        right = system[Handled].all()
        for _ in range(2):
            harm(path, "DELETE FROM handled WHERE number % 2")
            system[Handled].rebuild(stream="Box/1")
            system[Handled].rebuild(stream="Box/2")
            assert system[Handled].all() == right
        put(system, ("1", "z", 5))
        system.flush(SECONDS)
        assert system[Handled].all() == sorted([*right, ("Box/1", "z", 5)])
        assert list(system[Handled].compare()) == []


def test_parked_events_are_tried_again() -> None:
    refused = {"b"}

    class Moody(Handled):
        schema = "CREATE TABLE moody (box TEXT, key TEXT)"
        on_error = "park"

        @es.on(Was)
        def put(self, db: es.Rows, event: Was, recorded: es.Recorded) -> None:
            if event.key in refused:
                raise KeyError(event.key)
            db.execute("INSERT INTO moody VALUES (?, ?)", (recorded.stream, event.key))

        @es.query
        def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
            return db.execute("SELECT * FROM moody ORDER BY box, key").fetchall()

    with es.open(":memory:", Box, Moody) as system:
        put(system, ("1", "a", 0), ("1", "b", 0), ("1", "c", 0), ("2", "b", 0))
        system.flush(SECONDS)
        assert [one.position for one in system[Moody].parked()] == [2, 3, 4]
        system[Moody].rebuild(stream="Box/1")
        assert [one.position for one in system[Moody].parked()] == [2, 3, 4]
        assert system[Moody].all() == [("Box/1", "a")]
        refused.clear()
        system[Moody].rebuild(stream="Box/1")
        assert [one.position for one in system[Moody].parked()] == [4]
        assert system[Moody].status.parked == 1
        assert system[Moody].all() == [("Box/1", "a"), ("Box/1", "b"), ("Box/1", "c")]


def test_event_that_cannot_be_applied_changes_nothing() -> None:
    class Stops(Handled):
        on_error = es.Retry(attempts=3, delay=1000.0)  # nobody waits for that here
        fails = False

        @es.on(Was)
        def put(self, db: es.Rows, event: Was, recorded: es.Recorded) -> None:
            if Stops.fails:
                raise KeyError(event.key)
            db.execute("INSERT INTO handled VALUES (?, ?, 0)", (recorded.stream, event.key))

    with es.open(":memory:", Box, Stops) as system:
        put(system, ("1", "a", 0), ("1", "b", 0))
        system.flush(SECONDS)
        Stops.fails = True
        with pytest.raises(es.ReadModelStopped, match=r"stream Box/1 .* old rows stay") as caught:
            system[Stops].rebuild(stream="Box/1")
        assert isinstance(caught.value.__cause__, KeyError)
        assert caught.value.position == 1
        assert system[Stops].status.state == "live"
        assert system[Stops].all() == [("Box/1", "a", 0), ("Box/1", "b", 0)]
        Stops.fails = False
        put(system, ("1", "c", 0))
        system.flush(SECONDS)
        system[Stops].rebuild(stream="Box/1")
        assert len(system[Stops].all()) == 3


class Plain(es.ReadModel):
    schema = "CREATE TABLE plain (key TEXT)"
    put = es.sql(Was, "INSERT INTO plain VALUES (:key)")


class Numbered(es.ReadModel):
    schema = "CREATE TABLE numbered (id INTEGER PRIMARY KEY, box TEXT)"
    stream_column = "box"
    put = es.sql(Was, "INSERT INTO numbered (box) VALUES (:_stream)")


class Others(es.ReadModel):
    schema = "CREATE TABLE others (box TEXT)"
    stream_column = "box"
    put = es.sql(Was, "INSERT INTO others VALUES (:key)")


def test_refusals(tmp_path: Path) -> None:
    with es.open(tmp_path / "a.db", Box, Plain, Numbered, Others, Rows) as system:
        put(system, ("1", "Box/2", 1), ("2", "b", 2))
        system.flush(SECONDS)
        with pytest.raises(ValueError, match="name the column"):
            system[Plain].rebuild(stream="Box/1")
        with pytest.raises(ValueError, match=r"UNIQUE constraint failed: numbered\.id"):
            system[Numbered].rebuild(stream="Box/2")
        with pytest.raises(ValueError, match="whose box is not the stream's name"):
            system[Others].rebuild(stream="Box/1")
        with pytest.raises(ValueError, match="it has no events"):
            system[Rows].rebuild(stream="Box/3")
        for wrong in ("", 7, "Box/2\0"):
            with pytest.raises((TypeError, ValueError), match="stream('s name)? (is a|has no NUL)"):
                system[Rows].rebuild(stream=wrong)
        with pytest.raises(TypeError, match="progress"):
            system[Rows].rebuild(stream="Box/1", progress=print)
        system.flush(SECONDS)
        for model in (Plain, Numbered, Others, Rows):
            assert system[model].status.error is None
            assert list(system[model].compare()) == []


def test_column_is_checked(tmp_path: Path) -> None:
    class Lacks(Rows):
        schema = Rows.schema + "; CREATE TABLE more (n)"

    class Virtual(es.ReadModel):
        schema = "CREATE VIRTUAL TABLE words USING fts5(box, key)"
        stream_column = "box"
        put = es.sql(Was, "INSERT INTO words VALUES (:_stream, :key)")

    for cls, text in ((Lacks, "table more has no column box"), (Virtual, "virtual tables")):
        with pytest.raises(ValueError, match=text):
            es.open(tmp_path / "a.db", Box, cls).close()
    for wrong in (7, ""):
        with pytest.raises((TypeError, ValueError), match="stream_column"):
            type("Wrong", (es.ReadModel,), {"schema": Rows.schema, "stream_column": wrong})
