"""Reading: typed rows, one's own writes, time limits."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any, NamedTuple

import escqrs as es
import pytest
from support import SECONDS

HOLD = threading.Event()


class Add(es.Command[str]):
    name: str
    quantity: int = 1


class Look(es.Command[int]):
    pass


class Added(es.Event):
    name: str
    quantity: int


class Refuse(es.Command[None]):
    pass


class Cart(es.Aggregate):
    count: int

    @es.handles
    def add(self, cmd: Add) -> str:
        self.emit(Added(cmd.name, cmd.quantity))
        return cmd.name

    @es.handles
    def look(self, cmd: Look) -> int:
        return self.count

    @es.handles
    def refuse(self, cmd: Refuse) -> None:
        raise es.Rejected("no")

    @es.applies
    def added(self, event: Added) -> None:
        self.count += 1


@dataclasses.dataclass
class Item:
    name: str
    quantity: int


class Pair(NamedTuple):
    name: str
    quantity: int


class Line(es.Message):
    name: str
    quantity: int


FOREVER = "WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"


class Items(es.ReadModel):
    schema = "CREATE TABLE items (name TEXT, quantity INTEGER)"

    @es.on(Added)
    def added(self, db: es.Rows, event: Added) -> None:
        if event.name == "slow":
            HOLD.wait(SECONDS)
        db.execute("INSERT INTO items VALUES (?, ?)", (event.name, event.quantity))

    @es.query
    def typed(self, db: es.Rows, cls: Any) -> list[Any]:
        return db.execute("SELECT name, quantity FROM items ORDER BY rowid").objects(cls)

    @es.query
    def count(self, db: es.Rows) -> int:
        return int(db.execute("SELECT count(*) FROM items").fetchall()[0][0])

    @es.query(consistent=True, timeout=SECONDS)
    def settled(self, db: es.Rows) -> int:
        return int(db.execute("SELECT count(*) FROM items").fetchall()[0][0])

    @es.query(consistent=True, timeout=0.02)
    def hurried(self, db: es.Rows) -> int:
        return 1

    @es.query(timeout=0.02)
    def forever(self, db: es.Rows) -> Any:
        return db.execute(FOREVER).fetchall()

    @es.query(timeout=0.02)
    def forever_inside(self, db: es.Rows) -> Any:
        return self.outer(FOREVER)

    @es.query
    def outer(self, db: es.Rows, sql: str) -> Any:
        return db.execute(sql).fetchall()

    @es.query
    def mine(self, db: es.Rows, consistent: str) -> str:
        return consistent


def test_typed_rows() -> None:
    with es.open(":memory:", Cart, Items) as shop:
        shop[Cart, "1"].ask(Add("book", 2))
        shop[Cart, "1"].ask(Add("pen"))
        shop.flush(SECONDS)
        assert shop[Items].typed(Item) == [Item("book", 2), Item("pen", 1)]
        assert shop[Items].typed(Pair) == [Pair("book", 2), Pair("pen", 1)]
        assert shop[Items].typed(Line) == [Line("book", 2), Line("pen", 1)]
        assert shop[Items].typed(dict) == [
            {"name": "book", "quantity": 2}, {"name": "pen", "quantity": 1},
        ]  # fmt: skip
        with pytest.raises(TypeError, match="quantity"):
            shop[Items].typed(dataclasses.make_dataclass("Less", ["name"]))
        with pytest.raises(TypeError, match="takes a class"):
            shop[Items].typed(3)


def test_replies_carry_the_position() -> None:
    with es.open(":memory:", Cart, Items) as shop:
        first = shop[Cart, "1"].submit(Add("book"))
        assert first.result(SECONDS) == "book" and first.position == 1
        second = shop[Cart, "2"].submit(Add("pen"))
        assert second.result(SECONDS) == "pen" and second.position == 2
        looked = shop[Cart, "1"].submit(Look())
        assert looked.result(SECONDS) == 1 and (looked.position or 0) in (1, 2)
        refused = shop[Cart, "1"].submit(Refuse())
        assert isinstance(refused.exception(SECONDS), es.Rejected) and refused.position is None
        keyed = shop[Cart, "3"].submit(Add("ink"), key="k")
        assert keyed.result(SECONDS) == "ink" and keyed.position == 3
        shop[Cart, "1"].ask(Add("x"))
        again = shop[Cart, "3"].submit(Add("ink"), key="k")
        assert again.result(SECONDS) == "ink" and again.position == 3
        shop[Items].wait(first.position, SECONDS)


def test_reads_its_own_writes() -> None:
    HOLD.clear()
    with es.open(":memory:", Cart, Items) as shop:
        for n in range(50):
            shop[Cart, str(n % 3)].ask(Add("book"))
            assert shop[Items].settled() == n + 1
        for n in range(50, 80):
            reply = shop[Cart, str(n % 3)].submit(Add("book"))
            reply.result(SECONDS)
            assert shop[Items].count(consistent=reply.position) >= n + 1  # type: ignore[call-arg]
            assert shop[Items].count(consistent=True) == n + 1  # type: ignore[call-arg]
        assert shop[Items].mine(consistent="its own") == "its own"
        shop[Cart, "1"].ask(Add("slow"))
        with pytest.raises(es.Timeout):
            shop[Items].hurried()
        HOLD.set()
        assert shop[Items].settled() == 81


def test_a_query_has_a_time_limit() -> None:
    with es.open(":memory:", Cart, Items) as shop:
        for query in (shop[Items].forever, shop[Items].forever_inside):
            with pytest.raises(es.Timeout, match="longer than its timeout"):
                query()
        assert shop[Items].count() == 0


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO items VALUES ('x', 1)",
        "ATTACH ':memory:' AS other",
        "PRAGMA query_only = 0",
        "DROP TABLE items",
        "WITH x AS (SELECT 1) DELETE FROM items",
    ],
)
def test_a_query_cannot_write(sql: str) -> None:
    with es.open(":memory:", Items) as shop:
        with pytest.raises(es.ReadOnly):
            shop[Items].outer(sql)


def test_what_is_refused() -> None:
    for options, error in (
        ({"timeout": 0}, ValueError), ({"timeout": "1"}, TypeError), ({"consistent": 1}, TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            es.query(**options)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="self and db"):
        es.query(timeout=1)(lambda self: None)  # type: ignore[arg-type]


def test_watch_in_a_thread() -> None:
    with es.open(":memory:", Cart, Items) as shop:
        seen: list[int] = []
        three = threading.Event()
        watch = shop[Items].watch(Items.count)

        def follow() -> None:
            for count in watch:
                seen.append(count)
                if count >= 3:
                    three.set()

        thread = threading.Thread(target=follow)
        thread.start()
        for name in ("a", "b", "c"):
            shop[Cart, "1"].ask(Add(name))
        assert three.wait(SECONDS)
        watch.close()
        thread.join(SECONDS)
        assert not thread.is_alive()
        assert seen[-1] == 3 and seen == sorted(set(seen))


def test_watch_gives_what_has_changed_alone() -> None:
    with es.open(":memory:", Cart, Items) as shop:
        with shop[Items].watch(
            shop[Items].outer, "SELECT quantity FROM items WHERE name = 'x'"
        ) as watch:
            assert next(watch) == []
            shop[Cart, "1"].ask(Add("other"))
            shop[Cart, "1"].ask(Add("x", 5))
            assert next(watch) == [(5,)]
        with pytest.raises(StopIteration):
            next(watch)


def test_watch_on_an_event_loop() -> None:
    async def main() -> None:
        with es.open(":memory:", Cart, Items) as shop:
            watches = [shop[Items].watch(Items.count) for _ in range(20)]

            async def follow(watch: es.Watch[int]) -> int:
                async for count in watch:
                    if count == 3:
                        return count
                return -1

            tasks = [asyncio.create_task(follow(watch)) for watch in watches]
            for name in ("a", "b", "c"):
                await shop[Cart, "1"].submit(Add(name))
            assert await asyncio.wait_for(asyncio.gather(*tasks), SECONDS) == [3] * 20
            waits = asyncio.create_task(follow(shop[Items].watch(lambda model: 0)))
            await asyncio.sleep(0)
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits

    asyncio.run(main())


def test_a_watch_ends_with_its_system() -> None:
    shop = es.open(":memory:", Cart, Items)
    watch = shop[Items].watch(Items.count)
    assert next(watch) == 0
    ended: list[BaseException] = []

    def follow() -> None:
        try:
            next(watch)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    shop.close()
    thread.join(SECONDS)
    assert [type(one) for one in ended] == [es.Closed]
    with pytest.raises(es.Closed):
        next(watch)  # not less when it is asked again
    watch.close()
    assert (next(watch, None), next(watch, None)) == (None, None)


def test_watch_sees_rows_that_change_where_the_position_does_not() -> None:
    """Those of a rebuild, and parked events that are applied after all."""
    factor, refused = [1], {2}

    class Moody(es.ReadModel):
        schema = "CREATE TABLE moody (n INTEGER)"
        on_error = "park"

        @es.on(Added)
        def added(self, db: es.Rows, event: Added) -> None:
            if event.quantity in refused:
                raise KeyError(event.quantity)
            db.execute("INSERT INTO moody VALUES (?)", (event.quantity * factor[0],))

        @es.query
        def all(self, db: es.Rows) -> list[int]:
            return [n for (n,) in db.execute("SELECT n FROM moody ORDER BY n")]

    with es.open(":memory:", Cart, Moody) as shop:
        shop[Cart, "1"].ask(Add("a", 1))
        shop[Cart, "2"].ask(Add("b", 2))
        shop.flush(SECONDS)
        watch = shop[Moody].watch(Moody.all)
        assert next(watch) == [1]
        refused.clear()
        shop[Moody].retry()
        assert next(watch) == [1, 2]
        factor[0] = 10
        shop[Moody].rebuild()
        assert next(watch) == [10, 20]


def test_thread_of_watches_ends_with_the_last_of_them() -> None:
    def running() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "escqrs-watch"]

    with es.open(":memory:", Cart, Items) as shop:
        before = set(running())
        watch, other = shop[Items].watch(Items.count), shop[Items].watch(Items.count)
        (thread,) = set(running()) - before
        watch.close()
        del other  # nobody refers to it
        thread.join(SECONDS)
        assert not thread.is_alive()
        again = shop[Items].watch(Items.count)
        assert next(again) == 0
        shop[Cart, "1"].ask(Add("a", 1))
        assert next(again) == 1
