"""A provider of one's own: a store of events that keeps them in Python lists.

It shows all that a provider has to do; ``escqrs.testing.ProviderSuite`` tells whether it does.

    python examples/provider.py
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal

import escqrs as es


class ListStore(es.Store):
    """One lock guards everything; what is stored is never changed, so readers copy references."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._journal: list[es.Recorded] = []
        self._by_stream: dict[str, list[es.Recorded]] = {}
        self._checkpoints: dict[str, int] = {}
        self._keys: dict[str, tuple[object, es.Commit]] = {}
        self._ids: set[str] = set()
        self._saved: dict[str, dict[int, es.Snapshot]] = {}
        self._ended = False

    # ---- writing

    def commit(
        self,
        writes: Iterable[es.Write],
        *,
        condition: es.Unless | None = None,
        checkpoint: tuple[str, int] | None = None,
        key: str | None = None,
    ) -> es.Commit:
        planned = [
            (write.stream, [self.new_event(event) for event in write.events], write.expected)
            for write in writes
        ]
        names = [write[0] for write in planned]
        names += [] if checkpoint is None else [checkpoint[0]]
        if key == "" or "" in names:
            raise ValueError("the name of a stream, a checkpoint or a key is not empty")
        with self._lock:
            self._check_open()
            content = [
                (stream, [(e.type, e.data, tuple(e.tags), e.id) for e in events])
                for stream, events, _expected in planned
            ]
            if key in self._keys:
                before, done = self._keys[key]
                if before != content:
                    raise es.KeyReused(f"key {key} was used for other events", key=key)
                return es.Commit(done.position, done.versions, repeated=True)
            self._check(planned, condition, checkpoint)
            done = self._store(planned)
            if checkpoint is not None:
                self._checkpoints[checkpoint[0]] = checkpoint[1]
            if key is not None:
                self._keys[key] = (content, done)
            return done

    def _check(
        self,
        planned: list[tuple[str, list[es.NewEvent], int | None]],
        condition: es.Unless | None,
        checkpoint: tuple[str, int] | None,
    ) -> None:
        versions: dict[str, int] = {}
        for stream, events, expected in planned:
            actual = versions.get(stream, self.version(stream))
            if expected is not None and expected != actual:
                raise es.WrongVersion(
                    f"stream {stream} is at version {actual}, not {expected}",
                    stream=stream,
                    expected=expected,
                    actual=actual,
                )
            versions[stream] = actual + len(events)
        if condition is not None:
            for found in self.events(after=condition.after, match=condition.match, limit=1):
                text = f"the event at position {found.position} matches the condition"
                raise es.ConditionFailed(text, position=found.position)
        ids = [e.id for _stream, events, _expected in planned for e in events if e.id is not None]
        if len(ids) != len(set(ids)) or not self._ids.isdisjoint(ids):
            raise es.KeyReused("an id is that of another event")
        if checkpoint is not None:
            name, position = checkpoint
            current = self._checkpoints.get(name, -1)
            if position <= current:
                text = f"checkpoint {name} is at {current} and does not move to {position}"
                raise es.CheckpointBehind(text, name=name, current=current, given=position)

    def _store(self, planned: list[tuple[str, list[es.NewEvent], int | None]]) -> es.Commit:
        now = datetime.now(UTC)
        if self._journal:
            now = max(now, self._journal[-1].time)
        cause = es.new_id()
        for stream, events, _expected in planned:
            for event in events:
                kept = self._by_stream.setdefault(stream, [])
                recorded = es.Recorded(
                    position=len(self._journal) + 1,
                    stream=stream,
                    version=len(kept) + 1,
                    type=event.type,
                    time=now,
                    id=event.id or es.new_id(),
                    data=event.data,
                    correlation_id=event.correlation_id or event.causation_id or cause,
                    causation_id=event.causation_id or cause,
                    metadata=event.metadata,
                    tags=event.tags,
                    store=self,
                )
                self._journal.append(recorded)
                kept.append(recorded)
                self._ids.add(recorded.id)
        return es.Commit(
            len(self._journal), {stream: self.version(stream) for stream, _e, _x in planned}
        )

    # ---- reading

    def history(
        self,
        stream: str,
        *,
        after: int = 0,
        upto: int | None = None,
        reverse: bool = False,
        limit: int | None = None,
        deleted: Literal["raise", "skip"] = "raise",  # it deletes nothing
    ) -> Iterator[es.Recorded]:
        with self._lock:
            self._check_open()
            found = self._by_stream.get(stream, [])[after:upto]
        return iter((found[::-1] if reverse else found)[:limit])

    def events(
        self,
        *,
        after: int = 0,
        upto: int | None = None,
        match: es.Match | Iterable[es.Match] = (),
        reverse: bool = False,
        limit: int | None = None,
        deleted: Literal["raise", "skip"] = "raise",  # it deletes nothing
    ) -> Iterator[es.Recorded]:
        several = [match] if isinstance(match, es.Match) else list(match)
        with self._lock:
            self._check_open()
            found = self._journal[after:upto]
        if several:
            found = [recorded for recorded in found if any(_fits(m, recorded) for m in several)]
        return iter((found[::-1] if reverse else found)[:limit])

    def version(self, stream: str) -> int:
        with self._lock:
            self._check_open()
            return len(self._by_stream.get(stream, []))

    @property
    def head(self) -> int:
        with self._lock:
            self._check_open()
            return len(self._journal)

    def checkpoint(self, name: str) -> int | None:
        with self._lock:
            self._check_open()
            return self._checkpoints.get(name)

    # ---- snapshots

    def save_snapshot(self, stream: str, version: int, type: str, data: bytes) -> None:
        with self._lock:
            if not 1 <= version <= self.version(stream):
                raise ValueError(f"stream {stream} has no version {version}")
            kept = self._saved.setdefault(stream, {})
            kept[version] = es.Snapshot(stream, version, type, bytes(data))

    def snapshot(self, stream: str, *, upto: int | None = None) -> es.Snapshot | None:
        with self._lock:
            self._check_open()
            kept = self._saved.get(stream, {})
            versions = [version for version in kept if upto is None or version <= upto]
            return kept[max(versions)] if versions else None

    def delete_snapshots(self, stream: str, *, upto: int | None = None) -> None:
        with self._lock:
            self._check_open()
            kept = self._saved.get(stream, {})
            for version in [one for one in kept if upto is None or one <= upto]:
                del kept[version]

    def restart(self) -> None:
        """Begin anew: it has nothing to forget, as what it keeps is what it knows."""
        self._check_open()

    def close(self) -> None:
        with self._lock:
            self._ended = True

    def _check_open(self) -> None:
        if self._ended:
            raise es.Closed("the store is closed")


def _fits(match: es.Match, recorded: es.Recorded) -> bool:
    fits = not match.types or recorded.type in match.types
    return fits and set(match.tags) <= set(recorded.tags)


class Noted(es.Event):
    text: str


def main() -> None:
    with ListStore() as store:
        store.append("notes", [Noted("kept in a list")], expected=0)
        try:
            store.append("notes", [Noted("too late")], expected=0)
        except es.WrongVersion as error:
            print("refused:", error)
        for recorded in store.events():
            print(recorded.position, recorded.stream, recorded.event)
        print(store.verify())


if __name__ == "__main__":
    main()
