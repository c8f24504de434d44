"""es.Store.export and import_: histories that move from store to store."""

from __future__ import annotations

import io
import json
from pathlib import Path

import escqrs as es
import pytest


class Added(es.Event, name="transfer.Added"):
    name: str
    quantity: int = 1


class Other(es.Event, name="transfer.Added"):
    name: int


FORMATS = ["jsonl", "protobuf"]


def raw(data: bytes = b"x", **options: object) -> es.NewEvent:
    return es.NewEvent("Thing", data, **options)  # type: ignore[arg-type]


@pytest.fixture
def store():
    with es.Store(":memory:") as made:
        made.append("a", [Added("x"), raw(b"\x00\xff", tags=["t", "ü"], metadata={"k": "v"})])
        made.commit([es.Write("b", [raw(id="mine")]), es.Write("a", [raw(), raw()])])
        made.append("a", [raw(correlation_id="trace", causation_id="cause")])
        made.append("c", [Added(str(number)) for number in range(2500)])
        yield made


def exported(store: es.Store, format: str, **options: int) -> bytes:
    target = io.BytesIO()
    store.export(target, format=format, **options)
    return target.getvalue()


def same(left: es.Store, right: es.Store) -> bool:
    names = ["position", "stream", "version", "type", "time", "id", "correlation_id",
             "causation_id", "metadata", "tags", "data", "_schema"]  # fmt: skip

    def told(store: es.Store) -> list[list[object]]:
        return [[getattr(event, name) for name in names] for event in store.events()]

    return told(left) == told(right)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("place", ["file", "memory"])
def test_there_and_back(store, format, place, tmp_path):
    path = tmp_path / "export"
    calls: list[tuple[int, int]] = []
    count = store.export(path, format=format, progress=lambda *now: calls.append(now))
    assert (count, calls) == (2506, [(2506, 2506)])
    with es.Store(tmp_path / "i.db" if place == "file" else ":memory:", Added) as target:
        assert target.import_(path, format=format, progress=lambda *now: calls.append(now)) == 2506
        assert calls[1:] == [(2506, 2506)]
        assert same(store, target)
        assert target.verify().ok
        assert target.import_(path, format=format) == 0
        assert next(target.history("a")).event == Added("x")
        last = next(iter(target.events(reverse=True, limit=1))).time
        target.append("a", [Added("y")], expected=5)
        assert next(iter(target.events(reverse=True, limit=1))).time >= last


@pytest.mark.parametrize("format", FORMATS)
def test_what_came_since(store, format):
    with es.Store(":memory:") as target:
        assert target.import_(io.BytesIO(exported(store, format, upto=7)), format=format) == 7
        rest = exported(store, format, after=7)
        assert target.import_(io.BytesIO(rest), format=format) == 2499
        assert same(store, target)
    with es.Store(":memory:") as target, pytest.raises(es.Conflict, match="after position 7"):
        target.import_(io.BytesIO(rest), format=format)


def test_lines_of_json_are_for_people_as_well(store):
    first, schema, event, *_, last = exported(store, "jsonl", upto=3).splitlines()
    assert json.loads(first) == {"export": 1, "after": 0, "upto": 3}
    assert json.loads(schema)["schema"]["type"] == "transfer.Added"
    told = json.loads(event)["event"]
    assert (told["stream"], told["version"], told["metadata"]) == ("a", 1, {})
    assert json.loads(last) == {"end": 3}


def test_what_does_not_continue_the_history_is_refused(store):
    data = exported(store, "jsonl")
    with es.Store(":memory:") as target:
        target.append("a", [Added("x")])
        with pytest.raises(es.Conflict, match="another event at position 1"):
            target.import_(io.BytesIO(data))
        assert target.head == 1
    lines = data.splitlines(keepends=True)
    with es.Store(":memory:") as target:
        with pytest.raises(es.Conflict, match="position 3 does not follow position 1"):
            target.import_(io.BytesIO(b"".join(lines[:3] + lines[4:])))
        assert target.head == 0
        with pytest.raises(es.WrongVersion):
            target.import_(
                io.BytesIO(data.replace(b'"stream":"a","version":5', b'"stream":"b","version":5'))
            )
        with pytest.raises(ValueError, match="the time of an event is"):
            target.import_(io.BytesIO(data.replace(b'"time":"20', b'"time":"21', 1)))
        assert target.head == 0
        target.append("a", [Added("x")])
        assert next(iter(target.events())).time.year < 2100
    with es.Store(":memory:", Other) as target, pytest.raises(es.SchemaMismatch):
        target.import_(io.BytesIO(data))


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_cut_short_is_an_error_and_goes_on_later(store, format):
    data = exported(store, format)
    for size in (0, 1, 20, len(data) // 2, len(data) - 2):
        with es.Store(":memory:") as target:
            with pytest.raises((ValueError, es.Corrupt)):
                target.import_(io.BytesIO(data[:size]), format=format)
            stored = target.head
            assert target.import_(io.BytesIO(data), format=format) == 2506 - stored
            assert same(store, target)


def test_what_is_no_export(tmp_path):
    with es.Store(":memory:") as store:
        nine = b'{"export":9,"after":0,"upto":0}\n'
        for data in (b"{}\n", b"[]\n", b"nothing\n", nine, b"[" * 200_000):
            with pytest.raises(ValueError, match=r"export|line 1"):
                store.import_(io.BytesIO(data))
        with pytest.raises(ValueError, match="format is"):
            store.export(tmp_path / "x", format="xml")
        store.append("a", [raw()])
        (tmp_path / "x").touch()
        with pytest.raises(FileExistsError):
            store.export(tmp_path / "x")


def test_a_failed_export_leaves_no_file(store, tmp_path):
    path = Path(tmp_path / "x")
    store.append("c", [raw() for _ in range(6000)])

    def stop(position: int, last: int) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        store.export(path, progress=stop)
    assert not path.exists()


def test_nobody_else_may_write_meanwhile(store):
    data = exported(store, "jsonl")
    with es.Store(":memory:") as target:

        class Slow(io.BytesIO):
            def __next__(self) -> bytes:
                if self.tell() > len(data) // 2 and target.version("z") == 0:
                    target.append("z", [raw()])
                return super().__next__()

        with pytest.raises(es.Conflict):
            target.import_(Slow(data))


def test_a_provider_of_ones_own_exports(store, tmp_path):
    class Own(es.Store):
        def events(self, **options):
            return store.events(**options)

    with Own(":memory:") as own:
        own.export(tmp_path / "x", upto=0)
        with pytest.raises(TypeError, match="Own"):
            own.import_(tmp_path / "x")
