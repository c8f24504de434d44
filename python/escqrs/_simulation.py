"""Actors that run in a repeatable order: ``escqrs.testing.System`` and ``explore``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from ._actor import ActorSystem
from ._props import OneForOne

__all__ = ["System", "explore"]

_FOR_EVER = 1e9  # seconds


class System(ActorSystem):
    """An actor system for tests: one thread, an order that a seed decides, a clock that does not
    wait.

    Actors run only while the thread that made the system waits for something of theirs (``ask``,
    ``Reply.result``, ``Stream.get``, ``close``) or calls ``run``. Which one goes next is drawn from
    the seed, so the same seed gives the same order. Timers and timeouts go by ``now``, which moves
    to the next timer when nothing else is left to do; an answer that can no longer come is
    ``es.Timeout`` at once. Persistent actors commit before the next message is handled. Async
    actors need threads, and are refused.

    seed: any int.
    supervisor: as for ``es.ActorSystem``.
    """

    seed: int

    def __new__(cls, seed: int = 0, *, supervisor: OneForOne | None = None) -> Self:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed is an int, not {type(seed).__name__}")
        self = cls._make(supervisor, None, seed)
        self.seed = seed
        return self

    @property
    def now(self) -> float:
        """Seconds, from 0."""
        return self._now

    def run(self, seconds: float | None = None) -> None:
        """Let the actors run until nothing is left to do, or until so many seconds have passed."""
        until = _FOR_EVER if seconds is None else self.now + seconds
        while self._step(until):
            pass

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        raise TypeError("an async actor needs threads; es.ActorSystem has them, a seeded one not")

    def __repr__(self) -> str:
        return f"<escqrs.testing.System: seed {self.seed}, {super().__repr__()[1:-1]}>"


def explore(
    test: Callable[[System], object], seeds: int = 1000, *, supervisor: OneForOne | None = None
) -> None:
    """Run a test with many orders: ``test(system)`` with each seed from 0 to ``seeds - 1``.

    The first one that raises ends it: the exception has a note with the seed, and
    ``System(seed)`` repeats it.
    """
    for seed in range(seeds):
        try:
            with System(seed, supervisor=supervisor) as system:
                test(system)
        except BaseException as error:
            error.add_note(f"with seed {seed} of {seeds}; System({seed}) repeats it")
            raise
