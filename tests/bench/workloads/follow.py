"""From the answer of a commit to a reader that waits in a feed: in another thread, and in another
process. Clocks are the system's monotonic one, which processes share."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from measure import Figures, percentile

EVENTS = 1000
PAUSE_SECONDS = 0.002  # the reader waits again by then
IDLE_SECONDS = 3.0

READER = """
import sys, time
import escqrs as es

with es.Store(sys.argv[1], readonly=True) as store:
    with store.subscribe() as feed:
        print("ready", flush=True)
        for recorded in feed:
            print(time.monotonic_ns(), flush=True)
            if recorded.position == int(sys.argv[2]):
                break
"""


def floor(folder: Path, part: float) -> Figures:
    return {}


def ours(folder: Path, part: float) -> Figures:
    count = max(50, int(EVENTS * part))
    near, far = same_process(folder / "near.db", count), other_process(folder / "far.db", count)
    return {
        "near_p50": percentile(near, 0.5),
        "near_p99": percentile(near, 0.99),
        "far_p50": percentile(far, 0.5),
        "far_p99": percentile(far, 0.99),
        "idle": waiting(folder / "idle.db"),
    }


def answered(store: object, count: int) -> list[int]:
    """Append one event at a time and return when each was answered."""
    import escqrs as es

    assert isinstance(store, es.Store)
    times = []
    for _ in range(count):
        store.append("stream", [es.NewEvent("Happened", b"x" * 64)])
        times.append(time.monotonic_ns())
        time.sleep(PAUSE_SECONDS)
    return times


def delays(seen: list[int], answers: list[int]) -> list[float]:
    """Milliseconds; an event may be seen before its writer has its answer."""
    pairs = zip(seen, answers, strict=True)
    return [max(0, reader - writer) / 1e6 for reader, writer in pairs]


def same_process(file: Path, count: int) -> list[float]:
    import escqrs as es

    seen: list[int] = []
    with es.Store(file) as store:
        feed = store.subscribe()

        def read() -> None:
            for recorded in feed:
                seen.append(time.monotonic_ns())
                if recorded.position == count:
                    return

        reader = threading.Thread(target=read)
        reader.start()
        answers = answered(store, count)
        reader.join()
    return delays(seen, answers)


def other_process(file: Path, count: int) -> list[float]:
    import escqrs as es

    with es.Store(file) as store:
        with subprocess.Popen(
            [sys.executable, "-c", READER, str(file), str(count)],
            stdout=subprocess.PIPE,
            text=True,
        ) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            answers = answered(store, count)
            seen = [int(line) for line in reader.stdout]
    return delays(seen, answers)


def waiting(file: Path) -> float:
    """Percent of a processor that a reader takes to whom nothing comes."""
    import escqrs as es

    with es.Store(file) as store:
        feed = store.subscribe()
        reader = threading.Thread(target=lambda: list(feed))
        reader.start()
        cpu, wall = time.process_time(), time.perf_counter()
        time.sleep(IDLE_SECONDS)
        used = (time.process_time() - cpu) / (time.perf_counter() - wall)
        feed.close()
        reader.join()
    return 100 * used


def peer(folder: Path, part: float) -> Figures:
    return {}
