"""Who failed: code of the program, whose exceptions are its own whatever their class, or the
engine, which tries again."""

from __future__ import annotations

import sys
import types
from typing import Any

import escqrs as es
import pytest
from support import SECONDS

ERRORS = [
    es.Timeout("the bank does not answer"),
    es.StorageError("no such share"),
    es.Full("the other disk is full"),
    es.Closed("the connection is closed"),
    es.MailboxFull("too many"),
    MemoryError("so many"),
]
raises: list[BaseException] = []  # what methods and handlers raise, once each


class Begun(es.Event):
    pass


class Charged(es.Event):
    pass


class Begin(es.Command[None]):
    pass


class Charge(es.Command[None]):
    pass


class Account(es.Aggregate):
    count: int

    @es.handles
    def begin(self, cmd: Begin) -> None:
        self.emit(Begun())

    @es.handles
    def charge(self, cmd: Charge) -> None:
        if raises:
            raise raises.pop()
        self.emit(Charged())

    @es.applies
    def applied(self, event: Begun | Charged) -> None:
        self.count += 1


def reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@pytest.fixture(autouse=True)
def nothing_raises():
    raises.clear()


@pytest.mark.parametrize("error", ERRORS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("where", ["method", "key", "timer", "rejected"])
def test_a_method_that_raises_what_the_engine_raises_stops_its_process(error, where):
    def fail(here: str) -> None:
        if where == here and raises:
            raise raises[0]

    def whose(recorded: Any) -> str:
        fail("key")
        return "a"

    class Billing(es.Process):
        seen: int

        @es.on(Begun, key=whose)
        def begun(self, event: Begun) -> None:
            fail("method")
            self.seen += 1
            if where == "timer":
                self.at(self.now, "due")
            elif where == "rejected":
                self.send("Nowhere", "x", Charge())

        @es.timer("due")
        def due(self) -> None:
            fail("timer")
            self.seen += 10

    class Refused(Billing):
        @es.on(Begun, key=whose)
        def begun(self, event: Begun) -> None:
            self.send(Denied, "x", Deny())

        @es.rejected(Deny)
        def denied(self, command: Deny, error: Exception) -> None:
            fail("rejected")
            self.seen += 100

    cls = Refused if where == "rejected" else Billing
    with es.open(":memory:", Account, Denied, cls) as shop:
        raises.append(error)
        shop[Account, "a"].ask(Begin())
        with pytest.raises(es.ProcessStopped) as caught:
            shop.flush(SECONDS)
        assert caught.value.__cause__ is error
        assert shop[cls].status.state == "stopped"
        assert shop[cls].status.error == reason(error)
        raises.clear()
        shop[cls].retry()
        shop.flush(SECONDS)
        count = {"timer": 11, "rejected": 100}.get(where, 1)
        assert shop[cls].instance("a").state.seen == count


class Deny(es.Command[None]):
    pass


class Denied(es.Aggregate):
    @es.handles
    def deny(self, cmd: Deny) -> None:
        raise es.Rejected("always")


class Charging(es.Process):
    heard: list[str]

    @es.on(Begun)
    def begun(self, event: Begun) -> None:
        self.send(Account, self.id, Charge())


class Listening(Charging):
    @es.rejected(Charge)
    def refused(self, command: Charge, error: Exception) -> None:
        self.heard = [*self.heard, reason(error)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda one: type(one).__name__)
def test_a_handler_that_raises_what_the_engine_raises_has_rejected_the_command(error):
    with es.open(":memory:", Account, Charging, Listening) as shop:
        raises.extend([error, error])  # one for each of the processes, and no more attempts
        shop[Account, "a"].ask(Begin())
        shop.flush(SECONDS)
        assert raises == []
        assert list(shop[Listening].instance("a").state.heard) == [reason(error)]
        assert shop[Charging].instance("a").status == "failed"
        assert shop[Charging].instance("a").error == reason(error)
        shop[Charging].retry("a")
        shop.flush(SECONDS)
        assert shop[Charging].instance("a").status == "active"
        assert [one.type for one in shop[Account, "a"].history()] == ["Begun", "Charged"]


# ---- upcasters -----------------------------------------------------------------------------------

OLD = """
class Begun(es.Event):
    pass

class Noted(es.Event):
    text: str
"""
NEW = """
broken = []

class Begun(es.Event):
    pass

class Noted(es.Event):
    text: str
    words: int

@es.upcast("Noted", version=1)
def counted(event: dict) -> dict:
    if broken:
        raise broken[0]
    return {"text": event["text"], "words": len(event["text"].split())}

class Ticket(es.Process):
    words: int

    @es.on(Begun)
    def begun(self, event: Begun) -> None:
        self.words = 1
"""
WANTS = """
    @es.on(Noted)
    def noted(self, event: Noted) -> None:
        self.words += event.words
"""


def program(code: str, name: str) -> Any:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec("import escqrs as es\n" + code, module.__dict__)
    return module


@pytest.fixture
def written(tmp_path):
    old = program(OLD, "test_process_failures_old")
    with es.Store(tmp_path / "a.db", old.Begun, old.Noted) as store:
        store.append("Ticket/a", [old.Begun(), old.Noted("one two three"), old.Begun()])
    return tmp_path / "a.db"


@pytest.mark.parametrize("wants", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("broken"), es.Timeout("late"), es.Closed("gone")])
def test_a_process_that_an_upcaster_keeps_from_beginning_goes_on_once_that_is_mended(
    written, wants, error
):
    new = program(NEW + WANTS * wants, "test_process_failures_new")
    new.broken.append(error)
    with es.open(written, new.Noted, new.Ticket) as shop:
        processes = shop[new.Ticket]
        for _ in range(2):  # it may be told in vain
            with pytest.raises(es.ProcessStopped) as caught:
                processes.wait(timeout=SECONDS)
            assert (caught.value.name, caught.value.position) == ("Ticket", 2)
            assert processes.status.state == "stopped"
            assert processes.instance("a") is None  # it has not begun
            processes.retry()
        with pytest.raises(es.ProcessStopped):
            processes.wait(timeout=SECONDS)
        new.broken.clear()
        processes.retry()
        shop.flush(SECONDS)
        assert processes.instance("a").state.words == 1
        assert processes.status.state == "live"


def test_a_process_that_an_upcaster_keeps_from_beginning_can_leave_the_event_out(written):
    new = program(NEW + WANTS, "test_process_failures_skip")
    new.broken.append(RuntimeError("broken"))
    with es.open(written, new.Noted, new.Ticket) as shop:
        processes = shop[new.Ticket]
        for _ in range(2):  # for what is pending, and of its own events
            with pytest.raises(es.ProcessStopped):
                processes.wait(timeout=SECONDS)
            processes.skip(reason="nobody knows what was meant")
        shop.flush(SECONDS)
        assert processes.instance("a").state.words == 1
