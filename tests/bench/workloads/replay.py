"""Replay with Python's `@applies`: 300,000 events from disk.

Once ten entities of 30,000 events, whose commands emitted many at a time, so that a stream's events
lie together; once 1,000 entities of 300, written in turn, so that none lies beside another of its
stream. The floor reads the same number of rows in the order of positions.
"""

from __future__ import annotations

from pathlib import Path

from measure import Figures, run_floor, stopwatch

ENTITIES = 10
EVENTS = 30_000
APART = (1000, 300)  # entities, events in each
PEER_EVENTS = 5_000


def floor(folder: Path, part: float) -> Figures:
    file = folder / "floor.db"
    run_floor("fill", file, ENTITIES, max(1000, int(EVENTS * part)))
    rate = run_floor("scan", file)["rate"]
    return {"rate": rate, "apart": rate}


def replay(file: Path, entities: int, events: int, at_once: int) -> float:
    """Fill the file, open it again, and read the state of each entity: events/s."""
    import escqrs as es
    from model import Account, fill_accounts

    fill_accounts(file, entities, events, at_once)
    with es.open(file, Account) as bank:
        accounts = [bank[Account, f"account-{number}"] for number in range(entities)]
        with stopwatch() as watch:
            states = [account.state for account in accounts]
        assert all(state.balance == events for state in states)
    return entities * events / watch.seconds


def ours(folder: Path, part: float) -> Figures:
    entities, apart = APART
    return {
        "rate": replay(folder / "ours.db", ENTITIES, max(1000, int(EVENTS * part)), 1000),
        "apart": replay(folder / "apart.db", entities, max(30, int(apart * part)), 1),
    }


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
