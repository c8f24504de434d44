"""Ctrl-C: it ends any wait, and nothing else."""

from __future__ import annotations

import signal
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import support

SLOW = """\
class Slow(es.ReadModel):
    schema = "CREATE TABLE slow (amount INTEGER)"
    @es.on(Added)
    def added(self, db: es.Rows, event: Added) -> None:
        entered.set()
        release.wait()
"""

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


def beside_slow(code: str) -> str:
    """The code, and a read model that stays in its handler until it is released."""
    return SLOW + textwrap.dedent(code)


def spinning(code: str) -> Any:
    process = support.start(code)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    return process


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
    ask = "keeper.ask(Add(1))" if what == "actor" else 'system[Counter, "a"].ask(Add(1))'
    out, _ = support.finish(
        interrupted(
            beside_slow(f"""
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
                        {ask}
                    except KeyboardInterrupt:
                        print("interrupted", flush=True)
                    assert not release.is_set()
                    release.set()
                    if {what == "actor"}:
                        assert keeper.ask(Add(1)) == 3
                    else:
                        assert system[Counter, "a"].ask(Add(1)) == 2
            """)
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
            beside_slow(f"""
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
            """)
        )
    )
    assert out == "interrupted\n"


def test_a_commit_waits_for_a_read_model_at_work(tmp_path: Path) -> None:
    """On any thread, also through signals whose handlers return, and commit themselves."""
    support.run(
        beside_slow(f"""
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
        """)
    )


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
