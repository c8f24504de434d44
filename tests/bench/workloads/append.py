"""Events appended to 10,000 streams, 64 bytes each, FULL: from C, and from Python.

From C each event is a write of its own, to the next stream, as in the floor, which knows no names;
streams exist already; from Python 1,000
events go to one stream at a time. The peers get batches of 1,000: eventsourcing through its
recorder, which inserts them without aggregates, and umadb's server on 127.0.0.1, which syncs twice
a commit.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from measure import Figures, NotAvailable, run_floor, run_store, stopwatch

STREAMS = 10_000
BYTES = 64
COMMITS = {1: 3000, 100: 2000, 1000: 400}  # by events in each
BATCH = 1000
BATCHES = 300
PEER_BATCHES = 60


def commits(rows: int, part: float) -> int:
    return max(20, int(COMMITS[rows] * part))


def floor(folder: Path, part: float) -> Figures:
    figures: Figures = {}
    for rows in COMMITS:
        file = folder / f"floor-{rows}.db"
        figures[f"rate{rows}"] = run_floor(
            "commit", file, commits(rows, part), rows, STREAMS, BYTES
        )["rate"]
    return figures


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es

    figures: Figures = {}
    for rows in COMMITS:
        file = folder / f"ours-{rows}.db"
        figures[f"rate{rows}"] = run_store("append", file, commits(rows, part), rows, STREAMS)[
            "rate"
        ]
    count = max(20, int(BATCHES * part))
    batch = [es.NewEvent("Happened", b"x" * BYTES) for _ in range(BATCH)]
    file = folder / "python.db"
    with es.Store(file) as store:
        with stopwatch() as watch:
            for number in range(count):
                store.append(f"stream-{number % STREAMS}", batch)
        assert store.head == count * BATCH
    figures["python"] = count * BATCH / watch.seconds
    figures["bytes"] = file.stat().st_size / (count * BATCH)
    return figures


def peer(folder: Path, part: float) -> Figures:
    count = max(5, int(PEER_BATCHES * part))
    return {
        "eventsourcing": eventsourcing(folder / "eventsourcing.db", count),
        "umadb": umadb(folder / "umadb.db", count),
    }


def eventsourcing(file: Path, count: int) -> float:
    import peer as model
    from eventsourcing.persistence import StoredEvent

    shop = model.shop(file, cached=False)
    with stopwatch() as watch:
        for _ in range(count):
            stream = uuid.uuid4()
            shop.recorder.insert_events([
                StoredEvent(stream, version, "Happened", b"x" * BYTES)
                for version in range(1, BATCH + 1)
            ])  # fmt: skip
    shop.close()
    return count * BATCH / watch.seconds


def umadb(file: Path, count: int) -> float:
    try:
        import umadb as library
    except ImportError:
        raise NotAvailable("pip install umadb") from None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    server = subprocess.Popen(
        [Path(sys.executable).with_name("umadb")],
        env=os.environ | {"UMADB_LISTEN": address, "UMADB_DB_PATH": str(file)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = connected(library, address, server)
        batch = [
            library.Event(event_type="Happened", data=b"x" * BYTES, tags=["stream-1"])
            for _ in range(BATCH)
        ]
        with stopwatch() as watch:
            for _ in range(count):
                client.append(batch)
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
    return count * BATCH / watch.seconds


def connected(library: Any, address: str, server: subprocess.Popen[bytes]) -> Any:
    for _ in range(100):
        try:
            client = library.Client(f"http://{address}")
            client.head()
            return client
        except Exception as error:  # its own class, which depends on what is not there yet
            if server.poll() is not None:
                raise NotAvailable(f"umadb's server has ended: {error}") from None
            time.sleep(0.1)
    raise NotAvailable("umadb's server does not answer")
