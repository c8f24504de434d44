"""escqrs.testing.System.open: entities and read models in an order that the seed decides."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from escqrs.testing import Client, System, explore


class Deposit(es.Command[int]):
    amount: int


class Withdraw(es.Command[int]):
    amount: int


class Transfer(es.Command[int]):
    to: str
    amount: int


class Deposited(es.Event):
    amount: int


class Account(es.Aggregate):
    balance: int = 0

    @es.handles
    def deposit(self, cmd: Deposit) -> int:
        self.emit(Deposited(cmd.amount))
        return self.balance

    @es.handles
    def withdraw(self, cmd: Withdraw) -> int:
        if self.balance < cmd.amount:
            raise es.Rejected("not enough")
        self.emit(Deposited(-cmd.amount))
        return self.balance

    @es.handles
    def transfer(self, cmd: Transfer) -> int:
        self.emit(Deposited(-cmd.amount))
        return self.system[Account, cmd.to].ask(Deposit(cmd.amount))

    @es.applies
    def deposited(self, event: Deposited) -> None:
        self.balance += event.amount


class Moves(es.ReadModel):
    schema = "CREATE TABLE moves (position INTEGER PRIMARY KEY, stream TEXT, amount INTEGER)"
    on_deposited = es.sql(Deposited, "INSERT INTO moves VALUES (:_position, :_stream, :amount)")

    @es.query
    def balance(self, db: es.Rows, stream: str) -> int:
        (found,) = db.execute(
            "SELECT coalesce(sum(amount), 0) FROM moves WHERE stream = :stream", {"stream": stream}
        ).fetchone()
        return int(found)

    @es.query
    def count(self, db: es.Rows) -> int:
        return int(db.execute("SELECT count(*) FROM moves").fetchone()[0])


class Seen(es.ReadModel):
    """By a function of Python."""

    schema = "CREATE TABLE seen (position INTEGER PRIMARY KEY, id TEXT)"

    @es.on(Deposited)
    def see(self, db: es.Rows, event: Deposited, recorded: es.Recorded) -> None:
        db.execute(
            "INSERT INTO seen VALUES (:position, :id)",
            {"position": recorded.position, "id": recorded.id},
        )

    @es.query
    def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute("SELECT position, id FROM seen ORDER BY position").fetchall()


# ---- the same seed, the same history -------------------------------------------------------------


def history(seed: int, store: str | Path = ":memory:") -> list[Any]:
    """All that can be seen of a run with several accounts, clients and a reader."""
    seen: list[Any] = []

    def pay(shop: es.System, number: int) -> Generator[Any, Any, None]:
        for amount in range(1, 4):
            balance = yield shop[Account, f"a{amount % 2}"].submit(Deposit(amount * 10 + number))
            seen.append((number, balance))
        seen.append(es.new_id())

    def look(shop: es.System) -> Generator[Any, Any, None]:
        for _ in range(6):
            seen.append(("rows", shop[Moves].count(), shop.head))
            yield

    with System(seed) as system:
        shop = system.open(store, Account, Moves, Seen)
        for number in range(4):
            system.client(pay(shop, number))
        system.client(look(shop))
        system.run(60)
        shop.flush()
        assert shop[Moves].count() == len(shop[Seen].all()) == 12
        seen.append([
            (one.position, one.stream, one.version, one.time, one.id, one.correlation_id,
             one.causation_id, one.event)
            for one in shop.events()
        ])  # fmt: skip
        seen.append(shop[Seen].all())
    return seen


def test_a_seed_repeats_a_history() -> None:
    histories = [history(seed) for seed in range(12)]
    assert histories == [history(seed) for seed in range(12)]
    orders = {tuple(event[1:3] for event in seen[-2]) for seen in histories}
    assert len(orders) > 3
    times = {event[3] for seen in histories for event in seen[-2]}
    assert {time.year for time in times} == {2000}


def test_another_process_has_the_same_history() -> None:
    """Whatever order Python gives its sets; and the seeded system needs no pytest."""
    code = (
        "import sys\n"
        "import escqrs as es\n"
        "assert 'pytest' not in sys.modules and es.testing.System(seed=7).seed == 7\n"
        "from test_simulation_entity import history\n"
        "print(history(3))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1] != ""


def test_a_file_has_the_same_history(tmp_path: Path) -> None:
    assert history(5, tmp_path / "a.db") == history(5, tmp_path / "b.db")
    with es.open(tmp_path / "a.db", Account, Moves, Seen) as shop:
        assert shop.head == 12


def test_readers_see_any_part_that_is_committed() -> None:
    """Read models are behind by what the seed says, and commits are batches of what it says."""
    pairs = {
        pair[1:]
        for seed in range(40)
        for pair in history(seed)
        if isinstance(pair, tuple) and pair[0] == "rows"
    }
    assert all(rows <= head for rows, head in pairs)
    assert any(rows < head for rows, head in pairs)
    assert any(0 < rows == head for rows, head in pairs)


def test_a_read_model_may_ask_an_actor() -> None:
    """Nothing of its own system goes on meanwhile: it has the writer."""

    class Echo:
        def receive(self, ctx: es.Context, message: object) -> None:
            if isinstance(message, int):
                ctx.respond(message)

    class Asking(es.ReadModel):
        schema = "CREATE TABLE asking (position INTEGER PRIMARY KEY)"
        echo: es.Ref
        inside = 0

        @es.on(Deposited)
        def see(self, db: es.Rows, event: Deposited, recorded: es.Recorded) -> None:
            assert Asking.inside == 0
            Asking.inside += 1
            position = Asking.echo.ask(recorded.position)
            Asking.inside -= 1
            db.execute("INSERT INTO asking VALUES (?)", (position,))

        @es.query
        def count(self, db: es.Rows) -> int:
            return int(db.execute("SELECT count(*) FROM asking").fetchone()[0])

    for seed in range(20):
        with System(seed) as system:
            Asking.echo = system.spawn(Echo)
            bank = system.open(Account, Asking)
            for number in range(12):
                bank[Account, str(number % 3)].tell(Deposit(1))
            system.run()
            assert bank[Asking].count() == bank.head == 12


# ---- planted races -------------------------------------------------------------------------------


def moved(system: System) -> None:
    """A transfer that reads, decides and then writes by two commands is no transaction."""
    bank = system.open(Account)

    def pay(to: str) -> Generator[Any, Any, None]:
        one = bank[Account, "one"]
        balance = yield one.submit(Deposit(0))
        if balance >= 100:
            yield one.submit(Deposit(-100))
            yield bank[Account, to].submit(Deposit(100))

    bank[Account, "one"].ask(Deposit(100))
    system.client(pay("a"))
    system.client(pay("b"))
    system.run()
    assert bank[Account, "one"].state.balance >= 0


def moved_well(system: System) -> None:
    bank = system.open(Account)

    def pay(to: str) -> Generator[Any, Any, None]:
        try:
            yield bank[Account, "one"].submit(Withdraw(100))
        except es.Rejected:
            return
        yield bank[Account, to].submit(Deposit(100))

    bank[Account, "one"].ask(Deposit(100))
    system.client(pay("a"))
    system.client(pay("b"))
    system.run()
    assert bank[Account, "one"].state.balance == 0


def seed_of(error: BaseException) -> int:
    (note,) = error.__notes__
    return int(note.split()[2])


def test_explore_finds_a_race_of_two_clients() -> None:
    with pytest.raises(AssertionError) as caught:
        explore(moved, seeds=1000)
    with pytest.raises(AssertionError), System(seed_of(caught.value)) as system:
        moved(system)
    explore(moved_well, seeds=60)


def read_too_early(system: System) -> None:
    """Who decides by a read model decides by what it had seen."""
    bank = system.open(Account, Moves)

    def pay() -> Generator[Any, Any, None]:
        account = bank[Account, "one"]
        yield account.submit(Deposit(1))
        assert bank[Moves].balance("Account/one") == 1

    system.client(pay())
    system.run()


def test_explore_finds_a_race_with_a_read_model() -> None:
    with pytest.raises(AssertionError) as caught:
        explore(read_too_early, seeds=1000)
    with pytest.raises(AssertionError), System(seed_of(caught.value)) as system:
        read_too_early(system)

    def waited(system: System) -> None:
        bank = system.open(Account, Moves)

        def pay() -> Generator[Any, Any, None]:
            yield bank[Account, "one"].submit(Deposit(1))
            bank[Moves].wait(bank.head)
            assert bank[Moves].balance("Account/one") == 1

        system.client(pay())
        system.run()

    explore(waited, seeds=40)


class Guarded(es.Aggregate):
    """Opens when its neighbour is closed, as it thinks."""

    is_open: bool = False

    @es.handles
    def open(self, cmd: Transfer) -> int:
        if not self.system[Guarded, cmd.to].state.is_open:
            self.emit(Deposited(1))
        return 0

    @es.applies
    def opened(self, event: Deposited) -> None:
        self.is_open = True


def test_two_entities_that_ask_each_other() -> None:
    """A cycle in some orders only, and it is found as with threads."""

    def test(system: System) -> tuple[bool, int]:
        house = system.open(Guarded)

        def enter(own: str, other: str) -> Generator[Any, Any, bool]:
            try:
                yield house[Guarded, own].submit(Transfer(other, 0))
            except es.Deadlock:
                return True
            return False

        both = [system.client(enter("a", "b")), system.client(enter("b", "a"))]
        system.run()
        cycles = [one.result() for one in both]
        return any(cycles), house.head

    found = set()
    for seed in range(60):
        with System(seed) as system:
            found.add(test(system))
    assert found == {(False, 1), (True, 1)}


# ---- what waits ----------------------------------------------------------------------------------


def test_waiting_runs_what_is_waited_for() -> None:
    with System(3) as system:
        bank = system.open(Account, Moves, Seen)
        one, two = bank[Account, "1"], bank[Account, "2"]
        assert one.ask(Deposit(5), timeout=1) == 5
        one.tell(Deposit(1))
        assert one.submit(Deposit(1)).result() == 7
        assert one.ask(Transfer("2", 3)) == 3
        assert (one.state.balance, two.state.balance) == (4, 3)
        with pytest.raises(es.Rejected):
            one.ask(Withdraw(100))
        bank.flush()
        assert (bank[Moves].balance("Account/1"), bank[Moves].count()) == (4, 5)
        bank[Moves].rebuild()
        bank.flush()
        assert bank[Moves].count() == 5 and bank[Moves].status.state == "live"
        assert bank[Moves].status.lag < 1
        with bank.subscribe(after=3) as feed:
            reply = two.submit(Deposit(1))
            assert [next(feed).position for _ in range(3)] == [4, 5, 6]
            assert reply.done()
            with pytest.raises(es.Timeout):
                next(feed)
        assert one.history().__next__().event == Deposited(5)
        assert bank.store.append("x", [es.NewEvent("Raw", b"")]).position == 7
    assert bank.closed
    with pytest.raises(es.Closed):
        one.ask(Deposit(1))


def test_actors_and_entities_share_the_order() -> None:
    class Cashier:
        def __init__(self, bank: es.System) -> None:
            self.bank = bank

        def receive(self, ctx: es.Context, message: object) -> None:
            account = self.bank[Account, "1"]
            match message:
                case "ask":
                    ctx.respond(account.ask(Deposit(1)))
                case "later":
                    sender = ctx.sender
                    assert sender is not None
                    ctx.reenter_after(
                        account.submit(Deposit(1)),
                        lambda reply: ctx.tell(sender, reply.result()),
                    )
                case _:
                    pass

    answers = set()
    for seed in range(30):
        with System(seed) as system:
            bank = system.open(Account)
            cashiers = [system.spawn(lambda bank=bank: Cashier(bank)) for _ in range(3)]
            replies = [cashier.submit(what) for cashier, what in zip(
                cashiers, ("ask", "later", "ask"), strict=True)]  # fmt: skip
            assert cashiers[1].ask("later", timeout=5.0) <= 4
            system.run()
            answers.add(tuple(reply.result() for reply in replies))
            assert bank[Account, "1"].state.balance == 4
    assert len(answers) > 2


def test_above_the_maximum_senders_run_the_others() -> None:
    with System(1) as system:
        bank = system.open(Account, max_in_flight=5)
        replies = [bank[Account, f"{number % 3}"].submit(Deposit(1)) for number in range(50)]
        assert bank.in_flight <= 5
        system.run()
        assert sum(reply.done() for reply in replies) == 50


def test_what_fails_is_tried_again_by_the_clock() -> None:
    class Flaky(es.ReadModel):
        schema = "CREATE TABLE flaky (position INTEGER)"
        on_error = es.Retry(attempts=3, delay=100.0, max_delay=1000.0)
        failures = 2

        @es.on(Deposited)
        def see(self, db: es.Rows, event: Deposited) -> None:
            if Flaky.failures > 0:
                Flaky.failures -= 1
                raise ValueError("not yet")
            db.execute("INSERT INTO flaky VALUES (1)")

    with System(2) as system:
        bank = system.open(Account, Flaky)
        bank[Account, "1"].ask(Deposit(1))
        bank.flush()
        assert bank[Flaky].status.state == "live"
        assert system.now >= 300.0  # after 100 and 200 seconds


def test_clients() -> None:
    def fails() -> Generator[Any, Any, int]:
        yield
        raise ValueError("as planned")

    def returns(reply: Any) -> Generator[Any, Any, int]:
        try:
            yield reply
        except es.Rejected:
            return 7
        return 0

    with System() as system:
        bank = system.open(Account)
        assert system.client(returns(bank[Account, "1"].submit(Withdraw(1)))).result() == 7
        failing = system.client(fails())
        with pytest.raises(ValueError, match="as planned"):
            failing.result()
        assert failing.done
        untold = system.client(fails())
        with pytest.raises(ValueError, match="as planned"):
            system.run()
        assert isinstance(untold, Client)
        with pytest.raises(TypeError):
            system.client(lambda: None)  # type: ignore[arg-type]

        class Silent:
            def receive(self, ctx: es.Context, message: object) -> None:
                self.kept = ctx.sender

        with pytest.raises(es.Timeout):
            system.client(returns(system.spawn(Silent).submit("never"))).result()

    def waits(other: Client[int]) -> Generator[Any, Any, None]:
        while not other.done:
            yield

    with pytest.raises(ValueError, match="as planned"), System() as system:
        system.client(waits(system.client(fails()))).result()
    with pytest.raises(KeyError), System() as system:
        system.client(fails())
        raise KeyError("the test's own comes first")


def test_what_needs_threads_is_refused(tmp_path: Path) -> None:
    with System() as system:
        bank = system.open(Account, Moves)
        for refused in (
            lambda: system.open(bank.store, Account),  # type: ignore[arg-type]
            lambda: bank.subscribe("durable"),
            lambda: bank[Moves].watch(Moves.count).__anext__().send(None),
            lambda: bank[Account, "1"].submit(Deposit(1)).__await__(),
        ):
            with pytest.raises(TypeError, match="seeded"):
                refused()
        with pytest.raises(TypeError):
            system.open("a.db", int)
        with pytest.raises(es.Locked):
            es.open(bank.store, Account)


def test_a_watch_runs_the_system() -> None:
    def seen(seed: int) -> list[int]:
        with System(seed) as system:
            bank = system.open(Account, Moves)
            with bank[Moves].watch(Moves.count) as watch:
                results = [next(watch)]
                for one in "123":
                    bank[Account, one].tell(Deposit(1))
                while results[-1] < 3:
                    results.append(next(watch))
                with pytest.raises(es.Timeout):
                    next(watch)
            with pytest.raises(StopIteration):
                next(watch)
            other = bank[Moves].watch(Moves.count)
            with ThreadPoolExecutor(1) as pool, pytest.raises(TypeError, match="thread"):
                pool.submit(next, other).result()
        with pytest.raises(es.Closed):
            next(other)
        return results

    several = [seen(seed) for seed in range(10)]
    assert several == [seen(seed) for seed in range(10)]
    assert [0, 1, 2, 3] in several
    assert [0, 3] in several


def test_ids_are_of_chance_again_when_it_is_over() -> None:
    with System(1):
        first = es.new_id()
    after = es.new_id()
    with System(1):
        assert es.new_id() == first
    assert es.new_id() > after
    system = System(1)
    assert es.new_id() == first
    system.close()
    system.close()


def test_what_is_dropped_goes() -> None:
    with pytest.warns(ResourceWarning):
        system = System(1)
        assert system.open(Account, Moves)[Account, "1"].ask(Deposit(1)) == 1
        del system
        gc.collect()


def test_closing_finishes_what_was_sent(tmp_path: Path) -> None:
    with System(9) as system:
        bank = system.open(tmp_path / "bank.db", Account, Moves)
        for number in range(20):
            bank[Account, f"{number % 4}"].tell(Deposit(1))
    with es.open(tmp_path / "bank.db", Account, Moves) as again:
        assert again.head == 20
        again.flush()
        assert again[Moves].count() == 20
