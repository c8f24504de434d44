"""Replay with Python's `@applies`: ten entities of 30,000 events each, from disk.

The floor reads the same number of rows in the order of positions.
"""

from __future__ import annotations

from pathlib import Path

from measure import Figures, run_floor, stopwatch

ENTITIES = 10
EVENTS = 30_000
PEER_EVENTS = 5_000


def floor(folder: Path, part: float) -> Figures:
    file = folder / "floor.db"
    run_floor("fill", file, ENTITIES, max(1000, int(EVENTS * part)))
    return run_floor("scan", file)


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es
    from model import Account, fill_accounts

    events = max(1000, int(EVENTS * part))
    fill_accounts(folder / "ours.db", ENTITIES, events, at_once=1000)
    with es.open(folder / "ours.db", Account) as bank:
        accounts = [bank[Account, f"account-{number}"] for number in range(ENTITIES)]
        with stopwatch() as watch:
            states = [account.state for account in accounts]
        assert all(state.balance == events for state in states)
    return {"rate": ENTITIES * events / watch.seconds}


def peer(folder: Path, part: float) -> Figures:
    import peer as model

    bank = model.shop(folder / "peer.db", cached=False)
    account = model.Account(1)
    for _ in range(PEER_EVENTS):
        account.deposit(1, "a note of ordinary length")
    bank.save(account)
    with stopwatch() as watch:
        bank.repository.get(account.id)
    bank.close()
    return {"rate": PEER_EVENTS / watch.seconds}
