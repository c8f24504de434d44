"""Actors: ``es.ActorSystem``, and what its core calls."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import logging
import threading
import warnings
import weakref
from collections.abc import (
    Callable,
    MutableMapping,
)
from typing import Any, NamedTuple, Self, cast

from . import _actor_async, _core, _deadline, _persist
from ._core import ActorReply, Context, Ref
from ._props import (
    Directive,
    Envelope,
    OneForOne,
    Props,
    ReceiveTimeout,
    Restarting,
    Started,
    Stopped,
    Stopping,
    Terminated,
)
from ._router import Router
from ._system import DeadLetter
from .errors import Closed, Deadlock, Timeout, Unanswered

__all__ = [
    "Actor",
    "ActorDeadLetter",
    "ActorFailed",
    "ActorSystem",
    "EventStream",
    "EventSubscription",
    "MailboxStatistics",
    "Stream",
    "Topic",
]

_EXIT_SECONDS = 10.0  # that actors still running have when the interpreter ends
_SLOW_SECONDS = 5.0  # after which a close() without a timeout says what it waits for
_REST_SECONDS = 0.1  # how long an actor has failed, at least, that close() stops
_REPORT_SECONDS = 5.0  # for which routees() waits for a router that has much to hand on
_GROUPS_MAX = 64  # in which close() ends the actors, the newest first

_log = logging.getLogger("escqrs")
_unclosed: weakref.WeakSet[ActorSystem] = weakref.WeakSet()


class Actor:
    """A base for actors; any object with a method ``receive(ctx, message)`` is one, too."""

    def receive(self, ctx: Context, message: Any) -> Any:
        """Handle one message, :class:`Started` first. ``async def`` is run on the event loop of the
        system, one message at a time."""
        raise NotImplementedError(f"{type(self).__name__} has no receive(ctx, message)")


class MailboxStatistics(NamedTuple):
    """Of a mailbox made with ``statistics=True``: how many messages wait, the most that ever did,
    how many were taken out, the seconds they waited in all and at most, and how many were
    dropped."""

    length: int
    length_max: int
    handled: int
    waited: float
    waited_max: float
    dropped: int


# ---- events --------------------------------------------------------------------------------------


class ActorDeadLetter(DeadLetter):
    """A message that nobody took: ``target`` (a reference, or None for an answer to nobody),
    ``message``, ``sender``."""

    target: Ref | None
    message: Any
    sender: Ref | None

    @classmethod
    def _of(cls, target: Ref | None, message: Any, sender: Ref | None) -> ActorDeadLetter:
        address = "" if target is None else target.address
        made = cls(address, message, Closed(f"{address or 'nobody'} did not take it"))
        made.target, made.message, made.sender = target, message, sender
        return made


class ActorFailed(NamedTuple):
    """An actor could not handle a message, and what its supervisor decided."""

    ref: Ref
    error: BaseException
    message: str  # the name of the message's type
    directive: Directive


class EventSubscription:
    """What ``subscribe`` returns; ``cancel()`` ends it."""

    __slots__ = ("_cancel", "_describe")

    def __init__(
        self,
        cancel: Callable[[EventSubscription], None],
        describe: Callable[[EventSubscription], str],
    ) -> None:
        self._cancel = cancel
        self._describe = describe

    def cancel(self) -> None:
        """No event that is published from now on comes. Twice is once."""
        self._cancel(self)

    def __repr__(self) -> str:
        return f"<es.EventSubscription{self._describe(self)}>"


class EventStream:
    """Events of a system by their type: its dead letters (``es.DeadLetter``), failures
    (``es.ActorFailed``), and whatever is published."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = weakref.ref(system)
        self._lock = threading.Lock()
        self._subscribed: dict[EventSubscription, tuple[type, Any]] = {}

    def subscribe(self, type_: type, target: Callable[[Any], object] | Ref) -> EventSubscription:
        """Get every event that is an instance of the type.

        target: a function, called on the publisher's thread or one of the system's, which must soon
            return; or the reference of an actor, which gets the event as a message.
        """
        if not isinstance(type_, type):
            raise TypeError(f"subscribe takes a class of events, not {type_!r}")
        if not isinstance(target, Ref) and not callable(target):
            raise TypeError(f"subscribe takes a function or an es.Ref, not {type(target).__name__}")
        made = EventSubscription(self._cancel, self._describe)
        with self._lock:
            self._subscribed = {**self._subscribed, made: (type_, target)}
            self._listen()
        return made

    def publish(self, event: object) -> None:
        """Hand an event to all who subscribed to its type. What a function raises is logged;
        ``KeyboardInterrupt`` and ``SystemExit`` are raised when all have it."""
        interrupt: BaseException | None = None
        for subscription, (type_, target) in self._subscribed.items():  # never changed in place
            if not isinstance(event, type_):
                continue
            try:
                if not isinstance(target, Ref):
                    target(event)
                elif target.state != "stopped":
                    target.tell(event)
                else:
                    self._cancel(subscription)
            except Exception:
                _log.exception("a subscriber of %s failed", type_.__name__)
            except BaseException as error:
                interrupt = interrupt or error
        if interrupt is not None:
            raise interrupt

    def _cancel(self, subscription: EventSubscription) -> None:
        with self._lock:
            left = dict(self._subscribed)
            left.pop(subscription, None)
            self._subscribed = left
            self._listen()

    def _describe(self, subscription: EventSubscription) -> str:
        found = self._subscribed.get(subscription)
        return ", cancelled" if found is None else f" to {found[0].__name__}: {found[1]!r}"

    def __repr__(self) -> str:
        return f"<es.EventStream: {len(self._subscribed)} subscriptions>"

    def _listen(self) -> None:
        system = self._system()
        if system is not None:
            system._listen(bool(self._subscribed))


class Topic:
    """The events of one type."""

    __slots__ = ("_events", "_type")

    def __init__(self, events: EventStream, type_: type) -> None:
        self._events = events
        self._type = type_

    def subscribe(self, target: Callable[[Any], object] | Ref) -> EventSubscription:
        """As :meth:`EventStream.subscribe`, for this type."""
        return self._events.subscribe(self._type, target)

    def __repr__(self) -> str:
        return f"<es.Topic of {self._type.__name__}>"


# ---- streams -------------------------------------------------------------------------------------


class Stream(_core.StreamBase):
    """A reference to send to, and an iterator over what was sent: ``for``, ``async for`` or
    ``get(timeout)``. Made by ``system.stream()``. One task at a time may await it."""

    __slots__ = ()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        while True:
            got = self._take()
            if got:
                return got[0]
            if got is not None:
                raise StopAsyncIteration
            self._system._check_loop()
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            waker = functools.partial(_actor_async.wake, loop, future)
            self._arm(waker)
            try:
                await future
            except BaseException:
                self._disarm(waker)
                raise

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


# ---- the system ----------------------------------------------------------------------------------


class ActorSystem(_core.ActorSystemBase):
    """Actors of one process, and the threads that run them.

    supervisor: what is done about actors that ``spawn`` of the system made when they fail; None
        restarts them, at most 10 times in 10 seconds.
    loop: the event loop that async actors run on; None: one of its own, in a thread of its own.

    Close it, or use it in a ``with`` statement. After ``fork`` the child cannot use it
    (``es.Forked``).
    """

    events: EventStream
    dead_letters: Topic
    _loop: asyncio.AbstractEventLoop | None
    _own_loop: _actor_async.OwnLoop | None
    _loop_lock: threading.Lock
    _close_lock: threading.Lock
    _receiving: dict[Context, _actor_async.Receiving]  # async receives that have not ended
    _loop_ran: bool  # the loop that was given was seen to run while close() waited
    _loop_given_up: bool  # close() waits for it no more
    _blocked: ActorReply | None  # for which the thread of the event loop waits

    def __new__(
        cls, *, supervisor: OneForOne | None = None, loop: asyncio.AbstractEventLoop | None = None
    ) -> Self:
        return cls._make(supervisor, loop, None)

    @classmethod
    def _make(
        cls,
        supervisor: OneForOne | None,
        loop: asyncio.AbstractEventLoop | None,
        seed: int | None,
    ) -> Self:
        if supervisor is not None and not isinstance(supervisor, OneForOne):
            raise TypeError(
                f"supervisor is an es.OneForOne or es.AllForOne, not {type(supervisor).__name__}"
            )
        if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop is an asyncio event loop, not {type(loop).__name__}")
        self = super().__new__(cls, supervisor, seed)
        self._loop = loop
        self._own_loop = None
        self._loop_lock = threading.Lock()
        self._close_lock = threading.Lock()
        self._receiving = {}
        self._loop_ran = self._loop_given_up = False
        self._blocked = None
        self.events = EventStream(self)
        self.dead_letters = Topic(self.events, DeadLetter)
        _unclosed.add(self)
        return self

    def stream(self) -> Stream:
        """A new :class:`Stream`: give it as ``sender=``, and read the answers from it. It closes
        with the system."""
        return Stream(self)

    def add_routee(self, router: Ref, routee: Ref | None = None) -> None:
        """Let a router send to one more, from what this thread sends next; None: a pool makes it.
        ValueError where it is none."""
        self._add_routee(router, routee)

    def remove_routee(self, router: Ref, routee: Ref) -> None:
        """Let a router send to it no more; a pool poisons it."""
        self._remove_routee(router, routee)

    def routees(self, router: Ref) -> tuple[Ref, ...]:
        """Those that a router sends to, with what this thread has added and removed before.
        ValueError where it is none."""
        with contextlib.suppress(Closed, Deadlock, Timeout):  # it has no more, or none that wait
            report = self._report(router)
            if router.state not in ("failed", "restarting"):
                report.result(_REPORT_SECONDS)
        return self._routees(router)

    def mailbox(self, ref: Ref) -> MailboxStatistics | None:
        """The statistics of an actor's mailbox, if it was made with ``statistics=True``."""
        if not isinstance(ref, Ref):
            raise TypeError(f"mailbox takes an es.Ref, not {type(ref).__name__}")
        found = ref._mailbox
        return None if found is None else MailboxStatistics(*found)

    def close(self, timeout: float | None = None) -> None:
        """Handle what was sent, stop all actors and join the threads.

        Actors made last are ended first, each after the messages that were sent to it before.

        timeout: seconds, then ``es.Timeout``, which names an actor that has not stopped; call it
            again to go on. None: until all have; which one it waits for is logged.

        ``es.Deadlock`` in an actor, and on the event loop of the system, which its async actors
        need meanwhile: ``await asyncio.to_thread(system.close)``. Twice is once.
        """
        if self._forked or self._ended:
            return
        if self._inside or _actor_async.receiver()[0] is not None:
            raise Deadlock("close() waits for every actor, so it cannot be called by one")
        if self._is_on_loop():
            raise Deadlock(
                "close() waits for async actors, which run on this event loop: "
                "use `await asyncio.to_thread(system.close)`"
            )
        until = _deadline.until(timeout, self)
        left = _deadline.left(until, self)
        if not self._close_lock.acquire(timeout=-1 if left is None else left):
            raise Timeout(
                "another thread is closing the actor system, and has not finished in time"
            )
        try:
            self._close(until)
        finally:
            self._close_lock.release()

    def _close(self, until: float | None) -> None:
        if self._ended:  # another thread has done it
            return
        self._begin_close()
        self._end_actors(until)
        _patiently(self, functools.partial(_await_all, self), until)
        if self._own_loop is not None:
            self._own_loop.close()
            self._own_loop = None

    def _look_at_loop(self) -> None:
        """Async receives on a loop that was closed, or that is given up, never go on."""
        loop = self._loop
        self._loop_ran = self._loop_ran or (loop is not None and loop.is_running())
        if loop is None or not (self._loop_given_up or loop.is_closed()):
            return
        for ctx in list(self._receiving):
            coroutine, task = self._receiving.get(ctx, (None, None))
            if coroutine is None:
                continue
            _actor_async.settle(ctx, _actor_async.loop_gone(ctx))
            _actor_async.forget(coroutine)
            if task is not None:
                _actor_async.forget(task.get_coro())
                with contextlib.suppress(RuntimeError):  # it is closed; else it may run again
                    loop.call_soon_threadsafe(task.cancel)

    def _is_on_loop(self) -> bool:
        """Whether this thread runs the event loop of the async actors."""
        running = asyncio._get_running_loop()
        if running is None:
            return False
        own = self._own_loop
        return running is self._loop or (own is not None and running is own.loop)

    def _check_loop(self) -> None:
        """TypeError where this thread's event loop would keep a seeded system from going on."""

    def _end_actors(self, until: float | None) -> None:
        """Poison them, in groups: what an earlier one is sent by a later one, it still handles."""
        refs = self.children[::-1]
        size = max(1, len(refs) // _GROUPS_MAX)
        for first in range(0, len(refs), size):
            for ref in refs[first : first + size]:
                ref.poison()
            for ref in refs[first : first + size]:
                if _deadline.left(until, self) == 0.0:
                    return
                try:
                    _patiently(self, functools.partial(_await_end, self, ref), until)
                except Timeout:
                    return  # _stop names it

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None:
            return self._loop
        with self._loop_lock:
            if self._own_loop is None:
                self._own_loop = _actor_async.OwnLoop()
            return self._own_loop.loop

    def __enter__(self) -> Self:
        if self.closed:
            raise Closed("this actor system is closed")
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed or self._forked:
            return f"<es.ActorSystem, {'forked' if self._forked else 'closed'}>"
        return f"<es.ActorSystem: {self.actor_count} actors>"


def _await_end(system: ActorSystem, ref: Ref, timeout: float | None) -> None:
    """Wait until it has stopped. One that has failed, and that a backoff holds back from the poison
    in its mailbox, is stopped."""
    until = _deadline.until(timeout, system)
    rested = False
    while True:
        system._look_at_loop()
        left = _deadline.left(until, system)
        try:
            ref.wait_stopped(_REST_SECONDS if left is None else min(left, _REST_SECONDS))
        except Timeout:
            if left is not None and left <= _REST_SECONDS:
                raise
            rests = ref.state == "failed"
            if not rests and system._rests:  # nothing will ever happen
                raise
            if rests and rested:
                ref.stop()
            rested = rests
        else:
            return


def _await_all(system: ActorSystem, timeout: float | None) -> None:
    """Wait until all have stopped, and the threads have ended."""
    if system._loop is None:
        system._stop(timeout)
        return
    until = _deadline.until(timeout)
    while True:
        system._look_at_loop()
        left = _deadline.left(until)
        try:
            system._stop(_REST_SECONDS if left is None else min(left, _REST_SECONDS))
        except Timeout:
            if left is not None and left <= _REST_SECONDS:
                raise
        else:
            return


def _patiently(
    system: ActorSystem, wait: Callable[[float | None], object], until: float | None
) -> None:
    """Wait until then; with no limit, say so after a while, and from then on for no event loop that
    was given and stands still."""
    if until is not None:
        wait(_deadline.left(until, system))
        return
    system._loop_ran = False
    try:
        wait(_SLOW_SECONDS)
    except Timeout as error:
        _log.warning("close() goes on waiting: %s", error)
    else:
        return
    while system._loop is not None and not system._loop_given_up:
        if system._receiving and not system._loop_ran:
            system._loop_given_up = True
            break
        system._loop_ran = False
        with contextlib.suppress(Timeout):
            wait(_SLOW_SECONDS)
            return
    wait(None)


# ---- what C calls --------------------------------------------------------------------------------


def compose(middleware: tuple[Any, ...], innermost: Any) -> Any:
    """The functions around it, the first outermost."""
    made = innermost
    for wrap in reversed(middleware):
        made = wrap(made)
        if not callable(made):
            raise TypeError(
                f"middleware takes the next function and returns one; {wrap!r} returned {made!r}"
            )
    return made


class _Log(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> Any:
        return f"{cast('dict[str, Any]', self.extra)['actor']}: {msg}", kwargs


def make_log(ctx: Context) -> logging.LoggerAdapter[logging.Logger]:
    """``ctx.log``."""
    return _Log(logging.getLogger("escqrs.actor"), {"actor": ctx.self.address})


def letter(system: ActorSystem, target: Ref | None, message: Any, sender: Ref | None) -> None:
    """A message that nobody took."""
    system.events.publish(ActorDeadLetter._of(target, message, sender))


_DIRECTIVES = (Directive.RESTART, Directive.RESUME, Directive.STOP, Directive.ESCALATE)


def failed(
    system: ActorSystem, ref: Ref, error: BaseException, message: str, directive: int
) -> None:
    """An actor has failed, and it was decided on."""
    system.events.publish(ActorFailed(ref, error, message, _DIRECTIVES[directive]))


def decide(supervisor: OneForOne, error: BaseException, seeded: bool) -> int:
    """The number of the directive; where it raises, that is logged, and somebody above decides.

    On a seeded system Ctrl-C is for who runs it.
    """
    if supervisor.decide is None:
        return 0
    try:
        return _DIRECTIVES.index(Directive(supervisor.decide(error)))
    except BaseException as raised:
        if seeded and isinstance(raised, KeyboardInterrupt):
            raise
        _log.exception("the supervisor's decide failed at %s: escalated", type(error).__name__)
        return _DIRECTIVES.index(Directive.ESCALATE)


def abandoned(system: ActorSystem, own_thread: bool) -> None:
    """A system was dropped without close: say so, and end it."""
    try:
        warnings.warn(f"unclosed {system!r}", ResourceWarning, source=system, stacklevel=2)
    finally:  # also where warnings are errors
        if own_thread or system._is_on_loop():
            threading.Thread(target=_end, args=(system,), name="escqrs-close").start()
        else:
            _end(system)


def _end(system: ActorSystem) -> None:
    try:
        system.close(_EXIT_SECONDS)
    except Timeout as error:
        _log.error("%s", error)
        system._leave_behind()


def _close_all() -> None:
    """Before the interpreter goes: no thread of the core may be left when it does."""
    for system in list(_unclosed):
        if not system._ended and not system._forked:
            _end(system)


atexit.register(_close_all)

_core._bind_actor(
    started=Started(),
    stopping=Stopping(),
    stopped=Stopped(),
    restarting=Restarting(),
    receive_timeout=ReceiveTimeout(),
    terminated=Terminated,
    props=(Props, Router),
    envelope=Envelope,
    unanswered=Unanswered,
    abandoned=abandoned,
    await_reply=_actor_async.await_reply,
    begin_blocking=_actor_async.begin_blocking,
    end_blocking=_actor_async.end_blocking,
    look_at_blocked=_actor_async.look_at_blocked,
    compose=compose,
    make_log=make_log,
    letter=letter,
    failed=failed,
    decide=decide,
    start_task=_actor_async.start_task,
    inside=_actor_async.inside,
    run_now=_actor_async.run_now,
    recover=_persist.recover,
    commit_provider=_persist.commit_provider,
    delete_events=_persist.delete_events,
    delete_snapshots=_persist.delete_snapshots,
    request_snapshot=_persist.RequestSnapshot(),
    replay_complete=_persist.ReplayComplete,
)
