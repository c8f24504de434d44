"""How an actor is made and looked after: ``es.Props``, mailboxes, supervisors, lifecycle."""

from __future__ import annotations

import dataclasses
import enum
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from . import _core
from ._core import Context, Ref
from ._persist import Persistence
from ._router import Router

__all__ = [
    "AllForOne",
    "Backoff",
    "Directive",
    "Envelope",
    "Mailbox",
    "MessageTimes",
    "OneForOne",
    "Props",
    "ReceiveTimeout",
    "Restarting",
    "Started",
    "Stopped",
    "Stopping",
    "Terminated",
    "bounded",
    "escalate",
    "log_messages",
    "priority",
    "restart",
    "resume",
    "stop",
    "unbounded",
]

# ---- lifecycle messages --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """The first message of every actor, and of every instance that a restart makes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stopping:
    """The actor is about to stop; its children still run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped:
    """The last message of an actor: its children have stopped."""


@dataclasses.dataclass(frozen=True, slots=True)
class Restarting:
    """The last message of an instance that failed; a new one gets ``Started``."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReceiveTimeout:
    """No message came for as long as ``set_receive_timeout`` said."""


@dataclasses.dataclass(frozen=True, slots=True)
class Terminated:
    """An actor that this one watches has stopped, or had before."""

    ref: Ref


# ---- supervision ---------------------------------------------------------------------------------


class Directive(enum.StrEnum):
    """What a supervisor does about a child that failed."""

    RESUME = "resume"  # go on with the next message, the same instance
    RESTART = "restart"  # go on with a new instance; the failing message is dropped
    STOP = "stop"  # for good
    ESCALATE = "escalate"  # fail oneself, and let one's own supervisor decide


resume = Directive.RESUME
restart = Directive.RESTART
stop = Directive.STOP
escalate = Directive.ESCALATE


_FOR_EVER = 1e18  # seconds: an int may be too large for a float


def check_seconds(name: str, value: Any, zero: bool = False) -> float:
    """It as a float; TypeError or ValueError where it is no number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {type(value).__name__}")
    if not (value >= 0 if zero else value > 0):  # NaN is neither
        raise ValueError(f"{name} is a positive number of seconds, not {value}")
    return float(min(value, _FOR_EVER))


def _count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} is at least {least}, not {value}")
    if value > sys.maxsize:
        raise ValueError(f"{name} is at most {sys.maxsize}, not {value}")
    return value


@dataclasses.dataclass(frozen=True)
class Backoff:
    """How long a failed actor rests before it is restarted: ``first`` seconds, each time ``factor``
    times as long, at most ``limit``; each differs at random by up to ``jitter`` of itself."""

    first: float = 0.1
    limit: float = 30.0
    factor: float = 2.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        check_seconds("first", self.first)
        check_seconds("limit", self.limit)
        for name in ("factor", "jitter"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} is a number, not {type(value).__name__}")
        if not self.factor >= 1:
            raise ValueError(f"factor is at least 1, not {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is between 0 and 1, not {self.jitter}")


@dataclasses.dataclass(frozen=True)
class OneForOne:
    """Decides about the child that failed, alone.

    decide: a function from the exception to a :class:`Directive` or its name; None restarts,
        whatever the exception. One that raises escalates.
    max_restarts: within so many seconds (``within``); one more stops the child. 0: none, it stops
        at once.
    backoff: an :class:`Backoff`; None restarts at once.
    """

    decide: Callable[[BaseException], Directive | str] | None = None
    max_restarts: int = 10
    within: float = 10.0
    backoff: Backoff | None = None
    all_for_one = False

    def __post_init__(self) -> None:
        if self.decide is not None and not callable(self.decide):
            raise TypeError(
                "decide is a function from an exception to a directive, "
                f"not {type(self.decide).__name__}"
            )
        _count("max_restarts", self.max_restarts, 0)
        check_seconds("within", self.within)
        if self.backoff is not None and not isinstance(self.backoff, Backoff):
            raise TypeError(f"backoff is an es.Backoff, not {type(self.backoff).__name__}")


@dataclasses.dataclass(frozen=True)
class AllForOne(OneForOne):
    """Decides about all children when one has failed: they are restarted or stopped together."""

    all_for_one = True


# ---- mailboxes -----------------------------------------------------------------------------------

_ON_FULL = ("block", "drop_new", "drop_old", "fail")


@dataclasses.dataclass(frozen=True)
class Mailbox:
    """What keeps the messages of an actor; made by :func:`unbounded`, :func:`bounded` and
    :func:`priority`."""

    limit: int = 0
    on_full: str = "block"
    key: Callable[[Any], int] | None = None
    statistics: bool = False


def unbounded(*, statistics: bool = False) -> Mailbox:
    """A mailbox that takes all there is memory for.

    statistics: count what goes through it, for ``system.mailbox(ref)``.
    """
    return Mailbox(statistics=statistics)


def bounded(n: int, on_full: str = "block", *, statistics: bool = False) -> Mailbox:
    """A mailbox of at most ``n`` messages.

    on_full: ``"block"``: a sender outside of actors waits, an actor that sends gets
        ``es.MailboxFull``. ``"drop_new"``, ``"drop_old"``: that message becomes a dead letter.
        ``"fail"``: every sender gets ``es.MailboxFull``.
    """
    if on_full not in _ON_FULL:
        raise ValueError(f"on_full is one of {', '.join(map(repr, _ON_FULL))}, not {on_full!r}")
    return Mailbox(_count("n", n, 1), on_full, statistics=statistics)


def priority(key: Callable[[Any], int], *, statistics: bool = False) -> Mailbox:
    """A mailbox that gives the message with the greatest ``key(message)``, an int, first; equal
    ones in the order they came."""
    if not callable(key):
        raise TypeError(f"key is a function from a message to an int, not {type(key).__name__}")
    return Mailbox(key=key, statistics=statistics)


# ---- props ---------------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class Envelope:
    """A message on its way, as sender middleware sees it; it may change all of it."""

    message: Any
    sender: Ref | None = None
    headers: dict[str, Any] | None = None


Receiver = Callable[["Context", Any], Any]
Sender = Callable[["Context", "Ref", Envelope], None]
Spawner = Callable[["Context", Any, "str | None"], "Ref"]  # props; of a group its Router


def _functions(name: str, given: Any) -> tuple[Any, ...]:
    if not hasattr(given, "__iter__"):
        raise TypeError(f"{name} is a list of functions, not {type(given).__name__}")
    functions = tuple(given)
    for one in functions:
        if not callable(one):
            raise TypeError(
                f"{name} takes functions that wrap the next one, not {type(one).__name__}"
            )
        if isinstance(one, Persistence) and name != "middleware":
            raise TypeError(f"es.persistence belongs into middleware, not {name}")
    return functions


@dataclasses.dataclass(frozen=True, init=False)
class Props:
    """How an actor is made.

    producer: a class, or a function without arguments, that returns an actor: an object with a
        method ``receive(ctx, message)``. A restart calls it again.
    middleware: functions around ``receive``, the first outermost: each is given the next
        ``receive(ctx, message)`` and returns what is called in its place. ``es.persistence(store)``
        stands here.
    sender_middleware: the same around what the actor sends with its context:
        ``send(ctx, target, envelope)``.
    spawn_middleware: the same around the children that it spawns: ``spawn(ctx, props, name)``;
        a producer comes as the ``Props`` of it, a router of references as it is.
    mailbox: :func:`unbounded`, :func:`bounded` or :func:`priority`.
    supervisor: what it does about its children: :class:`OneForOne` or :class:`AllForOne`; None
        restarts a child that failed, at most 10 times in 10 seconds.
    receive_timeout: seconds; None: none.
    stash_max: messages that ``ctx.stash`` keeps; one more is ``es.MailboxFull``.
    router: spawn a pool of such actors: ``es.round_robin(4)`` and the like.
    """

    producer: Callable[[], Any]
    middleware: tuple[Any, ...]
    sender_middleware: tuple[Any, ...]
    spawn_middleware: tuple[Any, ...]
    mailbox: Mailbox
    supervisor: OneForOne | None
    receive_timeout: float | None
    stash_max: int
    router: Router | None

    def __init__(
        self,
        producer: Callable[[], Any],
        *,
        middleware: Iterable[Callable[[Receiver], Receiver]] = (),
        sender_middleware: Iterable[Callable[[Sender], Sender]] = (),
        spawn_middleware: Iterable[Callable[[Spawner], Spawner]] = (),
        mailbox: Mailbox | None = None,
        supervisor: OneForOne | None = None,
        receive_timeout: float | None = None,
        stash_max: int = 1_000,
        router: Router | None = None,
    ) -> None:
        if not callable(producer):
            raise TypeError(
                "a producer is a class or a function that returns an actor, "
                f"not {type(producer).__name__}"
            )
        if mailbox is not None and not isinstance(mailbox, Mailbox):
            raise TypeError(
                "mailbox is es.unbounded(), es.bounded(n) or es.priority(key), "
                f"not {type(mailbox).__name__}"
            )
        if supervisor is not None and not isinstance(supervisor, OneForOne):
            raise TypeError(
                f"supervisor is an es.OneForOne or es.AllForOne, not {type(supervisor).__name__}"
            )
        if receive_timeout is not None:
            receive_timeout = check_seconds("receive_timeout", receive_timeout)
        if router is not None and not (isinstance(router, Router) and router.is_pool):
            raise TypeError(
                "router is a router with a number, as es.round_robin(4); one of references is "
                "spawned itself"
            )
        put = object.__setattr__
        put(self, "producer", producer)
        put(self, "middleware", _functions("middleware", middleware))
        put(self, "sender_middleware", _functions("sender_middleware", sender_middleware))
        put(self, "spawn_middleware", _functions("spawn_middleware", spawn_middleware))
        put(self, "mailbox", mailbox if mailbox is not None else Mailbox())
        put(self, "supervisor", supervisor)
        put(self, "receive_timeout", receive_timeout)
        put(self, "stash_max", _count("stash_max", stash_max, 1))
        put(self, "router", router)
        put(self, "_recipe", self._make())

    def _make(self) -> _core.Recipe:
        stores = [one for one in self.middleware if isinstance(one, Persistence)]
        if len(stores) > 1:
            raise TypeError("middleware has es.persistence twice: an actor has one store")
        if stores and self.router is not None:
            raise TypeError(
                "the actors of a pool have no names of their own, so they cannot be persistent: "
                "spawn each with a name, and a router of their references"
            )
        mailbox = self.mailbox
        return _core.Recipe(
            self.producer,
            tuple(one for one in self.middleware if not isinstance(one, Persistence)),
            self.sender_middleware,
            self.spawn_middleware,
            self.supervisor,
            mailbox.key,
            (stores[0].store, stores[0].snapshot_every) if stores else None,
            self.router._described() if self.router is not None else None,
            mailbox.limit,
            _ON_FULL.index(mailbox.on_full),
            mailbox.statistics,
            self.receive_timeout or 0.0,
            self.stash_max,
        )


# ---- middleware for everybody --------------------------------------------------------------------


def log_messages(
    level: int = logging.DEBUG, logger: logging.Logger | None = None
) -> Callable[[Receiver], Receiver]:
    """Middleware that logs each message before it is received, and each failure, with the actor's
    address and the message's type.

    level: of :mod:`logging`. logger: ``escqrs`` if None.
    """
    log = logger if logger is not None else logging.getLogger("escqrs")

    def wrap(following: Receiver) -> Receiver:
        def receive(ctx: Context, message: Any) -> Any:
            if not log.isEnabledFor(level):
                return following(ctx, message)
            name = type(message).__name__
            log.log(level, "%s receives %s", ctx.self.address, name)
            try:
                return following(ctx, message)
            except BaseException as error:
                log.log(level, "%s failed at %s: %s", ctx.self.address, name, type(error).__name__)
                raise

        return receive

    return wrap


class MessageTimes:
    """Middleware that measures how long ``receive`` takes, by type of message; one object may serve
    many actors. Of an async actor it measures the time until the coroutine is made.

    ``times = es.MessageTimes(); es.Props(..., middleware=[times]); times.report()``
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, tuple[int, float, float]] = {}

    def __call__(self, following: Receiver) -> Receiver:
        def receive(ctx: Context, message: Any) -> Any:
            begun = time.perf_counter()
            try:
                return following(ctx, message)
            finally:
                self._add(type(message).__name__, time.perf_counter() - begun)

        return receive

    def __repr__(self) -> str:
        return f"<es.MessageTimes: {sum(times[0] for times in self.report().values())} messages>"

    def _add(self, name: str, seconds: float) -> None:
        with self._lock:
            count, total, longest = self._times.get(name, (0, 0.0, 0.0))
            self._times[name] = (count + 1, total + seconds, max(longest, seconds))

    def report(self) -> dict[str, tuple[int, float, float]]:
        """By type of message: how many, and the seconds they took in all and at most."""
        with self._lock:
            return dict(self._times)
