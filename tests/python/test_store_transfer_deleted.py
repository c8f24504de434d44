"""Export and import of stores whose events were deleted: what is gone is said, and is gone again at
the same positions and versions."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import escqrs as es
import pytest

FORMATS = ["jsonl", "protobuf"]


def raw(data: bytes = b"x", **options: Any) -> es.NewEvent:
    return es.NewEvent("Thing", data, **options)


def exported(store: es.Store, format: str = "jsonl", **options: Any) -> bytes:
    target = io.BytesIO()
    store.export(target, format=format, **options)
    return target.getvalue()


def told(store: es.Store) -> dict[str, Any]:
    """All that an export is to carry."""
    events = [
        (e.position, e.stream, e.version, e.time, e.id, e.data, tuple(e.tags))
        for e in store.events(deleted="skip")
    ]
    names = {name for name, *_rest in store._all_streams()}
    return {
        "head": store.head,
        "events": events,
        "versions": {name: store.version(name) for name in names},
        "truncated": {name: store.truncated(name) for name in names},
        "deleted": {name for name in names if store.deleted(name)},
    }


@pytest.fixture
def store():
    """15 events: a truncated, b deleted, c whole, d gone at the end."""
    with es.Store(":memory:") as made:
        made.append("a", [raw(b"a1"), raw(b"a2")])
        made.append("b", [raw(b"b1"), raw(b"b2", id="mine", tags=["t"])])
        made.append("c", [raw(b"c1", tags=["t"])])
        made.append("a", [raw(b"a3"), raw(b"a4"), raw(b"a5")])
        made.append("b", [raw(b"b3")])
        made.append("c", [raw(b"c2"), raw(b"c3")])
        made.append("a", [raw(b"a6")])
        made.append("d", [raw(b"d1"), raw(b"d2"), raw(b"d3")])
        made.truncate("a", 4, force=True)
        made.delete("b")
        made.truncate("d", 3, force=True)
        yield made


@pytest.mark.parametrize("format", FORMATS)
def test_there_and_back(store, format, tmp_path):
    count = store.export(tmp_path / "export", format=format)
    assert count == store.stats().events == 5
    with es.Store(tmp_path / "copy.db") as copy:
        assert copy.import_(tmp_path / "export", format=format) == count
        assert told(copy) == told(store)
        assert copy.verify().ok
        assert copy.import_(tmp_path / "export", format=format) == 0  # it has all of it
        assert copy.append("d", [raw()], expected=3).position == 16
        with pytest.raises(es.Deleted):
            copy.append("b", [raw()])
        with pytest.raises(es.Deleted) as failure:
            list(copy.history("a"))
        assert failure.value.version == 4
        assert exported(copy, format, upto=15) != b""


def test_lines_say_what_is_gone(store):
    lines = [json.loads(line) for line in exported(store).splitlines()]
    assert lines[0] == {"export": 2, "after": 0, "upto": 15}
    gaps = [line["gap"] for line in lines if "gap" in line]
    positions = [
        position
        for gap in gaps
        for position in range(gap["position"], gap["position"] + gap["count"])
    ]
    left = [line["event"]["position"] for line in lines if "event" in line]
    assert sorted(positions + left) == list(range(1, 16))
    for stream, upto in (("a", 4), ("b", 3), ("d", 3)):
        versions = [
            version
            for gap in gaps
            if gap["stream"] == stream
            for version in range(gap["version"], gap["version"] + gap["count"])
        ]
        assert versions == list(range(1, upto + 1))
    assert lines[-2:] == [{"closed": "b"}, {"end": 15}]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_was_deleted(seed):
    chance = random.Random(seed)
    with es.Store(":memory:") as store, es.Store(":memory:") as copy:
        for _step in range(60):
            stream = chance.choice("abcdefgh")
            if chance.random() < 0.75:
                if not store.deleted(stream):
                    store.append(
                        stream, [raw(b"%d" % chance.randrange(100))] * chance.randint(1, 4)
                    )
            elif store.version(stream) > store.truncated(stream) and not store.deleted(stream):
                if chance.random() < 0.3:
                    store.delete(stream)
                else:
                    upto = chance.randint(store.truncated(stream) + 1, store.version(stream))
                    store.truncate(stream, upto, force=True)
        copy.import_(io.BytesIO(exported(store)))
        assert told(copy) == told(store)
        assert copy.verify().ok
        with es.Store(":memory:") as second:
            second.import_(io.BytesIO(exported(copy, "protobuf")), format="protobuf")
            assert told(second) == told(store)


def test_all_of_it_is_gone():
    with es.Store(":memory:") as store, es.Store(":memory:") as copy:
        store.append("a", [raw()] * 3)
        store.delete("a")
        assert store.export(io.BytesIO()) == 0
        copy.import_(io.BytesIO(exported(store)))
        assert copy.head == 3
        assert copy.deleted("a")
        assert copy.append("b", [raw()]).position == 4


def test_more_than_a_batch():
    with es.Store(":memory:") as store, es.Store(":memory:") as copy:
        store.append("a", [raw()] * 2500)
        store.append("b", [raw()])
        store.append("a", [raw()] * 10)
        store.truncate("a", 2505, force=True)
        assert copy.import_(io.BytesIO(exported(store))) == 6
        assert told(copy) == told(store)
        assert copy.verify().ok


def test_a_part_of_it(store):
    with es.Store(":memory:") as copy:
        copy.import_(io.BytesIO(exported(store, upto=9)))
        assert copy.head == 9
        assert [e.data for e in copy.events(deleted="skip")] == [b"c1", b"a5"]
        assert copy.truncated("a") == 4
    with pytest.raises(es.Deleted):
        exported(store, after=2)
    lines = exported(store, after=9, upto=12).splitlines()
    assert json.loads(lines[0])["export"] == 1  # nothing is gone there


def test_an_import_that_was_cut_short_goes_on(store):
    lines = exported(store).splitlines(keepends=True)
    for cut in range(1, len(lines)):
        with es.Store(":memory:") as copy:
            with pytest.raises(ValueError, match="cut short"):
                copy.import_(io.BytesIO(b"".join(lines[:cut])))
            copy.import_(io.BytesIO(b"".join(lines)))
            assert told(copy) == told(store)


def test_an_import_that_died_before_it_deleted(store):
    class Dying(es.Store):
        alive = False

        def _erase(self, items: list[tuple[str, int | None, bool]], /) -> list[int]:
            if not self.alive:
                raise OSError("the plug was pulled")
            return super()._erase(items)

    with Dying(":memory:") as copy:
        with pytest.raises(OSError, match="plug"):
            copy.import_(io.BytesIO(exported(store)))
        assert copy.head == 15
        assert copy.truncated("a") == 0
        copy.alive = True
        copy.import_(io.BytesIO(exported(store)))
        assert told(copy) == told(store)


def test_a_store_that_still_has_the_events(store):
    with es.Store(":memory:") as other:
        other.append("a", [raw(b"a1"), raw(b"a2")])
        with pytest.raises(es.Conflict, match="position 1 was deleted where this comes from"):
            other.import_(io.BytesIO(exported(store)))
        assert other.head == 2
        assert other.truncated("a") == 0


def test_hash_chains():
    with es.Store(":memory:", chain=True) as store, es.Store(":memory:", chain=True) as other:
        store.append("a", [raw()] * 3000)
        store.append("b", [raw()])
        store.append("c", [raw()])
        store.truncate("a", 2998, force=True)
        store.delete("c")
        links = [store.chain_hash(position) for position in range(store.head + 1)]
        export, before = exported(store), told(store)
        assert other.import_(io.BytesIO(export)) == 3
        assert [other.chain_hash(position) for position in range(other.head + 1)] == links
        assert other.verify().ok
        assert other.import_(io.BytesIO(export)) == 0
        store.append("b", [raw(b"later")])
        assert other.import_(io.BytesIO(exported(store))) == 1
        assert told(other) == told(store)
        assert (other.chain_hash(), other.verify().ok) == (store.chain_hash(), True)
        with es.Store(":memory:") as plain:
            plain.import_(io.BytesIO(export))
            assert told(plain) == before


def test_a_hash_chain_of_ones_own(store):
    """An export without links: the store makes them, and its chain holds."""
    with es.Store(":memory:", chain=True) as other, es.Store(":memory:", chain=True) as third:
        other.import_(io.BytesIO(exported(store)))
        assert told(other) == told(store)
        assert other.verify().ok
        third.import_(io.BytesIO(exported(other)))
        assert third.chain_hash() == other.chain_hash()


def test_a_hash_chain_that_was_made_up():
    with es.Store(":memory:", chain=True) as store:
        store.append("a", [raw()] * 3)
        store.truncate("a", 2, force=True)
        lines = exported(store).splitlines(keepends=True)
        whole = [json.loads(line) for line in lines]
    gap = next(line["gap"] for line in whole if "gap" in line)
    gap["chain"] = base64.b64encode(b"x" * 64).decode()
    with es.Store(":memory:", chain=True) as other:
        with pytest.raises(es.Conflict, match="at position 3: it was changed"):
            other.import_(io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in whole)))
        assert other.head == 0
    gap["chain"] = base64.b64encode(b"x" * 63).decode()
    with es.Store(":memory:", chain=True) as other:
        with pytest.raises(ValueError, match="link for each"):
            other.import_(io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in whole)))
        assert other.head == 0


def test_a_chain_is_restored(tmp_path):
    with es.Store(tmp_path / "a.db", chain=True) as store:
        store.append("a", [raw()] * 3)
        store.truncate("a", 2, force=True)
        store.export(tmp_path / "export")
        link = store.chain_hash()
    es.restore(tmp_path / "export", tmp_path / "b.db")
    with es.Store(tmp_path / "b.db", chain=True) as copy:
        assert copy.chain_hash() == link


def test_restore(store, tmp_path):
    store.export(tmp_path / "export")
    found = es.restore(tmp_path / "export", tmp_path / "shop.db")
    assert found.ok
    assert found.path == str(tmp_path / "shop.db")
    with es.Store(tmp_path / "shop.db", readonly=True) as copy:
        assert told(copy) == told(store)


def test_deleting_meanwhile_is_no_silent_gap(store, tmp_path):
    class Meddling(io.BytesIO):
        done = False

        def write(self, data: Any, /) -> int:
            if not self.done:
                self.done = True
                store.truncate("c", 1, force=True)
            return super().write(data)

    with pytest.raises(es.Conflict, match="export it again"):
        store.export(Meddling())
    assert store.export(io.BytesIO()) == 4


def test_an_export_of_a_later_format_is_refused(tmp_path: Path):
    with es.Store(":memory:") as copy, pytest.raises(ValueError, match="format 3"):
        copy.import_(io.BytesIO(b'{"export":3,"after":0,"upto":1}\n{"end":1}\n'))


def test_streams_behind_many_deleted_ones():
    with es.Store(":memory:") as store:
        store.commit([es.Write(f"s{number}", [raw()]) for number in range(1100)])
        store.append("last", [raw()])
        for number in range(1100):
            store.delete(f"s{number}")
        assert list(store.streams()) == [("last", 1)]
