"""Until when a wait may last."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import _core

_FOR_EVER = 1e9  # seconds: what is beyond is no deadline


def until(timeout: float | None, simulation: _core.ActorSystemBase | None = None) -> float | None:
    """Return the moment, on the monotonic clock, that so many seconds lead to; None: none.

    simulation: where this thread runs that seeded system, its clock is taken instead.

    TypeError for what is no number, ValueError for NaN.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is a number of seconds or None, not {type(timeout).__name__}")
    if isinstance(timeout, float) and math.isnan(timeout):
        raise ValueError("timeout is NaN")
    return None if timeout >= _FOR_EVER else _now(simulation) + max(0, timeout)


def left(moment: float | None, simulation: _core.ActorSystemBase | None = None) -> float | None:
    """Return the seconds until then, by the clock of ``until``, at least 0; None: for ever."""
    return None if moment is None else max(0.0, moment - _now(simulation))


def _now(simulation: _core.ActorSystemBase | None) -> float:
    here = simulation is not None and simulation._runs_here
    return simulation._now if simulation is not None and here else time.monotonic()
