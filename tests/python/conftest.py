"""What tests share: how Hypothesis draws, and fixtures of several files.

Hypothesis has no limit of time, and the same examples each time; with ESCQRS_STRESS=long it draws
new ones, and what it finds then it prints so that it can be repeated. A file whose systems are
others has fixtures of its own.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from typing import Any

import escqrs as es
import pytest
from counters import DOORS, REPLIES, RUNS, Counter, Door
from hypothesis import HealthCheck, settings
from orders import Fulfilment, Order, refuses

settings.register_profile(
    "escqrs",
    deadline=None,  # what takes long on a busy machine is not wrong
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=os.environ.get("ESCQRS_STRESS") != "long",
    print_blob=True,
)
settings.load_profile("escqrs")


@pytest.fixture
def system() -> Iterator[es.System]:
    """Counters, in memory."""
    REPLIES.clear()
    RUNS.clear()
    with es.open(":memory:", Counter) as opened:
        yield opened


@pytest.fixture
def door() -> Iterator[Door]:
    """The one at which counters wait for "d"."""
    DOORS["d"] = Door()
    yield DOORS["d"]
    DOORS["d"].open.set()


@pytest.fixture
def seen() -> queue.SimpleQueue[Any]:
    """What actors have received, where they tell."""
    return queue.SimpleQueue()


@pytest.fixture(autouse=True)
def nothing_is_refused() -> None:
    """By orders."""
    refuses.clear()


@pytest.fixture
def clock() -> es.ManualClock:
    return es.ManualClock()


@pytest.fixture
def shop(clock: es.ManualClock) -> Iterator[es.System]:
    """Orders and what fulfils them, in memory, by that clock."""
    with es.open(":memory:", Order, Fulfilment, clock=clock) as opened:
        yield opened
