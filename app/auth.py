"""Keys. `LORAT_API_KEY` opens inference, `LORAT_ADMIN_KEY` opens writes as well."""

import hmac
from collections.abc import Iterable

from fastapi import Request
from pydantic import SecretStr

from app.errors import ForbiddenError, UnauthorizedError
from app.settings import Settings


async def require_inference(request: Request) -> None:
    """Let a request pass that may run inference and read. Raises UnauthorizedError.

    Not `async` for waiting: FastAPI runs a plain function in a thread, which costs a request more than its keys do.
    """
    settings: Settings = request.app.state.settings
    keys = [*settings.api_key, *settings.admin_key]
    if keys and not _known(_bearer(request), keys):
        raise UnauthorizedError("send a key that this server knows: 'Authorization: Bearer KEY'")


async def require_admin(request: Request) -> None:
    """Let a request pass that may change adapters. Raises UnauthorizedError or ForbiddenError."""
    settings: Settings = request.app.state.settings
    await require_inference(request)
    if (settings.api_key or settings.admin_key) and not _known(_bearer(request), settings.admin_key):
        raise ForbiddenError("this key does not open writes: use one of LORAT_ADMIN_KEY")


def _bearer(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _known(key: str, keys: Iterable[SecretStr]) -> bool:
    """Every key is compared, each in constant time."""
    given = key.encode()
    matches = [hmac.compare_digest(given, known.get_secret_value().encode()) for known in keys]
    return any(matches)
