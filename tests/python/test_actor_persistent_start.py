"""What a persistent actor persists before its first message belongs to its start: a store that
refuses it is a failure of the start, which its supervisor decides on and counts."""

from __future__ import annotations

import collections
import concurrent.futures
import queue
from collections.abc import Callable
from typing import Any

import escqrs as es
import pytest
import support
from escqrs import testing


class Begun(es.Event, name="PersistentBegun"):
    by: str


class Nobody:
    def receive(self, ctx: es.Context, message: Any) -> None:
        pass


class World:
    """A store that refuses the first starts' events, for somebody else has written before them."""

    def __init__(self, store: es.Store, refusals: int, where: str) -> None:
        self.store, self.refusals, self.where = store, refusals, where
        self.starts = 0
        self.gone: es.Ref | None = None

    def props(self, cls: type[Starter]) -> es.Props:
        return es.Props(lambda: cls(self), middleware=[es.persistence(self.store)])


class Starter(es.PersistentActor):
    """Persists as soon as it can."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.handled: list[str] = []

    def write(self) -> None:
        if self.world.starts <= self.world.refusals:
            self.world.store.append(self.name, [Begun("somebody else")])
        self.persist(Begun("me"))

    def receive(self, ctx: es.Context, message: Any) -> Any:
        where = self.world.where
        match message:
            case es.Started():
                self.world.starts += 1
            case es.ReplayComplete() if where == "recovered":
                self.write()
            case es.ReplayComplete() if where == "continuation":
                reply: concurrent.futures.Future[None] = concurrent.futures.Future()
                ctx.reenter_after(reply, lambda reply: self.write())
                reply.set_result(None)
            case es.ReplayComplete() if where == "terminated":
                ctx.watch(self.world.gone)
            case es.Terminated():
                self.write()
            case "end":
                ctx.stop()
            case str():
                self.handled.append(message)
                ctx.respond((list(self.handled), self.version))


class AsyncStarter(Starter):
    async def receive(self, ctx: es.Context, message: Any) -> None:
        super().receive(ctx, message)


Take = Callable[[int], list[tuple[str, str]]]


def failures_of(system: es.ActorSystem) -> Take:
    """Type of the message and directive of the next failures, all of them of the store."""
    said: queue.SimpleQueue[es.ActorFailed] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, said.put)

    def take(count: int) -> list[tuple[str, str]]:
        taken = [said.get(timeout=support.SECONDS) for _ in range(count)]
        assert all(isinstance(one.error, es.WrongVersion) for one in taken)
        return [(one.message, str(one.directive.value)) for one in taken]

    return take


@pytest.fixture
def store():
    with es.Store(":memory:") as store:
        yield store


@pytest.fixture(params=[Starter, AsyncStarter], ids=["def", "async"])
def cls(request):
    return request.param


WHERE = ["recovered", "continuation", "terminated"]


def spawn(system: es.ActorSystem, world: World, cls: type[Starter] = Starter) -> es.Ref:
    world.gone = system.spawn(Nobody)
    world.gone.stop()
    world.gone.wait_stopped()
    return system.spawn(world.props(cls), name="c")


@pytest.mark.parametrize("where", WHERE)
def test_restarts_are_counted_and_each_failure_is_said_once(store, caplog, cls, where):
    world = World(store, 1000, where)
    with es.ActorSystem() as system:
        take = failures_of(system)
        ref = spawn(system, world, cls)
        replies = [ref.submit("get") for _ in range(3)]
        for reply in replies:
            with pytest.raises(es.Closed, match="c has stopped: WrongVersion: stream c is at"):
                reply.result(timeout=support.SECONDS)
        ref.wait_stopped(timeout=support.SECONDS)
        assert take(11) == [(message_of(where), "restart")] * 10 + [(message_of(where), "stop")]
    assert world.starts == 11
    assert store.version("c") == 11  # the others'
    said = [one.getMessage().split(":")[0] for one in caplog.records]
    in_what = {"recovered": " in Started", "terminated": " in Terminated"}.get(where, "")
    expected = {f"actor c failed{in_what} (restart)": 10, f"actor c failed{in_what} (stop)": 1}
    assert collections.Counter(one for one in said if one.startswith("actor c")) == expected


def message_of(where: str) -> str:
    return {"recovered": "Started", "terminated": "Terminated"}.get(where, "")


@pytest.mark.parametrize("where", WHERE)
def test_messages_wait_until_it_has_begun(store, cls, where):
    """Those that came before it was tried again, too: each is handled once, in its order."""
    world = World(store, 5, where)
    with es.ActorSystem() as system:
        take = failures_of(system)
        ref = spawn(system, world, cls)
        replies = [ref.submit(str(number)) for number in range(20)]
        texts = [str(number) for number in range(20)]
        assert [one.result(timeout=support.SECONDS) for one in replies] == [
            (texts[: number + 1], 6) for number in range(20)
        ]
        assert take(5) == [(message_of(where), "restart")] * 5
    assert (world.starts, store.version("c")) == (6, 6)
    assert [one.event.by for one in store.history("c")] == ["somebody else"] * 5 + ["me"]


@pytest.mark.parametrize("where", WHERE)
def test_resume_leaves_nothing_to_go_on_with(store, cls, where):
    world = World(store, 1000, where)
    with es.ActorSystem(supervisor=es.OneForOne(lambda error: es.resume)) as system:
        take = failures_of(system)
        ref = spawn(system, world, cls)
        with pytest.raises(es.Closed):
            ref.ask("get")
        ref.wait_stopped(timeout=support.SECONDS)
        assert take(1) == [(message_of(where), "resume")]
    assert world.starts == 1


@pytest.mark.parametrize("directive", [es.stop, es.escalate])
def test_its_supervisor_may_give_it_up(store, cls, directive):
    world = World(store, 1000, "recovered")
    asked: list[BaseException] = []

    def decide(error: BaseException) -> Any:
        asked.append(error)
        return directive

    with es.ActorSystem(supervisor=es.OneForOne(decide)) as system:
        ref = spawn(system, world, cls)
        with pytest.raises(es.Closed, match="WrongVersion"):
            ref.ask("get")
        ref.wait_stopped(timeout=support.SECONDS)
    assert world.starts == 1
    assert [type(one) for one in asked] == [es.WrongVersion]


def test_a_message_that_fails_after_the_start_is_restarted_as_ever(store):
    """Whatever the supervisor says, which is not asked."""
    world = World(store, 0, "recovered")

    class Later(Starter):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "write":
                self.world.store.append(self.name, [Begun("somebody else")])
                self.persist(Begun("me"))
                ctx.respond(None)
            else:
                super().receive(ctx, message)

    asked: list[BaseException] = []
    supervisor = es.OneForOne(lambda error: asked.append(error) or es.stop)
    with es.ActorSystem(supervisor=supervisor) as system:
        ref = spawn(system, world, Later)
        for number in range(1, 15):
            with pytest.raises(es.WrongVersion):
                ref.ask("write")
            assert ref.ask("get") == (["get"], 2 * number + 1)
    assert (asked, world.starts) == ([], 15)


@pytest.mark.parametrize("how", ["stop", "poison", "close"])
def test_its_end_amid_failing_starts(store, cls, how):
    """Nothing hangs: each question is answered, at the latest when it has stopped."""
    world = World(store, 1_000_000, "recovered")
    supervisor = es.OneForOne(max_restarts=1_000_000)
    with es.ActorSystem(supervisor=supervisor) as system:
        take = failures_of(system)
        ref = spawn(system, world, cls)
        replies = [ref.submit("get") for _ in range(3)]
        take(3)
        if how != "stop":
            world.refusals = 0  # it comes to what it was sent before
        (system.close if how == "close" else getattr(ref, how))()
        ref.wait_stopped(timeout=support.SECONDS)
        for reply in replies:
            if how != "stop":
                assert reply.result(timeout=support.SECONDS)
            else:
                with pytest.raises(es.Closed):
                    reply.result(timeout=support.SECONDS)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("refusals", [3, 1000])
def test_on_a_seeded_system(store, where, refusals):
    world = World(store, refusals, where)
    with testing.System(seed=7) as system:
        ref = spawn(system, world)
        if refusals == 3:
            assert ref.ask("get") == (["get"], 4)
        else:
            with pytest.raises(es.Closed, match="WrongVersion"):
                ref.ask("get")
    assert world.starts == min(refusals + 1, 11)


def test_what_the_start_sends_leaves_once_it_is_durable(store):
    class Sender(Starter):
        def write(self) -> None:
            super().write()
            self.ctx.tell(stream, self.world.starts)

        def receive(self, ctx: es.Context, message: Any) -> None:
            self.ctx = ctx
            super().receive(ctx, message)

    world = World(store, 2, "recovered")
    with es.ActorSystem() as system:
        stream = system.stream()
        ref = spawn(system, world, Sender)
        assert stream.get(timeout=support.SECONDS) == 3
        assert ref.ask("get") == (["get"], 3)
        with pytest.raises(es.Timeout):
            stream.get(timeout=0.0)
