"""asyncio: 1,000 tasks, each of which sends a command and awaits its reply, again and again.

The floor is a task's await of a plain future that the loop sets.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from measure import Figures, NotAvailable, stopwatch

TASKS = 1000
COMMANDS = 150_000


def floor(folder: Path, part: float) -> Figures:
    rounds = max(5, int(COMMANDS * part) // TASKS)

    async def client(loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(rounds):
            future = loop.create_future()
            loop.call_soon(future.set_result, 1)
            await future

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(client(loop) for _ in range(TASKS)))

    with stopwatch() as watch:
        asyncio.run(main())
    return {"rate": rounds * TASKS / watch.seconds}


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es
    from model import Account, Deposit

    rounds = max(5, int(COMMANDS * part) // TASKS)

    async def client(account: es.Handle[Account]) -> None:
        for _ in range(rounds):
            await account.submit(Deposit(1))

    async def main(accounts: list[es.Handle[Account]]) -> float:
        await asyncio.gather(*(account.submit(Deposit(1)) for account in accounts))
        with stopwatch() as watch:
            await asyncio.gather(*(client(account) for account in accounts))
        return watch.seconds

    with es.open(folder / "ours.db", Account) as bank:
        seconds = asyncio.run(main([bank[Account, f"account-{n}"] for n in range(TASKS)]))
        assert bank[Account, "account-0"].state.balance == rounds + 1
    return {"rate": rounds * TASKS / seconds}


def peer(folder: Path, part: float) -> Figures:
    raise NotAvailable("not for asyncio")
