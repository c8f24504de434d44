"""Random lives of a store beside a plain Python model: commands of every kind, refusals,
failures, eviction, snapshots, reopening, and everything read back."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from hypothesis.stateful import run_state_machine_as_test as run
from support import SECONDS


class Line(es.Message):
    text: str
    weight: float = 1.0


class Put(es.Command[int]):
    key: str
    amount: int
    line: Line | None = None


class PutAll(es.Command[int]):
    amounts: dict[str, int]
    fail_after: int = -1


class Move(es.Command[str]):
    """Take from oneself, and give to another: by asking it, or by telling."""

    to: str
    key: str
    amount: int
    how: str
    fail: bool = False


class Drop(es.Command):
    key: str


class Look(es.Command[dict[str, int]]):
    pass


class Sort(es.Command):
    pass


class Meddle(es.Command):
    """Change the state in the handler, which cannot be."""

    key: str
    after: bool


class Was(es.Event):
    key: str
    amount: int
    line: Line | None = None


class Dropped(es.Event):
    key: str


class Sorted(es.Event):
    pass


class Store(es.Aggregate):
    amounts: dict[str, int]
    keys: list[str]
    lines: list[Line]
    last: str | None = None

    @es.handles
    def put(self, cmd: Put) -> int:
        if cmd.amount == 0:
            raise es.Rejected("nothing to put")
        self.emit(Was(cmd.key, cmd.amount, cmd.line))
        return self.amounts[cmd.key]

    @es.handles
    def put_all(self, cmd: PutAll) -> int:
        for i, (key, amount) in enumerate(cmd.amounts.items()):
            if i == cmd.fail_after:
                raise LookupError(key)
            self.emit(Was(key, amount))
        return self.version

    @es.handles
    def move(self, cmd: Move) -> str:
        if self.amounts.get(cmd.key, 0) < cmd.amount:
            raise es.Rejected(f"only {self.amounts.get(cmd.key, 0)}")
        self.emit(Was(cmd.key, -cmd.amount))
        other = self.system[type(self), cmd.to]
        if cmd.how == "ask":
            other.ask(Put(cmd.key, cmd.amount))
        elif cmd.how == "tell":
            other.tell(Put(cmd.key, cmd.amount))
        else:
            other.submit(Put(cmd.key, cmd.amount))
        if cmd.fail:
            raise ArithmeticError("after sending")
        return cmd.to

    @es.handles
    def drop(self, cmd: Drop) -> None:
        if cmd.key in self.amounts:
            self.emit(Dropped(cmd.key))

    @es.handles
    def look(self, cmd: Look) -> dict[str, int]:
        return self.amounts

    @es.handles
    def sort(self, cmd: Sort) -> None:
        self.emit(Sorted())

    @es.handles
    def meddle(self, cmd: Meddle) -> None:
        if cmd.after:
            self.emit(Was(cmd.key, 1))
            self.keys.append(cmd.key)
        self.amounts[cmd.key] = 7

    @es.applies
    def was(self, event: Was) -> None:
        total = self.amounts.get(event.key, 0) + event.amount
        if abs(total) > 1000:
            raise OverflowError(f"{event.key}: {total}")
        self.amounts[event.key] = total
        self.keys.append(event.key)
        if event.line is not None:
            self.lines.append(event.line)
        self.last = event.key

    @es.applies
    def dropped(self, event: Dropped) -> None:
        del self.amounts[event.key]
        self.last = None

    @es.applies
    def sorted(self, event: Sorted) -> None:
        self.keys = sorted(self.keys)
        before, self.amounts = self.amounts, {}
        self.amounts |= before


def snapshotting(every: int) -> Any:
    """The same aggregate, with snapshots every so many events."""
    return type(
        "Store",
        (Store,),
        {"__module__": __name__, "__qualname__": f"Store{every}"},
        snapshot_every=every,
    )


class Model:
    """What a store has to be, in plain Python."""

    def __init__(self) -> None:
        self.streams: dict[str, list[Any]] = {}
        self.order: list[tuple[str, Any]] = []
        self.keys: dict[tuple[str, str], Any] = {}

    def fold(
        self, id: str, version: int | None = None
    ) -> tuple[dict[str, int], list[str], list[Line], str | None]:
        amounts: dict[str, int] = {}
        keys: list[str] = []
        lines: list[Line] = []
        last: str | None = None
        for event in self.streams.get(id, [])[:version]:
            if isinstance(event, Was):
                amounts[event.key] = amounts.get(event.key, 0) + event.amount
                keys.append(event.key)
                if event.line is not None:
                    lines.append(event.line)
                last = event.key
            elif isinstance(event, Dropped):
                del amounts[event.key]
                last = None
            else:
                keys.sort()
        return amounts, keys, lines, last

    def add(self, id: str, *events: Any) -> bool:
        """False, and nothing added, if one of them does not apply."""
        amounts = self.fold(id)[0]
        for event in events:
            if isinstance(event, Was):
                amounts[event.key] = amounts.get(event.key, 0) + event.amount
                if abs(amounts[event.key]) > 1000:
                    return False
            elif isinstance(event, Dropped):
                del amounts[event.key]
        for event in events:
            self.streams.setdefault(id, []).append(event)
            self.order.append((id, event))
        return True


IDS = st.sampled_from(["a", "b", "c", "ä/ö"])
KEYS = st.sampled_from(["x", "y", ""])
AMOUNTS = st.integers(-600, 600)
LINES = st.none() | st.builds(Line, st.text(max_size=5), st.floats(allow_nan=False))
SEND = st.sampled_from(["ask", "submit", "tell"])


class Life(RuleBasedStateMachine):
    replies = Bundle("replies")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="escqrs-life-"))
        self.model = Model()

    @initialize(every=st.integers(0, 3), limit=st.sampled_from([1, 2, 100]))
    def begin(self, every: int, limit: int) -> None:
        self.limit = limit
        self.open(every)

    def open(self, every: int) -> None:
        self.aggregate = snapshotting(every)
        self.system = es.open(
            self.folder / "life.db", self.aggregate, max_entities=self.limit, durability="normal"
        )

    def teardown(self) -> None:
        if hasattr(self, "system"):
            self.system.close()
            with es.open(self.folder / "life.db", self.aggregate) as self.system:
                self.everything_is_as_in_the_model()
        shutil.rmtree(self.folder)

    def send(self, id: str, command: Any, how: str, **options: Any) -> Any:
        """The outcome: a value or an exception; None for what is told."""
        handle = self.system[self.aggregate, id]
        try:
            if how == "ask":
                return handle.ask(command, **options)
            if how == "submit":
                return handle.submit(command, **options).result(SECONDS)
        except Exception as error:
            return error
        before = len(self.system.dead_letters)
        handle.tell(command, **options)
        self.system.flush()
        return (
            self.system.dead_letters[-1].error if len(self.system.dead_letters) > before else None
        )

    @rule(id=IDS, key=KEYS, amount=AMOUNTS, line=LINES, how=SEND)
    def put(self, id: str, key: str, amount: int, line: Line | None, how: str) -> None:
        outcome = self.send(id, Put(key, amount, line), how)
        if amount == 0:
            assert isinstance(outcome, es.Rejected)
        elif not self.model.add(id, Was(key, amount, line)):
            assert isinstance(outcome, OverflowError)
        elif how != "tell":
            assert outcome == self.model.fold(id)[0][key]

    @rule(id=IDS, how=SEND)
    def sort(self, id: str, how: str) -> None:
        assert self.send(id, Sort(), how) is None
        self.model.add(id, Sorted())

    @rule(id=IDS, key=KEYS, after=st.booleans(), how=SEND)
    def meddle(self, id: str, key: str, after: bool, how: str) -> None:
        outcome = self.send(id, Meddle(key, after), how)
        assert isinstance(outcome, (AttributeError, OverflowError))

    @rule(
        id=IDS,
        amounts=st.dictionaries(KEYS, AMOUNTS, max_size=3),
        fail=st.integers(-1, 3),
        how=SEND,
    )
    def put_all(self, id: str, amounts: dict[str, int], fail: int, how: str) -> None:
        outcome = self.send(id, PutAll(amounts, fail), how)
        events = [Was(key, amount) for key, amount in amounts.items()]
        if 0 <= fail < len(events):
            copy = Model()
            copy.streams[id] = list(self.model.streams.get(id, []))
            assert isinstance(
                outcome, LookupError if copy.add(id, *events[:fail]) else OverflowError
            )
        elif not self.model.add(id, *events):
            assert isinstance(outcome, OverflowError)
        elif how != "tell":
            assert outcome == len(self.model.streams.get(id, []))

    @rule(
        id=IDS,
        to=IDS,
        key=KEYS,
        amount=st.integers(1, 600),
        inner=SEND,
        how=SEND,
        fail=st.booleans(),
    )
    def move(
        self, id: str, to: str, key: str, amount: int, inner: str, how: str, fail: bool
    ) -> None:
        have = self.model.fold(id)[0].get(key, 0)
        outcome = self.send(id, Move(to, key, amount, inner, fail), how)
        self.system.flush()
        if have < amount:
            assert isinstance(outcome, es.Rejected)
            return
        give, take = Was(key, -amount), Was(key, amount)
        if inner == "ask":
            if to == id:
                assert isinstance(outcome, es.Deadlock)
                return
            received = self.model.add(to, take)
            if not received:
                assert isinstance(outcome, OverflowError)
            elif fail:
                assert isinstance(outcome, ArithmeticError)
            else:
                assert self.model.add(id, give)
                assert outcome == (None if how == "tell" else to)
        elif fail:
            assert isinstance(outcome, ArithmeticError)
        else:
            assert self.model.add(id, give)
            self.model.add(to, take)
            if how != "tell":
                assert outcome == to

    @rule(id=IDS, key=KEYS, how=SEND)
    def drop(self, id: str, key: str, how: str) -> None:
        assert self.send(id, Drop(key), how) is None
        if key in self.model.fold(id)[0]:
            self.model.add(id, Dropped(key))

    @rule(
        id=IDS,
        key=KEYS,
        amount=AMOUNTS,
        name=st.sampled_from(["k1", "k2", "k3"]),
        how=st.sampled_from(["ask", "submit"]),
    )
    def put_with_key(self, id: str, key: str, amount: int, name: str, how: str) -> None:
        outcome = self.send(id, Put(key, amount), how, key=name)
        if (id, name) in self.model.keys:
            assert outcome == self.model.keys[id, name]
        elif amount == 0:
            assert isinstance(outcome, es.Rejected)
        elif not self.model.add(id, Was(key, amount)):
            assert isinstance(outcome, OverflowError)
        else:
            assert outcome == self.model.fold(id)[0][key]
            self.model.keys[id, name] = outcome

    @rule(ids=st.lists(IDS, max_size=12), amount=st.integers(1, 20))
    def many_at_once(self, ids: list[str], amount: int) -> None:
        """In flight together: each entity's in order; between entities in any order."""
        replies = [(id, self.system[self.aggregate, id].submit(Put("many", amount))) for id in ids]
        for id, reply in replies:
            if self.model.add(id, Was("many", amount)):
                assert reply.result(SECONDS) == self.model.fold(id)[0]["many"]
            else:
                assert isinstance(reply.exception(SECONDS), OverflowError)
        # the order between entities is the store's
        head = len(self.model.order)
        del self.model.order[head:]
        added = [(one.stream.partition("/")[2], one.event) for one in self.system.events()]
        assert sorted(map(repr, added)) == sorted(map(repr, self.model.order))
        self.model.order = added

    @rule(id=IDS)
    def look(self, id: str) -> None:
        assert self.system[self.aggregate, id].ask(Look()) == self.model.fold(id)[0]
        assert (
            self.system[self.aggregate, id].submit(Look()).result(SECONDS) == self.model.fold(id)[0]
        )

    @rule(id=IDS, data=st.data())
    def state_at(self, id: str, data: Any) -> None:
        count = len(self.model.streams.get(id, []))
        version = data.draw(st.integers(0, count))
        state = self.system[self.aggregate, id].state_at(version)
        assert (state.amounts, state.keys, state.lines, state.last) == self.model.fold(id, version)
        assert state.version == version
        with pytest.raises(ValueError):
            self.system[self.aggregate, id].state_at(count + 1)

    @rule(every=st.integers(0, 3))
    def reopen(self, every: int) -> None:
        self.system.close()
        self.open(every)

    @rule()
    @precondition(lambda self: self.model.order)
    def read_beside(self) -> None:
        with es.open(self.folder / "life.db", self.aggregate, readonly=True) as reader:
            self.compare(reader)

    @invariant()
    def everything_is_as_in_the_model(self) -> None:
        if hasattr(self, "system"):
            self.compare(self.system)

    def compare(self, system: es.System) -> None:
        system.flush()
        events = list(system.events())
        assert [(one.stream, one.event) for one in events] == [
            (f"Store/{id}", event) for id, event in self.model.order
        ]
        assert [one.position for one in events] == list(range(1, len(events) + 1))
        assert system.head == len(events)
        for id in ("a", "b", "c", "ä/ö"):
            handle = system[self.aggregate, id]
            assert [one.event for one in handle.history()] == self.model.streams.get(id, [])
            assert handle.version == len(self.model.streams.get(id, []))
            state = handle.state
            assert (state.amounts, state.keys, state.lines, state.last) == self.model.fold(id)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@pytest.mark.timeout(600)
def test_random_lives() -> None:
    logging.getLogger("escqrs").addFilter(silent)
    try:
        live()
    finally:
        logging.getLogger("escqrs").removeFilter(silent)


def silent(record: logging.LogRecord) -> bool:
    return False


def live() -> None:
    run(
        Life,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            print_blob=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
