"""Process managers: events to commands and timers, each once, whatever fails."""

from __future__ import annotations

import datetime
import gc
import threading
import weakref
from datetime import timedelta

import escqrs as es
import pytest
from support import SECONDS, run

HOUR = timedelta(hours=1)


class Place(es.Command[None]):
    amount: int = 1


class Pay(es.Command[None]):
    pass


class Ship(es.Command[str]):
    note: str = ""


class Cancel(es.Command[None]):
    reason: str


class Placed(es.Event):
    amount: int


class Paid(es.Event):
    pass


class Shipped(es.Event):
    note: str


class Cancelled(es.Event):
    reason: str


refuses: set[str] = set()  # orders that cannot be shipped


class Order(es.Aggregate):
    steps: list[str]

    @es.handles
    def place(self, cmd: Place) -> None:
        self.emit(Placed(cmd.amount))

    @es.handles
    def pay(self, cmd: Pay) -> None:
        self.emit(Paid())

    @es.handles
    def ship(self, cmd: Ship) -> str:
        if self.id in refuses:
            raise es.Rejected("out of stock")
        self.emit(Shipped(cmd.note))
        return "shipped"

    @es.handles
    def cancel(self, cmd: Cancel) -> None:
        self.emit(Cancelled(cmd.reason))

    @es.applies
    def done(self, event: Placed | Paid | Shipped | Cancelled) -> None:
        self.steps.append(type(event).__name__)


class Fulfilment(es.Process):
    amount: int
    paid: bool

    @es.on(Placed, starts=True)
    def placed(self, event: Placed) -> None:
        self.amount = event.amount
        self.after(HOUR, "payment")

    @es.on(Paid)
    def is_paid(self, event: Paid) -> None:
        if event.__class__ is not Paid:
            raise AssertionError
        self.paid = True
        self.cancel("payment")
        self.send(Order, self.id, Ship(f"{self.amount} pieces"))

    @es.timer("payment")
    def late(self) -> None:
        self.send(Order, self.id, Cancel("not paid"))

    @es.on(Shipped, Cancelled)
    def over(self, event: es.Event) -> None:
        self.done()


class Forgiving(Fulfilment):
    """Takes it that it cannot be shipped."""

    @es.rejected(Ship)
    def not_shipped(self, command: Ship, error: Exception) -> None:
        self.send(Order, self.id, Cancel(f"{command.note}: {error}"))


@pytest.fixture(autouse=True)
def nothing_is_refused():
    refuses.clear()


@pytest.fixture
def clock():
    return es.ManualClock()


@pytest.fixture
def shop(clock):
    with es.open(":memory:", Order, Fulfilment, clock=clock) as opened:
        yield opened


def steps(shop: es.System, id: str) -> list[str]:
    return list(shop[Order, id].state.steps)


def flush(shop: es.System) -> None:
    shop.flush(SECONDS)


def types(shop: es.System, id: str, name: str = "Fulfilment") -> list[str]:
    return [one.type for one in shop.store.history(f"escqrs.process/{name}/{id}")]


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
    assert shop[Fulfilment].instance("a").parked == ()


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


# ---- a method that raises ------------------------------------------------------------------------


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


# ---- restarts ------------------------------------------------------------------------------------


def test_timers_survive_and_fire_late_rather_than_never(tmp_path, clock):
    with es.open(tmp_path / "a.db", Order, Fulfilment, clock=clock) as shop:
        shop[Order, "a"].ask(Place())
        flush(shop)
    clock.advance(30 * HOUR)
    with es.open(tmp_path / "a.db", Order, Fulfilment, clock=clock) as shop:
        flush(shop)
        assert steps(shop, "a") == ["Placed", "Cancelled"]
    with es.open(tmp_path / "a.db", Order, Fulfilment, clock=clock) as shop:
        flush(shop)
        assert steps(shop, "a") == ["Placed", "Cancelled"]


DYING = """
class Go(es.Command[None]):
    pass

class Gone(es.Event):
    pass

dies = sys.argv[2]

class Traveller(es.Aggregate):
    gone: int

    @es.handles
    def go(self, cmd: Go) -> None:
        if dies == "before":
            os._exit(3)
        self.emit(Gone())

    @es.applies
    def went(self, event: Gone) -> None:
        self.gone += 1

class Sender(es.Process):
    @es.on(Added)
    def added(self, event: Added) -> None:
        self.send(Traveller, "t", Go())

with es.open(sys.argv[1], Counter, Traveller, Sender) as shop:
    if dies == "before":
        shop[Counter, "c"].ask(Add(1))
    if dies == "after":  # carried out, and the answer not recorded
        for recorded in shop.subscribe(types=[Gone]):
            os._exit(4)
    shop.flush(20)
    print(shop[Traveller, "t"].state.gone, shop[Sender].status.commands)
"""


def test_a_command_whose_process_died_is_delivered_and_carried_out_once(tmp_path):
    run(DYING, tmp_path / "a.db", "before", status=3)
    run(DYING, tmp_path / "a.db", "after", status=4)
    for _ in range(2):
        assert run(DYING, tmp_path / "a.db", "never")[0].split() == ["1", "0"]


def test_a_command_is_delivered_again_with_its_key(tmp_path):
    """As if the process had died before it learned of the answer."""
    with es.open(tmp_path / "a.db", Order, Fulfilment) as shop:
        shop[Order, "a"].ask(Place())
        shop[Order, "a"].ask(Pay())
        flush(shop)
        stream = "escqrs.process/Fulfilment/a"
        (request,) = (
            one for one in shop.store.history(stream) if one.type == "escqrs.CommandRequested"
        )
        version = shop[Order, "a"].version
        shop[Order, "a"].ask(Ship("again"), key=f"{stream}/{request.version}")
        assert shop[Order, "a"].version == version


def test_a_state_may_get_fields_and_must_not_change_their_types(tmp_path):
    def define(annotations: dict[str, type]) -> type[es.Process]:
        def placed(self, event: Placed) -> None:
            self.first += 1

        return type(
            "Growing",
            (es.Process,),
            {
                "__annotations__": annotations,
                "__module__": __name__,
                "__qualname__": "Growing",
                "placed": es.on(Placed)(placed),
            },
        )

    with es.open(tmp_path / "a.db", Order, define({"first": int})) as shop:
        shop[Order, "a"].ask(Place())
        flush(shop)
    with es.open(tmp_path / "a.db", Order, define({"first": int, "second": str})) as shop:
        shop[Order, "a"].ask(Place())
        flush(shop)
        state = shop["Growing"].instance("a").state
        assert (state.first, state.second) == (2, "")
    with pytest.raises(es.SchemaMismatch, match="first"):
        es.open(tmp_path / "a.db", Order, define({"first": str, "second": str}))


# ---- the whole -----------------------------------------------------------------------------------


def test_closing_stores_the_answers_of_what_was_sent(tmp_path):
    with es.open(tmp_path / "a.db", Order, Fulfilment) as shop:
        for number in range(20):
            shop[Order, f"o-{number}"].tell(Place())
            shop[Order, f"o-{number}"].tell(Pay())
        shop[Fulfilment].wait(1, timeout=SECONDS)
    with es.open(tmp_path / "a.db", Order, Fulfilment) as shop:
        flush(shop)
        assert shop[Fulfilment].status.ended == 20
        for number in range(20):
            assert steps(shop, f"o-{number}") == ["Placed", "Paid", "Shipped"]
    with pytest.raises(es.Closed):
        _ = shop[Fulfilment]


def test_read_only_processes_do_not_run(tmp_path):
    with es.open(tmp_path / "a.db", Order, Fulfilment) as shop:
        shop[Order, "a"].ask(Place())
        flush(shop)
    with es.open(tmp_path / "a.db", Order, Fulfilment, readonly=True) as shop:
        assert shop[Fulfilment].status.state == "ended"
        assert shop[Fulfilment].instance("a").status == "active"
        with pytest.raises(es.ReadOnly):
            shop[Fulfilment].retry()
        flush(shop)


def test_a_method_cannot_wait_for_the_system(clock):
    caught: list[BaseException] = []

    class Waiting(es.Process):
        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            for function in (shop.flush, shop.close, shop[Waiting].wait, shop[Waiting].retry):
                try:
                    function()
                except es.Deadlock as error:
                    caught.append(error)

    with es.open(":memory:", Order, Waiting) as shop:
        shop[Order, "a"].ask(Place())
        flush(shop)
        assert len(caught) == 4


def test_a_system_that_is_dropped_lets_go(tmp_path):
    shop = es.open(tmp_path / "a.db", Order, Fulfilment)
    shop[Order, "a"].ask(Place())
    flush(shop)
    dropped = weakref.ref(shop)
    thread = shop[Fulfilment]._runner.thread
    with pytest.warns(ResourceWarning, match="unclosed"):
        del shop
        gc.collect()
        thread.join(SECONDS)
    assert dropped() is None
    assert not thread.is_alive()
    es.open(tmp_path / "a.db", Order, Fulfilment).close()


def test_the_interpreter_may_end_with_it_open_and_busy(tmp_path):
    _, said = run(
        """
        class Echo(es.Process):
            @es.on(Added)
            def added(self, event: Added) -> None:
                self.send(Counter, self.id, Add(event.amount + 1))

        shop = es.open(sys.argv[1], Counter, Echo)
        shop[Counter, "c"].ask(Add(1))
        """,
        tmp_path / "a.db",
        warnings="ignore",
    )
    assert "Traceback" not in said
    with es.Store(tmp_path / "a.db") as store:
        assert store.verify().problems == ()


def test_a_child_of_fork_cannot_use_it(tmp_path):
    run(
        """
        class Echo(es.Process):
            @es.on(Added)
            def added(self, event: Added) -> None: ...

        shop = es.open(sys.argv[1], Counter, Echo)
        echo = shop[Echo]
        child = os.fork()
        if child == 0:
            try:
                echo.wait()
            except es.Forked:
                shop.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        shop.close()
        """,
        tmp_path / "a.db",
        warnings="ignore",
    )


# ---- definitions ---------------------------------------------------------------------------------


def test_definitions_that_cannot_be():
    with pytest.raises(TypeError, match="the engine's"):

        class Named(es.Process):
            done: bool  # type: ignore[assignment]

    with pytest.raises(TypeError, match="no __init__"):

        class Made(es.Process):
            def __init__(self) -> None: ...

    with pytest.raises(TypeError, match="cannot hold"):

        class Slash(es.Process, name="a/b"): ...

    with pytest.raises(ValueError, match="start="):

        class Start(es.Process, start="now"): ...

    with pytest.raises(TypeError, match="two methods"):

        class Double(es.Process):
            @es.on(Placed)
            def one(self, event: Placed) -> None: ...

            @es.on(Placed)
            def two(self, event: Placed) -> None: ...

    with pytest.raises(TypeError, match="names the events"):

        class Wild(es.Process):
            @es.on(es.Event)
            def one(self, event: es.Event) -> None: ...

    with pytest.raises(TypeError, match="takes self and event"):

        class Read(es.Process):
            @es.on(Placed)
            def one(self, db: es.Rows, event: Placed, recorded: es.Recorded) -> None: ...

    with pytest.raises(TypeError, match="takes self, db and event"):

        class Table(es.ReadModel):
            schema = "CREATE TABLE t (x)"

            @es.on(Placed)
            def one(self, event: Placed) -> None: ...

    with pytest.raises(TypeError, match="@es.rejected takes command classes"):
        es.rejected(Placed)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="self alone"):
        es.timer("x")(lambda self, other: None)

    class Nothing(es.Process): ...

    with pytest.raises(TypeError, match=r"@es\.on methods"):
        es.open(":memory:", Order, Nothing)

    class Unknown(es.Process, key="nothing"):
        @es.on(Placed)
        def placed(self, event: Placed) -> None: ...

    with pytest.raises(TypeError, match="no field 'nothing'"):
        es.open(":memory:", Order, Unknown)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (lambda self: self.send(Order, "", Pay()), TypeError),
        (lambda self: self.send(Order, "x", Placed(1)), TypeError),
        (lambda self: self.after(1, "x"), TypeError),
        (lambda self: self.after(HOUR, "x"), ValueError),
        (lambda self: self.after(HOUR, Order, "x"), TypeError),
        (lambda self: self.at(datetime.datetime.now(), Order, "x", Pay()), ValueError),
        (lambda self: setattr(self, "other", 1), AttributeError),
        (lambda self: setattr(self, "number", "text"), TypeError),
    ],
)
def test_what_a_method_cannot_do(what, error):
    class Wrong(es.Process):
        number: int

        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            what(self)

    with es.open(":memory:", Order, Wrong) as shop:
        shop[Order, "a"].ask(Place())
        with pytest.raises(es.ProcessStopped) as caught:
            flush(shop)
        assert isinstance(caught.value.__cause__, error)
        assert shop[Wrong].instances() == []


def test_outside_of_its_methods_it_can_do_nothing():
    with pytest.raises(RuntimeError, match="in its methods"):
        Fulfilment().done()


def test_a_field_without_a_value_is_said(clock):
    class Dated(es.Process):
        when: datetime.datetime

        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            if event.amount:
                self.when = self.now

    with es.open(":memory:", Order, Dated) as shop:
        shop[Order, "a"].ask(Place(1))
        flush(shop)
        assert shop[Dated].instance("a").state.when.tzinfo is not None
        shop[Order, "b"].ask(Place(0))
        with pytest.raises(es.ProcessStopped, match=r"Dated\.when has no value"):
            flush(shop)


def test_how_they_look(shop):
    assert repr(shop[Fulfilment]) == "<escqrs.Processes 'Fulfilment'>"
    assert "Fulfilment" in repr(shop)
    assert "_Ledger" not in repr(shop)


def test_commands_and_events_of_generated_classes(tmp_path, clock):
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="process_shop.proto", package="process_shop", syntax="proto3"
    )
    for name in ("Begun", "Finish", "Finished"):
        message = file.message_type.add(name=name)
        message.field.add(name="number", number=1, label=1, type=3)
    pool = descriptor_pool.Default()
    pool.Add(file)
    Begun, Finish, Finished = (  # noqa: N806
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"process_shop.{name}"))
        for name in ("Begun", "Finish", "Finished")
    )

    class Task(es.Aggregate):
        total: int

        @es.handles(Finish)
        def finish(self, cmd) -> None:
            if cmd.number == 13:
                raise es.Rejected("thirteen")
            self.emit(Finished(number=cmd.number))

        @es.applies(Finished)
        def finished(self, event) -> None:
            self.total += event.number

    class Tasks(es.Process):
        @es.on(Begun, key="number")
        def begun(self, event) -> None:
            self.send(Task, "t", Finish(number=event.number))
            self.after(HOUR, Task, "t", Finish(number=100))

        @es.rejected(Finish)
        def not_finished(self, command, error) -> None:
            self.send(Task, "t", Finish(number=command.number - 1))

    with es.open(tmp_path / "a.db", Task, Tasks, clock=clock) as shop:
        shop.store.append("x", [Begun(number=1), Begun(number=13)])
        flush(shop)
        assert shop[Task, "t"].state.total == 1 + 12
        assert [one.id for one in shop[Tasks].instances()] == ["1", "13"]
        clock.advance(HOUR)
        flush(shop)
        assert shop[Task, "t"].state.total == 213
