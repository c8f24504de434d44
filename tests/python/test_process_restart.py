"""Processes that end and begin again, and systems that end with them."""

from __future__ import annotations

import gc
import weakref

import escqrs as es
import pytest
from orders import HOUR, Fulfilment, Order, Pay, Place, Placed, Ship, flush, steps
from support import SECONDS, run

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
