"""Appends into a store that is large already, beside the same into an empty one.

The large file is filled once and kept in the build folder: 1 million events of 100,000 streams, or
with `run.py --full` 10 million of 1 million. A copy of it is appended to.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from measure import BUILD, Figures, run_store

STREAMS = 10_000
COMMITS = {1: 2000, 100: 1000, 1000: 300}


def large() -> Path:
    events = 10_000_000 if os.environ.get("ESCQRS_BENCH_FULL") else 1_000_000
    file = BUILD / f"grown-{events}.db"
    if not file.exists():
        made = BUILD / "grown.part"
        made.unlink(missing_ok=True)
        run_store("fill", made, events // 10, events, 0)
        made.rename(file)
    return file


def floor(folder: Path, part: float) -> Figures:
    return rates(None, folder, part)


def ours(folder: Path, part: float) -> Figures:
    return rates(large(), folder, part)


def rates(begin_with: Path | None, folder: Path, part: float) -> Figures:
    figures: Figures = {}
    for rows, count in COMMITS.items():
        file = folder / f"{rows}.db"
        if begin_with is not None:
            shutil.copyfile(begin_with, file)
            with file.open("rb") as copied:
                os.fsync(copied.fileno())
        done = run_store("append", file, max(20, int(count * part)), rows, STREAMS)
        figures[f"rate{rows}"] = done["rate"]
        file.unlink()
    return figures


def peer(folder: Path, part: float) -> Figures:
    return {}
