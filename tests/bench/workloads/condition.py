"""Commits of one event that hold only if no later event bears a tag, beside commits without a
condition, in turn, in a store of 1 million events that bear one of 1,000 tags each."""

from __future__ import annotations

from pathlib import Path

from measure import Figures, run_store

EVENTS = 1_000_000
COMMITS = 1500


def floor(folder: Path, part: float) -> Figures:
    return {}


def ours(folder: Path, part: float) -> Figures:
    file = folder / "ours.db"
    run_store("fill", file, 10_000, max(10_000, int(EVENTS * part)), 1)
    done = run_store("conditional", file, max(50, int(COMMITS * part)))
    return {"rate": done["rate"], "share": done["rate"] / done["unconditional"]}


def peer(folder: Path, part: float) -> Figures:
    return {}
