"""Actors in C, without Python: messages, lives, Skynet; beside protoactor-go on the same machine.

The peer is a Go module, `tests/bench/peers`; it is measured where `go` is found. One thread runs
all but many-to-one and Skynet, on both sides.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from measure import BUILD, Figures, NotAvailable

PEER = Path(__file__).parents[1] / "peers"


def answer_of(command: list[str]) -> Figures:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0 or not done.stdout:
        raise NotAvailable(done.stderr.strip()[-200:])
    figures: Figures = json.loads(done.stdout)
    return figures


def floor(folder: Path, part: float) -> Figures:
    return {}


def ours(folder: Path, part: float) -> Figures:
    program = BUILD / "actors"
    if not program.exists():
        raise NotAvailable("make benches-c compiles the program that measures actors")
    return answer_of([str(program), "--json", str(part)])


def peer(folder: Path, part: float) -> Figures:
    go = shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin")
    if go is None:
        raise NotAvailable("no Go on this machine: protoactor-go is not measured")
    program = BUILD / "protoactor"
    built = subprocess.run(
        [go, "build", "-o", str(program), "."], cwd=PEER, capture_output=True, text=True
    )
    if built.returncode != 0:
        raise NotAvailable(f"go build: {built.stderr.strip()[-200:]}")
    return answer_of([str(program), str(part)])
