"""Read models that are written in the commit of the events themselves."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
from support import SECONDS, finish, start


class Join(es.Command[int]):
    email: str
    times: int = 1


class Joined(es.Event):
    email: str
    number: int


class Nothing(es.Command[None]):
    pass


class Member(es.Aggregate):
    count: int

    @es.handles
    def join(self, cmd: Join) -> int:
        for _ in range(cmd.times):
            self.emit(Joined(cmd.email, self.count))
        return self.count

    @es.handles
    def nothing(self, cmd: Nothing) -> None: ...

    @es.applies
    def joined(self, event: Joined) -> None:
        self.count += 1


class Emails(es.ReadModel):
    schema = """CREATE TABLE emails (email TEXT NOT NULL, stream TEXT, version INTEGER,
        position INTEGER PRIMARY KEY, time TEXT, id TEXT);
        CREATE UNIQUE INDEX one_of_a_kind ON emails (email)"""
    inline = True
    joined = es.sql(
        Joined, "INSERT INTO emails VALUES (:email, :_stream, :_version, :_position, :_time, :_id)"
    )

    @es.query
    def all(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute("SELECT email, stream FROM emails ORDER BY position").fetchall()

    @es.query
    def recorded(self, db: es.Rows) -> list[tuple[Any, ...]]:
        return db.execute(
            "SELECT position, stream, version, time, id FROM emails ORDER BY position"
        ).fetchall()


def test_reads_its_own_writes_at_once() -> None:
    with es.open(":memory:", Member, Emails) as shop:
        for number in range(50):
            shop[Member, str(number)].ask(Join(f"{number}@x"))
            assert len(shop[Emails].all()) == number + 1
            assert shop[Emails].status.position == number + 1
        assert shop[Emails].status.state == "live"


def test_what_is_recorded_is_what_is_stored(tmp_path: Path) -> None:
    with es.open(tmp_path / "a.db", Member, Emails) as shop:
        replies = [shop[Member, str(n % 7)].submit(Join(f"{n}@x")) for n in range(100)]
        for reply in replies:
            reply.result(SECONDS)
        stored = [
            (
                one.position,
                one.stream,
                one.version,
                one.time.isoformat(sep=" ", timespec="microseconds"),
                one.id,
            )
            for one in shop.events()
        ]
        assert shop[Emails].recorded() == stored


def test_a_stream_that_is_written_to_several_times_in_a_commit(tmp_path: Path) -> None:
    def joined(*emails: str) -> list[es.Event]:
        return [Joined(email, 0) for email in emails]

    with es.open(tmp_path / "a.db", Member, Emails) as shop:
        for turn in range(2):
            writes = [
                *(es.Write("m/1", joined(f"{turn}{n}@a", f"{turn}{n}@b")) for n in range(3)),
                es.Write("m/2", joined(f"{turn}@c")),
                es.Write("m/1", ()),
                es.Write("m/1", joined(f"{turn}@d")),
            ]
            shop.store.commit(writes)
            with pytest.raises(es.Rejected):  # a refusal leaves no count behind
                shop.store.commit([*writes, es.Write("m/2", joined(f"{turn}@c"))])
        stored = [(one.position, one.stream, one.version) for one in shop.events()]
        assert [row[:3] for row in shop[Emails].recorded()] == stored
        assert (shop.store.version("m/1"), shop.store.version("m/2")) == (14, 2)


def test_a_refused_commit_leaves_nothing(tmp_path: Path) -> None:
    with es.open(tmp_path / "a.db", Member, Emails) as shop:
        shop[Member, "1"].ask(Join("a@x"))
        with pytest.raises(es.Rejected, match=r"Emails could not apply Joined: UNIQUE"):
            shop[Member, "2"].ask(Join("a@x"))
        with pytest.raises(es.Rejected, match="UNIQUE"):  # the second of its own events
            shop[Member, "3"].ask(Join("b@x", times=2))
        assert shop[Member, "2"].version == 0 and shop[Member, "3"].state.count == 0
        assert shop[Emails].all() == [("a@x", "Member/1")]
        assert [one.position for one in shop.events()] == [1]
        assert shop[Member, "3"].ask(Join("b@x")) == 1
        assert shop[Emails].status.position == 2


def test_refused_and_accepted_commits_in_one_batch(tmp_path: Path) -> None:
    with es.open(tmp_path / "a.db", Member, Emails) as shop:
        replies = [(n, shop[Member, str(n)].submit(Join(f"{n % 40}@x"))) for n in range(400)]
        failed = set()
        for n, reply in replies:
            try:
                reply.result(SECONDS)
            except es.Rejected:
                failed.add(n)
        assert len(failed) == 360
        stored = [(one.event.email, one.stream) for one in shop.events()]
        assert shop[Emails].all() == stored and len(stored) == 40
        assert [one.position for one in shop.events()] == list(range(1, 41))


def test_commands_of_one_entity_behind_a_refused_one() -> None:
    with es.open(":memory:", Member, Emails) as shop:
        shop[Member, "0"].ask(Join("taken@x"))
        emails = ["a@x", "taken@x", "b@x", "c@x", "taken@x", "d@x"]
        replies = [shop[Member, "1"].submit(Join(email)) for email in emails]
        outcomes = []
        for reply in replies:
            try:
                outcomes.append(reply.result(SECONDS))
            except es.Error as error:
                outcomes.append(type(error).__name__)
        accepted = [one.event.email for one in shop[Member, "1"].history()]
        answered = [e for e, o in zip(emails, outcomes, strict=True) if isinstance(o, int)]
        assert accepted == answered
        assert outcomes[1] == "Rejected" and "taken@x" not in accepted
        assert shop[Emails].all() == [("taken@x", "Member/0")] + [(e, "Member/1") for e in accepted]


def test_catches_up_before_it_is_inline(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Member) as shop:
        for n in range(3000):
            shop[Member, "1"].tell(Join(f"{n}@x"))
        shop.flush(SECONDS)
    with es.open(path, Member, Emails) as shop:
        assert shop[Emails].status.position == 3000
        assert len(shop[Emails].all()) == 3000
        shop[Member, "2"].ask(Join("new@x"))
        assert shop[Emails].all()[-1] == ("new@x", "Member/2")
    with es.open(path, Member) as shop:  # without it
        shop[Member, "3"].ask(Join("later@x"))
    with es.open(path, Member, Emails) as shop:
        assert shop[Emails].all()[-1] == ("later@x", "Member/3")


def test_one_that_cannot_catch_up_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Member) as shop:
        for email in ("a@x", "a@x", "b@x"):
            shop[Member, "1"].ask(Join(email))
    with es.open(path, Member, Emails) as shop:
        assert shop[Emails].status.state == "stopped"
        shop[Member, "2"].ask(Join("c@x"))
        with pytest.raises(es.ReadModelStopped, match="stopped at position 2"):
            shop.flush(SECONDS)
        shop[Emails].skip(reason="a twin")
        shop.flush(SECONDS)
        assert [email for email, _ in shop[Emails].all()] == ["a@x", "b@x", "c@x"]
        shop[Member, "2"].ask(Join("d@x"))
        assert shop[Emails].all()[-1] == ("d@x", "Member/2")
        with pytest.raises(es.Rejected):
            shop[Member, "4"].ask(Join("d@x"))


def test_beside_asynchronous_ones_and_with_appends_of_a_store(tmp_path: Path) -> None:
    class Count(es.ReadModel):
        schema = "CREATE TABLE counts (email TEXT PRIMARY KEY, n INTEGER)"
        joined = es.sql(Joined, "INSERT INTO counts VALUES (:email, 1)"
                        " ON CONFLICT DO UPDATE SET n = n + 1")  # fmt: skip

        @es.query
        def total(self, db: es.Rows) -> int:
            return int(db.execute("SELECT coalesce(sum(n), 0) FROM counts").fetchall()[0][0])

    with es.Store(tmp_path / "a.db") as store:
        with es.open(store, Member, Emails, Count) as shop:
            shop[Member, "1"].ask(Join("a@x"))
            store.append("Member/9", [Joined("s@x", 0), Joined("t@x", 1)])
            assert [email for email, _ in shop[Emails].all()] == ["a@x", "s@x", "t@x"]
            with pytest.raises(es.Rejected, match="Emails"):
                store.append("Member/9", [Joined("u@x", 2), Joined("t@x", 3)])
            assert len(shop[Emails].all()) == 3
            shop.flush(SECONDS)
            assert shop[Count].total() == 3
        store.append("Member/9", [Joined("t@x", 2)])  # nobody is asked any more


def test_deleted_events_end_a_rebuild_and_the_old_rows_stay() -> None:
    with es.open(":memory:", Member, Emails) as shop:
        for name in "abc":
            shop[Member, name].ask(Join(f"{name}@x"))
        shop.store.delete("Member/b")
        shop[Emails].rebuild()
        with pytest.raises(es.ReadModelStopped, match="given up, the old rows stay") as caught:
            shop.flush(SECONDS)
        assert caught.value.position == 2
        shop.flush(SECONDS)
        assert shop[Emails].status.state == "live"
        shop[Member, "d"].ask(Join("d@x"))
        assert [email for email, _ in shop[Emails].all()] == ["a@x", "b@x", "c@x", "d@x"]


def test_a_changed_one_goes_on_behind_deleted_events_when_told_to(tmp_path: Path) -> None:
    class Changed(Emails, name="Emails"):
        version = 2

    with es.open(tmp_path / "a.db", Member, Emails) as shop:
        for name in "abc":
            shop[Member, name].ask(Join(f"{name}@x"))
        shop.store.delete("Member/b")
    with es.open(tmp_path / "a.db", Member, Changed) as shop:
        with pytest.raises(es.ReadModelStopped, match="position 2"):
            shop.flush(SECONDS)
        assert len(shop[Changed].all()) == 3
        shop[Changed].skip(reason="gone")
        shop.flush(SECONDS)
        assert [email for email, _ in shop[Changed].all()] == ["a@x", "c@x"]


def test_several_inline_ones_and_every_event() -> None:
    class Log(es.ReadModel):
        schema = "CREATE TABLE log (at INTEGER PRIMARY KEY, what TEXT)"
        inline = True
        every = es.sql(es.Event, "INSERT INTO log VALUES (:_position, :_type || :_event)")

        @es.query
        def count(self, db: es.Rows) -> int:
            return int(db.execute("SELECT count(*) FROM log").fetchall()[0][0])

    with es.open(":memory:", Member, Emails, Log) as shop:
        shop[Member, "1"].ask(Join("a@x"))
        with pytest.raises(es.Rejected):
            shop[Member, "1"].ask(Join("a@x"))
        shop[Member, "1"].ask(Nothing())
        shop[Member, "1"].ask(Join("b@x"))
        assert shop[Log].count() == 2 and len(shop[Emails].all()) == 2


def test_built_anew_under_load(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Member, Emails) as shop:
        ended = threading.Event()
        failures: list[BaseException] = []

        def write(name: str) -> None:
            n = 0
            try:
                while not ended.is_set():
                    shop[Member, name].ask(Join(f"{name}{n}@x"))
                    n += 1
                    if len(shop[Emails].all()) < n:
                        raise AssertionError("not there")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for _ in range(5):
            shop[Emails].rebuild()
            shop.flush(SECONDS)
        ended.set()
        for thread in threads:
            thread.join()
        assert not failures
        stored = [(one.event.email, one.stream) for one in shop.events()]
        assert shop[Emails].all() == stored
        assert shop[Emails].status.position == len(stored)


def test_a_changed_one_is_level_when_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Member, Emails) as shop:
        for n in range(100):
            shop[Member, "1"].ask(Join(f"{n}@x"))
    newer = type(
        "Emails",
        (Emails,),
        {
            "joined": es.sql(
                Joined,
                "INSERT INTO emails"
                " VALUES (upper(:email), :_stream, :_version, :_position, :_time, :_id)",
            ),
            "__qualname__": "newer.Emails",
        },
    )
    with es.open(path, Member, newer) as shop:
        assert shop[newer].all()[99] == ("99@X", "Member/1")
        shop[Member, "1"].ask(Join("new@x"))
        assert shop[newer].all()[100] == ("NEW@X", "Member/1")


def test_a_checkpoint_that_somebody_wrote_stops_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with es.open(path, Member, Emails) as shop:
        shop[Member, "1"].ask(Join("a@x"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("UPDATE escqrs_readmodel SET position = 0")
        other.close()
        with pytest.raises(es.Error, match="no longer at 1"):
            shop[Member, "1"].ask(Join("b@x"))
        assert shop[Emails].status.state == "stopped"
        shop[Member, "1"].ask(Join("c@x"))  # without it
        assert [email for email, _ in shop[Emails].all()] == ["a@x"]
        shop[Emails].rebuild()
        shop.flush(SECONDS)
        assert [email for email, _ in shop[Emails].all()] == ["a@x", "c@x"]
        shop[Member, "1"].ask(Join("d@x"))
        assert len(shop[Emails].all()) == 3


def test_what_is_refused() -> None:
    def handler(self: Any, db: es.Rows, event: Joined) -> None: ...

    schema = {"schema": "CREATE TABLE bad (x)", "inline": True}
    for more, text in (
        ({"put": es.on(Joined)(handler)}, "no Python runs"),
        ({"on_error": "park"}, "on_error"),
        ({"inline": 1}, "inline"),
    ):
        with pytest.raises(TypeError, match=text):
            type("Bad", (es.ReadModel,), {**schema, **more})
    rough = es.sql(Joined, "INSERT OR ROLLBACK INTO bad VALUES (1)")
    bad = type("Bad", (es.ReadModel,), {**schema, "put": rough})
    with pytest.raises(ValueError, match="ROLLBACK"):
        with es.open(":memory:", Member, bad):
            pass


def test_on_an_event_loop(tmp_path: Path) -> None:
    async def main() -> None:
        with es.open(tmp_path / "a.db", Member, Emails) as shop:
            await asyncio.gather(*(shop[Member, str(n)].submit(Join(f"{n}@x")) for n in range(300)))
            assert len(shop[Emails].all()) == 300

    asyncio.run(main())


KILLED = """
sys.path.insert(0, sys.argv[2])
from test_readmodel_inline import Emails, Join, Member

shop = es.open(sys.argv[1], Member, Emails)
print("open", flush=True)
n = shop[Emails].status.head
while True:
    reply = [shop[Member, str(n % 5)].submit(Join(f"{i}@x")) for i in range(n, n + 50)]
    n += 50
    for one in reply:
        one.result()
    print(n, flush=True)
"""


def test_exactly_once_through_kills(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for round in range(4):
        child = start(KILLED, path, Path(__file__).parent)
        assert child.stdout is not None
        for _ in range(2 + round):
            assert child.stdout.readline().strip()
        child.kill()
        finish(child, -9)
        connection = sqlite3.connect(path)
        (rows,) = connection.execute("SELECT count(*) FROM emails").fetchone()
        (position,) = connection.execute("SELECT position FROM escqrs_readmodel").fetchone()
        connection.close()
        assert rows == position
    with es.open(path, Member, Emails) as shop:
        stored = [(one.event.email, one.stream) for one in shop.events()]
        assert shop[Emails].all() == stored and len(stored) >= 50
