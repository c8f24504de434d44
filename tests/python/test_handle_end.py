"""What cannot be replayed, what close() drops, and arguments that cannot be."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
import support
from counters import Add, Added, Counter, Door, Wait

# ---- what cannot be replayed ---------------------------------------------------------------------


def test_an_event_that_cannot_be_replayed_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system:
        system[Counter, "a"].ask(Add(1))

    class Deaf(es.Aggregate, name="Counter"):
        @es.handles
        def add(self, cmd: Add) -> int:
            return 0

    class Picky(es.Aggregate, name="Counter"):
        @es.handles
        def add(self, cmd: Add) -> int:
            return 0

        @es.applies
        def added(self, event: Added) -> None:
            raise ValueError("never")

    for cls, error, text in ((Deaf, es.UnknownType, "@es.applies"), (Picky, es.Error, "never")):
        with es.open(path, cls) as system:
            handle = system[cls, "a"]
            for use in (lambda: handle.ask(Add(1)), lambda: handle.state_at(1)):  # noqa: B023
                with pytest.raises(error, match=text) as caught:
                    use()
                assert str(caught.value).startswith("Counter/a, version 1: event Added")
                assert str(caught.value).count("Counter/a") == 1


def test_snapshots_that_do_not_fit_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Number(es.Aggregate, name="Tally", snapshot_every=2):
        count: int

        @es.handles
        def add(self, cmd: Add) -> int:
            self.emit(Added(cmd.amount))
            return self.count

        @es.applies
        def added(self, event: Added) -> None:
            self.count += event.amount

    class Text(es.Aggregate, name="Tally", snapshot_every=2):
        count: str

        @es.applies
        def added(self, event: Added) -> None:
            self.count += "x" * event.amount

    path = tmp_path / "shop.db"
    with es.open(path, Number) as system:
        for _ in range(20):
            system[Number, "a"].ask(Add(1))
    with es.open(path, Text) as system:
        assert system[Text, "a"].state.count == "x" * 20
        system.flush()
    lines = [one.getMessage() for one in caplog.records if "snapshot" in one.getMessage()]
    assert len(lines) == 1 and "Tally/a" in lines[0]


# ---- what close() drops --------------------------------------------------------------------------


def test_what_close_drops_says_so_at_once(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    system = es.open(":memory:", Counter)
    stuck = system[Counter, "a"].submit(Wait("d"))
    behind = [system[Counter, "a"].submit(Add(1)) for _ in range(3)]
    system[Counter, "a"].tell(Add(7))
    seen: list[Any] = []
    behind[0].add_done_callback(seen.append)
    waiting: list[BaseException] = []

    def wait() -> None:
        try:
            behind[1].result()
        except es.Closed as error:
            waiting.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    door.wait()
    system.close(timeout=0)
    for reply in [stuck, *behind]:  # though the handler is still busy
        assert reply.done()
        error = reply.exception(timeout=0)
        assert isinstance(error, es.Closed) and "Counter/a" in str(error)
    assert seen == [behind[0]]
    thread.join(support.SECONDS)
    assert len(waiting) == 1
    (letter,) = system.dead_letters
    assert letter.command == Add(7) and isinstance(letter.error, es.Closed)
    assert any("Add" in one.getMessage() for one in caplog.records)
    door.open.set()
    with pytest.raises(es.Closed):
        stuck.result()


def test_what_close_drops_wakes_those_who_await(door: Door) -> None:
    import asyncio

    async def main() -> None:
        replies = [system[Counter, "a"].submit(Wait("d")), system[Counter, "a"].submit(Add(1))]

        async def wait(reply: Any) -> Any:
            return await reply

        tasks = [asyncio.create_task(wait(one)) for one in replies]
        await asyncio.to_thread(door.wait)
        await asyncio.to_thread(system.close, timeout=0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in results] == [es.Closed, es.Closed]

    system = es.open(":memory:", Counter)
    asyncio.run(main())


def test_an_asker_whose_handler_is_left_behind(door: Door) -> None:
    """The handler runs on the asker's thread."""
    system = es.open(":memory:", Counter)
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            system[Counter, "a"].ask(Wait("d"))
        except es.Closed as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    door.wait()
    behind = system[Counter, "a"].submit(Add(1))
    system.close(timeout=0)
    assert isinstance(behind.exception(0), es.Closed)
    door.open.set()
    thread.join(support.SECONDS)
    assert len(failures) == 1


def test_close_at_once_answers_everything(tmp_path: Path) -> None:
    system = es.open(tmp_path / "shop.db", Counter)
    replies = [system[Counter, str(i % 50)].submit(Add(1)) for i in range(5_000)]
    system.close(timeout=0)
    assert all(one.done() for one in replies)
    errors = [one.exception(0) for one in replies]
    assert {type(one) for one in errors if one is not None} <= {es.Closed}
    with es.open(tmp_path / "shop.db", Counter) as system:
        assert system.head == errors.count(None)


def test_a_second_close_with_a_timeout_ends_the_first_ones_wait(door: Door) -> None:
    system = es.open(":memory:", Counter)
    stuck = system[Counter, "a"].submit(Wait("d"))
    door.wait()
    first = threading.Thread(target=system.close)
    first.start()
    while not system.closed:
        pass
    system.close(timeout=0)
    assert isinstance(stuck.exception(0), es.Closed)
    first.join(support.SECONDS)
    assert not first.is_alive()


# ---- arguments that cannot be --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_message_bytes", "max_in_flight", "max_entities"])
@pytest.mark.parametrize("value", [0, -1, 2**63, 2**70, "x", True, None, 1.5])
def test_limits_that_cannot_be(name: str, value: Any) -> None:
    error = ValueError if type(value) is int else TypeError
    with pytest.raises(error, match=name) as caught:
        es.open(":memory:", Counter, **{name: value})
    assert caught.type is error


@pytest.mark.parametrize("value", ["no", "", 1, 0, None])
def test_readonly_is_a_bool(tmp_path: Path, value: Any) -> None:
    es.open(tmp_path / "shop.db", Counter).close()
    with pytest.raises(TypeError, match="readonly"):
        es.open(tmp_path / "shop.db", Counter, readonly=value)


@pytest.mark.parametrize("value", ["x", "FULL", None, 1, "full\ud800"])
def test_durability_is_one_of_two(value: Any) -> None:
    with pytest.raises(ValueError, match="durability"):
        es.open(":memory:", Counter, durability=value)


@pytest.mark.parametrize("value", [b"shop.db", 3, None, 1.5])
def test_a_path_is_text(value: Any) -> None:
    with pytest.raises(TypeError, match="path"):
        es.open(value, Counter)


@pytest.mark.parametrize("value", ["", "shop\0.db", "shop\ud800.db", "shop\udcff.db"])
def test_paths_that_cannot_be(value: str) -> None:
    with pytest.raises(ValueError, match="path") as caught:
        es.open(value, Counter)
    assert caught.type is ValueError


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(es.NotAStore, match="folder"):
        es.open(tmp_path, Counter)


@pytest.mark.parametrize("timeout", [2**70, 10**400])
def test_timeouts_beyond_any_clock(timeout: int) -> None:
    with es.open(":memory:", Counter) as system:
        counter = system[Counter, "a"]
        assert counter.ask(Add(1), timeout=timeout) == 1
        assert counter.submit(Add(1)).result(timeout) == 2
        system.flush(timeout)
        system.close(timeout)
    with es.open(":memory:", Counter) as system:
        system.close(-timeout)


@pytest.mark.parametrize("timeout", ["x", True, []])
def test_a_timeout_of_flush_is_a_number(system: es.System, timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout"):
        system.flush(timeout)


def test_text_that_is_no_unicode_is_named(system: es.System) -> None:
    counter = system[Counter, "a"]
    bad = "a\ud800"
    for name, use in (
        ("id", lambda: system[Counter, bad]),
        ("key", lambda: counter.ask(Add(1), key=bad)),
        ("metadata", lambda: counter.submit(Add(1), metadata={bad: "x"})),
        ("metadata", lambda: counter.tell(Add(1), metadata={"x": bad})),
        ("correlation_id", lambda: counter.ask(Add(1), correlation_id=bad)),
    ):
        with pytest.raises(ValueError, match=name) as caught:
            use()
        assert caught.type is ValueError
    assert system.head == 0


@pytest.mark.parametrize("name", ["after", "upto", "limit"])
def test_ranges_beyond_64_bits(system: es.System, name: str) -> None:
    counter = system[Counter, "a"]
    counter.ask(Add(1))
    found = 0 if name == "after" else 1
    assert len(list(system.events(**{name: 2**70}))) == found  # type: ignore[arg-type]
    assert len(list(counter.history(**{name: 2**70}))) == found  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=name):
        system.events(**{name: -(2**70)})  # type: ignore[arg-type]
