"""The rows in which a read model and a fresh build of it differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ._core import Rows

__all__ = ["Difference"]


@dataclass(frozen=True)
class Difference:
    """A row in which a read model and a fresh build of it differ; see ``ReadModel.compare``.

    kind: ``"missing"``: the fresh build has it, the read model has not; ``"extra"``: the other way
        round. A row with another value somewhere is one of each.
    """

    table: str
    kind: Literal["missing", "extra"]
    row: dict[str, Any]


def _rank(value: object) -> int:
    """SQLite's order of types."""
    if value is None:
        return 0
    return 1 if isinstance(value, (int, float)) else 2 if isinstance(value, str) else 3


def _order(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((_rank(value), 0 if value is None else value) for value in row)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def differences(live: Rows, fresh: Rows) -> Iterator[Difference]:
    tables = live.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        r" AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT LIKE 'escqrs\_%' ESCAPE '\'"
        " ORDER BY name"
    ).fetchall()
    for (table,) in tables:
        columns = [
            name
            for (name,) in live.execute(
                "SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid", (table,)
            )
        ]
        order = ", ".join(f"{_quoted(name)} COLLATE BINARY" for name in columns)
        sql = f"SELECT {', '.join(map(_quoted, columns))} FROM {_quoted(table)} ORDER BY {order}"
        for kind, row in _merged(iter(live.execute(sql)), iter(fresh.execute(sql))):
            yield Difference(table, kind, dict(zip(columns, row, strict=True)))


def _merged(
    live: Iterator[tuple[Any, ...]], fresh: Iterator[tuple[Any, ...]]
) -> Iterator[tuple[Literal["missing", "extra"], tuple[Any, ...]]]:
    """What only one of two sorted sequences has."""
    one, other = next(live, None), next(fresh, None)
    while one is not None or other is not None:
        if one is not None and other is not None and _order(one) == _order(other):
            one, other = next(live, None), next(fresh, None)
        elif other is None or (one is not None and _order(one) < _order(other)):
            assert one is not None
            yield "extra", one
            one = next(live, None)
        else:
            yield "missing", other
            other = next(fresh, None)
