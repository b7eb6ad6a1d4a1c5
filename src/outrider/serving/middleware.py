"""What every HTTP request passes: an id and a line in the log, the question for a key, limits."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider.serving.deadlines import Deadline
from outrider.serving.errors import ApiError, as_api_error
from outrider.serving.fields import Unread, unread
from outrider.serving.logs import REQUESTS, current_request

logger = logging.getLogger(REQUESTS)

OPEN_PATHS = frozenset({"/health", "/"})
"""Asked for no key: whoever watches over the server has none, and learns nothing. Nor has a browser that
opens the playground, whose files are the same on every server."""
OPEN_FOLDER = "/playground/"
REQUEST_ID = "x-request-id"
IGNORED = "x-outrider-ignored"
"""Names the fields that were taken and not read."""
MOST_NAMES = 32  # of these in a header
LONGEST_NAME = 64  # characters
NAMES_LOGGED = 256  # clients make them up
BODY_SECONDS = 30.0
"""That a client may pause while it sends a body."""
MAX_BODIES = 16
"""Bodies of the largest size whose bytes may be in memory at a time, half or whole."""
LOGGED_PATH = 200  # characters of it
OWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a client may call its request; another name is replaced."""


class RequestLog:
    """Gives each request its id, tells it the client in a header, and writes one line when it is over.

    Handlers add to the line what they put into `request.state.log`. Fields that were taken and not read stand
    in a header, and once a name in the log. count: is told path and status; strict: no such field is taken.
    """

    def __init__(self, app: ASGIApp, count: Callable[[str, int], None], strict: bool) -> None:
        self._app = app
        self._count = count
        self._strict = strict
        self._named: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if OWN_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"], state["log"] = request_id, {}
        passed_over = Unread(self._strict)
        token, reading = current_request.set(request_id), unread.set(passed_over)
        began, status, complete = time.perf_counter(), 0, False

        async def told(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if passed_over.names:
                    headers[IGNORED] = self._ignored(passed_over.names)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception as error:
            response = as_api_error(error).response(scope["path"])
            if not status:
                await response(scope, receive, told)
        finally:
            route = scope.get("route")
            self._count(route.path if route is not None else "other", status)
            fields = {
                "method": scope["method"],
                "path": scope["path"][:LOGGED_PATH],
                "status": status,
                "seconds": round(time.perf_counter() - began, 6),
                "complete": complete,
                **state["log"],
            }
            logger.info("request", extra={"fields": fields})
            current_request.reset(token)
            unread.reset(reading)

    def _ignored(self, names: Collection[str]) -> str:
        """The names as a header may have them, whatever a client called its fields."""
        shown = [
            quote(name[:LONGEST_NAME], safe="._-", errors="replace") or '""'
            for name in islice(names, MOST_NAMES)
        ]
        new = [name for name in shown if name not in self._named][: NAMES_LOGGED - len(self._named)]
        for name in new:
            self._named.add(name)
            logger.warning("the field %s is not supported and was ignored; it changes no answer", name)
        return ", ".join(shown) + (", ..." if len(names) > MOST_NAMES else "")


class HeadAsGet:
    """Has HEAD answered wherever GET is; the HTTP server sends the header alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}  # a copy: the server and the log go by the method that was sent
        await self._app(asked, receive, send)
        scope["route"] = asked.get("route")


class RequireKey:
    """Answers 401 to who does not give one of the keys, as a bearer token or, as Anthropic's clients do, in
    `x-api-key`."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _open(scope["path"]) or self._known(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "the server asks for an API key; give it as the header 'Authorization: Bearer KEY'",
            "authentication_error",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error.response(scope["path"])(scope, receive, send)

    def _known(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # Every key is compared, each in a time that does not tell how much of it is right.
        matches = [hmac.compare_digest(given.encode("latin-1"), key) for key in self._keys]
        return any(matches)


def _open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


class LimitTime:
    """Answers 504 to a request that has no answer after `seconds`, whatever keeps it; handlers find the
    deadline in `request.state.deadline`, and see themselves to what they stream."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = scope.setdefault("state", {})["deadline"] = Deadline.after(self._seconds)
        async with deadline.kept() as clock:

            async def answered(message: Message) -> None:
                if not clock.expired():
                    clock.reschedule(None)
                await send(message)

            await self._app(scope, receive, answered)


class LimitBody:
    """Answers 413 to a body of more than `limit` bytes, whether its length was told beforehand or not; 408 to
    one that does not go on coming, or is not there after `seconds`; 415 to one that is compressed; and 503
    where MAX_BODIES are in memory."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        encoding, length = headers.get("content-encoding", "identity"), headers.get("content-length", "")
        if encoding.lower() != "identity":
            raise HTTPException(415, f"the body is encoded as {encoding!r}; send it as it is")
        if length.isdecimal() and int(length) > self._limit:
            raise self._too_large()
        deadline = asyncio.get_running_loop().time() + self._seconds
        got, complete = 0, False

        async def limited() -> Message:
            nonlocal got, complete
            if complete:
                return await receive()
            message = await self._part(receive, deadline)
            part = len(message.get("body", b""))
            got, self._held = got + part, self._held + part
            complete = not message.get("more_body", False)
            if got > self._limit:
                raise self._too_large()
            if self._held > MAX_BODIES * self._limit:
                full = "the server holds as many bodies of requests as it may; try again later"
                raise HTTPException(503, full, {"Retry-After": "10"})
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._held -= got

    async def _part(self, receive: Receive, deadline: float) -> Message:
        """What comes next of a body. Raises HTTPException where nothing does."""
        pause = asyncio.get_running_loop().time() + BODY_SECONDS
        try:
            async with asyncio.timeout_at(min(pause, deadline)):
                return await receive()
        except TimeoutError:
            late = f"nothing of the body came for {BODY_SECONDS:g} s"
            if deadline <= pause:
                late = f"the body did not come within {self._seconds:g} s"
            raise HTTPException(408, late) from None

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body has more than {self._limit} bytes; send fewer")
