"""The peer: the PyPI package `eventsourcing` (9.5 or later) with its SQLite recorder.

Its durability is made the engine's own: WAL, which it sets itself, and PRAGMA synchronous=FULL on
each connection. It gets its best: the aggregate cache on, neither fast-forwarded nor copied, since
there is one writer (the rows that load an aggregate from disk run without the cache).

Its SQLite recorder has no `subscribe`, which its ProjectionRunner needs; `Recorder` adds the few
lines with its own `ListenNotifySubscription`, as its in-memory recorder has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import ListenNotifySubscription, Tracking
from eventsourcing.projection import Projection
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteTrackingRecorder,
)

_create_connection = SQLiteConnectionPool._create_connection


def _create_durable_connection(self: SQLiteConnectionPool) -> SQLiteConnection:
    connection = _create_connection(self)
    connection._sqlite_conn.execute("PRAGMA synchronous=FULL")
    return connection


SQLiteConnectionPool._create_connection = _create_durable_connection  # type: ignore[method-assign]


class Recorder(SQLiteApplicationRecorder):
    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Any:
        return ListenNotifySubscription(recorder=self, gt=gt, topics=topics)


class Cart(Aggregate):
    class Created(Aggregate.Created):
        number: int

    @event(Created)
    def __init__(self, number: int) -> None:
        self.items: dict[str, int] = {}

    @staticmethod
    def create_id(number: int) -> UUID:
        return uuid5(NAMESPACE_URL, f"/carts/{number}")

    @event("ItemAdded")
    def _add(self, item_id: str, name: str, quantity: int) -> None:
        self.items[name] = quantity

    def add(self, item_id: str, name: str, quantity: int) -> str:
        if name in self.items:
            raise ValueError(f"item {name} already exists")
        self._add(item_id, name, quantity)
        return item_id


class Account(Aggregate):
    class Created(Aggregate.Created):
        number: int

    @event(Created)
    def __init__(self, number: int) -> None:
        self.balance = 0

    @staticmethod
    def create_id(number: int) -> UUID:
        return uuid5(NAMESPACE_URL, f"/accounts/{number}")

    @event("Deposited")
    def deposit(self, amount: int, note: str) -> None:
        self.balance += amount


class ItemsView(SQLiteTrackingRecorder):
    """The read model: a row for each item, inserted with the tracking in one transaction."""

    def construct_create_table_statements(self) -> list[str]:
        return [
            *super().construct_create_table_statements(),
            "CREATE TABLE IF NOT EXISTS items"
            " (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, quantity INTEGER NOT NULL)",
        ]

    def add(self, item_id: str, name: str, quantity: int, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute("INSERT INTO items VALUES (?, ?, ?)", (item_id, name, quantity))


class ItemsProjection(Projection[ItemsView]):
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        if type(domain_event) is Cart.ItemAdded:  # type: ignore[attr-defined]
            self.view.add(domain_event.item_id, domain_event.name, domain_event.quantity, tracking)
        else:
            self.view.insert_tracking(tracking)


class Shop(Application):
    snapshotting_intervals = None


def environment(path: object, cached: bool) -> dict[str, str]:
    """Return the environment for an application or a projection on that file."""
    settings = {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "SQLITE_DBNAME": str(path),
        "APPLICATION_RECORDER_TOPIC": f"{__name__}:Recorder",
    }
    if cached:
        settings |= {
            "AGGREGATE_CACHE_MAXSIZE": "10000",
            "AGGREGATE_CACHE_FASTFORWARD": "n",
            "DEEPCOPY_FROM_AGGREGATE_CACHE": "n",
        }
    return settings


def shop(path: object, *, cached: bool) -> Shop:
    return Shop(environment(path, cached))
