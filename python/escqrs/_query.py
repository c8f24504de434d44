"""Queries of read models, and waiting until they have seen an event."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from ._core import Rows
from ._projection import check_plain
from .errors import Closed, ReadModelStopped

if TYPE_CHECKING:
    from ._readmodel import ReadModel

__all__ = ["query"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", bound="ReadModel")


@overload
def query(
    function: Callable[Concatenate[_S, Rows, _P], _R], /
) -> Callable[Concatenate[_S, _P], _R]: ...
@overload
def query(
    *, timeout: float | None = None, consistent: bool = False
) -> Callable[[Callable[Concatenate[_S, Rows, _P], _R]], Callable[Concatenate[_S, _P], _R]]: ...
def query(
    function: Callable[..., Any] | None = None,
    /,
    *,
    timeout: float | None = None,
    consistent: bool = False,
) -> Any:
    """Make a method a query.

    ``@es.query`` on ``def by_name(self, db, name)``, called as ``shop[Items].by_name("book")``.

    It runs on the calling thread with a reading connection of its own, beside the writer; all its
    statements see the same state of the store. ``db`` (an ``es.Rows``) and its cursors end with the
    call. Queries may call each other.

    ``@es.query(timeout=2.0)``: a statement that is still running after so many seconds ends with
    ``es.Timeout``. ``@es.query(consistent=True)``: it first waits until the read model has seen
    every event that is stored when it is called, for at most ``timeout`` seconds. A call can ask
    for that as well: ``by_name("book", consistent=True)``, or ``consistent=reply.position``.
    """
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f"@es.query: timeout is a number of seconds, not {timeout!r}")
        if not timeout > 0:
            raise ValueError(f"@es.query: timeout is above 0, not {timeout}")
    if not isinstance(consistent, bool):
        raise TypeError(f"@es.query: consistent is True or False, not {consistent!r}")
    if function is None:
        return functools.partial(_query, timeout=timeout, consistent=consistent)
    return _query(function, timeout, consistent=consistent)


def _query(function: Callable[..., Any], timeout: float | None, *, consistent: bool) -> Any:
    check_plain("@es.query", function)
    parameters = inspect.signature(function).parameters
    if len(parameters) < 2:
        raise TypeError(f"{function.__qualname__}: an @es.query method takes self and db")
    takes_consistent = "consistent" in parameters or any(
        one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()
    )

    @functools.wraps(function)
    def run(self: ReadModel, /, *args: Any, **kwargs: Any) -> Any:
        core = core_of(self)
        until = consistent
        if not takes_consistent and "consistent" in kwargs:
            until = kwargs.pop("consistent")
        left = timeout
        if until is not False:
            begun = time.monotonic()
            self.wait(None if until is True else until, timeout)
            left = None if timeout is None else max(0.0, timeout - (time.monotonic() - begun))
        return core.query(function, self, args, kwargs, left)

    return run


def core_of(model: ReadModel) -> Any:
    if model._escqrs_core is None:
        raise Closed(
            f"{type(model).__name__} is not part of an open system; use "
            f"system[{type(model).__name__}]"
        )
    return model._escqrs_core


def check_position(position: object, *, least: int = 0) -> None:
    if isinstance(position, bool) or not isinstance(position, int):
        raise TypeError(f"position is an int, not {type(position).__name__}")
    if not least <= position < 1 << 63:
        raise ValueError(f"a position counts events from 1, in 64 bits; got {position}")


def wait_for(core: Any, position: int, timeout: float | None) -> None:
    try:
        core.wait(position, timeout)
    except ReadModelStopped as error:
        if core.failure is not None:
            raise error from core.failure[2]
        raise
