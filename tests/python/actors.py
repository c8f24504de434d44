"""Actors that say what they get, for the tests of actors."""

from __future__ import annotations

import queue
from typing import Any

import escqrs as es
import support


class Echo:
    """Answers what it is asked; no base class is needed."""

    def receive(self, ctx: es.Context, message: Any) -> None:
        if isinstance(message, str):
            ctx.respond(message)


class Recorder(es.Actor):
    """Puts all it gets into a queue that the test reads."""

    def __init__(self, seen: queue.SimpleQueue[Any]) -> None:
        self.seen = seen

    def receive(self, ctx: es.Context, message: Any) -> None:
        self.seen.put(message)


class Call:
    """A message that is a function of the context."""

    def __init__(self, function: Any) -> None:
        self.function = function


class Doer(es.Actor):
    def receive(self, ctx: es.Context, message: Any) -> None:
        if isinstance(message, Call):
            ctx.respond(message.function(ctx))


def end(ref: es.Ref) -> None:
    ref.stop()
    ref.wait_stopped(timeout=support.SECONDS)


def get(seen: queue.SimpleQueue[Any]) -> Any:
    return seen.get(timeout=support.SECONDS)
