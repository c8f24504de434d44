"""What happens when an actor fails."""

from __future__ import annotations

import collections
import logging
import queue
import random
import threading
from typing import Any

import escqrs as es
import pytest
import support
from actors import get


class Worker(es.Actor):
    """Counts; raises what it is told to; says what it gets."""

    def __init__(self, seen: queue.SimpleQueue[Any]) -> None:
        self.seen = seen
        self.count = 0

    def receive(self, ctx: es.Context, message: Any) -> None:
        match message:
            case BaseException():
                raise message
            case "count":
                self.count += 1
                ctx.respond(self.count)
            case "stash":
                ctx.stash()
            case "unstash":
                ctx.unstash_all()
            case es.Started() | es.Restarting() | es.Stopped():
                self.seen.put((ctx.self.name, type(message).__name__))


class Boss(es.Actor):
    """Spawns workers by name."""

    def __init__(self, seen: queue.SimpleQueue[Any]) -> None:
        self.seen = seen

    def receive(self, ctx: es.Context, message: Any) -> None:
        if isinstance(message, str):
            ctx.respond(ctx.spawn(lambda: Worker(self.seen), name=message))


@pytest.fixture
def system():
    with es.ActorSystem() as system:
        yield system


def boss(system: es.ActorSystem, seen: Any, supervisor: es.OneForOne | None) -> es.Ref:
    return system.spawn(es.Props(lambda: Boss(seen), supervisor=supervisor), name="boss")


def decided(directive: str) -> Any:
    return es.OneForOne(lambda error: directive)


def fail(ref: es.Ref, error: BaseException | None = None) -> None:
    with pytest.raises(type(error) if error is not None else LookupError):
        ref.ask(error if error is not None else LookupError("as told"))


def test_resume_goes_on_with_the_same_instance(system, seen):
    ref = boss(system, seen, decided("resume")).ask("w")
    assert ref.ask("count") == 1
    fail(ref)
    assert ref.ask("count") == 2


def test_restart_makes_a_new_instance_and_keeps_the_mailbox(system, seen):
    ref = boss(system, seen, decided("restart")).ask("w")
    assert ref.ask("count") == 1
    fail(ref)
    assert ref.ask("count") == 1
    assert [get(seen) for _ in range(3)] == [
        ("w", "Started"),
        ("w", "Restarting"),
        ("w", "Started"),
    ]


def test_stop_ends_it_and_what_waits_is_answered(system, seen):
    ref = boss(system, seen, decided("stop")).ask("w")
    fail(ref)
    ref.wait_stopped(timeout=support.SECONDS)
    with pytest.raises(es.Closed):
        ref.ask("count")


def test_escalate_fails_the_parent(system, seen):
    failed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, failed.put)
    parent = boss(system, seen, decided("escalate"))
    ref = parent.ask("w")
    fail(ref)
    ref.wait_stopped(timeout=support.SECONDS)  # the children of who is restarted stop
    assert get(failed).directive == "escalate"
    again = parent.ask("w")
    assert again.ask("count") == 1


def test_all_whose_failures_were_escalated_go_on(system):
    """Three children fail before anything is decided about their parent."""
    pause = threading.Event()

    class Child:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "fail":
                raise LookupError("as told")
            if message == "ping":
                ctx.respond("pong")

    class Parent:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "spawn":
                ctx.respond([ctx.spawn(Child) for _ in range(3)])
            elif message == "fail":
                for child in ctx.children:
                    child.tell("fail")
                while any(child.state != "failed" for child in ctx.children):
                    pause.wait(0.001)
                ctx.respond(None)

    class Top:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "spawn":
                ctx.respond(ctx.spawn(es.Props(Parent, supervisor=decided("escalate"))))

    top = system.spawn(es.Props(Top, supervisor=decided("resume")))
    parent = top.ask("spawn")
    children = parent.ask("spawn")
    parent.ask("fail")
    assert [child.ask("ping", timeout=support.SECONDS) for child in children] == ["pong"] * 3


def test_all_for_one_restarts_all(system, seen):
    parent = boss(system, seen, es.AllForOne(lambda error: "restart"))
    a, b = parent.ask("a"), parent.ask("b")
    assert (a.ask("count"), b.ask("count")) == (1, 1)
    fail(a)
    assert (a.ask("count"), b.ask("count")) == (1, 1)


def test_one_for_one_restarts_one(system, seen):
    parent = boss(system, seen, es.OneForOne(lambda error: "restart"))
    a, b = parent.ask("a"), parent.ask("b")
    assert (a.ask("count"), b.ask("count")) == (1, 1)
    fail(a)
    assert (a.ask("count"), b.ask("count")) == (1, 2)


def test_decide_sees_the_exception(system, seen):
    def decide(error: BaseException) -> es.Directive:
        return es.resume if isinstance(error, LookupError) else es.stop

    ref = boss(system, seen, es.OneForOne(decide)).ask("w")
    ref.ask("count")
    fail(ref, KeyError("x"))
    assert ref.ask("count") == 2
    fail(ref, ValueError("y"))
    ref.wait_stopped(timeout=support.SECONDS)


def test_limits_of_restarts(system, seen):
    ref = boss(system, seen, es.OneForOne(max_restarts=2, within=1000.0)).ask("w")
    for _ in range(2):
        fail(ref)
        assert ref.ask("count") == 1
    fail(ref)
    ref.wait_stopped(timeout=support.SECONDS)


def test_no_restarts_at_all(system, seen):
    ref = boss(system, seen, es.OneForOne(max_restarts=0)).ask("w")
    fail(ref)
    ref.wait_stopped(timeout=support.SECONDS)


def test_backoff(system, seen):
    backoff = es.Backoff(first=0.001, limit=0.01, factor=2.0, jitter=0.5)
    ref = boss(system, seen, es.OneForOne(backoff=backoff)).ask("w")
    for _ in range(3):
        fail(ref)
        assert ref.ask("count", timeout=support.SECONDS) == 1


def test_the_supervisor_of_the_system(seen):
    with es.ActorSystem(supervisor=es.OneForOne(lambda error: es.resume)) as system:
        ref = system.spawn(lambda: Worker(seen))
        ref.ask("count")
        fail(ref)
        assert ref.ask("count") == 2


def nonsense(error: BaseException) -> str:
    return "nonsense"


def raises(error: BaseException) -> str:
    raise SystemExit("nonsense")


@pytest.mark.parametrize("decide", [nonsense, raises])
def test_a_decide_that_raises_or_says_nonsense_is_logged_and_escalates(
    system, seen, caplog, decide
):
    failed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, failed.put)
    ref = boss(system, seen, es.OneForOne(decide)).ask("w")
    fail(ref)
    assert get(failed).directive == "escalate"
    said = [one for one in caplog.records if "decide" in one.getMessage()]
    assert "nonsense" in str(said[0].exc_info[1])


def test_a_failure_is_in_the_log_and_on_the_event_stream(system, seen, caplog):
    failed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, failed.put)
    ref = system.spawn(lambda: Worker(seen), name="worker")
    ref.tell(LookupError("nobody asked"))
    event = get(failed)
    assert (event.ref, event.message, event.directive) == (ref, "LookupError", "restart")
    assert isinstance(event.error, LookupError)
    system.close()
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert any("worker" in one and "nobody asked" in one for one in lines)


@pytest.mark.parametrize("hook", ["Started", "Stopping", "Stopped", "Restarting"])
def test_an_exception_in_every_lifecycle_hook(system, hook):
    failed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    system.events.subscribe(es.ActorFailed, failed.put)

    class Fragile(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if type(message).__name__ == hook:
                raise LookupError(hook)
            if message == "fail":
                raise ValueError(message)

    ref = system.spawn(es.Props(Fragile))
    if hook == "Restarting":
        with pytest.raises(ValueError):
            ref.ask("fail")
        ref.poison()
    elif hook != "Started":
        ref.poison()
    ref.wait_stopped(timeout=support.SECONDS)
    errors = [get(failed).error]
    while not any(isinstance(one, LookupError) for one in errors):
        errors.append(get(failed).error)


def test_a_failure_that_repeats_is_said_once_in_full(caplog, seen):
    """Each attempt has its line and its event, but only the first one its traceback."""
    texts = ["no\nluck"] * 2 + ["no power"] + ["no luck"] * 2

    class Unlucky:
        def __init__(self) -> None:
            if texts:
                raise LookupError(texts.pop(0))

        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "fail":
                raise LookupError("no luck")
            if message == "get":
                ctx.respond("got")

    with es.ActorSystem() as system:
        system.events.subscribe(es.ActorFailed, seen.put)
        ref = system.spawn(Unlucky, name="u")
        assert ref.ask("get") == "got"
        for _ in range(2):
            with pytest.raises(LookupError):
                ref.ask("fail")
            assert ref.ask("get") == "got"  # it has run meanwhile, so the next one is another
        errors = [seen.get(timeout=support.SECONDS).error for _ in range(7)]
    assert all(isinstance(one, LookupError) for one in errors)
    said = [one.getMessage() for one in caplog.records]
    lines = collections.Counter(one.split("\n")[0] for one in said)
    assert lines == {
        "actor u failed (restart): LookupError: no": 1,
        "actor u failed again (restart): LookupError: no": 1,
        "actor u failed (restart): LookupError: no power": 1,
        "actor u failed (restart): LookupError: no luck": 1,
        "actor u failed again (restart): LookupError: no luck": 1,
        "actor u failed in str (restart): LookupError: no luck": 2,
    }
    assert all(("Traceback" in one) != ("failed again" in one) for one in said)


def test_keyboard_interrupt_of_a_handler_reaches_the_asker(system, seen):
    ref = system.spawn(lambda: Worker(seen))
    with pytest.raises(KeyboardInterrupt):
        ref.ask(KeyboardInterrupt())
    assert ref.ask("count") == 1


def test_the_stash_survives_resume(system, seen):
    ref = boss(system, seen, decided("resume")).ask("w")
    ref.tell("stash")
    fail(ref)
    assert ref.ask("count") == 1


def test_the_stash_is_bounded(system):
    class Hoarder(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, int):
                ctx.stash()

    ref = system.spawn(es.Props(Hoarder, stash_max=3))
    replies = [ref.submit(number) for number in range(4)]
    assert isinstance(replies[3].exception(timeout=support.SECONDS), es.MailboxFull)


def test_a_restart_forgets_behaviours_and_timers(system, seen):
    class Timed(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "go":
                ctx.become(self.other)
                ctx.schedule_every(0.001, "tick")
                ctx.respond(None)
            elif message == "who":
                ctx.respond("first")
            elif message == "tick":
                seen.put(message)

        def other(self, ctx: es.Context, message: Any) -> None:
            if message == "fail":
                raise LookupError
            if message == "who":
                ctx.respond("other")
            elif message == "tick":
                seen.put(message)

    ref = system.spawn(Timed)
    ref.ask("go")
    assert get(seen) == "tick"
    assert ref.ask("who") == "other"
    with pytest.raises(LookupError):
        ref.ask("fail")
    assert ref.ask("who") == "first"


@pytest.mark.parametrize(
    "make",
    [
        lambda: es.OneForOne("restart"),
        lambda: es.OneForOne(max_restarts="many"),
        lambda: es.OneForOne(backoff=1.0),
        lambda: es.Props(Worker, supervisor="restart"),
        lambda: es.Props(Worker, mailbox=5),
        lambda: es.Props(Worker, middleware=[5]),
        lambda: es.Props(Worker, middleware=None),
        lambda: es.ActorSystem(supervisor=5),
        lambda: es.ActorSystem(loop=5),
    ],
)
def test_what_cannot_be_is_a_type_error(make):
    with pytest.raises(TypeError):
        make()


def test_a_time_without_end(system):
    ages = 10**400  # seconds, more than a float holds

    class Patient(Worker):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "wait":
                ctx.set_receive_timeout(ages)
                ctx.schedule_once(ages, "never")
                ctx.schedule_every(ages, "never").cancel()
                ctx.respond("waits")

    supervisor = es.OneForOne(within=ages, backoff=es.Backoff(limit=ages))
    props = es.Props(lambda: Patient(None), receive_timeout=ages, supervisor=supervisor)
    assert system.spawn(props).ask("wait", timeout=ages) == "waits"


@pytest.mark.parametrize(
    "make",
    [
        lambda: es.OneForOne(within=0),
        lambda: es.OneForOne(max_restarts=-1),
        lambda: es.Backoff(first=-1),
        lambda: es.Backoff(jitter=2),
        lambda: es.Props(Worker, receive_timeout=0),
        lambda: es.Props(Worker, stash_max=0),
        lambda: es.bounded(0),
        lambda: es.bounded(1, "explode"),
        lambda: es.round_robin(0),
    ],
)
def test_what_cannot_be_is_a_value_error(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize("name", ["first", "limit", "factor", "jitter"])
@pytest.mark.parametrize("value", ["a", None, True])
def test_what_is_no_number_is_a_type_error(name, value):
    with pytest.raises(TypeError, match=name):
        es.Backoff(**{name: value})


def test_children_of_a_restarted_actor_stop(system, seen):
    class Parent(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "spawn":
                ctx.respond(ctx.spawn(lambda: Worker(seen), name="child"))
            elif message == "fail":
                raise LookupError

    parent = system.spawn(Parent)
    child = parent.ask("spawn")
    with pytest.raises(LookupError):
        parent.ask("fail")
    child.wait_stopped(timeout=support.SECONDS)
    assert parent.ask("spawn") != child


def test_a_name_used_by_a_stopping_actor(system):
    entered, release = threading.Event(), threading.Event()

    class Slow(es.Actor):
        def receive(self, ctx: es.Context, message: Any) -> None:
            if isinstance(message, es.Stopping):
                entered.set()
                release.wait(support.SECONDS)

    ref = system.spawn(Slow, name="slow")
    ref.stop()
    assert entered.wait(support.SECONDS)
    with pytest.raises(es.NameExists) as caught:
        system.spawn(Slow, name="slow")
    assert caught.value.ref == ref
    assert ref.state == "stopping"
    release.set()
    ref.wait_stopped(timeout=support.SECONDS)
    assert system.spawn(Slow, name="slow") != ref


def unmakeable() -> Any:
    raise LookupError("no such part")


def test_who_asks_an_actor_that_cannot_be_made_hears_why(system):
    """With the message that waited, and afterwards."""
    ref = system.spawn(unmakeable)
    for _ in range(2):
        with pytest.raises(es.Closed, match="has stopped: LookupError: no such part"):
            ref.ask("x", timeout=support.SECONDS)


def test_who_asks_an_actor_that_waits_to_be_restarted_hears_why():
    patient = es.OneForOne(backoff=es.Backoff(first=60.0, limit=60.0))
    with es.ActorSystem(supervisor=patient) as system:
        failed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        system.events.subscribe(es.ActorFailed, failed.put)
        ref = system.spawn(unmakeable)
        failed.get(timeout=support.SECONDS)
        with pytest.raises(es.Timeout, match="LookupError: no such part"):
            ref.ask("x", timeout=0.01)
        waits = ref.submit("y")
    with pytest.raises(es.Closed, match="LookupError: no such part"):  # close() did not wait
        waits.result(timeout=support.SECONDS)


def test_an_actor_that_runs_again_has_no_failure_to_tell():
    class Once:
        def receive(self, ctx: es.Context, message: Any) -> None:
            if message == "fail":
                raise LookupError("once")

    for decide in (es.restart, es.resume):
        with es.ActorSystem(supervisor=es.OneForOne(lambda error, it=decide: it)) as own:
            ref = own.spawn(Once)
            with pytest.raises(LookupError):
                ref.ask("fail")
            with pytest.raises(es.Unanswered):
                ref.ask("x")
            ref.poison()
            ref.wait_stopped(timeout=support.SECONDS)
            with pytest.raises(es.Closed) as caught:
                ref.ask("x")
            assert "once" not in str(caught.value)


def test_a_tree_under_fire():
    """Four threads let a tree grow, fail, stop, watch and talk: every ask has an end."""

    class Node(es.Actor):
        def __init__(self) -> None:
            self.children: list[es.Ref] = []

        def receive(self, ctx: es.Context, message: Any) -> None:
            match message:
                case "grow":
                    child = ctx.spawn(Node)
                    ctx.watch(child)
                    self.children.append(child)
                    ctx.respond(child)
                case "fail":
                    raise LookupError
                case "ping":
                    ctx.respond("pong")
                case "talk":
                    for child in self.children:
                        child.tell("x")
                    ctx.schedule_once(0.001, "x")
                case es.Terminated(ref=ref):
                    self.children = [one for one in self.children if one != ref]

    wrong: list[BaseException] = []
    supervisor = es.OneForOne(max_restarts=1_000_000)
    with es.ActorSystem(supervisor=supervisor) as system:
        refs = [system.spawn(Node) for _ in range(5)]

        def play(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(150):
                ref = dice.choice(refs)
                try:
                    match dice.randrange(7):
                        case 0:
                            refs.append(ref.ask("grow", timeout=support.SECONDS))
                        case 1:
                            ref.tell("fail")
                        case 2:
                            with pytest.raises(LookupError):
                                ref.ask("fail", timeout=support.SECONDS)
                        case 3:
                            ref.stop() if dice.randrange(2) else ref.poison()
                            refs.append(system.spawn(Node))
                        case 4:
                            ref.tell("talk")
                        case _:
                            assert ref.ask("ping", timeout=support.SECONDS) == "pong"
                except es.Closed:
                    pass
                except BaseException as error:
                    wrong.append(error)

        threads = [threading.Thread(target=play, args=(seed,)) for seed in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert not wrong
    assert system.actor_count == 0
