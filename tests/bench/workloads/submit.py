"""1,000 commands in flight over 1,000 entities; a reply is collected for each command sent.

The floor commits 1,000 rows at a time; the peer's fastest way is to save 1,000 events at once.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from measure import Figures, run_floor, stopwatch

ENTITIES = 1000
IN_FLIGHT = 1000
COMMANDS = 300_000
PEER_COMMANDS = 40_000


def floor(folder: Path, part: float) -> Figures:
    commits = max(20, int(COMMANDS * part) // IN_FLIGHT)
    return run_floor("commit", folder / "floor.db", commits, IN_FLIGHT, ENTITIES)


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es
    from model import Account, Deposit

    commands = max(20 * IN_FLIGHT, int(COMMANDS * part))
    with es.open(folder / "ours.db", Account) as bank:
        accounts = [bank[Account, f"account-{number}"] for number in range(ENTITIES)]
        for reply in [account.submit(Deposit(1)) for account in accounts]:
            reply.result()
        with stopwatch() as watch:
            waiting = deque(account.submit(Deposit(1)) for account in accounts[:IN_FLIGHT])
            for number in range(commands - IN_FLIGHT):
                waiting.popleft().result()
                waiting.append(accounts[number % ENTITIES].submit(Deposit(1)))
            for reply in waiting:
                reply.result()
        assert sum(account.state.balance for account in accounts) == commands + ENTITIES
    return {"rate": commands / watch.seconds}


def peer(folder: Path, part: float) -> Figures:
    import peer as model

    saves = max(3, int(PEER_COMMANDS * part) // IN_FLIGHT)
    bank = model.shop(folder / "peer.db", cached=True)
    accounts = [model.Account(number) for number in range(ENTITIES)]
    bank.save(*accounts)
    with stopwatch() as watch:
        for _ in range(saves):
            for account in accounts:
                account.deposit(1, "a note of ordinary length")
            bank.save(*accounts)
    bank.close()
    return {"rate": saves * ENTITIES / watch.seconds}
