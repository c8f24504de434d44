"""The example of users who register, through HTTP, against the running server."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import SECONDS

ROOT = Path(__file__).resolve().parents[2]
REPLY_SECONDS = 100.0  # of the server here: its own limit is for people
PROGRAM = """
from examples.registration import __main__, web
web.REPLY_SECONDS = {}
__main__.main()
"""
RUNNING = re.compile(rb"Uvicorn running on http://127\.0\.0\.1:(\d+) ")


class Server:
    """The example in a process of its own."""

    def __init__(
        self,
        folder: Path,
        file_bytes_max: int | None = None,
        reply_seconds: float = REPLY_SECONDS,
    ) -> None:
        def limit() -> None:
            if file_bytes_max is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))

        self.hurried = reply_seconds < REPLY_SECONDS
        self.log = folder.with_suffix(".log")
        said_before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    PROGRAM.format(reply_seconds),
                    "--port",
                    "0",
                    "--folder",
                    str(folder),
                ],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                preexec_fn=limit,
            )
        while not (found := RUNNING.search(self.log.read_bytes(), said_before)):
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        self.port = int(found[1])

    def call(
        self, method: str, path: str, body: Any = None, media_type: str | None = None
    ) -> tuple[int, Any, str]:
        """Return status, decoded body and media type; a connection for each call."""
        with Client(self) as client:
            return client.call(method, path, body, media_type)

    def get(self, path: str) -> tuple[int, Any, str]:
        return self.call("GET", path)

    def post(self, body: Any, media_type: str | None = "application/json") -> tuple[int, Any, str]:
        return self.call("POST", "/user/registration", body, media_type)

    def register(self, name: str, email: str | None = None) -> tuple[int, Any]:
        return self.post({"username": name, "email": email or f"{name}@example.org"})[:2]

    def all_users(self, limit: int = 100) -> list[dict[str, Any]]:
        """Follow the links from the newest to the oldest."""
        users, path = [], f"/users?limit={limit}"
        while True:
            status, page, _ = self.get(path)
            if status == 503 and self.hurried:  # it took longer
                continue
            assert status == 200
            assert page["count"] == len(page["_embedded"]["users"])
            users += page["_embedded"]["users"]
            if "next" not in page["_links"]:
                assert page["total"] == len(users)
                return users
            path = page["_links"]["next"]["href"]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(SECONDS)


class Client:
    """One connection."""

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def register(self, name: str) -> tuple[int, Any]:
        body = {"username": name, "email": f"{name}@example.org"}
        return self.call("POST", "/user/registration", body, "application/json")[:2]

    def call(
        self, method: str, path: str, body: Any = None, media_type: str | None = None
    ) -> tuple[int, Any, str]:
        headers = {} if media_type is None else {"Content-Type": media_type}
        text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        self.connection.request(method, path, text, headers)
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers.get_content_type()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data")
    yield server
    server.stop()
    assert server.process.returncode in (0, -signal.SIGTERM), server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_register_and_read(server: Server) -> None:
    status, page, media_type = server.get("/users")
    assert (status, media_type) == (200, "application/hal+json")
    assert page["_embedded"]["users"] == [] and page["total"] == 0
    status, answer = server.register("ann")
    assert status == 200 and list(answer) == ["user_id"]
    status, page, _ = server.get("/users")
    assert page["count"] == page["total"] == 1
    (user,) = page["_embedded"]["users"]  # a list for one as well
    assert (user["id"], user["name"], user["email"]) == (
        answer["user_id"],
        "ann",
        "ann@example.org",
    )
    assert user["created_at"].startswith("20")
    status, same, media_type = server.get(user["_links"]["self"]["href"])
    assert (status, media_type) == (200, "application/hal+json")
    assert same == user
    assert server.get("/users/nobody")[0] == 404
    assert server.register("other", "ANN@example.ORG") == (400, {"Message": "user already exists"})
    assert server.get("/")[0] == 200


FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
WRONG: list[tuple[Any, list[str]]] = [
    ({}, ["username is missing", "email is missing"]),
    ({"username": "ann"}, ["email is missing"]),
    ({"username": "", "email": "a@b"}, ["username is missing"]),
    ({"username": 7, "email": ["x"]}, ["username is not a text", "email is not a text"]),
    ({"username": "ann", "email": "nowhere"}, ["email is not an e-mail address"]),
    ({"username": "ann", "email": "ann@example..org"}, ["email is not an e-mail address"]),
    ({"username": "ann", "email": "ann@.org"}, ["email is not an e-mail address"]),
    ({"username": "ann", "email": "ann@example.org."}, ["email is not an e-mail address"]),
    ({"username": "a\x00b", "email": "a@b"}, ["username is not a readable text"]),
    ({"username": "a" * 300, "email": "a@b"}, ["username has more than 254 bytes"]),
    ({"username": "ann", "email": "🌍" * 100 + "@b"}, ["email has more than 254 bytes"]),
    ({"username": "ann", "email": "Ⱥ" * 125 + "@b"}, ["email has more than 254 bytes"]),
    ("", ["username is missing", "email is missing"]),
    ("{", ["not JSON"]),
    ("[" * 50_000, ["not JSON"]),
    ("[]", ["not a JSON object"]),
    (b'{"username": "\xff"}', ["not JSON"]),
]


def test_what_is_wrong_is_named(server: Server) -> None:
    for body, wrong in WRONG:
        status, answer, _ = server.post(body)
        assert status == 400 and list(answer) == ["message"], (body, answer)
        assert all(text in answer["message"] for text in wrong), (body, answer)
    for text in ("username=a&email=%FF@b", b"username=\xff&email=a@b"):
        status, answer, _ = server.post(text, FORM)
        assert (status, answer) == (400, {"message": "the body is not a form in UTF-8"})
    for media_type in ("multipart/form-data", "multipart/form-data; boundary=x"):
        status, answer, _ = server.post("nothing", media_type)
        assert status == 400 and "not a form" in answer["message"]
    assert server.get("/users")[1]["total"] == 0


def test_an_address_of_any_letters(server: Server) -> None:
    long = "ä" * 121 + "@example.org"
    for number, email in enumerate(["a/b?c#d%&'\"@x", "straße@x", "strasse@x", "İ@x", long]):
        assert server.register(f"u{number}", email)[0] == 200
    assert server.register("again", "STRAßE@X")[0] == server.register("again", long)[0] == 400
    assert {"straße@x", "strasse@x", long} < {user["email"] for user in server.all_users()}


def test_media_types(server: Server) -> None:
    assert server.post("username=bo&email=bo%40example.org", FORM)[0] == 200
    multipart = (
        '--x\r\nContent-Disposition: form-data; name="username"\r\n\r\ncy\r\n'
        '--x\r\nContent-Disposition: form-data; name="email"\r\n\r\ncy@example.org\r\n--x--\r\n'
    )
    assert server.post(multipart, "multipart/form-data; boundary=x")[0] == 200
    assert (
        server.post('{"username": "di", "email": "d@i"}', "application/json; charset=utf-8")[0]
        == 200
    )
    assert [user["name"] for user in server.all_users()] == ["di", "cy", "bo"]
    assert server.post("<user/>", "application/xml")[0] == 415
    assert server.post("x", None)[0] == 415
    assert server.post("username=" + "x" * 100_000, FORM)[0] == 413
    large = multipart.replace("cy@", "cy" * 50_000 + "@")
    assert server.post(large, "multipart/form-data; boundary=x")[0] == 413
    assert server.call("DELETE", "/users")[0] == 405


def test_pages(server: Server) -> None:
    with Client(server) as client:
        for number in range(25):
            assert client.register(f"u{number}")[0] == 200
    names = [f"u{number}" for number in reversed(range(25))]
    assert [user["name"] for user in server.all_users(limit=7)] == names
    status, first, _ = server.get("/users?limit=10")
    assert status == 200 and first["count"] == 10 and first["total"] == 25
    assert first["_links"]["self"]["href"] == "/users?limit=10" and "prev" not in first["_links"]
    _, second, _ = server.get(first["_links"]["next"]["href"])
    _, third, _ = server.get(second["_links"]["next"]["href"])
    assert third["count"] == 5 and "next" not in third["_links"]
    assert server.get(third["_links"]["prev"]["href"])[1]["_embedded"] == second["_embedded"]
    assert server.get(second["_links"]["prev"]["href"])[1]["_embedded"] == first["_embedded"]
    _, none, _ = server.get("/users?limit=10&after=1000000")  # a client that waits for newer ones
    assert none["count"] == 0 and "prev" not in none["_links"]
    assert server.get(none["_links"]["next"]["href"])[1]["_embedded"] == first["_embedded"]
    _, none, _ = server.get("/users?limit=10&before=1")
    assert none["count"] == 0 and "next" not in none["_links"]
    assert server.get(none["_links"]["prev"]["href"])[1]["_embedded"] == first["_embedded"]
    for bad in ("limit=0", "limit=101", "limit=x", "limit=-1", "before=x", "limit=%C2%B2"):
        assert server.get(f"/users?{bad}")[0] == 400, bad


def test_answers_of_many_clients_are_their_own(server: Server) -> None:
    def work(number: int) -> list[tuple[str, str]]:
        found = []
        with Client(server) as client:
            for name in (f"n{number}-{i}" for i in range(20)):
                status, answer = client.register(name)
                assert status == 200, answer
                found.append((answer["user_id"], name))
        return found

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        expected = dict(pair for pairs in pool.map(work, range(16)) for pair in pairs)
    assert len(expected) == 320
    assert {user["id"]: user["name"] for user in server.all_users()} == expected


def test_one_address_at_once(server: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: server.register(f"u{n}", "same@example.org"), range(16)))
    assert sorted(status for status, _ in answers) == [200] + [400] * 15
    assert len(server.all_users()) == 1


def test_what_was_answered_survives_kills(tmp_path: Path) -> None:
    known: dict[str, str] = {}
    lock = threading.Lock()

    def work(server: Server, prefix: str) -> None:
        with Client(server) as client:
            for name in (f"{prefix}-{number}" for number in range(100_000)):
                try:
                    status, answer = client.register(name)
                except (OSError, http.client.HTTPException):
                    return  # killed
                assert status == 200, answer
                with lock:
                    known[answer["user_id"]] = name

    for round_number in range(3):
        server = Server(tmp_path / "data")
        found = {user["id"]: user["name"] for user in server.all_users()}
        assert known.items() <= found.items()
        known |= found  # stored, but its answer was lost
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            done = [pool.submit(work, server, f"r{round_number}-{n}") for n in range(4)]
            while len(known) < (round_number + 1) * 60:
                assert not any(one.done() for one in done), server.log.read_text()
                time.sleep(0.01)
            server.stop(signal.SIGKILL)
            for one in done:
                one.result(SECONDS)
    server = Server(tmp_path / "data")
    found = {user["id"]: user["name"] for user in server.all_users()}
    assert known.items() <= found.items()
    name = next(iter(found.values()))
    assert server.register(name) == (400, {"Message": "user already exists"})
    server.stop()


def test_a_full_disk_is_no_answer(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", file_bytes_max=300_000)
    answers = [server.register(f"u{number}") for number in range(400)]
    server.stop()
    statuses = {status for status, _ in answers}
    assert statuses == {200, 503}
    for status, answer in answers:
        assert "user_id" in answer if status == 200 else "try again" in answer["message"]
        assert "disk" not in str(answer) and "SQL" not in str(answer)
    assert any("could not be stored" in str(answer) for _, answer in answers)
    server = Server(tmp_path / "data")
    stored = {user["id"] for user in server.all_users()}
    assert stored >= {answer["user_id"] for status, answer in answers if status == 200}
    refused = next(n for n, (status, _) in enumerate(answers) if status == 503)
    assert server.register(f"u{refused}")[0] in (200, 400)
    server.stop()


PATIENCE = """
import asyncio, json, types
import escqrs as es
from examples.registration import web

async def main():
    body = json.dumps({"username": "ann", "email": "ann@example.org"}).encode()
    heads = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/user/registration", "headers": heads}
    sent = []
    async def receive():
        return {"type": "http.request", "body": body}
    async def send(message):
        sent.append(message)
    with es.ActorSystem() as system, system.stream() as nobody:
        app = web.create(None)
        app.state.application = types.SimpleNamespace(system=system, registrations=nobody)
        await app(scope, receive, send)
    print(sent[0]["status"], sent[1]["body"].decode())

web.REPLY_SECONDS = 0.01
asyncio.run(main())
"""


def test_an_answer_that_never_comes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PATIENCE], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )
    assert "503" in done.stdout and "takes too long; try again" in done.stdout, done
    assert "no answer within 0.01 s" in done.stderr


def hurried(folder: Path) -> Server:
    """One that soon gives up, with a user in its table."""
    server = Server(folder)
    assert server.register("ann")[0] == 200
    assert len(server.all_users()) == 1
    server.stop()
    server = Server(folder, reply_seconds=1.0)
    while server.get("/users")[0] == 503:  # it has not opened the table yet
        pass
    return server


@pytest.mark.parametrize(
    ("breaks", "mends"),
    [
        (
            "CREATE TRIGGER no BEFORE INSERT ON users BEGIN SELECT RAISE(FAIL, 'planted'); END",
            "DROP TRIGGER no",
        ),
        ("ALTER TABLE users RENAME TO planted", "ALTER TABLE planted RENAME TO users"),
    ],
)
def test_a_table_that_cannot_be_written_is_no_shorter_list(
    tmp_path: Path, breaks: str, mends: str
) -> None:
    server = hurried(tmp_path / "data")
    view = sqlite3.connect(tmp_path / "data" / "users.db", isolation_level=None, timeout=SECONDS)
    with contextlib.closing(view):
        view.execute(breaks)
        while server.register("bo")[0] == 503:  # it took longer
            pass
        for _ in range(2):  # the second time the actor has been restarted
            status, answer, _ = server.get("/users")
            assert (status, answer) == (503, {"message": "the users cannot be read; try again"})
        view.execute(mends)
    while server.get("/users")[0] == 503:
        time.sleep(0.05)
    assert [user["name"] for user in server.all_users()] == ["bo", "ann"]
    server.stop(signal.SIGKILL)
    assert "users-updater failed" in server.log.read_text()
    for file in (tmp_path / "data").glob("users.db*"):
        file.unlink()
    server = Server(tmp_path / "data")
    assert [user["name"] for user in server.all_users()] == ["bo", "ann"]
    server.stop()


def test_the_table_follows_when_it_can_be_written_again(tmp_path: Path) -> None:
    server = hurried(tmp_path / "data")
    with contextlib.closing(
        sqlite3.connect(tmp_path / "data" / "users.db", isolation_level=None)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        while server.register("bo")[0] == 503:  # it took longer
            pass
        status, answer, _ = server.get("/users")
        assert (status, list(answer)) == (503, ["message"])
        assert "locked" not in answer["message"]
        while b"database is locked" not in server.log.read_bytes():
            time.sleep(0.05)
        other.execute("ROLLBACK")
    while server.get("/users")[0] == 503:
        time.sleep(0.05)
    assert [user["name"] for user in server.all_users()] == ["bo", "ann"]
    server.stop()
