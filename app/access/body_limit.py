"""Limits on request bodies as they arrive: on their size, and on the time that they take."""

import asyncio
import time
from collections.abc import Callable, Sequence

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import SlowBodyError, TooLargeError, reason, status_of
from app.observe.exchange import current
from lorat.errors import LoratError

LEAST_BYTES_PER_SECOND = 64 * 1024


class BodyLimit:
    """ASGI middleware: 413 as soon as a body is, or says it is, over the limit for its path; 408 where it is too slow.

    Both end the connection.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[str], int], seconds: float) -> None:
        """limit: bytes for a path. seconds: for a body, and one more for each 64 KiB of it that came."""
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = self._limit(scope["path"])
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            return await _refuse(scope, receive, send, _too_large(limit))
        await self._app(scope, _Body(receive, limit, self._seconds).receive, send)


class _Body:
    """What arrives of one request's body."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._limit = receive, limit
        self._end = time.perf_counter() + seconds
        self._received = 0
        self._whole = False

    async def receive(self) -> Message:
        """As ASGI's. Raises HTTPException, which FastAPI passes on while it reads a body."""
        if self._whole:  # what comes now is that the client goes, in its own time
            return await self._receive()
        end = self._end + self._received / LEAST_BYTES_PER_SECOND
        try:
            async with asyncio.timeout(max(0.0, end - time.perf_counter())):
                message = await self._receive()
        except TimeoutError as error:
            raise _refusal(_slow(self._received)) from error
        self._received += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._received > self._limit:
            raise _refusal(_too_large(self._limit))
        return message


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body is over the limit of {limit} bytes: send less in one request")


def _slow(received: int) -> SlowBodyError:
    return SlowBodyError(f"the body arrives too slowly, {received} bytes so far: send it faster, or less of it")


def _refusal(error: LoratError) -> HTTPException:
    """What is raised for an error; its reason is noted here, for a status alone does not tell it."""
    current().refuse(reason(error), str(error))
    return HTTPException(status_of(error)[0], str(error), {"Connection": "close"})


async def _refuse(scope: Scope, receive: Receive, send: Send, error: LoratError) -> None:
    """Answer as the application answers what its routes raise, counted by the route that was asked."""
    request = Request(scope, receive)
    routes: Sequence[BaseRoute] = request.app.routes
    scope["route"] = next((route for route in routes if route.matches(scope)[0] is Match.FULL), None)
    response = await request.app.exception_handlers[HTTPException](request, _refusal(error))
    await response(scope, receive, send)
