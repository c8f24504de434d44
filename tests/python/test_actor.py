"""Actors: spawning, sending, asking, stopping, names, context."""

from __future__ import annotations

import copy
import pickle
import queue
import threading
from typing import Any

import escqrs as es
import pytest
import support
from actors import Call, Doer, Echo, Recorder, end, get


@pytest.fixture
def system():
    with es.ActorSystem() as system:
        yield system


# ---- sending and asking --------------------------------------------------------------------------


def test_ask_answers(system):
    assert system.spawn(Echo).ask("hello") == "hello"
    assert system.spawn(es.Props(Echo)).ask("hello", timeout=support.SECONDS) == "hello"
    assert system.spawn(lambda: Echo()).submit("x").result(timeout=support.SECONDS) == "x"


def test_tells_of_one_sender_arrive_in_order(system, seen):
    ref = system.spawn(lambda: Recorder(seen))
    for number in range(1000):
        ref.tell(number)
    assert get(seen) == es.Started()
    assert [get(seen) for _ in range(1000)] == list(range(1000))


def test_an_ask_comes_after_the_tells_before_it(system, seen):
    class Counter(es.Actor):
        count = 0

        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "add":
                self.count += 1
            elif message == "get":
                ctx.respond(self.count)

    ref = system.spawn(Counter)
    for _ in range(100):
        ref.tell("add")
    assert ref.ask("get") == 100


def test_lifecycle(system, seen):
    ref = system.spawn(lambda: Recorder(seen))
    ref.tell("one")
    ref.poison()
    assert [get(seen) for _ in range(4)] == [es.Started(), "one", es.Stopping(), es.Stopped()]


def test_poison_comes_after_the_messages_before_it_and_stop_does_not(system):
    entered, release = threading.Event(), threading.Event()

    class Slow(es.Actor):
        def __init__(self, seen: list[str]) -> None:
            self.seen = seen

        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "block":
                entered.set()
                release.wait(support.SECONDS)
            elif isinstance(message, str):
                self.seen.append(message)

    for how, expected in (("poison", ["a", "b"]), ("stop", [])):
        entered.clear()
        release.clear()
        handled: list[str] = []
        ref = system.spawn(lambda handled=handled: Slow(handled))
        ref.tell("block")
        assert entered.wait(support.SECONDS)
        ref.tell("a")
        ref.tell("b")
        getattr(ref, how)()
        release.set()
        ref.wait_stopped(timeout=support.SECONDS)
        assert handled == expected


def test_asking_a_stopped_actor_fails_at_once(system):
    ref = system.spawn(Echo)
    end(ref)
    with pytest.raises(es.Closed, match="stopped"):
        ref.ask("hello")
    assert isinstance(ref.submit("hello").exception(timeout=support.SECONDS), es.Closed)
    assert ref.state == "stopped"


def test_what_waits_in_the_mailbox_of_an_actor_that_stops_is_answered_with_an_error(system):
    entered, release = threading.Event(), threading.Event()

    class Slow(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "block":
                entered.set()
                release.wait(support.SECONDS)

    ref = system.spawn(Slow)
    ref.tell("block")
    assert entered.wait(support.SECONDS)
    reply = ref.submit("never")
    ref.stop()
    release.set()
    assert isinstance(reply.exception(timeout=support.SECONDS), es.Closed)


def test_an_answer_never_given_is_an_error_not_a_wait(system):
    class Silent(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            pass

    ref = system.spawn(Silent)
    for _ in range(3):  # queued, and run by the asker's thread
        with pytest.raises(es.Unanswered, match="answer"):
            ref.ask("hello")
    assert isinstance(ref.submit("hello").exception(timeout=support.SECONDS), es.Unanswered)


def test_an_answer_may_come_later_through_the_sender(system):
    class Later(es.Actor):
        waiting: es.Ref | None = None

        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "ask":
                self.waiting = ctx.sender
            elif message == "answer":
                assert self.waiting is not None
                self.waiting.tell(42)
                self.waiting = None

    ref = system.spawn(Later)
    reply = ref.submit("ask")
    ref.tell("answer")
    assert reply.result(timeout=support.SECONDS) == 42


def test_ask_times_out(system):
    class Keeper(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            self.sender = ctx.sender

    with pytest.raises(es.Timeout):
        system.spawn(Keeper).ask("hello", timeout=0.01)


def test_asking_oneself_is_a_deadlock(system):
    ref = system.spawn(Doer)
    with pytest.raises(es.Deadlock):
        ref.ask(Call(lambda ctx: ctx.self.ask("x")))
    with pytest.raises(es.Deadlock):
        ref.ask(Call(lambda ctx: ctx.self.submit("x").result()))


def test_asking_in_a_circle_is_a_deadlock(system):
    a, b = system.spawn(Doer, name="a"), system.spawn(Doer, name="b")
    with pytest.raises(es.Deadlock, match="a"):
        a.ask(Call(lambda ctx: b.ask(Call(lambda ctx: a.ask("x")))))


def test_asks_nest(system):
    refs = [system.spawn(Doer) for _ in range(100)]

    def ask(depth: int) -> int:
        return 1 + refs[depth].ask(Call(lambda ctx: ask(depth + 1))) if depth < 100 else 0

    assert ask(0) == 100


def test_an_exception_reaches_the_asker(system):
    def fail(ctx: es.Context) -> None:
        raise LookupError("no such thing")

    ref = system.spawn(Doer)
    with pytest.raises(LookupError, match="no such thing") as caught:
        ref.ask(Call(fail))
    assert any("in fail" in note for note in caught.value.__notes__)
    assert ref.ask(Call(lambda ctx: 1)) == 1


def test_an_exception_without_frames_says_so(system):
    class Odd:
        def receive(self, ctx: es.Context) -> None:
            """Without a message: Python cannot call it."""

    failed: queue.SimpleQueue[es.ActorFailed] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, failed.put)
    with pytest.raises(es.Closed, match="positional argument"):
        system.spawn(Odd, name="odd").ask("hi")
    (note,) = get(failed).error.__notes__
    assert note == "Traceback in the handler of /odd for Started: no frames of Python"


def test_request_with_a_sender(system, seen):
    recorder = system.spawn(lambda: Recorder(seen))
    echo = system.spawn(Echo)
    echo.request("hello", sender=recorder)
    assert get(seen) == es.Started()
    assert get(seen) == "hello"
    echo.tell("again", sender=recorder)
    assert get(seen) == "again"


def test_forward_keeps_the_sender(system):
    echo = system.spawn(Echo)

    class Forwarder(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, str):
                ctx.forward(echo)

    ref = system.spawn(Forwarder)
    for _ in range(3):
        assert ref.ask("hello") == "hello"


def test_who_forwards_may_stop_and_whom_it_went_to_may_be_silent(system):
    class Silent(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            pass

    class Once(es.Actor):
        def __init__(self, to: es.Ref) -> None:
            self.to = to

        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, str):
                for _ in message.split():
                    ctx.forward(self.to)
                assert ctx.sender is not None
                ctx.stop()

    echo, silent = system.spawn(Echo), system.spawn(Silent)
    assert system.spawn(lambda: Once(echo)).ask("hello") == "hello"
    assert system.spawn(lambda: Once(echo)).ask("hello twice") == "hello twice"
    with pytest.raises(es.Unanswered):
        system.spawn(lambda: Once(silent)).ask("hello")


def test_context_request_has_the_actor_as_sender(system, seen):
    echo = system.spawn(Echo)

    class Requester(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "go":
                ctx.request(echo, "hello")
            elif message == "hello":
                seen.put((message, ctx.sender))

    system.spawn(Requester).tell("go")
    assert get(seen) == ("hello", echo)


def test_headers(system):
    ref = system.spawn(Doer)
    reply = ref.submit(Call(lambda ctx: dict(ctx.headers)), headers={"trace": "7"})
    assert reply.result(timeout=support.SECONDS) == {"trace": "7"}
    assert ref.ask(Call(lambda ctx: dict(ctx.headers))) == {}


# ---- references and names ------------------------------------------------------------------------


def test_a_reference_is_equal_to_another_of_the_same_actor(system):
    ref = system.spawn(Doer, name="doer")
    own = ref.ask(Call(lambda ctx: ctx.self))
    assert own == ref
    assert hash(own) == hash(ref)
    assert {ref: 1}[own] == 1
    assert ref != system.spawn(Doer)
    assert ref != "doer"


def test_name_address_and_repr(system):
    ref = system.spawn(Doer, name="doer")
    assert ref.name == "doer"
    assert ref.address.endswith("/doer")
    assert "doer" in repr(ref)
    assert ref.state in repr(ref)
    child = ref.ask(Call(lambda ctx: ctx.spawn(Doer, name="child")))
    assert child.address == ref.address + "/child"
    end(ref)
    assert "stopped" in repr(ref)


def test_a_name_is_taken_once(system):
    ref = system.spawn(Doer, name="doer")
    with pytest.raises(es.NameExists, match="doer") as caught:
        system.spawn(Doer, name="doer")
    assert caught.value.ref == ref
    end(ref)
    assert system.spawn(Doer, name="doer") != ref


@pytest.mark.parametrize("name", ["", "a/b", "a\0b"])
def test_names_that_cannot_be(system, name):
    with pytest.raises(ValueError):
        system.spawn(Doer, name=name)
    with pytest.raises(TypeError):
        system.spawn(Doer, name=7)
    with pytest.raises(es.TooLarge):
        system.spawn(Doer, name="x" * 1025)


def test_what_cannot_be_spawned(system):
    for wrong in (None, 7, "Doer"):
        with pytest.raises(TypeError, match="producer"):
            system.spawn(wrong)


@pytest.mark.parametrize("produce", [lambda: 1 / 0, lambda: 7], ids=["raises", "no actor"])
def test_a_producer_that_makes_no_actor(system, seen, produce):
    system.events.subscribe(es.ActorFailed, seen.put)
    ref = system.spawn(es.Props(produce), name="a")  # it fails, is restarted ten times, and stopped
    ref.wait_stopped(timeout=support.SECONDS)
    failed = get(seen)
    assert isinstance(failed.error, (ZeroDivisionError, TypeError))
    assert failed.ref == ref
    with pytest.raises(es.Closed):
        ref.ask("x")
    assert system.spawn(Doer, name="a") != ref


# ---- context -------------------------------------------------------------------------------------


def test_children_and_parent(system):
    ref = system.spawn(Doer, name="parent")
    child = ref.ask(Call(lambda ctx: ctx.spawn(Doer, name="child")))
    assert ref.ask(Call(lambda ctx: ctx.children)) == (child,)
    assert child.ask(Call(lambda ctx: ctx.parent)) == ref
    assert ref.ask(Call(lambda ctx: ctx.parent)) is None
    assert ref.ask(Call(lambda ctx: ctx.system)) is system
    assert ref.ask(Call(lambda ctx: isinstance(ctx.message, Call)))


def test_children_stop_before_their_parent(system, seen):
    class Parent(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Started):
                ctx.spawn(Child)
            elif isinstance(message, es.Stopped):
                seen.put("parent")

    class Child(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Stopped):
                seen.put("child")

    end(system.spawn(Parent))
    assert [get(seen), get(seen)] == ["child", "parent"]


def test_watch(system, seen):
    watched = system.spawn(Doer)
    watcher = system.spawn(lambda: WatchRecorder(seen))
    watcher.ask(("watch", watched))
    watched.stop()
    assert get(seen) == es.Terminated(watched)
    watcher.ask(("watch", watched))  # it has stopped long ago
    assert get(seen) == es.Terminated(watched)


class WatchRecorder(es.Actor):
    def __init__(self, seen: queue.SimpleQueue[Any]) -> None:
        self.seen = seen

    def receive(self, ctx: es.Context, message: Any) -> None:
        match message:
            case ("watch", ref):
                ctx.watch(ref)
                ctx.respond(None)
            case ("unwatch", ref):
                ctx.unwatch(ref)
                ctx.respond(None)
            case es.Terminated():
                self.seen.put(message)


def test_unwatch(system, seen):
    watched, other = system.spawn(Doer), system.spawn(Doer)
    watcher = system.spawn(lambda: WatchRecorder(seen))
    watcher.ask(("watch", watched))
    watcher.ask(("watch", other))
    watcher.ask(("unwatch", watched))
    end(watched)
    other.stop()
    assert get(seen) == es.Terminated(other)


def test_become_and_unbecome(system):
    class Switch(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "press":
                ctx.become(self.on)
            ctx.respond("off")

        def on(self, ctx: es.Context, message: Any) -> None:
            if message == "press":
                ctx.unbecome()
            ctx.respond("on")

    ref = system.spawn(Switch)
    assert [ref.ask(m) for m in ("look", "press", "look", "press", "look")] == [
        "off", "off", "on", "on", "off"
    ]  # fmt: skip


def test_stash(system):
    class Door(es.Actor):
        def __init__(self) -> None:
            self.open = False

        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "open":
                self.open = True
                ctx.unstash_all()
            elif isinstance(message, int):
                if not self.open:
                    ctx.stash()
                else:
                    ctx.respond(message)

    ref = system.spawn(Door)
    replies = [ref.submit(number) for number in range(5)]
    assert not replies[0].done()
    ref.tell("open")
    assert [reply.result(timeout=support.SECONDS) for reply in replies] == list(range(5))


def test_reenter_after(system):
    echo = system.spawn(Echo)

    class Asker(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "go":
                reply = echo.submit("hello")
                ctx.reenter_after(reply, lambda reply: ctx.respond(reply.result() + " there"))

    assert system.spawn(Asker).ask("go", timeout=support.SECONDS) == "hello there"


def test_receive_timeout(system, seen):
    class Idle(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Started):
                ctx.set_receive_timeout(0.01)
            elif isinstance(message, es.ReceiveTimeout):
                ctx.set_receive_timeout(None)
                seen.put(message)

    system.spawn(Idle)
    assert get(seen) == es.ReceiveTimeout()
    system.spawn(es.Props(lambda: Recorder(seen), receive_timeout=0.01))
    assert get(seen) == es.Started()
    assert get(seen) == es.ReceiveTimeout()


def test_timers(system, seen):
    class Clock(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Started):
                ctx.schedule_once(0.001, "once", to=ctx.self)
                self.timer = ctx.schedule_every(0.001, "every")
                ctx.schedule_once(60.0, "never").cancel()
            elif isinstance(message, str):
                seen.put(message)

    ref = system.spawn(Clock)
    got = [get(seen) for _ in range(10)]
    assert got.count("once") == 1
    assert got.count("every") == 9
    end(ref)


def test_stop_and_poison_from_the_context(system, seen):
    ref = system.spawn(lambda: WatchRecorder(seen))
    for how in ("stop", "poison"):
        doer = system.spawn(Doer)
        ref.ask(("watch", doer))
        assert doer.ask(Call(lambda ctx, how=how: getattr(ctx, how)())) is None
        assert get(seen) == es.Terminated(doer)


# ---- dead letters and events ---------------------------------------------------------------------


def test_dead_letters(system, seen):
    system.events.subscribe(es.DeadLetter, seen.put)
    ref = system.spawn(Echo, name="echo")
    end(ref)
    ref.tell("too late")
    letter = get(seen)
    assert (letter.target, letter.message) == (ref, "too late")


def test_subscribe_by_type_with_a_function_or_an_actor(system, seen):
    class Happened:
        pass

    class More(Happened):
        pass

    subscription = system.events.subscribe(Happened, seen.put)
    ref = system.spawn(lambda: Recorder(seen))
    assert get(seen) == es.Started()
    event = More()
    system.events.publish("something else")
    system.events.publish(event)
    assert get(seen) is event
    subscription.cancel()
    system.events.subscribe(Happened, ref)
    other = Happened()
    system.events.publish(other)
    assert get(seen) is other


# ---- streams -------------------------------------------------------------------------------------


def test_stream(system):
    echo = system.spawn(Echo)
    stream = system.stream()
    echo.tell("a", sender=stream)
    echo.request("b", sender=stream)
    assert stream.get(timeout=support.SECONDS) == "a"
    assert stream.get(timeout=support.SECONDS) == "b"
    with pytest.raises(es.Timeout):
        stream.get(timeout=0.01)
    for word in "xyz":
        echo.tell(word, sender=stream)
    echo.ask("wait")
    stream.close()
    assert list(stream) == ["x", "y", "z"]
    with pytest.raises(es.Closed):
        stream.get()


def test_a_stream_closes_with_its_system():
    system = es.ActorSystem()
    stream = system.stream()
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.extend(stream))
    reader.start()
    stream.tell("last")
    system.close()
    reader.join(support.SECONDS)
    assert not reader.is_alive()
    assert got == ["last"]
    with pytest.raises(es.Closed):
        system.stream().get(timeout=support.SECONDS)


def test_what_nobody_reads_from_a_stream_is_dead_letters(system, seen):
    system.dead_letters.subscribe(lambda letter: seen.put(letter.message))
    stream = system.stream()
    assert stream.state == "running"
    for word in "abc":
        stream.tell(word)
    assert stream.get() == "a"
    stream.close()
    assert stream.state == "stopped"
    stream.tell("d")
    assert get(seen) == "d"
    assert stream.get() == "b"
    del stream
    assert get(seen) == "c"


# ---- what is refused, and many at once -----------------------------------------------------------


def test_many_spawns(system):
    refs = [system.spawn(Echo) for _ in range(10_000)]
    assert [ref.ask("x") for ref in refs[::1000]] == ["x"] * 10
    for ref in refs:
        ref.stop()


def test_a_context_outside_of_its_actor(system):
    kept: list[es.Context] = []

    class Leaky(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            kept.append(ctx)
            if message == "x":
                ctx.respond(None)

    ref = system.spawn(Leaky)
    ref.ask("x")
    ctx = kept[-1]
    for use in (
        lambda: ctx.respond(1),
        lambda: ctx.tell(ref, 1),
        lambda: ctx.spawn(Echo),
        lambda: ctx.watch(ref),
        lambda: ctx.become(print),
        lambda: ctx.schedule_once(1.0, 1),
    ):
        with pytest.raises(es.Error, match="outside"):
            use()
    assert ctx.self == ref
    end(ref)
    with pytest.raises(es.Closed, match="instance is gone"):
        ctx.respond(1)
    assert ctx.actor is None


def test_a_subscriber_that_raises_is_logged_and_harms_nobody(system, seen, caplog):
    def fail(event: object) -> None:
        raise LookupError("in a subscriber")

    system.events.subscribe(int, fail)
    system.events.subscribe(int, seen.put)
    system.events.publish(7)
    assert get(seen) == 7
    assert any("subscriber" in one.getMessage() for one in caplog.records)
    with pytest.raises(TypeError):
        system.events.subscribe(7, fail)
    with pytest.raises(TypeError):
        system.events.subscribe(int, 7)


def test_who_ends_the_program_in_a_subscriber_keeps_nobody_from_the_event(system, seen):
    def leave(event: object) -> None:
        raise SystemExit(event)

    system.events.subscribe(int, leave)
    system.events.subscribe(int, seen.put)
    with pytest.raises(SystemExit):
        system.events.publish(7)
    assert get(seen) == 7


def test_a_receive_with_a_yield_is_a_failure(system):
    """Nothing of it would run, and nobody would hear."""

    class Yields(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> Any:
            yield message

    class YieldsAsync(es.Actor):
        async def receive(self, ctx: es.Context, message: Any) -> Any:
            yield message

    for one in Yields, YieldsAsync:
        with pytest.raises(es.Closed, match=rf"{one.__name__}\.receive has a yield"):
            system.spawn(one).ask("x")


def test_what_is_watched_is_a_reference(system):
    ref = system.spawn(Doer)
    for call in (lambda ctx: ctx.watch("x"), lambda ctx: ctx.unwatch(None)):
        with pytest.raises(TypeError, match="what is watched is an es.Ref"):
            ref.ask(Call(call))


def test_a_reference_is_its_own_copy(system):
    """So that what holds one, as a message of data, can be copied."""
    ref = system.spawn(Echo)
    assert copy.copy(ref) is ref
    assert copy.deepcopy({"to": [ref]}) == {"to": [ref]}
    with system.stream() as stream:
        assert copy.deepcopy([stream])[0] is stream


def test_reprs_of_what_listens(system):
    subscription = system.events.subscribe(int, system.spawn(Echo, name="e"))
    assert repr(subscription).startswith("<es.EventSubscription to int: <es.Ref /e")
    subscription.cancel()
    assert repr(subscription) == "<es.EventSubscription, cancelled>"
    assert repr(system.events) == "<es.EventStream: 0 subscriptions>"
    assert repr(system.dead_letters) == "<es.Topic of DeadLetter>"
    assert repr(es.MessageTimes()) == "<es.MessageTimes: 0 messages>"


def test_a_dead_letter_names_the_stream_that_sent_it(system):
    letters: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ref = system.spawn(Echo)
    ref.stop()
    ref.wait_stopped()
    system.dead_letters.subscribe(letters.put)
    stream = system.stream()
    ref.tell("x", sender=stream)
    assert letters.get(timeout=support.SECONDS).sender == stream


def test_references_cannot_be_pickled(system):
    with pytest.raises(TypeError, match="process"):
        pickle.dumps(system.spawn(Echo))


def test_only_actors_are_asked(system):
    stream = system.stream()
    with pytest.raises(TypeError):
        stream.ask("x")
    with pytest.raises(TypeError, match="sender"):
        system.spawn(Echo).request("x")
    with pytest.raises(TypeError):
        system.spawn(Echo).tell("x", sender="me")


def test_sending_from_many_threads(system, seen):
    ref = system.spawn(lambda: Recorder(seen))

    def send(thread: int) -> None:
        for number in range(500):
            ref.tell((thread, number))

    threads = [threading.Thread(target=send, args=(one,)) for one in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    end_after = [get(seen) for _ in range(4001)][1:]
    for thread in range(8):
        assert [n for t, n in end_after if t == thread] == list(range(500))


def test_two_systems_use_the_same_props(system):
    props = es.Props(Echo)
    with es.ActorSystem() as other:
        assert system.spawn(props).ask("a") == other.spawn(props).ask("a") == "a"


def test_waiting_for_ones_own_stop_is_a_deadlock(system):
    ref = system.spawn(Doer)
    with pytest.raises(es.Deadlock):
        ref.ask(Call(lambda ctx: ctx.self.wait_stopped()))
    with pytest.raises(es.Timeout, match="stopped"):
        ref.wait_stopped(timeout=0.0)


def test_reenter_after_from_started_and_not_after_a_restart(system, seen):
    class Keeper(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "ask":
                self.sender = ctx.sender
                seen.put("asked")
            elif message == "answer":
                self.sender.tell(1)

    keeper = system.spawn(Keeper)

    class Waiter(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Started):
                ctx.reenter_after(keeper.submit("ask"), lambda reply: seen.put(reply.result()))
            elif message == "fail":
                raise LookupError
            elif message == "ping":
                ctx.respond("pong")

    ref = system.spawn(Waiter)
    assert get(seen) == "asked"
    keeper.tell("answer")
    assert get(seen) == 1
    other = system.spawn(Waiter)
    assert get(seen) == "asked"
    with pytest.raises(LookupError):
        other.ask("fail")
    assert get(seen) == "asked"  # by the new instance
    assert other.ask("ping") == ref.ask("ping") == "pong"
    with pytest.raises(TypeError):
        system.spawn(Doer).ask(Call(lambda ctx: ctx.reenter_after(7, print)))


def test_wrong_arguments_of_sends(system):
    ref = system.spawn(Doer)
    for wrong in (
        lambda ctx: ctx.tell("x", 1),
        lambda ctx: ctx.tell(ref),
        lambda ctx: ctx.tell(ref, 1, 2),
        lambda ctx: ctx.tell(ref, 1, headers=5),
        lambda ctx: ctx.request(ref, 1, headers=5),
        lambda ctx: ctx.request(ref, 1, sender=5),
        lambda ctx: ctx.self.tell(1, headers=5),
        lambda ctx: ctx.self.tell(),
        lambda ctx: ctx.self.tell(1, 2),
        lambda ctx: ctx.self.tell(1, nonsense=2),
        lambda ctx: ctx.self.submit(1, timeout=2),
        lambda ctx: ctx.self.ask(1, timeout="soon"),
        lambda ctx: ctx.set_receive_timeout("soon"),
        lambda ctx: ctx.become(5),
        lambda ctx: ctx.watch(5),
        lambda ctx: ctx.stop(5),
    ):
        with pytest.raises(TypeError):  # each its own: ten failures would stop one
            system.spawn(Doer).ask(Call(wrong))
    assert ref.ask(Call(lambda ctx: ctx.tell(ref, 1, headers={"a": 1}))) is None
    with pytest.raises(ValueError):
        ref.ask(Call(lambda ctx: ctx.schedule_once(-1.0, "x")))
