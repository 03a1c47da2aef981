"""Routes that ask who calls, for which adapter, and whether there is room, before they read a request's body.

FastAPI reads and parses the body before it comes to dependencies. So those that judge only the head are asked here
first; when FastAPI asks them again, the caller is known.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.access.admission import Work
from app.access.auth import caller_of, require_admin, require_inference, require_metrics
from app.access.caller import name_of
from app.service import Service

_Check = Callable[[Request], Awaitable[None]]
_Handle = Callable[[Request], Coroutine[Any, Any, Response]]
CHECKS: tuple[_Check, ...] = (require_inference, require_admin, require_metrics)


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
            return await _with_room(request, handle) if computes else await handle(request)

        return gated


def _require_names(request: Request) -> None:
    """What a path or a query names: an adapter, on every route. What a body names is for the route to judge."""
    caller, settings = caller_of(request), request.app.state.settings
    for reference in (*request.path_params.values(), *request.query_params.getlist("adapter")):
        if reference != settings.served_name:
            caller.require(str(reference))


async def _with_room(request: Request, handle: _Handle) -> Response:
    caller = caller_of(request)
    service: Service = request.app.state.service
    service.admission.check(time.perf_counter(), _announced(request, service), caller.deadline)
    with service.limits.keys.held([caller.key]):
        return await handle(request)


def _announced(request: Request, service: Service) -> Work | None:
    """What the head says of a request's work: as if the body were one input. None: it does not say whose."""
    adapters = request.query_params.getlist("adapter")
    if not adapters:
        return None
    size = request.headers.get("content-length", "0")
    characters = int(size) if size.isdecimal() else 0
    return service.admission.work(list(map(name_of, adapters)), [characters], service.max_input_length(None))
