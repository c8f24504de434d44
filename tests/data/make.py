"""Makes ``format-N.db``, a file of this format with everything in it, and ``format-N.json``, what
it says. Run when a format is released; the files are kept as they are from then on.

    python tests/data/make.py
"""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import escqrs as es

FOLDER = Path(__file__).parent
STREAM_EVENTS = 130  # more than one row of the index has


class Opened(es.Event, name="data.Opened"):
    owner: str
    limit: int = 0


class Moved(es.Event, name="data.Moved"):
    amount: int
    note: str = ""


class Open(es.Command[str]):
    owner: str


class Move(es.Command[int]):
    amount: int
    times: int = 1


class Account(es.Aggregate, name="data.Account", snapshot_every=10, snapshot_keep=3):
    owner: str
    balance: int

    @es.handles
    def open(self, cmd: Open) -> str:
        self.emit(Opened(cmd.owner, 100))
        return self.owner

    @es.handles
    def move(self, cmd: Move) -> int:
        for _ in range(cmd.times):
            self.emit(Moved(cmd.amount, "mövé"))
        return self.balance

    @es.applies
    def opened(self, event: Opened) -> None:
        self.owner = event.owner

    @es.applies
    def moved(self, event: Moved) -> None:
        self.balance += event.amount


class Balances(es.ReadModel, name="data.Balances"):
    schema = "CREATE TABLE balances (account TEXT PRIMARY KEY, balance INTEGER NOT NULL)"
    on_opened = es.sql(Opened, "INSERT INTO balances VALUES (:_stream, 0)")
    on_moved = es.sql(
        Moved, "UPDATE balances SET balance = balance + :amount WHERE account = :_stream"
    )

    @es.query
    def all(self, db: es.Rows) -> list[tuple[str, int]]:
        return db.execute("SELECT * FROM balances ORDER BY account").fetchall()


def fill(path: Path) -> None:
    with es.open(path, Account, Balances, chain=True) as shop:
        for owner in ("ann", "bob"):
            account = shop[Account, owner]
            account.ask(Open(owner), key="opening", metadata={"by": "maker", "ü": "ö"})
            account.ask(Move(5, times=3), correlation_id="trace-1")
        for _ in range(STREAM_EVENTS):
            shop[Account, "ann"].ask(Move(1))
        shop.flush()
    with es.open(path, Account, Balances) as shop:
        store = shop.store
        raw = es.NewEvent("Raw", b"\x00\xff", id="my-id", tags=["room-7", "vip"])
        other = es.NewEvent(
            "Raw", b"", id="0190f1a5-0000-7000-8000-000000000001", causation_id="cause"
        )
        store.commit(
            [es.Write("raw/é", [raw, other]), es.Write("raw/b", [es.NewEvent("Raw", b"b")])],
            condition=es.Unless(es.Match(tags=["room-7"])),
            checkpoint=("billing", 3),
            key="commit-1",
        )
        store.save_snapshot("raw/b", 1, "State", b"state")
        store.append("gone", [es.NewEvent("Raw", b"gone")] * 3)
        store.append("shorter", [es.NewEvent("Raw", b"%d" % number) for number in range(4)])
        shop.flush()  # the read model has passed what goes
        store.truncate("shorter", 2, force=True)
        store.delete("gone")
        store.append("raw/b", [es.NewEvent("Raw", b"b")])


def left(store: es.Store) -> Iterator[es.Recorded]:
    """The events that were not deleted."""
    after = 0
    while after < store.head:
        try:
            for recorded in store.events(after=after):
                yield recorded
                after = recorded.position
        except es.Deleted as error:
            assert error.position is not None
            after = error.position


def told(path: Path) -> dict[str, Any]:
    """All that the file says, as JSON has it."""
    with es.Store(path, readonly=True) as store:
        events = [
            {
                "position": one.position,
                "stream": one.stream,
                "version": one.version,
                "type": one.type,
                "time": one.time.isoformat(timespec="microseconds"),
                "id": one.id,
                "correlation_id": one.correlation_id,
                "causation_id": one.causation_id,
                "metadata": dict(one.metadata),
                "tags": list(one.tags),
                "data": base64.b64encode(one.data).decode(),
            }
            for one in left(store)
        ]
        streams = dict(store.streams())
        counts = vars(store.stats())
        snapshots = []
        for stream in streams:
            found = store.snapshot(stream)
            while found is not None:
                data = base64.b64encode(found.data).decode()
                snapshots.append([stream, found.version, data])
                found = store.snapshot(stream, upto=found.version - 1)
        return {
            "events": events,
            "streams": streams,
            "snapshots": snapshots,
            "checkpoint": store.checkpoint("billing"),
            "chain": store.chain_hash(),
            "keys": counts["keys"],
            "tags": counts["tags"],
            "ids": counts["ids"],
            "created": counts["created"].isoformat(),
            "types": dict(counts["types"]),
        }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.db"
        fill(made)
        with sqlite3.connect(made) as db:
            (number,) = db.execute("PRAGMA user_version").fetchone()
        path = FOLDER / f"format-{number}.db"
        if path.exists():
            raise SystemExit(f"{path} is kept as it is")
        shutil.copyfile(made, path)
        text = json.dumps(told(made), indent=1, ensure_ascii=False)
        path.with_suffix(".json").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
