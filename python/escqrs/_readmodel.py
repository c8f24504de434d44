"""Read models: tables that follow the events.

The classes are read here, once when they are defined; following the events, binding SQL and running
queries is C (``csrc/readmodel``, ``csrc/python/readmodel.c``).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

from . import _core, _deadline
from ._comparison import Difference, differences
from ._dead_letter import ParkedEvent, Retry, policy_of, select_parked
from ._projection import Projection, projections_of
from ._query import check_position, core_of, wait_for
from ._readmodel_status import STATES, ReadModelStatus
from ._watch import Hub, Watch
from .errors import Closed, ReadModelStopped, SchemaMismatch

if TYPE_CHECKING:
    from ._system import System

__all__ = ["ReadModel"]

_log = logging.getLogger("escqrs")

_R = TypeVar("_R")

_RESERVED = (
    "status",
    "rebuild",
    "cancel_rebuild",
    "retry",
    "skip",
    "wait",
    "parked",
    "watch",
    "compare",
)


class ReadModel:
    """Base of read models: tables that are filled from events.

    ``schema``: SQL that makes the tables (and indexes, views, triggers); they are the read model's
    alone. ``es.sql`` and ``@es.on`` say what events do to them, ``@es.query`` what is asked of
    them.

    ``version``: change it to have the read model built anew where neither schema nor SQL has
    changed. ``rebuild``: what happens when they differ from the stored ones: ``"auto"`` builds
    anew, beside the old rows, and swaps when level; ``"manual"`` refuses to open
    (``es.SchemaMismatch``).

    ``on_error``: what becomes of an event that cannot be applied. ``"stop"``: the read model stops
    there, until ``retry()`` or ``skip()``. ``es.Retry(...)``: it is tried again, a limited number
    of times. ``"park"``: the event and the later ones of its stream are listed in the table
    ``escqrs_dead_letter``, and the rest goes on; see ``parked()``.

    ``file = "reports.db"``: its tables lie in an SQLite file of their own, relative to the store's
    folder, with their checkpoint: exactly once like any other. Several read models may share one.
    ``file = ":memory:"``: they lie in memory, and are built from the first event with each open.

    ``inline = True``: its rows are written in the commit of the events themselves, and are there
    when the reply is. A command whose events it cannot apply (a UNIQUE constraint, say) raises
    ``es.Rejected`` naming the read model, and nothing is stored. For SQL alone, and for what is
    cheap: every commit pays for it. ``es.open`` waits until it is level.

    ``stream_column = "cart"``: every table has that column, and it holds the name of the stream
    (``:_stream``) whose events alone have made the row. ``rebuild(stream="Cart/cart-1")`` can then
    make one stream's rows anew.

    ``class Items(es.ReadModel, name="shop.Items")`` gives it another name in the store than the
    class's.
    """

    schema: ClassVar[str]
    version: ClassVar[str | int]
    on_error: ClassVar[Literal["stop", "park"] | Retry]
    inline: ClassVar[bool]
    stream_column: ClassVar[str]
    file: ClassVar[str | os.PathLike[str]]
    __escqrs_name__: ClassVar[str]
    __escqrs_manual__: ClassVar[bool] = False
    _escqrs_core: Any = None
    _escqrs_hub: Hub | None = None

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is None:
            name = cls.__name__
        if not isinstance(name, str):
            raise TypeError(f"{cls.__name__}: name= must be a str, got {name!r}")
        if not name or "\0" in name:
            raise ValueError(f"{cls.__name__}: name= must not be empty, nor hold a NUL: {name!r}")
        cls.__escqrs_name__ = name
        _check_reserved(cls)
        _check_attributes(cls)
        _check_inline(cls, projections_of(cls))
        _core.register(cls)

    @property
    def status(self) -> ReadModelStatus:
        """Where it stands now."""
        core = core_of(self)
        state, position, head, rebuilding, error, failed, *rest = core.status()
        lag, rate, parked, attempts, rebuilt = rest
        shown = STATES[state]
        if rebuilding and shown not in ("stopped", "retrying"):
            shown = "rebuilding"
        failed_at = failed if error is not None and failed > 0 else None
        failure = core.failure
        return ReadModelStatus(
            shown,  # type: ignore[arg-type]
            position,
            head,
            error,
            failed_at,
            failure[1] if failure is not None and failure[0] == failed_at else None,
            attempts,
            parked,
            lag / 1e6,
            rate,
            rebuilt if rebuilding and rebuilt >= 0 else None,
        )

    if TYPE_CHECKING:
        rebuild: Any
    else:

        def rebuild(
            self,
            *,
            stream: str | None = None,
            progress: Callable[[int, int], object] | None = None,
        ) -> None:
            """Build it anew from the first event, beside the live rows, and swap when level.

            Returns at once; ``flush()`` waits for it. What ``skip()`` left out is tried again.
            Where it fails, the old rows stay and are followed as before; ``flush()`` raises once,
            the log and ``status.error`` say why. Where the process ends before it is over, it goes
            on where it was when the store is next opened.

            progress: called as ``progress(position, head)`` while the copy grows; then this
                returns when the rebuild is over, and raises ``es.ReadModelStopped`` where it
                failed. If it raises, the rebuild is cancelled.

            stream: its rows alone are made anew, from its events alone, and replace the old ones
                (with its parked events) in one transaction; returns when that is done. For read
                models with a ``stream_column``. Raises, and leaves everything as it is:
                ``es.ReadModelStopped`` where an event cannot be applied; ValueError without a
                ``stream_column``, where the events make rows that are not the stream's, or collide
                with those of another one, for a stream without events or rows, and while the whole
                is being built because of a change.
            """
            core = core_of(self)
            if progress is not None and not callable(progress):
                raise TypeError(f"progress is a function of two numbers, not {progress!r}")
            if stream is not None:
                _rebuild_stream(core, stream, progress)
                return
            core.rebuild()
            if progress is not None:
                _follow_rebuild(core, progress)

    def cancel_rebuild(self) -> None:
        """Give a rebuild up that is under way; the old rows stay and are followed as before.

        One that has failed is no longer said in ``status.error``. ValueError if none is under way
        or has failed, or where the old rows are those of an older definition.
        """
        core_of(self).cancel_rebuild()

    def compare(
        self, *, progress: Callable[[int, int], object] | None = None
    ) -> Iterator[Difference]:
        """The rows that differ from those of a fresh build; none where all is well.

        The rows are copied as they are when the iteration begins, and the events up to there are
        applied to empty tables beside them, on this thread; the read model goes on meanwhile. All
        columns count, rowids do not.

        progress: called as ``progress(position, target)`` while the fresh build goes on.

        Raises ``es.ReadModelStopped`` where an event cannot be applied that was not skipped,
        ValueError for virtual tables, and while it is being built anew.
        """
        core = core_of(self)
        comparison = _core.readmodel_compare(core.system(), self, _description(type(self)))
        try:
            while (at := comparison.step()) is not None:
                if progress is not None:
                    progress(*at)
            yield from differences(comparison.rows(False), comparison.rows(True))
        finally:
            comparison.close()

    def watch(self, query: Callable[..., _R], *args: Any, **kwargs: Any) -> Watch[_R]:
        """The results of a query, now and whenever they have changed.

        ``for rows in shop[Items].watch(Items.by_name, "book")``, or ``async for``.

        query: an ``@es.query`` method of the class, or of the instance; the rest is given to it.

        A result is given when it differs from the one before (by ``==``); of several changes in
        quick succession only the last may be seen. Nothing polls: the query runs again when the
        read model has seen further events, was built anew, or has applied what was parked. The
        iteration ends with ``close()`` of the watch, and raises ``es.Closed`` where the system is
        closed. In a read-only system it looks at the file 50 times a second, for further events
        only. A seeded system of tests goes on until there is a result, or ``es.Timeout``.
        """
        if not callable(query):
            raise TypeError(f"watch takes an @es.query method, not {query!r}")
        bound = query if inspect.ismethod(query) else functools.partial(query, self)
        return Watch(self, functools.partial(bound, *args, **kwargs))

    def retry(self, stream: str | None = None) -> None:
        """Try again what has failed.

        One that has stopped, or waits before a further attempt, tries the event there now; this
        returns at once.

        Else its parked events are applied in their order, those of ``stream`` or of every stream,
        each stream's until one fails again; this returns when they have been tried, and
        ``parked()`` says what is left. ValueError where nothing is parked.
        """
        core = core_of(self)
        if stream is None and STATES[core.status()[0]] in ("stopped", "retrying"):
            core.retry()
            return
        if stream is not None and not isinstance(stream, str):
            raise TypeError(f"stream is a str, not {stream!r}")
        if not any(stream in (None, one.stream) for one in self.parked()):
            where = "" if stream is None else f" of stream {stream}"
            raise ValueError(
                f"read model {self.__escqrs_name__} has not stopped, and no event{where} is parked"
            )
        core.unpark(stream or "", 0, "", False)

    def skip(self, position: int | None = None, reason: str = "") -> None:
        """Leave out an event on purpose, and go on after it.

        Without ``position``: the event at which it has stopped. With: that event, which is parked
        or held; the rest of its stream is applied, until one fails. The event stays listed in
        ``parked(skipped=True)``, with the reason, until the read model is built anew.

        ValueError if it has not stopped, or there is no such parked event.
        """
        if not isinstance(reason, str):
            raise TypeError(f"reason is a str, not {reason!r}")
        core = core_of(self)
        if position is None:
            core.skip(reason)
            return
        check_position(position, least=1)
        core.unpark("", position, reason, False)

    def parked(self, *, skipped: bool = False) -> list[ParkedEvent]:
        """The events that it has not applied because they, or earlier ones of their streams,
        failed, in the order of their positions. ``skipped``: also those left out on purpose.

        They are the rows of the table ``escqrs_dead_letter``, which other tools can read.
        """
        found: list[ParkedEvent] = core_of(self).query(
            select_parked, self, (self.__escqrs_name__,), {"skipped": skipped}, None
        )
        return found

    def wait(self, position: int | None = None, timeout: float | None = None) -> None:
        """Wait until it has seen the event at ``position``, by default the newest there is now.

        A position that no event has yet is waited for as well: until an event gets it.

        Raises ``es.ReadModelStopped`` if it stops before, ``es.Timeout`` after ``timeout`` seconds,
        ``ValueError`` for a position that is negative or beyond 64 bits.
        """
        core = core_of(self)
        if position is None:
            at: int = core.status()[2]
        else:
            check_position(position)
            at = position
        wait_for(core, at, timeout)

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._escqrs_core is None:
            return f"<{name}, a read model that is not open>"
        try:
            status = self.status
        except Closed:
            return f"<{name}, a read model of a closed system>"
        text = f"{status.state} at {status.position:,}"
        if status.state == "stopped":
            text = f"stopped at {status.failed_position or status.position:,}"
        elif status.lag:
            text += f" of {status.head:,}"
        return f"<{name}, read model, {text}>"


def _rebuild_stream(core: Any, stream: object, progress: object) -> None:
    if not isinstance(stream, str):
        raise TypeError(f"stream is a str, not {stream!r}")
    if not stream:
        raise ValueError("stream is a stream's name, not empty")
    if "\0" in stream:
        raise ValueError(f"a stream's name has no NUL in it: {stream!r}")
    if progress is not None:
        raise TypeError("rebuild() of one stream has no progress")
    try:
        core.unpark(stream, 0, "", True)
    except ReadModelStopped as error:
        if core.failure is not None:
            raise error from core.failure[2]
        raise


def _follow_rebuild(core: Any, progress: Callable[[int, int], object]) -> None:
    position = -1
    try:
        while (position := core.progress(position)) is not None:
            progress(position, core.status()[2])
    except BaseException:
        with contextlib.suppress(ValueError, Closed):
            core.cancel_rebuild()
        raise
    wait_for(core, -1, None)


# ---- reading a class -----------------------------------------------------------------------------


def _check_reserved(cls: type[ReadModel]) -> None:
    names = [*vars(cls), *vars(cls).get("__annotations__", {})]
    for name in _RESERVED:
        if name not in names:
            continue
        if name == "rebuild" and isinstance(vars(cls).get("rebuild"), str):
            continue
        hint = (
            '; rebuild = "auto" or "manual" says when it is built anew' if name == "rebuild" else ""
        )
        raise TypeError(f"{cls.__name__}.{name}: the name is the engine's in a read model{hint}")


def _check_attributes(cls: type[ReadModel]) -> None:
    rebuild = vars(cls).get("rebuild")
    if rebuild is not None:
        if rebuild not in ("auto", "manual"):
            raise ValueError(f'{cls.__name__}.rebuild is "auto" or "manual", not {rebuild!r}')
        cls.__escqrs_manual__ = rebuild == "manual"
        del cls.rebuild  # instances have the method
    schema = getattr(cls, "schema", None)
    if schema is not None:
        if not isinstance(schema, str):
            raise TypeError(f"{cls.__name__}.schema is SQL, a str, not {schema!r}")
        if not schema.strip().strip(";").strip():
            raise ValueError(f"{cls.__name__}.schema: empty SQL")
    version = getattr(cls, "version", "")
    if isinstance(version, bool) or not isinstance(version, (str, int)):
        raise TypeError(f"{cls.__name__}.version is a str or an int, not {version!r}")
    column = getattr(cls, "stream_column", None)
    if column is not None and not isinstance(column, str):
        raise TypeError(f"{cls.__name__}.stream_column is the name of a column, not {column!r}")
    if column is not None and (not column or "\0" in column):
        raise ValueError(f"{cls.__name__}.stream_column is the name of a column, not {column!r}")
    policy_of(cls)
    _file(cls)


def _definition(cls: type[ReadModel]) -> tuple[Any, ...]:
    """All that decides whether the stored tables are those of the class."""
    return (
        cls.__escqrs_name__,
        getattr(cls, "schema", ""),
        str(getattr(cls, "version", "")),
        tuple(
            (
                "" if one.event is None else one.event.__escqrs_name__,
                one.sql,
                one.name if one.sql is None else "",
                one.each,
                one.tags,
            )
            for one in projections_of(cls)
        ),
    )


def _file(cls: type[ReadModel]) -> str:
    file = getattr(cls, "file", None)
    if file is None:
        return ""
    if not isinstance(file, (str, os.PathLike)):
        raise TypeError(f"{cls.__name__}.file is a path, not {file!r}")
    path = os.fspath(cast("str | os.PathLike[str]", file))
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"{cls.__name__}.file is a path, not {file!r}")
    return path


def has_file(cls: type[ReadModel]) -> bool:
    """Whether it has a file of its own, which stays."""
    return _file(cls) not in ("", ":memory:")


def _is_inline(cls: type[ReadModel]) -> bool:
    return getattr(cls, "inline", False) is True


def _check_inline(cls: type[ReadModel], projections: list[Projection]) -> None:
    inline = getattr(cls, "inline", False)
    if not isinstance(inline, bool):
        raise TypeError(f"{cls.__name__}.inline is True or False, not {inline!r}")
    if not inline:
        return
    for one in projections:
        if one.function is not None:
            raise TypeError(
                f"{cls.__name__}.{one.name}: an inline read model is written in the transaction of "
                "the commits, where no Python runs; use es.sql, or leave inline = True out"
            )
    if policy_of(cls) != (0, 0.0, 0.0, False):
        raise TypeError(
            f"{cls.__name__}.on_error: an inline read model fails the command whose events it "
            "cannot apply; there is nothing to park or to try again"
        )


# ---- opening -------------------------------------------------------------------------------------


def _description(cls: type[ReadModel]) -> tuple[Any, ...]:
    """What the core is told of a class: see description_init in csrc/python/readmodel.c."""
    name, schema, version, _ = _definition(cls)
    projections = tuple(
        one if one.event is None else one._replace(event=_core.newest(one.event))
        for one in projections_of(cls)
    )
    manual = cls.__escqrs_manual__
    column = getattr(cls, "stream_column", "")
    return (
        name,
        schema,
        version,
        _file(cls),
        manual,
        _is_inline(cls),
        policy_of(cls),
        projections,
        column,
    )


def check(classes: Iterable[type[ReadModel]]) -> None:
    """Refuse what can be refused before a file is opened, or made: bad SQL, names that clash."""
    _core.readmodel_check(tuple(_description(cls) for cls in classes))


def attach(system: System, classes: Iterable[type[ReadModel]]) -> dict[type[ReadModel], ReadModel]:
    """Add the read models to a system that has just been opened, and let them follow.

    All or none: if one is refused, the file is as it was.
    """
    found: dict[type[ReadModel], ReadModel] = {}
    for cls in classes:
        instance = cls()
        instance._escqrs_core = _core.readmodel_add(system, instance, _description(cls))
        found[cls] = instance
    _core.readmodel_start(system)
    return found


def redefined(instance: ReadModel, cls: type[ReadModel]) -> ReadModel:
    """The read model as an instance of a newer definition of its class, whose queries may differ.

    Raises ``es.SchemaMismatch`` if what it does with events has changed: that needs the system to
    be opened again.
    """
    if _definition(type(instance)) != _definition(cls):
        raise SchemaMismatch(
            f"read model {cls.__name__} was defined anew with another schema, SQL or version; "
            "close the system and open it again to have it built anew"
        )
    newer = cls()
    newer._escqrs_core = instance._escqrs_core
    return newer


def flush(system: System, position: int, timeout: float | None) -> None:
    """Wait until every read model has seen the event at ``position``, and rebuilds are done.

    Raises for one that has stopped once the others are there.
    """
    simulation = system.store._simulation
    until = _deadline.until(timeout, simulation)
    stopped: ReadModelStopped | None = None
    readmodels = list(system._readmodels.values())  # another thread may add to it
    for core in {id(one._escqrs_core): one._escqrs_core for one in readmodels}.values():
        try:
            for target in (position, -1):
                wait_for(core, target, _deadline.left(until, simulation))
        except ReadModelStopped as error:
            stopped = stopped or error
    if stopped is not None:
        raise stopped


def _failed(name: str, position: int, error: BaseException) -> str:
    """A handler has raised; the core says what becomes of it, here is where it happened."""
    _log.error("read model %s: a handler failed at position %d", name, position, exc_info=error)
    return "".join(traceback.format_exception(error))


_core.readmodel_bind(_failed)
