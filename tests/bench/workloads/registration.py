"""examples/registration over HTTP: users registered from 16 connections, each answer durable, and a
page of 100 among 1,000 users. Server and client share the machine's processors."""

from __future__ import annotations

import itertools
import json
import os
import select
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


class Connection:
    """One that has sent a request and reads the answer."""

    def __init__(self, port: int, first: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.socket.sendall(first)

    def is_answered(self) -> bool:
        """Read what is there; whether that was the rest of the answer, which has to be a 200."""
        self.received += self.socket.recv(1 << 16)
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            assert self.received, "the server has closed the connection"
            return False
        head = head.lower()
        assert head.startswith(b"http/1.1 200"), self.received
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return False
        self.received = b""
        return True


def run(port: int, requests: list[bytes]) -> float:
    """Send them all, each connection one after the other; return how many a second.

    The client is as cheap as can be, as it takes its time from the server: no event loop, requests
    made beforehand, answers looked at no more than is needed to find their end.
    """
    waiting = iter(requests)
    with stopwatch() as watch, select.epoll() as poll:
        connections: dict[int, Connection] = {}
        for first in itertools.islice(waiting, CONNECTIONS):
            connection = Connection(port, first)
            connections[connection.socket.fileno()] = connection
            poll.register(connection.socket.fileno(), select.EPOLLIN)
        while connections:
            for number, _ in poll.poll():
                connection = connections[number]
                if not connection.is_answered():
                    continue
                following = next(waiting, None)
                if following is not None:
                    connection.socket.sendall(following)
                else:
                    connections.pop(number).socket.close()
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
        run(port, [request(number) for number in range(1000)])
        page = b"GET /users?limit=100 HTTP/1.1\r\nHost: x\r\n\r\n"
        pages = run(port, [page] * max(100, int(PAGES * part)))
        users = [request(number) for number in range(1000, 1000 + int(USERS * part))]
        return {"pages": pages, "users": run(port, users)}
    finally:
        server.kill()
        server.wait()


def peer(folder: Path, part: float) -> Figures:
    return {}
