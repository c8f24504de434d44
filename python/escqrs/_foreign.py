"""Read models in databases that are not the store's: another file, another server, another kind.

A thread of Python follows the store and hands the events to handlers in transactions that the class
begins and commits. Where the checkpoint is written in the same transaction as the rows, each event
counts exactly once, whatever happens.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from . import _deadline
from ._core import Recorded
from ._part import part_of
from ._projection import Projection, projections_of
from ._readmodel_status import ReadModelStatus
from ._store import claim_all, refuse_simulated
from ._upcast import plan_of
from .errors import Closed, Corrupt, ReadModelStopped, Timeout

if TYPE_CHECKING:
    from ._feed import Feed
    from ._system import System

__all__ = ["ForeignReadModel"]

_log = logging.getLogger("escqrs")


class ForeignReadModel:
    """Base of read models in a database of one's own choice.

    A subclass says with ``@es.on`` what events do, as an ``es.ReadModel`` does, and with four
    methods how its database is used::

        class Reports(es.ForeignReadModel):
            def checkpoint(self) -> int: ...                      # of the last event applied; 0
            def begin(self) -> Connection: ...                    # what handlers get as db
            def commit(self, db, before, position) -> None: ...   # move the checkpoint, commit
            def rollback(self, db) -> None: ...

            @es.on(ItemAdded)
            def added(self, db, event) -> None: ...

        with Reports().follow(shop) as reports:
            reports.wait()

    All is called on one thread, the follower's. Exactly once: where ``commit`` writes the position
    in the transaction of the rows. Where a database has no transactions, events may come again
    after a crash: ``checkpoint`` then is what was written last, and handlers that write under the
    event's position as key, or as often as they like, lose nothing by it.

    ``batch_events``: how many events a transaction has at most.
    """

    batch_events: ClassVar[int] = 1000
    __escqrs_handlers__: ClassVar[list[Projection]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__escqrs_handlers__ = projections_of(cls)
        for one in cls.__escqrs_handlers__:
            if one.function is None:
                raise TypeError(
                    f"{cls.__name__}.{one.name}: es.sql is for the store's own file; here events "
                    "are for @es.on methods"
                )

    def checkpoint(self) -> int:
        """The position of the last event that the database has seen; 0 for none."""
        raise NotImplementedError

    def begin(self) -> Any:
        """Begin a transaction; what handlers get as ``db``."""
        raise NotImplementedError

    def commit(self, db: Any, before: int, position: int) -> None:
        """Move the checkpoint from ``before`` to ``position`` and commit.

        If it is not at ``before``, somebody else follows with the same database: raise.
        """
        raise NotImplementedError

    def rollback(self, db: Any) -> None:
        """Take back what was done since ``begin``."""

    def follow(self, system: System) -> Follower:
        """Follow the store of an open system, on a thread, until ``close()``.

        Raises ``es.NameClash`` and ``es.SchemaMismatch`` where the classes of the handlers' events
        do not fit the store, as ``es.open`` does.
        """
        refuse_simulated(system.store, "a follower")
        handlers = self.__escqrs_handlers__
        claim_all(system.store, [one.event for one in handlers if one.event is not None])
        return Follower(self, system)


class Follower:
    """A foreign read model that follows a store; see :class:`ForeignReadModel`."""

    def __init__(self, model: ForeignReadModel, system: System) -> None:
        self.model = model
        self._system = system
        self._changed = threading.Condition()
        self._position = -1  # not known yet
        self._failure: BaseException | None = None
        self._failed_position = 0
        self._feed: Feed | None = None
        self._ends = False
        self._thread = threading.Thread(
            target=self._run, name=f"escqrs-{type(model).__name__}", daemon=True
        )
        self._thread.start()

    # ---- what others ask -------------------------------------------------------------------------

    @property
    def status(self) -> ReadModelStatus:
        """Where it stands now; ``lag_seconds`` and ``rate`` are not measured, and 0."""
        head = self._system.head
        with self._changed:
            position, failure = max(self._position, 0), self._failure
            level = position >= head
        if failure is None:
            return ReadModelStatus("live" if level else "catching up", position, head)
        text = "".join(traceback.format_exception(failure))
        at = self._failed_position or None
        return ReadModelStatus("stopped", position, head, str(failure), at, text, 1)

    def wait(self, position: int | None = None, timeout: float | None = None) -> None:
        """Wait until it has seen the event at ``position``, by default the newest there is now.

        Raises ``es.ReadModelStopped`` where it has stopped before, ``es.Timeout``, ``es.Closed``.
        """
        target = self._system.head if position is None else position
        until = _deadline.until(timeout)
        with self._changed:
            while self._position < target:
                if self._failure is not None:
                    raise ReadModelStopped(
                        f"foreign read model {type(self.model).__name__} stopped"
                        f" at position {self._failed_position}: {self._failure}"
                    ) from self._failure
                if self._ends:
                    raise Closed("the foreign read model no longer follows")
                left = _deadline.left(until)
                if left is not None and left <= 0:
                    raise Timeout(f"it is at {self._position}, not yet at {target}")
                self._changed.wait(left)

    def retry(self) -> None:
        """Go on after it has stopped; ValueError if it has not."""
        with self._changed:
            if self._failure is None or self._ends:
                raise ValueError("it has not stopped")
            self._failure = None
            self._failed_position = 0
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread after the transaction that it is in. Twice is once."""
        with self._changed:
            self._ends = True
            feed = self._feed
            self._changed.notify_all()
        if feed is not None:
            feed.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ends:
            try:
                self._follow()
            except BaseException as error:  # what a handler raises is its failure, whatever it is
                if self._ends or self._system.closed:
                    break
                self._stop(error)
        with self._changed:
            self._ends = True
            self._changed.notify_all()

    def _stop(self, error: BaseException) -> None:
        name = type(self.model).__name__
        _log.error("foreign read model %s has stopped; retry() goes on", name, exc_info=error)
        with self._changed:
            self._failure = error
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._failure is None or self._ends)

    def _follow(self) -> None:
        position, head = self.model.checkpoint(), self._system.head
        if not 0 <= position <= head:
            raise Corrupt(
                f"the database has seen event {position}, but the store ends at {head}: it belongs "
                "to another store, or to a later state of this one"
            )
        self._move(position)
        while not self._ends:
            head = self._system.head
            if position < head:
                position = self._apply(*self._next(position, head), position)
                self._move(position)
            else:
                self._sleep(position)

    def _next(self, position: int, head: int) -> tuple[list[Recorded], int]:
        """Further events, whole ones where upcasters have made several of one, and the position
        up to which these are all: some may have been dropped by upcasters."""
        is_plain = not plan_of(self._system.store).steps  # no position is left out
        batch: list[Recorded] = []
        last = position
        try:
            for recorded in self._system.events(after=position, upto=head):
                if is_plain and recorded.position != last + 1:
                    raise Corrupt(f"event {recorded.position} came where {last + 1} was to come")
                last = recorded.position
                batch.append(recorded)
                part, parts = part_of(recorded)
                if len(batch) >= self.model.batch_events and part == parts - 1:
                    return batch, last
            if is_plain and last != head:
                raise Corrupt(f"the events end at {last}, but the store at {head}")
        except Exception as error:
            if not batch:
                self._failed_position = getattr(error, "position", None) or 0
                raise
            return batch, last  # it comes again
        return batch, head

    def _move(self, position: int) -> None:
        with self._changed:
            self._position = position
            self._changed.notify_all()

    def _sleep(self, position: int) -> None:
        """Until there is a further event, or nobody wants it any more."""
        with self._system.subscribe(after=position) as feed:
            with self._changed:
                if self._ends:
                    return
                self._feed = feed
            try:
                next(iter(feed), None)
            finally:
                with self._changed:
                    self._feed = None

    def _apply(self, batch: list[Recorded], upto: int, before: int) -> int:
        """Apply the events in one transaction; those before one that fails are applied anyway."""
        failed: BaseException | None = None
        while True:
            db = self.model.begin()
            done = 0
            try:
                for recorded in batch:
                    self._hand_over(db, recorded)
                    done += 1
                self.model.commit(db, before, upto)
            except BaseException as error:
                self.model.rollback(db)
                if done == len(batch):
                    raise  # the commit itself
                failed = error
                at = self._failed_position = batch[done].position
                upto = at - 1
                if upto <= before:
                    raise
                batch = [one for one in batch[:done] if one.position < at]
                continue
            if failed is None:
                return upto
            self._move(upto)
            raise failed

    def _hand_over(self, db: Any, recorded: Recorded) -> None:
        for one in self.model.__escqrs_handlers__:
            if one.event is not None and one.event.__escqrs_name__ != recorded.type:
                continue
            if not set(one.tags) <= set(recorded.tags):
                continue
            function: Callable[..., Any] | None = one.function
            assert function is not None
            function(self.model, db, recorded if one.wants_recorded else recorded.event)
