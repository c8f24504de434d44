#!/usr/bin/env python3
"""A year of flights: 336,776 flights of 4,043 aircraft as commands, events and read models.

    python examples/flights.py [--limit ROWS] [--file FILE]

Every aircraft is an aggregate. What happened in 2013 is sent to it as commands in the order in
which it happened: a flight is put on the schedule, departs, lands, is diverted or is cancelled. An
aircraft refuses what cannot be. The data holds such things (one aircraft in two places at once,
flights without an aircraft), and the program adds some on purpose. Two read models follow in SQL.

Then the file is closed and opened again with a third read model, which catches up from the first
event; every aircraft is replayed and compared with what it was before; and the read models are
compared with totals that the csv module and a few dictionaries make straight from the CSV.

The exit status is 1 if any of these checks fails.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from datetime import datetime
from pathlib import Path
from typing import Any

import escqrs as es
from flights_data import (
    CANCEL,
    DEPART,
    DIVERTED_AFTER_MINUTES,
    LAND,
    NO_AIRCRAFT,
    SCHEDULE,
    Flight,
    MissingData,
    airlines,
    csv_path,
    moment,
    read,
    rows,
    timeline,
)
from terminal import Progress, section, table

LATE_MINUTES = 15  # more is late; the US Department of Transportation draws the line there
WINDOW = 4_000  # commands on their way at once
EVERY_ON_PURPOSE = 500  # one flight in so many gets impossible commands besides its own

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# ---- commands ----------------------------------------------------------------------------------


class Leg(es.Message):
    """Where a flight goes, and when it should leave."""

    carrier: str
    month: int
    origin: str
    destination: str
    miles: int
    departure: datetime


class Schedule(es.Command[None]):
    flight: str
    leg: Leg


class Depart(es.Command[None]):
    flight: str
    at: datetime


class Land(es.Command[int]):
    """Answers how often the aircraft has landed so far."""

    flight: str
    at: datetime
    air_minutes: int
    arrival_delay: int  # minutes; negative: early


class Divert(es.Command[None]):
    flight: str
    at: datetime


class Cancel(es.Command[None]):
    flight: str


# ---- events: they carry what read models need --------------------------------------------------


class FlightEvent(es.Event):
    """What all of them have."""

    flight: str


class FlightScheduled(FlightEvent):
    leg: Leg


class FlightDeparted(FlightEvent):
    at: datetime


class FlightLanded(FlightEvent):
    tail: str
    carrier: str
    month: int
    origin: str
    destination: str
    miles: int
    at: datetime
    air_minutes: int
    arrival_delay: int


class FlightDiverted(FlightEvent):
    carrier: str
    month: int
    at: datetime


class FlightCancelled(FlightEvent):
    carrier: str
    month: int


# ---- the aggregate -----------------------------------------------------------------------------


class Aircraft(es.Aggregate, snapshot_every=0):
    """One aircraft; its id is its tail number. Without snapshots: its replay is a whole one."""

    planned: dict[str, Leg]  # flights on the schedule, the one in the air included
    airborne: str | None = None  # the flight it is in the air with
    departed: datetime | None = None
    landings: int = 0
    diverted: int = 0
    cancelled: int = 0
    air_minutes: int = 0
    miles: int = 0

    @es.handles
    def schedule(self, cmd: Schedule) -> None:
        if self.id == NO_AIRCRAFT:
            raise es.Rejected("has no aircraft")
        if cmd.flight in self.planned:
            raise es.Rejected("is on the schedule already")
        self.emit(FlightScheduled(cmd.flight, cmd.leg))

    @es.handles
    def depart(self, cmd: Depart) -> None:
        self.plan_of(cmd.flight)
        if self.airborne == cmd.flight:
            raise es.Rejected("has departed already")
        if self.airborne is not None:
            raise es.Rejected(f"has an aircraft that is in the air: {self.airborne}")
        self.emit(FlightDeparted(cmd.flight, cmd.at))

    @es.handles
    def land(self, cmd: Land) -> int:
        leg = self.plan_of(cmd.flight)
        self.must_be_airborne(cmd.flight, cmd.at)
        self.emit(
            FlightLanded(
                cmd.flight,
                self.id,
                leg.carrier,
                leg.month,
                leg.origin,
                leg.destination,
                leg.miles,
                cmd.at,
                cmd.air_minutes,
                cmd.arrival_delay,
            )
        )
        return self.landings

    @es.handles
    def divert(self, cmd: Divert) -> None:
        leg = self.plan_of(cmd.flight)
        self.must_be_airborne(cmd.flight, cmd.at)
        self.emit(FlightDiverted(cmd.flight, leg.carrier, leg.month, cmd.at))

    @es.handles
    def cancel(self, cmd: Cancel) -> None:
        leg = self.plan_of(cmd.flight)
        if self.airborne == cmd.flight:
            raise es.Rejected("is in the air, too late to cancel")
        self.emit(FlightCancelled(cmd.flight, leg.carrier, leg.month))

    def plan_of(self, flight: str) -> Leg:
        leg = self.planned.get(flight)
        if leg is None:
            raise es.Rejected("is not on the schedule")
        return leg

    def must_be_airborne(self, flight: str, at: datetime) -> None:
        if self.airborne != flight or self.departed is None:
            raise es.Rejected("has not departed")
        if at <= self.departed:
            raise es.Rejected("would land before it departed")

    @es.applies
    def on_scheduled(self, event: FlightScheduled) -> None:
        self.planned[event.flight] = event.leg

    @es.applies
    def on_departed(self, event: FlightDeparted) -> None:
        self.airborne = event.flight
        self.departed = event.at

    @es.applies
    def on_landed(self, event: FlightLanded) -> None:
        del self.planned[event.flight]
        self.airborne = None
        self.departed = None
        self.landings += 1
        self.air_minutes += event.air_minutes
        self.miles += event.miles

    @es.applies
    def on_diverted(self, event: FlightDiverted) -> None:
        del self.planned[event.flight]
        self.airborne = None
        self.departed = None
        self.diverted += 1

    @es.applies
    def on_cancelled(self, event: FlightCancelled) -> None:
        del self.planned[event.flight]
        self.cancelled += 1


STATE_FIELDS = (
    "planned",
    "airborne",
    "departed",
    "landings",
    "diverted",
    "cancelled",
    "air_minutes",
    "miles",
)


def plain(state: Aircraft) -> dict[str, Any]:
    """Return a state's fields as an ordinary dictionary, to compare and to show."""
    return {name: getattr(state, name) for name in STATE_FIELDS}


# ---- the read models ---------------------------------------------------------------------------


class Punctuality(es.ReadModel):
    """How punctual a carrier was in a month."""

    schema = """
        CREATE TABLE punctuality (
            carrier TEXT NOT NULL, month INTEGER NOT NULL,
            landed INTEGER NOT NULL DEFAULT 0, late INTEGER NOT NULL DEFAULT 0,
            delay_minutes INTEGER NOT NULL DEFAULT 0,
            diverted INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (carrier, month)
        ) WITHOUT ROWID
    """
    on_landed = es.sql(
        FlightLanded,
        f"""
        INSERT INTO punctuality (carrier, month, landed, late, delay_minutes)
        VALUES (:carrier, :month, 1, :arrival_delay > {LATE_MINUTES}, :arrival_delay)
        ON CONFLICT (carrier, month) DO UPDATE SET landed = landed + 1, late = late + excluded.late,
            delay_minutes = delay_minutes + excluded.delay_minutes
        """,
    )
    on_diverted = es.sql(
        FlightDiverted,
        "INSERT INTO punctuality (carrier, month, diverted) VALUES (:carrier, :month, 1)"
        " ON CONFLICT (carrier, month) DO UPDATE SET diverted = diverted + 1",
    )
    on_cancelled = es.sql(
        FlightCancelled,
        "INSERT INTO punctuality (carrier, month, cancelled) VALUES (:carrier, :month, 1)"
        " ON CONFLICT (carrier, month) DO UPDATE SET cancelled = cancelled + 1",
    )

    @es.query
    def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute("SELECT * FROM punctuality ORDER BY carrier, month").fetchall()

    @es.query
    def by_carrier(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute(
            "SELECT carrier, sum(landed), 100.0 * sum(late) / max(sum(landed), 1) AS late,"
            " 1.0 * sum(delay_minutes) / max(sum(landed), 1), sum(diverted), sum(cancelled)"
            " FROM punctuality GROUP BY carrier ORDER BY late"
        ).fetchall()


class Routes(es.ReadModel):
    """How many flights each route had."""

    schema = """
        CREATE TABLE routes (
            origin TEXT NOT NULL, destination TEXT NOT NULL, flights INTEGER NOT NULL,
            miles INTEGER NOT NULL, delay_minutes INTEGER NOT NULL,
            PRIMARY KEY (origin, destination)
        ) WITHOUT ROWID
    """
    on_landed = es.sql(
        FlightLanded,
        "INSERT INTO routes VALUES (:origin, :destination, 1, :miles, :arrival_delay)"
        " ON CONFLICT (origin, destination) DO UPDATE SET flights = flights + 1,"
        " miles = miles + excluded.miles, delay_minutes = delay_minutes + excluded.delay_minutes",
    )

    @es.query
    def busiest(self, db: es.Rows, count: int) -> list[tuple[Any, ...]]:
        return db.execute(
            "SELECT origin, destination, flights, miles, 1.0 * delay_minutes / flights FROM routes"
            " ORDER BY flights DESC, origin, destination LIMIT :count",
            {"count": count},
        ).fetchall()


class Hours(es.ReadModel):
    """How long each aircraft was in the air. Added when the file is opened the second time."""

    schema = """
        CREATE TABLE hours (
            tail TEXT PRIMARY KEY, flights INTEGER NOT NULL,
            air_minutes INTEGER NOT NULL, miles INTEGER NOT NULL
        ) WITHOUT ROWID
    """
    on_landed = es.sql(
        FlightLanded,
        "INSERT INTO hours VALUES (:tail, 1, :air_minutes, :miles)"
        " ON CONFLICT (tail) DO UPDATE SET flights = flights + 1,"
        " air_minutes = air_minutes + excluded.air_minutes, miles = miles + excluded.miles",
    )

    @es.query
    def longest(self, db: es.Rows, count: int) -> list[tuple[Any, ...]]:
        return db.execute(
            "SELECT tail, flights, air_minutes, miles FROM hours"
            " ORDER BY air_minutes DESC, tail LIMIT :count",
            {"count": count},
        ).fetchall()


# ---- sending the year --------------------------------------------------------------------------


class Refusals:
    """What was refused: by reason, and which rows of the CSV it touched."""

    def __init__(self) -> None:
        self.in_data: Counter[str] = Counter()
        self.on_purpose: Counter[str] = Counter()
        self.rows: set[int] = set()
        self.tried_on_purpose = 0
        self.example: dict[str, str] = {}

    def add(self, error: es.Rejected, what: int, index: int, flight: Flight, purpose: bool) -> None:
        reason = str(error).split(":")[0]
        if purpose:
            self.on_purpose[reason] += 1
            return
        self.in_data[reason] += 1
        self.rows.add(index)
        self.example.setdefault(
            reason, f"{('land', 'divert', 'cancel', 'depart', 'schedule')[what]} {flight.name}"
        )


def command(what: int, at: int, flight: Flight) -> es.Command[Any]:
    """Return the command that says what happened to a flight."""
    if what == DEPART:
        return Depart(flight.name, moment(at))
    if what == LAND:
        assert flight.air_minutes is not None and flight.arrival_delay is not None
        return Land(flight.name, moment(at), flight.air_minutes, flight.arrival_delay)
    if what == SCHEDULE:
        leg = Leg(
            flight.carrier,
            flight.month,
            flight.origin,
            flight.destination,
            flight.miles,
            moment(flight.scheduled),
        )
        return Schedule(flight.name, leg)
    if what == CANCEL:
        return Cancel(flight.name)
    return Divert(flight.name, moment(at))


def impossible(what: int, at: int, flight: Flight) -> list[es.Command[Any]]:
    """Return commands that cannot be obeyed just after `what` has happened to a flight."""
    if what == SCHEDULE:  # it's on the schedule, and not in the air
        return [command(SCHEDULE, at, flight), Land(flight.name, moment(at), 60, 0)]
    if what == DEPART:  # it's in the air
        return [command(DEPART, at, flight), Cancel(flight.name), command(SCHEDULE, at, flight),
                Land(flight.name, moment(at - 1), 60, 0)]  # fmt: skip
    # it is over
    return [
        Land(flight.name, moment(at), 60, 0),
        Depart(flight.name, moment(at)),
        Cancel(flight.name),
    ]


def fly(shop: es.System, flights: list[Flight], refusals: Refusals) -> tuple[int, float]:
    """Send every command of the year, `WINDOW` at a time, and some that cannot be obeyed.

    Returns:
        how many commands were sent, and the seconds until the last reply.
    """
    happened = timeline(flights)
    overlapping = in_two_places(flights)  # what is impossible for the others is possible for these
    aircraft = {tail: shop[Aircraft, tail] for tail in {flight.tail for flight in flights}}
    waiting: deque[tuple[es.Reply[Any], int, int, bool]] = deque()
    sent = 0

    def collect(down_to: int) -> None:
        while len(waiting) > down_to:
            reply, what, index, purpose = waiting.popleft()
            try:
                reply.result()
            except es.Rejected as error:
                refusals.add(error, what, index, flights[index], purpose)

    progress = Progress("commands", len(happened))
    for done, (at, what, index) in enumerate(happened):
        flight = flights[index]
        handle = aircraft[flight.tail]
        waiting.append((handle.submit(command(what, at, flight)), what, index, False))
        sent += 1
        if index % EVERY_ON_PURPOSE == 0 and index not in overlapping:
            for wrong in impossible(what, at, flight):
                waiting.append((handle.submit(wrong), what, index, True))
                sent += 1
                refusals.tried_on_purpose += 1
        if len(waiting) >= WINDOW:
            collect(WINDOW // 2)
            progress.at(done)
    collect(0)
    return sent, progress.finish()


# ---- what the CSV itself says ------------------------------------------------------------------


class Totals:
    """Totals made straight from the CSV's rows, without the flights whose commands were refused."""

    def __init__(self, path: Path, limit: int | None, without: set[int]) -> None:
        lines = rows(path, limit)
        column = {name: index for index, name in enumerate(next(lines))}
        self.punctuality: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0] * 5)
        self.routes: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * 3)
        self.hours: dict[str, list[int]] = defaultdict(lambda: [0] * 3)
        self.events = 0
        for number, row in enumerate(lines):
            if row[column["tailnum"]] == NO_AIRCRAFT:
                continue
            self.events += 1  # scheduled
            if number in without:
                continue
            month = self.punctuality[row[column["carrier"]], int(row[column["month"]])]
            self.events += 1 if row[column["dep_time"]] == "NA" else 2  # and what became of it
            if row[column["dep_time"]] == "NA":
                month[4] += 1
            elif row[column["air_time"]] == "NA":
                month[3] += 1
            else:
                delay = int(row[column["arr_delay"]])
                month[0] += 1
                month[1] += delay > LATE_MINUTES
                month[2] += delay
                miles = int(row[column["distance"]])
                add(self.routes[row[column["origin"]], row[column["dest"]]], 1, miles, delay)
                add(self.hours[row[column["tailnum"]]], 1, int(row[column["air_time"]]), miles)


def add(sums: list[int], *amounts: int) -> None:
    for index, amount in enumerate(amounts):
        sums[index] += amount


def in_two_places(flights: list[Flight]) -> set[int]:
    """Return the rows whose departure falls into an earlier flight of the same aircraft."""
    by_tail: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for index, flight in enumerate(flights):
        if flight.departure_delay is not None and flight.tail != NO_AIRCRAFT:
            start = flight.departed
            end = start + DIVERTED_AFTER_MINUTES if flight.air_minutes is None else flight.landed
            by_tail[flight.tail].append((start, index, end))
    found: set[int] = set()
    for trips in by_tail.values():
        free_at = None
        for start, index, end in sorted(trips):
            if free_at is not None and start < free_at:
                found.add(index)
            else:
                free_at = end
    return found


# ---- what is shown -----------------------------------------------------------------------------


class Checks:
    """The program's checks: each is shown with what was expected and what was found."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []
        self.failed = 0

    def equal(self, what: str, found: Any, expected: Any, shown: str = "") -> None:
        good = found == expected
        self.failed += not good
        if not good:
            shown = f"expected {str(expected)[:30]}, found {str(found)[:30]}"
        self.lines.append(("✓" if good else "✗ FAILED", what, shown or f"{found:,}"))


def show_refusals(refusals: Refusals) -> None:
    section("Commands that were refused")
    reasons = sorted(
        set(refusals.in_data) | set(refusals.on_purpose), key=lambda r: -refusals.in_data[r]
    )
    table(
        ("the flight …", "in the data", "on purpose", "the first in the data"),
        [
            (reason, refusals.in_data[reason], refusals.on_purpose[reason],
             refusals.example.get(reason, "–"))
            for reason in reasons
        ],
    )  # fmt: skip


def show_punctuality(shop: es.System, names: dict[str, str]) -> None:
    section(f"Punctuality by carrier (late: more than {LATE_MINUTES} minutes)")
    table(
        ("carrier", "", "landed", "late %", "mean delay, min", "diverted", "cancelled"),
        [
            (carrier, names.get(carrier, ""), *numbers)
            for carrier, *numbers in shop[Punctuality].by_carrier()
        ],
    )
    section("Landed late, % by month")
    share: dict[str, dict[int, float]] = defaultdict(dict)
    for carrier, month, landed, late, *_ in shop[Punctuality].all():
        if landed:
            share[carrier][month] = 100.0 * late / landed
    flown = sorted({month for months in share.values() for month in months})
    table(
        ("carrier", *(f">{MONTHS[month - 1]}" for month in flown)),
        [
            (carrier, *(f"{months[m]:.0f}" if m in months else "–" for m in flown))
            for carrier, months in sorted(share.items())
        ],
    )


def show_routes_and_hours(shop: es.System) -> None:
    section("Busiest routes")
    table(("from", "to", "flights", "miles", "mean delay, min"), shop[Routes].busiest(10))
    section("Hours flown by aircraft")
    table(
        ("aircraft", "flights", "hours", "miles", "miles an hour"),
        [
            (tail, flights, minutes / 60, miles, 60.0 * miles / minutes)
            for tail, flights, minutes, miles in shop[Hours].longest(10)
        ],
    )


def show_one_aircraft(shop: es.System, checks: Checks) -> None:
    """Show the busiest aircraft's state at half its version beside today's."""
    flown = shop[Hours].longest(1_000_000)
    tail = max(flown, key=lambda row: (row[1], row[0]))[0]
    handle = shop[Aircraft, tail]
    history = list(handle.history())
    half = len(history) // 2
    then, now = handle.state_at(version=half), handle.state
    section(f"Aircraft {tail}, then and now")
    last = history[half - 1]
    assert isinstance(last.event, FlightEvent)
    table(
        ("", f">version {half:,}", f">version {len(history):,} (today)"),
        [
            (name.replace("_", " "), shown(getattr(then, name)), shown(getattr(now, name)))
            for name in STATE_FIELDS
        ],
    )
    print(
        f"  version {half:,}: {last.type} {last.event.flight}, the store's event {last.position:,}"
    )
    landed_by_then = sum(isinstance(recorded.event, FlightLanded) for recorded in history[:half])
    checks.equal(
        f"landings of {tail} at version {half:,}, counted in its history",
        then.landings,
        landed_by_then,
    )


def shown(value: dict[str, Leg] | datetime | str | int | None) -> str:
    if isinstance(value, dict):
        return f"{len(value)} flights"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    return value or "–"


# ---- the program -------------------------------------------------------------------------------


def check_read_models(shop: es.System, totals: Totals, checks: Checks) -> None:
    found = {(carrier, month): list(sums) for carrier, month, *sums in shop[Punctuality].all()}
    checks.equal(
        "punctuality equals the CSV's, month by month",
        found,
        dict(totals.punctuality),
        f"{len(found):,} rows, {sum(sums[0] for sums in found.values()):,} landings",
    )
    routes = {
        (origin, destination): (flights, miles, round(mean * flights))
        for origin, destination, flights, miles, mean in shop[Routes].busiest(1_000_000)
    }
    checks.equal(
        "routes equal the CSV's",
        routes,
        {route: tuple(sums) for route, sums in totals.routes.items()},
        f"{len(routes):,} rows, {sum(sums[1] for sums in routes.values()):,} miles",
    )
    hours = {tail: tuple(sums) for tail, *sums in shop[Hours].longest(1_000_000)}
    checks.equal(
        "hours flown equal the CSV's",
        hours,
        {tail: tuple(sums) for tail, sums in totals.hours.items()},
        f"{len(hours):,} rows, {sum(sums[1] for sums in hours.values()) / 60:,.0f} hours",
    )


def main(path: Path, csv: Path, limit: int | None) -> int:
    started = time.perf_counter()
    rates: list[tuple[str, int, float, float]] = []

    def rate(what: str, count: int, seconds: float) -> None:
        rates.append((what, count, seconds, count / max(seconds, 1e-9)))

    flights = read(csv, limit)
    gc.freeze()  # they stay; Python's collector need not look at them again and again
    tails = sorted({flight.tail for flight in flights} - {NO_AIRCRAFT})
    print(f"{len(flights):,} flights of {len(tails):,} aircraft in 2013, read from the CSV")
    print("  each is sent to its aircraft as commands, in the order in which all of it happened")
    rate("rows of the CSV read", len(flights), time.perf_counter() - started)

    checks = Checks()
    refusals = Refusals()
    with es.open(path, Aircraft, Punctuality, Routes) as shop:
        sent, seconds = fly(shop, flights, refusals)
        rate("commands, each durable when answered", sent, seconds)
        begun = time.perf_counter()
        shop.flush()
        waited = time.perf_counter() - begun
        progress = Progress("states of the aircraft", len(tails))
        before = {}
        for number, tail in enumerate(tails):
            before[tail] = plain(shop[Aircraft, tail].state)
            progress.at(number)
        progress.finish()
    size = path.stat().st_size
    refused = sum(refusals.in_data.values()) + sum(refusals.on_purpose.values())
    stored = sent - refused
    rate("events stored meanwhile", stored, seconds)
    print(f"  {sent:,} commands in {seconds:,.1f} s: {stored:,} events, {refused:,} refusals")
    print("  closed; opened again, with one more read model; every aircraft is replayed")

    begun = time.perf_counter()
    with es.open(path, Aircraft, Punctuality, Routes, Hours) as shop:
        opened = time.perf_counter() - begun
        begun = time.perf_counter()
        shop.flush()
        rate("events taken by a new read model", stored, time.perf_counter() - begun)

        begun = time.perf_counter()
        types = Counter(recorded.type for recorded in shop.events())
        rate("events read in global order", sum(types.values()), time.perf_counter() - begun)

        progress = Progress("aircraft replayed", len(tails))
        begun = time.perf_counter()
        replayed: dict[str, Aircraft] = {}
        for number, tail in enumerate(tails):
            replayed[tail] = shop[Aircraft, tail].state
            progress.at(number)
        rate("events replayed, every aircraft", stored, time.perf_counter() - begun)
        progress.finish()
        after = {tail: plain(state) for tail, state in replayed.items()}

        begun = time.perf_counter()
        totals = Totals(csv, limit, refusals.rows)
        rate("rows of the CSV summed up", len(flights), time.perf_counter() - begun)

        show_refusals(refusals)
        show_punctuality(shop, airlines(csv))
        show_routes_and_hours(shop)
        show_one_aircraft(shop, checks)

        different = [tail for tail in tails if before[tail] != after[tail]]
        checks.equal("aircraft that differ after replay", different, [], f"none of {len(tails):,}")
        checks.equal("events in the file", sum(types.values()), stored)
        checks.equal("events that the CSV's rows should give", sum(types.values()), totals.events)
        no_aircraft = {n for n, flight in enumerate(flights) if flight.tail == NO_AIRCRAFT}
        overlapping = in_two_places(flights)
        checks.equal(
            "flights refused in the data: no aircraft, or in two places at once",
            refusals.rows,
            no_aircraft | overlapping,
            f"{len(no_aircraft):,} and {len(overlapping):,}",
        )
        checks.equal(
            "impossible commands refused",
            sum(refusals.on_purpose.values()),
            refusals.tried_on_purpose,
        )
        check_read_models(shop, totals, checks)

    section("Events by type")
    table(("type", "events"), types.most_common())
    section("Checks")
    table(("", "what", ">found"), checks.lines)
    section("Rates")
    table(
        ("what", "count", "seconds", "a second"),
        [(w, c, f"{s:.2f}", int(r)) for w, c, s, r in rates],
    )
    print(f"\n  the read models were level {1000 * waited:,.0f} ms after the last reply")
    print(f"  opening the file again: {1000 * opened:,.0f} ms")
    print(f"  the file: {size / 2**20:,.0f} MiB, {size / max(stored, 1):,.0f} bytes an event")
    print(f"  all in all: {time.perf_counter() - started:,.1f} s")
    if checks.failed:
        print(f"\n{checks.failed} checks FAILED", file=sys.stderr)
    return 1 if checks.failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A year of flights, as commands, events and read models."
    )
    parser.add_argument("--limit", type=int, metavar="ROWS", help="take the CSV's first rows only")
    parser.add_argument("--file", type=Path, help="keep the store there; must not exist yet")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    try:
        source = csv_path()
    except MissingData as error:
        sys.exit(str(error))
    if given.file is not None:
        if given.file.exists():
            sys.exit(f"{given.file} exists; the year is told once, into a new file")
        sys.exit(main(given.file, source, given.limit))
    with tempfile.TemporaryDirectory(prefix="escqrs-") as folder:
        status = main(Path(folder) / "flights.db", source, given.limit)
    sys.exit(status)
