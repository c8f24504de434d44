"""What the tests share: processes of their own, and waiting without sleeping."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SECONDS = 120.0  # that anything may take before a test gives up: a busy machine is slow

PRELUDE = """\
import os, sys, signal, threading, time
import escqrs as es

class Add(es.Command[int]):
    amount: int

class Block(es.Command[None]):
    pass

class Spawn(es.Command[None]):
    to: str

class Added(es.Event):
    amount: int

# as at a terminal, though what runs the tests may ignore it, as shells do in the background
signal.signal(signal.SIGINT, signal.default_int_handler)

entered = threading.Event()
release = threading.Event()

class Counter(es.Aggregate):
    total: int

    @es.handles
    def add(self, cmd: Add) -> int:
        self.emit(Added(cmd.amount))
        return self.total

    @es.handles
    def block(self, cmd: Block) -> None:
        entered.set()
        release.wait()

    @es.handles
    def spawn(self, cmd: Spawn) -> None:
        self.emit(Added(1))
        self.system[Counter, cmd.to].tell(Add(7))

    @es.applies
    def added(self, event: Added) -> None:
        self.total += event.amount

"""


def script(code: str) -> str:
    return PRELUDE + textwrap.dedent(code)


def start(
    code: str, *arguments: object, warnings: str = "error", **options: object
) -> subprocess.Popen[str]:
    """A process that runs the prelude and then `code`, whose arguments are sys.argv[1:]."""
    return subprocess.Popen(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-W",
            warnings,
            "-c",
            script(code),
            *map(str, arguments),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        **options,  # type: ignore[call-overload]
    )


def finish(
    process: subprocess.Popen[str], status: int | None = 0, seconds: float = SECONDS
) -> tuple[str, str]:
    """(stdout, stderr) of a process that has to end with that status; killed if it does not."""
    try:
        out, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, error = process.communicate()
        raise AssertionError(f"the process did not end in {seconds} s:\n{out}\n{error}") from None
    assert status is None or process.returncode == status, f"{process.returncode}\n{out}\n{error}"
    return out, error


def run(
    code: str, *arguments: object, status: int | None = 0, warnings: str = "error"
) -> tuple[str, str]:
    return finish(start(code, *arguments, warnings=warnings), status)


def until(condition: Callable[[], object]) -> None:
    """Let others run until it is true."""
    last = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < last, "it did not come to that"
        time.sleep(0)


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {
        str(one.relative_to(path)): one.read_bytes()
        for one in sorted(path.rglob("*"))
        if one.is_file()
    }


ALLOCATIONS = """\
import _testcapi, sys

sys.path.insert(0, sys.argv[1])
{code}
work()
failed = 0
for n in range(1, {tries}):
    _testcapi.set_nomemory(n, n + 1)
    try:
        work()
    except MemoryError:
        failed += 1
    finally:
        _testcapi.remove_mem_hooks()
work()
print("failed often" if failed > 100 else failed)
"""


def fail_allocations(code: str, tries: int) -> None:
    """Every allocation of Python fails once in `work()`, which `code` defines: MemoryError, and the
    next try is as good as ever. `code` may import what stands beside the tests."""
    pytest.importorskip("_testcapi")
    program = ALLOCATIONS.format(code=code, tries=tries)
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.stdout == "failed often\n", done.stderr
