"""Persistent actors: what is acknowledged is stored, and what is stored is what the actor knows."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
import support


class Add(es.Command[int]):
    amount: int
    times: int = 1


class Added(es.Event, name="PersistentAdded"):
    amount: int


class Total(es.Message, name="PersistentTotal"):
    total: int


class Counter(es.PersistentActor):
    """Adds numbers up; answers with total and version."""

    def __init__(self, log: list[Any] | None = None) -> None:
        self.total = 0
        self.log = [] if log is None else log

    def receive(self, ctx: es.Context, message: Any) -> None:
        self.log.append((type(message).__name__, self.recovering))
        match message:
            case Add(amount=amount, times=times):
                for _ in range(times):
                    self.persist(Added(amount))
                ctx.respond((self.total, self.version))
            case Added(amount=amount):
                self.total += amount
            case es.RequestSnapshot():
                self.persist_snapshot(Total(self.total))
            case es.OfferSnapshot(snapshot=state):
                self.total = state.total
            case "get":
                ctx.respond((self.total, self.version))
            case ("tell", ref, text):
                self.persist(Added(1))
                ctx.tell(ref, text)
                ref.tell(text + "!")
                ctx.respond(None)
            case "raise":
                self.persist(Added(1000))
                raise LookupError("after the event")
            case "block":
                ctx.respond(entered.set())
                release.wait(support.SECONDS)


entered, release = threading.Event(), threading.Event()


@pytest.fixture
def system():
    entered.clear()
    release.clear()
    with es.ActorSystem() as system:
        yield system
        release.set()


@pytest.fixture
def store():
    with es.Store(":memory:") as store:
        yield store


def props(store: es.Store, every: int | None = None, log: list[Any] | None = None) -> es.Props:
    return es.Props(lambda: Counter(log), middleware=[es.persistence(store, snapshot_every=every)])


def end(ref: es.Ref) -> None:
    ref.poison()
    ref.wait_stopped(timeout=support.SECONDS)


def again(system: es.ActorSystem, made: es.Props, name: str = "c") -> es.Ref:
    """Stop the actor of that name and spawn it again."""
    found = system.find(name)
    if found is not None:
        end(found)
    return system.spawn(made, name=name)


def test_state_survives(system, store):
    ref = system.spawn(props(store), name="c")
    assert ref.ask(Add(2)) == (2, 1)
    assert ref.ask(Add(3, times=2)) == (8, 3)
    assert [recorded.event.amount for recorded in store.history("c")] == [2, 3, 3]
    assert again(system, props(store)).ask("get") == (8, 3)


def test_state_survives_in_a_file_that_knows_no_classes(tmp_path: Path):
    path = tmp_path / "counters.db"
    for expected in ((1, 1), (2, 2)):
        with es.Store(path) as store, es.ActorSystem() as system:
            assert system.spawn(props(store, 1), name="c").ask(Add(1)) == expected


def test_recovery_comes_before_messages_and_says_so(system, store):
    ref = system.spawn(props(store, 3), name="c")
    ref.ask(Add(1, times=3))
    log: list[Any] = []
    ref = again(system, props(store, 3, log))
    assert ref.ask("get") == (3, 3)
    assert log == [
        ("Started", False),
        ("Replay", True),
        ("OfferSnapshot", True),
        ("ReplayComplete", False),
        ("str", False),
    ]
    ref.ask(Add(1))
    log.clear()
    assert again(system, props(store, None, log)).ask("get") == (4, 4)
    assert [name for name, _ in log][:6] == [
        "Stopping", "Stopped", "Started", "Replay", "OfferSnapshot", "Added"
    ]  # fmt: skip


@pytest.mark.parametrize("every", [1, 2, 3, 5, 7, 100, 0, None])
def test_a_snapshot_at_every_interval(system, store, every):
    ref = system.spawn(props(store, every), name="c")
    for version in range(1, 12):
        assert ref.ask(Add(version)) == (version * (version + 1) // 2, version)
        newest = store.snapshot("c")
        if every:
            expected = version // every * every
            assert (newest.version if newest else 0) == expected
            if newest is not None:
                state = es.from_bytes(Total, newest.data)
                assert state.total == expected * (expected + 1) // 2
        else:
            assert newest is None
    assert again(system, props(store, every)).ask("get") == (66, 11)


def test_a_snapshot_of_several_events_in_one_message(system, store):
    ref = system.spawn(props(store, 4), name="c")
    for count, expected in ((3, 0), (3, 6), (1, 6), (5, 12)):
        ref.ask(Add(1, times=count))
        newest = store.snapshot("c")
        assert (newest.version if newest else 0) == expected
    assert again(system, props(store, 4)).ask("get") == (12, 12)


def test_a_snapshot_that_cannot_be_made_is_published_and_the_message_goes_on(system, store, caplog):
    class Clumsy(Counter):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.RequestSnapshot):
                raise LookupError("no snapshot today")
            super().receive(ctx, message)

    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, seen.put)
    made = es.Props(Clumsy, middleware=[es.persistence(store, snapshot_every=2)])
    ref = system.spawn(made, name="c")
    for number in range(1, 4):
        assert ref.ask(Add(1)) == (number, number)
    failed = seen.get(timeout=support.SECONDS)
    assert (failed.ref, failed.message, failed.directive) == (ref, "RequestSnapshot", "resume")
    assert isinstance(failed.error, LookupError)
    assert (store.version("c"), store.snapshot("c")) == (3, None)
    end(ref)
    system.close()
    assert "actor c failed in RequestSnapshot (resume): LookupError: no snap" in caplog.text


def test_the_sender_is_answered_after_a_snapshot(system, store):
    ref = system.spawn(props(store, 1), name="c")
    replies = [ref.submit(Add(1)) for _ in range(50)]
    assert [one.result(timeout=support.SECONDS) for one in replies] == [
        (number, number) for number in range(1, 51)
    ]


def test_a_message_that_raises_leaves_nothing(system, store):
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, seen.put)
    ref = system.spawn(props(store), name="c")
    ref.ask(Add(1))
    with pytest.raises(LookupError, match="after the event"):
        ref.ask("raise")
    assert ref.ask("get") == (1, 1)
    assert store.version("c") == 1
    assert seen.get(timeout=support.SECONDS).directive == "restart"


def test_resuming_after_a_failure_forgets_what_was_not_stored(store):
    with es.ActorSystem(supervisor=es.OneForOne(lambda error: es.resume)) as system:
        ref = system.spawn(props(store), name="c")
        ref.ask(Add(1))
        with pytest.raises(LookupError):
            ref.ask("raise")
        assert ref.ask("get") == (1, 1)
        assert ref.ask(Add(2)) == (3, 2)


@pytest.mark.parametrize("at", [Added, es.ReplayComplete])
def test_who_was_not_recovered_does_not_go_on_whatever_its_supervisor_says(store, at):
    """Nor does it try for ever."""
    starts: list[Any] = []

    class Refusing(Counter):
        def receive(self, ctx: es.Context, message: Any) -> None:
            super().receive(ctx, message)
            if isinstance(message, es.Started):
                starts.append(message)
            if isinstance(message, es.ReplayComplete):
                self.persist(Added(1))
            if isinstance(message, at) and len(starts) < 5:
                raise LookupError("on purpose")

    with es.ActorSystem() as system:
        system.spawn(props(store), name="c").ask(Add(5))
    with es.ActorSystem(supervisor=es.OneForOne(lambda error: es.resume)) as system:
        ref = system.spawn(es.Props(Refusing, middleware=[es.persistence(store)]), name="c")
        with pytest.raises(es.Error, match="stopped"):
            ref.ask("get")
        ref.wait_stopped()
    assert len(starts) == 1
    assert store.version("c") == 1


def test_what_a_message_sends_leaves_once_it_is_durable(system, tmp_path: Path):
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    class Recorder(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, str):
                seen.put((message, reader.version("c")))

    with es.Store(tmp_path / "a.db") as store:
        reader = store
        other = system.spawn(Recorder)
        ref = system.spawn(props(store), name="c")
        ref.ask(("tell", other, "hello"))
        assert seen.get(timeout=support.SECONDS) == ("hello", 1)
        assert seen.get(timeout=support.SECONDS) == ("hello!", 1)
        end(ref)


def test_the_store_refuses(system, store):
    """Nothing is sent, the asker gets the error, and the actor goes on from what is stored."""
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stream = system.stream()
    ref = system.spawn(props(store), name="c")
    ref.ask(Add(1))
    store.append("c", [Added(10)])  # a second writer
    failed = ref.submit(("tell", stream, "never"))
    with pytest.raises(es.WrongVersion) as caught:
        failed.result(timeout=support.SECONDS)
    assert caught.value.actual == 2
    assert ref.ask("get") == (11, 2)
    assert ref.ask(Add(1)) == (12, 3)
    with pytest.raises(es.Timeout):
        stream.get(timeout=0.0)
    assert seen.empty()


def test_a_refused_actor_begins_anew_as_after_a_restart(system, store):
    """Its children stop before the new instance spawns them again, its timers end, its stash comes
    back; the message that finds it so is handled, once."""
    ticks: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    instances: list[Any] = []

    class Child:
        def receive(self, ctx: es.Context, message: Any) -> None:
            pass

    class Parent(es.PersistentActor):
        def __init__(self) -> None:
            self.number = len(instances)
            self.handled: list[Any] = []
            instances.append(self)

        def receive(self, ctx: es.Context, message: Any) -> None:
            match message:
                case es.Started():
                    ctx.spawn(Child, name="child")
                    ctx.schedule_every(0.001, self.number)
                case int():
                    ticks.put((self.number, message))
                case Add(amount=amount):
                    self.persist(Added(amount))
                    ctx.respond(None)
                case "aside" if self.number == 0:
                    ctx.stash()
                case "aside":
                    self.handled.append(message)
                case "which":
                    self.handled.append(message)
                    ctx.respond((list(self.handled), [child.name for child in ctx.children]))

    ref = system.spawn(es.Props(Parent, middleware=[es.persistence(store)]), name="c")
    ref.tell("aside")
    assert ref.ask("which") == (["which"], ["child"])
    store.append("c", [Added(10)])  # a second writer
    with pytest.raises(es.WrongVersion):
        ref.ask(Add(1))
    assert ref.ask("which") == (["aside", "which"], ["child"])
    assert len(instances) == 2
    while ticks.get(timeout=support.SECONDS)[0] == 0:
        pass
    for _ in range(5):
        assert ticks.get(timeout=support.SECONDS) == (1, 1)


def test_terminated_comes_to_what_is_stored(store):
    """An instance that has seen an event of a message that failed does not handle it."""
    seen: queue.SimpleQueue[int] = queue.SimpleQueue()

    class Child:
        def receive(self, ctx: es.Context, message: Any) -> None:
            pass

    class Watcher(Counter):
        def receive(self, ctx: es.Context, message: Any) -> None:
            match message:
                case es.Ref():
                    ctx.watch(message)
                    ctx.respond(None)
                case es.Terminated():
                    seen.put(self.total)
                case _:
                    super().receive(ctx, message)

    with es.ActorSystem(supervisor=es.OneForOne(lambda error: es.resume)) as system:
        child = system.spawn(Child)
        ref = system.spawn(es.Props(Watcher, middleware=[es.persistence(store)]), name="c")
        ref.ask(child)
        with pytest.raises(LookupError):
            ref.ask("raise")
        child.stop()
        assert seen.get(timeout=support.SECONDS) == 0
        assert ref.ask("get") == (0, 0)
        ref.ask(child)  # it is watched no more, so this is another one
        assert seen.get(timeout=support.SECONDS) == 0
    assert seen.empty()


def test_an_instance_that_has_seen_what_is_not_stored_gets_nothing_more(system, store):
    """Neither Restarting nor Stopping: it might store or send what it believes to be its state."""

    class Saver(Counter):
        def receive(self, ctx: es.Context, message: Any) -> None:
            super().receive(ctx, message)
            if isinstance(message, es.Restarting | es.Stopping) and self.version > 0:
                self.persist_snapshot(Total(self.total))

    def names() -> list[str]:
        return [name for name, _ in log]

    log: list[Any] = []
    made = es.Props(lambda: Saver(log), middleware=[es.persistence(store)])
    ref = system.spawn(made, name="c")
    ref.ask(Add(1))
    log.clear()
    with pytest.raises(LookupError):
        ref.ask("raise")
    assert ref.ask("get") == (1, 1)
    assert names() == ["str", "Added", "Started", "Replay", "Added", "ReplayComplete", "str"]
    store.append("c", [Added(10)])  # a second writer
    log.clear()
    with pytest.raises(es.WrongVersion):
        ref.ask(Add(1))
    ref.stop()
    ref.wait_stopped(timeout=support.SECONDS)
    assert names() == ["Add", "Added"]
    assert store.snapshot("c") is None
    log.clear()
    ref = again(system, made)
    assert ref.ask("get") == (11, 2)
    end(ref)
    assert names()[-2:] == ["Stopping", "Stopped"]
    assert store.snapshot("c").version == 2


@pytest.mark.parametrize("on_full", ["fail", "block", "drop_new"])
def test_what_finds_a_full_mailbox_once_it_is_durable_is_a_dead_letter(system, store, on_full):
    class Gate:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "block":
                entered.set()
                release.wait(support.SECONDS)

    class Sender(es.PersistentActor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "tell":
                self.persist(Added(1))
                ctx.tell(full, "no room")
                ctx.respond(None)
            elif message == "pass on":
                self.persist(Added(1))
                ctx.forward(full)

    letters: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.dead_letters.subscribe(letters.put)
    full = system.spawn(es.Props(Gate, mailbox=es.bounded(1, on_full)), name="full")
    full.tell("block")
    assert entered.wait(support.SECONDS)
    full.tell("waits")
    ref = system.spawn(es.Props(Sender, middleware=[es.persistence(store)]), name="c")
    for how in (ref.ask, lambda message: ref.submit(message).result(timeout=support.SECONDS)):
        assert how("tell") is None
        letter = letters.get(timeout=support.SECONDS)
        assert (letter.target, letter.message) == (full, "no room")
        with pytest.raises(es.MailboxFull):
            how("pass on")
        assert letters.get(timeout=support.SECONDS).message == "pass on"
    release.set()


def test_what_was_decided_on_what_could_not_be_stored_fails_too(system, store):
    ref = system.spawn(props(store), name="c")
    ref.ask(Add(1))
    ref.tell("block")
    assert entered.wait(support.SECONDS)
    replies = [ref.submit(Add(1)) for _ in range(20)]
    store.append("c", [Added(10)])
    release.set()
    outcomes = [one.exception(timeout=support.SECONDS) for one in replies]
    assert isinstance(outcomes[0], es.WrongVersion)
    total, version = ref.ask("get")
    assert version == store.version("c")
    assert total == sum(recorded.event.amount for recorded in store.history("c"))
    good = [one.result() for one in replies if one.exception() is None]
    assert len(good) == version - 2  # each acknowledged one is stored


def test_a_refused_message_is_a_failure_that_is_published(system, store, caplog):
    """Also where nobody waits for its answer, and by the thread of an asker."""
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, seen.put)
    ref = system.spawn(props(store), name="c")
    ref.ask(Add(1))
    store.append("c", [Added(10)])  # a second writer
    ref.tell(Add(1))
    failed = seen.get(timeout=support.SECONDS)
    assert (failed.ref, failed.message, failed.directive) == (ref, "Add", "restart")
    assert isinstance(failed.error, es.WrongVersion)
    assert (failed.error.expected, failed.error.actual) == (1, 2)
    assert ref.ask("get") == (11, 2)
    store.append("c", [Added(10)])
    with pytest.raises(es.WrongVersion):
        ref.ask(Add(1))
    assert seen.get(timeout=support.SECONDS).error.actual == 3
    end(ref)
    system.close()
    logged = [one.getMessage() for one in caplog.records]
    assert sum(one.startswith("actor c failed in Add (restart): ") for one in logged) == 2


def test_a_store_that_is_closed(system):
    store = es.Store(":memory:")
    ref = system.spawn(props(store), name="c")
    ref.ask(Add(1))
    store.close()
    with pytest.raises(es.Closed):
        ref.ask(Add(1))
    with pytest.raises(es.Closed):
        ref.ask("get")


def test_two_systems_write_one_stream(store):
    with es.ActorSystem() as one, es.ActorSystem() as two:
        a, b = one.spawn(props(store), name="c"), two.spawn(props(store), name="c")
        acknowledged = 0
        for _ in range(20):
            for ref in (a, b):
                try:
                    ref.ask(Add(1))
                    acknowledged += 1
                except es.WrongVersion:
                    pass
        assert acknowledged == store.version("c")


def test_an_event_that_cannot_be_decoded(system, store):
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    store.append("c", [Added(1)])
    store.append("c", [es.NewEvent("NobodyKnowsThis", b"\x01\x02")])
    system.events.subscribe(es.ActorFailed, seen.put)
    ref = system.spawn(props(store), name="c")
    with pytest.raises(es.Closed):
        ref.ask("get", timeout=support.SECONDS)
    error = seen.get(timeout=support.SECONDS).error
    assert isinstance(error, es.Corrupt)
    assert (error.stream, error.version) == ("c", 2)
    assert "NobodyKnowsThis" in str(error)


def test_an_event_that_the_actor_refuses_in_replay(system, store):
    class Strict(Counter):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, Added) and self.recovering:
                raise LookupError("not mine")
            super().receive(ctx, message)

    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, seen.put)
    store.append("c", [Added(1)])
    ref = system.spawn(es.Props(Strict, middleware=[es.persistence(store)]), name="c")
    ref.wait_stopped(timeout=support.SECONDS)
    error = seen.get(timeout=support.SECONDS).error
    assert isinstance(error, es.Corrupt)
    assert (error.stream, error.version) == ("c", 1)


def test_a_snapshot_that_cannot_be_read_is_passed_over(system, store):
    store.append("c", [Added(1), Added(2), Added(3)])
    store.save_snapshot("c", 1, "PersistentTotal", es.to_bytes(Total(1)))
    store.save_snapshot("c", 2, "NobodyKnowsThis", b"\x01\x02")
    log: list[Any] = []
    assert system.spawn(props(store, 10, log), name="c").ask("get") == (6, 3)
    assert [name for name, _ in log].count("Added") == 2


def test_a_poison_while_persisting(system, store):
    ref = system.spawn(props(store), name="c")
    replies = [ref.submit(Add(1)) for _ in range(10)]
    ref.poison()
    assert replies[-1].result(timeout=support.SECONDS) == (10, 10)
    ref.wait_stopped(timeout=support.SECONDS)
    assert system.spawn(props(store), name="c").ask("get") == (10, 10)


def test_messages_that_arrive_during_recovery_wait(system, store):
    store.append("c", [Added(1) for _ in range(2000)])
    ref = system.spawn(props(store), name="c")
    replies = [ref.submit(Add(1)) for _ in range(10)]
    assert [one.result(timeout=support.SECONDS) for one in replies] == [
        (number, number) for number in range(2001, 2011)
    ]


def test_many_actors_at_once(system, store):
    refs = [system.spawn(props(store, 3), name=f"c{number}") for number in range(100)]
    replies = [ref.submit(Add(1)) for _ in range(20) for ref in refs]
    for one in replies:
        one.result(timeout=support.SECONDS)
    assert all(store.version(f"c{number}") == 20 for number in range(100))
    assert all(ref.ask("get") == (20, 20) for ref in refs)


def test_waiting_in_a_message_for_what_it_sent_itself(system, store):
    class Waiter(es.PersistentActor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Ref):
                self.persist(Added(1))
                ctx.respond(message.submit("get").result())
            elif isinstance(message, tuple):
                self.persist(Added(1))
                ctx.respond(message[0].ask("get"))

    counter = system.spawn(props(store), name="c")
    ref = system.spawn(es.Props(Waiter, middleware=[es.persistence(store)]), name="w")
    with pytest.raises(es.Deadlock):
        ref.ask(counter)
    assert ref.ask((counter,)) == (0, 0)


def test_misuse(system, store):
    class Bare(es.PersistentActor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "late":
                self.persist(Added(1))
            elif message == "bad":
                self.persist("no event")  # type: ignore[type-var]

    class Parent:
        def receive(self, ctx: es.Context, message: Any) -> None:
            match message:
                case what, name:
                    ctx.respond(ctx.spawn(what, name=name))

    lonely = Counter()
    with pytest.raises(es.Error, match="no running actor"):
        lonely.persist(Added(1))
    assert not lonely.recovering
    with pytest.raises(TypeError):
        es.persistence("carts.db")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        es.persistence(store, snapshot_every=-1)
    parent = system.spawn(Parent)
    for spawn in (system.spawn, lambda what, *, name=None: parent.ask((what, name))):
        with pytest.raises(ValueError, match="is spawned with a name"):
            spawn(props(store))
        with pytest.raises(TypeError, match="Bare is a PersistentActor and has no store"):
            spawn(Bare, name="b")
        with pytest.raises(TypeError, match="es.PersistentActor, and .*Parent is none"):
            spawn(es.Props(Parent, middleware=[es.persistence(store)]), name="b")
    with pytest.raises(es.Closed, match="Bare is a PersistentActor and has no store"):
        system.spawn(lambda: Bare(), name="b").ask("late")
    ref = system.spawn(es.Props(Bare, middleware=[es.persistence(store)]), name="bare")
    with pytest.raises(TypeError, match="es.Event"):
        ref.ask("bad")
    with pytest.raises(es.Unanswered):
        ref.ask("late")
    assert store.version("bare") == 1


def test_persisting_in_replay_or_for_a_snapshot_is_refused(system, store):
    class Eager(es.PersistentActor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            match message:
                case Added():
                    if self.recovering:
                        self.persist(Added(2))
                case "go":
                    self.persist(Added(1))
                    ctx.respond(self.version)

    made = es.Props(Eager, middleware=[es.persistence(store)])
    ref = system.spawn(made, name="e")
    assert ref.ask("go") == 1
    end(ref)
    again = system.spawn(made, name="e")
    again.wait_stopped(timeout=support.SECONDS)
    assert store.version("e") == 1


def test_persisting_before_recovery_is_refused(system, store):
    """What is stored is not known yet: its event would stand before it."""

    class Eager(Counter):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Started):
                for write in (lambda: self.persist(Added(5)), lambda: self.persist_snapshot(now)):
                    with pytest.raises(es.Error, match="before the actor was recovered"):
                        write()
            elif isinstance(message, es.ReplayComplete):
                self.persist(Added(message.version + 1))
            else:
                super().receive(ctx, message)

    now = Total(0)
    made = es.Props(Eager, middleware=[es.persistence(store)])
    assert system.spawn(made, name="e").ask("get") == (1, 1)
    assert again(system, made, "e").ask("get") == (3, 2)
    assert [one.event.amount for one in store.history("e")] == [1, 2]


@pytest.mark.parametrize("what", ["event", "snapshot"])
def test_persisting_while_an_event_is_handled_is_refused(system, store, what):
    """Replay gives the actor its event again, where nothing can be stored."""

    class Eager(es.PersistentActor):
        def __init__(self) -> None:
            self.caught = False

        def receive(self, ctx: es.Context, message: Any) -> None:
            match message:
                case Added(amount=1) if what == "event":
                    self.persist(Added(2))
                case Added(amount=1):
                    self.persist_snapshot(Total(1))
                case Added(amount=3):
                    with pytest.raises(es.Error):
                        self.persist(Added(4))
                    self.caught = True
                case Add(amount=amount):
                    self.persist(Added(amount))
                    ctx.respond(self.version)
                case "get":
                    ctx.respond((self.version, self.caught))

    made = es.Props(Eager, middleware=[es.persistence(store)])
    ref = system.spawn(made, name="e")
    assert ref.ask(Add(2)) == 1
    with pytest.raises(es.Error, match="handles an event that it has persisted"):
        ref.ask(Add(1))
    assert store.version("e") == 1
    assert store.snapshot("e") is None
    assert ref.ask("get") == (1, False)
    assert ref.ask(Add(3)) == 2  # it has caught the error, here and in replay
    assert ref.ask("get") == again(system, made, "e").ask("get") == (2, True)
    assert store.version("e") == 2


def test_persisting_in_another_thread_is_refused(system, store):
    class Helped(Counter):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if callable(message):
                ctx.respond(message(self))
            else:
                super().receive(ctx, message)

    class Caller:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if callable(message):
                ctx.respond(message())

    def in_a_thread(actor: Helped) -> None:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit(actor.persist, Added(5)).result()

    def in_another_actor(actor: Helped) -> None:
        caller.ask(lambda: actor.persist(Added(5)))

    def snapshot(actor: Helped) -> None:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit(actor.persist_snapshot, Total(5)).result()

    caller = system.spawn(Caller)
    ref = system.spawn(es.Props(Helped, middleware=[es.persistence(store)]), name="c")
    ref.ask(Add(1))
    for way in (in_a_thread, in_another_actor, snapshot):
        with pytest.raises(es.Error, match="by a thread that does not handle"):
            ref.ask(way)
    assert (store.version("c"), store.snapshot("c")) == (1, None)
    assert ref.ask(Add(1)) == (2, 2)


def test_deleting(system, store):
    class Deleter(Counter):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "snapshots":
                self.delete_snapshots(upto=2)
                ctx.respond(None)
            elif message == "events":
                self.delete_events(upto=2)
                ctx.respond(self.version)
            elif message == "negative":
                self.delete_events(upto=-1)
            else:
                super().receive(ctx, message)

    made = es.Props(Deleter, middleware=[es.persistence(store, snapshot_every=1)])
    ref = system.spawn(made, name="c")
    for _ in range(3):
        ref.ask(Add(1))
    ref.ask("snapshots")
    assert store.snapshot("c", upto=2) is None
    assert store.snapshot("c").version == 3
    with pytest.raises(ValueError, match="-1"):
        ref.ask("negative")
    assert ref.ask("events") == 3
    assert [one.version for one in store.history("c", after=2)] == [3]
    with pytest.raises(es.Deleted):
        list(store.history("c"))
    assert again(system, made).ask("get") == (3, 3)
    assert again(system, made).ask(Add(1)) == (4, 4)
    assert store.version("c") == 4


def test_events_for_which_no_snapshot_stands_are_not_deleted(system, store):
    class Deleter(Counter):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "events":
                self.delete_events()
            else:
                super().receive(ctx, message)

    ref = system.spawn(es.Props(Deleter, middleware=[es.persistence(store)]), name="c")
    ref.ask(Add(1))
    with pytest.raises(es.NotCovered):
        ref.ask("events")
    assert ref.ask("get") == (1, 1)


class Provider(es.Store):
    """A store written in Python, which can be told to refuse."""

    def __init__(self) -> None:
        self.streams_: dict[str, list[es.NewEvent]] = {}
        self.down = False
        self.inner = es.Store(":memory:")

    def commit(self, writes: Any, **options: Any) -> es.Commit:
        if self.down:
            raise es.StorageError("the server does not answer")
        return self.inner.commit(writes, **options)

    def history(self, stream: str, **options: Any) -> Any:
        return self.inner.history(stream, **options)

    def version(self, stream: str) -> int:
        return self.inner.version(stream)

    def snapshot(self, stream: str, **options: Any) -> Any:
        return self.inner.snapshot(stream, **options)

    def save_snapshot(self, stream: str, version: int, type: str, data: bytes) -> None:
        self.inner.save_snapshot(stream, version, type, data)

    def close(self) -> None:
        self.inner.close()


def test_a_provider_in_python(system):
    with Provider() as store:
        ref = system.spawn(props(store, 2), name="c")
        assert ref.ask(Add(1, times=3)) == (3, 3)
        store.down = True
        with pytest.raises(es.StorageError, match="does not answer"):
            ref.ask(Add(1))
        store.down = False
        assert ref.ask("get") == (3, 3)
        assert ref.ask(Add(1)) == (4, 4)
        assert again(system, props(store, 2)).ask("get") == (4, 4)
        assert store.snapshot("c").version == 4
        end(system.find("c"))


def test_a_store_whose_class_commits_in_its_own_way_is_asked(system):
    class Refusing(es.Store):
        down = False
        snapshots = 0

        def commit(self, *args: Any, **options: Any) -> es.Commit:
            if self.down:
                raise es.StorageError("the disk is gone")
            return super().commit(*args, **options)

        def save_snapshot(self, *args: Any) -> None:
            self.snapshots += 1
            super().save_snapshot(*args)

    with Refusing(":memory:") as store:
        props = es.Props(Counter, middleware=[es.persistence(store, snapshot_every=2)])
        ref = system.spawn(props, name="c")
        stream = system.stream()
        assert ref.ask(Add(1, 2)) == (2, 2)
        assert store.snapshots == 1
        store.down = True
        with pytest.raises(es.StorageError, match="the disk is gone"):
            ref.ask(Add(1))
        with pytest.raises(es.StorageError, match="the disk is gone"):
            ref.ask(("tell", stream, "x"))
        store.down = False
        assert ref.ask("get") == (2, 2)
        assert store.version("c") == 2
        ref.ask(("tell", stream, "y"))
        assert [stream.get(support.SECONDS), stream.get(support.SECONDS)] == ["y", "y!"]


def test_a_provider_that_refuses_a_snapshot_has_stored_the_events(system, caplog):
    class NoSnapshots(Provider):
        def save_snapshot(self, *args: Any, **kwargs: Any) -> None:
            raise es.StorageError("no room for snapshots")

    with NoSnapshots() as store:
        ref = system.spawn(props(store, 1), name="c")
        assert ref.ask(Add(1)) == (1, 1)
        assert ref.ask(Add(2)) == (3, 2)
        end(ref)
    assert "snapshot of c at version 1" in caplog.text


def test_killed_in_the_midst(tmp_path: Path):
    """What was acknowledged is there after kill -9."""
    path = tmp_path / "k.db"
    code = """
        class Added2(es.Event, name="Added2"):
            amount: int
        class Counter2(es.PersistentActor):
            def receive(self, ctx, message):
                if isinstance(message, int):
                    self.persist(Added2(message))
                    ctx.respond(self.version)
        store = es.Store(sys.argv[1])
        system = es.ActorSystem()
        ref = system.spawn(es.Props(Counter2, middleware=[es.persistence(store)]), name="c")
        while True:
            print(ref.ask(1), flush=True)
    """
    process = support.start(code, path)
    assert process.stdout is not None
    for _ in range(20):
        acknowledged = int(process.stdout.readline())
    process.kill()
    process.communicate()
    with es.Store(path) as store:
        assert store.version("c") >= acknowledged == 20
