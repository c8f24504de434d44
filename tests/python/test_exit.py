"""The interpreter's exit, and what must not bring it about: errors where nobody waits."""

from __future__ import annotations

from pathlib import Path

import escqrs as es
import pytest
import support
from counters import Counter


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
