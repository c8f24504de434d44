"""Correlation, causation and metadata of what is stored."""

from __future__ import annotations

import uuid

import escqrs as es
import pytest


class Note(es.Command[None]):
    text: str
    to: str = ""


class Noted(es.Event):
    text: str


class Pad(es.Aggregate, name="TracePad"):
    @es.handles
    def note(self, cmd: Note) -> None:
        self.emit(Noted(cmd.text))
        if cmd.to:
            self.system[Pad, cmd.to].tell(Note(cmd.text))

    @es.applies
    def noted(self, event: Noted) -> None:
        pass


@pytest.mark.parametrize(
    "given", ["order-42", "Ünï", str(uuid.uuid4()), str(uuid.uuid4()).upper(), "x" * 120, "0" * 16]
)
def test_a_correlation_id_comes_back_and_is_inherited(given: str) -> None:
    with es.open(":memory:", Pad) as system:
        system[Pad, "a"].ask(Note("hi", to="b"), correlation_id=given, metadata={"by": "ann"})
        system.flush()
        first, second = system.events()
        assert first.correlation_id == second.correlation_id == given
        assert first.causation_id != second.causation_id
        assert dict(first.metadata) == {"by": "ann"}
        assert dict(second.metadata) == {}


@pytest.mark.parametrize("given", ["", "x" * 121])
def test_a_correlation_id_that_cannot_be_kept_is_refused(given: str) -> None:
    with es.open(":memory:", Pad) as system:
        with pytest.raises(ValueError, match="correlation_id"):
            system[Pad, "a"].ask(Note("hi"), correlation_id=given)
        assert system.head == 0


def test_events_of_one_command_share_their_ids() -> None:
    with es.open(":memory:", Pad) as system:
        system[Pad, "a"].ask(Note("one"))
        system[Pad, "a"].ask(Note("two"))
        one, two = system.events()
        assert one.correlation_id != two.correlation_id
        assert one.id < two.id
