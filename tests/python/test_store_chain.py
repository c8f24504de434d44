"""The hash chain: what it proves, and what keeps it."""

from __future__ import annotations

import base64
import hashlib
import io
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import escqrs as es
import pytest
import support


class Added(es.Event, name="chain.Added"):
    name: str


def event(data: bytes = b"x", **options: Any) -> es.NewEvent:
    return es.NewEvent("Thing", data, **options)


def fill(store: es.Store) -> None:
    store.append("a", [event(bytes([number])) for number in range(5)])
    store.commit(
        [
            es.Write("b", [Added("ü"), event(id="mine", tags=["t", "u"])]),
            es.Write("a", [event(metadata={"z": "1", "a": "2"}, correlation_id="c")]),
        ]
    )
    store.append("c", [event(b"")], key="k")


EVENTS = 9
TAKEN_OFF = [  # the last one, with all that tells of it but its link
    "DELETE FROM escqrs_journal WHERE position = 9",
    "DELETE FROM escqrs_index WHERE stream = (SELECT id FROM escqrs_stream WHERE name = 'c')",
    "DELETE FROM escqrs_stream WHERE name = 'c'",
    "DELETE FROM escqrs_key",
    "UPDATE escqrs_store SET value = 8 WHERE name = 'indexed'",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "chained.db"
    with es.Store(found, chain=True) as store:
        fill(store)
    return found


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


def problems(path: Path) -> list[es.Problem]:
    with es.Store(path, readonly=True) as store:
        return [one for one in store.verify().problems if one.part == "chain"]


# ---- the links -----------------------------------------------------------------------------------


def links(store: es.Store) -> list[str | None]:
    return [store.chain_hash(position) for position in range(store.head + 1)]


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<q", len(data)) + data


def made_anew(store: es.Store) -> list[str]:
    """As docs/format.md says."""
    link = bytes(32)
    found = [link.hex()]
    for one in store.events():
        time = round(one.time.timestamp() * 1_000_000)
        parts = [link, struct.pack("<qqq", one.position, one.version, time), text(one.stream)]
        parts.append(hashlib.sha256(text(one.type) + text(one._schema)).digest())
        parts += [text(one.id), text(one.correlation_id), text(one.causation_id)]
        parts.append(struct.pack("<q", len(one.metadata)))
        parts += [text(part) for pair in sorted(one.metadata.items()) for part in pair]
        parts.append(struct.pack("<q", len(one.tags)))
        parts += [text(tag) for tag in one.tags]
        parts.append(text(one.data))
        link = hashlib.sha256(b"".join(parts)).digest()
        found.append(link.hex())
    return found


@pytest.mark.parametrize("place", ["file", "memory"])
def test_the_links_are_as_documented(path: Path, place: str) -> None:
    with es.Store(path if place == "file" else ":memory:", chain=True) as store:
        if place == "memory":
            assert store.chain_hash() == "0" * 64
            fill(store)
        assert links(store) == made_anew(store)
        assert store.chain_hash() == store.chain_hash(EVENTS)
        assert store.chain_hash(EVENTS + 1) is None
        assert store.chain_hash(2**70) is None
        found = store.verify()
        assert (found.ok, found.links) == (True, EVENTS)
        assert "9 links" in repr(found)
        with pytest.raises(ValueError):
            store.chain_hash(-1)


def test_it_goes_on_when_opened_again(path: Path) -> None:
    with es.Store(path) as store:  # the file knows
        store.append("a", [event()])
    with es.open(path, Added) as shop:
        shop.store.append("a", [event()])
        assert links(shop.store) == made_anew(shop.store)
        assert shop.store.verify().ok
    with es.Store(path, readonly=True) as store:
        assert store.chain_hash(EVENTS + 2) == store.chain_hash()


def test_a_commit_that_fails_leaves_it_as_it_was(path: Path) -> None:
    with es.Store(path) as store:
        before = store.chain_hash()
        with pytest.raises(es.KeyReused):
            store.append("c", [event()], key="k")
        assert store.append("c", [event(b"")], key="k").repeated
        with pytest.raises(es.KeyReused):
            store.append("c", [event(), event(id="mine")])
        assert store.chain_hash() == before
        store.append("c", [event()])
        assert links(store) == made_anew(store)


def test_a_store_without_one(tmp_path: Path) -> None:
    path = tmp_path / "plain.db"
    with es.Store(path) as store:
        fill(store)
        assert store.chain_hash() is None
        assert store.verify().links == 0
    with pytest.raises(ValueError, match="keeps no hash chain"):
        es.Store(path, chain=True)
    with pytest.raises(ValueError, match="keeps no hash chain"):
        es.Store(path, chain=True, readonly=True)
    with pytest.raises(TypeError):
        es.Store(tmp_path / "new.db", chain=1)  # type: ignore[arg-type]
    with es.open(tmp_path / "new.db", chain=True) as shop:
        assert shop.store.chain_hash() == "0" * 64
        with pytest.raises(TypeError, match="chain"):
            es.open(shop.store, chain=True)


# ---- what was changed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "stream", "version", "position"),
    [
        ("UPDATE escqrs_journal SET data = x'77' WHERE position = 3", "a", 3, 3),
        ("UPDATE escqrs_journal SET time = time + 1 WHERE position >= 4", "a", 4, 4),
        ("UPDATE escqrs_journal SET header = NULL WHERE position = 8", "a", 6, 8),
        ("UPDATE escqrs_type SET name = 'Else' WHERE name = 'chain.Added'", "b", 1, 6),
        ("UPDATE escqrs_type SET record = x'' WHERE name = 'chain.Added'", "b", 1, 6),
        ("UPDATE escqrs_stream SET name = 'd' WHERE name = 'c'", "d", 1, 9),
        ("UPDATE escqrs_chain SET hash = zeroblob(32) WHERE position = 5", "a", 5, 5),
        ("DELETE FROM escqrs_chain WHERE position = 7", "b", 2, 7),
        (";".join(TAKEN_OFF), None, None, 9),
    ],
)
def test_the_first_broken_link_is_named(
    path: Path, statement: str, stream: str | None, version: int | None, position: int
) -> None:
    change(path, *statement.split(";"))
    first = problems(path)[0]
    assert (first.stream, first.version, first.position) == (stream, version, position)


def test_one_changed_event_is_one_broken_link(path: Path) -> None:
    change(path, "UPDATE escqrs_journal SET data = x'77' WHERE position = 3")
    assert [one.position for one in problems(path)] == [3]


def test_a_link_that_was_noted_tells_what_was_made_anew(path: Path) -> None:
    with es.Store(path, readonly=True) as store:
        noted = [store.chain_hash(position) for position in (1, 4)]
    with es.Store(path) as store, es.Store(path.with_name("other.db"), chain=True) as other:
        target = io.BytesIO()
        store.export(target)
        lines = target.getvalue().splitlines(keepends=True)
        assert b'"data":"Ag=="' in lines[3]
        lines[3] = lines[3].replace(b'"data":"Ag=="', b'"data":"AQ=="')
        lines[0], lines[-1] = b'{"export":1,"after":0,"upto":9}\n', b'{"end":9}\n'
        other.import_(io.BytesIO(b"".join(lines)))
        assert other.verify().ok
        assert other.chain_hash(1) == noted[0]
        assert other.chain_hash(4) != noted[1]


@pytest.mark.parametrize(
    "statement",
    [
        ";".join(TAKEN_OFF),
        "DELETE FROM escqrs_chain WHERE position = 9",
        "UPDATE escqrs_chain SET hash = x'00' WHERE position = 9",
        "DROP TABLE escqrs_chain",
    ],
)
def test_nothing_is_added_to_one_whose_end_is_not_what_it_was(path: Path, statement: str) -> None:
    change(path, *statement.split(";"))
    with pytest.raises(es.Corrupt):
        es.Store(path)
    assert problems(path)


def test_an_unknown_kind_is_refused(path: Path) -> None:
    change(path, "UPDATE escqrs_store SET value = 2 WHERE name = 'chain'")
    with pytest.raises(es.NotAStore, match="chain"):
        es.Store(path)


def test_a_file_does_not_cease_to_keep_one(path: Path) -> None:
    """Its links say that it does, whatever became of the row that says so."""
    with es.Store(path) as store:
        noted = store.chain_hash()
    change(path, "DELETE FROM escqrs_store WHERE name = 'chain'")
    with es.Store(path) as store:
        assert store.chain_hash() == noted
        store.append("a", [event(b"one more")])
        assert store.chain_hash() != noted
    with es.Store(path, readonly=True) as store:
        assert [one.part for one in store.verify().problems] == ["file"]
    change(path, "UPDATE escqrs_journal SET data = x'00' WHERE position = 4")
    assert ("chain", 4) in [(one.part, one.position) for one in problems(path)]


def test_deleting_keeps_the_links(path: Path) -> None:
    with es.Store(path) as store:
        before = links(store)
        store.truncate("a", 2, force=True)
        store.delete("c")  # the last event
        assert links(store) == before
        assert store.verify().ok
        store.append("b", [event()])
    with es.Store(path) as store:
        store.append("b", [event()])
        found = store.verify()
        assert (found.ok, found.links) == (True, EVENTS - 3 + 2)
    change(path, "UPDATE escqrs_journal SET data = x'77' WHERE position = 4")
    assert [one.position for one in problems(path)] == [4]


# ---- copies --------------------------------------------------------------------------------------


def test_backup_clone_and_restore_keep_it(path: Path, tmp_path: Path) -> None:
    with es.Store(path) as store:
        expected = links(store)
        store.backup(tmp_path / "backup.db")
        with store.clone() as clone:
            assert links(clone) == expected
            clone.append("a", [event()])
            assert clone.verify().ok
            assert links(clone) == made_anew(clone)
    es.restore(tmp_path / "backup.db", tmp_path / "restored.db")
    with es.Store(tmp_path / "restored.db", chain=True) as store:
        assert links(store) == expected


@pytest.mark.parametrize("format", ["jsonl", "protobuf"])
def test_an_export_keeps_it(path: Path, tmp_path: Path, format: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with es.Store(path) as store:
        expected = links(store)
        store.export(first, format=format, upto=4)
        store.export(second, format=format, after=4)
    with es.Store(":memory:", chain=True) as store:
        store.import_(first, format=format)
        store.import_(second, format=format)
        assert links(store) == expected
        assert store.verify().ok
    with es.Store(":memory:") as store:
        assert store.import_(first, format=format) == 4
    es.restore(first, tmp_path / "restored.db")
    with es.Store(tmp_path / "restored.db") as store:
        assert links(store) == expected[:5]


def test_an_export_that_was_changed_is_refused(path: Path, tmp_path: Path) -> None:
    target = io.BytesIO()
    with es.Store(path) as store:
        store.export(target)
        store.export(tmp_path / "rest", after=4)
    changed = target.getvalue().replace(b'"z":"1"', b'"z":"2"')
    assert changed != target.getvalue()
    (tmp_path / "changed").write_bytes(changed)
    with pytest.raises(es.Conflict, match="hash chain"):
        es.restore(tmp_path / "changed", tmp_path / "restored.db")
    assert not (tmp_path / "restored.db").exists()
    with es.Store(":memory:", chain=True) as store:
        store.append("a", [event(bytes([number])) for number in (0, 1, 2, 7)])
        with pytest.raises(es.Conflict, match="hash chain"):
            store.import_(tmp_path / "rest")
        assert store.head == 4


class Pipe(io.RawIOBase):
    """What cannot be read twice."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._rest.readinto(buffer)


@pytest.mark.parametrize("chain", [True, False])
@pytest.mark.parametrize("format", ["jsonl", "protobuf"])
def test_of_an_export_that_was_changed_nothing_is_stored(
    tmp_path: Path, format: str, chain: bool
) -> None:
    """Whatever was changed, wherever it is read from, and of what would be many batches."""
    with es.Store(":memory:", chain=True) as store:
        fill(store)
        store.append("d", [event(b"%d" % number) for number in range(3000)])
        store.append("e", [event(b"the last")])
        store.export(tmp_path / "export", format=format)
    data = (tmp_path / "export").read_bytes()
    changes = [(b"the last", b"The last")] if format == "protobuf" else []
    if format == "jsonl":
        changes = [(b'"dGhlIGxhc3Q="', b'"VGhlIGxhc3Q="'), (b'"stream":"e"', b'"stream":"f"')]
        changes += [(b'"t","u"', b'"u","t"'), (b'"a":"2"', b'"a":"3"')]
    with es.Store(":memory:", chain=chain) as store:
        for old, new in changes:
            changed = data.replace(old, new)
            assert changed != data
            for source in (io.BytesIO(changed), io.BufferedReader(Pipe(changed))):
                with pytest.raises(es.Conflict, match="it was changed"):
                    store.import_(source, format=format)
                assert store.head == 0
        for source in (io.BytesIO(data[:-3]), io.BufferedReader(Pipe(data[: len(data) // 2]))):
            with pytest.raises(ValueError, match=r"cut short|does not read|in the middle"):
                store.import_(source, format=format)
            assert store.head == 0
        assert store.import_(io.BufferedReader(Pipe(data)), format=format) == EVENTS + 3001
        assert store.verify().ok


@pytest.mark.parametrize("chain", [True, False])
@pytest.mark.parametrize("format", ["jsonl", "protobuf"])
def test_what_was_changed_before_deleted_events_is_not_stored(
    tmp_path: Path, format: str, chain: bool
) -> None:
    """The links of deleted events are taken as they are: also there the chain has to lead."""
    with es.Store(":memory:", chain=True) as store:
        for number in range(6):
            store.append("abcabc"[number], [event(b"data %d" % number)])
        store.append("d", [event()])
        store.delete("b")
        store.export(tmp_path / "export", format=format)
    data = (tmp_path / "export").read_bytes()
    text = {"jsonl": base64.b64encode, "protobuf": bytes}[format]
    with es.Store(":memory:", chain=chain) as store:
        for number in (0, 2, 3, 5):
            changed = data.replace(text(b"data %d" % number), text(b"DATA %d" % number))
            assert changed != data
            with pytest.raises(es.Conflict, match="it was changed"):
                store.import_(io.BytesIO(changed), format=format)
            assert store.head == 0
        assert store.import_(io.BytesIO(data), format=format) == 5
        assert store.verify().ok


def test_an_export_whose_first_line_was_changed_is_not_stored(path: Path) -> None:
    target = io.BytesIO()
    with es.Store(path) as store:
        store.export(target)
    data = target.getvalue()
    assert b'"upto":9,' in data
    with es.Store(":memory:") as store:
        for upto in (0, 8, 10):
            changed = data.replace(b'"upto":9,', b'"upto":%d,' % upto)
            with pytest.raises(ValueError, match="cut short"):
                store.import_(io.BytesIO(changed))
            assert store.head == 0


@pytest.mark.parametrize("chain", [True, False])
def test_an_export_of_no_events_is_none_that_was_cut_short(path: Path, chain: bool) -> None:
    with es.Store(path) as store, es.Store(":memory:", chain=chain) as other:
        for after, upto in ((0, None), (EVENTS, None), (EVENTS + 5, None), (5, 2), (0, 0)):
            target = io.BytesIO()
            count = store.export(target, after=after, upto=upto)
            target.seek(0)
            if after > other.head:
                other.append("more", [event()] * (after - other.head))
            assert other.import_(target) == count


def test_an_import_tells_how_far_it_is_each_time_it_reads(tmp_path: Path) -> None:
    source, calls = tmp_path / "export", list[tuple[int, int]]()
    with es.Store(":memory:", chain=True) as store:
        for _ in range(9):
            store.append("s", [event() for _ in range(1000)])
        store.export(source)
    once = [(8192, 9000), (9000, 9000)]
    with es.Store(":memory:", chain=True) as store:
        store.import_(source, progress=lambda *now: calls.append(now))
        assert calls == once * 2
        calls.clear()

        def stop(position: int, last: int) -> None:
            raise KeyError

    with es.Store(":memory:", chain=True) as store:
        with pytest.raises(KeyError):
            store.import_(source, progress=stop)
        assert store.head == 0
    restored = es.restore(source, tmp_path / "r.db", progress=lambda *now: calls.append(now))
    assert restored.events == 9000
    assert calls[:4] == once * 2
    command = [sys.executable, "-m", "escqrs", "import", tmp_path / "i.db", source, "--progress"]
    shown = subprocess.run(command, capture_output=True, check=True, timeout=support.SECONDS).stderr
    checked, imported, _ = shown.split(b"\n")
    assert checked.endswith(b"checked 9,000 of 9,000 (100%)")
    assert imported.endswith(b"imported 9,000 of 9,000 (100%)")
