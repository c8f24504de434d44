"""The kill loop: a program that prints what it was promised is killed at random moments.

After each kill the file is whole, all that was acknowledged is there, each command's events are all
there or none, versions and positions have no gaps, states and read models equal the fold of the
events.

ESCQRS_KILL_ROUNDS    how many kills (200; 10,000 with ESCQRS_STRESS=long, on all processors)
ESCQRS_KILL_SEED      repeats the moments and the commands of an earlier run, whose seed was printed
"""

from __future__ import annotations

import os
import random
import select
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import escqrs as es
import kill_child
from kill_child import CLASSES, TALLIES, Counted, Record, Senders, Tally, Totals

ROUNDS = int(
    os.environ.get("ESCQRS_KILL_ROUNDS")
    or (10_000 if os.environ.get("ESCQRS_STRESS") == "long" else 200)
)
ROUNDS_A_FILE = 8  # then a new file, so that what is checked stays small
CHILD_SECONDS_MAX = 0.25  # how long a child lives that is to close the file itself
CHILD_SECONDS_ENDLESS = 3600.0  # one that is killed, however late that is
CLOSES = 0.3  # how many are of the first kind
KILL_AFTER_SECONDS_MAX = 0.15  # after it is ready
START_SECONDS_MAX = 300.0


class Promises:
    """What children that are dead now were told."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, str], int] = {}  # (tally, sender) -> its last acknowledged
        self.keyed: list[tuple[str, str, int, int]] = []  # tally, sender, number, reply
        self.seen: Counter[str] = Counter()  # tally -> events that were shown

    def take(self, line: str) -> None:
        kind, *words = line.split(" ")
        if kind in ("A", "K"):
            tally, sender, number = words[0], words[1], int(words[2])
            self.numbers[tally, sender] = max(number, self.numbers.get((tally, sender), 0))
            if kind == "K":
                self.keyed.append((tally, sender, number, int(words[3])))
        elif kind == "S":
            self.seen[words[0]] = max(self.seen[words[0]], int(words[1]))
        elif kind not in ("ready", "closed"):
            raise AssertionError(f"the child said: {line}")


class Fold:
    """What the stored events amount to, made here from the feed alone."""

    def __init__(self, system: es.System) -> None:
        self.events: Counter[str] = Counter()
        self.total: Counter[str] = Counter()
        self.last: dict[tuple[str, str], int] = {}
        self.of_sender: Counter[tuple[str, str]] = Counter()
        self.head = 0
        open_command: tuple[str, str, int, int] | None = None  # tally, sender, number, next part
        for recorded in system.events():
            event = recorded.event
            assert isinstance(event, Counted)
            tally, sender = event.tally, event.sender
            assert recorded.position == self.head + 1, "positions have a gap"
            assert recorded.stream == f"Tally/{tally}"
            assert recorded.version == self.events[tally] + 1, f"versions of {tally} have a gap"
            assert not sender.endswith("-fail"), "a refused command left an event"
            if event.part == 0:
                assert open_command is None, f"half a command is stored: {open_command}"
                assert event.number == self.last.get((tally, sender), 0) + 1, (
                    f"{tally}: {sender}'s command {event.number} follows"
                    f" {self.last.get((tally, sender), 0)}"
                )
            else:
                assert open_command == (tally, sender, event.number, event.part)
            more = event.part + 1 < event.parts
            open_command = (tally, sender, event.number, event.part + 1) if more else None
            self.head = recorded.position
            self.events[tally] += 1
            self.total[tally] += event.amount
            self.last[tally, sender] = event.number
            self.of_sender[tally, sender] += 1
        assert open_command is None, f"half a command is stored at the end: {open_command}"


def live_and_die(file: Path, number: int, chance: random.Random, promises: Promises) -> str:
    """Start a child, kill it at some moment, take what it was promised; return how far it came."""
    seed = chance.randrange(1 << 30)
    closes = chance.random() < CLOSES  # unless it is killed before
    seconds = chance.uniform(0.05, CHILD_SECONDS_MAX) if closes else CHILD_SECONDS_ENDLESS
    child = subprocess.Popen(
        [sys.executable, kill_child.__file__, str(file), str(number), str(seed), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    early = chance.random() < 0.1  # somewhere in import, opening and recovery
    moment = time.monotonic() + (chance.uniform(0, 0.3) if early else START_SECONDS_MAX)
    after_ready = chance.uniform(0, KILL_AFTER_SECONDS_MAX)
    lines = b""
    ready = False
    try:
        while (left := moment - time.monotonic()) > 0:
            if not select.select([child.stdout], [], [], left)[0]:
                break
            piece = os.read(child.stdout.fileno(), 1 << 16)
            if not piece:  # it has ended by itself
                child.wait(timeout=START_SECONDS_MAX)
                break
            lines += piece
            if not ready and lines.startswith(b"ready\n"):
                ready = True
                moment = min(moment, time.monotonic() + after_ready)
        assert ready or early or child.poll() is not None, "the child did not open the file"
    finally:
        child.kill()
        rest, errors = child.communicate()
    text = (lines + rest).decode()
    for line in text.split("\n")[:-1]:  # what is behind the last end of line was not written whole
        promises.take(line)
    if child.returncode == 0:
        assert text.endswith("closed\n")
        return "closed"
    assert child.returncode == -9, f"the child failed: {errors.decode()[-2000:]}"
    return "killed" if ready else "killed while it opened"


def check(file: Path, promises: Promises) -> int:
    """Open what the dead have left, and hold it against what they were promised."""
    with es.open(file, *CLASSES) as system:
        system.flush()
        fold = Fold(system)
        for (tally, sender), number in promises.numbers.items():
            assert fold.last.get((tally, sender), 0) >= number, (
                f"{tally}: {sender}'s command {number} was acknowledged and is lost"
            )
        for tally, shown in promises.seen.items():
            assert fold.events[tally] >= shown, f"{tally}: {shown} events were shown"
        for tally in TALLIES:
            state = system[Tally, tally].state
            assert state.events == fold.events[tally]
            assert state.total == fold.total[tally]
            assert dict(state.last) == {
                sender: number for (name, sender), number in fold.last.items() if name == tally
            }
        assert system[Totals].all() == {
            tally: (fold.events[tally], fold.total[tally]) for tally in fold.events
        }
        assert system[Senders].all() == {
            who: (fold.last[who], fold.of_sender[who]) for who in fold.last
        }
        for tally, sender, number, reply in promises.keyed[-5:]:
            repeated = system[Tally, tally].ask(
                Record(sender, number, 1, 1), key=f"{sender}-{number}"
            )
            assert repeated == reply, "a repeated key got another answer"
        if promises.keyed:
            assert sum(1 for _ in system.events(after=fold.head)) == 0, "a repeated key was stored"
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        database.close()
    return fold.head


def one_file(folder: Path, first: int, seed: int) -> tuple[Counter[str], int, int]:
    """The rounds of one file, whose moments follow from the seed and from which rounds they are;
    how they ended, commands acknowledged, events stored."""
    chance = random.Random(f"{seed}/{first}")
    file = folder / f"tallies-{first}.db"
    promises = Promises()
    ends: Counter[str] = Counter()
    head = 0
    for number in range(first, min(first + ROUNDS_A_FILE, ROUNDS)):
        try:
            ends[live_and_die(file, number, chance, promises)] += 1
            head = check(file, promises)
        except BaseException:
            print(f"round {number} of seed {seed}; the file is {file}")
            raise
    for old in folder.glob(file.name + "*"):
        old.unlink()
    return ends, sum(promises.numbers.values()), head


@pytest.mark.timeout(60 + 15 * ROUNDS)  # a second each where nothing else runs
def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    seed = int(os.environ.get("ESCQRS_KILL_SEED") or random.SystemRandom().randrange(1 << 30))
    print(f"seed {seed}: ESCQRS_KILL_SEED={seed} ESCQRS_KILL_ROUNDS={ROUNDS} repeats it")
    ends: Counter[str] = Counter()
    promised = stored = 0
    with ThreadPoolExecutor(os.cpu_count()) as lanes:
        files = [
            lanes.submit(one_file, tmp_path, first, seed)
            for first in range(0, ROUNDS, ROUNDS_A_FILE)
        ]
        try:
            for each in files:
                found, acknowledged, events = each.result()
                ends += found
                promised += acknowledged
                stored += events
        except BaseException:
            lanes.shutdown(cancel_futures=True)
            raise
    print(
        f"{ROUNDS} rounds: {dict(ends)},"
        f" {promised:,} commands acknowledged, {stored:,} events stored"
    )
    assert ROUNDS < 100 or ends["killed"] > 0.1 * ROUNDS  # those that would not end by themselves
