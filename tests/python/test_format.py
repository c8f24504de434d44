"""A file of every released format is kept in tests/data: it opens, verifies, says what it said, and
goes on."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import escqrs as es
import pytest

DATA = Path(__file__).parents[1] / "data"
FILES = sorted(DATA.glob("format-*.db"))


def load_maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_format", DATA / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


maker = load_maker()


@pytest.fixture(params=FILES, ids=[path.stem for path in FILES])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kept: Path = request.param
    copy = tmp_path / kept.name
    shutil.copy(kept, copy)
    copy.chmod(0o644)
    return copy


def expected(path: Path) -> dict[str, Any]:
    return json.loads((DATA / path.name).with_suffix(".json").read_text())


def number_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute("PRAGMA user_version").fetchone()[0]


def test_this_format_is_among_them(tmp_path: Path) -> None:
    with es.Store(tmp_path / "new.db"):
        pass
    assert f"format-{number_of(tmp_path / 'new.db')}" in [path.stem for path in FILES]


def test_it_says_what_it_said(path: Path) -> None:
    assert f"format-{number_of(path)}" == path.stem
    assert maker.told(path) == expected(path)
    with es.Store(path, readonly=True) as store:
        found = store.verify()
    assert found.ok, repr(found)
    assert (found.events, found.read_models) == (len(expected(path)["events"]), 1)
    assert found.links == found.events


def test_it_goes_on(path: Path) -> None:
    before = expected(path)
    with es.open(path, maker.Account, maker.Balances) as shop:
        ann = shop[maker.Account, "ann"]
        balance = 15 + maker.STREAM_EVENTS
        assert (ann.state.owner, ann.state.balance) == ("ann", balance)
        assert ann.ask(maker.Open("eve"), key="opening") == "ann"  # its key was used
        assert ann.ask(maker.Move(1)) == balance + 1
        assert ann.version == before["streams"]["data.Account/ann"] + 1
        assert next(iter(ann.history())).event == maker.Opened("ann", 100)
        shop.flush()
        assert shop[maker.Balances].all() == [
            ("data.Account/ann", balance + 1),
            ("data.Account/bob", 15),
        ]
        again = [es.NewEvent("Raw", b"\x00\xff", id="my-id", tags=["room-7", "vip"])]
        with pytest.raises(es.KeyReused):
            shop.store.append("raw/x", again)
        with pytest.raises(es.ConditionFailed):
            shop.store.append(
                "raw/x",
                [es.NewEvent("Raw", b"")],
                condition=es.Unless(es.Match(tags=["room-7"])),
            )
        assert shop.store.append("shorter", [es.NewEvent("Raw", b"x")]).versions == {
            "shorter": before["streams"].get("shorter", 0) + 1
        }
        assert shop.store.verify().ok
        shop.store.truncate("raw/é", 1, force=True)  # a file of an older format gets what it needs
        assert shop.store.verify().ok
    after = maker.told(path)
    before["events"] = [one for one in before["events"] if one["id"] != "my-id"]
    assert after["events"][: len(before["events"])] == before["events"]
