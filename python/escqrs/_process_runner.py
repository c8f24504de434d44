"""What runs the instances of one process class: a thread, or the steps of a seeded system.

It takes events from a feed, replies to its commands and timers that are due, one at a time, and
sleeps on two descriptors otherwise. What it commits it delivers: commands are submitted with a key
that follows from their event's place, so that one which is delivered again, after a crash, is not
carried out again.

A runner's ``lock`` guards what other threads read and write; it is a leaf.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import functools
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import _core, _deadline
from ._aggregate import describe
from ._core import Recorded
from ._feed import CoreFeed, core_feed
from ._log import logger
from ._match import Match
from ._message import Command, Event
from ._part import event_at, is_last_of, part_of
from ._process import Definition, Step, unpack_command
from ._process_batch import Abandon, Batch, Failure, Several, Stop
from ._process_outbox import BACKOFF_MAX, Entry, Outbox
from ._process_record import (
    CommandDelivered,
    CommandRejected,
    CommandRequested,
    EventParked,
    EventUnparked,
    Instance,
    ProcessEnded,
    ProcessFailed,
    ProcessStarted,
    TimerFired,
)
from ._process_timers import Timers
from .errors import (
    Aborted,
    Closed,
    Deleted,
    Error,
    MailboxFull,
    ProcessStopped,
    ReadModelStopped,
    StorageError,
    Timeout,
    UnknownType,
)

if TYPE_CHECKING:
    from ._process_record import Ledger
    from ._readmodel import ReadModel
    from ._system import System

_BATCH = 256  # inputs that go into one commit
_KEPT = 10_000  # instances that are kept in memory
_SAVE_EVENTS = 10_000  # events that nobody wanted, after which the position is stored all the same
_LOOK_SECONDS = 60.0  # while timers are set: the clock may have been set, or the machine have slept
_TRANSIENT = (Aborted, Closed, MailboxFull, MemoryError, StorageError, Timeout)

Clock = Callable[..., datetime.datetime]
_R = TypeVar("_R")


class Bell:
    """A descriptor that wakes the thread, open for as long as anybody can ring it."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # at exit systems that are open are closed first, which takes the thread
        weakref.finalize(self, os.close, self.descriptor).atexit = False

    def ring(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def hush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)


class Runner:
    """Runs the instances of one class."""

    def __init__(
        self,
        system: System,
        definition: Definition,
        ledger: ReadModel,
        clock: Clock,
        simulation: _core.ActorSystemBase | None = None,
    ) -> None:
        self.simulation = simulation
        # in seconds, for what is tried again
        self.now = time.monotonic if simulation is None else lambda: simulation._now
        bell = self.bell = Bell()
        # when it is dropped, on a thread that may hold any lock
        self.system = weakref.ref(system, lambda _: bell.ring())
        self.store = system.store
        self.definition = definition
        self.ledger = cast("Ledger", ledger)
        self.clock = clock
        self.lock = threading.Condition(threading.Lock())
        # `lock`
        self.inbox: collections.deque[Callable[[Batch], None]] = collections.deque()
        self.settled = -1  # nothing is under way, and all up to that position was seen
        self.activity = 0  # commits with events
        self.stop: Stop | None = None
        self.trouble: str | None = None  # what keeps it from going on; it tries again by itself
        self.ending = False
        self.leaving = False  # without waiting for replies
        self.ended = False
        self.looked = 0
        # the thread's
        self.feed: CoreFeed | None = None
        self.saved = 0
        self.instances: collections.OrderedDict[str, Instance] = collections.OrderedDict()
        self.timers = Timers()
        self.outbox = Outbox(definition.cls.__escqrs_in_flight__, self.now)
        self.again: collections.deque[Callable[[Batch], None]] = collections.deque()
        self.stopped: Callable[[Batch], None] | None = None  # what `stop` is about
        self.generation = -1  # of the classes in `commands`
        self.commands: dict[tuple[str, str], type[Command[Any]]] = {}  # by aggregate and command
        self.calling = False  # code of the program runs, or has raised
        self.held = 0.0  # by now(): no commit before
        self.failures = 0  # commits, in a row
        self.thread: threading.Thread | None = None
        self.stepping = 0  # the thread that is in take_turn()
        if simulation is None:
            name = f"escqrs-{definition.name}"
            self.thread = threading.Thread(target=self.run, name=name, daemon=True)

    @property
    def is_here(self) -> bool:
        """Whether this thread is in it."""
        current = threading.current_thread()
        return current is self.thread or current.ident == self.stepping

    # ---- from other threads

    def poke(self) -> None:
        with self.lock:
            self.settled = -1
            self.bell.ring()

    def put(self, item: Callable[[Batch], None]) -> None:
        with self.lock:
            self.settled = -1
            self.inbox.append(item)
            self.bell.ring()

    def wait(self, position: int, until: float | None) -> None:
        """Until all up to the position is done, with what it caused."""

        def is_over() -> bool:
            return self.stop is not None or self.ended or self.settled >= position

        rests = self.simulate(is_over, until) is False
        with self.lock:
            while not is_over():
                left = _deadline.left(until, self.simulation)
                if rests or (left is not None and left <= 0):
                    raise Timeout(f"process {self.definition.name} is still at {self.looked:,}")
                self.lock.wait(left)
            stop, settled = self.stop, self.settled
        if stop is not None:
            raise ProcessStopped(
                f"process {self.definition.name} has stopped at position {stop.position}: "
                f"{stop.text()}",
                name=self.definition.name,
                position=stop.position,
            ) from stop.error
        if settled < position:
            raise Closed(f"process {self.definition.name} has ended")

    def simulate(self, is_over: Callable[[], bool], until: float | None) -> bool | None:
        """Run a seeded system until then: False where nothing is left to do before; None where no
        seeded system runs it, or another thread does."""
        if self.simulation is None:
            return None
        return self.simulation._wait(is_over, _deadline.left(until, self.simulation))

    def end(self) -> None:
        """Tell it to end: it waits for replies to what it has sent, and stores them."""
        with self.lock:
            self.ending = True
        self.poke()

    def leave(self) -> None:
        with self.lock:
            self.leaving = True
        self.poke()

    # ---- the thread

    def run(self) -> None:
        try:
            while (busy := self.go_on()) is not None:
                if not busy:
                    self.sleep()
        except BaseException as error:
            self.break_off(error)
        finally:
            self.finish()

    def take_turn(self) -> bool:
        """In place of the thread: one turn. Whether that has changed anything."""
        if self.ended or self.stepping:
            return False
        before = self.settled
        self.stepping = threading.get_ident()
        try:
            busy = self.go_on()
        except BaseException as error:
            self.break_off(error)
            busy = None
        finally:
            self.stepping = 0
        if busy is None:
            self.finish()
            return True
        if busy:
            self.settled = -1
        else:
            self.note_settled(self.due_in())
        return busy or self.settled != before

    def break_off(self, error: BaseException) -> None:
        if isinstance(error, Closed) and self.store.closed:
            return
        logger.error("process %s has ended", self.definition.name, exc_info=error)
        with self.lock:
            self.stop = self.stop or Stop(self.looked, None, "", error)

    def finish(self) -> None:
        if self.feed is not None:
            with contextlib.suppress(Error):
                self.feed.close()
        with self.lock:
            self.ended = True
            self.lock.notify_all()

    def begin(self) -> None:
        """Recover, or stop: then retry() does it once more."""
        try:
            self.recover()
        except Closed:
            raise
        except Exception as error:
            position = getattr(error, "position", None) or self.looked
            self.halt(Stop(position, None, "", error))

    def recover(self) -> None:
        """What is pending, and where to go on."""
        definition = self.definition
        for several in (self.instances, self.again):
            several.clear()
        stored = self.store.checkpoint(definition.checkpoint)
        if stored is None:
            stored = 0
            if definition.cls.__escqrs_start__ == "head":
                # also 0: what comes before the first commit is not the next start's to leave out
                stored = self.store.head
                self.store.set_checkpoint(definition.checkpoint, stored)
        self.saved = self.looked = stored
        self.level()
        self.outbox.load(self.undelivered())
        self.timers.load(
            (datetime.datetime.fromisoformat(due), stream, name)
            for due, stream, name in self.ledger.timers(definition.prefix)
        )
        for stream, *place in self.ledger.untaken(definition.prefix):
            self.again.append(functools.partial(self.take_parked, stream, tuple(place)))
        self.follow()

    def undelivered(self) -> Iterable[Entry]:
        for stream, version in self.ledger.commands(self.definition.prefix):
            instance = self.instance(stream)
            if version in instance.pending and version not in instance.failures:
                yield stream, version, instance.pending[version]

    def level(self) -> None:
        """Wait for the ledger. Deleted events are no loss to it: with the stream of an instance
        goes all that it has to say of it."""
        while True:
            try:
                return self.ledger.wait()
            except ReadModelStopped as error:
                if not self.is_deleted(error.position or 0):
                    raise
                with contextlib.suppress(ValueError):  # another runner was first
                    self.ledger.skip()

    def is_deleted(self, position: int) -> bool:
        try:
            list(self.store.events(after=position - 1, upto=position))
        except Deleted:
            return True
        except Exception:  # an upcaster's
            return False
        return False

    def follow(self) -> None:
        if self.feed is not None:
            self.feed.close()
        match = Match(list(self.definition.reactions))
        self.feed = core_feed(self.store, self.saved, match)

    def go_on(self) -> bool | None:
        """One turn: whether there was something to do; None at the end."""
        system = self.system()
        with self.lock:
            ending = self.ending or system is None
            waits = self.outbox.in_flight or self.inbox or (self.again and self.stop is None)
            leaves = self.leaving or system is None or (ending and not waits)
        if self.feed is None and self.stop is None and not leaves:
            self.begin()
        if leaves:
            if not self.store.closed and self.stop is None:
                self.save_position()
            return None
        assert system is not None
        busy = False
        if self.now() >= self.held:
            try:
                busy = self.turn(ending)
            except Abandon:
                busy = True
        if not ending and self.feed is not None:
            busy = self.deliver(system) or busy
        return busy

    def note_settled(self, until: float | None) -> None:
        with self.lock:
            quiet = self.outbox.is_empty and not (self.inbox or self.again)
            self.settled = self.looked if quiet and until != 0 else -1
            self.lock.notify_all()

    def sleep(self) -> None:
        """Until there is something to do."""
        ending = self.ending
        until = self.due_in()
        poll = select.poll()
        poll.register(self.bell.descriptor, select.POLLIN)
        held = self.now() < self.held
        takes = not (ending or held or self.stop) and self.outbox.has_room and until != 0
        feed = self.feed if takes else None
        if feed is not None:
            poll.register(feed._arm(), select.POLLIN)
        self.note_settled(until)
        try:
            poll.poll(None if until is None else max(0, int(until * 1000) + 1))
        finally:
            if feed is not None:
                feed._disarm()
            with self.lock:
                self.settled = -1
            self.bell.hush()

    def due_in(self) -> float | None:
        """Seconds until there is something to do, whatever happens."""
        found: float | None = None
        now = self.now()
        if self.held > now:
            return self.held - now
        retry_at, next_due = self.outbox.retry_at(), self.timers.next_due()
        if retry_at is not None:
            found = max(0.0, retry_at - now)
        if next_due is not None and self.stop is None and not self.ending:
            left = max(0.0, (next_due - self.clock()).total_seconds())
            if self.simulation is None:
                left = min(left, _LOOK_SECONDS)
            found = left if found is None else min(found, left)
        return found

    def turn(self, ending: bool) -> bool:
        """Take what there is, and store what follows; whether there was something."""
        batch = Batch()
        done = 0
        for item in self.inputs(ending):
            if done > 0 and isinstance(item, Several):
                self.again.appendleft(item)
                break
            done += 1
            self.calling = False
            try:
                item(batch)
            except Exception as error:
                batch = self.fail(batch, item, error)
                break
            batch.inputs.append(item)
            if done >= _BATCH or isinstance(item, Several):
                break
        self.commit(batch)
        return done > 0

    def inputs(self, ending: bool) -> Iterable[Callable[[Batch], None]]:
        """One after another what there is to do."""
        while True:
            with self.lock:
                item = self.inbox.popleft() if self.inbox else None
            if item is not None:
                yield item
            elif self.stop is not None:
                return
            elif self.again:
                yield self.again.popleft()
            elif ending:
                return
            elif (due := self.timers.next_due()) is not None and due <= self.clock():
                yield functools.partial(self.fire, self.timers.take())
            elif self.outbox.has_room and (recorded := self.next_event()) is not None:
                yield self.whole(recorded)
            else:
                return

    def time_of(self, recorded: Recorded) -> datetime.datetime:
        shown: Clock | None = getattr(self.clock, "_at", None)  # a clock that was put forward
        return recorded.time if shown is None else shown(recorded.time)

    def whole(self, recorded: Recorded) -> Callable[[Batch], None]:
        """What to do with an event that the feed has given, with all its parts that are wanted."""
        assert self.feed is not None
        parts = [recorded]
        while not is_last_of(self.feed, parts[-1]):
            further = self.feed._poll()
            if further is None:
                break
            parts.append(further)
        return functools.partial(self.react, recorded) if len(parts) == 1 else Several(self, parts)

    def next_event(self) -> Recorded | None:
        assert self.feed is not None
        try:
            recorded = self.feed._poll()
        except Exception as error:  # it may be told to try again, or to go on behind that
            if isinstance(error, Closed) and (self.feed.closed or self.store.closed):
                raise
            position = getattr(error, "position", None) or self.unreadable()
            self.halt(Stop(position, None, "", error, cuts=True))
            return None
        if recorded is None:
            self.looked = max(self.looked, self.feed._looked)
        return recorded

    def unreadable(self) -> int:
        """The position at which the feed has raised, where the exception does not say it: that of
        an upcaster."""
        assert self.feed is not None
        position = self.feed.position
        with contextlib.suppress(Exception):
            for recorded in self.store.events(after=position):
                position = recorded.position
        return position + 1

    def fail(self, batch: Batch, item: Callable[[Batch], None], error: Exception) -> Batch:
        """An input cannot be handled: what was done before it, which is to be stored, and then the
        process stops there."""
        if not isinstance(error, Failure):
            batch.inputs.append(item)
            self.abandon(batch, error)
            raise Abandon from error
        stop = error.stop
        if not error.is_theirs and isinstance(stop.error, (Closed, StorageError, MemoryError)):
            batch.inputs.append(item)
            if stop.stream is not None:
                self.instances.pop(stop.stream, None)
            self.abandon(batch, stop.error)
            raise Abandon from stop.error
        if isinstance(item, Several):
            for stream in batch.touched:
                self.instances.pop(stream, None)
            batch = Batch()
        batch.inputs.append(item)  # should the commit of what came before it fail

        def halt() -> None:
            if stop.stream is not None:  # what the method did to the fields goes with the instance
                self.instances.pop(stop.stream, None)
            self.stopped = item
            self.halt(stop)

        batch.after.append(halt)
        return batch

    def halt(self, stop: Stop) -> None:
        logger.error(
            "process %s has stopped at position %d",
            self.definition.name,
            stop.position,
            exc_info=stop.error,
        )
        with self.lock:
            self.stop = stop
            self.lock.notify_all()

    def commit(self, batch: Batch) -> None:
        from ._store import Write

        position = batch.checkpoint
        due = position is not None and (batch.writes or position - self.saved >= _SAVE_EVENTS)
        if batch.writes or due:
            writes = [
                Write(stream, events, expected)
                for stream, (expected, events) in batch.writes.items()
                if events
            ]
            moved = position is not None and position > self.saved
            try:
                self.store.commit(
                    writes,
                    checkpoint=(self.definition.checkpoint, position or 0) if moved else None,
                )
            except Exception as error:
                self.abandon(batch, error)
                raise Abandon from error
            if moved:
                self.saved = position or 0
        self.failures = 0
        self.outbox.add(batch.deliveries)
        self.keep_timers(batch)
        if position is not None:
            self.looked = max(self.looked, position)
        for function in batch.after:
            function()
        with self.lock:
            self.trouble = None
            self.activity += bool(batch.writes)
        while len(self.instances) > _KEPT:
            self.instances.popitem(last=False)

    def keep_timers(self, batch: Batch) -> None:
        """Those that were set and not taken back in the same batch come last."""
        for stream, name in batch.unset:
            self.timers.unset(stream, name)
        for timer in batch.timers:
            due, stream, name = timer
            instance = self.instances.get(stream)
            one = None if instance is None else instance.timers.get(name)
            if one is not None and one.due == due:
                self.timers.set(timer)
        self.timers.compact()

    def abandon(self, batch: Batch, error: BaseException) -> None:
        """Nothing of the batch is stored: forget it, and do it again a little later."""
        if isinstance(error, Closed) and self.store.closed:
            raise error
        for stream in batch.touched:
            self.instances.pop(stream, None)
        self.again.extendleft(reversed(batch.inputs))
        self.failures += 1
        self.held = self.now() + min(BACKOFF_MAX, 0.1 * 2.0 ** min(self.failures - 1, 30))
        logger.error("process %s could not store what it did", self.definition.name, exc_info=error)
        with self.lock:
            self.trouble = f"{type(error).__name__}: {error}"

    def save_position(self) -> None:
        if self.looked > self.saved and not self.again and not self.inbox:
            self.store.set_checkpoint(self.definition.checkpoint, self.looked)
            self.saved = self.looked

    def instance(self, stream: str) -> Instance:
        found = self.instances.get(stream)
        if found is None:
            found = Instance(self.definition, stream)
            if self.store.deleted(stream):
                found.status = "ended"
            else:
                found.load(self.store)
            self.instances[stream] = found
        else:
            self.instances.move_to_end(stream)
        return found

    # ---- inputs

    def call(self, function: Callable[..., _R], *arguments: Any) -> _R:
        """Code of the program: what it raises is its failure."""
        self.calling = True
        result = function(*arguments)
        self.calling = False
        return result

    def react(self, recorded: Recorded, batch: Batch) -> None:
        self.react_to(recorded, batch)
        batch.checkpoint = recorded.position

    def react_to(self, recorded: Recorded, batch: Batch, *first: Event) -> None:
        """first: what is stored before; given for an event that was parked."""
        definition = self.definition
        if recorded.type not in definition.reactions:
            return  # an upcaster has made another of it
        function, reaction = definition.reactions[recorded.type]
        stream: str | None = None
        part, _ = part_of(recorded)
        try:
            id: str | None = self.call(definition.whose, recorded, reaction)
            if id is None:
                return
            stream = definition.prefix + id
            instance = self.instance(stream)
            if instance.status == "ended":
                return
            if instance.status == "new" and definition.members.any_starts and not reaction.starts:
                return
            if instance.status == "failed" or (instance.parked and not first):
                batch.add(instance, EventParked(recorded.position, part))
                if instance.status != "failed":  # behind those that are about to be taken
                    place = (recorded.position, part)
                    batch.after.append(lambda: self.put_parked(instance.stream, [place]))
                return
            arguments: tuple[Any, ...] = (self.call(getattr, recorded, "event"),)
            if reaction.takes_recorded:
                arguments += (recorded,)
            now = self.time_of(recorded)
            step = Step(instance, now, recorded.position, recorded.correlation_id)
            self.step(instance, step, function, arguments, batch, *first)
        except Exception as error:
            stop = Stop(recorded.position, stream, "", error, 0, part)
            raise Failure(stop, self.calling) from error

    def fire(self, due: tuple[datetime.datetime, str, str], batch: Batch) -> None:
        when, stream, name = due
        instance = self.instance(stream)
        one = instance.timers.get(name)
        if one is None or one.due != when or instance.status == "failed":
            return  # cancelled, set anew, or fired already; a failed one waits until it goes on
        fired = TimerFired(name)
        now = max(self.clock(), when)
        step = Step(instance, now, one.cause, one.correlation_id)
        try:
            if one.command:
                batch.add(instance, fired)
                batch.add(
                    instance,
                    CommandRequested(
                        one.aggregate,
                        one.id,
                        one.command,
                        one.data,
                        one.cause,
                        one.correlation_id,
                        {},
                        one.is_generated,
                    ),
                )
                return
            step.timers.discard(name)
            function = self.definition.members.timers.get(name)
            if function is None:
                raise UnknownType(
                    f"{self.definition.name} has no method @es.timer({name!r}) any more"
                )
            self.step(instance, step, function, (), batch, fired)
        except Exception as error:
            raise Failure(Stop(self.looked, stream, name, error), self.calling) from error

    def settle(self, stream: str, version: int, error: BaseException | None, batch: Batch) -> None:
        """A command was answered."""
        instance = self.instance(stream)
        request = instance.pending.get(version)
        if request is None:
            return
        if error is None:
            batch.add(instance, CommandDelivered(version))
            return
        text = f"{type(error).__name__}: {error}"
        function = self.definition.rejections.get(request.command)
        if instance.status != "active" or function is None:
            logger.error(
                "process %s: %s to %s/%s was rejected, and %s: %s",
                self.definition.name,
                request.command,
                request.aggregate,
                request.id,
                f"{instance.id} is {instance.status}" if function else "no method takes that",
                text,
            )
            if instance.status == "ended":
                batch.add(instance, CommandRejected(version, text))
            else:
                batch.add(instance, ProcessFailed(version, text))
            return
        step = Step(instance, self.clock(), request.cause, request.correlation_id)
        try:
            command = self.command_of(request)
            heard = CommandRejected(version, text)
            self.step(instance, step, function, (command, error), batch, heard)
        except Exception as failure:
            stop = Stop(self.looked, stream, "", failure, version)
            raise Failure(stop, self.calling) from failure

    def step(
        self,
        instance: Instance,
        step: Step,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        batch: Batch,
        *first: Event,
    ) -> None:
        """Run a method, and add what it did to the batch."""
        process = instance.process
        object.__setattr__(process, "_escqrs_step", step)
        try:
            self.call(function, process, *arguments)
        finally:
            object.__setattr__(process, "_escqrs_step", None)
        state = instance.state()
        events: list[Event] = [*first]
        if instance.status == "new":
            events.append(ProcessStarted(step.cause))
        if instance.status == "new" or _core.to_bytes(state) != instance.packed:
            events.append(state)
        events += step.events
        if step.ends:
            events.append(ProcessEnded())
        for event in events:
            batch.add(instance, event)

    # ---- delivering

    def command_of(self, request: CommandRequested) -> Command[Any]:
        generation = _core.generation()
        if generation != self.generation:  # a class was defined, perhaps anew
            self.generation = generation
            self.commands.clear()
        names = (request.aggregate, request.command)
        found = self.commands.get(names)
        if found is None:
            found = self.commands[names] = self.command_class(*names)
        command: Command[Any] = self.call(unpack_command, found, request)
        return command

    def command_class(self, aggregate: str, name: str) -> type[Command[Any]]:
        system = self.system()
        if system is None:
            raise Closed(f"{self.store!r} is closed")
        for one in list(system._definitions.values()):
            for command in describe(one.cls)[3] if one.name == aggregate else ():
                if command.__escqrs_name__ == name:
                    return cast("type[Command[Any]]", command)
        raise UnknownType(
            f"process {self.definition.name} sends {name} to {aggregate}, and no aggregate of that "
            "name that handles it was given to es.open",
            type=name,
        )

    def deliver(self, system: System) -> bool:
        """Send what is in the outbox, as far as there is room; whether there was something."""
        busy = self.outbox.make_ready()
        while self.stop is None and (entry := self.outbox.first()) is not None:
            busy = True
            stream, version, request = entry
            try:
                command = self.command_of(request)
            except Exception as error:
                self.halt(Stop(self.looked, stream, "", error, version))
                return busy
            try:
                handle = system[request.aggregate, request.id]
                reply = handle.submit(
                    command,
                    key=f"{stream}/{version}",
                    correlation_id=request.correlation_id or None,
                    metadata=dict(request.metadata),
                )
            except _TRANSIENT as error:
                self.outbox.drop()
                if not isinstance(error, Closed):
                    self.postpone(entry, error)
                continue
            except Exception as error:
                self.halt(Stop(self.looked, stream, "", error, version))
                return busy
            place = self.outbox.send()
            reply.add_done_callback(functools.partial(_answered, self, request, place))
        return busy

    def postpone(self, entry: Entry, error: BaseException) -> None:
        self.outbox.postpone(entry)
        request = entry[2]
        with self.lock:
            self.trouble = f"{request.command} to {request.aggregate}/{request.id}: {error!r}"

    def answered(
        self,
        request: CommandRequested,
        place: tuple[str, int],
        error: Any,
        is_rejected: bool,
        batch: Batch,
    ) -> None:
        """is_rejected: the handler has raised that, not the engine."""
        self.outbox.answered(place)
        if isinstance(error, _TRANSIENT) and not is_rejected:
            if not isinstance(error, Closed):
                self.postpone((*place, request), error)
            return
        self.outbox.settled(place)
        self.again.appendleft(functools.partial(self.settle, *place, error))

    def put_parked(self, stream: str, parked: Iterable[tuple[int, int]]) -> None:
        self.again.extend(functools.partial(self.take_parked, stream, one) for one in parked)

    def take_parked(self, stream: str, place: tuple[int, int], batch: Batch) -> None:
        """An event that came while its instance had failed."""
        instance = self.instance(stream)
        if instance.status == "failed" or place not in instance.parked:
            return
        unparked = EventUnparked(*place)
        recorded = event_at(self.store, place)
        wanted = recorded is not None and recorded.type in self.definition.reactions
        if recorded is None or not wanted or instance.status == "ended":
            batch.add(instance, unparked)
        else:
            self.react_to(recorded, batch, unparked)


def _answered(
    runner: Runner, request: CommandRequested, place: tuple[str, int], reply: _core.Reply[Any]
) -> None:
    error, is_rejected = reply.exception(), reply._rejected
    runner.put(functools.partial(runner.answered, request, place, error, is_rejected))
