"""``es.restore``: a store made of a backup or of an export, put in its place at once.

It is made in a folder beside the place, read as a whole, synced, and renamed: at every moment there
is the old file or the new one, also after a power loss. A process that is killed leaves that folder
behind (``.{name}.restoring-...``), and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

from ._inspect import Verification
from ._store import Store, check_options
from ._transfer import opened_export
from .errors import Corrupt, Error, Locked, StorageError

__all__ = ["restore"]

_SQLITE = b"SQLite format 3\0"
_ASIDE = ("-wal", "-shm", "-journal")
_PROBLEMS_SHOWN = 10

Progress = Callable[[int, int], object]


def restore(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Make a store of a backup or of a whole export, and put it at a path. Returns what was read of
    it: it is verified first, and takes its place by one rename, durably.

    source: a store's file, such as :meth:`Store.backup` makes, or an export as JSON lines or
        protobuf; which, is seen. It may be open elsewhere.
    overwrite: whether a file at that path may be replaced; else it is ``es.StorageError`` with
        ``errno.EEXIST``. One that is open, here or in another process, be it for reading, is
        ``es.Locked`` all the same.
    progress: called with a position and the last one now and then, for each time it is read.

    ``es.Corrupt`` names what is wrong with a backup. ``es.Conflict`` and ``ValueError`` are those
    of :meth:`Store.import_`: an export has to begin with the first event and to be complete. After
    any error the path is as it was. Snapshots, checkpoints, keys and read models come back with a
    backup, not with an export.
    """
    given = check_options(path, "full", False, 1)[0]
    if given == ":memory:":
        raise ValueError("a store is restored to a file; import_ and clone fill one in memory")
    place, origin = Path(os.path.realpath(given)), Path(os.path.realpath(source))
    if place == origin:
        raise ValueError(f"{source} is to be restored onto itself")
    if not overwrite:
        _refuse_existing(place)
    folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.restoring-", dir=place.parent))
    try:
        made = folder / "store"
        _make(origin, made, progress)
        found = dataclasses.replace(_verified(made, source, progress), path=os.fspath(path))
        _sync(made)
        one_file = overwrite and _settle(place)
        with _locked(place):
            if not overwrite:
                _refuse_existing(place)
            elif place.exists():
                shutil.copymode(place, made)
            _clear(place, one_file)
            made.replace(place)
            _sync(place.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _refuse_existing(place: Path) -> None:
    if place.exists():
        raise StorageError(f"{place} exists; overwrite=True replaces it", errno=errno.EEXIST)


def _make(origin: Path, made: Path, progress: Progress | None) -> None:
    with origin.open("rb") as file:
        first = file.read(len(_SQLITE))
    if first == _SQLITE:
        with Store(origin, readonly=True) as store:
            store.backup(made)
        return
    format = "jsonl" if first[:1] == b"{" else "protobuf"
    with (
        opened_export(origin, format, progress) as export,
        Store(made, chain=export.chained) as store,
    ):
        export.import_into(store, progress)


def _verified(made: Path, source: object, progress: Progress | None) -> Verification:
    with Store(made, readonly=True) as store:
        found = store.verify(progress=progress)
    if found.ok:
        return found
    lines = [f"\n  {problem}" for problem in found.problems[:_PROBLEMS_SHOWN]]
    if found.problem_count > len(lines):
        lines.append(f"\n  and {found.problem_count - len(lines):,} more")
    raise Corrupt(f"{source} is damaged and was not restored:{''.join(lines)}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle(place: Path) -> bool:
    """What is only in the old store's WAL goes into its file: no WAL may come to stand beside the
    new one. False where the old one does not open, and so has nothing to keep."""
    if not place.exists():
        return False
    try:
        with Store(place):
            return True
    except Locked:
        raise
    except Error:
        return False


def _clear(place: Path, one_file: bool) -> None:
    """Under the lock: nothing stands beside the place that the new file could be taken with."""
    left = [Path(f"{place}{name}") for name in _ASIDE if os.path.lexists(f"{place}{name}")]
    if left and one_file:  # whoever closes last takes them away
        raise Locked(
            f"{place} is read by another process, or by this one; close it there first",
            path=str(place),
        )
    for path in left:
        path.unlink()
    # what was built of a read model from the old store's events; the new one may say that it is
    # being rebuilt, too, and would go on there
    copy = re.compile(re.escape(place.name) + r"-rebuild-[0-9a-f]{16}(-wal|-shm|-journal)?")
    for path in [one for one in place.parent.iterdir() if copy.fullmatch(one.name)]:
        path.unlink()


@contextlib.contextmanager
def _locked(place: Path) -> Generator[None, None, None]:
    """The lock of who writes the store; see docs/format.md."""
    descriptor = os.open(f"{place}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(f"{place} is open for writing elsewhere", path=str(place)) from None
        yield
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child on its way to exec has a copy
    finally:
        os.close(descriptor)
