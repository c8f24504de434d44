"""``es.open`` and the system it returns: a store, its entities and its read models."""

from __future__ import annotations

import asyncio
import atexit
import collections
import os
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, cast, overload

from . import (
    _aggregate,
    _core,
    _deadline,
    _log,
    _match,
    _process,
    _processes,
    _projection,
    _readmodel,
    _snapshot,
    _subscription_group,
    _upcast,
)
from ._aggregate import Aggregate
from ._feed import Feed
from ._inspect import Verification
from ._match import Match
from ._message import Command, Event
from ._process import Process
from ._process_runner import Clock
from ._processes import Processes
from ._provider import ProviderStore
from ._readmodel import ReadModel
from ._store import (
    MESSAGE_BYTES_MAX,
    Store,
    check_numbers,
    check_options,
    claim_all,
    open_store,
)
from ._subscription import Subscription
from ._subscriptions import SubscriptionStatus
from .errors import Closed, Deadlock, Locked, NameClash, Timeout, UnknownType

__all__ = ["DeadLetter", "System", "open"]

_EXIT_SECONDS = 3.0  # that handlers still running have when the interpreter ends
_DEAD_LETTERS_MAX = 1_000  # kept for looking at

_unclosed: weakref.WeakSet[System] = weakref.WeakSet()
_carried: weakref.WeakValueDictionary[Store, System] = weakref.WeakValueDictionary()


class DeadLetter(NamedTuple):
    """A command that was told and failed, with nobody to hear of it."""

    stream: str
    command: Command[Any] | None
    error: BaseException


class System(_core.SystemBase):
    """An open store with its aggregates and read models; made by :func:`escqrs.open`.

    ``system[Cart, "cart-1"]`` is a reference to an entity, ``system[Items]`` a read model. Any
    thread may use it. Close it, or use it in a ``with`` statement. After ``fork`` the child cannot
    use it (``es.Forked``).

    ``dead_letters`` has the last 1,000 commands that were told and failed, as ``DeadLetter(stream,
    command, error)``: those that a handler refused as well as those that ``close`` dropped. What a
    handler told before it failed itself never left, and is none.
    """

    dead_letters: collections.deque[DeadLetter]
    _owns_store: bool = False
    _processes: dict[type[Process], Processes[Any]]

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was sent is durable, all processes have reacted to it, what they sent
        is done, too, and so on, and all read models have seen it.

        timeout: seconds, then ``es.Timeout``. Timers that are not due yet are not waited for.
        Raises ``es.ReadModelStopped`` or ``es.ProcessStopped`` naming what has stopped and the
        position, and ``es.Deadlock`` in a handler. Commands that failed do not count: their
        replies, or the log, say so.
        """
        if _processes.is_runner(self):
            raise Deadlock("flush() waits for every process, so it cannot be called by one")
        simulation = self.store._simulation
        until = _deadline.until(timeout, simulation)
        self._drain(_deadline.left(until, simulation))
        try:
            while _processes.flush(self, until):
                self._drain(_deadline.left(until, simulation))
        finally:
            _readmodel.flush(self, self.head, _deadline.left(until, simulation))

    @overload
    def subscribe(
        self,
        name: None = None,
        *,
        types: Iterable[str | type] | None = None,
        match: Match | Iterable[Match] = (),
        after: int = 0,
        deleted: Literal["raise", "skip"] = "raise",
    ) -> Feed: ...
    @overload
    def subscribe(
        self,
        name: str,
        *,
        types: Iterable[str | type] | None = None,
        match: Match | Iterable[Match] = (),
        after: int = 0,
        deleted: Literal["raise", "skip"] = "raise",
        max_attempts: int | None = None,
        backoff: float = 0.1,
        checkpoint_every: int = 100,
        window: int = 1_000,
    ) -> Subscription: ...
    def subscribe(self, name: str | None = None, **options: Any) -> Feed | Subscription:
        """Follow the store: :meth:`escqrs.Store.subscribe` of the store below."""
        store: Any = self.store
        return cast("Feed | Subscription", store.subscribe(name, **options))

    def subscriptions(self) -> list[SubscriptionStatus]:
        """The durable subscriptions: :meth:`escqrs.Store.subscriptions` of the store below."""
        return self.store.subscriptions()

    def close(self, timeout: float | None = None) -> None:
        """Refuse new commands, finish those accepted and what they send, and let go of the file.

        timeout: seconds; what is not finished then is dropped, and its reply says so. Twice is
        once. ``es.Deadlock`` in a handler.
        """
        if self.closed or self._forked:
            return super().close(timeout)
        if _processes.is_runner(self):
            raise Deadlock("close() waits for every process, so it cannot be called by one")
        if self._processes:
            try:
                self._drain(0)
            except Timeout:
                pass
            except Deadlock:  # in a handler
                return super().close(timeout)
        simulation = self.store._simulation
        until = _deadline.until(timeout, simulation)
        _processes.before_close(self, until)
        if self._owns_store:
            _subscription_group.before_close(self.store)
        return super().close(_deadline.left(until, simulation))

    def verify_snapshots(
        self, *, progress: Callable[[int, int], object] | None = None
    ) -> Verification:
        """Make the state of every snapshot of this system's aggregates anew from the events, and
        compare them. What differs is in the answer's ``problems``, by stream and version.

        It reads the whole history of each such stream and blocks no writer; snapshots of another
        definition, which are not used, are counted as ``outdated``; those of a stream that was
        truncated stand for what is gone, and only their checksums are looked at. progress: called
        with the snapshots seen and their number.
        """
        return _snapshot.verify_snapshots(self, progress)

    @property
    def schema_changes(self) -> list[_upcast.SchemaChange]:
        """How the classes differ from what the stored events were written with: what was added,
        removed, renamed, widened, and what is upcast. What would be misread is not there: the store
        is not opened then."""
        return _upcast.schema_changes(self.store)

    def __enter__(self) -> System:
        if self.closed:
            raise Closed(f"{self.path} is closed")
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed or self._forked:
            return f"<escqrs.System {self.path!r}, {'forked' if self._forked else 'closed'}>"
        # copies, and sets: another thread may add a class that is defined anew, as a further key
        names = sorted({one.name for one in list(self._definitions.values())})
        names += sorted({one.name for one in list(self._processes.values())})
        names += sorted(
            {
                cls.__name__
                for cls in list(self._readmodels)
                if not cls.__escqrs_name__.startswith("escqrs.")
            }
        )
        return (
            f"<escqrs.System {self.path!r}: {', '.join(names) or 'no classes'}; head {self.head}>"
        )


def open(
    store: str | os.PathLike[str] | Store,
    *classes: type | Callable[..., Any] | types.ModuleType,
    durability: str = "full",
    readonly: bool = False,
    max_message_bytes: int = 16 * 1024 * 1024,
    max_in_flight: int = 100_000,
    max_entities: int = 100_000,
    chain: bool = False,
    clock: Clock | None = None,
) -> System:
    """Open a store, or make one, with these aggregates, read models and event classes; and with
    ``es.upcast`` functions, or modules that have them, that are not defined beside these.

    store: the path of a file, or ``":memory:"`` for one that is gone when closed; the system then
        opens an ``es.Store`` on it and closes it with itself. Or an ``es.Store`` that is open, and
        stays so when the system is closed; close the system first. One system at a time uses it.
        It may be a provider of one's own: its methods are called from threads of the engine, and
        send no commands (``es.Deadlock``); rows of read models are made anew from its events, in
        memory, each time it is opened, but for those with a ``file``; schemas are not recorded, so
        a changed class is not refused.
    durability: ``"full"``: what was acknowledged survives power loss. ``"normal"``: it survives the
        death of the process, and a power loss may take the last seconds.
    readonly: read beside the process that writes; commands raise ``es.ReadOnly``.
    max_message_bytes: of one event; beyond it is ``es.TooLarge``.
    max_in_flight: commands accepted and not yet answered; above it senders wait.
    max_entities: idle entities that are kept in memory.
    chain: a new store keeps a hash chain; see :class:`escqrs.Store`.
    clock: the time, an aware ``datetime``, by which timers of processes are due; the machine's by
        default. ``es.ManualClock`` is one for tests.

    Raises ``es.Locked`` (naming the process that has it open), ``es.NotAStore``, ``es.Corrupt``,
    ``es.SchemaMismatch``, ``es.NameClash``, ``es.StorageError``; ``TypeError`` and ``ValueError``
    for arguments and classes that cannot be.
    """
    return open_with(
        None,
        store,
        classes,
        durability=durability,
        readonly=readonly,
        max_message_bytes=max_message_bytes,
        max_in_flight=max_in_flight,
        max_entities=max_entities,
        chain=chain,
        clock=clock,
    )


def open_with(
    simulation: _core.ActorSystemBase | None,
    store: str | os.PathLike[str] | Store,
    classes: tuple[Any, ...],
    *,
    durability: str = "full",
    readonly: bool = False,
    max_message_bytes: int = MESSAGE_BYTES_MAX,
    max_in_flight: int = 100_000,
    max_entities: int = 100_000,
    chain: bool = False,
    clock: Clock | None = None,
) -> System:
    """:func:`open`, by threads, or by a seeded actor system instead."""
    aggregates, readmodels, processes, events = _sort(classes)
    check_numbers(max_in_flight=max_in_flight, max_entities=max_entities)
    if simulation is not None and isinstance(store, Store) and not _is_provider(store):
        raise TypeError(
            "a seeded system opens the store itself, by its path; a provider of one's own is given"
        )
    if isinstance(store, Store):
        if (durability, readonly, max_message_bytes, chain) != (
            "full",
            False,
            MESSAGE_BYTES_MAX,
            False,
        ):
            raise TypeError(
                "durability, readonly, max_message_bytes and chain are given where the es.Store is "
                "opened"
            )
    else:
        check_options(store, durability, readonly, max_message_bytes, chain)
    readmodels += _processes.ledger_of(processes)
    _readmodel.check(readmodels)
    owned = not isinstance(store, Store) or _is_provider(store)
    below = (
        _carry(store, simulation)
        if isinstance(store, Store)
        else open_store(
            simulation, check_options(store, durability, readonly, max_message_bytes, chain)
        )
    )
    try:
        system = _on(below, owned, max_in_flight, max_entities)
    except BaseException:
        if owned:
            below.close()
        raise
    try:
        system.dead_letters = collections.deque(maxlen=_DEAD_LETTERS_MAX)
        _unclosed.add(system)
        _claim_given(below, classes, [*events, *_processes.claims(processes)])
        for aggregate in aggregates:
            system._add_aggregate(aggregate)
        check(system)
        if isinstance(below, ProviderStore) and any(map(_readmodel.has_file, readmodels)):
            below.keep_files()
        system._readmodels.update(_readmodel.attach(system, readmodels))
        system._processes.update(_processes.attach(system, processes, clock, simulation))
    except BaseException:
        system.close()
        raise
    return system


def _is_provider(store: Store) -> bool:
    """Whether it keeps its events in its own way."""
    return type(store).commit is not Store.commit or type(store).events is not Store.events


def _carry(store: Store, simulation: _core.ActorSystemBase | None) -> Store:
    """The store of the core that stands for the one that was given, which has no system yet."""
    before = _carried.get(store)
    if (before is not None and not before.closed) or store._simulation is not None:
        what = "that of a seeded system" if before is None else repr(before)
        raise Locked(f"{store!r} has a system already: {what}", path=store.path)
    return ProviderStore(store, simulation) if _is_provider(store) else store


def _on(store: Store, owned: bool, max_in_flight: int, max_entities: int) -> System:
    """A system on an open store."""
    system = System(store, owned, max_in_flight, max_entities)
    system._owns_store = owned
    system._processes = {}
    if isinstance(store, ProviderStore):
        _carried[store.provider] = system
    elif store._simulation is None:  # else its simulation keeps it, and with it the system
        _carried[store] = system
    return system


def _claim_given(store: Store, given: tuple[Any, ...], events: list[type[Event]]) -> None:
    """The store reads its events by these classes, and by the upcasters that were given or are
    defined beside what was."""
    seen = [one for one in given if isinstance(one, type)]
    upcasters = [one for several in given for one in _upcast.upcasters_in(several) or ()]
    claim_all(store, events, seen, upcasters)


def _sort(
    classes: tuple[Any, ...],
) -> tuple[
    list[type[Aggregate]], list[type[ReadModel]], list[_process.Definition], list[type[Event]]
]:
    """The classes by what they are, each in its newest definition, with all the events that they
    name."""
    aggregates: dict[str, type[Aggregate]] = {}
    readmodels: dict[str, type[ReadModel]] = {}
    processes: dict[str, type[Process]] = {}
    definitions: list[_process.Definition] = []
    events: dict[str, type[Event]] = {}
    commands: dict[str, type] = {}
    for given in classes:
        if not isinstance(given, type):
            if _upcast.upcasters_in(given) is not None:
                continue
            raise TypeError(f"es.open takes classes, and es.upcast functions, not {given!r}")
        cls = _core.newest(cast("type[Any]", _core.twin(given, "event")))
        if issubclass(cls, Aggregate) and cls is not Aggregate:
            _claim(aggregates, cls.__escqrs_name__, cls, "aggregates")
            description = _aggregate.describe(cls)
            for command in description[3]:
                _claim(commands, command.__escqrs_name__, command, "commands")
            for event, _function in description[4]:
                _claim(events, event.__escqrs_name__, event, "events")
        elif issubclass(cls, ReadModel) and cls is not ReadModel:
            _claim(readmodels, cls.__escqrs_name__, cls, "read models")
            for event in _projection.events_of(cls):
                newest = _core.newest(event)
                _claim(events, newest.__escqrs_name__, newest, "events")
        elif issubclass(cls, Process) and cls is not Process:
            _claim(processes, cls.__escqrs_name__, cls, "processes")
            definition = _process.Definition(cls)
            definitions.append(definition)
            for event in definition.events:
                newest = _core.newest(event)
                _claim(events, newest.__escqrs_name__, newest, "events")
        elif issubclass(cls, Event) and not cls.__escqrs_abstract__:
            _claim(events, cls.__escqrs_name__, cls, "events")
        else:
            raise TypeError(
                "es.open takes aggregates, read models, processes and events, and "
                f"{given.__name__} is none of them (commands are found through the aggregates that "
                "handle them)"
            )
    return (
        list(aggregates.values()),
        list(readmodels.values()),
        list({one.name: one for one in definitions}.values()),
        list(events.values()),
    )


def _is_same(one: type, other: object) -> bool:
    return isinstance(other, type) and _full_name(one) == _full_name(other)


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _claim(names: dict[str, Any], name: str, cls: type, what: str) -> None:
    before = names.setdefault(name, cls)
    if before is not cls:
        raise NameClash(
            f"two {what} are named {name!r}: {_full_name(before)} and {_full_name(cls)}; "
            f'give one of them another name: class {cls.__name__}(..., name="...")'
        )


# ---- what C calls --------------------------------------------------------------------------------


def check(system: System, appliers: list[tuple[type[Event], Any]] | None = None) -> None:
    """Refuse event classes that would misread what is stored: those of the system, or those given,
    which would be. Upcasters that were defined meanwhile are taken up."""
    events = system._events
    if appliers is not None:
        events = {event.__escqrs_name__: event for event, _function in appliers}
    _upcast.learn(system.store, events.values())


def find(system: System, key: Any) -> Any:
    """The definition of an aggregate or the read model for a key that was not met before: another
    definition of a class that was opened, or a name."""
    entity = isinstance(key, tuple)
    parts = cast("tuple[Any, ...]", key) if entity else (key,)
    if entity and len(parts) != 2:
        raise TypeError("system[Aggregate, id] takes a class and an id")
    cls = parts[0]
    for one, processes in list(system._processes.items()):
        if not entity and (one.__escqrs_name__ == cls or _is_same(one, cls)):
            return processes
    known: dict[Any, Any] = system._definitions if entity else system._readmodels
    for one, found in list(known.items()):  # meanwhile another thread may add to it
        same = (
            _full_name(one) == _full_name(cls)
            if isinstance(cls, type)
            else one.__escqrs_name__ == cls
        )
        if same:
            if isinstance(cls, type):
                if not entity:
                    found = _readmodel.redefined(found, cls)
                known[cls] = found
            return found
    if not entity and isinstance(cls, type) and issubclass(cls, Aggregate):
        raise TypeError(f"an entity has an id: system[{cls.__name__}, id]")
    if not isinstance(cls, (type, str)):
        raise TypeError(
            "system[...] takes an aggregate's class and an id, or a read model's class, "
            f"not {key!r}"
        )
    kind = "aggregate" if entity else "read model"
    if isinstance(cls, type) and issubclass(cls, Aggregate if entity else ReadModel):
        for one in list(known):
            if one.__escqrs_name__ == cls.__escqrs_name__:
                _claim({one.__escqrs_name__: one}, cls.__escqrs_name__, cls, f"{kind}s")
    name = cls.__name__ if isinstance(cls, type) else cls
    if entity and isinstance(cls, type) and issubclass(cls, (ReadModel, Process)):
        raise TypeError(f"{name} is no aggregate and has no ids: system[{name}]")
    raise UnknownType(
        f"{name} is no {kind} that {system.path!r} was opened with; give it to es.open"
    )


def abandoned(system: System, own_thread: bool) -> None:
    """A system was dropped without close: say so, and let go of its file."""
    try:
        warnings.warn(f"unclosed {system!r}", ResourceWarning, source=system, stacklevel=2)
    finally:  # also where warnings are errors
        if own_thread or _processes.is_runner(system):
            threading.Thread(
                target=system.close, args=(_EXIT_SECONDS,), name="escqrs-close"
            ).start()
        else:
            system.close(_EXIT_SECONDS)


def log_failure(
    system: System, stream: str, command: Command[Any] | None, error: BaseException
) -> None:
    """A command that was told has failed."""
    name = type(command).__name__ if command is not None else "a command"
    system.dead_letters.append(DeadLetter(stream, command, error))
    _log.logger.error(
        "%s told to %s failed: %s: %s", name, stream, type(error).__name__, error, exc_info=error
    )


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def set_future(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    """Wake whoever awaits a reply in a loop of another thread."""
    try:
        loop.call_soon_threadsafe(_settle, future)
    except RuntimeError:
        pass  # the loop is closed: nobody awaits any more


def _close_all() -> None:
    """Before the interpreter goes: no thread of the core may be left when it does."""
    for system in list(_unclosed):
        if not system.closed and not system._forked:
            system.close(_EXIT_SECONDS)


atexit.register(_close_all)

_core._bind_system(
    find=find,
    abandoned=abandoned,
    log_failure=log_failure,
    describe=_aggregate.describe,
    encode_reply=_aggregate.encode_reply,
    check=check,
    decode_reply=_aggregate.decode_reply,
    set_future=set_future,
    matches=_match.matches,
)
