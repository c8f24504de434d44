"""What the workloads share: where they put files, how they time, how they call the floor."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The Makefile says where it compiles to; files are measured on the disk that holds that folder.
BUILD = Path(os.environ.get("ESCQRS_BENCH_PROGRAMS", ROOT / "build" / "bench"))
# `run.py --full`: large files at their full size, which take their time to fill.
FULL = bool(os.environ.get("ESCQRS_BENCH_FULL"))
SECONDS_MAX = 3600 if FULL else 600  # of a program in C
FLOOR_SOURCE = Path(__file__).with_name("floor.c")

Figures = dict[str, float]


class NotAvailable(Exception):
    """A side that cannot be measured here; the text says why."""


def percentile(values: list[float], part: float) -> float:
    """Return the value below which `part` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def floor_program() -> Path:
    """Return the floor's program: the Makefile's, or one compiled here."""
    program = BUILD / "floor"
    if not program.exists() or program.stat().st_mtime < FLOOR_SOURCE.stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CC", "cc")
        flags = ["-std=c11", "-D_GNU_SOURCE", "-O2"]
        done = subprocess.run(
            [compiler, *flags, str(FLOOR_SOURCE), "-lsqlite3", "-o", str(program)],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise NotAvailable(f"no floor: {done.stderr.strip()[-200:]}")
    return program


def run_program(program: Path, mode: str, file: Path, *arguments: object) -> Figures:
    """Run one mode of a program in C and return what it printed."""
    done = subprocess.run(
        [str(program), mode, str(file), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    if not done.stdout:
        raise NotAvailable(done.stderr.strip())
    figures: Figures = json.loads(done.stdout)
    return figures


def run_floor(mode: str, file: Path, *arguments: object) -> Figures:
    """Run one mode of the floor and return what it printed."""
    return run_program(floor_program(), mode, file, *arguments)


def run_store(mode: str, file: Path, *arguments: object) -> Figures:
    """Run one mode of `store.c` and return what it printed."""
    program = BUILD / "store"
    if not program.exists():
        raise NotAvailable("make benches-c compiles the program that measures the store alone")
    return run_program(program, mode, file, *arguments)


class Stopwatch:
    """Seconds of a `with` block."""

    seconds = 0.0


@contextmanager
def stopwatch() -> Generator[Stopwatch, None, None]:
    watch = Stopwatch()
    begun = time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - begun


def resident_bytes() -> int:
    """Return this process's memory in use, from /proc (Linux), without the files that it maps."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise NotAvailable("no RssAnon in /proc/self/status")
