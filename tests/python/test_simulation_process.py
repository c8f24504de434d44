"""escqrs.testing.System.open: processes in an order that the seed decides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import escqrs as es
import orders
import pytest
from escqrs.testing import System, explore
from orders import Forgiving, Fulfilment, Order, Pay, Place, Placed, steps

HOUR = orders.HOUR.total_seconds()


def history(seed: int) -> list[tuple[Any, ...]]:
    with System(seed) as system:
        shop = system.open(Order, Fulfilment)
        for id in "abc":
            shop[Order, id].tell(Place(3))
        for id in "ac":
            shop[Order, id].tell(Pay())
        system.run()
        assert [steps(shop, id) for id in "abc"] == [
            ["Placed", "Paid", "Shipped"],
            ["Placed", "Cancelled"],
            ["Placed", "Paid", "Shipped"],
        ]
        return [(one.stream, one.type, str(one.time), str(one.id)) for one in shop.events()]


def test_a_seed_repeats_a_history() -> None:
    assert all(history(seed) == history(seed) for seed in range(10))
    assert len({str(history(seed)) for seed in range(10)}) > 1


def test_another_process_has_the_same_history() -> None:
    code = "import test_simulation_process as test; print(test.history(7))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert said == {str(history(7))}


def test_timers_go_by_the_clock_that_does_not_wait() -> None:
    with System(1) as system:
        shop = system.open(Order, Fulfilment)
        shop[Order, "a"].ask(Place())
        shop.flush()
        assert (system.now, steps(shop, "a")) == (0, ["Placed"])
        (due,) = shop[Fulfilment].instances()[0].timers.values()
        system.run(HOUR - 1)
        assert (system.now, steps(shop, "a")) == (HOUR - 1, ["Placed"])
        system.run(1)
        assert (system.now, steps(shop, "a")) == (HOUR, ["Placed", "Cancelled"])
        assert max(one.time for one in shop.events()) == due
        assert shop[Fulfilment].status.ended == 1


class Stock(es.ReadModel):
    schema = "CREATE TABLE shipped (id TEXT)"
    on_shipped = es.sql(orders.Shipped, "INSERT INTO shipped VALUES (:_stream)")

    @es.query
    def count(self, db: es.Rows) -> int:
        return db.execute("SELECT count(*) FROM shipped").fetchone()[0]


def test_explore_finds_a_race_of_processes() -> None:
    class Seller(es.Process):
        """Sells the last piece to whoever has paid while the read model does not know better."""

        @es.on(Placed, starts=True)
        def placed(self, event: Placed) -> None:
            if shops[-1][Stock].count() < 1:
                self.send(Order, self.id, orders.Ship())

    shops: list[es.System] = []

    def test(system: System) -> None:
        shop = system.open(Order, Seller, Stock)
        shops.append(shop)
        shop[Order, "a"].tell(Place())
        shop[Order, "b"].tell(Place())
        system.run()
        assert shop[Stock].count() == 1

    with pytest.raises(AssertionError) as failed:
        explore(test, seeds=100)
    seed = int(failed.value.__notes__[0].split()[2])
    with System(seed) as system, pytest.raises(AssertionError):
        test(system)
    for other in range(seed):
        with System(other) as system:
            test(system)


def test_what_has_stopped_goes_on() -> None:
    broken = True

    class Fragile(es.Process):
        @es.on(Placed, starts=True)
        def placed(self, event: Placed) -> None:
            if broken:
                raise LookupError("broken")
            self.send(Order, self.id, Pay())

    with System(2) as system:
        shop = system.open(Order, Fragile)
        shop[Order, "a"].ask(Place())
        with pytest.raises(es.ProcessStopped, match="broken"):
            shop.flush()
        with pytest.raises(es.ProcessStopped, match="broken"):
            shop[Fragile].wait()
        broken = False
        shop[Fragile].retry()
        shop[Fragile].wait()
        assert steps(shop, "a") == ["Placed", "Paid"]
        with pytest.raises(ValueError, match="not stopped"):
            shop[Fragile].skip()


def test_what_could_not_be_stored_is_tried_again_at_any_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seconds in a float are not exact: time goes on by a nanosecond at least."""
    commit = es.Store.commit
    attempts = 0

    def fail_twice(store: es.Store, *arguments: Any, **named: Any) -> Any:
        nonlocal attempts
        attempts += 1
        if attempts % 3 != 0:
            raise es.StorageError("not now")
        return commit(store, *arguments, **named)

    monkeypatch.setattr(es.Store, "commit", fail_twice)
    with System(3) as system:
        shop = system.open(Order, Fulfilment)
        for i in range(50):
            system.run(977.123456789)
            shop[Order, f"{i}"].ask(Place())
            shop[Order, f"{i}"].ask(Pay())
            shop.flush()
            assert steps(shop, f"{i}") == ["Placed", "Paid", "Shipped"]
    assert attempts > 150


def test_a_wait_that_cannot_end_ends_at_once() -> None:
    with System(2) as system:
        shop = system.open(Order, Fulfilment)
        with pytest.raises(es.Timeout):
            shop[Fulfilment].wait(1)


def test_what_is_rejected_fails_its_instance_alone() -> None:
    orders.refuses.add("a")
    try:
        with System(4) as system:
            shop = system.open(Order, Forgiving, Fulfilment)
            shop[Order, "a"].ask(Place())
            shop[Order, "a"].tell(Pay())
            shop.flush()
            instance = shop[Fulfilment].instance("a")
            assert instance is not None
            assert instance.status == "failed"
            assert steps(shop, "a") == ["Placed", "Paid", "Cancelled"]
            orders.refuses.clear()
            shop[Fulfilment].retry("a")
            shop.flush()
            assert steps(shop, "a")[-1] == "Shipped"
    finally:
        orders.refuses.clear()


def test_a_process_does_not_wait_for_itself() -> None:
    said: list[str] = []
    shops: list[es.System] = []

    class Curious(es.Process):
        @es.on(Placed, starts=True)
        def placed(self, event: Placed) -> None:
            for wait in (shops[0].flush, shops[0].close, shops[0][Curious].wait):
                try:
                    wait()
                except es.Deadlock as error:
                    said.append(str(error))
            shops[0][Order, "other"].ask(Pay())

    with System(4) as system:
        shops.append(system.open(Order, Curious))
        shops[0][Order, "a"].ask(Place())
        shops[0].flush()
        assert len(said) == 3
        assert steps(shops[0], "other") == ["Paid"]


@pytest.mark.parametrize("stepped", range(4))
def test_what_a_closed_system_left_is_done_by_the_next(tmp_path: Path, stepped: int) -> None:
    for seed in range(5):
        path = tmp_path / f"{seed}.db"
        with System(seed) as system:
            shop = system.open(path, Order, Fulfilment)
            shop[Order, "a"].tell(Place())
            shop[Order, "a"].tell(Pay())
            for _ in range(stepped):
                system._step(0)
        with System(seed) as system:
            shop = system.open(path, Order, Fulfilment)
            shop.flush()
            assert steps(shop, "a") == ["Placed", "Paid", "Shipped"]
            assert system.now == 0
