"""Routes that ask who calls, and for which adapter, before they read a request's body.

FastAPI reads and parses the body before it comes to dependencies. So those that judge only the head are asked here
first; when FastAPI asks them again, the caller is known.
"""

from collections.abc import Awaitable, Callable, Coroutine, Set
from difflib import get_close_matches
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.access.auth import caller_of, require_admin, require_all_names, require_inference, require_metrics
from app.errors import InvalidRequestError
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
        parameters = _queries(self.dependant)

        async def gated(request: Request) -> Response:
            for check in checks:
                await check(request)
            if require_inference in checks:
                _require_names(request)
                _require_known(request, parameters)
            return await _within_limits(request, handle) if computes else await handle(request)

        return gated


def _require_names(request: Request) -> None:
    """What a path or a query names: an adapter, on every route. What a body names is for the route to judge."""
    caller, served = caller_of(request), request.app.state.settings.served_name
    openai = request.scope["path"].startswith("/v1/")  # there the base has its served name
    for reference in (*request.path_params.values(), *request.query_params.getlist("adapter")):
        if not (openai and reference == served):
            caller.require(str(reference))


def _queries(dependant: Dependant) -> set[str]:
    """What a route reads of a query, with its dependencies."""
    return {field.alias for field in dependant.query_params}.union(*map(_queries, dependant.dependencies))


def _require_known(request: Request, parameters: Set[str]) -> None:
    """Raises InvalidRequestError for a query that a route does not read: `?adaptor=x` is not the base's."""
    for name in request.query_params:
        if name not in parameters:
            close = get_close_matches(name.lower(), parameters, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(sorted(parameters)) or 'none'}"
            raise InvalidRequestError(f"query.{name[:40]} is no parameter of this route: {hint}")


async def _within_limits(request: Request, handle: _Handle) -> Response:
    service: Service = request.app.state.service
    with service.limits.keys.held([caller_of(request).key]):
        return await handle(request)
