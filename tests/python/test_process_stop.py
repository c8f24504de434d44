"""Where a process stops: a method raises, a command cannot be sent, what it needs was deleted."""

from __future__ import annotations

import concurrent.futures
import threading

import escqrs as es
import pytest
from orders import HOUR, Fulfilment, Order, Pay, Place, Placed, Ship, flush, refuses, steps
from support import SECONDS


class Fragile(es.Process):
    seen: list[int]

    @es.on(Placed, key="amount")
    def placed(self, event: Placed) -> None:
        self.seen.append(event.amount)
        if event.amount == 13 and broken:
            raise RuntimeError("thirteen")
        if event.amount == 13:
            self.send(Order, "thirteen", Pay())


broken: list[bool] = []


def test_a_method_that_raises_stops_its_process_alone(clock):
    broken[:] = [True]
    with es.open(":memory:", Order, Fragile, Fulfilment, clock=clock) as shop:
        placed = enumerate((1, 13, 2))
        shop.store.commit([es.Write(f"Order/o-{n}", [Placed(amount)]) for n, amount in placed])
        with pytest.raises(es.ProcessStopped, match="position 2: RuntimeError: thirteen") as caught:
            flush(shop)
        assert (caught.value.name, caught.value.position) == ("Fragile", 2)
        assert isinstance(caught.value.__cause__, RuntimeError)
        status = shop[Fragile].status
        assert (status.state, status.failed_position) == ("stopped", 2)
        assert status.error == "RuntimeError: thirteen"
        assert [one.id for one in shop[Fragile].instances()] == ["1"]  # what came before is stored
        assert shop[Fulfilment].status.active == 3
        with pytest.raises(es.ProcessStopped):
            shop[Fragile].wait(timeout=SECONDS)
        shop[Fragile].retry()
        with pytest.raises(es.ProcessStopped):
            flush(shop)
        broken.clear()
        shop[Fragile].retry()
        flush(shop)
        assert [(one.id, list(one.state.seen)) for one in shop[Fragile].instances()] == [
            ("1", [1]),
            ("13", [13]),
            ("2", [2]),
        ]
        assert steps(shop, "thirteen") == ["Paid"]
        with pytest.raises(ValueError, match="has not stopped"):
            shop[Fragile].retry()


def test_what_it_stopped_at_can_be_left_out_and_that_is_recorded(tmp_path, clock):
    broken[:] = [True]
    with es.open(tmp_path / "a.db", Order, Fragile) as shop:
        for number, amount in enumerate((13, 2)):
            shop[Order, f"o-{number}"].ask(Place(amount))
        with pytest.raises(es.ProcessStopped):
            flush(shop)
    with es.open(tmp_path / "a.db", Order, Fragile) as shop:
        with pytest.raises(es.ProcessStopped):
            flush(shop)
        shop[Fragile].skip(reason="bad number")
        flush(shop)
        assert [one.id for one in shop[Fragile].instances()] == ["2"]
        (skipped,) = (one.event for one in shop.store.history("escqrs.process/Fragile/13"))
        assert (skipped.position, skipped.reason) == (1, "bad number")
    with es.open(tmp_path / "a.db", Order, Fragile) as shop:
        flush(shop)


def test_of_two_who_leave_the_same_out_at_once_one_does(monkeypatch):
    entered, release, arrived = threading.Event(), threading.Event(), threading.Semaphore(0)

    class Slow(es.Process):
        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            entered.set()
            release.wait(SECONDS)
            raise RuntimeError("never")

    with es.open(":memory:", Order, Slow) as shop:
        shop[Order, "o-1"].ask(Place(1))
        assert entered.wait(SECONDS)
        runner = shop[Slow]._runner
        put = runner.put
        monkeypatch.setattr(runner, "put", lambda item: (put(item), arrived.release()))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(shop[Slow].skip, reason=one) for one in ("one", "two")]
            both = all(arrived.acquire(timeout=SECONDS) for _ in calls)
            release.set()
            assert both
            errors = [one.exception(SECONDS) for one in calls]
        assert [type(one) for one in errors if one] == [ValueError]
        flush(shop)
        left_out = [one.event for one in shop.store.history("escqrs.process/Slow/o-1")]
        assert len(left_out) == 1 and isinstance(left_out[0].reason, str)


def test_a_timer_and_a_rejection_whose_methods_raise():
    fails = [True]

    class Bad(es.Process):
        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            if event.amount == 1:
                self.after(HOUR, "tick")
            else:
                self.send(Order, self.id, Ship())

        @es.timer("tick")
        def tick(self) -> None:
            if fails:
                raise RuntimeError("tick")
            self.done()

        @es.rejected(Ship)
        def not_shipped(self, command: Ship, error: Exception) -> None:
            if fails:
                raise RuntimeError("not shipped")
            self.done()

    refuses.update("bd")
    for skips in (False, True):
        fails[:] = [True]
        clock = es.ManualClock()
        with es.open(":memory:", Order, Bad, clock=clock) as shop:
            shop[Order, "a"].ask(Place(1))
            flush(shop)
            clock.advance(HOUR)
            with pytest.raises(es.ProcessStopped, match="tick"):
                flush(shop)
            if skips:
                shop[Bad].skip()
                flush(shop)
                assert shop[Bad].instance("a").timers == {}
            else:
                fails.clear()
                shop[Bad].retry()
                flush(shop)
                assert shop[Bad].instance("a").status == "ended"
                fails[:] = [True]
            shop[Order, "b"].ask(Place(2))
            with pytest.raises(es.ProcessStopped, match="not shipped"):
                flush(shop)
            if skips:
                shop[Bad].skip()
                flush(shop)
                assert shop[Bad].instance("b").status == "active"
                assert shop[Bad].instance("b").commands == ()
            else:
                fails.clear()
                shop[Bad].retry()
                flush(shop)
                assert shop[Bad].instance("b").status == "ended"


def test_a_command_that_cannot_be_sent_stops_it(clock):
    class Lost(es.Process):
        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            self.send("Nowhere", "x", Pay())

    with es.open(":memory:", Order, Lost) as shop:
        shop[Order, "a"].ask(Place())
        with pytest.raises(es.ProcessStopped, match="no aggregate of that name"):
            flush(shop)
        shop[Lost].skip(reason="nobody there")
        flush(shop)
        assert shop[Lost].status.commands == 0


def test_events_and_instances_that_were_deleted(tmp_path, clock):
    with es.open(tmp_path / "a.db", Order) as shop:
        for id in ("a", "b"):
            shop[Order, id].ask(Place())
        shop.store.delete("Order/a")
    with es.open(tmp_path / "a.db", Order, Fulfilment, clock=clock) as shop:
        with pytest.raises(es.ProcessStopped, match="position 1") as caught:
            flush(shop)
        assert isinstance(caught.value.__cause__, es.Deleted)
        shop[Fulfilment].retry()
        with pytest.raises(es.ProcessStopped):
            flush(shop)
        shop[Fulfilment].skip(reason="we deleted it")
        flush(shop)
        assert [one.id for one in shop[Fulfilment].instances()] == ["b"]
        shop.store.delete("escqrs.process/Fulfilment/b")
        shop[Order, "b"].ask(Pay())
        clock.advance(HOUR)
        flush(shop)
        assert steps(shop, "b") == ["Placed", "Paid"]
    with es.open(tmp_path / "a.db", Order, Fulfilment, clock=clock) as shop:
        shop[Order, "b"].ask(Pay())
        flush(shop)
        assert shop[Fulfilment].status.state == "live"
