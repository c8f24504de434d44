"""What is stored of durable subscriptions: events and a checkpoint, so that they work on every
store.

- ``escqrs.subscriptions`` (a stream): which there are, and where each began;
- ``escqrs.subscription/{name}`` (a stream): failures, dead letters and what became of them;
- ``escqrs.subscription/{name}/acknowledged`` (a stream): what was acknowledged beyond the lowest
  event that is not, where consumers were out of step;
- a checkpoint, up to which all is acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._message import Event, Message
from ._part import Place

if TYPE_CHECKING:
    from ._store import Store

REGISTRY = "escqrs.subscriptions"


# ---- events --------------------------------------------------------------------------------------


class Wanted(Message, name="escqrs.Wanted"):
    types: list[str]
    tags: list[str]


class Subscribed(Event, name="escqrs.Subscribed"):
    """A subscription begins, begins again (another generation), or wants other events."""

    subscription: str
    generation: int
    after: int
    wanted: list[Wanted]


class Unsubscribed(Event, name="escqrs.Unsubscribed"):
    subscription: str
    generation: int


class DeliveryFailed(Event, name="escqrs.DeliveryFailed"):
    """part: of the events that an upcaster has made of the one at the position; mostly 0."""

    generation: int
    position: int
    attempts: int
    error: str
    part: int


class DeliveryDeadLettered(Event, name="escqrs.DeliveryDeadLettered"):
    generation: int
    position: int
    attempts: int
    error: str
    part: int


class DeadLetterReleased(Event, name="escqrs.DeadLetterReleased"):
    """A dead letter is to be delivered again."""

    generation: int
    position: int
    part: int


class DeadLetterRemoved(Event, name="escqrs.DeadLetterRemoved"):
    """A dead letter was acknowledged after all, or dismissed."""

    generation: int
    position: int
    part: int
    reason: str


class DeletedLeftOut(Event, name="escqrs.DeletedLeftOut"):
    """It was told to go on behind events that were deleted before it had read them: those after
    the one position, up to the other."""

    generation: int
    after: int
    upto: int
    reason: str


class ConsumptionBegan(Event, name="escqrs.ConsumptionBegan"):
    """Consumers that count attempts have begun; without the next one behind it, they died."""

    generation: int


class ConsumptionRested(Event, name="escqrs.ConsumptionRested"):
    generation: int


class Acknowledged(Event, name="escqrs.Acknowledged"):
    generation: int
    positions: list[int]


_CLASSES: tuple[type[Event], ...] = (
    Subscribed,
    Unsubscribed,
    DeliveryFailed,
    DeliveryDeadLettered,
    DeadLetterReleased,
    DeadLetterRemoved,
    DeletedLeftOut,
    ConsumptionBegan,
    ConsumptionRested,
    Acknowledged,
)


# ---- what they say -------------------------------------------------------------------------------


@dataclass
class Facts:
    """What the registry says of one subscription."""

    generation: int
    after: int
    wanted: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    removed: bool


@dataclass
class Dead:
    """A dead letter, or an event that has failed so far."""

    attempts: int
    error: str
    released: bool = False


def claim_events(store: Store) -> None:
    from ._store import claim

    for cls in _CLASSES:
        claim(store, cls)


def registered(store: Store) -> dict[str, Facts]:
    found: dict[str, Facts] = {}
    for recorded in store.history(REGISTRY):
        event = recorded.event
        if isinstance(event, Subscribed):
            wanted = tuple((tuple(one.types), tuple(one.tags)) for one in event.wanted)
            found[event.subscription] = Facts(event.generation, event.after, wanted, False)
        elif isinstance(event, Unsubscribed):
            found[event.subscription].removed = True
    return found


def stream_of(name: str) -> str:
    return f"escqrs.subscription/{name}"


def checkpoint_of(name: str, generation: int) -> str:
    return f"escqrs.subscription/{name}/{generation}"


def position_of(store: Store, name: str, facts: Facts) -> int:
    stored = store.checkpoint(checkpoint_of(name, facts.generation))
    return facts.after if stored is None else stored


@dataclass(frozen=True)
class SubscriptionGap:
    """Events that a subscription was told to leave out, as they were deleted before it read them:
    those after the position ``after`` up to ``upto``, whichever of them it would have wanted.
    reason: as it was given."""

    after: int
    upto: int
    reason: str


@dataclass
class Troubles:
    dead: dict[Place, Dead]
    failed: dict[Place, Dead]  # and not given up
    gaps: list[SubscriptionGap]
    died: bool = False  # consumers that count attempts did not come to rest


def troubles_of(store: Store, name: str, facts: Facts) -> Troubles:
    dead: dict[Place, Dead] = {}
    failed: dict[Place, Dead] = {}
    found = Troubles(dead, failed, [])
    for recorded in store.history(stream_of(name)):
        event = recorded.event
        if getattr(event, "generation", None) != facts.generation:
            continue
        if isinstance(event, DeliveryFailed):
            failed[event.position, event.part] = Dead(event.attempts, event.error)
        elif isinstance(event, DeliveryDeadLettered):
            failed.pop((event.position, event.part), None)
            dead[event.position, event.part] = Dead(event.attempts, event.error)
        elif isinstance(event, DeadLetterReleased):
            dead[event.position, event.part].released = True
        elif isinstance(event, DeadLetterRemoved):
            dead.pop((event.position, event.part), None)
        elif isinstance(event, DeletedLeftOut):
            found.gaps.append(SubscriptionGap(event.after, event.upto, event.reason))
        elif isinstance(event, (ConsumptionBegan, ConsumptionRested)):
            found.died = isinstance(event, ConsumptionBegan)
    return found
