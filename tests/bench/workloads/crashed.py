"""Opening a file whose writer was killed with 64 MB in the WAL, which a reader had kept there."""

from __future__ import annotations

from pathlib import Path

from measure import Figures, run_store

MEGABYTES = 64


def floor(folder: Path, part: float) -> Figures:
    return {}


def ours(folder: Path, part: float) -> Figures:
    file = folder / "ours.db"
    written = run_store("crash", file, MEGABYTES)
    wal = Path(f"{file}-wal").stat().st_size / 1e6
    done = run_store("open", file)
    assert done["head"] == written["head"]
    return {"ms": done["ms"], "wal": wal}


def peer(folder: Path, part: float) -> Figures:
    return {}
