"""es.restore, and the commands that move stores."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS


def event(data: bytes = b"x", **options: Any) -> es.NewEvent:
    return es.NewEvent("Thing", data, **options)


def fill(store: es.Store, events: int = 20) -> None:
    for number in range(events):
        store.append(f"s{number % 3}", [event(bytes([number]))], key=f"key-{number}")
    store.set_checkpoint("c", 3)
    store.save_snapshot("s0", 2, "State", b"state")


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Of a store with twenty events."""
    path = tmp_path / "backup.db"
    with es.Store(tmp_path / "first.db") as store:
        fill(store)
        store.backup(path)
    return path


def data(path: Path) -> list[bytes]:
    with es.Store(path, readonly=True) as store:
        return [recorded.data for recorded in store.events()]


def beside(path: Path) -> list[str]:
    """What is left in the folder of that name."""
    return sorted(one.name for one in path.parent.iterdir() if path.name in one.name)


TWENTY = [bytes([number]) for number in range(20)]


def test_a_backup(backup: Path, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    seen: list[tuple[int, int]] = []
    found = es.restore(backup, path, progress=lambda *now: seen.append(now))
    assert (found.ok, found.events, found.snapshots, found.keys) == (True, 20, 1, 20)
    assert seen[-1] == (20, 20)
    assert data(path) == TWENTY
    with es.Store(path) as store:
        assert store.checkpoint("c") == 3
        assert store.snapshot("s0") is not None
        assert store.append("s1", [event(b"\x01")], key="key-1").repeated
        assert store.append("s0", [event()]).position == 21
    assert beside(path) == ["shop.db", "shop.db-lock"]


@pytest.mark.parametrize("format", ["jsonl", "protobuf"])
def test_an_export(backup: Path, tmp_path: Path, format: str) -> None:
    path, export = tmp_path / "shop.db", tmp_path / "events"
    with es.Store(backup, readonly=True) as store:
        store.export(export, format=format)
        times = [recorded.time for recorded in store.events()]
    assert es.restore(str(export), str(path)).events == 20
    with es.Store(path) as store:
        assert [recorded.time for recorded in store.events()] == times
    assert data(path) == TWENTY
    assert beside(path) == ["shop.db", "shop.db-lock"]


def test_of_a_store_that_is_written(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.Store(tmp_path / "live.db") as store:
        fill(store)
        assert es.restore(tmp_path / "live.db", path).events == 20
        store.append("s0", [event()])
    assert data(path) == TWENTY


def test_nothing_is_overwritten_unless_asked(backup: Path, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.Store(path) as store:
        store.append("mine", [event(b"mine")])
    path.chmod(0o640)
    with pytest.raises(es.StorageError, match="exists") as raised:
        es.restore(backup, path)
    assert raised.value.errno == errno.EEXIST
    assert data(path) == [b"mine"]
    es.restore(backup, path, overwrite=True)
    assert data(path) == TWENTY
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(ValueError, match="onto itself"):
        es.restore(path, path, overwrite=True)
    with pytest.raises(ValueError, match="memory"):
        es.restore(path, ":memory:")


def test_one_that_is_open_is_locked(backup: Path, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.Store(path) as store:
        store.append("mine", [event(b"mine")])
        with pytest.raises(es.Locked):
            es.restore(backup, path, overwrite=True)
        store.append("mine", [event(b"mine")])
        with es.Store(path, readonly=True) as reader:
            store.close()
            with pytest.raises(es.Locked, match="read"):
                es.restore(backup, path, overwrite=True)
            assert [recorded.data for recorded in reader.events()] == [b"mine"] * 2
    es.restore(backup, path, overwrite=True)
    assert data(path) == TWENTY


def killed(path: Path) -> None:
    """A process that appends to the store and dies with a WAL."""
    program = (
        "import os, signal, sys, escqrs as es\n"
        "store = es.Store(sys.argv[1])\n"
        "store.append('mine', [es.NewEvent('Thing', b'mine')])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, path], timeout=SECONDS)


def test_the_wal_of_who_was_killed_does_not_come_to_the_new_file(
    backup: Path, tmp_path: Path
) -> None:
    path = tmp_path / "shop.db"
    killed(path)
    assert "shop.db-wal" in beside(path)
    es.restore(backup, path, overwrite=True)
    assert data(path) == TWENTY
    path.unlink()  # and of a store that was deleted
    killed(path)
    path.unlink()
    es.restore(backup, path)
    assert data(path) == TWENTY


def test_copies_of_read_models_go_with_the_store_that_they_were_made_of(
    backup: Path, tmp_path: Path
) -> None:
    path = tmp_path / "shop.db"
    es.Store(path).close()
    copy = "shop.db-rebuild-0123456789abcdef"
    for name in (copy, f"{copy}-wal", f"{copy}-shm", "shop.db-rebuild-notes"):
        (tmp_path / name).touch()
    es.restore(backup, path, overwrite=True)
    assert beside(path) == ["shop.db", "shop.db-lock", "shop.db-rebuild-notes"]
    assert data(path) == TWENTY


def test_a_damaged_store_is_replaced(backup: Path, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    killed(path)
    path.write_bytes(b"\0" * 10_000)
    es.restore(backup, path, overwrite=True)
    assert data(path) == TWENTY


def test_a_damaged_backup_is_refused(backup: Path, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(backup)) as db, db:
        db.execute("UPDATE escqrs_journal SET data = x'00' WHERE position = 7")
    with es.Store(path) as store:
        store.append("mine", [event(b"mine")])
    with pytest.raises(es.Corrupt, match="position 7"):
        es.restore(backup, path, overwrite=True)
    assert data(path) == [b"mine"]
    assert beside(path) == ["shop.db", "shop.db-lock"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda lines: lines[:-1], ValueError),
        (lambda lines: [lines[0].replace(b'"after":0', b'"after":3'), *lines[4:]], es.Conflict),
        (lambda lines: lines[:5] + lines[6:], es.Conflict),
        (lambda lines: [b"no export\n"], ValueError),
        (lambda lines: [], ValueError),
    ],
)
def test_an_export_that_is_not_whole(
    backup: Path, tmp_path: Path, change: Any, error: type[Exception]
) -> None:
    path, export = tmp_path / "shop.db", tmp_path / "events"
    with es.Store(backup, readonly=True) as store:
        store.export(export)
    export.write_bytes(b"".join(change(export.read_bytes().splitlines(keepends=True))))
    with pytest.raises(error):
        es.restore(export, path)
    assert beside(path) == []


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        es.restore(tmp_path / "none", tmp_path / "shop.db")
    with pytest.raises(TypeError):
        es.restore(tmp_path / "none", 7)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


# ---- the commands --------------------------------------------------------------------------------


def run(*arguments: object, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "escqrs", *map(str, arguments)],
        capture_output=True,
        input=input,
        timeout=SECONDS,
    )


def test_the_commands_move_a_store(tmp_path: Path) -> None:
    live, copy, events, shop = (tmp_path / name for name in ("live.db", "copy", "events", "shop"))
    with es.Store(live) as store:
        fill(store)
        assert run("backup", live, copy).returncode == 0
        assert run("export", live, events, "--format", "protobuf", "--after", 5).returncode == 0
    assert run("restore", copy, shop).stdout.endswith(b"20 events\n")
    assert data(shop) == TWENTY
    again = run("restore", copy, shop)
    assert (again.returncode, again.stdout) == (2, b"")
    assert b"StorageError" in again.stderr
    shown = run("restore", copy, shop, "--overwrite", "--progress")
    assert (shown.returncode, b"20 of 20 (100%)" in shown.stderr) == (0, True)
    assert run("backup", live, copy).returncode == 2
    assert run("restore", tmp_path / "none", tmp_path / "x").returncode == 2

    piped = run("export", shop, "-", "--upto", 5)
    assert piped.returncode == 0
    target = tmp_path / "target.db"
    assert run("import", target, "-", input=piped.stdout).stdout == b"5 events\n"
    assert run("import", target, events, "--format", "protobuf").stdout == b"15 events\n"
    assert data(target) == TWENTY
    assert run("import", target, "-", input=b"no export").returncode == 2
    mistyped = run("import", events, tmp_path / "none.db")  # the two the other way round
    assert (mistyped.returncode, b"none.db" in mistyped.stderr) == (2, True)
    assert run("import", tmp_path / "fresh.db", tmp_path / "none").returncode == 2
    assert run("import", tmp_path / "fresh.db", tmp_path / "none").returncode == 2
    lines = piped.stdout.splitlines(keepends=True)
    later = run("export", shop, "-", "--after", 2).stdout
    for bad in (b"", b"no export", later, lines[0], lines[0] + b"{}\n", lines[0] + lines[2]):
        assert run("import", tmp_path / "fresh.db", "-", input=bad).returncode == 2, bad
        assert sorted(tmp_path.glob("fresh.db*")) == [], bad
    cut = run("import", tmp_path / "fresh.db", "-", input=b"".join(lines[:3]))
    assert (cut.returncode, b"cut short" in cut.stderr) == (2, True)
    assert data(tmp_path / "fresh.db") == TWENTY[:2]  # what came before the end is stored
    assert run("export", shop, tmp_path / "y", "--after", "-1").returncode == 2
