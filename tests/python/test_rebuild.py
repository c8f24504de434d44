"""Read models that have changed are built anew: swaps, failures on the way, and death in the
middle."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from boxes import Box, Put, Was
from support import SECONDS, finish, start

SCHEMA = "CREATE TABLE rows (key TEXT PRIMARY KEY, number INTEGER NOT NULL)"
UPSERT = """INSERT INTO rows VALUES (:key, :number)
    ON CONFLICT (key) DO UPDATE SET number = excluded.number"""
_made = itertools.count()


def model(sql: Any = UPSERT, schema: str = SCHEMA, **attributes: Any) -> Any:
    """A definition of the read model Rows; each is a class of its own."""
    return type(
        "Rows",
        (es.ReadModel,),
        {
            "schema": schema,
            "put": es.sql(Was, sql) if isinstance(sql, str) else sql,
            "all": es.query(
                lambda self, db: db.execute("SELECT * FROM rows ORDER BY 1").fetchall()
            ),
            "__qualname__": f"model.{next(_made)}.Rows",
            **attributes,
        },
    )


def put(system: es.System, *pairs: tuple[str, int]) -> None:
    for key, number in pairs:
        system[Box, "b"].ask(Put(key, number))


def fill(path: Path, *pairs: tuple[str, int]) -> None:
    first = model()
    with es.open(path, Box, first) as system:
        put(system, *pairs)
        system.flush(SECONDS)
        assert system[first].status.state == "live"


def tables(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql NOT NULL"))
    finally:
        connection.close()


def test_handlers_in_python_decide_too(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path, ("a", 1), ("b", 2))

    @es.on(Was)
    def put_it(self: Any, db: es.Rows, event: Was) -> None:
        db.execute("INSERT INTO rows VALUES (?, ?)", (event.key, -event.number))

    python = model(put_it)
    with es.open(path, Box, python) as system:
        system.flush(SECONDS)
        assert system[python].all() == [("a", -1), ("b", -2)]


def test_new_event_of_a_read_model_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Box, model("INSERT INTO rows SELECT :key, 0 WHERE :key = 'b'")) as system:
        put(system, ("a", 1), ("b", 2))
        system.flush(SECONDS)
    more = model(more=es.sql(Was, "UPDATE rows SET number = number + 10 WHERE key = :key"))
    with es.open(path, Box, more) as system:
        system.flush(SECONDS)
        assert system[more].all() == [("a", 11), ("b", 12)]


def test_old_rows_answer_until_the_new_ones_are_level(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path, ("a", 1), ("b", 2))
    reached = threading.Event()
    go_on = threading.Event()

    @es.on(Was)
    def slowly(self: Any, db: es.Rows, event: Was) -> None:
        reached.set()
        assert go_on.wait(SECONDS)
        db.execute("INSERT INTO rows VALUES (?, ?)", (event.key, event.number * 100))

    slow = model(slowly)
    with es.open(path, Box, slow) as system:
        assert reached.wait(SECONDS)
        assert system[slow].all() == [("a", 1), ("b", 2)]
        status = system[slow].status
        assert (status.state, status.position, status.head) == ("rebuilding", 0, 2)
        assert "rebuilding at 0 of 2" in repr(system[slow])
        put(system, ("c", 3))  # nobody waits for the rebuild but who asks for it
        with pytest.raises(es.Timeout):
            system.flush(0.01)
        go_on.set()
        system.flush(SECONDS)
        assert system[slow].all() == [("a", 100), ("b", 200), ("c", 300)]
        assert system[slow].status.state == "live"


def test_failure_retry_and_skip_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path, ("a", 1), ("b", -2), ("c", 3), ("d", -4), ("e", 5))
    positive = SCHEMA.replace("NOT NULL)", "NOT NULL CHECK (number > 0))")
    checked = model(schema=positive)
    old = [("a", 1), ("b", -2), ("c", 3), ("d", -4), ("e", 5)]
    with es.open(path, Box, checked) as system:
        with pytest.raises(es.ReadModelStopped, match="CHECK") as caught:
            system.flush(SECONDS)
        assert (caught.value.name, caught.value.position) == ("Rows", 2)
        status = system[checked].status
        assert (status.state, status.position, status.failed_position) == ("stopped", 1, 2)
        assert system[checked].all() == old
        system[checked].retry()
        with pytest.raises(es.ReadModelStopped):
            system[checked].wait(timeout=SECONDS)
        system[checked].skip()
        with pytest.raises(es.ReadModelStopped) as caught:
            system[checked].wait(timeout=SECONDS)
        assert caught.value.position == 4
        assert system[checked].all() == old
    for _ in range(2):  # stopped in the middle, and the next opening goes on there
        with es.open(path, Box, checked) as system:
            with pytest.raises(es.ReadModelStopped) as caught:
                system.flush(SECONDS)
            assert caught.value.position == 4
            assert system[checked].status.position == 3
            assert system[checked].all() == old
    with es.open(path, Box, checked) as system:
        with pytest.raises(es.ReadModelStopped):
            system.flush(SECONDS)
        system[checked].skip(reason="negative")
        system.flush(SECONDS)
        assert [one.position for one in system[checked].parked(skipped=True)] == [2, 4]
        assert system[checked].all() == [("a", 1), ("c", 3), ("e", 5)]
        put(system, ("f", 6))
        system.flush(SECONDS)
        assert system[checked].all()[-1] == ("f", 6)
    with es.open(path, Box, checked) as system:  # it is the stored one now
        system.flush(SECONDS)
        assert system[checked].all() == [("a", 1), ("c", 3), ("e", 5), ("f", 6)]


def test_back_to_the_old_definition_while_stopped(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path, ("a", -1))
    with es.open(path, Box, model(schema=SCHEMA.replace("NULL)", "NULL CHECK (number > 0))"))) as s:
        with pytest.raises(es.ReadModelStopped):
            s.flush(SECONDS)
    back = model()
    with es.open(path, Box, back) as system:
        assert system[back].status.state == "live"  # its rows were never touched
        assert system[back].all() == [("a", -1)]


def test_rebuild_on_demand_that_fails_leaves_the_old_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    fails = False

    @es.on(Was)
    def put_it(self: Any, db: es.Rows, event: Was) -> None:
        if fails:
            raise LookupError("on purpose")
        db.execute("INSERT INTO rows VALUES (?, ?)", (event.key, event.number))

    python = model(put_it)
    with es.open(path, Box, python) as system:
        put(system, ("a", 1))
        system.flush(SECONDS)
        fails = True
        system[python].rebuild()
        with pytest.raises(es.ReadModelStopped, match="given up, the old rows stay"):
            system.flush(SECONDS)
        assert system[python].all() == [("a", 1)]
        assert system[python].status.state == "live"
        assert "on purpose" in str(system[python].status.error)
        assert "on purpose" in str(system[python].status.traceback)
        system.flush(SECONDS)  # the live rows are level
        assert "on purpose" in str(system[python].status.error)
        system[python].cancel_rebuild()  # seen: there is nothing to mend
        assert system[python].status.error is None
        assert system[python].status.traceback is None
        with pytest.raises(ValueError, match="not being built anew"):
            system[python].cancel_rebuild()
        fails = False
        system[python].rebuild()
        put(system, ("b", 2))
        system.flush(SECONDS)
        assert system[python].all() == [("a", 1), ("b", 2)]
        assert system[python].status.error is None
    assert "the old rows stay" in caplog.text


def test_manual_refuses_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path, ("a", 1))
    before = tables(path)
    for changed in (
        model(rebuild="manual", version=1),
        model(UPSERT + " ", rebuild="manual"),
        model(schema=SCHEMA + ";", rebuild="manual"),
    ):
        with pytest.raises(es.SchemaMismatch, match=r"Rows.*rebuild"):
            es.open(path, Box, changed).close()
    assert tables(path) == before
    same = model(rebuild="manual")
    with es.open(path, Box, same) as system:
        assert system[same].all() == [("a", 1)]


def test_changed_tables_clash_with_nothing(tmp_path: Path) -> None:
    """A new definition may drop a table, and another read model take its name afterwards."""
    path = tmp_path / "a.db"
    fill(path, ("a", 1))
    other = model("INSERT INTO other VALUES (1)", "CREATE TABLE other (n)")
    with es.open(path, Box, other) as system:
        system.flush(SECONDS)
    assert "other" in tables(path) and "rows" not in tables(path)

    class Second(es.ReadModel):
        schema = "CREATE TABLE rows (n); CREATE VIEW v AS SELECT n FROM rows"
        added = es.sql(Was, "INSERT INTO rows VALUES (:number)")

    with es.open(path, Box, other, Second) as system:
        system.flush(SECONDS)
    assert {"other", "rows", "v"} <= set(tables(path))


def test_queries_see_the_columns_of_their_rows(tmp_path: Path) -> None:
    """Also in the moment of the swap, on connections that have met the old tables."""
    path = tmp_path / "a.db"
    fill(path, ("a", 1))
    insert = "INSERT INTO rows (key, number) VALUES (:key, :number)"

    def both(self: Any, db: es.Rows) -> tuple[tuple[str, ...], list[tuple]]:
        cursor = db.execute("SELECT * FROM rows")
        return cursor.columns, cursor.fetchall()

    for more in (True, False) * 10:
        schema = SCHEMA.replace(")", ", more TEXT DEFAULT 'm')") if more else SCHEMA
        changed = model(insert, schema, both=es.query(both))
        with es.open(path, Box, changed) as system:
            while system[changed].status.state != "live":
                found = system[changed].both()
                assert found in (
                    (("key", "number"), [("a", 1)]),
                    (("key", "number", "more"), [("a", 1, "m")]),
                )
            columns, rows = system[changed].both()
            assert len(columns) == len(rows[0]) == 2 + more


def test_every_object_of_a_schema_is_swapped(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path, ("a", 1), ("b", 2))
    rich = model(
        schema=SCHEMA
        + """;
            CREATE TABLE log (key TEXT, old INTEGER);
            CREATE INDEX by_number ON rows (number DESC) WHERE number > 0;
            CREATE VIEW big AS SELECT key FROM rows WHERE number > 1;
            CREATE TRIGGER changed AFTER UPDATE ON rows BEGIN
                INSERT INTO log VALUES (old.key, old.number);
            END;
            INSERT INTO log VALUES ('first; of all', 0)""",
        big=es.query(lambda self, db: db.execute("SELECT key FROM big").fetchall()),
        log=es.query(lambda self, db: db.execute("SELECT * FROM log").fetchall()),
    )
    for _ in range(2):
        with es.open(path, Box, rich) as system:
            put(system, ("a", 5))
            system.flush(SECONDS)
            assert system[rich].big() == [("a",), ("b",)]
            log = system[rich].log()
            assert log[:2] == [("first; of all", 0), ("a", 1)]
    assert log == [("first; of all", 0), ("a", 1), ("a", 5)]
    with es.open(path, Box, model()) as system:
        system.flush(SECONDS)
    assert not {"log", "by_number", "big", "changed"} & set(tables(path))


# arguments: path, version, the event at which to die (0: never), commands to send first
KILLED = """
seen = 0

class Sums(es.ReadModel):
    schema = "CREATE TABLE sums (k TEXT PRIMARY KEY, n INTEGER NOT NULL)"
    version = int(sys.argv[2])

    @es.on(Added)
    def added(self, db, event: Added):
        global seen
        db.execute(
            "INSERT INTO sums VALUES ('all', ?) ON CONFLICT (k) DO UPDATE SET n = n + excluded.n",
            (event.amount * self.version,),
        )
        seen += 1
        if seen == int(sys.argv[3]):
            print("killed")
            os.kill(os.getpid(), signal.SIGKILL)

    @es.query
    def all(self, db):
        return db.execute("SELECT * FROM sums").fetchall()


with es.open(sys.argv[1], Counter, Sums) as system:
    for _ in range(int(sys.argv[4])):
        system[Counter, "c"].ask(Add(1))
    system.flush(20)
    print(system[Sums].all())
"""


@pytest.mark.parametrize("when", [1, 150, 299])
def test_killed_in_the_middle_of_a_rebuild(tmp_path: Path, when: int) -> None:
    path = tmp_path / "a.db"
    assert finish(start(KILLED, path, 1, 0, 300))[0] == "[('all', 300)]\n"
    for life in range(2):
        process = start(KILLED, path, 2, when, 0)
        out, error = finish(process, status=None)
        if life == 1 and process.returncode == 0:  # it went on behind what the first had stored
            assert out == "[('all', 600)]\n"
            break
        assert (process.returncode, out) == (-signal.SIGKILL, "killed\n"), error
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        assert connection.execute("SELECT n FROM sums").fetchall() == [(300,)]  # the old rows
        connection.close()
    out, _ = finish(start(KILLED, path, 2, 0, 1))
    assert out == "[('all', 602)]\n"
    assert not [one for one in os.listdir(tmp_path) if one.startswith("etilqs")]


# arguments: path, version, the event at which to die (0: never), how many events to store first,
# "ask" to have it rebuilt, the read model's file
RESUMED = """
import escqrs as es

class Fill(es.Command[None]):
    count: int

class Filled(es.Event):
    number: int

class Box(es.Aggregate):
    @es.handles
    def fill(self, cmd: Fill) -> None:
        for number in range(cmd.count):
            self.emit(Filled(number))

    @es.applies
    def filled(self, event: Filled) -> None: ...

seen = []
last = 0
reached = threading.Event()

class Sums(es.ReadModel):
    schema = "CREATE TABLE sums (k TEXT PRIMARY KEY, n INTEGER NOT NULL)"
    version = int(sys.argv[2])
    if sys.argv[6]:
        file = sys.argv[6]

    @es.on(Filled)
    def filled(self, db, event: Filled, recorded):
        db.execute(
            "INSERT INTO sums VALUES ('all', ?) ON CONFLICT (k) DO UPDATE SET n = n + excluded.n",
            (self.version,),
        )
        seen.append(recorded.position)
        if recorded.position == last:
            reached.set()
            threading.Event().wait()  # for the end

    @es.query
    def all(self, db):
        return db.execute("SELECT * FROM sums").fetchall()


if sys.argv[5] != "ask":
    last = int(sys.argv[3])
with es.open(sys.argv[1], Box, Sums) as system:
    if int(sys.argv[4]):
        system[Box, "b"].ask(Fill(int(sys.argv[4])))
    if sys.argv[5] == "ask":
        system.flush(60)
        last = int(sys.argv[3])
        system[Sums].rebuild()
    if last:
        reached.wait()
        print(system[Sums].all(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    system.flush(60)
    print(system[Sums].all(), seen[:1], len(seen))
"""


@pytest.mark.parametrize("asked", ["", "ask"])
@pytest.mark.parametrize("file", ["", "own.db"])
def test_killed_rebuild_goes_on_where_it_was(tmp_path: Path, asked: str, file: str) -> None:
    """Not from the first event; the old rows answer all the time."""
    path = tmp_path / "a.db"
    version = 1 if asked else 2
    out, _ = finish(start(RESUMED, path, 1, 0, 10_000, "", file))
    assert out.startswith("[('all', 10000)]")
    out, _ = finish(start(RESUMED, path, version, 9_999, 0, asked, file), status=-signal.SIGKILL)
    assert out == "[('all', 10000)]\n"  # asked in the very moment
    connection = sqlite3.connect(f"file:{tmp_path / (file or 'a.db')}?mode=ro", uri=True)
    assert connection.execute("SELECT n FROM sums").fetchall() == [(10_000,)]
    connection.close()
    assert [one for one in os.listdir(tmp_path) if "-rebuild-" in one]
    out, _ = finish(start(RESUMED, path, version, 0, 0, "", file))
    rows, first, count = out.rsplit(" ", 2)
    assert rows == f"[('all', {10_000 * version})]"
    at = int(first.strip("[]"))  # a transaction has 4,096 events at most
    assert at >= 9_999 - 4_096 and at + int(count) - 1 == 10_000
    assert not [one for one in os.listdir(tmp_path) if "-rebuild-" in one]


def test_killed_in_the_middle_of_catching_up(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    out, _ = finish(start(KILLED, path, 1, 77, 200), status=-signal.SIGKILL)
    assert out.endswith("killed\n")
    out, _ = finish(start(KILLED, path, 1, 0, 0))
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    events = connection.execute("SELECT count(*) FROM escqrs_events").fetchone()[0]
    connection.close()
    assert out == f"[('all', {events})]\n" and events >= 77


def test_left_out_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    fill(path, ("a", 1))
    with es.open(path, Box) as system:  # without the read model
        put(system, ("a", 2), ("b", 3))
        system.flush(SECONDS)
    assert "rows" in tables(path)
    with es.open(path, Box, readonly=True) as system, pytest.raises(es.UnknownType):
        system[model()]
    again = model()
    with es.open(path, again, readonly=True) as system:
        assert system[again].all() == [("a", 1)]
        status = system[again].status
        assert (status.state, status.position, status.lag) == ("catching up", 1, 2)
    with es.open(path, Box, again) as system:
        system.flush(SECONDS)
        assert system[again].all() == [("a", 2), ("b", 3)]
    with es.open(path, Box) as system:
        put(system, ("c", 4))
    changed = model(UPSERT.replace(":number)", ":number * 2)"))
    with pytest.raises(es.ReadOnly, match="Rows"):
        es.open(path, changed, readonly=True).close()
    with es.open(path, Box, changed) as system:
        system.flush(SECONDS)
        assert system[changed].all() == [("a", 4), ("b", 6), ("c", 8)]


def test_progress_of_a_rebuild(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    first = model()
    with es.open(path, Box, first) as system:
        for number in range(30):
            system[Box, "b"].tell(Put("a", number))
        system.flush(SECONDS)
        seen: list[tuple[int, int]] = []
        system[first].rebuild(progress=lambda position, head: seen.append((position, head)))
        assert system[first].status.rebuild_position is None
        assert system[first].status.state == "live"
        assert seen == sorted(seen) and all(p <= head == 30 for p, head in seen)


def test_a_rebuild_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    entered, leave = threading.Event(), threading.Event()
    rebuilding = False

    @es.on(Was)
    def put_it(self: Any, db: es.Rows, event: Was) -> None:
        if rebuilding and event.number == 2:
            entered.set()
            leave.wait(SECONDS)
        db.execute("INSERT INTO rows VALUES (?, ?)", (event.key, event.number))

    python = model(put_it)
    with es.open(path, Box, python) as system:
        put(system, ("a", 1), ("b", 2))
        system.flush(SECONDS)
        with pytest.raises(ValueError, match="not being built anew"):
            system[python].cancel_rebuild()
        rebuilding = True
        system[python].rebuild()
        assert entered.wait(SECONDS)
        assert system[python].status.state == "rebuilding"
        system[python].cancel_rebuild()
        rebuilding = False
        leave.set()
        put(system, ("c", 3))
        system.flush(SECONDS)
        assert system[python].all() == [("a", 1), ("b", 2), ("c", 3)]
        assert system[python].status.state == "live" and system[python].status.error is None


def test_a_callback_that_raises_cancels(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    first = model()
    with es.open(path, Box, first) as system:
        put(system, ("a", 1))
        system.flush(SECONDS)
        entered = threading.Event()

        def fail(position: int, head: int) -> None:
            entered.set()
            raise LookupError("enough")

        for _ in range(20):
            try:
                system[first].rebuild(progress=fail)
            except LookupError:
                break
        system.flush(SECONDS)
        assert system[first].all() == [("a", 1)]
        assert system[first].status.state == "live"
