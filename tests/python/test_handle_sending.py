"""What handlers send, keys of commands, and room for them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
import support
from counters import (
    EVERYTHING,
    REPLIES,
    RUNS,
    Add,
    Counter,
    Door,
    Everything,
    Fail,
    Forward,
    Opaque,
    Report,
    Summary,
    Teller,
    Untold,
    Wait,
)

# ---- what a handler sends ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["tell", "submit"])
def test_what_a_handler_sent_never_leaves_if_it_raises(
    system: es.System, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(es.Rejected, match="after sending"):
        system[Counter, "a"].ask(Forward("b", 3, how, fail=True))
    system.flush()
    assert RUNS == [] and system.head == 0
    if how == "submit":
        with pytest.raises(es.Error):
            REPLIES["a"].result(support.SECONDS)
    assert not system.dead_letters and not caplog.records


def test_what_a_handler_asked_stays_done_if_it_raises(system: es.System) -> None:
    with pytest.raises(es.Rejected):
        system[Counter, "a"].ask(Forward("b", 3, "ask", fail=True))
    assert system[Counter, "b"].state.total == 3
    assert system[Counter, "a"].version == 0


def test_what_a_handler_sends_leaves_when_its_events_are_durable(tmp_path: Path) -> None:
    """Another reader of the file sees the sender's event when the receiver runs."""
    path = tmp_path / "shop.db"
    seen: list[list[str]] = []

    class Look(es.Command):
        pass

    class Start(es.Command):
        how: str

    class Started(es.Event):
        pass

    class Looker(es.Aggregate):
        @es.handles
        def start(self, cmd: Start) -> None:
            self.emit(Started())
            other = self.system[Looker, "other"]
            other.tell(Look()) if cmd.how == "tell" else other.submit(Look())

        @es.handles
        def look(self, cmd: Look) -> None:
            with es.open(path, Looker, readonly=True) as reader:
                seen.append([one.stream for one in reader.events()])

        @es.applies
        def started(self, event: Started) -> None:
            pass

    with es.open(path, Looker) as system:
        system[Looker, "a"].ask(Start("tell"))
        system[Looker, "b"].tell(Start("submit"))
        system.flush()
    assert len(seen) == 2
    assert seen[0][:1] == ["Looker/a"]
    assert "Looker/b" in seen[1]


def test_a_reply_means_durable(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system, es.open(path, Counter, readonly=True) as reader:
        for i in range(1, 30):
            if i % 2:
                system[Counter, "a"].ask(Add(i))
            else:
                system[Counter, "a"].submit(Add(i)).result(support.SECONDS)
            assert reader[Counter, "a"].version == i
            assert [one.event.amount for one in reader.events(after=i - 1)] == [i]


# ---- keys ----------------------------------------------------------------------------------------


def test_a_key_that_was_used_runs_nothing_and_answers_the_first_reply(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system:
        RUNS.clear()
        counter = system[Counter, "a"]
        assert counter.ask(Add(1), key="k1") == 1
        assert counter.ask(Add(1)) == 2
        assert counter.ask(Add(1), key="k1") == 1
        assert counter.submit(Add(1), key="k1").result(support.SECONDS) == 1
        counter.tell(Add(1), key="k1")
        assert counter.ask(Add(5), key="k2") == 7
        assert system[Counter, "b"].ask(Add(1), key="k1") == 1  # keys are the entity's
        system.flush()
        assert RUNS == ["a", "a", "a", "b"]
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].ask(Add(1), key="k1") == 1
        assert system[Counter, "a"].ask(Add(1), key="k2") == 7
        assert system[Counter, "a"].version == 3


def test_the_same_key_in_flight(system: es.System) -> None:
    replies = [system[Counter, "a"].submit(Add(1), key="once") for _ in range(50)]
    assert {one.result(support.SECONDS) for one in replies} == {1}
    assert system[Counter, "a"].version == 1


def test_a_command_that_failed_leaves_its_key_free(system: es.System) -> None:
    counter = system[Counter, "a"]
    with pytest.raises(es.Rejected):
        counter.ask(Fail(), key="k")
    with pytest.raises(es.Rejected):
        counter.ask(Fail(), key="k")
    assert counter.ask(Add(2), key="k") == 2


def test_a_key_of_a_command_without_events(system: es.System) -> None:
    counter = system[Counter, "a"]
    assert counter.ask(Report(), key="k") == Summary(0, ["a"])
    counter.ask(Add(1))
    assert counter.ask(Report(), key="k") == Summary(0, ["a"])
    assert counter.ask(Report()) == Summary(1, ["a"])


def test_replies_that_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Counter) as system:
        assert system[Counter, "a"].ask(Everything(), key="k") == EVERYTHING
        with pytest.raises(TypeError, match="object"):
            system[Counter, "a"].ask(Opaque(), key="o")
        assert system[Counter, "a"].version == 1
    with es.open(path, Counter) as system:
        again = system[Counter, "a"].ask(Everything(), key="k")
        assert again == EVERYTHING
        assert type(again["numbers"]) is tuple and type(again["flags"][0]) is bool


def test_a_stored_reply_of_an_unknown_class() -> None:
    with es.open(":memory:", Teller) as system:
        assert system[Teller, "a"].ask(Untold(), key="k") == Summary(1, ["a"])
        with pytest.raises(es.UnknownType, match="Summary"):
            system[Teller, "a"].ask(Untold(), key="k")


def test_keys_that_cannot_be(system: es.System) -> None:
    counter = system[Counter, "a"]
    for wrong in (1, b"k", ["k"]):
        with pytest.raises(TypeError):
            counter.ask(Add(1), key=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        counter.ask(Add(1), key="")
    counter.ask(Add(1), key="ü" * 300)
    assert counter.ask(Add(1), key="ü" * 300) == 1
    assert counter.ask(Add(1), key=None) == 2


# ---- room ----------------------------------------------------------------------------------------


def test_a_sender_waits_for_room(door: Door) -> None:
    with es.open(":memory:", Counter, max_in_flight=3) as system:
        first = system[Counter, "a"].submit(Wait("d"))
        door.wait()
        system[Counter, "a"].tell(Add(1))
        system[Counter, "a"].tell(Add(1))
        assert system.in_flight == 3
        sent = threading.Event()
        begun = threading.Event()

        def send() -> None:
            begun.set()
            system[Counter, "b"].tell(Add(1))
            sent.set()

        thread = threading.Thread(target=send)
        thread.start()
        assert begun.wait(support.SECONDS)
        assert not sent.wait(0.05)
        door.open.set()
        assert sent.wait(support.SECONDS)
        thread.join()
        assert first.result(support.SECONDS) == "through"
        replies = [system[Counter, "c"].submit(Add(1)) for _ in range(100)]
        assert [one.result(support.SECONDS) for one in replies] == list(range(1, 101))


def test_a_handler_needs_no_room() -> None:
    with es.open(":memory:", Counter, max_in_flight=1) as system:
        assert system[Counter, "a"].ask(Forward("b", 1, "tell")) == 0
        assert system[Counter, "a"].ask(Forward("b", 1, "ask")) > 0
        system.flush()
        assert system[Counter, "b"].state.total == 2


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"max_in_flight": 0}, ValueError),
        ({"max_in_flight": "1"}, TypeError),
        ({"max_entities": 0}, ValueError),
        ({"max_message_bytes": -1}, ValueError),
        ({"max_message_bytes": True}, TypeError),
        ({"durability": "some"}, ValueError),
        ({"nothing": 1}, TypeError),
    ],
)
def test_options_that_cannot_be(options: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        es.open(":memory:", Counter, **options)
