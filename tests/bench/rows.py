"""The rows of the table: which figure of which workload, and what it is to reach."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table.

    `times_floor` and `times_peer` say how many times as fast as they: 0.8 of a floor is four fifths
    of its rate, or a quarter more time. `limit` is the figure itself: at least for rates, at most
    for others.
    """

    workload: str
    figure: str
    title: str
    unit: str
    more_is_better: bool
    times_floor: float | None = None
    times_peer: float | None = None
    limit: float | None = None
    beyond_floor: bool = False  # the figure is what is used beyond the floor
    peer_figure: str | None = None  # where the peer's goes by another name


# What a message of four fields costs, beside each library: what is done, and within how many ns.
MESSAGE_CALLS = {
    "make": ("made", 150),
    "read": ("one field read", 25),
    "pack": ("to bytes", 60),
    "unpack": ("from bytes", 80),
    "unpack_read": ("from bytes, one field read", None),
}
MESSAGE_PEERS = {
    "msgspec": "msgspec",
    "pydantic": "pydantic",
    "protobuf": "Google's protobuf",
    "dataclass": "dataclass, orjson",
}
MESSAGE_ROWS = [
    Row("messages", figure, f"message {done}; peer: {title}", "ns", False, times_peer=1,
        limit=limit, peer_figure=f"{name}.{figure}")
    for figure, (done, limit) in MESSAGE_CALLS.items()
    for name, title in MESSAGE_PEERS.items()
]  # fmt: skip

# Actors in C. The peer is protoactor-go, in the lines below one Erlang and CAF, on the same figure.
ACTOR_FIGURES = {
    "ping_pong": ("C, two actors, one thread, 1 message in flight", 25_000_000),
    "ping_pong_many": ("  100 in flight", 80_000_000),
    "random_thousand": ("C, random sends among 1,000 actors, one thread", 60_000_000),
    "random_thousand_all": ("  all cores", None),
    "random_million": ("  among 1,000,000, one thread", 8_000_000),
    "random_million_all": ("  all cores", None),
    "many_to_one": ("C, two other threads to one actor", 15_000_000),
    "lives": ("C, actor made, one message, stopped", 3_000_000),
    "skynet": ("C, Skynet, 1,000,000 leaves", None),
}
PEERS_BELOW = {"erlang": "Erlang", "caf": "CAF"}  # protoactor-go first
ACTOR_ROWS = [
    row
    for figure, (title, limit) in ACTOR_FIGURES.items()
    for row in (
        Row("actors", figure, f"{title}; peer: protoactor-go", "actors/s" if figure in
            ("lives", "skynet") else "messages/s", True, times_peer=1, limit=limit),
        *(
            Row("actors", figure, f"    peer: {peer_title}", "", True,
                peer_figure=f"{peer}.{figure}")
            for peer, peer_title in PEERS_BELOW.items()
        ),
    )
] + [
    Row("actors", "bytes", "C, idle actor; peer: protoactor-go", "bytes", False, limit=400),
    *(
        Row("actors", "bytes", f"    peer: {title}", "", False, peer_figure=f"{peer}.bytes")
        for peer, title in PEERS_BELOW.items()
    ),
]  # fmt: skip

# Actors in Python.
PYTHON_ACTOR_ROWS = [
    Row("pyactors", "tell", "Python actor to actor, tell; peer: pykka", "messages/s", True,
        times_peer=6, limit=2_000_000, peer_figure="pykka.tell"),
    Row("pyactors", "tell", "    peer: thespian", "", True, times_peer=10,
        peer_figure="thespian.tell"),
    Row("pyactors", "ask", "ask of an idle actor, main thread; peer: pykka", "µs", False,
        times_peer=20, limit=2, peer_figure="pykka.ask"),
    Row("pyactors", "ask", "    peer: thespian", "", False, times_peer=3,
        peer_figure="thespian.ask"),
    Row("pyactors", "life", "actor made, one message, stopped; peer: pykka", "actors/s", True,
        limit=500_000, peer_figure="pykka.life"),
    Row("pyactors", "life", "    peer: thespian", "", True, peer_figure="thespian.life"),
    Row("pyactors", "bytes", "idle actor beyond its Python object", "bytes", False, limit=1_024,
        beyond_floor=True),
    Row("pyactors", "persistent", "persistent actors, 1,000 in flight, FULL", "messages/s", True,
        limit=100_000),
]  # fmt: skip

# The store by itself: 64-byte payloads, FULL.
STORE_ROWS = [
    Row("append", "rate1", "C append, 1 event a commit, 10,000 streams", "events/s", True, 0.9),
    Row("append", "rate100", "  100 a commit", "events/s", True, 0.8),
    Row("append", "rate1000", "  1,000 a commit", "events/s", True, 0.7),
    Row(
        "append",
        "python",
        "Store.append, 1,000 at a time; peer: eventsourcing",
        "events/s",
        True,
        limit=400_000,
        peer_figure="eventsourcing",
    ),
    Row("append", "python", "  peer: umadb", "events/s", True, peer_figure="umadb"),
    Row("append", "bytes", "  file, of an event", "bytes", False, limit=1.3 * 64 + 24),
    Row(
        "grown",
        "rate1",
        "C append, {events} events there; floor: none, 1 a commit",
        "events/s",
        True,
        0.8,
    ),
    Row("grown", "rate100", "  100 a commit", "events/s", True, 0.8),
    Row("grown", "rate1000", "  1,000 a commit", "events/s", True, 0.8),
    Row(
        "condition",
        "share",
        "append if no event bears a tag: rate of one without",
        "×",
        True,
        limit=0.5,
    ),
    Row("condition", "rate", "  commits", "commits/s", True),
    Row("read", "first", "C, a stream of 1,000 events, out of the cache", "µs", False),
    Row("read", "again", "  warm", "µs", False, 0.25),
    Row("read", "scan", "C, all events by position", "events/s", True, limit=3_000_000),
    Row("read", "python", "Store.events, bytes", "events/s", True, limit=1_500_000),
    Row("follow", "near_p50", "commit to a waiting reader, other thread", "ms", False),
    Row("follow", "near_p99", "  99 of 100 below", "ms", False, limit=1),
    Row("follow", "far_p50", "  other process", "ms", False),
    Row("follow", "far_p99", "  99 of 100 below", "ms", False, limit=5),
    Row("follow", "idle", "  while nothing comes", "% CPU", False, limit=0.05),
    Row("crashed", "ms", "open after a crash with 64 MB in the WAL", "ms", False, limit=1000),
    Row(
        "backup",
        "share",
        "backup while 10,000 events/s are written: rate kept",
        "×",
        True,
        limit=0.7,
    ),
    Row("backup", "rate", "  copied", "MB/s", True),
]


ROWS = [
    Row("ask", "rate", "ask, one client, FULL", "commands/s", True, 0.8, 2),
    Row("ask", "p50", "  median", "µs", False),
    Row("ask", "p99", "  99 of 100 below", "µs", False),
    Row("submit", "rate", "submit, 1,000 in flight, 1,000 entities, FULL", "commands/s", True,
        0.25, 5, 150_000),
    Row("tasks", "rate", "asyncio, 1,000 tasks, FULL", "commands/s", True, limit=80_000),
    Row("load", "shallow", "state not in memory, 10 events", "µs", False, None, 8, 60),
    Row("load", "deep", "state not in memory, 1,000 events", "µs", False, None, 15, 1_500),
    Row("replay", "rate", "replay with Python @applies", "events/s", True, limit=1_000_000),
    Row("replay", "apart", "  each event apart from its stream's others", "events/s", True),
    Row("project", "rate", "read model from SQL, catching up", "events/s", True, 0.7, 50),
    Row("readmodels", "upsert", "  one upsert an event into 1,000 rows", "events/s", True, 0.7),
    Row("readmodels", "python", "read model with a Python handler", "events/s", True, 0.5, 20),
    Row("readmodels", "inline", "inline read model: rows added to a pipelined append", "rows/s",
        True, 1 / 1.5),
    Row("readmodels", "ten", "ten read models at once, of ten single ones' processor time", "×",
        False, limit=1.3),
    Row("readmodels", "visible", "reply to visible row, 1,000 commands/s, 99 of 100 below", "µs",
        False, limit=5000),
    Row("scan", "rate", "shop.events(), one field read", "events/s", True, limit=1_500_000),
    Row("opening", "large", "opening a file of {events} events", "ms", False, limit=200),
    Row("opening", "large_first", "  and one state of it", "ms", False),
    Row("opening", "small", "  a file of 1,000 events", "ms", False),
    Row("idle", "percent", "idle", "% CPU", False, limit=0.05),
    Row("memory", "bytes", "live entity beyond its Python state", "bytes", False, limit=500,
        beyond_floor=True),
    *ACTOR_ROWS,
    *PYTHON_ACTOR_ROWS,
    *STORE_ROWS,
    Row("registration", "users", "HTTP: users registered, 16 connections, FULL", "requests/s",
        True, limit=3000),
    Row("registration", "pages", "  a page of 100 among 1,000 users", "requests/s", True,
        limit=1000),
    *MESSAGE_ROWS,
]  # fmt: skip

WORKLOADS = list(dict.fromkeys(row.workload for row in ROWS))
