"""A new read model in SQL catches up from the first event: one insert an event.

The floor reads the same events and makes the same inserts with as many rows a commit. The peer is
eventsourcing's ProjectionRunner, which commits once an event.
"""

from __future__ import annotations

from pathlib import Path

from measure import Figures, run_floor, stopwatch

CARTS = 1000
EVENTS = 200_000
ROWS_A_COMMIT = 4096  # as the engine does, and like its projections not fsynced
PEER_EVENTS = 3_000


def floor(folder: Path, part: float) -> Figures:
    events = max(20_000, int(EVENTS * part))
    return run_floor("project", folder / "floor.db", events, ROWS_A_COMMIT, "NORMAL")


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es
    from model import AddItem, Cart, Items

    events = max(20_000, int(EVENTS * part))
    with es.open(folder / "ours.db", Cart) as shop:
        carts = [shop[Cart, f"cart-{number}"] for number in range(CARTS)]
        for done in range(0, events, 10_000):
            replies = [
                carts[number % CARTS].submit(AddItem(f"item-{number}", number % 10))
                for number in range(done, min(done + 10_000, events))
            ]
            for reply in replies:
                reply.result()
    with stopwatch() as opening:
        shop = es.open(folder / "ours.db", Cart, Items)
    with shop:
        with stopwatch() as watch:
            shop.flush()
        assert shop[Items].count() == events
    return {"rate": events / (watch.seconds + opening.seconds)}


def peer(folder: Path, part: float) -> Figures:
    import peer as model
    from eventsourcing.projection import ProjectionRunner

    shop = model.shop(folder / "peer.db", cached=True)
    cart = model.Cart(1)
    for number in range(PEER_EVENTS):
        cart.add(f"018f0000-0000-7000-8000-{number:012x}", f"item-{number}", number % 10)
    recordings = shop.save(cart)
    last = recordings[-1].notification.id
    shop.close()
    with stopwatch() as watch:
        with ProjectionRunner(
            application_class=model.Shop,
            projection_class=model.ItemsProjection,
            view_class=model.ItemsView,
            env=model.environment(folder / "peer.db", cached=False),
        ) as runner:
            runner.wait(last, timeout=300)
    return {"rate": PEER_EVENTS / watch.seconds}
