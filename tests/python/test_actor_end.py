"""Actor systems that are closed, dropped, forked or left open, and what they let go."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import weakref
from typing import Any

import escqrs as es
import pytest
import support
from actors import Call, Doer, Echo, Recorder, end, get


@pytest.fixture
def system():
    with es.ActorSystem() as system:
        yield system


def test_close_finishes_what_was_sent_and_stops_all(seen):
    with es.ActorSystem() as system:
        ref = system.spawn(lambda: Recorder(seen))
        for number in range(100):
            ref.tell(number)
    expected = [es.Started(), *range(100), es.Stopping(), es.Stopped()]
    assert [seen.get_nowait() for _ in range(103)] == expected
    assert ref.state == "stopped"
    system.close()


def test_a_closed_system(system):
    ref = system.spawn(Echo)
    system.close()
    with pytest.raises(es.Closed):
        system.spawn(Echo)
    with pytest.raises(es.Closed):
        ref.ask("hello")
    ref.tell("hello")  # a dead letter: nobody hears of it
    assert "closed" in repr(system)


def test_closing_in_an_actor_is_a_deadlock(system):
    ref = system.spawn(Doer)
    with pytest.raises(es.Deadlock):
        ref.ask(Call(lambda ctx: ctx.system.close()))


def test_close_says_which_actor_does_not_come_back():
    entered, release = threading.Event(), threading.Event()

    class Stuck(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "block":
                entered.set()
                release.wait(support.SECONDS)

    system = es.ActorSystem()
    system.spawn(Stuck, name="stuck").tell("block")
    assert entered.wait(support.SECONDS)
    with pytest.raises(es.Timeout, match="^/stuck has not"):
        system.close(timeout=0.05)
    release.set()
    system.close()


def test_close_without_a_timeout_logs_whom_it_waits_for(monkeypatch):
    entered, release = threading.Event(), threading.Event()

    class Stuck(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "block":
                entered.set()
                release.wait(support.SECONDS)

    class Releaser(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            release.set()

    said: list[str] = []
    monkeypatch.setattr("escqrs._actor._SLOW_SECONDS", 0.01)
    handler = Releaser(logging.WARNING)
    logging.getLogger("escqrs").addHandler(handler)
    try:
        with es.ActorSystem() as system:
            system.spawn(Stuck, name="stuck").tell("block")
            assert entered.wait(support.SECONDS)
    finally:
        logging.getLogger("escqrs").removeHandler(handler)
    assert "stuck" in said[0]


def test_closing_while_another_thread_closes():
    class Stuck:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "block":
                entered.set()
                release.wait(support.SECONDS)

    class Last:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Stopping):
                began.set()

    entered, release, began = threading.Event(), threading.Event(), threading.Event()
    system = es.ActorSystem()
    system.spawn(Stuck, name="stuck").tell("block")
    system.spawn(Last)
    assert entered.wait(support.SECONDS)
    closing = threading.Thread(target=system.close)
    closing.start()
    try:
        assert began.wait(support.SECONDS)
        with pytest.raises(es.Timeout):
            system.close(timeout=0.01)
    finally:
        release.set()
        system.close(timeout=support.SECONDS)
        closing.join()
    assert system.closed


def test_spawning_in_an_actor_while_the_system_closes(seen):
    class Late(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Stopped):
                try:
                    ctx.system.spawn(Echo)
                except es.Closed as error:
                    seen.put(error)

    with es.ActorSystem() as system:
        system.spawn(Late)
    assert isinstance(get(seen), es.Closed)


def test_a_dropped_system_lets_go():
    support.run(
        """
        import gc, warnings, weakref
        class Echo:
            def receive(self, ctx, message):
                ctx.respond(message)
        system = es.ActorSystem()
        ref = system.spawn(Echo)
        assert ref.ask("x") == "x"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            gone = weakref.ref(system)
            del system, ref
            gc.collect()
            assert gone() is None
        assert any("unclosed" in str(one.message) for one in caught), caught
        """
    )


def test_a_system_that_is_left_open_at_exit_is_closed():
    out, _error = support.run(
        """
        class Echo:
            def receive(self, ctx, message):
                if isinstance(message, es.Stopped):
                    print("stopped", flush=True)
        system = es.ActorSystem()
        system.spawn(Echo)
        """
    )
    assert out == "stopped\n"


def test_after_fork():
    support.run(
        """
        import warnings
        warnings.simplefilter("ignore")
        class Echo:
            def receive(self, ctx, message):
                if message == "x":
                    ctx.respond(message)
        with es.ActorSystem() as system:
            ref = system.spawn(Echo)
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    ref.ask("x")
                except es.Forked:
                    try:
                        system.spawn(Echo)
                    except es.Forked:
                        status = 0
                os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
            assert ref.ask("x") == "x"
        """
    )


def test_ctrl_c_interrupts_an_ask():
    process = support.start(
        """
        class Keeper:
            def receive(self, ctx, message):
                self.sender = ctx.sender
        with es.ActorSystem() as system:
            reply = system.spawn(Keeper).submit("x")
            try:
                print("waits", flush=True)
                reply.result()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    out, _error = support.finish(process)
    assert out == "interrupted\n"


def test_actors_that_stopped_are_freed(system):
    class Big(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            self.ctx = ctx  # a cycle, through the context
            ctx.respond(weakref.ref(self))

    ref = system.spawn(Big)
    gone = ref.ask("x")
    assert gone() is not None
    end(ref)
    gc.collect()
    assert gone() is None


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="it keeps what is freed")
def test_many_actors_leave_no_memory_behind():
    """Nor does the C library keep it."""
    support.run(
        """
        import gc
        def used():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1])
        class Idle:
            def receive(self, ctx, message):
                pass
        with es.ActorSystem() as system:
            before = used()
            refs = [system.spawn(Idle) for _ in range(200_000)]
            most = used()
            for ref in refs:
                ref.stop()
            for ref in refs:
                ref.wait_stopped()
            del refs, ref
            gc.collect()
            assert used() - before < (most - before) / 4, (before, most, used())
        """
    )


def test_a_dropped_system_whose_actors_know_each_other_lets_go():
    support.run(
        """
        import gc, warnings, weakref
        class Friend:
            def __init__(self, other):
                self.other = other
            def receive(self, ctx, message):
                self.ctx = ctx
                if message == "x":
                    ctx.respond(message)
        warnings.simplefilter("ignore")
        def make():
            system = es.ActorSystem()
            a = system.spawn(lambda: Friend(None), name="a")
            b = system.spawn(es.Props(lambda: Friend(a)), name="b")
            assert a.ask("x") == b.ask("x") == "x"
            return weakref.ref(system)
        gone = make()
        gc.collect()
        assert gone() is None
        """
    )
