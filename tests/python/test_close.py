"""Close: what was accepted is finished, what is dropped says so; systems that nobody closes."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
import support
from counters import DOORS, Add, Added, Door


class Hold(es.Command[str]):
    pass


class Chain(es.Command):
    length: int


class Counter(es.Aggregate):
    total: int

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.amount))
        return self.total

    @es.handles
    def hold(self, cmd: Hold) -> str:
        door = DOORS["d"]
        door.reached.set()
        assert door.open.wait(support.SECONDS)
        self.emit(Added(100))
        return "held"

    @es.handles
    def chain(self, cmd: Chain) -> None:
        self.emit(Added(1))
        if cmd.length > 0:
            self.system[Counter, str(cmd.length)].tell(Chain(cmd.length - 1))

    @es.applies
    def added(self, event: Added) -> None:
        self.total += event.amount


def test_twice_is_once() -> None:
    system = es.open(":memory:", Counter)
    assert not system.closed
    system.close()
    assert system.closed
    system.close()
    system.close(timeout=0)
    assert "closed" in repr(system)


@pytest.mark.parametrize("make", [es.open, es.Store, lambda path: es.ActorSystem()])
def test_what_is_closed_is_not_entered_again(make: Any) -> None:
    with make(":memory:") as made:
        pass
    with pytest.raises(es.Closed, match="closed"), made:
        pass


def test_after_close_everything_says_closed(tmp_path: Path) -> None:
    with es.open(tmp_path / "shop.db", Counter) as system:
        handle = system[Counter, "a"]
        handle.ask(Add(1))
        reply = handle.submit(Add(1))
        state = handle.state
        (recorded, *_) = system.events()
    for use in (
        lambda: handle.ask(Add(1)),
        lambda: handle.submit(Add(1)),
        lambda: handle.tell(Add(1)),
        lambda: handle.state,
        lambda: handle.state_at(1),
        lambda: handle.history(),
        lambda: handle.version,
        lambda: system.events(),
        lambda: system.head,
        lambda: system.flush(),
        lambda: system[Counter, "a"],
    ):
        with pytest.raises(es.Closed, match=r"shop\.db"):
            use()
    assert (reply.result() == 2 and state.total == 2) or state.total == 1
    assert recorded.event == Added(1)
    assert "closed" in repr(handle)


def test_close_finishes_what_it_accepted_and_what_that_sends(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    system = es.open(path, Counter)
    replies = [system[Counter, str(i % 10)].submit(Add(1)) for i in range(500)]
    system[Counter, "c"].tell(Chain(200))
    system.close()
    assert all(one.done() for one in replies)
    assert sorted({one.result() for one in replies}) == list(range(1, 51))
    with es.open(path, Counter) as system:
        assert system.head == 701


def test_close_waits_for_a_handler(door: Door) -> None:
    system = es.open(":memory:", Counter)
    reply = system[Counter, "a"].submit(Hold())
    behind = system[Counter, "a"].submit(Add(1))
    door.wait()
    thread = threading.Thread(target=system.close)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    while True:  # closing has begun: nothing from outside is taken any more
        try:
            system[Counter, "b"].ask(Add(1))
        except es.Closed:
            break
    second = threading.Thread(target=system.close)
    second.start()
    door.open.set()
    thread.join(support.SECONDS)
    second.join(support.SECONDS)
    assert not thread.is_alive() and not second.is_alive()
    assert reply.result() == "held" and behind.result() == 101


def test_close_with_timeout_gives_up_and_says_what_it_dropped(
    door: Door, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shop.db"
    system = es.open(path, Counter)
    system[Counter, "x"].ask(Add(1))
    stuck = system[Counter, "a"].submit(Hold())
    behind = [system[Counter, "a"].submit(Add(1)) for _ in range(3)]
    door.wait()
    system.close(timeout=0.1)
    assert system.closed
    for reply in behind:
        with pytest.raises((es.Closed, es.Timeout)):
            reply.result(timeout=0)
    with pytest.raises(es.Closed):
        system[Counter, "b"].ask(Add(1))
    door.open.set()
    with pytest.raises(es.Closed):
        stuck.result(support.SECONDS)
    for reply in behind:
        with pytest.raises(es.Closed):
            reply.result(support.SECONDS)
    assert any("Counter/a" in one.getMessage() for one in caplog.records)
    with es.open(path, Counter) as system:  # the file is free, and whole
        assert system.head == 1
        assert system[Counter, "a"].ask(Add(1)) == 1


def test_timeouts_of_close_that_cannot_be() -> None:
    with es.open(":memory:", Counter) as system:
        for wrong in ("1", True, float("nan")):
            with pytest.raises((TypeError, ValueError)):
                system.close(timeout=wrong)  # type: ignore[arg-type]
        assert not system.closed


def test_an_iterator_that_meets_close_raises() -> None:
    system = es.open(":memory:", Counter)
    for i in range(1000):
        system[Counter, "a"].tell(Add(i))
    system.flush()
    events, history = system.events(), system[Counter, "a"].history()
    short = system.events(limit=1)
    assert next(events).position == 1 and next(history).version == 1 and next(short).position == 1
    assert list(short) == []
    system.close()
    for one in (events, history):
        with pytest.raises(es.Closed):
            list(one)
    assert list(short) == []


def test_closing_while_others_read_and_send(tmp_path: Path) -> None:
    for round_ in range(5):
        system = es.open(tmp_path / f"{round_}.db", Counter)
        for i in range(300):
            system[Counter, str(i % 3)].tell(Add(1))
        system.flush()
        failures: list[BaseException] = []
        begun = threading.Barrier(5)

        def use(
            what: int, system: es.System = system, failures: Any = failures, begun: Any = begun
        ) -> None:
            begun.wait(support.SECONDS)
            try:
                while True:
                    if what == 0:
                        list(system.events())
                    elif what == 1:
                        system[Counter, "0"].ask(Add(1))
                    elif what == 2:
                        system[Counter, "1"].state_at(10)
                    else:
                        system[Counter, "2"].submit(Add(1)).result(support.SECONDS)
            except es.Closed:
                pass
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=use, args=(i,)) for i in range(4)]
        for one in threads:
            one.start()
        begun.wait(support.SECONDS)
        system.close()
        for one in threads:
            one.join(support.SECONDS)
            assert not one.is_alive()
        assert failures == []


def test_a_system_that_is_dropped_lets_go_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    for i in range(3):
        system = es.open(path, Counter)
        assert system[Counter, "a"].submit(Add(1)).result(support.SECONDS) == i + 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del system
            gc.collect()
            # the last reference may go on a thread of the system, and another one closes then
            while True:
                try:
                    es.open(path, Counter).close()
                    break
                except es.Locked:
                    pass
        (warning,) = caught
        assert warning.category is ResourceWarning
        assert "unclosed" in str(warning.message) and "shop.db" in str(warning.message)
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].state.total == 3


def test_a_closed_system_is_dropped_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            with es.open(":memory:", Counter) as system:
                system[Counter, "a"].ask(Add(1))
                system.itself = system  # type: ignore[attr-defined]  # a cycle
            del system
            gc.collect()


def test_what_reads_of_itself_it_is_dropped_with(tmp_path: Path) -> None:
    for _ in range(2):
        system: Any = es.open(tmp_path / "shop.db", Counter)
        system[Counter, "a"].ask(Add(1))
        system.reading = system.events()
        system.store.reading = system.store.events()
        system.store.following = system.store.subscribe()
        assert next(system.reading).version == 1
        closed = weakref.ref(system), weakref.ref(system.store)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del system
            gc.collect()
        gc.collect()  # that the system warns keeps the store until now
        assert [one() for one in closed] == [None, None]


def test_dropped_by_the_last_told_command(tmp_path: Path) -> None:
    """The last reference goes with a reply, perhaps on a thread of the system itself."""
    out, _ = support.run(
        """
        import gc, warnings
        import escqrs._system
        escqrs._system._EXIT_SECONDS = 100.0 # the machine may be busy
        for i in range(20):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                system = es.open(sys.argv[1], Counter)
                for _ in range(50):
                    system[Counter, "a"].tell(Add(1))
                del system
                gc.collect()
                while True:
                    try:
                        es.open(sys.argv[1], Counter).close()
                        break
                    except es.Locked:
                        pass
        with es.open(sys.argv[1], Counter) as system:
            print(system[Counter, "a"].state.total)
        """,
        tmp_path / "shop.db",
    )
    assert out == "1000\n"
