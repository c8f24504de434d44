"""Mailboxes, routers and middleware."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

import escqrs as es
import pytest
import support


class Gate(es.Actor):
    """Stands still at "block" until it is let go; keeps what it gets."""

    def __init__(self) -> None:
        self.entered, self.release = entered, release
        self.got: list[Any] = []
        taken.append(self.got)

    def receive(self, ctx: es.Context, message: Any) -> None:
        if message == "block":
            self.entered.set()
            self.release.wait(support.SECONDS)
        elif message == "got":
            ctx.respond(self.got)
        elif isinstance(message, int):
            self.got.append(message)


entered, release = threading.Event(), threading.Event()
taken: list[list[Any]] = []  # by each gate


@pytest.fixture
def system():
    entered.clear()
    release.clear()
    with es.ActorSystem() as system:
        yield system
        release.set()


def blocked(system: es.ActorSystem, mailbox: es.Mailbox) -> es.Ref:
    ref = system.spawn(es.Props(Gate, mailbox=mailbox))
    ref.ask("got")
    ref.tell("block")
    assert entered.wait(support.SECONDS)
    return ref


# ---- mailboxes -----------------------------------------------------------------------------------


def handled(ref: es.Ref) -> list[Any]:
    """What it has got, once it has handled all."""
    kept: list[Any] = taken[-1]
    release.set()
    ref.poison()  # it always has room
    ref.wait_stopped(timeout=support.SECONDS)
    return kept


def test_full_fails(system):
    ref = blocked(system, es.bounded(2, "fail"))
    ref.tell(1)
    ref.tell(2)
    with pytest.raises(es.MailboxFull):
        ref.tell(3)
    with pytest.raises(es.MailboxFull):
        ref.ask(3)
    assert handled(ref) == [1, 2]


@pytest.mark.parametrize(
    ("on_full", "kept", "lost"), [("drop_new", [1, 2], 3), ("drop_old", [2, 3], 1)]
)
def test_full_drops(system, on_full, kept, lost):
    letters: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.dead_letters.subscribe(letters.put)
    ref = blocked(system, es.bounded(2, on_full))
    for number in (1, 2, 3):
        ref.tell(number)
    assert letters.get(timeout=support.SECONDS).message == lost
    assert handled(ref) == kept


@pytest.mark.parametrize("on_full", ["fail", "block", "drop_new", "drop_old"])
def test_a_question_that_finds_no_room_is_answered(system, on_full):
    class Forwarder:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, int):
                ctx.forward(ref)

    ref = blocked(system, es.bounded(1, on_full))
    other = system.spawn(Forwarder)
    replies = [other.submit(1), other.submit(2)]
    failed = replies[on_full != "drop_old"].exception(timeout=support.SECONDS)
    assert isinstance(failed, es.MailboxFull)


def test_full_blocks_a_sender_outside(system):
    ref = blocked(system, es.bounded(1, "block"))
    ref.tell(1)
    sent = threading.Event()

    def send() -> None:
        ref.tell(2)
        sent.set()

    thread = threading.Thread(target=send)
    thread.start()
    assert not sent.is_set()
    release.set()
    thread.join(support.SECONDS)
    assert sent.is_set()
    assert handled(ref) == [1, 2]


def test_full_is_an_error_for_an_actor_that_sends(system):
    class Sender(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Ref):
                ctx.tell(message, 2)

    ref = blocked(system, es.bounded(1, "block"))
    ref.tell(1)
    with pytest.raises(es.MailboxFull):
        system.spawn(Sender).ask(ref)
    release.set()


def test_priority(system):
    ref = blocked(system, es.priority(lambda message: message if isinstance(message, int) else 0))
    for number in (1, 3, 2, 3):
        ref.tell(number)
    release.set()
    assert ref.ask("got") == [3, 3, 2, 1]


def test_a_priority_that_raises(system):
    ref = system.spawn(es.Props(Gate, mailbox=es.priority(lambda message: message["x"])))
    with pytest.raises(TypeError):
        ref.tell(1)


def test_statistics(system):
    ref = blocked(system, es.unbounded(statistics=True))
    for number in range(5):
        ref.tell(number)
    found = system.mailbox(ref)
    assert found is not None
    assert (found.length, found.length_max >= 5) == (5, True)
    release.set()
    ref.ask("got")
    after = system.mailbox(ref)
    assert after is not None
    assert after.length == 0
    assert after.waited > 0
    assert system.mailbox(system.spawn(Gate)) is None
    with pytest.raises(TypeError, match="Ref"):
        system.mailbox("gate")


# ---- routers -------------------------------------------------------------------------------------


class Named(es.Actor):
    def receive(self, ctx: es.Context, message: Any) -> None:
        if isinstance(message, (str, int)):
            ctx.respond(ctx.self.name)


def test_a_pool_in_turn(system):
    ref = system.spawn(es.Props(Named, router=es.round_robin(3)), name="pool")
    names = [ref.submit("x").result(timeout=support.SECONDS) for _ in range(9)]
    assert len(set(names)) == 3
    assert names[:3] * 3 == names
    assert len(system.routees(ref)) == 3
    assert all(one.parent == ref for one in system.routees(ref))


def test_a_group(system):
    routees = [system.spawn(Named, name=name) for name in "abc"]
    ref = system.spawn(es.round_robin(routees))
    assert [ref.ask("x") for _ in range(6)] == list("abcabc")


def test_random(system):
    routees = [system.spawn(Named, name=name) for name in "ab"]
    ref = system.spawn(es.random(routees))
    assert {ref.ask("x") for _ in range(200)} == {"a", "b"}


def test_broadcast(system):
    stream = system.stream()
    ref = system.spawn(es.broadcast([system.spawn(Named, name=name) for name in "abc"]))
    ref.tell("x", sender=stream)
    assert sorted(stream.get(timeout=support.SECONDS) for _ in range(3)) == ["a", "b", "c"]


def test_consistent_hash(system):
    routees = [system.spawn(Named, name=name) for name in "abcd"]
    ref = system.spawn(es.consistent_hash(lambda message: message, routees))
    before = {number: ref.ask(number) for number in range(200)}
    assert before == {number: ref.ask(number) for number in range(200)}
    assert set(before.values()) == set("abcd")
    system.remove_routee(ref, routees[0])
    after = {number: ref.ask(number) for number in range(200)}
    assert all(after[n] == before[n] for n in before if before[n] != "a")
    assert "a" not in after.values()


@pytest.mark.parametrize(
    ("key", "error"), [(lambda message: message["key"], TypeError), (lambda message: [], TypeError)]
)
def test_a_key_that_raises_is_a_failure_of_the_router(system, key, error, caplog):
    failed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, failed.put)
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    class Worker(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, str):
                seen.put(message)

    ref = system.spawn(es.consistent_hash(key, [system.spawn(Worker)]), name="router")
    with pytest.raises(error):
        ref.ask("asked", timeout=support.SECONDS)
    ref.tell("told")
    for _ in range(2):
        one = failed.get(timeout=support.SECONDS)
        assert (one.ref, one.message, one.directive) == (ref, "str", "restart")
        assert isinstance(one.error, error)
    system.close()
    assert caplog.text.count("actor router failed in str (restart): TypeError") == 2
    assert seen.empty()


def test_a_pool_goes_on_after_a_key_that_raises_where_its_supervisor_says_so():
    with es.ActorSystem(supervisor=es.OneForOne(lambda error: es.resume)) as system:
        ref = system.spawn(
            es.Props(Named, router=es.consistent_hash(lambda message: 1 // message, 2))
        )
        name = ref.ask(1)
        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                ref.ask(0)
        assert ref.ask(1) == name


@pytest.mark.parametrize("on_full", ["block", "fail"])
@pytest.mark.parametrize("routing", [es.round_robin, es.broadcast])
def test_what_finds_no_room_behind_a_router_is_a_dead_letter(system, on_full, routing):
    letters: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.dead_letters.subscribe(letters.put)
    routee = blocked(system, es.bounded(1, on_full))
    ref = system.spawn(routing([routee]))
    for number in (1, 2, 3):
        ref.tell(number)
    with pytest.raises(es.MailboxFull):
        ref.ask(4, timeout=support.SECONDS)
    lost = [letters.get(timeout=support.SECONDS) for _ in range(3)]
    assert [(one.target, one.message) for one in lost] == [(routee, n) for n in (2, 3, 4)]
    assert handled(routee) == [1]


def test_smallest_mailbox(system):
    ref = system.spawn(es.Props(Named, router=es.smallest_mailbox(3)))
    assert ref.submit("x").result(timeout=support.SECONDS)


def test_all_routees_of_a_large_pool_are_listed(system):
    pool = system.spawn(es.Props(Named, router=es.round_robin(300)))
    pool.ask("x")
    assert len(set(system.routees(pool))) == 300


def test_routees_come_and_go(system):
    a, b = (system.spawn(Named, name=name) for name in "ab")
    ref = system.spawn(es.round_robin([a]))
    assert ref.ask("x") == "a"
    system.add_routee(ref, b)
    assert {ref.ask("x"), ref.ask("x")} == {"a", "b"}
    system.remove_routee(ref, a)
    assert [ref.ask("x"), ref.ask("x")] == ["b", "b"]
    pool = system.spawn(es.Props(Named, router=es.round_robin(1)))
    pool.ask("x")
    system.add_routee(pool)
    assert len({pool.ask("x"), pool.ask("x")}) == 2
    with pytest.raises(ValueError):
        system.add_routee(a, b)


def test_routees_are_those_that_were_asked_for_before(system):
    workers = [system.spawn(Named) for _ in range(3)]
    group = system.spawn(es.random(workers))
    assert system.routees(group) == tuple(workers)
    pool = system.spawn(es.Props(Named, router=es.round_robin(2)))
    for wanted in range(3, 30):
        system.add_routee(pool)
        assert len(system.routees(pool)) == wanted
    for one in system.routees(pool):
        system.remove_routee(pool, one)
        assert one not in system.routees(pool)
    pool.poison()
    assert system.routees(pool) == ()
    pool.wait_stopped()
    assert system.routees(pool) == ()
    with pytest.raises(ValueError, match="no router"):
        system.routees(workers[0])


def test_routees_of_a_router_that_waits_for_who_asks(system):
    def key(message):
        return len(system.routees(routers[0]))

    routers = [system.spawn(es.consistent_hash(key, [system.spawn(Named, name="a")]))]
    assert routers[0].ask("x") == "a"


def test_a_router_without_routees(system):
    letters: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.dead_letters.subscribe(letters.put)
    ref = system.spawn(es.round_robin([]))
    ref.tell("x")
    assert letters.get(timeout=support.SECONDS).message == "x"
    with pytest.raises(TypeError):
        system.spawn(es.round_robin(2))
    with pytest.raises(es.Closed, match="has no routees"):
        ref.ask("x")
    with pytest.raises(ValueError, match="itself"):
        system.add_routee(ref, ref)
    for wrong in (["a"], None, True, 2.0):
        with pytest.raises(TypeError, match="a router takes"):
            es.round_robin(wrong)  # type: ignore[arg-type]
    for size in (0, 10**7):
        with pytest.raises(ValueError, match="a pool has"):
            es.round_robin(size)


def test_a_pool_restarts_its_routees(system):
    class Fragile(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "fail":
                raise LookupError
            if isinstance(message, str):
                ctx.respond(message)

    ref = system.spawn(es.Props(Fragile, router=es.round_robin(2)))
    for _ in range(4):
        with pytest.raises(LookupError):
            ref.ask("fail")
        assert ref.ask("x") == "x"


# ---- middleware ----------------------------------------------------------------------------------


class Upper(es.Actor):
    def receive(self, ctx: es.Context, message: Any) -> None:
        if isinstance(message, str):
            ctx.respond(message)


def test_middleware_around_receive(system):
    order: list[str] = []

    def named(name: str) -> Any:
        def wrap(following: Any) -> Any:
            def receive(ctx: es.Context, message: Any) -> Any:
                if not isinstance(message, str):
                    return following(ctx, message)
                order.append(name)
                return following(ctx, message + name)

            return receive

        return wrap

    ref = system.spawn(es.Props(Upper, middleware=[named("a"), named("b")]))
    assert ref.ask("x") == "xab"
    assert order == ["a", "b"]


def test_middleware_that_raises_or_swallows(system):
    def wrap(following: Any) -> Any:
        def receive(ctx: es.Context, message: Any) -> Any:
            if message == "raise":
                raise LookupError("in middleware")
            return None if message == "swallow" else following(ctx, message)

        return receive

    ref = system.spawn(es.Props(Upper, middleware=[wrap]))
    with pytest.raises(LookupError, match="in middleware"):
        ref.ask("raise")
    with pytest.raises(es.Unanswered):
        ref.ask("swallow")
    assert ref.ask("x") == "x"


def test_middleware_that_is_none(system):
    failed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, failed.put)
    system.spawn(es.Props(Upper, middleware=[lambda following: 7]))
    assert "middleware" in str(failed.get(timeout=support.SECONDS).error)


def test_middleware_around_sends(system):
    def trace(following: Any) -> Any:
        def send(ctx: es.Context, target: es.Ref, envelope: es.Envelope) -> None:
            envelope.headers = {**(envelope.headers or {}), "from": ctx.self.name}
            following(ctx, target, envelope)

        return send

    class Target(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "x":
                ctx.respond(dict(ctx.headers))

    class Middle(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "x":
                ctx.forward(target)

    target = system.spawn(Target)
    ref = system.spawn(es.Props(Middle, sender_middleware=[trace]), name="middle")
    reply = ref.submit("x", headers={"trace": "1"})
    assert reply.result(timeout=support.SECONDS) == {"trace": "1", "from": "middle"}


def test_middleware_around_spawns(system):
    def prefix(following: Any) -> Any:
        def spawn(ctx: es.Context, props: Any, name: str | None) -> es.Ref:
            return following(ctx, props, f"my-{name}")

        return spawn

    class Parent(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, str):
                ctx.respond(ctx.spawn(Upper, name=message))

    ref = system.spawn(es.Props(Parent, spawn_middleware=[prefix]))
    assert ref.ask("child").name == "my-child"


def test_spawn_middleware_gets_props(system):
    given: list[Any] = []

    def note(following: Any) -> Any:
        def spawn(ctx: es.Context, props: Any, name: str | None) -> es.Ref:
            given.append(props)
            return following(ctx, props, name)

        return spawn

    class Parent(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, str):
                child = ctx.spawn(Upper)
                ctx.spawn(es.Props(Upper, stash_max=7))
                ctx.respond(ctx.spawn(es.round_robin([child])))

    group = system.spawn(es.Props(Parent, spawn_middleware=[note])).ask("x")
    assert [one.producer for one in given[:2]] == [Upper, Upper]
    assert given[1].stash_max == 7
    child = system.routees(group)[0]
    assert repr(given[2]) == f"es.round_robin([{child}])"


def test_reprs_of_routers():
    assert repr(es.round_robin(4)) == "es.round_robin(4)"
    assert repr(es.smallest_mailbox(1)) == "es.smallest_mailbox(1)"
    assert repr(es.consistent_hash(len, 4)) == "es.consistent_hash(<built-in function len>, 4)"


def test_a_pool_is_not_persistent():
    with es.Store(":memory:") as store, pytest.raises(TypeError, match="no names of their own"):
        es.Props(es.PersistentActor, middleware=[es.persistence(store)], router=es.round_robin(2))


def test_persistence_is_middleware_of_receive():
    with es.Store(":memory:") as store:
        for name in ("sender_middleware", "spawn_middleware"):
            with pytest.raises(TypeError, match=f"not {name}"):
                es.Props(es.PersistentActor, **{name: [es.persistence(store)]})


def test_spawn_middleware_that_returns_no_reference(system):
    def forgets(following: Any) -> Any:
        def spawn(ctx: es.Context, props: Any, name: str | None) -> None:
            following(ctx, props, name)

        return spawn

    class Parent(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, str):
                ctx.respond(ctx.spawn(Upper, name=message))

    ref = system.spawn(es.Props(Parent, spawn_middleware=[forgets]))
    with pytest.raises(TypeError, match="spawn middleware returns"):
        ref.ask("child")


def test_logging_and_timing(system, caplog):
    times = es.MessageTimes()
    made = es.Props(Upper, middleware=[es.log_messages(logging.INFO), times])
    with caplog.at_level(logging.INFO, "escqrs"):
        ref = system.spawn(made, name="logged")
        assert ref.ask("x") == "x"
    assert any("/logged receives str" in r.getMessage() for r in caplog.records)
    support.until(lambda: "str" in times.report())  # the answer came before receive returned
    count, total, longest = times.report()["str"]
    assert count == 1
    assert total >= longest > 0
