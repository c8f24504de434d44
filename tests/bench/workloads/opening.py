"""Opening a file of many events, and one of few beside it: the time must not grow with the file.

The large file is written once and kept in the build folder. `make bench` takes 1 million events,
`run.py --full` 10 million.
"""

from __future__ import annotations

import os
from pathlib import Path

from measure import BUILD, Figures, run_floor, stopwatch

EVENTS = 1_000_000
FULL_EVENTS = 10_000_000
STREAMS = 10_000
FEW = 1_000


def events() -> int:
    return FULL_EVENTS if os.environ.get("ESCQRS_BENCH_FULL") else EVENTS


def kept(name: str) -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    return BUILD / f"{name}-{events()}.db"


def floor(folder: Path, part: float) -> Figures:
    file = kept("open-floor")
    if not file.exists():
        made = file.with_suffix(".part")
        made.unlink(missing_ok=True)
        run_floor("fill", made, STREAMS, events() // STREAMS)
        made.rename(file)
    return {"large": run_floor("open", file)["ms"]}


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es
    from model import Account, fill_accounts

    large = kept("open-ours")
    head = -1
    if large.exists():
        try:
            with es.open(large, Account) as bank:
                head = sum(recorded.position for recorded in bank.events(after=events() - 1))
        except es.Error:  # an older format
            head = -1
    if head != events():
        for old in BUILD.glob(large.name + "*"):
            old.unlink()
        fill_accounts(large, STREAMS, events() // STREAMS, at_once=events() // STREAMS)
    small = folder / "small.db"
    fill_accounts(small, 10, FEW // 10, at_once=10)
    figures = {}
    for name, file in (("large", large), ("small", small)):
        with stopwatch() as watch:
            bank = es.open(file, Account)
        with stopwatch() as first:
            bank[Account, "account-7"].state
        bank.close()
        figures[name] = 1e3 * watch.seconds
        figures[f"{name}_first"] = 1e3 * first.seconds
    return figures


def peer(folder: Path, part: float) -> Figures:
    import peer as model

    with stopwatch() as watch:
        shop = model.shop(folder / "peer.db", cached=False)
    shop.close()
    return {"small": 1e3 * watch.seconds}
