"""Boxes into which one puts, for the tests of read models."""

from __future__ import annotations

import escqrs as es


class Put(es.Command[None]):
    key: str
    number: int = 0


class Was(es.Event):
    key: str
    number: int


class Box(es.Aggregate):
    @es.handles
    def put(self, cmd: Put) -> None:
        self.emit(Was(cmd.key, cmd.number))

    @es.applies
    def was(self, event: Was) -> None: ...
