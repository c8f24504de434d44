"""Queries of read models, from many threads and event loops."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from pathlib import Path

import escqrs as es
from carts import (
    AddItem,
    Cart,
    Items,
    Others,
    add,
)
from support import SECONDS


def test_queries_of_a_thread_pool(tmp_path: Path) -> None:
    with es.open(tmp_path / "shop.db", Cart, Items, Others) as shop:
        add(shop, *(f"n{i}" for i in range(20)))
        shop.flush(SECONDS)

        def ask(i: int) -> tuple[int, int]:
            rows = shop[Items].run("SELECT count(*) FROM items WHERE position > ?", (i,))
            return rows[0][0], len(shop[Others].all())

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            assert list(pool.map(ask, range(20))) == [(20 - i, 20) for i in range(20)]
            late = [pool.submit(shop[Items].all) for _ in range(50)]
            shop.close()  # a query that has begun ends; the others are refused
            for one in late:
                try:
                    assert len(one.result(SECONDS)) == 20
                except es.Closed:
                    pass


def test_queries_of_threads_that_meet_close() -> None:
    for _ in range(20):
        with es.open(":memory:", Cart, Items) as shop:
            add(shop, *(f"n{i}" for i in range(200)))
            shop.flush(SECONDS)
            counts: list[int] = []

            def ask(shop: es.System = shop, counts: list[int] = counts) -> None:
                while True:
                    try:
                        counts.append(len(shop[Items].all()))
                    except es.Closed:
                        return

            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                asking = [pool.submit(ask) for _ in range(4)]
                while not counts:
                    time.sleep(0)
                shop.close()
                for one in asking:
                    one.result(SECONDS)  # whole or es.Closed, nothing else
            assert set(counts) == {200}


def test_queries_in_asyncio() -> None:
    async def main(shop: es.System) -> None:
        await asyncio.gather(*(shop[Cart, "c"].submit(AddItem(f"n{i}")) for i in range(50)))
        await asyncio.to_thread(shop.flush, SECONDS)
        counts = await asyncio.gather(
            *(asyncio.to_thread(shop[Items].run, "SELECT count(*) FROM items") for _ in range(20))
        )
        assert counts == [[(50,)]] * 20
        assert len(shop[Items].all()) == 50  # on the loop's own thread

    with es.open(":memory:", Cart, Items) as shop:
        asyncio.run(main(shop))


def test_query_sees_one_state(tmp_path: Path) -> None:
    class Seen(Items, name="Items"):
        @es.query
        def twice(self, db: es.Rows) -> tuple[int, int]:
            first = db.execute("SELECT count(*) FROM items").fetchone()[0]
            add(shop, f"n{first}")
            shop.flush(SECONDS)
            return first, len(self.all())  # a query within: of the same state

    with es.open(tmp_path / "shop.db", Cart, Seen) as shop:
        assert [shop[Seen].twice() for _ in range(3)] == [(0, 0), (1, 1), (2, 2)]
        assert len(shop[Seen].all()) == 3


def test_queries_of_many_threads(tmp_path: Path) -> None:
    with es.open(tmp_path / "shop.db", Cart, Items) as shop:
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                last = 0
                for _ in range(200):
                    count = len(shop[Items].all())
                    assert count >= last
                    last = count
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(10)]
        for thread in threads:
            thread.start()
        add(shop, *(f"n{i}" for i in range(200)))
        for thread in threads:
            thread.join(SECONDS)
        shop.flush(SECONDS)
        assert failures == []
        assert len(shop[Items].all()) == 200
