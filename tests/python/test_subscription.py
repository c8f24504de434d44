"""Durable subscriptions: at least once, in order by stream, across consumers and crashes."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import defaultdict
from pathlib import Path

import escqrs as es
import pytest
from escqrs import _subscription
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECONDS, finish, run, start


class Mailed(es.Event):
    number: int


class Other(es.Event):
    pass


@pytest.fixture
def store():
    with es.Store(":memory:", Mailed) as opened:
        yield opened


def fill(store: es.Store, *streams: str) -> None:
    for number, stream in enumerate(streams):
        store.append(stream, [Mailed(number)])


def status(store: es.Store, name: str = "mailer") -> es.SubscriptionStatus:
    (found,) = [one for one in store.subscriptions() if one.name == name]
    return found


def test_what_is_asked_beyond_is_acknowledged_and_what_was_broken_out_of_is_not(store):
    fill(store, "a", "b", "c")
    with store.subscribe("mailer") as mailer:
        for recorded in mailer:
            if recorded.event.number == 1:
                break
    assert status(store).position == 1
    with store.subscribe("mailer") as mailer:
        assert mailer.next(timeout=SECONDS).event.number == 1
        mailer.ack()
        assert status(store).position == mailer.position == 2
        assert mailer.next(timeout=SECONDS).event.number == 2
    assert status(store).position == 2


def test_a_loop_that_begins_again_gets_what_it_did_not_acknowledge(store):
    fill(store, "a", "b")
    with store.subscribe("mailer") as mailer:
        for recorded in mailer:
            assert (recorded.event.number, mailer.attempt) == (0, 1)
            break
        for recorded in mailer:
            assert (recorded.event.number, mailer.attempt) == (0, 2)
            break


def test_a_body_that_raises_is_a_failure_that_is_recorded(tmp_path):
    with es.Store(tmp_path / "a.db", Mailed) as store:
        fill(store, "a")
        with pytest.raises(ZeroDivisionError):
            with store.subscribe("mailer") as mailer:
                for _ in mailer:
                    raise ZeroDivisionError("no mail")
    with es.Store(tmp_path / "a.db", Mailed) as store:
        with store.subscribe("mailer") as mailer:
            assert mailer.next(timeout=SECONDS).event.number == 0
            assert mailer.attempt == 2


def test_types_and_matches_and_where_it_begins(store):
    store.append("a", [Mailed(0), Other(), es.NewEvent("Raw", b"x", tags=["vip"]), Mailed(1)])
    with store.subscribe("typed", types=[Mailed]) as typed:
        assert [typed.next(timeout=SECONDS).position for _ in range(2)] == [1, 4]
    with store.subscribe("tagged", match=es.Match(tags=["vip"])) as tagged:
        assert tagged.next(timeout=SECONDS).type == "Raw"
    with store.subscribe("late", types=[Mailed], after=store.head) as late:
        with pytest.raises(TimeoutError):
            late.next(timeout=0)
        fill(store, "b")
        assert late.next(timeout=SECONDS).stream == "b"
    with store.subscribe("late", types=[Mailed], after=0) as late:  # it was begun
        assert late.next(timeout=SECONDS).stream == "b"
    with pytest.raises(TypeError, match="types or match"):
        store.subscribe("x", types=[Mailed], match=es.Match(types=["Mailed"]))
    with store.subscribe(types=[Mailed]) as feed:  # without a name it is a feed
        assert next(feed).position == 1


def test_the_engines_own_events_are_not_delivered_unless_asked_for(store):
    fill(store, "a")
    with (
        store.subscribe("all") as every,
        store.subscribe("own", types=["escqrs.Subscribed"]) as own,
    ):
        assert every.next(timeout=SECONDS).type == "Mailed"
        with pytest.raises(TimeoutError):
            every.next(timeout=0)
        assert own.next(timeout=SECONDS).type == "escqrs.Subscribed"


class Counted(es.Process):
    count: int

    @es.on(Mailed, key="number")
    def mailed(self, event: Mailed) -> None:
        self.count += 1


def test_nor_are_the_states_of_processes():
    with es.open(":memory:", Counted) as shop, shop.subscribe("all") as every:
        fill(shop.store, "a")
        shop.flush(SECONDS)
        fill(shop.store, "b")
        assert [every.next(timeout=SECONDS).stream for _ in range(2)] == ["a", "b"]
        with shop.subscribe("states", types=["Counted.State"]) as states:
            assert states.next(timeout=SECONDS).stream == "escqrs.process/Counted/0"


def test_an_idle_subscription_commits_nothing(store):
    fill(store, "a")
    with store.subscribe("all") as every, store.subscribe("more") as more:
        for one in (every, more):
            one.next(timeout=SECONDS)
            with pytest.raises(TimeoutError):
                one.next(timeout=0)
        head = store.head
        for one in (every, more):
            with pytest.raises(TimeoutError):
                one.next(timeout=0)
        assert store.head == head


def test_consumers_share_and_a_stream_stays_in_order(store):
    streams = [f"s-{number % 7}" for number in range(700)]
    fill(store, *streams)
    seen: dict[str, list[int]] = defaultdict(list)
    by_thread: dict[int, int] = defaultdict(int)
    busy: set[str] = set()
    wrong: list[str] = []
    lock = threading.Lock()

    mailers = [store.subscribe("mailer", types=[Mailed], window=50) for _ in range(3)]

    def consume(number: int) -> None:
        for recorded in mailers[number]:
            with lock:
                if recorded.stream in busy:
                    wrong.append(recorded.stream)
                busy.add(recorded.stream)
                seen[recorded.stream].append(recorded.event.number)
            time.sleep(0)
            with lock:
                busy.remove(recorded.stream)
            mailers[number].ack()
            with lock:
                by_thread[number] += 1
                last = sum(by_thread.values()) == 700
            if last:
                for one in mailers:
                    one.close()

    threads = [threading.Thread(target=consume, args=(number,)) for number in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong
    assert sum(map(len, seen.values())) == 700
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert status(store).position >= 700


def test_what_is_acknowledged_out_of_step_is_durable(tmp_path):
    """One consumer holds the first event; what the other acknowledged beyond does not return."""
    with es.Store(tmp_path / "a.db", Mailed) as store:
        fill(store, "a", "b", "c")
        slow, fast = store.subscribe("mailer"), store.subscribe("mailer")
        assert slow.next(timeout=SECONDS).event.number == 0
        assert fast.next(timeout=SECONDS).event.number == 1
        fast.ack()
        assert fast.next(timeout=SECONDS).event.number == 2
        fast.ack()
        store.backup(tmp_path / "b.db")  # what a crash now would leave
        slow.close()
        fast.close()
    with es.Store(tmp_path / "b.db", Mailed) as store, store.subscribe("mailer") as mailer:
        assert mailer.next(timeout=SECONDS).event.number == 0
        with pytest.raises(TimeoutError):
            mailer.next(timeout=0)


def test_what_it_does_not_want_is_no_reason_to_wait(store):
    with store.subscribe("mailer", types=[Mailed]) as mailer:
        for _ in range(3):
            store.append("other", [Other()])
            with pytest.raises(TimeoutError):
                mailer.next(timeout=0)
            assert status(store).state == "live"
        fill(store, "a")
        assert mailer.next(timeout=0).event.number == 0


def test_retry_holds_its_stream_alone(store):
    fill(store, "a", "a", "b")
    with store.subscribe("mailer") as mailer:
        assert mailer.next(timeout=SECONDS).event.number == 0
        mailer.retry("later", delay=0.05)
        with pytest.raises(ValueError, match="no event in hand"):
            mailer.ack()
        seen = [(mailer.next(timeout=SECONDS).event.number, mailer.attempt) for _ in range(3)]
    assert seen[0] == (2, 1)
    assert seen[1:] == [(0, 2), (1, 1)]


def test_after_so_many_attempts_it_is_a_dead_letter(tmp_path, caplog):
    options = {"max_attempts": 2, "backoff": 0.0}
    with es.Store(tmp_path / "a.db", Mailed) as store:
        fill(store, "a", "a")
        with store.subscribe("mailer", **options) as mailer:
            mailer.next(timeout=SECONDS)
            mailer.retry(ValueError("poison"))
    with es.Store(tmp_path / "a.db", Mailed) as store:
        with store.subscribe("mailer", **options) as mailer:
            assert mailer.next(timeout=SECONDS).event.number == 0
            mailer.retry(ValueError("poison"))
            assert mailer.next(timeout=SECONDS).event.number == 1
            mailer.ack()
            assert status(store).dead_letter_count == 1
    assert "gave up Mailed at position 1 after 2 deliveries: ValueError: poison" in caplog.text
    with es.Store(tmp_path / "a.db", Mailed) as store:
        found = status(store)
        (dead,) = found.dead_letters()
        assert (dead.recorded.event, dead.attempts, dead.error) == (
            Mailed(0),
            2,
            "ValueError: poison",
        )
        with store.subscribe("mailer", **options) as mailer:
            with pytest.raises(TimeoutError):
                mailer.next(timeout=0)
            found.retry(1)
            with pytest.raises(ValueError, match="no dead letter"):
                found.retry(1)
            assert mailer.next(timeout=SECONDS).event.number == 0
            mailer.ack()
        assert found.dead_letters() == []


def test_a_released_dead_letter_waits_for_the_next_consumer(store):
    fill(store, "a", "b")
    with store.subscribe("mailer") as mailer:
        mailer.next(timeout=SECONDS)
        mailer.skip("no such address")
        mailer.next(timeout=SECONDS)
        mailer.skip("nor this")
    status(store).retry(1)
    status(store).dismiss(2, "does not matter")
    assert [one.released for one in status(store).dead_letters()] == [True]
    with store.subscribe("mailer") as mailer:
        assert mailer.next(timeout=SECONDS).position == 1
        with pytest.raises(TimeoutError):
            mailer.next(timeout=0)
    assert status(store).dead_letter_count == 0


def test_status_reset_and_remove(store):
    fill(store, "a", "b")
    with store.subscribe("mailer", types=[Mailed]) as mailer:
        mailer.next(timeout=SECONDS)
        found = status(store)
        assert (found.state, found.consumers, found.in_hand, found.position) == ("behind", 1, 1, 0)
        assert found.lag == store.head
        assert found.match == (es.Match(types=["Mailed"]),)
        for function in (found.reset, found.remove):
            with pytest.raises(ValueError, match="has consumers"):
                function()
        mailer.next(timeout=SECONDS)
        with pytest.raises(TimeoutError):
            mailer.next(timeout=0)
        assert status(store).state == "live"
    assert status(store).state == "idle"
    status(store).reset(after=1)
    with store.subscribe("mailer", types=[Mailed]) as mailer:
        assert mailer.next(timeout=SECONDS).event.number == 1
    found = status(store)
    found.remove()
    assert store.subscriptions() == []
    with pytest.raises(ValueError, match="no subscription"):
        found.reset()
    with store.subscribe("mailer", types=[Mailed], after=1) as mailer:
        assert mailer.next(timeout=SECONDS).event.number == 1


def test_checkpoints_are_batched(store):
    fill(store, *"a" * 20)
    with store.subscribe("mailer", types=[Mailed], checkpoint_every=8) as mailer:
        for _ in range(8):
            mailer.next(timeout=SECONDS)
        assert mailer.position == 0
        mailer.next(timeout=SECONDS)
        assert mailer.position == 8
    assert status(store).position == 8
    with store.subscribe("mailer", types=[Mailed], checkpoint_every=1) as mailer:
        for number in range(8, 12):
            assert mailer.next(timeout=SECONDS).event.number == number
            assert mailer.position == number


def test_options_of_all_consumers_are_the_same(store):
    with store.subscribe("mailer", types=[Mailed]):
        with pytest.raises(ValueError, match="other options"):
            store.subscribe("mailer", types=[Mailed], window=5)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("", {}, ValueError),
        ("a/b", {}, ValueError),
        ("x" * 2000, {}, ValueError),
        (b"x", {}, TypeError),
        ("x", {"after": -1}, ValueError),
        ("x", {"max_attempts": 0}, ValueError),
        ("x", {"window": 0}, ValueError),
        ("x", {"checkpoint_every": "1"}, TypeError),
        ("x", {"backoff": -1.0}, ValueError),
        ("x", {"types": "Mailed"}, TypeError),
    ],
)
def test_arguments_that_cannot_be(store, name, options, error):
    with pytest.raises(error):
        store.subscribe(name, **options)
    assert store.subscriptions() == []


def test_closing_wakes_whoever_waits(store):
    mailer = store.subscribe("mailer")
    waiting = threading.Thread(target=lambda: list(mailer))
    waiting.start()
    mailer.close()
    mailer.close()
    waiting.join(SECONDS)
    assert not waiting.is_alive()
    with pytest.raises(es.Closed):
        mailer.next()
    assert status(store).state == "idle"


def test_one_that_is_closed_while_its_body_runs_cannot_acknowledge(store):
    fill(store, "a")
    mailer, other = store.subscribe("mailer"), store.subscribe("mailer")
    mailer.next(timeout=SECONDS)
    mailer.close()
    for function in (mailer.ack, mailer.retry, mailer.skip, mailer.next):
        with pytest.raises(es.Closed):
            function()
    assert other.next(timeout=SECONDS).position == 1
    other.ack()
    other.close()
    assert status(store).position >= 1


def test_closing_the_store_stores_what_was_acknowledged(tmp_path):
    failures: list[BaseException] = []
    store = es.Store(tmp_path / "a.db", Mailed)
    fill(store, "a", "b")
    mailer = store.subscribe("mailer", types=[Mailed])
    taken = threading.Event()

    def consume() -> None:
        try:
            for recorded in mailer:
                if recorded.event.number == 1:
                    taken.set()
        except es.Closed as error:
            failures.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    assert taken.wait(SECONDS)
    store.close()
    thread.join(SECONDS)
    assert len(failures) == 1
    mailer.close()
    with es.Store(tmp_path / "a.db", Mailed) as store:
        assert status(store).position >= 1


def test_a_system_closes_its_subscriptions(tmp_path):
    with es.open(tmp_path / "a.db", Mailed) as shop:
        fill(shop.store, "a", "b")
        mailer = shop.subscribe("mailer", types=[Mailed])
        mailer.next(timeout=SECONDS)
        mailer.next(timeout=SECONDS)
        assert [one.name for one in shop.subscriptions()] == ["mailer"]
    with pytest.raises(es.Closed):
        mailer.next()
    with es.Store(tmp_path / "a.db") as store:
        assert status(store).position == 1


def test_a_read_only_store_has_none(tmp_path):
    es.Store(tmp_path / "a.db").close()
    with es.Store(tmp_path / "a.db", readonly=True) as store:
        with pytest.raises(es.ReadOnly):
            store.subscribe("mailer")
        assert store.subscriptions() == []


def test_one_that_is_dropped_gives_back_what_it_had(store):
    fill(store, "a")
    mailer = store.subscribe("mailer")
    mailer.next(timeout=SECONDS)
    other = store.subscribe("mailer")
    del mailer
    gc.collect()
    assert other.next(timeout=SECONDS).event.number == 0
    assert other.attempt == 1
    other.close()


def test_in_a_loop(store):
    async def consume(seen: list[int], count: int) -> None:
        async with store.subscribe("mailer", types=[Mailed], checkpoint_every=2) as mailer:
            async for recorded in mailer:
                seen.append(recorded.event.number)
                if sum(map(len, lists)) >= count:
                    mailer.ack()
                    return

    lists: tuple[list[int], list[int]] = ([], [])

    async def main() -> None:
        tasks = [asyncio.create_task(consume(one, 40)) for one in lists]
        await asyncio.sleep(0)
        fill(store, *(f"s-{number}" for number in range(40)))
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in pending:
            one.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for one in done:
            one.result()

    asyncio.run(main())
    assert sorted(lists[0] + lists[1]) == list(range(40))


def test_on_a_provider_of_ones_own(tmp_path):
    import importlib.util

    path = Path(__file__).resolve().parents[2] / "examples" / "provider.py"
    spec = importlib.util.spec_from_file_location("provider_example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (provider,) = [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, es.Store) and one is not es.Store
    ]
    with provider() as store:
        store.append("a", [Mailed(0), Mailed(1)])
        with store.subscribe("mailer", types=[Mailed]) as mailer:
            assert mailer.next(timeout=SECONDS).event.number == 0
            assert mailer.next(timeout=SECONDS).event.number == 1
        assert status(store).position == 1


CRASHING = """
class Mailed(es.Event):
    number: int

store = es.Store(sys.argv[1], Mailed)
if store.version("a") == 0:
    store.append("a", [Mailed(number) for number in range(10)])
for recorded in store.subscribe("mailer", types=[Mailed], checkpoint_every=int(sys.argv[2])):
    print(recorded.event.number, flush=True)
    if recorded.event.number == int(sys.argv[3]):
        os._exit(0)
"""


def test_a_crash_delivers_again_what_was_not_stored(tmp_path):
    path = tmp_path / "a.db"
    assert run(CRASHING, path, 1, 4)[0].split() == ["0", "1", "2", "3", "4"]
    assert run(CRASHING, path, 1, 9)[0].split() == ["4", "5", "6", "7", "8", "9"]
    again = run(CRASHING, path, 100, 9)[0].split()
    assert again == ["9"]


POISON = """
class Mailed(es.Event):
    number: int

store = es.Store(sys.argv[1], Mailed)
if store.version("a") == 0:
    store.append("a", [Mailed(number) for number in range(10)])
with store.subscribe("mailer", types=[Mailed], max_attempts=2, checkpoint_every=4) as mailer:
    while True:
        try:
            recorded = mailer.next(timeout=0)
        except es.Timeout:
            break
        print(recorded.event.number, flush=True)
        if recorded.event.number == 6:
            os._exit(9)
"""


def test_an_event_that_kills_the_process_is_given_up_as_well(tmp_path):
    path = tmp_path / "a.db"
    assert run(POISON, path, status=9)[0].split() == ["0", "1", "2", "3", "4", "5", "6"]
    assert run(POISON, path, status=9)[0].split() == ["4", "5", "6"]
    assert run(POISON, path, status=9)[0].split() == ["6"]
    assert run(POISON, path)[0].split() == ["7", "8", "9"]
    with es.Store(path, Mailed) as store:
        (dead,) = status(store).dead_letters()
        assert (dead.recorded.event, dead.error) == (Mailed(6), "its consumer died with it in hand")


def test_who_dies_while_idle_is_to_blame_for_nothing(tmp_path):
    code = """
    store = es.Store(sys.argv[1])
    mailer = store.subscribe("mailer", max_attempts=1)
    try:
        mailer.next(timeout=0)
    except es.Timeout:
        os._exit(9)
    """
    for _ in range(3):
        run(code, tmp_path / "a.db", status=9)
    with es.Store(tmp_path / "a.db", Mailed) as store:
        fill(store, "a")
        with store.subscribe("mailer", max_attempts=1) as mailer:
            assert mailer.next(timeout=SECONDS).event.number == 0
            assert mailer.attempt == 1


def test_events_that_were_deleted(store):
    fill(store, "a", "b", "a", "c")
    with store.subscribe("mailer", types=[Mailed]) as mailer:
        mailer.next(timeout=SECONDS)
        mailer.skip("not now")
    store.delete("a")
    assert [one.recorded for one in status(store).dead_letters()] == [None]
    status(store).retry(1)
    with store.subscribe("mailer", types=[Mailed], deleted="skip") as mailer:
        assert [mailer.next(timeout=SECONDS).event.number for _ in range(2)] == [1, 3]
    status(store).reset()
    store.append("d", [Mailed(4)])
    store.delete("c")
    with store.subscribe("mailer", types=[Mailed]) as mailer:
        with pytest.raises(es.Deleted) as caught:
            mailer.next(timeout=SECONDS)
        assert status(store).state == "failed"
    status(store).reset(after=caught.value.position)
    with store.subscribe("mailer", types=[Mailed]) as mailer:
        assert mailer.next(timeout=SECONDS).event.number == 1
        with pytest.raises(es.Deleted):
            mailer.next(timeout=SECONDS)
    assert status(store).position >= 2


def test_it_goes_on_behind_deleted_events_and_remembers_that(tmp_path):
    with es.Store(tmp_path / "a.db", Mailed) as store:
        fill(store, "a", "b", "b", "c", "d", "d", "e")
        with store.subscribe("mailer", max_attempts=1) as mailer:
            mailer.next(timeout=SECONDS)
            mailer.skip("bad address")
            assert not mailer.skip_deleted(1, "nothing is")
    with es.Store(tmp_path / "a.db", Mailed) as store:
        store.delete("b")
        store.delete("d")
        with store.subscribe("mailer", max_attempts=1) as one:
            other = store.subscribe("mailer", max_attempts=1)
            with pytest.raises(es.Deleted) as caught:
                one.next(timeout=SECONDS)
            with pytest.raises(es.Deleted):
                other.next(timeout=SECONDS)
            assert caught.value.position == 3
            assert (status(store).state, status(store).position) == ("failed", 1)
            assert not one.skip_deleted(2)
            assert one.skip_deleted(3, "too old")
            assert not other.skip_deleted(3, "too old")  # nor what lies beyond
            assert status(store).position == 3
            assert one.next(timeout=SECONDS).event.number == 3
            with pytest.raises(es.Deleted):
                other.next(timeout=SECONDS)
            other.close()
    gone = "no reason"
    with es.Store(tmp_path / "a.db", Mailed) as store:
        assert status(store).gaps() == [es.SubscriptionGap(1, 3, "too old")]
        with store.subscribe("mailer", max_attempts=1) as mailer:
            assert mailer.next(timeout=SECONDS).event.number == 3  # it was not acknowledged
            mailer.ack()
            with pytest.raises(es.Deleted) as caught:
                mailer.next(timeout=SECONDS)
            assert mailer.skip_deleted(caught.value.position, gone)
            assert mailer.next(timeout=SECONDS).event.number == 6
            mailer.ack()
            assert mailer.position >= 7
        assert status(store).gaps()[1:] == [es.SubscriptionGap(4, 6, gone)]
        assert [one.error for one in status(store).dead_letters()] == ["bad address"]
        with pytest.raises(es.Closed):
            mailer.skip_deleted(6)
        with pytest.raises(TypeError):
            mailer.skip_deleted(6, None)
        status(store).reset()
        assert status(store).gaps() == []


@pytest.mark.parametrize("closes", ["consumer", "store"])
def test_what_has_ended_meanwhile_does_not_go_on_behind_deleted_events(
    tmp_path, monkeypatch, closes
):
    with es.Store(tmp_path / "a.db", Mailed) as store:
        fill(store, "a", "b")
        store.delete("a")
        mailer = store.subscribe("mailer")
        with pytest.raises(es.Deleted) as caught:
            mailer.next(timeout=SECONDS)
        lock = _subscription.registry_lock

        class LockThatIsLateToBeHad:
            def __enter__(self):
                (mailer if closes == "consumer" else store).close()
                lock.acquire()

            def __exit__(self, *_):
                lock.release()

        monkeypatch.setattr(_subscription, "registry_lock", LockThatIsLateToBeHad())
        with pytest.raises(es.Closed):
            mailer.skip_deleted(caught.value.position)
        assert "escqrs-mailer" not in [one.name for one in threading.enumerate()]


def test_a_consumer_that_waits_where_events_were_deleted(store):
    """Events that it does not want, deleted once it has passed them, or before."""
    fill(store, "a")
    with store.subscribe("mailer", types=[Mailed], deleted="skip") as mailer:
        mailer.next(timeout=SECONDS)
        for _ in range(5):
            with pytest.raises(es.Timeout):
                mailer.next(timeout=0)
            store.append("z", [Other(), Other()])
            store.truncate("z", store.version("z"), force=True)
        with pytest.raises(es.Timeout):
            mailer.next(timeout=0)
        assert status(store).state == "live"
        fill(store, "b")
        assert mailer.next(timeout=SECONDS).stream == "b"


def test_one_that_was_level_is_not_behind_what_is_deleted_later(store):
    fill(store, "a")
    with store.subscribe("mailer", types=[Mailed]) as mailer:
        mailer.next(timeout=SECONDS)
        store.append("z", [Other(), Other()])
        with pytest.raises(es.Timeout):
            mailer.next(timeout=0)
    assert status(store).position == store.head
    store.delete("z")
    fill(store, "b")
    with store.subscribe("mailer", types=[Mailed]) as mailer:
        assert mailer.next(timeout=SECONDS).stream == "b"


def test_ctrl_c_and_the_end_of_the_interpreter(tmp_path):
    process = start(
        """
        store = es.Store(sys.argv[1])
        mailer = store.subscribe("mailer")
        try:
            print("waits", flush=True)
            for recorded in mailer:
                pass
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
        tmp_path / "a.db",
    )
    assert process.stdout.readline() == "waits\n"
    process.send_signal(2)
    assert finish(process)[0] == "interrupted\n"


def test_a_child_of_fork_cannot_use_it(tmp_path):
    run(
        """
        store = es.Store(sys.argv[1])
        mailer = store.subscribe("mailer")
        child = os.fork()
        if child == 0:
            try:
                mailer.next(timeout=1)
            except es.Forked:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        mailer.close()
        store.close()
        """,
        tmp_path / "a.db",
        warnings="ignore",
    )


steps = st.lists(
    st.tuples(
        st.sampled_from(["append", "take", "ack", "retry", "skip", "again", "crash", "release"]),
        st.integers(0, 2),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_against_a_model(script):
    """Whatever happens, an event is delivered until it is acknowledged or given up, a stream in
    order; and what was acknowledged durably does not come back."""
    store = es.Store(":memory:", Mailed)
    consumers = [store.subscribe("mailer", types=[Mailed], backoff=0.0) for _ in range(3)]
    appended: list[tuple[int, str]] = []  # position, stream
    settled: set[int] = set()
    dead: set[int] = set()
    hands: dict[int, int] = {}  # consumer -> position
    for kind, which in script:
        if kind == "append":
            stream = f"s-{which}"
            appended.append((store.append(stream, [Mailed(len(appended))]).position, stream))
        elif kind == "take":
            if which in hands:
                settled.add(hands.pop(which))  # the next one acknowledges
            expects = [
                position
                for position, stream in appended
                if position not in settled | dead | set(hands.values())
                and not any(
                    earlier < position and earlier not in settled | dead
                    for earlier, other in appended
                    if other == stream
                )
            ]
            try:
                got = consumers[which].next(timeout=SECONDS if expects else 0).position
                assert got == min(expects)
                hands[which] = got
            except TimeoutError:
                assert not expects
        elif kind == "release":
            for position in sorted(dead)[: which + 1]:
                status(store).dismiss(position, "seen")
                dead.discard(position)
                settled.add(position)
        elif kind == "again":
            iter(consumers[which])
            hands.pop(which, None)
        elif kind == "crash":
            for one in consumers:  # what was acknowledged by asking for more need not be durable
                if one._hand:
                    one.ack()
            settled |= set(hands.values())
            hands.clear()
            copy = store.clone()
            for one in consumers:
                one.close()
            store.close()
            store = copy
            consumers = [store.subscribe("mailer", types=[Mailed], backoff=0.0) for _ in range(3)]
        elif which in hands:
            position = hands.pop(which)
            if kind == "ack":
                consumers[which].ack()
                settled.add(position)
            elif kind == "retry":
                consumers[which].retry("again")
            else:
                consumers[which].skip("never")
                dead.add(position)
    assert {one.recorded.position for one in status(store).dead_letters()} == dead
    for one in consumers:
        one.close()
    with store.subscribe("mailer", types=[Mailed], backoff=0.0) as last:
        left = [position for position, _ in appended if position not in settled | dead]
        assert [last.next(timeout=SECONDS).position for _ in left] == left
    store.close()
