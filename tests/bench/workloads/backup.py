"""A backup while 10,000 events a second are written: what rate the writer keeps.

The file has about 100 MB, with `run.py --full` 1 GB.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from measure import Figures, run_store, stopwatch

EVENTS = 850_000
RATE = 10_000
BATCH = 100
BEFORE_SECONDS = 2.0


class Writer(threading.Thread):
    """Appends at the wanted rate, and as fast as it can where it is behind."""

    def __init__(self, store: object) -> None:
        super().__init__(daemon=True)
        self.store = store
        self.written = 0
        self.stopped = False

    def run(self) -> None:
        import escqrs as es

        assert isinstance(self.store, es.Store)
        batch = [es.NewEvent("Happened", b"x" * 64) for _ in range(BATCH)]
        begun = time.perf_counter()
        while not self.stopped:
            self.store.append(f"stream-{self.written % 999}", batch)
            self.written += BATCH
            ahead = self.written / RATE - (time.perf_counter() - begun)
            if ahead > 0:
                time.sleep(ahead)
            else:
                begun -= ahead  # what was missed is not caught up


def floor(folder: Path, part: float) -> Figures:
    return {}


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es

    file = folder / "ours.db"
    times = 10 if os.environ.get("ESCQRS_BENCH_FULL") else 1
    run_store("fill", file, 10_000, int(EVENTS * times * part), 0)
    with es.Store(file) as store:
        writer = Writer(store)
        writer.start()
        time.sleep(BEFORE_SECONDS)
        before = writer.written / BEFORE_SECONDS
        written = writer.written
        with stopwatch() as watch:
            store.backup(folder / "backup.db")
        during = (writer.written - written) / watch.seconds
        writer.stopped = True
        writer.join()
    size = (folder / "backup.db").stat().st_size / 1e6
    return {"share": during / before, "rate": size / watch.seconds}


def peer(folder: Path, part: float) -> Figures:
    return {}
