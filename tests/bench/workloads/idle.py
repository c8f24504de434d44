"""Processor time of an open system, with a read model, to which nothing is sent."""

from __future__ import annotations

import time
from pathlib import Path

from measure import Figures, NotAvailable

SECONDS = 3.0


def floor(folder: Path, part: float) -> Figures:
    return {"percent": 0.0}


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es
    from model import AddItem, Cart, Items

    with es.open(folder / "ours.db", Cart, Items) as shop:
        for number in range(100):
            shop[Cart, f"cart-{number}"].ask(AddItem(f"item-{number}"))
        shop.flush()
        time.sleep(0.2)  # what a flush leaves behind, such as a checkpoint, isn't idleness
        cpu, wall = time.process_time(), time.perf_counter()
        time.sleep(SECONDS)
        used = time.process_time() - cpu
        return {"percent": 100 * used / (time.perf_counter() - wall)}


def peer(folder: Path, part: float) -> Figures:
    raise NotAvailable("it has no threads of its own")
