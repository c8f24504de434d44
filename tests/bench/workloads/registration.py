"""examples/registration over HTTP: users registered from 16 connections, each answer durable, and a
page of 100 among 1,000 users. Server and client share the machine's processors."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from measure import ROOT, Figures, NotAvailable, stopwatch

CONNECTIONS = 16
USERS = 12_000
PAGES = 4_000


def request(number: int) -> bytes:
    body = json.dumps({"username": f"u{number}", "email": f"u{number}@example.org"}).encode()
    head = "POST /user/registration HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200"), head
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return await reader.readexactly(length)


async def run(port: int, requests: list[bytes]) -> float:
    """Send them all, each connection one after the other; return how many a second."""
    waiting = iter(requests)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for one in waiting:
            writer.write(one)
            await answer(reader)
        writer.close()

    with stopwatch() as watch:
        await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return len(requests) / watch.seconds


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise NotAvailable("the example's server does not start; it needs its extra")


def floor(folder: Path, part: float) -> Figures:
    return {}


def ours(folder: Path, part: float) -> Figures:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "examples.registration",
            "--port",
            str(port),
            "--folder",
            str(folder),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    try:
        wait_for(port, server)
        asyncio.run(run(port, [request(number) for number in range(1000)]))
        page = b"GET /users?limit=100 HTTP/1.1\r\nHost: x\r\n\r\n"
        pages = asyncio.run(run(port, [page] * max(100, int(PAGES * part))))
        users = [request(number) for number in range(1000, 1000 + int(USERS * part))]
        return {"pages": pages, "users": asyncio.run(run(port, users))}
    finally:
        server.kill()
        server.wait()


def peer(folder: Path, part: float) -> Figures:
    return {}
