"""What a route asks of who calls it, judged by the head alone: keys, names, deadlines."""

from dataclasses import replace

from fastapi import Request

from app.access.caller import ANYONE, Caller
from app.access.deadline import HEADER, deadline_of
from app.access.keys import identify
from app.errors import ForbiddenError, UnauthorizedError
from app.observe.exchange import current
from app.settings import Settings


async def require_inference(request: Request) -> None:
    """Let a request pass that may run inference and read. Raises UnauthorizedError, InvalidRequestError.

    Not `async` for waiting: FastAPI runs a plain function in a thread, which costs a request more than its keys do.
    """
    caller_of(request)


async def require_admin(request: Request) -> None:
    """Let a request pass that may change adapters. Raises UnauthorizedError or ForbiddenError."""
    if not caller_of(request).admin:
        raise ForbiddenError("this key does not open writes: use one of LORAT_ADMIN_KEY")


async def require_all_names(request: Request) -> None:
    """Let a request pass whose key opens all names. Raises UnauthorizedError, ForbiddenError."""
    if caller_of(request).opens is not None:
        raise ForbiddenError("this key opens only some names, and a path may hold any adapter: use POST /adapters")


async def require_metrics(request: Request) -> None:
    """Let a request pass that may read metrics, which tell of all names. Raises UnauthorizedError, ForbiddenError."""
    settings: Settings = request.app.state.settings
    if settings.metrics_key and caller_of(request).opens is not None:
        raise ForbiddenError("this key opens only some names, and the metrics tell of all: use another key")


def caller_of(request: Request) -> Caller:
    """Who asks. Found once per request. Raises UnauthorizedError; InvalidRequestError where the timeout is none."""
    known: Caller | None = getattr(request.state, "caller", None)
    if known is None:
        known = request.state.caller = _find(request)
    return known


def _find(request: Request) -> Caller:
    settings: Settings = request.app.state.settings
    caller = identify(_bearer(request), settings.api_key, settings.admin_key)
    if caller is None:
        raise UnauthorizedError("send a key that this server knows: 'Authorization: Bearer KEY'")
    if caller is not ANYONE:
        current().key = caller.key
    return replace(caller, deadline=deadline_of(request.headers.get(HEADER), settings.request_timeout_seconds))


def _bearer(request: Request) -> bytes:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
