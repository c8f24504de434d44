"""escqrs.testing.System.open on a provider of one's own: its calls are on the one thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from escqrs.testing import System, explore
from test_provider_system import Add, Added, Cart, Items, ListStore


class Watched(ListStore):  # type: ignore[misc]
    """Which calls come, and from where; `fails`: how many commits it refuses."""

    def __init__(self, fails: int = 0) -> None:
        super().__init__()
        self.calls: list[object] = []
        self.threads: set[int] = set()
        self.fails = fails

    def commit(self, writes: Any, **options: Any) -> Any:
        self.threads.add(threading.get_ident())
        self.calls.append([write.stream for write in writes])
        if self.fails > 0 and any(one.stream.startswith("Cart/") for one in writes):
            self.fails -= 1
            raise es.StorageError("not now")
        return super().commit(writes, **options)

    def events(self, **options: Any) -> Any:
        self.threads.add(threading.get_ident())
        self.calls.append(("events", options["after"], options["upto"]))
        return super().events(**options)


class Seller(es.Process):
    @es.on(Added, starts=True)
    def added(self, event: Added) -> None:
        if event.name == "book":
            self.send(Cart, self.id, Add("bag", 1))


def history(seed: int) -> list[Any]:
    seen: list[Any] = []

    def adds(shop: es.System, number: int) -> Any:
        for quantity in range(1, 4):
            count = yield shop[Cart, f"{quantity % 2}"].submit(Add(f"{number}", quantity))
            seen.append((number, count, shop[Items].total()))

    with Watched() as provider:
        with System(seed) as system:
            shop = system.open(provider, Cart, Items, Seller)
            clients = [system.client(adds(shop, number)) for number in range(3)]
            shop[Cart, "0"].tell(Add("book", 1))
            system.run()
            assert all(client.done for client in clients)
            shop.flush()
            assert shop[Cart, "0"].state.items["bag"] == 1
            seen.append(shop[Items].total())
            seen.extend((one.id, one.stream, one.version, one.data) for one in shop.events())
        assert provider.threads == {threading.get_ident()}
        assert not provider.closed
        seen.extend(provider.calls)
    return seen


def test_a_seed_repeats_a_history() -> None:
    before = threading.active_count()
    histories = [history(seed) for seed in range(10)]
    assert histories == [history(seed) for seed in range(10)]
    assert len({str(one) for one in histories}) == 10
    assert threading.active_count() == before


def test_another_process_has_the_same_history() -> None:
    code = "import test_simulation_provider as test; print(test.history(7))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert said == {str(history(7))}


def test_explore_finds_a_race_beside_a_provider() -> None:
    def test(system: System) -> None:
        with ListStore() as provider:
            shop = system.open(provider, Cart, Items)

            def buys(id: str) -> Any:
                if shop[Items].total() == 0:  # as far as the read model is
                    yield shop[Cart, id].submit(Add("last", 1))

            system.client(buys("a"))
            system.client(buys("b"))
            system.run()
            assert shop[Items].total() == 1

    with pytest.raises(AssertionError) as caught:
        explore(test, seeds=100)
    with pytest.raises(AssertionError), System(int(caught.value.__notes__[0].split()[2])) as system:
        test(system)


def test_a_commit_that_fails() -> None:
    for seed in range(20):
        with Watched(fails=1) as provider, System(seed) as system:
            shop = system.open(provider, Cart, Items)
            replies = [shop[Cart, id].submit(Add("book", 2)) for id in "ab"]
            system.run()
            failed = [reply for reply in replies if reply.exception() is not None]
            assert len(failed) == 1
            with pytest.raises(es.StorageError, match="not now"):
                failed[0].result()
            shop.flush()
            assert shop[Items].total() == 2 and provider.head == 1


def test_one_system_at_a_time_and_the_provider_stays_open() -> None:
    with ListStore() as provider, System(1) as system:
        shop = system.open(provider, Cart)
        for again in (lambda: system.open(provider, Cart), lambda: es.open(provider, Cart)):
            with pytest.raises(es.Locked):
                again()
        assert shop[Cart, "a"].ask(Add("book")) == 1
        shop.close()
        with es.open(provider, Cart) as other:
            assert other[Cart, "a"].ask(Add("pen")) == 2
        with system.open(provider, Cart) as shop:
            assert shop[Cart, "a"].ask(Add("ink")) == 3
            with shop.subscribe() as feed:
                assert [next(feed).position for _ in range(3)] == [1, 2, 3]
                with pytest.raises(es.Timeout):
                    feed.next(timeout=2.5)
                assert system.now == 2.5


def test_what_a_provider_waits_for_is_refused() -> None:
    shops: list[es.System] = []

    class Asks(ListStore):  # type: ignore[misc]
        def commit(self, writes: Any, **options: Any) -> Any:
            shops[0][Cart, "b"].ask(Add("never"))

    with Asks() as provider, System(1) as system:
        shops.append(system.open(provider, Cart))
        with pytest.raises(es.Deadlock):
            shops[0][Cart, "a"].ask(Add("book"))
