"""Iterating over the whole store in global order and reading one field of each event."""

from __future__ import annotations

from pathlib import Path

from measure import Figures, run_floor, stopwatch

STREAMS = 100
EVENTS = 500_000
PEER_EVENTS = 20_000


def floor(folder: Path, part: float) -> Figures:
    file = folder / "floor.db"
    run_floor("fill", file, STREAMS, max(500, int(EVENTS * part) // STREAMS))
    return run_floor("scan", file)


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es
    from model import Account, fill_accounts

    depth = max(500, int(EVENTS * part) // STREAMS)
    fill_accounts(folder / "ours.db", STREAMS, depth, at_once=500)
    with es.open(folder / "ours.db", Account) as bank:
        total = 0
        with stopwatch() as watch:
            for recorded in bank.events():
                total += recorded.event.amount
        assert total == STREAMS * depth
    return {"rate": total / watch.seconds}


def peer(folder: Path, part: float) -> Figures:
    import peer as model

    bank = model.shop(folder / "peer.db", cached=False)
    account = model.Account(1)
    for _ in range(PEER_EVENTS):
        account.deposit(1, "a note of ordinary length")
    bank.save(account)
    total = 0
    start = 1
    with stopwatch() as watch:
        while notifications := bank.recorder.select_notifications(start, 1000):
            for notification in notifications:
                total += getattr(bank.mapper.to_domain_event(notification), "amount", 0)
            start = notifications[-1].id + 1
    bank.close()
    assert total == PEER_EVENTS
    return {"rate": PEER_EVENTS / watch.seconds}
