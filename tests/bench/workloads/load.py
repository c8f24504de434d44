"""The state of an entity that is not in memory: 10 or 1,000 events from disk, no snapshot.

Streams are interleaved in the file, as if all had been written at once. Each is read once, in
another order than they lie in. The floor reads the rows of one stream through an index.
"""

from __future__ import annotations

import time
from pathlib import Path

from measure import Figures, percentile, run_floor

SHALLOW = (1000, 10)  # streams, events in each
DEEP = (100, 1000)
PEER_DEEP = (5, 1000)


def floor(folder: Path, part: float) -> Figures:
    figures = {}
    for name, (streams, depth) in (("shallow", SHALLOW), ("deep", DEEP)):
        file = folder / f"floor-{name}.db"
        run_floor("fill", file, streams, depth)
        figures[name] = run_floor("stream", file, streams, depth)["us"]
    return figures


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es
    from model import Account, fill_accounts

    figures = {}
    for name, (streams, depth) in (("shallow", SHALLOW), ("deep", DEEP)):
        file = folder / f"ours-{name}.db"
        fill_accounts(file, streams, depth, at_once=max(1, depth // 10))
        took = []
        with es.open(file, Account) as bank:
            for number in range(streams):
                account = bank[Account, f"account-{(number * 7919) % streams}"]
                begun = time.perf_counter()
                state = account.state
                took.append(time.perf_counter() - begun)
                assert state.balance == depth
        figures[name] = 1e6 * percentile(took, 0.5)
    return figures


def peer(folder: Path, part: float) -> Figures:
    import peer as model

    figures = {}
    for name, (streams, depth) in (("shallow", SHALLOW), ("deep", PEER_DEEP)):
        bank = model.shop(folder / f"peer-{name}.db", cached=False)
        accounts = [model.Account(number) for number in range(streams)]
        for account in accounts:
            for _ in range(depth - 1):  # the creation is an event too
                account.deposit(1, "a note of ordinary length")
        bank.save(*accounts)
        took = []
        for account in accounts:
            begun = time.perf_counter()
            copy = bank.repository.get(account.id)
            took.append(time.perf_counter() - begun)
            assert copy.balance == depth - 1
        bank.close()
        figures[name] = 1e6 * percentile(took, 0.5)
    return figures
