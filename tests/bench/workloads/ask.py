"""One client asks one of 100 carts after another: load, check, record, commit, answer."""

from __future__ import annotations

import time
from pathlib import Path

from measure import Figures, percentile, run_floor

CARTS = 100
COMMANDS = 4000


def figures(took: list[float]) -> Figures:
    return {
        "rate": len(took) / sum(took),
        "p50": 1e6 * percentile(took, 0.5),
        "p99": 1e6 * percentile(took, 0.99),
    }


def floor(folder: Path, part: float) -> Figures:
    return run_floor("commit", folder / "floor.db", max(200, int(COMMANDS * part)), 1, CARTS)


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es
    from model import AddItem, Cart

    took = []
    with es.open(folder / "ours.db", Cart) as shop:
        carts = [shop[Cart, f"cart-{number}"] for number in range(CARTS)]
        for cart in carts:
            cart.ask(AddItem("first"))
        for number in range(max(200, int(COMMANDS * part))):
            begun = time.perf_counter()
            carts[number % CARTS].ask(AddItem(f"item-{number}", 1))
            took.append(time.perf_counter() - begun)
    return figures(took)


def peer(folder: Path, part: float) -> Figures:
    from uuid import uuid4

    import peer as model

    took = []
    shop = model.shop(folder / "peer.db", cached=True)
    carts = [model.Cart(number) for number in range(CARTS)]
    shop.save(*carts)
    ids = [cart.id for cart in carts]
    for number in range(max(200, int(COMMANDS * part))):
        begun = time.perf_counter()
        cart = shop.repository.get(ids[number % CARTS])
        cart.add(str(uuid4()), f"item-{number}", 1)
        shop.save(cart)
        took.append(time.perf_counter() - begun)
    shop.close()
    return figures(took)
