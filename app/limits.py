"""A limit on the size of request bodies, counted as they arrive."""

import json
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware: answers 413 as soon as a body is, or says it is, over the limit for its path."""

    def __init__(self, app: ASGIApp, limit: Callable[[str], int]) -> None:
        """`limit`: bytes for a path."""
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = self._limit(scope["path"])
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            return await _refuse(send, limit)
        await self._app(scope, _counted(receive, limit), send)


def _counted(receive: Receive, limit: int) -> Receive:
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, _text(limit))
        return message

    return counted


def _text(limit: int) -> str:
    return f"the body is over the limit of {limit} bytes: send less in one request"


async def _refuse(send: Send, limit: int) -> None:
    body = json.dumps({"error": _text(limit), "error_type": "TooLarge"}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
