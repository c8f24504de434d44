"""The .proto text of stores whose events were written by several versions of a program."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import escqrs as es
import pytest


def versions(path: Path, *programs: Callable[[Path], None]) -> str:
    """What is printed of a file that these have written, one after the other."""
    for program in programs:
        program(path)
    with es.Store(path, readonly=True) as store:
        return store.proto()


def write(path: Path, *events: es.Event, given: tuple[Any, ...] = ()) -> None:
    with es.Store(path, *dict.fromkeys(type(one) for one in events), *given) as store:
        store.append("a", events)


def block(text: str, message: str) -> list[str]:
    """The lines of a message that nests none."""
    inside = text.split(f"message {message} {{\n")[1].split("}")[0]
    return [line.strip() for line in inside.splitlines()]


def test_a_nested_message_that_one_type_alone_was_written_with_again(tmp_path: Path) -> None:
    def first(path: Path) -> None:
        class Money(es.Message, name="shop.Money"):
            amount: int
            note: str

        class Paid(es.Event, name="shop.Paid"):
            price: Money

        class Refunded(es.Event, name="shop.Refunded"):
            price: Money

        write(path, Paid(Money(1, "x")), Refunded(Money(2, "y")))

    def second(path: Path) -> None:
        class Money(es.Message, name="shop.Money", reserved=(2, "note")):
            amount: int
            currency: str = "EUR"

        class Refunded(es.Event, name="shop.Refunded"):
            price: Money
            reason: str = ""

        write(path, Refunded(Money(3, "USD"), "broken"))

    text = versions(tmp_path / "s.db", first, second)
    assert block(text, "Money") == [
        "optional int64 amount = 1;",
        "optional string note = 2;",
        "optional string currency = 3;",
    ]
    assert block(text, "Paid") == ["optional .shop.Money price = 1;"]
    assert block(text, "Refunded") == [
        "optional .shop.Money price = 1;",
        "optional string reason = 2;",
    ]


def test_an_enum_with_a_member_more_is_one(tmp_path: Path) -> None:
    def first(path: Path) -> None:
        class Color(enum.Enum):
            RED = 1

        class Painted(es.Event, name="shop.Painted"):
            color: Color

        class Sprayed(es.Event, name="shop.Sprayed"):
            color: Color

        write(path, Painted(Color.RED), Sprayed(Color.RED))

    def second(path: Path) -> None:
        class Color(enum.Enum):
            RED = 1
            BLUE = 3

        class Sprayed(es.Event, name="shop.Sprayed"):
            color: Color

        write(path, Sprayed(Color.BLUE))

    text = versions(tmp_path / "s.db", first, second)
    assert text.count("enum ") == 1
    assert "COLOR_BLUE = 3;" in text


def test_what_was_another_type_is_kept_apart(tmp_path: Path) -> None:
    def first(path: Path) -> None:
        class Money(es.Message, name="shop.Money"):
            amount: int

        class Price(es.Message, name="shop.Price"):
            money: Money

        class Paid(es.Event, name="shop.Paid"):
            price: Price

        class Refunded(es.Event, name="shop.Refunded"):
            price: Price

        write(path, Paid(Price(Money(1))), Refunded(Price(Money(2))))

    def second(path: Path) -> None:
        class Money(es.Message, name="shop.Money"):
            amount: str

        class Price(es.Message, name="shop.Price"):
            money: Money

        class Refunded(es.Event, name="shop.Refunded", version=2):
            price: Price

        @es.upcast("shop.Refunded", version=1)
        def as_text(event: dict[str, Any]) -> dict[str, Any]:
            return {"price": {"money": {"amount": str(event["price"]["money"]["amount"])}}}

        write(path, Refunded(Price(Money("3"))), given=(as_text,))

    text = versions(tmp_path / "s.db", first, second)
    assert block(text, "Refunded") == ["optional .shop.Price price = 1;"]
    assert block(text, "Paid") == ["optional .shop.Price_2 price = 1;"]


def test_the_command_line(tmp_path: Path) -> None:
    def run(given: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "escqrs", "proto", str(given)]
        return subprocess.run(command, capture_output=True, text=True)

    path = tmp_path / "raw.db"
    with es.Store(path) as store:
        store.append("a", [es.NewEvent("raw", b"x")])
    done = run(path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{path}: no event has a schema\n"
    done = run(tmp_path / "other.db")
    assert (done.returncode, done.stdout) == (2, "")
    assert "other.db: no such file" in done.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this"),
        ("def broken(:", "SyntaxError: "),
        ("raise ZeroDivisionError('planted')", "ZeroDivisionError: planted"),
        ("None.planted", "AttributeError: 'NoneType' object has no attribute 'planted'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(
    tmp_path: Path, source: str, said: str
) -> None:
    (tmp_path / "planted_shop.py").write_text(f"\n{source}\n")
    command = [sys.executable, "-m", "escqrs", "proto", "planted_shop:Item"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "planted_shop:Item: " + said in last
    assert "planted_shop.py, line 2)" in last
