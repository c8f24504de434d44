"""Process managers: events to commands and timers, each once, whatever fails."""

from __future__ import annotations

import threading
from datetime import timedelta

import escqrs as es
import pytest
from orders import (
    HOUR,
    Cancel,
    Cancelled,
    Forgiving,
    Fulfilment,
    Order,
    Paid,
    Pay,
    Place,
    Placed,
    Ship,
    Shipped,
    flush,
    refuses,
    steps,
    types,
)
from support import run

# ---- what it does --------------------------------------------------------------------------------


def test_an_event_becomes_a_command_and_the_instance_ends(shop):
    shop[Order, "a"].ask(Place(3))
    flush(shop)
    one = shop[Fulfilment].instance("a")
    assert (one.status, one.state.amount, list(one.timers)) == ("active", 3, ["payment"])
    shop[Order, "a"].ask(Pay())
    flush(shop)
    assert steps(shop, "a") == ["Placed", "Paid", "Shipped"]
    *_, shipped = shop[Order, "a"].history()
    assert shipped.event.note == "3 pieces"
    one = shop[Fulfilment].instance("a")
    assert (one.status, one.state.paid, one.commands, one.timers) == ("ended", True, (), {})
    status = shop[Fulfilment].status
    assert (status.state, status.active, status.ended, status.lag) == ("live", 0, 1, 0)
    assert (status.commands, status.timers) == (0, 0)


def test_a_timer_that_nobody_cancels_fires(shop, clock):
    shop[Order, "a"].ask(Place())
    shop[Order, "b"].ask(Place())
    shop[Order, "b"].ask(Pay())
    flush(shop)
    clock.advance(HOUR)
    flush(shop)
    assert steps(shop, "a") == ["Placed", "Cancelled"]
    assert steps(shop, "b") == ["Placed", "Paid", "Shipped"]


def test_what_follows_from_one_event_is_one_commit_with_the_position(shop):
    before = shop[Order, "a"]
    before.ask(Place())
    flush(shop)
    assert types(shop, "a") == ["escqrs.ProcessStarted", "Fulfilment.State", "escqrs.TimerSet"]
    stored = list(shop.store.history("escqrs.process/Fulfilment/a"))
    assert len({one.causation_id for one in stored}) == 1  # of one commit
    assert shop.store.checkpoint("escqrs.process/Fulfilment") == 1


def test_a_command_carries_the_correlation_of_its_event(shop):
    shop[Order, "a"].ask(Place(), correlation_id="web-1")
    shop[Order, "a"].ask(Pay(), correlation_id="web-2")
    flush(shop)
    assert [one.correlation_id for one in shop[Order, "a"].history()] == ["web-1", "web-2", "web-2"]


def test_events_that_start_nothing_and_come_after_the_end_are_none_of_its(shop):
    shop[Order, "a"].ask(Pay())
    flush(shop)
    assert shop[Fulfilment].instance("a") is None
    shop[Order, "b"].ask(Place())
    shop[Order, "b"].ask(Cancel("no"))
    flush(shop)
    version = shop[Fulfilment].instance("b").version
    shop[Order, "b"].ask(Place())
    shop[Order, "b"].ask(Pay())
    flush(shop)
    assert shop[Fulfilment].instance("b").version == version
    assert "Shipped" not in steps(shop, "b")


def test_timers_of_the_same_name_replace_and_at_and_commands(clock):
    class Reminder(es.Process):
        fired: list[str]

        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            self.after(HOUR, "x")
            self.after(2 * HOUR, "x")
            self.at(self.now + HOUR, "y")
            self.after(HOUR, Order, self.id, Cancel("timed"))
            self.after(HOUR, Order, self.id, Ship(), name="never")
            assert self.cancel("never") is True
            assert self.cancel("never") is False

        @es.timer("x")
        def on_x(self) -> None:
            self.fired = [*self.fired, "x"]
            if len(self.fired) < 4:
                self.after(timedelta(), "x")

        @es.timer("y")
        def on_y(self) -> None:
            self.fired.append("y")

    with es.open(":memory:", Order, Reminder, clock=clock) as shop:
        shop[Order, "a"].ask(Place())
        flush(shop)
        assert sorted(shop[Reminder].instance("a").timers) == ["Cancel", "x", "y"]
        clock.advance(HOUR)
        flush(shop)
        assert steps(shop, "a") == ["Placed", "Cancelled"]
        assert list(shop[Reminder].instance("a").state.fired) == ["y"]
        clock.advance(HOUR)
        flush(shop)
        assert list(shop[Reminder].instance("a").state.fired) == ["y", "x", "x", "x"]


def test_whose_event_it_is(clock):
    class Moved(es.Event):
        source: str
        target: int

    class BySource(es.Process, key="source"):
        count: int

        @es.on(Moved)
        def moved(self, event: Moved, recorded: es.Recorded) -> None:
            assert recorded.event == event
            self.count += 1

    class ByFunction(es.Process, key=lambda event: event.target or None):
        count: int

        @es.on(Moved)
        def moved(self, event: Moved) -> None:
            self.count += 1

    class ByMethod(es.Process, key="source"):
        @es.on(Moved, key=lambda event: event.source.upper())
        def moved(self, event: Moved) -> None: ...

    with es.open(":memory:", BySource, ByFunction, ByMethod) as shop:
        shop.store.append("x", [Moved("a", 0), Moved("b", 7), Moved("a", 7)])
        flush(shop)
        assert [(one.id, one.state.count) for one in shop[BySource].instances()] == [
            ("a", 2),
            ("b", 1),
        ]
        assert [(one.id, one.state.count) for one in shop[ByFunction].instances()] == [("7", 2)]
        assert [one.id for one in shop["ByMethod"].instances()] == ["A", "B"]
        assert [one.id for one in shop[BySource].instances(after="a", limit=5)] == ["b"]


def test_where_it_begins(tmp_path):
    class Late(es.Process, start="head"):
        @es.on(Placed)
        def placed(self, event: Placed) -> None: ...

    class Early(es.Process):
        @es.on(Placed)
        def placed(self, event: Placed) -> None: ...

    with es.open(tmp_path / "a.db", Order) as shop:
        shop[Order, "a"].ask(Place())
    for _ in range(2):
        with es.open(tmp_path / "a.db", Order, Late, Early) as shop:
            flush(shop)
    with es.open(tmp_path / "a.db", Order, Late, Early) as shop:
        shop[Order, "b"].ask(Place())
        flush(shop)
        assert [one.id for one in shop[Late].instances()] == ["b"]
        assert [one.id for one in shop[Early].instances()] == ["a", "b"]


def test_one_that_begins_at_the_head_of_an_empty_store_leaves_nothing_out(tmp_path):
    code = """
    class Late(es.Process, start="head"):
        @es.on(Added)
        def added(self, event: Added) -> None:
            if len(sys.argv) == 3:
                entered.set()
                threading.Event().wait()

    shop = es.open(sys.argv[1], Counter, Late)
    if len(sys.argv) == 3:
        shop[Late].wait()
        shop[Counter, "a"].ask(Add(1))
        entered.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    shop.flush()
    print([one.id for one in shop[Late].instances()])
    shop.close()
    """
    run(code, tmp_path / "a.db", "dies", status=-9)
    assert run(code, tmp_path / "a.db")[0] == "['a']\n"


def test_processes_may_cause_each_others_events_and_flush_waits_for_all(clock):
    class Chain(es.Process):
        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            if event.amount > 0:
                self.send("Order", f"{self.id}+", Place(event.amount - 1))

    with es.open(":memory:", Order, Chain) as shop:
        shop[Order, "a"].ask(Place(20))
        flush(shop)
        assert shop[Order, "a" + 20 * "+"].version == 1
        assert shop[Chain].status.commands == 0


def test_few_commands_are_under_way_at_once():
    most = 0
    under_way = 0
    lock = threading.Lock()

    class Go(es.Command[None]):
        pass

    class Worker(es.Aggregate):
        @es.handles
        def go(self, cmd: Go) -> None:
            nonlocal most, under_way
            with lock:
                under_way += 1
                most = max(most, under_way)
            with lock:
                under_way -= 1

    class Starter(es.Process, max_in_flight=3):
        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            self.send(Worker, self.id, Go())

    with es.open(":memory:", Order, Worker, Starter) as shop:
        for number in range(50):
            shop[Order, f"o-{number}"].tell(Place())
        flush(shop)
        assert shop[Starter].status.active == 50
        assert 0 < most <= 3


# ---- rejections ----------------------------------------------------------------------------------


def test_a_rejected_command_comes_back(clock):
    refuses.add("a")
    with es.open(":memory:", Order, Forgiving, clock=clock) as shop:
        shop[Order, "a"].ask(Place(2))
        shop[Order, "a"].ask(Pay())
        flush(shop)
        assert steps(shop, "a") == ["Placed", "Paid", "Cancelled"]
        *_, last = shop[Order, "a"].history()
        assert last.event.reason == "2 pieces: out of stock"
        assert shop[Forgiving].status.ended == 1


def test_a_rejection_that_nobody_takes_fails_the_instance_alone(shop, clock, caplog):
    refuses.add("a")
    for id in ("a", "b"):
        shop[Order, id].ask(Place())
        shop[Order, id].ask(Pay())
    flush(shop)
    one = shop[Fulfilment].instance("a")
    assert (one.status, one.error) == ("failed", "Rejected: out of stock")
    assert one.commands == (("Order", "a", "Ship"),)
    assert steps(shop, "b") == ["Placed", "Paid", "Shipped"]
    assert shop[Fulfilment].status.failed == 1
    assert [one.id for one in shop[Fulfilment].instances("failed")] == ["a"]
    assert "Ship to Order/a was rejected, and no method takes that: Rejected" in caplog.text
    # what comes meanwhile waits
    shop[Order, "a"].ask(Cancel("by hand"))
    flush(shop)
    assert len(shop[Fulfilment].instance("a").parked) == 1
    with pytest.raises(ValueError, match="'b' has not failed: it is ended"):
        shop[Fulfilment].retry("b")
    shop[Fulfilment].retry("a")
    flush(shop)  # refused once more: it was the parked event that came first, or the answer
    assert steps(shop, "a") == ["Placed", "Paid", "Cancelled"]
    refuses.clear()
    if shop[Fulfilment].instance("a").parked:  # the answer, and it has failed again
        shop[Fulfilment].retry("a")
        flush(shop)
    assert shop[Fulfilment].instance("a").parked == ()


@pytest.mark.parametrize(
    "use",
    [
        lambda processes: processes.retry(7),
        lambda processes: processes.skip(7, reason="a duplicate"),
        lambda processes: processes.skip("a", reason=7),
        lambda processes: processes.instance(7),
        lambda processes: processes.instances("begun"),
        lambda processes: processes.instances(after=7),
        lambda processes: processes.instances(limit=-1),
        lambda processes: processes.wait("a"),
        lambda processes: processes.wait(-1),
    ],
)
def test_what_is_of_the_wrong_type_is_refused_at_once(shop, use):
    with pytest.raises(
        (TypeError, ValueError), match=r"is an? (str|int)|is at least|status is|from"
    ):
        use(shop[Fulfilment])
    shop[Order, "a"].ask(Place())
    flush(shop)  # it goes on


def test_a_clock_is_put_forward_by_a_timedelta(clock):
    with pytest.raises(TypeError, match="delay is a timedelta, not int"):
        clock.advance(3)
    with pytest.raises(ValueError, match="goes forward"):
        clock.advance(-HOUR)
    before = clock()
    clock.advance(HOUR)
    assert clock() >= before + HOUR


def test_a_failed_instance_is_tried_again(shop):
    refuses.add("a")
    shop[Order, "a"].ask(Place())
    shop[Order, "a"].ask(Pay())
    flush(shop)
    refuses.clear()
    shop[Fulfilment].retry("a")
    flush(shop)
    assert steps(shop, "a") == ["Placed", "Paid", "Shipped"]
    assert shop[Fulfilment].instance("a").status == "ended"


def test_parked_events_come_first_and_survive_a_stop(tmp_path, clock):
    is_bad = True

    class Noted(es.Process):
        seen: list[str] = []

        @es.on(Paid)
        def paid(self, event: Paid) -> None:
            self.seen = [*self.seen, "paid"]
            self.send(Order, self.id, Ship())

        @es.on(Placed, Shipped, Cancelled)
        def other(self, event: es.Event) -> None:
            if is_bad and type(event) is Placed:
                raise ValueError("bad")
            self.seen = [*self.seen, getattr(event, "reason", type(event).__name__)]

    refuses.add("a")
    with es.open(tmp_path / "a.db", Order, Noted, clock=clock) as shop:
        shop[Order, "a"].ask(Pay())
        flush(shop)
        shop[Order, "a"].ask(Place())
        shop[Order, "a"].ask(Cancel("second"))
        flush(shop)
        assert len(shop[Noted].instance("a").parked) == 2
        refuses.clear()
        shop[Noted].retry("a")
        with pytest.raises(es.ProcessStopped, match="bad"):
            flush(shop)
    is_bad = False
    with es.open(tmp_path / "a.db", Order, Noted, clock=clock) as shop:
        shop[Order, "a"].ask(Cancel("third"))
        flush(shop)
        assert shop[Noted].instance("a").parked == ()
        seen = list(shop[Noted].instance("a").state.seen)
    assert [one for one in seen if one != "Shipped"] == ["paid", "Placed", "second", "third"]


def test_a_method_that_runs_again_begins_with_the_fields_as_they_are_stored(clock):
    fails = [MemoryError("once")]

    class Count(es.Process):
        count: int = 0

        @es.on(Placed, Paid)
        def one(self, event: es.Event) -> None:
            self.count += 1
            if fails and type(event) is Paid:
                raise fails.pop()

    with es.open(":memory:", Order, Count, clock=clock) as shop:
        shop[Order, "a"].ask(Place())
        flush(shop)
        shop[Order, "a"].ask(Pay())
        with pytest.raises(es.ProcessStopped):
            flush(shop)
        assert not fails
        shop[Count].retry()
        flush(shop)
        assert shop[Count].instance("a").state.count == 2


def test_a_failed_instance_goes_on_without_its_command(shop):
    refuses.add("a")
    shop[Order, "a"].ask(Place())
    shop[Order, "a"].ask(Pay())
    flush(shop)
    shop[Fulfilment].skip("a", reason="sent by hand")
    flush(shop)
    one = shop[Fulfilment].instance("a")
    assert (one.status, one.commands, one.error) == ("active", (), None)
    resumed = [
        recorded.event
        for recorded in shop.store.history("escqrs.process/Fulfilment/a")
        if recorded.type == "escqrs.ProcessResumed"
    ]
    assert [one.reason for one in resumed] == ["sent by hand"]
    shop[Order, "a"].ask(Cancel("enough"))
    flush(shop)
    assert shop[Fulfilment].instance("a").status == "ended"


def test_timers_of_a_failed_instance_wait(clock):
    class Twice(es.Process):
        count: int

        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            self.after(HOUR, "tick")
            self.send(Order, self.id, Ship())

        @es.timer("tick")
        def tick(self) -> None:
            self.count += 1

    refuses.add("a")
    with es.open(":memory:", Order, Twice, clock=clock) as shop:
        shop[Order, "a"].ask(Place())
        flush(shop)
        clock.advance(2 * HOUR)
        flush(shop)
        assert shop[Twice].instance("a").state.count == 0
        shop[Twice].skip("a")
        flush(shop)
        assert shop[Twice].instance("a").state.count == 1
