"""Until when a wait may last."""

from __future__ import annotations

import math
import time

_FOR_EVER = 1e9  # seconds: what is beyond is no deadline


def until(timeout: float | None) -> float | None:
    """Return the moment, on the monotonic clock, that so many seconds lead to; None: none.

    TypeError for what is no number, ValueError for NaN.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is a number of seconds or None, not {type(timeout).__name__}")
    if isinstance(timeout, float) and math.isnan(timeout):
        raise ValueError("timeout is NaN")
    return None if timeout >= _FOR_EVER else time.monotonic() + max(0, timeout)


def left(moment: float | None) -> float | None:
    """Return the seconds until then, at least 0; None: for ever."""
    return None if moment is None else max(0.0, moment - time.monotonic())
