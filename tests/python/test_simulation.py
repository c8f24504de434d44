"""escqrs.testing.System: the same seed, the same order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from escqrs.testing import System, explore


class Variable:
    """Reads and writes by message: who reads, then writes, may overwrite another's."""

    def __init__(self) -> None:
        self.value = 0

    def receive(self, ctx: es.Context, message: object) -> None:
        match message:
            case "read":
                ctx.respond(self.value)
            case int():
                self.value = message


class Adder:
    def __init__(self, variable: es.Ref) -> None:
        self.variable = variable

    def receive(self, ctx: es.Context, message: object) -> None:
        if message == "add":
            reply = self.variable.submit("read")
            ctx.reenter_after(reply, lambda reply: ctx.tell(self.variable, reply.result() + 1))


def added_twice(system: System) -> int:
    variable = system.spawn(Variable)
    for _ in range(2):
        system.spawn(lambda: Adder(variable)).tell("add")
    system.run()
    value: int = variable.ask("read")
    return value


def value_with(seed: int) -> int:
    with System(seed) as system:
        return added_twice(system)


def test_a_seed_repeats_an_order() -> None:
    values = [value_with(seed) for seed in range(60)]
    assert values == [value_with(seed) for seed in range(60)]
    assert set(values) == {1, 2}


def test_explore_finds_a_planted_race(capsys: pytest.CaptureFixture[str]) -> None:
    def test(system: System) -> None:
        assert added_twice(system) == 2

    with pytest.raises(AssertionError) as caught:
        explore(test, seeds=1000)
    (note,) = caught.value.__notes__
    seed = int(note.split()[2])
    assert value_with(seed) == 1 and f"System({seed}) repeats it" in note
    assert capsys.readouterr().err == f"AssertionError {note}\n"
    explore(lambda system: None, seeds=3)
    with pytest.raises(ValueError, match="seeds is at least 1"):
        explore(added_twice, seeds=0)
    wrong: Any = "added_twice"
    with pytest.raises(TypeError, match="explore takes a function"):
        explore(wrong)


def test_explore_runs_a_generator_to_its_end() -> None:
    def test(system: System) -> Generator[Any, Any, None]:
        assert (yield system.spawn(Variable).submit("read")) == 1

    with pytest.raises(AssertionError) as caught:
        explore(test, seeds=2)
    assert caught.value.__notes__ == ["with seed 0 of 2; System(0) repeats it"]


class Clock:
    def __init__(self, log: list[tuple[float, object]], system: System) -> None:
        self.log, self.system = log, system

    def receive(self, ctx: es.Context, message: object) -> None:
        match message:
            case es.Started():
                ctx.schedule_once(3600.0, "late")
                ctx.schedule_every(1000.0, "tick")
            case str():
                self.log.append((self.system.now, message))
            case int():
                self.kept = ctx.sender  # and may answer one day


def test_the_clock_does_not_wait() -> None:
    log: list[tuple[float, object]] = []
    with System(3) as system:
        clock = system.spawn(lambda: Clock(log, system))
        system.run(500)
        assert log == [] and system.now == pytest.approx(500)
        system.run(3500)
        assert [(round(now), what) for now, what in log] == [
            (1000, "tick"), (2000, "tick"), (3000, "tick"), (3600, "late"), (4000, "tick"),
        ]  # fmt: skip
        with pytest.raises(es.Timeout):
            clock.ask(7, timeout=10.0)
        assert round(system.now) == 4010


class Silent:
    """Answers nobody, and wakes now and then."""

    def __init__(self, every: float) -> None:
        self.every = every

    def receive(self, ctx: es.Context, message: object) -> None:
        if isinstance(message, es.Started):
            ctx.schedule_every(self.every, "wake")
        elif message != "wake":
            self.kept = ctx.sender


@pytest.mark.parametrize("every", [0.4, 1.5, 60.0, 1e6])
def test_a_wait_ends_at_its_time_exactly(every: float) -> None:
    """Whatever is due later, and however long the machine took."""
    with System(1) as system:
        silent = system.spawn(lambda: Silent(every))
        bank = system.open()
        waits = [
            lambda: silent.ask("question", timeout=1.5),
            lambda: silent.submit("question").result(1.5),
            lambda: silent.wait_stopped(1.5),
            lambda: system.stream().get(1.5),
            lambda: bank.subscribe().next(1.5),
        ]
        for count, wait in enumerate(waits, 1):
            with pytest.raises(es.Timeout):
                wait()
            assert system.now == count * 1.5


def test_who_asks_with_a_timeout_in_an_actor_goes_on_at_its_time() -> None:
    class Asking:
        def __init__(self, target: es.Ref) -> None:
            self.target = target

        def receive(self, ctx: es.Context, message: object) -> None:
            if message == "ask":
                try:
                    self.target.ask("question", timeout=2.5)
                except es.Timeout:
                    ctx.respond(ctx.system.now)  # type: ignore[attr-defined]

    for seed in range(20):
        with System(seed) as system:
            silent = system.spawn(lambda: Silent(60.0))
            assert system.spawn(lambda s=silent: Asking(s)).ask("ask") == 2.5


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(-1, ValueError), (float("nan"), ValueError), ("x", TypeError), (True, TypeError)],
)
def test_a_time_to_run_that_cannot_be(seconds: Any, error: type[Exception]) -> None:
    with System() as system:
        with pytest.raises(error, match="seconds"):
            system.run(seconds)
        system.run(0)
        assert system.now == 0.0


def test_waiting_runs_the_actors() -> None:
    class Echo:
        def receive(self, ctx: es.Context, message: object) -> None:
            if isinstance(message, str):
                ctx.respond(message)

    with System() as system:
        echo = system.spawn(Echo, name="echo")
        assert echo.ask("a") == "a"
        assert echo.submit("b").result() == "b"
        stream = system.stream()
        echo.tell("c", sender=stream)
        assert stream.get(timeout=1) == "c"
        with pytest.raises(es.Timeout):
            stream.get(timeout=1)
        with pytest.raises(es.Unanswered):
            echo.submit(1).result()
        echo.poison()
        echo.wait_stopped()
        assert "seed 0" in repr(system)
    with pytest.raises(TypeError):
        System("7")  # type: ignore[arg-type]


def test_who_asks_inside_a_message_is_not_kept_by_the_askers_of_its_actor() -> None:
    class Echo:
        def receive(self, ctx: es.Context, message: object) -> None:
            if isinstance(message, int):
                ctx.respond(message)

    class Asking:
        def __init__(self, target: es.Ref, answers: list[int]) -> None:
            self.target = target
            self.answers = answers

        def receive(self, ctx: es.Context, message: object) -> None:
            if isinstance(message, int):
                self.answers.append(self.target.ask(message))
                ctx.respond(message)

    for seed in range(100):
        inner: list[int] = []
        outer: list[int] = []
        with System(seed) as system:
            echo = system.spawn(Echo)
            middle = system.spawn(lambda echo=echo, inner=inner: Asking(echo, inner))
            asking = system.spawn(lambda middle=middle, outer=outer: Asking(middle, outer))
            middle.tell(1)
            asking.tell(2)
            system.run()
        assert inner == [1, 2] and outer == [2]


def test_another_thread_sleeps_while_it_waits() -> None:
    handled: set[int] = set()

    class Echo:
        def receive(self, ctx: es.Context, message: object) -> None:
            if isinstance(message, int):
                handled.add(threading.get_ident())
                ctx.respond(message)

    for seed in range(20):
        with System(seed) as system:
            reply = system.spawn(Echo).submit(1)
            answers: list[int] = []
            thread = threading.Thread(target=lambda a=answers, r=reply: a.append(r.result()))
            thread.start()
            while thread.is_alive():
                system.run()
            assert answers == [1]
    assert handled == {threading.get_ident()}


class Counted(es.Event):
    amount: int


class Counter(es.PersistentActor):
    def __init__(self) -> None:
        self.total = 0

    def receive(self, ctx: es.Context, message: Any) -> None:
        match message:
            case int():
                self.persist(Counted(message))
                ctx.respond(self.total)
            case Counted(amount=amount):
                self.total += amount
            case "fail":
                raise ValueError("as asked")


def test_persistent_actors(tmp_path: Path) -> None:
    with es.Store(tmp_path / "actors.db", Counted) as store:
        props = es.Props(Counter, middleware=[es.persistence(store)])
        with System(1) as system:
            counters = [system.spawn(props, name=f"c{number}") for number in range(5)]
            replies = [counter.submit(2) for counter in counters for _ in range(3)]
            counters[0].tell("fail")
            system.run()
            assert [reply.result() for reply in replies] == [2, 4, 6] * 5
            assert counters[0].ask(1) == 7  # restarted from what is stored
        assert store.head == 16
        with System(2) as system:
            assert system.spawn(props, name="c4").ask(1) == 7


def test_names_hashes_and_rings_are_the_seeds() -> None:
    """Not those of the process, which has had other actors."""

    def history(seed: int) -> list[object]:
        seen: list[object] = []

        class Worker:
            def receive(self, ctx: es.Context, message: object) -> None:
                if isinstance(message, tuple):
                    seen.append((ctx.self.address, message))

        with System(seed) as system:
            ring = system.spawn(es.Props(Worker, router=es.consistent_hash(lambda key: key[0], 5)))
            several = {system.spawn(Worker) for _ in range(9)}
            for key in ("a", "b", b"c", 4, 5.5, None, ("d",)):
                ring.tell((key,))
            for number, ref in enumerate(several):
                ref.tell((number,))
            system.run()
        return seen

    first = history(3)
    assert len({str(what) for what in first}) == 16
    assert first == history(3)


def test_chance_is_the_seeds() -> None:
    """How long a backoff differs, and whom a random router chooses."""

    def history(seed: int) -> list[object]:
        seen: list[object] = []
        made = itertools.count()

        class Worker:
            def __init__(self) -> None:
                self.number = next(made)

            def receive(self, ctx: es.Context, message: object) -> None:
                if isinstance(message, es.Started):
                    seen.append((self.number, system.now))
                elif message == "fail":
                    raise LookupError
                elif message == "who":
                    seen.append(self.number)

        backoff = es.Backoff(first=1.0, factor=1.0, jitter=0.5)
        with System(seed, supervisor=es.OneForOne(backoff=backoff)) as system:
            worker = system.spawn(Worker)
            for _ in range(3):
                worker.tell("fail")
            pool = system.spawn(es.Props(Worker, router=es.random(8)))
            for _ in range(20):
                pool.tell("who")
            system.run()
        return seen

    assert all(history(seed) == history(seed) for seed in range(5))
    assert history(0) != history(1)


@pytest.mark.parametrize("where", ["decide", "receive"])
@pytest.mark.parametrize("how", ["run", "wait", "close"])
def test_ctrl_c_reaches_who_runs_the_system(where: str, how: str) -> None:
    """Where it meets what nobody waits for, and where it meets a supervisor."""

    class Broken:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "go":
                raise KeyboardInterrupt if where == "receive" else LookupError

    def decide(error: BaseException) -> es.Directive:
        if where == "decide":
            raise KeyboardInterrupt
        return es.restart

    class Greeter:
        def receive(self, ctx: es.Context, message: Any) -> None:
            ctx.respond("hello") if message == "greet" else None

    with System(seed=1, supervisor=es.OneForOne(decide)) as system:
        broken, greeter = system.spawn(Broken), system.spawn(Greeter)
        system.run()
        broken.tell("go")
        with pytest.raises(KeyboardInterrupt):
            {"run": system.run, "wait": broken.wait_stopped, "close": system.close}[how]()
        if how != "close":
            system.run()
            assert greeter.ask("greet") == "hello"
            assert broken.state == ("running" if where == "receive" else "stopped")
        if where == "receive" and how != "close":  # of a question: its asker gets it, and he alone
            with pytest.raises(KeyboardInterrupt):
                broken.ask("go")
            assert greeter.ask("greet") == "hello"
    assert broken.state == "stopped"


def test_an_actor_that_fails_for_ever_ends_with_its_system() -> None:
    class Broken:
        def __init__(self) -> None:
            raise LookupError("no")

        def receive(self, ctx: es.Context, message: Any) -> None:
            raise AssertionError("it has never begun")

    backoff = es.Backoff(first=60, limit=60)
    with System(seed=1, supervisor=es.OneForOne(backoff=backoff)) as system:
        ref = system.spawn(es.Props(Broken))
        reply = ref.submit("hello")
        with pytest.raises(es.Timeout):
            ref.wait_stopped(1)
        assert system.now == 1
    assert ref.state == "stopped"
    with pytest.raises(es.Error, match="no"):
        reply.result(0)
