"""The file: what can be opened, by whom, and what a refusal leaves untouched."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
import support


class Add(es.Command[int]):
    amount: int


class Fill(es.Command):
    size: int


class Added(es.Event):
    amount: int


class Filled(es.Event):
    data: bytes


class Counter(es.Aggregate):
    total: int

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.amount))
        return self.total

    @es.handles
    def fill(self, cmd: Fill) -> None:
        self.emit(Filled(os.urandom(cmd.size)))

    @es.applies
    def added(self, event: Added) -> None:
        self.total += event.amount

    @es.applies
    def filled(self, event: Filled) -> None:
        pass


def make(path: Path, count: int = 5) -> None:
    with es.open(path, Counter) as system:
        for i in range(count):
            system[Counter, "a"].ask(Add(i + 1))


def refused(
    path: Path, kind: type[BaseException] | tuple[type[BaseException], ...], **options: Any
) -> BaseException:
    """Opening raises, twice the same, and the folder (but for the lock) stays as it is."""
    before = {
        name: data
        for name, data in support.contents(path.parent).items()
        if not name.endswith("-lock")
    }
    for _ in range(2):
        with pytest.raises(kind) as caught:
            es.open(path, Counter, **options)
        after = {
            name: data
            for name, data in support.contents(path.parent).items()
            if not name.endswith("-lock")
        }
        assert after == before
    assert path.name in str(caught.value)
    return caught.value


# ---- opening -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_are_text_or_path(tmp_path: Path, kind: type) -> None:
    path = kind(tmp_path / "größe und abstand.db")
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].ask(Add(1)) == 1
        assert system.path == str(path)
        assert "größe" in repr(system)
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].ask(Add(1)) == 2


@pytest.mark.parametrize("path", ["", "a\0b", b"a.db", 3, None])
def test_paths_that_cannot_be(path: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        es.open(path, Counter)


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with es.open("shop.db", Counter) as system:
        system[Counter, "a"].ask(Add(1))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        system[Counter, "a"].ask(Add(1))
        with pytest.raises(es.Locked):
            es.open("../shop.db", Counter)
    with es.open("../shop.db", Counter) as system:
        assert system[Counter, "a"].state.total == 2
    assert not list((tmp_path / "elsewhere").iterdir())


def test_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with es.open(":memory:", Counter) as one, es.open(":memory:", Counter) as two:
        one[Counter, "a"].ask(Add(1))
        assert two[Counter, "a"].state.total == 0
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    path.touch()
    make(path)
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].state.total == 15


def test_what_close_leaves(tmp_path: Path) -> None:
    make(tmp_path / "shop.db")
    assert set(os.listdir(tmp_path)) <= {"shop.db", "shop.db-lock"}


@pytest.mark.parametrize("readonly", [False, True])
def test_what_is_no_file(tmp_path: Path, readonly: bool) -> None:
    for path in (tmp_path, tmp_path / "missing" / "shop.db"):
        with pytest.raises((OSError, es.Error)) as caught:
            es.open(path, Counter, readonly=readonly)
        assert str(path) in str(caught.value) or path.name in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_readonly_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises((OSError, es.Error), match=r"shop\.db"):
        es.open(tmp_path / "shop.db", Counter, readonly=True)
    assert list(tmp_path.iterdir()) == []


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"hello, world\n" * 100,
        b"\0" * 4096,
        b"SQLite format 3",
        b"SQLite format 3\0" + b"\xff" * 4080,
    ],
    ids=["one byte", "text", "zeros", "cut header", "bad header"],
)
def test_what_is_no_store(tmp_path: Path, data: bytes, readonly: bool) -> None:
    path = tmp_path / "shop.db"
    path.write_bytes(data)
    refused(path, (es.NotAStore, es.Corrupt), readonly=readonly)


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize(
    "schema",
    ["CREATE TABLE invoices (id)", "CREATE TABLE events (id)", "CREATE VIEW v AS SELECT 1"],
)
def test_another_programs_file(tmp_path: Path, mode: str, schema: str, readonly: bool) -> None:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute(schema)
    connection.commit()
    connection.close()
    error = refused(path, es.NotAStore, readonly=readonly)
    assert error.path == str(path)  # type: ignore[attr-defined]


def test_another_programs_empty_file_with_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA application_id=1234567")
    connection.execute("PRAGMA user_version=3")
    connection.commit()
    connection.close()
    if path.stat().st_size:
        refused(path, es.NotAStore)


@pytest.mark.parametrize("readonly", [False, True])
def test_a_newer_format(tmp_path: Path, readonly: bool) -> None:
    path = tmp_path / "shop.db"
    make(path)
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version={version + 1000}")
    connection.commit()
    connection.close()
    error = refused(path, es.NotAStore, readonly=readonly)
    assert "newer" in str(error)


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_file(tmp_path: Path, part: float, readonly: bool) -> None:
    path = tmp_path / "shop.db"
    make(path, 2000)
    size = path.stat().st_size
    os.truncate(path, int(size * part) // 4096 * 4096 + 100)
    (tmp_path / "shop.db-lock").unlink(missing_ok=True)
    refused(path, (es.Corrupt, es.NotAStore), readonly=readonly)


CUT = """
path, role, cut = sys.argv[1:]
large = [es.NewEvent("Large", bytes(1000))] * 1000
with es.Store(path) as store:
    for _ in range(3):  # 3 MB: more than a connection keeps in memory
        store.append("a", large)
    store.append("b", large[:20])
    held = es.Store(path, readonly=True) if role == "reader" else store
    assert len(list(held.events())) == 3020
    if cut == "checkpoint":
        import sqlite3
        store.delete("a")
        connection = sqlite3.connect(path)
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        connection.close()
        assert os.path.getsize(path + "-wal") == 0 and os.path.getsize(path) < 1_000_000
    else:
        os.truncate(path + ("-wal" if cut == "wal" else ""), 8192)
    after, stream = (3000, "b") if cut == "checkpoint" else (0, "a")
    for read in (lambda: held.events(after=after), lambda: held.history(stream)):
        try:
            print(len(list(read())), end=" ")
        except (es.Corrupt, es.StorageError) as error:
            print(type(error).__name__, end=" ")
    for change in (lambda: store.append("b", large[:1]), store.restart):
        try:
            change()
            print("done", end=" ")
        except es.StorageError as error:
            print("truncated" if "truncated while it was open" in str(error) else error, end=" ")
"""


@pytest.mark.parametrize("role", ["writer", "reader"])
@pytest.mark.parametrize("cut", ["file", "wal", "checkpoint"])
def test_a_file_is_truncated_while_it_is_open(tmp_path: Path, role: str, cut: str) -> None:
    """By another program: an error where it is read, and nothing is acknowledged any more."""
    said = support.run(CUT, tmp_path / "shop.db", role, cut)[0].split()
    reads, changes = said[:2], said[2:]
    if cut == "checkpoint":  # it took away what nobody needs
        assert (reads, changes) == (["20", "20"], ["done", "done"])
    else:
        assert set(reads) <= {"Corrupt", "StorageError"}
        assert changes == ["truncated", "truncated"]


def test_damage_is_found_when_read(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system:
        for _ in range(10):
            system[Counter, "a"].ask(Fill(1000))
        system[Counter, "b"].ask(Add(1))
        victim = list(system[Counter, "a"].history())[4].event.data
    data = path.read_bytes()
    where = data.find(victim)
    assert where > 0 and data.count(victim) == 1
    path.write_bytes(data[: where + 500] + bytes([data[where + 500] ^ 1]) + data[where + 501 :])
    with es.open(path, Counter) as system:
        with pytest.raises(es.Corrupt) as caught:
            list(system[Counter, "a"].history())
        assert (caught.value.stream, caught.value.version, caught.value.position) == (
            "Counter/a",
            5,
            5,
        )
        seen = []
        with pytest.raises(es.Corrupt):
            for one in system.events():
                seen.append(one.position)
        assert seen == [1, 2, 3, 4]
        with pytest.raises(es.Corrupt, match="Counter/a"):
            system[Counter, "a"].state
        with pytest.raises(es.Corrupt, match="Counter/a"):
            system[Counter, "a"].ask(Add(1))
        assert system[Counter, "a"].state_at(4).version == 4
        assert system[Counter, "b"].ask(Add(1)) == 2
        assert [one.position for one in system.events(after=5)] == [6, 7, 8, 9, 10, 11, 12]


def test_the_sqlite_shell_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    make(path, 3)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    views = [
        name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")
    ]
    found = False
    for view in views:
        rows = connection.execute(f'SELECT * FROM "{view}"')
        names = {column[0] for column in rows.description}
        if {"stream", "version", "type", "time", "data"} <= names:
            found = True
            rows = connection.execute(
                f'SELECT stream, version, type, data FROM "{view}" ORDER BY version'
            ).fetchall()
            assert [row[:3] for row in rows] == [("Counter/a", i + 1, "Added") for i in range(3)]
            assert [es.from_bytes(Added, row[3]).amount for row in rows] == [1, 2, 3]
    assert found
    connection.close()


# ---- the lock ------------------------------------------------------------------------------------

HOLDER = """
with es.open(sys.argv[1], Counter) as system:
    system[Counter, "x"].ask(Add(1))
    print("open", flush=True)
    for line in sys.stdin:
        print(system[Counter, "x"].ask(Add(1)), flush=True)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Any]:
    process = support.start(HOLDER, tmp_path / "held.db")
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    yield process
    support.finish(process, None)


def knock(process: Any) -> str:
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_a_second_writer_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    link = tmp_path / "link.db"
    with es.open(path, Counter) as system:
        system[Counter, "a"].ask(Add(1))
        for _ in range(3):
            with pytest.raises(es.Locked, match=f"by this very process: process {os.getpid()} "):
                es.open(path, Counter)
        assert system[Counter, "a"].ask(Add(1)) == 2
        link.symlink_to(path)
        with pytest.raises(es.Locked):
            es.open(link, Counter)
        assert system[Counter, "a"].ask(Add(1)) == 3
    with es.open(link, Counter) as system:
        assert system[Counter, "a"].state.total == 3


def test_a_second_writer_in_another_process(holder: Any, tmp_path: Path) -> None:
    path = tmp_path / "held.db"
    for i in range(3):
        with pytest.raises(es.Locked, match=str(holder.pid)) as caught:
            es.open(path, Counter)
        assert caught.value.path == str(path)
        assert knock(holder) == str(i + 2)


def test_the_lock_goes_with_its_process(holder: Any, tmp_path: Path) -> None:
    assert knock(holder) == "2"
    holder.send_signal(signal.SIGKILL)
    holder.wait(support.SECONDS)
    with es.open(tmp_path / "held.db", Counter) as system:
        assert system[Counter, "x"].version == 2


def test_the_lock_outlives_reading_and_copying_ones_own_file(tmp_path: Path) -> None:
    """POSIX locks of a process are lost when any descriptor of the file is closed."""
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system:
        system[Counter, "x"].ask(Add(1))
        path.read_bytes()
        shutil.copy(path, tmp_path / "copy.db")
        for name in ("shop.db-wal", "shop.db-shm", "shop.db-lock"):
            if (tmp_path / name).exists():
                (tmp_path / name).read_bytes()
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.close()
        out, _ = support.run(
            """
            try:
                es.open(sys.argv[1], Counter)
            except es.Locked as error:
                print(error)
            """,
            path,
        )
        assert str(os.getpid()) in out
        for i in range(50):
            assert system[Counter, "x"].ask(Add(1)) == i + 2
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    with es.open(path, Counter) as system:
        assert system[Counter, "x"].state.total == 51


def test_a_system_that_could_not_be_opened_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"

    class Broken(es.Aggregate):
        @es.applies
        def applied(self, event: NoSuchEvent) -> None:  # type: ignore[name-defined]  # noqa: F821
            pass

    with pytest.raises(TypeError, match="NoSuchEvent"):
        es.open(path, Broken)
    make(path)
    with pytest.raises(TypeError):
        es.open(path, Broken)
    make(path)


def test_many_openings_leave_no_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    make(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        make(path, 1)
        with es.open(path, Counter, readonly=True) as reader:
            assert reader[Counter, "a"].version > 0
            list(reader.events())
        with es.open(path, Counter), pytest.raises(es.Locked):
            es.open(path, Counter)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


# ---- taken away while open -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "-wal", "-lock"])
@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_what_is_taken_away_is_not_written_to(tmp_path: Path, suffix: str, how: str) -> None:
    """Nothing is acknowledged into a file that nobody will find, or that another one may write."""
    path = tmp_path / "shop.db"
    victim = tmp_path / f"shop.db{suffix}"
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].ask(Add(1)) == 1
        if how == "replaced":
            shutil.copy(victim, tmp_path / "copy")
            os.replace(tmp_path / "copy", victim)
        elif how == "moved":
            victim.rename(tmp_path / "elsewhere")
        else:
            victim.unlink()
        for _ in range(2):
            with pytest.raises(es.StorageError, match=r"shop\.db.* was deleted, moved or replaced"):
                system[Counter, "a"].ask(Add(1))
        with pytest.raises(es.StorageError, match="was deleted, moved or replaced"):
            system[Counter, "b"].submit(Add(1)).result(support.SECONDS)


def take_away(path: Path, how: str) -> None:
    if how == "replaced":
        shutil.copy(path, f"{path}.copy")
        os.replace(f"{path}.copy", path)
    elif how == "moved":
        path.rename(f"{path}.away")
    else:
        path.unlink()


GONE = r"shop\.db was deleted, moved or replaced while it was open"


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_who_only_reads_a_file_that_is_taken_away_hears_of_it(tmp_path: Path, how: str) -> None:
    path = tmp_path / "shop.db"
    make(path, 3)
    with es.Store(path, readonly=True) as store:
        assert len(list(store.history("Counter/a"))) == 3
        calls: list[Callable[[], Any]] = [
            lambda: next(iter(store.history("Counter/a"))),
            lambda: next(iter(store.events())),
            lambda: store.version("Counter/a"),
            lambda: list(store.streams()),
            store.restart,
        ]
        take_away(path, how)
        for call in calls:
            with pytest.raises(es.StorageError, match=GONE):
                call()
        if how == "moved":  # and it goes on with the file when it comes back
            Path(f"{path}.away").rename(path)
            make(path, 1)
            assert store.version("Counter/a") == 4


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_queries_of_a_file_that_is_taken_away_say_so(tmp_path: Path, how: str) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter, Counts) as system:
        system[Counter, "a"].ask(Add(1))
        system.flush()
    with es.open(path, Counter, Counts, readonly=True) as system:
        assert system[Counts].all() == [(1, 1)]
        take_away(path, how)
        with pytest.raises(es.StorageError, match=GONE):
            system[Counts].all()


class Counts(es.ReadModel):
    schema = "CREATE TABLE counts (at INTEGER PRIMARY KEY, amount INTEGER NOT NULL)"
    on_added = es.sql(Added, "INSERT INTO counts VALUES (:_position, :amount)")

    @es.query
    def all(self, db: es.Rows) -> list[tuple[int, int]]:
        return [(at, amount) for at, amount in db.execute("SELECT * FROM counts ORDER BY at")]


@pytest.mark.parametrize("inline", [False, True])
def test_a_store_is_restarted_without_closing(tmp_path: Path, inline: bool) -> None:
    """What was final is over once the file is back, for entities, feeds and read models."""
    model = type("Counts", (Counts,), {"inline": inline, "__module__": __name__})
    path, away = tmp_path / "shop.db", tmp_path / "away"
    with es.open(path, Counter, model) as system:
        feed = system.store.subscribe()
        assert system[Counter, "a"].ask(Add(1)) == 1
        system.flush()
        path.rename(away)
        for _ in range(2):
            with pytest.raises(es.StorageError):
                system[Counter, "a"].ask(Add(2))
        with pytest.raises(es.StorageError, match="was deleted, moved or replaced"):
            system.store.restart()
        away.rename(path)
        with pytest.raises(es.StorageError, match="restart it"):
            system[Counter, "a"].ask(Add(4))
        system.store.restart()
        there = system.store.version("Counter/a")  # whether the first that failed is stored
        assert there in (1, 2)
        assert system[Counter, "a"].ask(Add(8)) == (11 if there == 2 else 9)
        if not inline and system[model].status.state == "stopped":
            system[model].retry()
        system.flush()
        rows = [(1, 1), (2, 2), (3, 8)] if there == 2 else [(1, 1), (2, 8)]
        assert system[model].all() == rows
        assert [feed.next(timeout=support.SECONDS).version for _ in rows] == [at for at, _ in rows]
        assert not system.store.verify().problems
    with es.open(path, Counter, model) as system:
        assert system[model].all() == rows
        assert system[Counter, "a"].version == len(rows)


# ---- reading beside a writer ---------------------------------------------------------------------


def test_readonly_beside_a_writer(holder: Any, tmp_path: Path) -> None:
    path = tmp_path / "held.db"
    with es.open(path, Counter, readonly=True) as reader:
        assert reader.readonly
        for i in range(2, 8):
            assert knock(holder) == str(i)
            assert reader[Counter, "x"].version == i
            assert reader[Counter, "x"].state.total == i
            assert reader[Counter, "x"].state_at(1).total == 1
            assert len(list(reader.events())) == i == reader.head
        for send in ("ask", "submit", "tell"):
            with pytest.raises(es.ReadOnly):
                getattr(reader[Counter, "x"], send)(Add(1))
        reader.flush()
        with es.open(path, Counter, readonly=True) as second:
            assert second.head == reader.head
    assert knock(holder) == "8"


def test_readonly_without_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    make(path)
    before = path.read_bytes()
    with (
        es.open(path, Counter, readonly=True) as reader,
        es.open(path, Counter, readonly=True) as second,
    ):
        assert reader[Counter, "a"].state.total == 15
        assert second[Counter, "a"].state.total == 15
    assert path.read_bytes() == before
    assert set(os.listdir(tmp_path)) <= {"shop.db", "shop.db-lock"}


def test_a_writer_beside_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    make(path)
    with es.open(path, Counter, readonly=True) as reader:
        make(path)
        assert reader[Counter, "a"].version == 10
        assert reader[Counter, "a"].state.total == 30
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].version == 10


# ---- permissions ---------------------------------------------------------------------------------

DROP = """
es.open(":memory:").close()
if os.geteuid() == 0: # all is imported by now
    os.setgid(65534)
    os.setuid(65534)
"""


def as_nobody(code: str, *arguments: object) -> str:
    return support.run(DROP + code, *arguments)[0]


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that another user may look into; where the way to it is closed, there is no test.

    Not below tmp_path: each pytest that begins, of whichever program, closes pytest's own folder.
    """
    with tempfile.TemporaryDirectory(prefix="escqrs-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        for one in folder.parents:
            if not one.stat().st_mode & stat.S_IXOTH:
                pytest.skip(f"{one} is closed to others")
        yield folder


def test_a_file_that_may_only_be_read(reachable: Path) -> None:
    path = reachable / "shop.db"
    make(path)
    (reachable / "shop.db-lock").unlink(missing_ok=True)
    path.chmod(0o444)
    before = path.read_bytes()
    out = as_nobody(
        """
try:
    es.open(sys.argv[1], Counter)
except es.ReadOnly as error:
    print("refused", error)
except es.StorageError as error:
    print("refused", error)
with es.open(sys.argv[1], Counter, readonly=True) as reader:
    print(reader[Counter, "a"].version)
""",
        path,
    )
    assert out.startswith("refused") and "shop.db" in out and out.endswith("5\n")
    assert path.read_bytes() == before


def test_a_file_that_may_not_be_read(reachable: Path) -> None:
    path = reachable / "shop.db"
    make(path)
    path.chmod(0)
    out = as_nobody(
        """
for readonly in (False, True):
    try:
        es.open(sys.argv[1], Counter, readonly=readonly)
    except es.StorageError as error:
        print("refused", error)
""",
        path,
    )
    assert out.count("refused") == 2 and "shop.db" in out


# ---- a full disk ---------------------------------------------------------------------------------

FULL = """
import errno

class Fill(es.Command[int]):
    size: int
    count: int = 1

class Filled(es.Event):
    data: bytes

class Tank(es.Aggregate):
    level: int

    @es.handles
    def fill(self, cmd: Fill) -> int:
        for _ in range(cmd.count):
            self.emit(Filled(os.urandom(cmd.size)))
        return self.level

    @es.applies
    def filled(self, event: Filled) -> None:
        self.level += 1
"""


def can_mount() -> bool:
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                "unshare",
                "-m",
                "sh",
                "-c",
                f"mount -t tmpfs -o size=1m none '{folder}'",
            ],
            capture_output=True,
        )
    return done.returncode == 0


@pytest.mark.skipif(
    shutil.which("unshare") is None or not can_mount(), reason="cannot mount a small disk here"
)
def test_a_full_disk_is_full_and_work_goes_on_once_there_is_room(tmp_path: Path) -> None:
    code = support.script(
        FULL
        + """
ballast = sys.argv[1] + "/ballast"
with open(ballast, "wb") as file:
    file.write(bytes(3 * 1024 * 1024))
with es.open(sys.argv[1] + "/shop.db", Tank) as system:
    tank = system[Tank, "t"]
    done = 0
    try:
        while True:
            tank.ask(Fill(20_000, 2))
            done += 2
    except es.Full as error:
        assert isinstance(error, OSError) and error.errno == errno.ENOSPC, (error, error.errno)
        assert isinstance(error, es.StorageError)
    replies = [tank.submit(Fill(50_000, 3)) for _ in range(5)]
    failures = [reply.exception() for reply in replies]
    assert all(isinstance(one, (es.Full, es.Aborted)) for one in failures), failures
    assert tank.version == done and tank.state.level == done, (tank.version, tank.state.level, done)
    assert len(list(system.events())) == done == system.head
    os.unlink(ballast)
    for i in range(10):
        tank.ask(Fill(20_000, 2))
        done += 2
    assert tank.state.level == done
with es.open(sys.argv[1] + "/shop.db", Tank) as system:
    assert system[Tank, "t"].state.level == done == system.head
    assert [one.version for one in system[Tank, "t"].history()] == list(range(1, done + 1))
print("good")
"""
    )
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            'mount -t tmpfs -o size=6m none "$0" && exec "$@"',
            str(tmp_path / "disk"),
            sys.executable,
            "-W",
            "error",
            "-c",
            code,
            str(tmp_path / "disk"),
        ],
        capture_output=True,
        text=True,
        timeout=support.SECONDS,
    )
    assert done.stdout == "good\n", done.stdout + done.stderr


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the system refuses what is written beyond, with EFBIG."""
    out, _ = support.run(
        FULL
        + """
import errno, resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with es.open(sys.argv[1], Tank) as system:
    tank = system[Tank, "t"]
    tank.ask(Fill(1000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    done = 1
    try:
        while done < 10_000:
            tank.ask(Fill(20_000))
            done += 1
    except es.StorageError as error:
        assert error.errno == errno.EFBIG, error
        assert "ulimit -f" in str(error) and os.strerror(errno.EFBIG) in str(error), error
    else:
        raise AssertionError
    try:
        assert tank.version == done == tank.state.level, (tank.version, tank.state.level, done)
    except es.StorageError:
        pass # final: open it again
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with es.open(sys.argv[1], Tank) as system:
    assert system[Tank, "t"].state.level == done == system.head, (system.head, done)
    assert system[Tank, "t"].ask(Fill(10)) == done + 1
print("good")
""",
        tmp_path / "shop.db",
    )
    assert out == "good\n"


# ---- durability ----------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_was_acknowledged_survives_the_death_of_the_process(
    tmp_path: Path, durability: str
) -> None:
    path = tmp_path / "shop.db"
    process = support.start(
        """
        system = es.open(sys.argv[1], Counter, durability=sys.argv[2])
        for i in range(100):
            system[Counter, "a"].ask(Add(1))
        print("done", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        path,
        durability,
    )
    out, _ = support.finish(process, -signal.SIGKILL)
    assert out == "done\n"
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].state.total == 100


# ---- a reader that stays -------------------------------------------------------------------------


def test_a_long_wal_is_said_and_shrinks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, mebibyte = tmp_path / "log.db", bytes(1 << 20)
    with es.Store(path, durability="normal") as store:

        def write(count: int) -> int:
            store.append("s", [es.NewEvent("T", mebibyte) for _ in range(count)])
            return os.stat(f"{path}-wal").st_size

        write(1)
        reader = sqlite3.connect(path, isolation_level=None)
        try:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM escqrs_journal").fetchone() == (1,)
            write(40)
            write(40)
            assert write(8) > 80 << 20
            reader.execute("COMMIT")
        finally:
            reader.close()
        write(8)
        assert write(8) <= 64 << 20
    support.until(lambda: "has grown to" in caplog.text)
    assert caplog.text.count("has grown to") == 1
    with es.Store(path) as store:
        assert not store.verify().problems
