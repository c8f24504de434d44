"""es.Feed: following a store by iteration, with a time limit, in a loop, across processes."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import escqrs as es
import pytest
from support import SECONDS, finish, run, start


def raw(name: str = "Thing", **options: object) -> es.NewEvent:
    return es.NewEvent(name, b"x", **options)  # type: ignore[arg-type]


@pytest.fixture
def store():
    with es.Store(":memory:") as opened:
        yield opened


def test_what_is_there_and_what_comes(store):
    store.append("a", [raw("A"), raw("B", tags=["vip"])])
    feed = store.subscribe()
    assert feed.position == 0
    assert [feed.next(timeout=SECONDS).position for _ in range(2)] == [1, 2]
    with pytest.raises(TimeoutError):
        feed.next(timeout=0)
    store.append("a", [raw("C")])
    assert next(feed).type == "C"
    assert feed.position == 3


def test_matches_and_after(store):
    store.append("a", [raw(tags=["vip"]), raw("B"), raw(tags=["vip"])])
    feed = store.subscribe(after=1, match=es.Match(tags=["vip"]))
    assert next(feed).position == 3
    store.append("a", [raw(), raw(tags=["vip", "x"])])
    assert next(feed).position == 5
    later = store.subscribe(after=6)
    store.append("a", [raw()])
    with pytest.raises(TimeoutError):
        later.next(timeout=0)
    store.append("a", [raw("Seventh")])
    assert next(later).type == "Seventh"


def test_every_event_once_while_many_commit(store):
    seen = []

    def follow():
        with store.subscribe() as feed:
            for recorded in feed:
                seen.append(recorded.position)
                if recorded.position == 400:
                    break

    follower = threading.Thread(target=follow)
    follower.start()
    writers = [
        threading.Thread(target=lambda: [store.append("a", [raw()] * 2) for _ in range(50)])
        for _ in range(4)
    ]
    for writer in writers:
        writer.start()
    follower.join(SECONDS)
    assert seen == list(range(1, 401))
    for writer in writers:
        writer.join()


def in_thread(work):
    """Start it; returns a function that waits for its result."""
    result = []

    def body():
        try:
            result.append(work())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=body)
    thread.start()

    def wait():
        thread.join(SECONDS)
        assert not thread.is_alive()
        return result[0]

    return wait


def test_close_from_another_thread_ends_it(store):
    feed = store.subscribe()
    wait = in_thread(lambda: list(feed))
    feed.close()
    assert wait() == []
    assert feed.closed
    with pytest.raises(es.Closed):
        feed.next(timeout=1)


def test_close_within_the_loop_ends_it(store):
    store.append("a", [raw()] * 3)
    feed = store.subscribe()
    seen = []
    for recorded in feed:
        seen.append(recorded.position)
        feed.close()
    assert seen == [1]


def test_the_store_closes(store):
    wait = in_thread(lambda: list(store.subscribe()))
    timed = in_thread(lambda: store.subscribe().next(timeout=SECONDS))
    store.close()
    assert isinstance(wait(), es.Closed)
    assert isinstance(timed(), es.Closed)


def test_one_reader_at_a_time(store):
    feed = store.subscribe()

    def follow():
        while True:
            try:
                return list(feed)
            except ValueError:  # the other one was at it, and soon gives up
                pass

    wait = in_thread(follow)
    error = None
    while error is None:  # until the other one waits
        try:
            feed.next(timeout=0)
        except ValueError as refused:
            error = refused
        except TimeoutError:
            pass
    assert "another thread" in str(error)
    feed.close()
    assert wait() == []


# ---- event loops ---------------------------------------------------------------------------------


def test_async_for(store):
    async def follow(count):
        seen = []
        with store.subscribe() as feed:
            async for recorded in feed:
                seen.append(recorded.position)
                if len(seen) == count:
                    break
        return seen

    async def main():
        tasks = [asyncio.create_task(follow(6)) for _ in range(3)]
        for _ in range(3):
            await asyncio.to_thread(store.append, "a", [raw()] * 2)
        return await asyncio.wait_for(asyncio.gather(*tasks), SECONDS)

    assert asyncio.run(main()) == [[1, 2, 3, 4, 5, 6]] * 3


def test_async_feeds_that_begin_later(store):
    async def main():
        far, near = store.subscribe(after=3), store.subscribe()
        waiting = asyncio.ensure_future(anext(far))
        await asyncio.sleep(0)
        first = asyncio.ensure_future(anext(near))
        await asyncio.sleep(0)
        await asyncio.to_thread(store.append, "a", [raw()])
        assert (await asyncio.wait_for(first, SECONDS)).position == 1
        assert not waiting.done()
        await asyncio.to_thread(store.append, "a", [raw()] * 3)
        assert (await asyncio.wait_for(waiting, SECONDS)).position == 4

    asyncio.run(main())


def test_async_ends(store):
    async def follow(feed):
        return [recorded.position async for recorded in feed]

    async def main():
        store.append("a", [raw()])
        feed = store.subscribe()
        closed = asyncio.create_task(follow(feed))
        cut = asyncio.create_task(follow(store.subscribe()))
        cancelled = asyncio.create_task(follow(store.subscribe()))
        await asyncio.sleep(0)
        cancelled.cancel()
        threading.Thread(target=feed.close).start()
        assert await asyncio.wait_for(closed, SECONDS) in ([], [1])
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        threading.Thread(target=store.close).start()
        with pytest.raises(es.Closed):
            await asyncio.wait_for(cut, SECONDS)

    asyncio.run(main())


def test_a_cancelled_wait_loses_nothing(store):
    async def main():
        feed = store.subscribe()
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(feed), 0.001)
        store.append("a", [raw()])
        assert (await anext(feed)).position == 1

    asyncio.run(main())


# ---- processes -----------------------------------------------------------------------------------


def test_ctrl_c_interrupts_a_wait():
    out, _ = run(
        """
        store = es.Store(":memory:")
        feed = store.subscribe()
        for wait in (lambda: next(feed), lambda: feed.next(timeout=60)):
            try:
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                wait()
            except KeyboardInterrupt:
                print("interrupted")
        store.append("a", [es.NewEvent("A", b"")])
        print(next(feed).position)
        store.close()
        """
    )
    assert out.split() == ["interrupted", "interrupted", "1"]


def test_following_from_another_process(tmp_path: Path):
    path = tmp_path / "s.db"
    with es.Store(path) as store:
        store.append("a", [raw()])
        process = start(
            """
            import asyncio
            store = es.Store(sys.argv[1], readonly=True)
            feed = store.subscribe(match=es.Match(types=["Last"]))
            print("ready", flush=True)
            print(next(feed).position, flush=True)

            async def main():
                async for recorded in feed:
                    print(recorded.position, flush=True)
                    break

            asyncio.run(main())
            store.close()
            """,
            path,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        store.append("a", [raw(), raw("Last")])
        assert process.stdout.readline() == "3\n"
        store.append("a", [raw("Last")])
        out, _ = finish(process)
        assert out == "4\n"


def test_exit_with_feeds_waiting():
    run(
        """
        store = es.Store(":memory:")
        threading.Thread(target=lambda: next(store.subscribe()), daemon=True).start()
        import asyncio

        async def main():
            task = asyncio.ensure_future(anext(store.subscribe()))
            await asyncio.sleep(0)
            task.cancel()

        asyncio.run(main())
        """,
        warnings="ignore",
    )


def test_an_error_names_the_class_that_people_know(store):
    with pytest.raises(AttributeError, match="'Feed' object has no attribute 'nothing'"):
        store.subscribe().nothing
    assert type(store.subscribe()).__name__ == es.Feed.__name__
