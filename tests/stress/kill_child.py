"""The program that the kill loop kills: it sends commands in every way there is, and prints what it
was promised.

    python kill_child.py FILE ROUND SEED SECONDS

Each line is written at once, so what stands there was acknowledged before the process died:

    ready                            the file is open
    A tally sender number            the command was answered; the sender's earlier ones to it too
    K tally sender number reply      the same, of a command that was sent with a key
    S tally events                   a state with so many events was shown
    E text                           something that must not happen
    closed                           it was not killed in time, and has closed the file

The commands of a sender to a tally are numbered from 1, and a tally insists on that order.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import escqrs as es

TALLIES = [f"tally-{number}" for number in range(6)]
PARTS_MAX = 4
WINDOW = 64


class Record(es.Command[int]):
    """Answers how many events the tally has then."""

    sender: str
    number: int
    parts: int
    amount: int


class Fail(es.Command[int]):
    """Emits, and is refused all the same."""

    sender: str


class Counted(es.Event):
    """One of the `parts` events of a command."""

    tally: str
    sender: str
    number: int
    part: int
    parts: int
    amount: int


class Tally(es.Aggregate, snapshot_every=7):
    events: int
    total: int
    last: dict[str, int]  # by sender, the number of its last command

    @es.handles
    def record(self, cmd: Record) -> int:
        if cmd.number != self.last.get(cmd.sender, 0) + 1:
            raise RuntimeError(
                f"{self.id}: {cmd.sender} sent {cmd.number} after {self.last.get(cmd.sender, 0)}"
            )
        for part in range(cmd.parts):
            self.emit(Counted(self.id, cmd.sender, cmd.number, part, cmd.parts, cmd.amount))
        return self.events

    @es.handles
    def fail(self, cmd: Fail) -> int:
        for part in range(2):
            self.emit(Counted(self.id, cmd.sender, 1, part, 2, 1))
        raise es.Rejected("as always")

    @es.applies
    def recorded(self, event: Counted) -> None:
        self.events += 1
        self.total += event.amount
        self.last[event.sender] = event.number


class Totals(es.ReadModel):
    """Kept by SQL, in C."""

    schema = (
        "CREATE TABLE totals"
        " (tally TEXT PRIMARY KEY, events INTEGER NOT NULL, total INTEGER NOT NULL)"
    )
    on_recorded = es.sql(
        Counted,
        "INSERT INTO totals VALUES (:tally, 1, :amount) ON CONFLICT (tally) DO UPDATE"
        " SET events = events + 1, total = total + excluded.total",
    )

    @es.query
    def all(self, db: es.Rows) -> dict[str, tuple[int, int]]:
        return {row[0]: (row[1], row[2]) for row in db.execute("SELECT * FROM totals")}


class Senders(es.ReadModel):
    """Kept by Python."""

    schema = (
        "CREATE TABLE senders (tally TEXT NOT NULL, sender TEXT NOT NULL, number INTEGER NOT NULL,"
        " events INTEGER NOT NULL, PRIMARY KEY (tally, sender))"
    )

    @es.on(Counted)
    def on_recorded(self, db: es.Rows, event: Counted) -> None:
        db.execute(
            "INSERT INTO senders VALUES (?, ?, ?, 1) ON CONFLICT (tally, sender) DO UPDATE"
            " SET events = events + 1, number = excluded.number",
            (event.tally, event.sender, event.number),
        )

    @es.query
    def all(self, db: es.Rows) -> dict[tuple[str, str], tuple[int, int]]:
        return {(row[0], row[1]): (row[2], row[3]) for row in db.execute("SELECT * FROM senders")}


CLASSES = (Tally, Totals, Senders)


def say(line: str) -> None:
    os.write(1, (line + "\n").encode())  # one write: a whole line or none


class Sender:
    """Numbers the commands of one way of sending."""

    def __init__(self, system: es.System, name: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.name = name
        self.sent: Counter[str] = Counter()
        self.tallies = {tally: system[Tally, tally] for tally in TALLIES}

    def next(self) -> tuple[str, Record]:
        tally = self.random.choice(TALLIES)
        self.sent[tally] += 1
        parts = self.random.randint(1, PARTS_MAX)
        return tally, Record(self.name, self.sent[tally], parts, self.random.randint(1, 99))


Stopped = Callable[[], bool]


def ask(system: es.System, sender: Sender, stopped: Stopped) -> None:
    while not stopped():
        tally, command = sender.next()
        handle = sender.tallies[tally]
        what = f"{tally} {sender.name} {command.number}"
        if sender.random.random() < 0.2:
            reply = handle.ask(command, key=f"{sender.name}-{command.number}")
            say(f"K {what} {reply}")
        else:
            handle.ask(command)
            say(f"A {what}")
        if sender.random.random() < 0.1:
            try:
                handle.ask(Fail(f"{sender.name}-fail"))
                say("E a refused command was answered")
            except es.Rejected:
                pass


def submit(system: es.System, sender: Sender, stopped: Stopped) -> None:
    waiting: deque[tuple[str, int, es.Reply[int]]] = deque()
    while not stopped():
        tally, command = sender.next()
        waiting.append((tally, command.number, sender.tallies[tally].submit(command)))
        if len(waiting) == WINDOW:
            while len(waiting) > WINDOW // 4:
                tally, number, reply = waiting.popleft()
                reply.result()
                say(f"A {tally} {sender.name} {number}")


def tell(system: es.System, sender: Sender, stopped: Stopped) -> None:
    while not stopped():
        for _ in range(sender.random.randint(1, 30)):
            tally, command = sender.next()
            sender.tallies[tally].tell(command)
        system.flush()
        for tally, number in sender.sent.items():
            say(f"A {tally} {sender.name} {number}")


def in_tasks(system: es.System, sender: Sender, stopped: Stopped) -> None:
    async def client() -> None:
        while not stopped():
            tally, command = sender.next()
            await sender.tallies[tally].submit(command)
            say(f"A {tally} {sender.name} {command.number}")

    async def clients() -> None:
        await asyncio.gather(*(client() for _ in range(8)))

    asyncio.run(clients())


def look(system: es.System, sender: Sender, stopped: Stopped) -> None:
    while not stopped():
        for tally, handle in sender.tallies.items():
            say(f"S {tally} {handle.state.events}")


def main(file: Path, round_number: int, seed: int, seconds: float) -> None:
    failed = threading.Event()
    with es.open(file, *CLASSES) as system:
        say("ready")
        end = time.monotonic() + seconds

        def stopped() -> bool:
            return failed.is_set() or time.monotonic() >= end

        def run(way: Callable[[es.System, Sender, Stopped], None], sender: Sender) -> None:
            try:
                way(system, sender, stopped)
            except BaseException as error:
                say(f"E {sender.name}: {type(error).__name__}: {error}".replace("\n", " "))
                failed.set()

        threads = [
            threading.Thread(
                target=run, args=(way, Sender(system, f"{way.__name__}-{round_number}", seed + i))
            )
            for i, way in enumerate((ask, submit, tell, in_tasks, look))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    say("closed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
