"""What a process does at once: the commit that follows from some inputs, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._message import Event
from ._process_record import (
    CommandRequested,
    Instance,
    ProcessEnded,
    TimerCancelled,
    TimerFired,
    TimerSet,
)

if TYPE_CHECKING:
    from ._core import Recorded
    from ._process_outbox import Entry
    from ._process_runner import Runner
    from ._process_timers import Timer


class Batch:
    """What goes into one commit."""

    def __init__(self) -> None:
        self.writes: dict[str, tuple[int, list[Event]]] = {}  # expected version, events
        self.touched: dict[str, Instance] = {}
        self.deliveries: list[Entry] = []
        self.timers: list[Timer] = []  # that are set
        self.unset: list[tuple[str, str]] = []
        self.inputs: list[Callable[[Batch], None]] = []  # to be done again if it cannot be stored
        self.after: list[Callable[[], None]] = []  # to be done once it is stored
        self.checkpoint: int | None = None
        self.resumes = False  # somebody has had the process go on

    def add(self, instance: Instance, event: Event) -> None:
        stream = instance.stream
        match event:
            case TimerSet(timer=name, due=due):
                self.timers.append((due, stream, name))
            case TimerCancelled(timer=name) | TimerFired(timer=name):
                self.unset.append((stream, name))
            case ProcessEnded():
                self.unset += [(stream, name) for name in instance.timers]
            case _:
                pass
        if stream not in self.writes:
            self.writes[stream] = (instance.version, [])
            self.touched[stream] = instance
        instance.fold(event)
        self.writes[stream][1].append(event)
        if isinstance(event, CommandRequested):
            self.deliveries.append((stream, instance.version, event))


class Several:
    """An event that has become several. What follows from it is a commit of its own: all of it or,
    where a method raises, nothing."""

    def __init__(self, runner: Runner, parts: list[Recorded]) -> None:
        self.runner = runner
        self.parts = parts

    def __call__(self, batch: Batch) -> None:
        for part in self.parts:
            self.runner.react(part, batch)


@dataclass
class Stop:
    """Where a process has stopped."""

    position: int
    stream: str | None
    timer: str
    error: BaseException
    request: int = 0
    part: int = 0
    cuts: bool = False  # the feed has ended there

    def text(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"


class Failure(Exception):
    """An input cannot be handled. is_theirs: code of the program has raised, whatever class of
    exception; else the store, which may be tried again."""

    def __init__(self, stop: Stop, is_theirs: bool) -> None:
        super().__init__(stop.text())
        self.stop = stop
        self.is_theirs = is_theirs


class Abandon(Exception):
    """The commit failed: begin again from what is stored."""
