"""HTTP: JSON commands, HAL+JSON queries. The ASGI application of `__main__`.

    GET  /                   says hello
    POST /user/registration  {"username", "email"}, as JSON or as a form
                             200 {"user_id"}; 400 {"Message": "user already exists"};
                             400 {"message": "..."} names each field that is missing or malformed
    GET  /users              ?limit=1..100, newest first, with links to the next and previous page
    GET  /users/{id}         one of them

Each request has a stream of its own, so its answer is its own. What the store or the read model
cannot do is 503, and in the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

import escqrs as es
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .actors import Application
from .messages import Failed, Refused, Registered, RegisterUser, Update
from .users import Page, Users

REPLY_SECONDS = 5.0
BODY_BYTES_MAX = 64 * 1024
LIMIT, LIMIT_MAX = 20, 100
FIELD_BYTES_MAX = 254  # of an e-mail address; quoted, it is still a name of an actor
EMAIL = re.compile(r"[^\s@]+@[^\s@.]+(?:\.[^\s@.]+)*")
UNREADABLE = re.compile("[\x00-\x1f\ud800-\udfff]")

log = logging.getLogger("registration")
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Json(Response):
    """Of a text that is JSON, or of what becomes one."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return (content if isinstance(content, str) else to_json(content)).encode()


class Hal(Response):
    """Of a text that is JSON."""

    media_type = "application/hal+json"


# ---- commands ------------------------------------------------------------------------------------


def parse_json(body: bytes) -> Mapping[str, Any]:
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    if not isinstance(fields, dict):
        raise HTTPException(400, "the body is not a JSON object")
    return cast("dict[str, Any]", fields)


def parse_form(body: bytes) -> Mapping[str, Any]:
    try:
        return dict(parse_qsl(body.decode(), errors="strict", max_num_fields=100))
    except ValueError:
        raise HTTPException(400, "the body is not a form in UTF-8") from None


async def body_of(request: Request) -> bytes:
    body, more = b"", True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise HTTPException(413, f"the body has more than {BODY_BYTES_MAX} bytes")
        more = message.get("more_body", False)
    return body


async def parse_multipart(headers: Headers, body: bytes) -> Mapping[str, Any]:
    async def chunks() -> AsyncGenerator[bytes]:
        yield body

    try:
        return dict(await MultiPartParser(headers, chunks(), max_files=0, max_fields=100).parse())
    except (MultiPartException, ValueError) as error:
        raise HTTPException(400, f"the body is not a form: {error}") from None


async def fields_of(request: Request) -> Mapping[str, Any]:
    """Return the fields of a body, whatever its media type; none of an empty body."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await body_of(request)
    if not body:
        return {}
    if media_type == "multipart/form-data":
        return await parse_multipart(request.headers, body)
    parsers = {"application/json": parse_json, "application/x-www-form-urlencoded": parse_form}
    parse = parsers.get(media_type)
    if parse is None:
        raise HTTPException(
            415, f"{media_type or 'a body without type'} is neither JSON nor a form"
        )
    return parse(body)


def command_of(fields: Mapping[str, Any]) -> RegisterUser:
    """Return the command, or raise naming each field that is missing or malformed."""
    wrong: list[str] = []
    values: dict[str, str] = {}
    for name in ("username", "email"):
        value = fields.get(name)
        if value is None or value == "":
            wrong.append(f"{name} is missing")
        elif not isinstance(value, str):
            wrong.append(f"{name} is not a text")
        elif not value.strip() or UNREADABLE.search(value):
            wrong.append(f"{name} is not a readable text")
        elif len(value.strip().lower().encode()) > FIELD_BYTES_MAX:
            wrong.append(f"{name} has more than {FIELD_BYTES_MAX} bytes")
        elif name == "email" and not EMAIL.fullmatch(value.strip()):
            wrong.append("email is not an e-mail address")
        else:
            values[name] = value.strip()
    if wrong:
        raise HTTPException(400, "; ".join(wrong))
    return RegisterUser(values["username"], values["email"].lower())


async def register(request: Request) -> Response:
    """POST /user/registration"""
    command = command_of(await fields_of(request))
    application: Application = request.app.state.application
    stream = application.system.stream()
    application.registrations.tell(command, sender=stream)
    deadline = asyncio.get_running_loop().call_later(REPLY_SECONDS, stream.close)
    answer = await anext(stream, None)
    deadline.cancel()
    match answer:
        case Registered(user_id=user_id):
            return Json(f'{{"user_id":"{user_id}"}}')  # it has nothing to escape
        case Refused(reason=reason):
            return Json({"Message": reason}, 400)
        case Failed(reason=reason):
            log.error("a registration failed: %s", reason)
        case _:  # the stream was closed
            log.error("no answer within %g s to a registration", REPLY_SECONDS)
            raise HTTPException(503, "the registration takes too long; try again")
    raise HTTPException(503, "the registration could not be stored; try again")


# ---- queries -------------------------------------------------------------------------------------


def number(request: Request, name: str, most: int) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= most):
        raise HTTPException(400, f"{name} is a number from 1 to {most}")
    return int(text)


async def users_of(request: Request) -> Users:
    """Return the table, once it has every user that was registered before."""
    state = request.app.state
    application: Application = state.application
    if state.users is None or state.users.position < application.store.head:
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await application.updater.submit(Update())
        except (es.Error, sqlite3.Error, TimeoutError) as error:
            log.error("the table of users cannot be brought up to date: %r", error)
            raise HTTPException(503, "the users cannot be read; try again") from None
    if state.users is None:
        state.users = Users(application.view)
    users: Users = state.users
    return users


def links(page: Page, path: str, limit: int) -> dict[str, Any]:
    def link(**where: int) -> dict[str, str]:
        return {"href": f"/users?{urlencode({'limit': limit, **where})}"}

    found: dict[str, Any] = {"self": {"href": path}}
    if page.older:
        found["next"] = link(before=page.users[-1].position) if page.users else link()
    if page.newer:
        found["prev"] = link(after=page.users[0].position) if page.users else link()
    return found


async def list_users(request: Request) -> Response:
    """GET /users"""
    limit = number(request, "limit", LIMIT_MAX) or LIMIT
    before, after = number(request, "before", 2**62), number(request, "after", 2**62)
    page = (await users_of(request)).page(limit, before=before, after=after)
    query = f"?{request.url.query}" if request.url.query else ""
    head = {
        "_links": links(page, f"/users{query}", limit),
        "count": len(page.users),
        "total": page.total,
    }
    users = ",".join([user.text for user in page.users])
    return Hal(f'{to_json(head)[:-1]},"_embedded":{{"users":[{users}]}}}}')


async def show_user(request: Request) -> Response:
    """GET /users/{id}"""
    user = (await users_of(request)).user(request.path_params["id"])
    if user is None:
        raise HTTPException(404, "there is no such user")
    return Hal(user.text)


async def hello(request: Request) -> Response:
    """GET /"""
    return Json({"message": "Hello! POST /user/registration, GET /users"})


# ---- the application -----------------------------------------------------------------------------


class Endpoint:
    """A function of a request as an ASGI application. Starlette makes one of a function, too, with
    another layer for exceptions, which its middleware handles as well."""

    def __init__(self, handle: Callable[[Request], Awaitable[Response]]) -> None:
        self.handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.handle(Request(scope, receive))
        await response(scope, receive, send)


async def explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Json({"message": error.detail}, error.status_code, error.headers)


async def fail(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Json({"message": "something went wrong; try again"}, 503)


def create(folder: Path) -> Starlette:
    """Return the application, which keeps its files in that folder."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        application = Application(folder)
        app.state.application = application
        app.state.users = None  # opened by the first query, when the table is there
        try:
            yield
        finally:
            if app.state.users is not None:
                app.state.users.close()
            await asyncio.to_thread(application.close)

    handlers: dict[Any, Callable[..., Any]] = {HTTPException: explain, Exception: fail}
    routes = [
        Route("/user/registration", Endpoint(register), methods=["POST"]),
        Route("/", Endpoint(hello), methods=["GET"]),
        Route("/users", Endpoint(list_users), methods=["GET"]),
        Route("/users/{id}", Endpoint(show_user), methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
