"""The processes of a system: their instances as a program sees them, and what ``es.open`` does."""

from __future__ import annotations

import bisect
import concurrent.futures
import datetime
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from . import _core, _deadline
from ._message import Event
from ._process import Definition, Process
from ._process_control import resume, resume_instance
from ._process_record import CLASSES, Instance, Ledger
from ._process_runner import Clock, Runner
from ._query import check_position
from ._readmodel import ReadModel
from ._store import check_numbers
from .errors import (
    Closed,
    Deadlock,
    Forked,
    ProcessStopped,
    ReadOnly,
)

if TYPE_CHECKING:
    from ._system import System

__all__ = ["ManualClock", "ProcessInstance", "ProcessStatus", "Processes"]

_P = TypeVar("_P", bound="Process")
_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)  # where every seeded system begins


class ManualClock:
    """A clock for tests: it goes with the machine's and can be put forward.

    ``es.open(..., clock=clock)``; ``clock.advance(timedelta(hours=1))`` makes timers due at once.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[datetime.datetime, datetime.timedelta]] = []
        self._watchers: weakref.WeakSet[Runner] = weakref.WeakSet()

    def __call__(self) -> datetime.datetime:
        return self._at(utc_now())

    def _at(self, time: datetime.datetime) -> datetime.datetime:
        """What it showed at a time of the machine's, that of an event for instance."""
        done = bisect.bisect_right(self._steps, time, key=lambda step: step[0])
        return time + self._steps[done - 1][1] if done else time

    def advance(self, delay: datetime.timedelta) -> None:
        """Put it forward; it never goes back."""
        if not isinstance(delay, datetime.timedelta):
            raise TypeError(f"delay is a timedelta, not {type(delay).__name__}")
        if delay < datetime.timedelta():
            raise ValueError("a clock goes forward")
        before = self._steps[-1][1] if self._steps else datetime.timedelta()
        self._steps.append((utc_now(), before + delay))
        for one in list(self._watchers):
            one.poke()

    def _watch(self, runner: Runner) -> None:
        self._watchers.add(runner)


# ---- the instances of a class, as a program sees them --------------------------------------------


@dataclass(frozen=True)
class ProcessStatus:
    """Where a process stands.

    state: ``"live"``: it has seen all events; ``"catching up"``; ``"stopped"``: at an event, a
        timer or a command that it cannot take, see ``error``; ``"ended"``: the system is closed or
        read-only.
    position: of the last event that it has seen. head: of the last event of the store.
    active, failed, ended: instances. commands: in the outbox or under way. timers: set.
    error: what failed, or None; also what it tries again by itself. failed_position: where it has
        stopped, or None.
    """

    state: Literal["live", "catching up", "stopped", "ended"]
    position: int
    head: int
    active: int
    failed: int
    ended: int
    commands: int
    timers: int
    error: str | None = None
    failed_position: int | None = None

    @property
    def lag(self) -> int:
        """How many events it is behind, those that it does not react to included."""
        return max(0, self.head - self.position)


@dataclass(frozen=True)
class ProcessInstance:
    """One instance of a process.

    status: ``"active"``, ``"failed"``: a command was rejected and no method took that, see
        ``error``; ``"ended"``: by ``done()``.
    version: of its stream. state: an event with its fields. commands: those not answered yet, as
        ``(aggregate, id, command)`` names. timers: when they are due, by name. parked: positions of
        the events that it has not reacted to since it failed.
    """

    id: str
    status: Literal["active", "failed", "ended"]
    version: int
    state: Any
    commands: tuple[tuple[str, str, str], ...]
    timers: dict[str, datetime.datetime]
    parked: tuple[int, ...]
    error: str | None


class Processes(Generic[_P]):
    """The instances of a process class in a system: ``system[Fulfilment]``."""

    def __init__(
        self,
        system: System,
        definition: Definition,
        ledger: ReadModel,
        clock: Clock | None,
        simulation: _core.ActorSystemBase | None,
    ) -> None:
        self._system = weakref.ref(system)
        self._definition = definition
        self._ledger = cast("Ledger", ledger)
        self._runner: Runner | None = None
        if clock is not None:
            self._runner = Runner(system, definition, ledger, clock, simulation)

    @property
    def name(self) -> str:
        """The process's."""
        return self._definition.name

    @property
    def status(self) -> ProcessStatus:
        """Where it stands now."""
        system = self._opened()
        head = system.head
        counts = self._ledger.counts(self._definition.prefix)
        commands = len(self._ledger.commands(self._definition.prefix))
        timers = len(self._ledger.timers(self._definition.prefix))
        runner = self._runner
        if runner is None:
            position = system.store.checkpoint(self._definition.checkpoint) or 0
            return ProcessStatus("ended", position, head, *counts, commands, timers)
        with runner.lock:
            stop, looked, ended, trouble = runner.stop, runner.looked, runner.ended, runner.trouble
        state: Literal["live", "catching up", "stopped", "ended"]
        state = "stopped" if stop else "ended" if ended else "live"
        if state == "live" and looked < head:
            state = "catching up"
        return ProcessStatus(
            state,
            looked,
            head,
            *counts,
            commands,
            timers,
            error=stop.text() if stop else trouble,
            failed_position=stop.position if stop else None,
        )

    def instance(self, id: str) -> ProcessInstance | None:
        """The instance of that id, as it is stored; None if there is none."""
        _check_text("id", id)
        stream = self._definition.prefix + id
        found = Instance(self._definition, stream).load(self._opened().store)
        if found.status == "new":
            return None
        return ProcessInstance(
            id,
            found.status,
            found.version,
            found.state(),
            tuple((one.aggregate, one.id, one.command) for one in found.pending.values()),
            {name: one.due for name, one in found.timers.items()},
            tuple(position for position, _part in found.parked),
            found.error,
        )

    def instances(
        self,
        status: Literal["active", "failed", "ended"] | None = None,
        *,
        after: str = "",
        limit: int = 1_000,
    ) -> list[ProcessInstance]:
        """The instances by id, those of that status, those behind the id ``after``, at most
        ``limit``."""
        if status not in (None, "active", "failed", "ended"):
            raise ValueError(f'status is "active", "failed", "ended" or None, not {status!r}')
        _check_text("after", after)
        check_numbers(limit=limit)
        self._opened()
        rows = self._ledger.instances(self._definition.prefix, status, after, limit)
        found = [self.instance(stream.removeprefix(self._definition.prefix)) for (stream,) in rows]
        return [one for one in found if one is not None]

    def retry(self, id: str | None = None) -> None:
        """Go on where the process has stopped, with the same once more; or, given an id, with that
        instance, which has failed: its rejected commands are sent again. ValueError if it has
        not."""
        self._control(id, False, "")

    def skip(self, id: str | None = None, *, reason: str = "") -> None:
        """Go on where the process has stopped, without what it stopped at; or, given an id, with
        that instance, without the commands that were rejected. The reason is recorded. ValueError
        if it has not stopped or failed."""
        self._control(id, True, reason)

    def wait(self, position: int | None = None, timeout: float | None = None) -> None:
        """Wait until it has reacted to all events up to that position, by default the newest there
        is now, and all commands that it sent are answered.

        Raises ``es.ProcessStopped`` if it stops before, ``es.Timeout`` after ``timeout`` seconds,
        ``ValueError`` for a position that is negative or beyond 64 bits.
        """
        system = self._opened()
        if position is not None:
            check_position(position)
        until = _deadline.until(timeout, system.store._simulation)
        self._running().wait(system.head if position is None else position, until)

    def _control(self, id: str | None, skips: bool, reason: str) -> None:
        if id is not None:
            _check_text("id", id)
        _check_text("reason", reason)
        runner = self._running()
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        if id is None:
            resume(runner, done, skips, reason)
        else:
            resume_instance(runner, id, done, skips, reason)
        if runner.simulate(lambda: done.done() or runner.ended, None) is False:
            raise Deadlock(f"process {self.name} goes on when the handlers that wait have ended")
        while True:
            try:
                return done.result(timeout=1.0)
            except concurrent.futures.TimeoutError:
                if runner.ended:
                    raise Closed(f"process {self.name} has ended") from None

    def _opened(self) -> System:
        system = self._system()
        if system is None or system.closed:
            raise Closed(f"process {self.name} is part of no open system")
        if system._forked:
            raise Forked(f"process {self.name} belongs to the parent process")
        return system

    def _running(self) -> Runner:
        self._opened()
        if self._runner is None:
            raise ReadOnly(f"process {self.name} does not run: the system is read-only")
        if self._runner.is_here:
            raise Deadlock(f"process {self.name} cannot wait for itself")
        return self._runner

    def __repr__(self) -> str:
        return f"<escqrs.Processes {self.name!r}>"


def _check_text(what: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {type(value).__name__}")


# ---- for es.open ---------------------------------------------------------------------------------


def claims(definitions: Iterable[Definition]) -> list[type[Event]]:
    """The event classes that the engine stores for these."""
    states = [one.state for one in definitions]
    return [*CLASSES, *states] if states else []


def ledger_of(definitions: Iterable[Definition]) -> list[type[ReadModel]]:
    """The read models that these need."""
    return [Ledger] if list(definitions) else []


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def simulated_clock(simulation: _core.ActorSystemBase) -> Clock:
    """That by which a seeded system stores its events."""
    return lambda: _EPOCH + datetime.timedelta(microseconds=round(simulation._now * 1e6))


def attach(
    system: System,
    definitions: Iterable[Definition],
    clock: Clock | None,
    simulation: _core.ActorSystemBase | None,
) -> dict[type[Process], Processes[Any]]:
    """Begin to run the processes of a system that has just been opened."""
    found: dict[type[Process], Processes[Any]] = {}
    if simulation is not None:
        clock = simulated_clock(simulation)
    for definition in definitions:
        runs = None if system.readonly else clock or utc_now
        one = Processes[Any](system, definition, system[Ledger], runs, simulation)
        found[definition.cls] = one
    for one in found.values():
        runner = one._runner
        if runner is not None and isinstance(clock, ManualClock):
            clock._watch(runner)
        if runner is not None and runner.thread is not None:
            runner.thread.start()
    if simulation is not None and found:
        system._run_beside(tuple(one._runner for one in found.values()))
    return found


def flush(system: System, until: float | None) -> bool:
    """Wait until the processes have nothing to do; whether they have done something meanwhile."""
    runners = _runners(system)
    position = system.head
    before = [one.activity for one in runners]
    stopped: ProcessStopped | None = None
    for one in runners:
        try:
            one.wait(position, until)
        except ProcessStopped as error:
            stopped = stopped or error
    if before != [one.activity for one in runners]:
        return True
    if stopped is not None:
        raise stopped
    return False


def before_close(system: System, until: float | None) -> None:
    """End the runners: what they have sent is answered, and stored, if there is time."""
    runners = _runners(system)
    for one in runners:
        one.end()
    for one in runners:
        if one.thread is None:
            _end_simulated(one, until)
        elif not one.is_here and one.thread.ident is not None:
            one.thread.join(_deadline.left(until, system.store._simulation))
            one.leave()


def _end_simulated(runner: Runner, until: float | None) -> None:
    runner.simulate(lambda: runner.ended, until)
    runner.leave()
    runner.take_turn()


def _runners(system: System) -> list[Runner]:
    found = [one._runner for one in list(system._processes.values())]
    return [one for one in found if one is not None]


def is_runner(system: System) -> bool:
    """Whether this thread runs a process of the system."""
    return any(one.is_here for one in _runners(system))
