"""Routes that ask who calls, and for which adapter, before they read a request's body.

FastAPI reads and parses the body before it comes to dependencies. So those that judge only the head are asked here
first; when FastAPI asks them again, the caller is known.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.access.auth import caller_of, require_admin, require_all_names, require_inference, require_metrics
from app.service import Service

_Check = Callable[[Request], Awaitable[None]]
_Handle = Callable[[Request], Coroutine[Any, Any, Response]]
CHECKS: tuple[_Check, ...] = (require_inference, require_admin, require_all_names, require_metrics)


class Gated(APIRoute):
    """A route that turns away what it can before the body; its refusals are the errors that it would answer later."""

    @property
    def checks(self) -> list[_Check]:
        """What it asks of a caller; nothing: it is open to everyone."""
        asked = [depends.dependency for depends in self.dependencies]
        return [check for check in CHECKS if check in asked]

    @property
    def computes(self) -> bool:
        """Whether it is inference, which waits for its turn, and which limits are for."""
        return "POST" in (self.methods or ()) and self.checks == [require_inference]

    def get_route_handler(self) -> _Handle:
        """As FastAPI's, behind the gate."""
        handle, checks, computes = super().get_route_handler(), self.checks, self.computes

        async def gated(request: Request) -> Response:
            for check in checks:
                await check(request)
            if require_inference in checks:
                _require_names(request)
            return await _within_limits(request, handle) if computes else await handle(request)

        return gated


def _require_names(request: Request) -> None:
    """What a path or a query names: an adapter, on every route. What a body names is for the route to judge."""
    caller, served = caller_of(request), request.app.state.settings.served_name
    openai = request.scope["path"].startswith("/v1/")  # there the base has its served name
    for reference in (*request.path_params.values(), *request.query_params.getlist("adapter")):
        if not (openai and reference == served):
            caller.require(str(reference))


async def _within_limits(request: Request, handle: _Handle) -> Response:
    service: Service = request.app.state.service
    with service.limits.keys.held([caller_of(request).key]):
        return await handle(request)
