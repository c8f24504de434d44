"""Ends: close, being dropped, exit, Ctrl-C, fork, handlers that never come back."""

from __future__ import annotations

import gc
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
import support


class Add(es.Command[int]):
    amount: int


class Hold(es.Command[str]):
    pass


class Chain(es.Command):
    length: int


class Added(es.Event):
    amount: int


class Gate:
    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()


GATE = Gate()


class Counter(es.Aggregate):
    total: int

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.amount))
        return self.total

    @es.handles
    def hold(self, cmd: Hold) -> str:
        gate = GATE
        gate.entered.set()
        assert gate.go.wait(support.SECONDS)
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


@pytest.fixture
def gate() -> Iterator[Gate]:
    global GATE
    GATE = Gate()
    yield GATE
    GATE.go.set()


# ---- close ---------------------------------------------------------------------------------------


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


def test_close_waits_for_a_handler(gate: Gate) -> None:
    system = es.open(":memory:", Counter)
    reply = system[Counter, "a"].submit(Hold())
    behind = system[Counter, "a"].submit(Add(1))
    assert gate.entered.wait(support.SECONDS)
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
    gate.go.set()
    thread.join(support.SECONDS)
    second.join(support.SECONDS)
    assert not thread.is_alive() and not second.is_alive()
    assert reply.result() == "held" and behind.result() == 101


def test_close_with_timeout_gives_up_and_says_what_it_dropped(
    gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shop.db"
    system = es.open(path, Counter)
    system[Counter, "x"].ask(Add(1))
    stuck = system[Counter, "a"].submit(Hold())
    behind = [system[Counter, "a"].submit(Add(1)) for _ in range(3)]
    assert gate.entered.wait(support.SECONDS)
    system.close(timeout=0.1)
    assert system.closed
    for reply in behind:
        with pytest.raises((es.Closed, es.Timeout)):
            reply.result(timeout=0)
    with pytest.raises(es.Closed):
        system[Counter, "b"].ask(Add(1))
    gate.go.set()
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


# ---- dropped -------------------------------------------------------------------------------------


def test_a_system_that_is_dropped_lets_go_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    for i in range(3):
        system = es.open(path, Counter)
        assert system[Counter, "a"].submit(Add(1)).result(support.SECONDS) == i + 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del system
            gc.collect()
            while (
                True
            ):  # the last reference may go on a thread of the system, and another one closes then
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


# ---- the interpreter's exit ----------------------------------------------------------------------


def test_exit_with_busy_workers(tmp_path: Path) -> None:
    """What was accepted is finished, though nobody closed."""
    for i in range(5):
        _, error = support.run(
            """
            import escqrs._system
            escqrs._system._EXIT_SECONDS = 100.0 # the machine may be busy
            system = es.open(sys.argv[1], Counter)
            for i in range(3000):
                system[Counter, str(i % 100)].tell(Add(1))
            """,
            tmp_path / f"{i}.db",
            warnings="default",
        )
        assert "Traceback" not in error and "Fatal" not in error
        with es.open(tmp_path / f"{i}.db", Counter) as system:
            assert system.head == 3000


@pytest.mark.parametrize(
    "how", ["sys.exit(3)", "raise SystemExit(3)", "system.close(); sys.exit(3)"]
)
def test_exit_status(how: str) -> None:
    support.run(
        f"""
        system = es.open(":memory:", Counter)
        for i in range(100):
            system[Counter, str(i)].tell(Add(1))
        {how}
        """,
        status=3,
        warnings="ignore",
    )


def test_exit_with_threads_that_ask() -> None:
    _, error = support.run(
        """
        system = es.open(":memory:", Counter)
        def use():
            try:
                while True:
                    system[Counter, "a"].ask(Add(1))
            except es.Closed:
                pass
        threads = [threading.Thread(target=use, daemon=True) for _ in range(3)]
        for one in threads:
            one.start()
        for _ in range(100):
            system[Counter, "b"].ask(Add(1))
        """,
        warnings="ignore",
    )
    assert "Traceback" not in error and "Fatal" not in error


def test_exit_with_a_handler_that_never_returns() -> None:
    """The exit gives up on it after some seconds, and says so."""
    _, error = support.run(
        """
        import escqrs._system
        escqrs._system._EXIT_SECONDS = 0.2
        system = es.open(":memory:", Counter)
        system[Counter, "a"].tell(Block())
        entered.wait()
        """,
        warnings="ignore",
        status=None,
    )
    assert "Fatal" not in error
    assert "Counter/a" in error


# ---- Ctrl-C --------------------------------------------------------------------------------------

WAITS = {
    "ask": 'system[Counter, "a"].ask(Add(1))',
    "ask with timeout": 'system[Counter, "a"].ask(Add(1), timeout=60)',
    "result": 'system[Counter, "a"].submit(Add(1)).result()',
    "result with timeout": 'system[Counter, "a"].submit(Add(1)).result(60)',
    "exception": 'system[Counter, "a"].submit(Add(1)).exception()',
    "state": 'system[Counter, "a"].state',
    "flush": "system.flush()",
    "flush with timeout": "system.flush(60)",
    "close": "system.close()",
    "close with timeout": "system.close(60)",
    "full mailbox": '[system[Counter, "b"].submit(Add(1)) for _ in range(20)] and None',
    "full mailbox, tell": 'system[Counter, "b"].tell(Add(1))',
    "full mailbox, ask": 'system[Counter, "b"].ask(Add(1))',
}


@pytest.mark.parametrize("what", list(WAITS))
def test_ctrl_c_interrupts(what: str) -> None:
    full = what.startswith("full")
    out, _ = support.finish(
        interrupted(
            f"""
            system = es.open(":memory:", Counter, max_in_flight={1 if full else 100})
            blocked = system[Counter, "a"].submit(Block())
            entered.wait()
            try:
                print("ready", flush=True)
                {WAITS[what]}
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            release.set()
            assert blocked.result() is None
            assert system.closed is False
            assert system[Counter, "c"].ask(Add(1)) == 1
            system.flush()
            system.close()
            """
        )
    )
    assert out == "interrupted\n"


@pytest.mark.parametrize("what", ["entity", "actor"])
def test_ctrl_c_behind_a_read_model_at_work(what: str, tmp_path: Path) -> None:
    """Its transaction lasts as long as its handler: who asks is not held by it."""
    out, _ = support.finish(
        interrupted(
            f"""
            class Slow(es.ReadModel):
                schema = "CREATE TABLE slow (amount INTEGER)"
                @es.on(Added)
                def added(self, db: es.Rows, event: Added) -> None:
                    entered.set()
                    release.wait()
            class Keeper(es.PersistentActor):
                def receive(self, ctx: es.Context, message: object) -> None:
                    if isinstance(message, Add):
                        self.persist(Added(message.amount))
                        ctx.respond(self.version)
            with es.open({str(tmp_path / "s.db")!r}, Counter, Slow) as system:
                with es.ActorSystem() as actors:
                    props = es.Props(Keeper, middleware=[es.persistence(system.store)])
                    keeper = actors.spawn(props, name="keeper")
                    assert keeper.ask(Add(1)) == 1
                    entered.wait()
                    try:
                        print("ready", flush=True)
                        {
                "keeper.ask(Add(1))" if what == "actor" else 'system[Counter, "a"].ask(Add(1))'
            }
                    except KeyboardInterrupt:
                        print("interrupted", flush=True)
                    assert not release.is_set()
                    release.set()
                    if {what == "actor"}:
                        assert keeper.ask(Add(1)) == 3
                    else:
                        assert system[Counter, "a"].ask(Add(1)) == 2
            """
        )
    )
    assert out == "interrupted\n"


COMMITS = {
    "append": 'system.store.append("Other/a", [Added(1)])',
    "commit": 'system.store.commit([es.Write("Other/a", [Added(1)])], key="once")',
    "checkpoint": 'system.store.set_checkpoint("mine", 1)',
    "snapshot": 'system.store.save_snapshot("Counter/a", 1, "T", b"data")',
}


@pytest.mark.parametrize("what", COMMITS)
def test_ctrl_c_takes_a_commit_back_behind_a_read_model_at_work(what: str, tmp_path: Path) -> None:
    out, _ = support.finish(
        interrupted(
            f"""
            class Slow(es.ReadModel):
                schema = "CREATE TABLE slow (amount INTEGER)"
                @es.on(Added)
                def added(self, db: es.Rows, event: Added) -> None:
                    entered.set()
                    release.wait()
            def stored():
                it = system.store
                return it.version("Other/a"), it.checkpoint("mine"), it.snapshot("Counter/a")
            with es.open({str(tmp_path / "s.db")!r}, Counter, Slow) as system:
                assert system[Counter, "a"].ask(Add(1)) == 1
                entered.wait()
                before = stored()
                print("ready", flush=True)
                try:
                    {COMMITS[what]}
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                assert not release.is_set()
                release.set()
                system.flush()
                assert stored() == before and system.head == 1
                {COMMITS[what]}
                assert stored() != before
            """
        )
    )
    assert out == "interrupted\n"


def test_a_commit_waits_for_a_read_model_at_work(tmp_path: Path) -> None:
    """On any thread, also through signals whose handlers return, and commit themselves."""
    support.run(
        f"""
        class Slow(es.ReadModel):
            schema = "CREATE TABLE slow (amount INTEGER)"
            @es.on(Added)
            def added(self, db: es.Rows, event: Added) -> None:
                entered.set()
                release.wait()
        def handler(*_: object) -> None:
            threads[0].start()
            release.set()
            system.store.append("Other/b", [Added(3)])
        signal.signal(signal.SIGALRM, handler)
        with es.open({str(tmp_path / "s.db")!r}, Counter, Slow) as system:
            results = []
            def append(stream):
                results.append(system.store.append(stream, [Added(1), Added(2)]).versions)
            threads = [threading.Thread(target=append, args=("Other/c",))]
            system[Counter, "a"].ask(Add(1))
            entered.wait()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            append("Other/a")
            threads[0].join()
            assert sorted(map(list, results)) == [["Other/a"], ["Other/c"]], results
            system.flush()
            assert sorted(one.stream for one in system.events()) == [
                "Counter/a", "Other/a", "Other/a", "Other/b", "Other/c", "Other/c",
            ]
            try:
                system.store.append("Other/a", [Added(1)], expected=1)
            except es.WrongVersion as error:
                print(error.actual)
        """
    )


def interrupted(code: str, after: str = "ready\n") -> Any:
    process = support.start(code)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == after, line + support.finish(process, None)[1]
    # not before the process waits: it is asleep, and has been looked at twice
    asleep = 0
    deadline = time.monotonic() + support.SECONDS
    while asleep < 3 and time.monotonic() < deadline:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
    process.send_signal(signal.SIGINT)
    return process


def test_ctrl_c_in_a_handler_on_the_callers_thread() -> None:
    out, _ = support.finish(
        interrupted(
            """
            class Spin(es.Command):
                pass
            class Spinner(es.Aggregate):
                total: int
                @es.handles
                def spin(self, cmd: Spin):
                    self.emit(Added(5))
                    print("ready", flush=True)
                    release.wait()
                @es.handles
                def add(self, cmd: Add) -> int:
                    self.emit(Added(cmd.amount))
                    return self.total
                @es.applies
                def added(self, event: Added) -> None:
                    self.total += event.amount
            with es.open(":memory:", Spinner) as system:
                try:
                    system[Spinner, "a"].ask(Spin())
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                assert system[Spinner, "a"].ask(Add(1)) == 1
            """
        )
    )
    assert out == "interrupted\n"


def test_ctrl_c_while_iterating() -> None:
    out, _ = support.finish(
        spinning(
            """
            with es.open(":memory:", Counter) as system:
                for i in range(2000):
                    system[Counter, "a"].tell(Add(1))
                system.flush()
                try:
                    print("ready", flush=True)
                    while True:
                        for recorded in system.events():
                            pass
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                assert len(list(system.events())) == 2000
            """
        )
    )
    assert out == "interrupted\n"


def spinning(code: str) -> Any:
    process = support.start(code)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    return process


@pytest.mark.parametrize("how", ["state_at(1999)", "state", "ask(Add(0))"])
def test_ctrl_c_while_a_long_history_is_replayed(how: str) -> None:
    out, _ = support.finish(
        spinning(
            f"""
            with es.open(":memory:", Counter, max_entities=1) as system:
                for i in range(2000):
                    system[Counter, "a"].tell(Add(1))
                system.flush()
                try:
                    print("ready", flush=True)
                    while True:
                        system[Counter, "a"].{how}
                        system[Counter, "b"].ask(Add(1))
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                assert system[Counter, "a"].state.total == 2000
            """
        )
    )
    assert out == "interrupted\n"


def test_ctrl_c_in_asyncio() -> None:
    out, error = support.finish(
        interrupted(
            """
            import asyncio
            async def main():
                print("ready", flush=True)
                await system[Counter, "a"].submit(Block())
            with es.open(":memory:", Counter) as system:
                try:
                    asyncio.run(main())
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                entered.wait()
                release.set()
            """
        )
    )
    assert out == "interrupted\n", error


def test_ctrl_c_without_anybody_to_catch_it_ends_the_process() -> None:
    process = interrupted(
        """
        system = es.open(":memory:", Counter)
        reply = system[Counter, "a"].submit(Block())
        entered.wait()
        import atexit
        atexit.register(release.set)
        print("ready", flush=True)
        reply.result()
        """
    )
    _, error = support.finish(process, -signal.SIGINT)
    assert "KeyboardInterrupt" in error and "Fatal" not in error


# ---- fork ----------------------------------------------------------------------------------------


def test_after_fork_the_child_is_told() -> None:
    out, _ = support.run(
        """
        import gc, tempfile, warnings
        warnings.simplefilter("ignore", DeprecationWarning) # of forking with threads
        path = tempfile.mkdtemp() + "/shop.db"
        system = es.open(path, Counter)
        handle = system[Counter, "a"]
        for _ in range(20):
            handle.tell(Add(1))
        reply = handle.submit(Add(1))
        reply.result()
        pending = system[Counter, "b"].submit(Block())
        entered.wait()
        events = system.events()
        next(events)
        state = handle.state
        child = os.fork()
        if child == 0:
            try:
                uses = [
                    lambda: handle.ask(Add(1)), lambda: handle.submit(Add(1)),
                    lambda: handle.tell(Add(1)), lambda: handle.state, lambda: handle.state_at(1),
                        lambda: handle.version,
                    lambda: list(handle.history()), lambda: list(system.events()),
                    lambda: list(events),
                    lambda: system.head, lambda: system.flush(), lambda: system[Counter, "c"],
                    lambda: pending.result(), lambda: pending.exception(),
                ]
                for i, use in enumerate(uses):
                    try:
                        use()
                    except es.Forked as error:
                        assert "fork" in str(error)
                    else:
                        os._exit(10 + i)
                assert reply.result() == 21 and state.total == 21
                repr(system), repr(handle), repr(pending), repr(reply)
                system.close()
                try:
                    es.open(path, Counter)
                except es.Locked:
                    pass
                else:
                    os._exit(5)
                with es.open(":memory:", Counter) as mine:
                    assert mine[Counter, "a"].ask(Add(3)) == 3
                    mine[Counter, "a"].submit(Add(1)).result()
                with es.open(path, Counter, readonly=True) as mine:
                    assert mine[Counter, "a"].version == 21
                del system, handle, reply, pending, events, uses, use, state
                gc.collect()
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(4)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        release.set()
        assert handle.ask(Add(1)) == 22
        pending.result()
        system.close()
        with es.open(path, Counter) as system:
            print(system.head)
        """
    )
    assert out == "0\n22\n"


def test_a_child_ends_as_any_process() -> None:
    out, error = support.run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        system = es.open(":memory:", Counter)
        system[Counter, "a"].submit(Add(1)).result()
        child = os.fork()
        if child == 0:
            sys.exit(7) # with atexit functions and destructors
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        assert system[Counter, "a"].ask(Add(1)) == 2
        system.close()
        """
    )
    assert out == "7\n", error


def test_the_childs_copy_of_the_lock_does_not_outlive_the_parents_close(tmp_path: Path) -> None:
    out, _ = support.run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        system = es.open(sys.argv[1], Counter)
        system[Counter, "a"].submit(Add(1)).result()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        system.close()
        with es.open(sys.argv[1], Counter) as system: # while the child lives
            print(system[Counter, "a"].ask(Add(1)))
        os.close(write)
        os.waitpid(child, 0)
        """,
        tmp_path / "shop.db",
    )
    assert out == "2\n"


def test_multiprocessing_with_fork(tmp_path: Path) -> None:
    """The children open stores of their own while the parent's threads are inside SQLite."""
    out, _ = support.run(
        """
        import multiprocessing, sqlite3, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        def work(path):
            with es.open(path, Counter) as system:
                return system[Counter, "a"].ask(Add(1))
        def read(path):
            with es.open(path, Counter, readonly=True) as system:
                return system[Counter, "a"].version
        def other(path):
            connection = sqlite3.connect(path + "-other")
            connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
            connection.close()
            return 0
        path = sys.argv[1]
        system = es.open(path, Counter)
        system[Counter, "a"].ask(Add(1))
        ended = threading.Event()
        def send():
            while not ended.is_set():
                for i in range(100):
                    system[Counter, str(i)].tell(Add(1))
                system[Counter, "0"].ask(Add(1))
        sender = threading.Thread(target=send)
        sender.start()
        for i in range(5):
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(work, [f"{path}-{i}-{j}" for j in range(4)]) == [1, 1, 1, 1]
                assert pool.map(read, [path] * 4) == [1, 1, 1, 1]
                assert pool.map(other, [path] * 4) == [0, 0, 0, 0]
                pool.close()
                pool.join()
        ended.set()
        sender.join()
        system.close()
        print("good")
        """,
        tmp_path / "shop.db",
    )
    assert out == "good\n"


# ---- exceptions where nobody waits ---------------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["KeyboardInterrupt", "SystemExit(5)", "MemoryError", "GeneratorExit"]
)
def test_what_a_told_handler_raises_ends_nothing(what: str) -> None:
    out, error = support.run(
        f"""
        import logging
        logging.basicConfig()
        class Raise(es.Command):
            pass
        class Raiser(es.Aggregate):
            @es.handles
            def handle(self, cmd: Raise):
                raise {what}
            @es.handles
            def add(self, cmd: Add) -> int:
                return 1
        with es.open(":memory:", Raiser) as system:
            system[Raiser, "a"].tell(Raise())
            system.flush()
            print(system[Raiser, "a"].ask(Add(1)), len(system.dead_letters))
        """
    )
    assert out == "1 1\n"
    assert what.partition("(")[0] in error and "Raiser/a" in error


def test_memory_errors(tmp_path: Path) -> None:
    """Under a limit of the address space: MemoryError, and nothing else is lost."""
    out, _ = support.run(
        """
        import resource
        class Grow(es.Command):
            size: int
        class Grown(es.Event):
            data: bytes
        class Tank(es.Aggregate):
            level: int
            @es.handles
            def grow(self, cmd: Grow):
                self.emit(Grown(bytes(cmd.size)))
            @es.applies
            def grown(self, event: Grown) -> None:
                self.level += len(event.data)
        with es.open(sys.argv[1], Tank, max_message_bytes=1 << 30) as system:
            tank = system[Tank, "a"]
            tank.ask(Grow(10))
            tank.submit(Grow(10)).result()
            with open("/proc/self/statm") as file:
                used = int(file.read().split()[0]) * resource.getpagesize()
            limit = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, limit[1]))
            for send in (tank.ask, lambda cmd: tank.submit(cmd).result()):
                try:
                    send(Grow(140_000_000))
                except MemoryError:
                    print("MemoryError")
                except es.Error as error:
                    print(type(error), error)
            resource.setrlimit(resource.RLIMIT_AS, limit)
            tank.ask(Grow(10))
            print(tank.state.level, tank.version)
        with es.open(sys.argv[1], Tank) as system:
            print(system[Tank, "a"].state.level)
        """,
        tmp_path / "shop.db",
    )
    assert out == "MemoryError\nMemoryError\n30 3\n30\n"


def test_an_idle_system_uses_no_processor() -> None:
    """Time passes for a process with an open, used system: none of it is the processor's."""
    out, _ = support.run(
        """
        with es.open(":memory:", Counter) as system:
            for i in range(1000):
                system[Counter, str(i)].tell(Add(1))
            system.flush()
            settled = threading.Event()
            last = None
            for _ in range(100): # until a tenth of a second passes without any
                before = time.process_time()
                settled.wait(0.1)
                last = time.process_time() - before
                if last < 0.001:
                    break
            print(last < 0.001)
        """
    )
    assert out == "True\n"
