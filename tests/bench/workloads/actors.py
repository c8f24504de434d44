"""Actors in C, without Python: messages, lives, Skynet; beside protoactor-go, Erlang and CAF.

The peers are in `tests/bench/peers`; each is measured where `go`, `erl` or CAF's headers are found,
and why one is not is said on the standard error.
One thread runs all but many-to-one, Skynet and the lines that say so, on all sides.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from measure import BUILD, Figures, NotAvailable

PEERS = Path(__file__).parents[1] / "peers"
PEER_PART = 0.2  # of the counts in their sources: enough for a rate, and they take turns with us
SECONDS_MAX = 150  # of a peer's program, so that all of a side end within run.py's limit


def answer_of(command: list[str], seconds_max: int = SECONDS_MAX) -> Figures:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds_max)
    except subprocess.TimeoutExpired:
        raise NotAvailable(f"{command[0]}: no end within {seconds_max} s") from None
    if done.returncode != 0 or not done.stdout:
        raise NotAvailable((done.stderr or done.stdout).strip()[-200:])
    figures: Figures = json.loads(done.stdout)
    return figures


def compiled(peer: str, command: list[str]) -> None:
    built = subprocess.run(command, cwd=PEERS / peer, capture_output=True, text=True)
    if built.returncode != 0:
        raise NotAvailable(f"{command[0]}: {(built.stderr or built.stdout).strip()[-200:]}")


def floor(folder: Path, part: float) -> Figures:
    return {}


def ours(folder: Path, part: float) -> Figures:
    program = BUILD / "actors"
    if not program.exists():
        raise NotAvailable("make benches-c compiles the program that measures actors")
    return answer_of([str(program), "--json", str(part)], 4 * SECONDS_MAX)


def protoactor(part: float) -> Figures:
    go = shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin")
    if go is None:
        raise NotAvailable("no Go on this machine: protoactor-go is not measured")
    program = BUILD / "protoactor"
    compiled("protoactor", [go, "build", "-o", str(program), "."])
    return answer_of([str(program), str(part)])


def erlang(part: float) -> Figures:
    if shutil.which("erlc") is None:
        raise NotAvailable("no Erlang on this machine (Debian: erlang-base)")
    compiled("erlang", ["erlc", "-o", str(BUILD), "actors.erl"])
    figures: Figures = {}
    for which, schedulers in (("one", ["+S", "1:1"]), ("all", [])):
        call = f"actors:main({which}, {part})"
        figures |= answer_of(["erl", "-noinput", *schedulers, "+P", "2000000", "-pa", str(BUILD),
                              "-eval", call, "-s", "erlang", "halt"])  # fmt: skip
    return figures


def caf(part: float) -> Figures:
    if not Path("/usr/include/caf/all.hpp").exists():
        raise NotAvailable("no CAF on this machine (Debian: libcaf-dev)")
    program = BUILD / "caf"
    source = PEERS / "caf" / "actors.cpp"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiled("caf", ["g++", "-std=c++17", "-O2", "-o", str(program), source.name,
                         "-lcaf_core", "-pthread"])  # fmt: skip
    figures: Figures = {}
    for which in ("one", "all"):
        figures |= answer_of([str(program), which, str(part)])
    return figures


def peer(folder: Path, part: float) -> Figures:
    figures: Figures = {}
    reasons = []
    for measure in (protoactor, erlang, caf):
        try:
            figures |= measure(part * PEER_PART)
        except NotAvailable as reason:
            reasons.append(str(reason))
    if not figures:
        raise NotAvailable("; ".join(reasons))
    for reason in reasons:
        print(reason, file=sys.stderr)
    return figures
