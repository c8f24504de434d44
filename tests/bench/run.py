#!/usr/bin/env python3
"""`make bench`: escqrs beside its floor and its peer, in one table.

    python tests/bench/run.py [--only NAME ...] [--rounds N] [--part P] [--full] [--json FILE]

Each figure is a median over the rounds, with half the range as its spread. The machine is likely
shared, so the sides take turns: floor, escqrs, peer, floor, ... each in a fresh process, on a fresh
file, on the disk that holds the build folder. The floors are loops in C (`floor.c`; asyncio's is in
Python) over the same SQLite with the same durability; the peer is the PyPI package eventsourcing
with its SQLite recorder, WAL and synchronous=FULL (`peer.py`); messages have peers of their own.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measure import BUILD, Figures, NotAvailable
from rows import ROWS, WORKLOADS, Row

SIDES = ("floor", "ours", "peer")
SECONDS_MAX = 900  # of one run of one side
SECONDS_MAX_FULL = 7200

Results = dict[tuple[str, str], list[Figures]]  # by workload and side


def run_here(workload: str, side: str, part: float) -> Figures:
    """Run one side of a workload in this process, in a folder of its own."""
    module = importlib.import_module(f"workloads.{workload}")
    BUILD.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{workload}-{side}-", dir=BUILD))
    try:
        figures: Figures = getattr(module, side)(folder, part)
        return figures
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_apart(workload: str, side: str, part: float) -> Figures | str:
    """Run it in a process of its own; the text is why there are no figures."""
    command = [sys.executable, __file__, "--one", workload, side, "--part", str(part)]
    seconds_max = SECONDS_MAX_FULL if os.environ.get("ESCQRS_BENCH_FULL") else SECONDS_MAX
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds_max)
    except subprocess.TimeoutExpired:
        return f"no end within {seconds_max} s"
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        sys.stderr.write(done.stderr)
        answer = json.loads(lines[-1])
        return answer if isinstance(answer, dict) else str(answer)
    return f"failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}"


def one(workload: str, side: str, part: float) -> None:
    """What the process apart does: print the figures, or why there are none, as JSON."""
    try:
        if side == "peer" and workload not in ("messages", "actors", "pyactors"):
            try:
                importlib.import_module("eventsourcing")
            except ImportError:
                raise NotAvailable("pip install eventsourcing") from None
        answer: Figures | str = run_here(workload, side, part)
    except NotAvailable as reason:
        answer = str(reason)
    print(json.dumps(answer))


def say(text: str) -> None:
    """Show what is being done, where somebody may be looking."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def collect(
    workloads: list[str], sides: list[str], rounds: int, part: float
) -> tuple[Results, list[str]]:
    """Run everything, round by round, the sides in turn."""
    results: Results = {}
    notes: list[str] = []
    for workload in workloads:
        for number in range(rounds):
            for side in sides:
                if (workload, side) in results and not results[workload, side]:
                    continue  # it could not be measured the first time
                say(f"{workload}: round {number + 1} of {rounds}, {side}")
                answer = run_apart(workload, side, part)
                runs = results.setdefault((workload, side), [])
                if isinstance(answer, dict):
                    runs.append(answer)
                elif side != "peer" or answer.startswith("failed"):
                    notes.append(f"{workload}, {side}: {answer}")
    say("")
    return results, notes


def figures_of(results: Results, row: Row, side: str) -> list[float]:
    figure = row.figure if side != "peer" or row.peer_figure is None else row.peer_figure
    values = [run[figure] for run in results.get((row.workload, side), []) if figure in run]
    if row.beyond_floor and side == "ours":
        floors = figures_of(results, row, "floor")
        base = statistics.median(floors) if floors else 0.0
        return [value - base for value in values]
    return values


def text(value: float) -> str:
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"


def cell(values: list[float]) -> str:
    if not values:
        return "–"
    median = statistics.median(values)
    spread = 100 * (max(values) - min(values)) / 2 / median if median > 0 else 0
    return f"{text(median)} ±{spread:.0f}%" if len(values) > 1 else text(median)


def times(row: Row, ours: list[float], other: list[float]) -> float | None:
    """Return how many times as fast as the other side."""
    if not ours or not other or row.beyond_floor or not statistics.median(other):
        return None
    mine, its = statistics.median(ours), statistics.median(other)
    return mine / its if row.more_is_better else its / max(mine, 1e-12)


def verdict(
    row: Row, ours: list[float], of_floor: float | None, of_peer: float | None
) -> tuple[str, str]:
    """Return what is to be reached, and whether it is."""
    wanted, met = [], []
    if row.limit is not None:
        digits = 0 if row.limit == int(row.limit) or row.limit >= 100 else 2
        wanted.append(f"{'≥' if row.more_is_better else '≤'} {row.limit:,.{digits}f}")
        if ours:
            mine = statistics.median(ours)
            met.append(mine >= row.limit if row.more_is_better else mine <= row.limit)
    for name, share, least in (
        ("floor", of_floor, row.times_floor),
        ("peer", of_peer, row.times_peer),
    ):
        if least is not None:
            wanted.append(f"{least:.3g}× {name}")
            if share is not None:
                met.append(share >= least)
    if not wanted:
        return "", ""
    return ", ".join(wanted), ("–" if not met else "yes" if all(met) else "NO")


def lines_of(results: Results, workloads: list[str]) -> list[list[str]]:
    large = "10 million" if os.environ.get("ESCQRS_BENCH_FULL") else "1 million"
    lines = []
    for row in ROWS:
        if row.workload not in workloads:
            continue
        ours, floor, peer = (figures_of(results, row, side) for side in ("ours", "floor", "peer"))
        of_floor, of_peer = times(row, ours, floor), times(row, ours, peer)
        wanted, met = verdict(row, ours, of_floor, of_peer)
        lines.append([
            row.title.format(events=large), row.unit, cell(ours), cell(floor),
            "–" if of_floor is None else f"{of_floor:.2f}", cell(peer),
            "–" if of_peer is None else f"{of_peer:.1f}", wanted, met,
        ])  # fmt: skip
    return lines


HEADINGS = ["workload", "unit", "escqrs", "floor", "× floor", "peer", "× peer", "to reach", "met"]
LEFT = {0, 1, 7, 8}


def print_table(lines: list[list[str]], markdown: bool) -> None:
    if markdown:
        print("| " + " | ".join(HEADINGS) + " |")
        print("|" + "|".join("---" if i in LEFT else "---:" for i in range(len(HEADINGS))) + "|")
        for line in lines:
            print("| " + " | ".join(line) + " |")
        return
    widths = [max(len(line[i]) for line in [HEADINGS, *lines]) for i in range(len(HEADINGS))]
    for line in [HEADINGS, ["─" * width for width in widths], *lines]:
        print("  ".join(
            value.ljust(width) if i in LEFT else value.rjust(width)
            for i, (value, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip())  # fmt: skip


def about() -> str:
    try:
        peer = importlib.metadata.version("eventsourcing")
    except importlib.metadata.PackageNotFoundError:
        peer = "not installed"
    return (
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version},"
        f" {os.cpu_count()} processors, {platform.system()} {platform.release()};"
        f" peer: eventsourcing {peer}, SQLite recorder, WAL, synchronous=FULL,"
        " aggregate cache on where it helps. × is how many times as fast."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, metavar="NAME",
                        help=f"workloads to run: {', '.join(WORKLOADS)}")  # fmt: skip
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", type=float, default=1.0, help="share of the work, 0 to 1")
    parser.add_argument(
        "--full",
        action="store_true",
        help="full size: files of 10 million events, a backup of 1 GB",
    )
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", type=Path, help="write every figure of every run there")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SIDE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.full:
        os.environ["ESCQRS_BENCH_FULL"] = "1"
    if given.one:
        one(given.one[0], given.one[1], given.part)
        return 0
    workloads = given.only or WORKLOADS
    results, notes = collect(workloads, given.sides, max(1, given.rounds), given.part)
    print_table(lines_of(results, workloads), given.markdown)
    print("\n" + about())
    for note in notes:
        print(f"note: {note}")
    if given.json:
        given.json.write_text(
            json.dumps(
                {f"{workload}/{side}": runs for (workload, side), runs in results.items()}, indent=1
            )
        )
    return 1 if any("failed" in note for note in notes) else 0


if __name__ == "__main__":
    sys.exit(main())
