"""The durable subscriptions of a store: where each stands, and what can be done with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ._core import Recorded
from ._match import Match
from ._message import Event
from ._part import event_at
from ._subscription_group import group_of, registry_lock
from ._subscription_record import (
    REGISTRY,
    DeadLetterReleased,
    DeadLetterRemoved,
    Facts,
    Subscribed,
    SubscriptionGap,
    Unsubscribed,
    Wanted,
    claim_events,
    position_of,
    registered,
    stream_of,
    troubles_of,
)

if TYPE_CHECKING:
    from ._store import Store

__all__ = ["SubscriptionDeadLetter", "SubscriptionGap", "SubscriptionStatus"]


@dataclass(frozen=True)
class SubscriptionDeadLetter:
    """An event that a subscription has given up.

    recorded: the event; None where it has been deleted. attempts: how often it was delivered.
    error: why it was given up. released: it is to be delivered again.
    """

    recorded: Recorded | None
    attempts: int
    error: str
    released: bool = False


@dataclass(frozen=True)
class SubscriptionStatus:
    """Where a durable subscription stands, and what can be done with it.

    state: ``"live"``: it has consumers and nothing waits; ``"behind"``: it has consumers, and
        events wait for them; ``"idle"``: nobody consumes; ``"failed"``: the store could not be
        read, see ``error``.
    position: all up to it is acknowledged, durably. head: of the last event of the store.
    consumers: in this process. in_hand: events given to consumers and not acknowledged.
    dead_letter_count: events that were given up. error: what failed last, or None.
    """

    name: str
    state: Literal["live", "behind", "idle", "failed"]
    position: int
    head: int
    consumers: int
    in_hand: int
    dead_letter_count: int
    error: str | None
    match: tuple[Match, ...]
    _store: Store = field(repr=False, compare=False)

    @property
    def lag(self) -> int:
        """How many events lie behind its position, those that it does not want included."""
        return max(0, self.head - self.position)

    def reset(self, after: int = 0) -> None:
        """Begin again after that position; what it remembers of failures is forgotten.

        ValueError while it has consumers in this process.
        """
        from ._store import Write, _check_position

        _check_position("after", after)
        with registry_lock:
            facts = self._unused("reset")
            wanted = [Wanted(list(types), list(tags)) for types, tags in facts.wanted]
            event = Subscribed(self.name, facts.generation + 1, after, wanted)
            self._store.commit([Write(REGISTRY, [event])])

    def remove(self) -> None:
        """Forget it; a subscription of the same name begins anew. ValueError while it has
        consumers in this process."""
        from ._store import Write

        with registry_lock:
            facts = self._unused("removed")
            self._store.commit([Write(REGISTRY, [Unsubscribed(self.name, facts.generation)])])

    def dead_letters(self) -> list[SubscriptionDeadLetter]:
        """The events that were given up, oldest first."""
        facts = self._facts()
        dead = troubles_of(self._store, self.name, facts).dead
        return [
            SubscriptionDeadLetter(
                event_at(self._store, place), one.attempts, one.error, one.released
            )
            for place, one in sorted(dead.items(), key=lambda item: item[0])
        ]

    def gaps(self) -> list[SubscriptionGap]:
        """What ``skip_deleted()`` of its consumers has left out."""
        return troubles_of(self._store, self.name, self._facts()).gaps

    def retry(self, position: int) -> None:
        """Deliver a dead letter again: to a consumer there is, or to the next one. ValueError if
        there is none at that position."""
        self._settle_dead(position, None)

    def dismiss(self, position: int, reason: str) -> None:
        """Strike a dead letter off the list, for a reason that is recorded. ValueError if there is
        none at that position."""
        self._settle_dead(position, reason)

    def _settle_dead(self, position: int, reason: str | None) -> None:
        from ._store import Write

        with registry_lock:
            facts = self._facts()
            dead = troubles_of(self._store, self.name, facts).dead
            places = [place for place in dead if place[0] == position]
            if reason is None:
                places = [place for place in places if not dead[place].released]
            if not places:
                raise ValueError(f"subscription {self.name!r} has no dead letter at {position}")
            events: list[Event] = [
                DeadLetterReleased(facts.generation, *place)
                if reason is None
                else DeadLetterRemoved(facts.generation, *place, reason)
                for place in places
            ]
            self._store.commit([Write(stream_of(self.name), events)])
            group = group_of(self._store, self.name)
            if group is not None and reason is None:
                for place in places:
                    group.add_released(place, dead[place])

    def _facts(self) -> Facts:
        facts = registered(self._store).get(self.name)
        if facts is None or facts.removed:
            raise ValueError(f"there is no subscription named {self.name!r} any more")
        return facts

    def _unused(self, what: str) -> Facts:
        if group_of(self._store, self.name) is not None:
            raise ValueError(
                f"subscription {self.name!r} has consumers; close them before it is {what}"
            )
        return self._facts()


def statuses(store: Store) -> Iterator[SubscriptionStatus]:
    """Of all subscriptions of the store, by name."""
    claim_events(store)
    head = store.head
    for name, facts in sorted(registered(store).items()):
        if facts.removed:
            continue
        match = tuple(Match(types, tags) for types, tags in facts.wanted)
        group = group_of(store, name)
        if group is None:
            position = position_of(store, name, facts)
            dead = troubles_of(store, name, facts).dead
            yield SubscriptionStatus(
                name, "idle", position, head, 0, 0, len(dead), None, match, store
            )
            continue
        looked = group.error is not None or group.has_looked(head)
        with group.lock:
            failed = group.error is not None
            waits = bool(group.open) or not looked
            error = repr(group.error) if failed else group.last_error
            yield SubscriptionStatus(
                name,
                "failed" if failed else "behind" if waits else "live",
                group.saved,
                head,
                group.consumers,
                group.in_hand,
                len(group.dead),
                error,
                match,
                store,
            )
