"""Reading without aggregates: one stream of 1,000 events, and all events by position.

Streams are interleaved in the file, as if all had been written at once. "First" is with the file
out of the system's cache, as far as it can be asked to forget it.
"""

from __future__ import annotations

import os
from pathlib import Path

from measure import Figures, run_floor, run_store, stopwatch

STREAMS = 1000
DEPTH = 1000
READ = 50
BYTES = 64


def forget(file: Path) -> None:
    """Ask the system to drop its pages of a file."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def floor(folder: Path, part: float) -> Figures:
    file = folder / "floor.db"
    run_floor("fill", file, STREAMS, DEPTH, BYTES)
    return {
        "again": run_floor("stream", file, STREAMS, DEPTH)["us"],
        "scan": run_floor("scan", file)["rate"],
    }


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es

    file = folder / "ours.db"
    run_store("fill", file, STREAMS, STREAMS * DEPTH, 0)
    forget(file)
    figures = run_store("stream", file, READ)
    figures["scan"] = run_store("scan", file)["rate"]
    with es.Store(file) as store:
        with stopwatch() as watch:
            size = sum(len(recorded.data) for recorded in store.events())
        assert size == STREAMS * DEPTH * BYTES
    figures["python"] = STREAMS * DEPTH / watch.seconds
    return figures


def peer(folder: Path, part: float) -> Figures:
    return {}
