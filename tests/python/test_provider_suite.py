"""escqrs.testing.ProviderSuite on the stores of the project, and es.Recorded made in Python."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType

import escqrs as es
import pytest
from escqrs.testing import ProviderSuite

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "provider.py"


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("provider_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestFile(ProviderSuite):
    persistent = True

    def open(self, folder):
        return es.Store(folder / "s.db")


class TestMemory(ProviderSuite):
    def open(self, folder):
        return es.Store(":memory:")


class TestExample(ProviderSuite):
    def open(self, folder):
        return example().ListStore()


class Passing(es.Store):
    """A provider that can delete: it passes everything on."""

    def __init__(self):
        self.inner = es.Store(":memory:")
        for name in (
            *("history", "events", "version", "checkpoint", "save_snapshot", "snapshot"),
            *("delete_snapshots", "truncated", "deleted"),
        ):
            setattr(self, name, getattr(self.inner, name))

    def commit(self, writes, **options):
        return self.inner.commit(
            [
                es.Write(w.stream, [self.inner.new_event(e) for e in w.events], w.expected)
                for w in writes
            ],
            **options,
        )

    def events(self, **options):
        return self.inner.events(**options)

    def restart(self):
        self.inner.restart()

    def truncate(self, stream, upto, *, force=False):
        return self.inner.truncate(stream, upto, force=force)

    def delete(self, stream):
        return self.inner.delete(stream)

    @property
    def head(self):
        return self.inner.head

    def close(self):
        self.inner.close()


class TestPassing(ProviderSuite):
    def open(self, folder):
        return Passing()


def test_the_example_runs(capsys):
    example().main()
    out = capsys.readouterr().out
    assert "refused: stream notes is at version 1, not 0" in out
    assert "Noted(text='kept in a list')" in out
    assert "no problems" in out


# ---- es.Recorded ---------------------------------------------------------------------------------


class Noted(es.Event, name="suite.Noted"):
    text: str


TIME = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)


def make(**options: object) -> es.Recorded:
    given = {"position": 7, "stream": "a", "version": 2, "type": "Thing", "time": TIME,
             "id": "mine", "data": b"x"}  # fmt: skip
    return es.Recorded(**{**given, **options})


def test_recorded_says_what_it_was_given():
    made = make(metadata={"k": "v"}, tags=["t"], correlation_id="r", causation_id="c")
    assert (made.position, made.stream, made.version, made.type) == (7, "a", 2, "Thing")
    assert (made.time, made.id, made.data) == (TIME, "mine", b"x")
    assert (made.correlation_id, made.causation_id) == ("r", "c")
    assert (dict(made.metadata), made.tags) == ({"k": "v"}, ("t",))
    assert "position=7" in repr(made)
    plain = make(correlation_id=None)
    assert (plain.correlation_id, plain.causation_id) == ("mine", "mine")
    assert (dict(plain.metadata), plain.tags) == ({}, ())


def test_recorded_are_compared():
    assert make() == make()
    assert hash(make()) == hash(make())
    for other in (make(id="other"), make(data=b"y"), make(position=8), make(stream="b")):
        assert make() != other
    east = TIME.astimezone(timezone(timedelta(hours=5)))
    assert make(time=east) == make()
    with es.Store(":memory:") as store:
        store.append("a", [es.NewEvent("Thing", b"x", id="mine")])
        (stored,) = store.events()
        assert stored == make(position=1, version=1, time=stored.time)
        assert stored != make(position=1, version=1, time=stored.time, id="other")


def test_recorded_decodes_with_the_classes_of_a_store():
    packed = es.to_bytes(Noted("x"))
    with pytest.raises(es.UnknownType):
        _ = make(type="suite.Noted", data=packed).event
    with es.Store(":memory:", Noted) as store:
        assert make(type="suite.Noted", data=packed, store=store).event == Noted("x")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"position": 0}, ValueError),
        ({"version": 0}, ValueError),
        ({"time": datetime(2024, 1, 1)}, TypeError),
        ({"time": 3}, TypeError),
        ({"data": "x"}, TypeError),
        ({"stream": b"x"}, TypeError),
        ({"tags": [1]}, TypeError),
        ({"metadata": 1}, TypeError),
        ({"metadata": {"k": 1}}, TypeError),
        ({"causation_id": 1}, TypeError),
        ({"store": object()}, TypeError),
        ({"other": 1}, TypeError),
    ],
)
def test_what_recorded_refuses(wrong, error):
    with pytest.raises(error):
        make(**wrong)
    with pytest.raises(TypeError):
        es.Recorded(1, "a")
