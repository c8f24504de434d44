"""A shop is killed at random moments: every order comes to one end, every command is carried out
once.

ESCQRS_KILL_SEED repeats the moments of an earlier run, whose seed was printed.
"""

from __future__ import annotations

import collections
import datetime
import os
import random
import select
import subprocess
import sys
from pathlib import Path

import escqrs as es
import pytest
from order_child import CLASSES, Fulfilment, Order, Stock
from support import SECONDS

ROUNDS = 100 if os.environ.get("ESCQRS_STRESS") == "long" else 8
KILL_AFTER_SECONDS_MAX = 0.2
CHILD = Path(__file__).with_name("order_child.py")


def lines_until_killed(path: Path, number: int, seconds: float) -> list[str]:
    """What a child printed before it was killed, so many seconds after it was ready."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(path), str(number)],
        stdout=subprocess.PIPE,
        bufsize=0,  # readline() takes no more than a line: the rest is read from the descriptor
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        text = b""
        until = datetime.datetime.now().timestamp() + seconds
        while (left := until - datetime.datetime.now().timestamp()) > 0:
            if select.select([child.stdout], [], [], left)[0]:
                text += os.read(child.stdout.fileno(), 65536)
        child.kill()
        text += child.stdout.read()
    assert child.returncode == -9
    return text.decode().split("\n")[:-1]  # the last one may be cut


@pytest.mark.timeout(ROUNDS * 100)
def test_every_order_ends_once_wherever_the_process_dies(tmp_path):
    seed = int(os.environ.get("ESCQRS_KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"ESCQRS_KILL_SEED={seed}")
    chance = random.Random(seed)
    path = tmp_path / "shop.db"
    acknowledged: list[str] = []
    for number in range(ROUNDS):
        seconds = chance.random() * KILL_AFTER_SECONDS_MAX
        acknowledged += lines_until_killed(path, number, seconds)
    clock = es.ManualClock()
    clock.advance(datetime.timedelta(hours=1))
    with es.open(path, *CLASSES, clock=clock) as shop:
        shop.flush(SECONDS)
        clock.advance(datetime.timedelta(hours=1))  # those that were placed last
        shop.flush(SECONDS)
        streams = dict(shop.store.streams())
        orders = [name.removeprefix("Order/") for name in streams if name.startswith("Order/")]
        assert set(acknowledged) <= set(orders)
        reserved = dict(shop[Stock, "stock"].state.reserved)
        assert set(reserved.values()) <= {1}
        ends = {id: list(shop[Order, id].state.ends) for id in orders}
        wrong = {id: found for id, found in ends.items() if len(found) != 1}
        assert not wrong
        for id, (how,) in ends.items():
            assert (how == "shipped") == (id in reserved)
        status = shop[Fulfilment].status
        assert (status.active, status.failed, status.ended) == (0, 0, len(orders))
        assert (status.commands, status.timers) == (0, 0)
        requested: collections.Counter[str] = collections.Counter()
        for recorded in shop.store.events(match=es.Match(types=["escqrs.CommandRequested"])):
            requested[recorded.event.command] += 1
        assert requested["End"] == len(orders)
        assert requested["Reserve"] == sum(how != "late" for (how,) in ends.values())
        assert shop.store.verify().problems == ()
