"""Memory of a live entity beyond its Python state.

Entities with one integer are made live, and the growth of the process is divided by their number.
The floor is as many plain Python objects with one integer each, which are what the state is.
"""

from __future__ import annotations

import gc
from pathlib import Path

from measure import Figures, NotAvailable, resident_bytes

ENTITIES = 50_000


class State:
    """What an aggregate with one field is in Python: an object with its dictionary."""

    def __init__(self, number: int) -> None:
        self.balance = number


def floor(folder: Path, part: float) -> Figures:
    gc.collect()
    before = resident_bytes()
    states = [State(number + 1000) for number in range(ENTITIES)]
    gc.collect()
    return {"bytes": (resident_bytes() - before) / len(states)}


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es
    from model import Account, Deposit, Fill

    with es.open(folder / "ours.db", Account, max_entities=2 * ENTITIES) as bank:
        # What is allocated once, whatever the number of entities: SQLite's page cache above all.
        for number in range(1000):
            bank[Account, f"warm-{number}"].submit(Fill(300))
        bank.flush()
        gc.collect()
        before = resident_bytes()
        replies = []
        for number in range(ENTITIES):
            replies.append(bank[Account, f"account-{number}"].submit(Deposit(number + 1000)))
            if len(replies) == 1000:
                for reply in replies:
                    reply.result()
                replies.clear()
        bank.flush()
        del replies
        gc.collect()
        grown = resident_bytes() - before
    return {"bytes": grown / ENTITIES}


def peer(folder: Path, part: float) -> Figures:
    raise NotAvailable("its aggregates are Python objects alone")
