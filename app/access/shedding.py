"""ASGI middleware that refuses inference for which there is no room before anything else is done for it.

Under overload refusals are most of what there is to do, and what they cost is taken from the requests that got in.
One that goes its way through routing, keys and handlers costs more than twice as much.
"""

import math
import time
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from fastapi import Request, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.admission import Work
from app.access.deadline import HEADER, deadline_of
from app.access.gated import Gated
from app.errors import InvalidRequestError, OverloadedError
from app.names import name_of
from app.service import Service
from lorat.errors import LoratError

_TIMEOUT = HEADER.lower().encode()


class Shedding:
    """Judges by the head: the query's adapters, the deadline, and the body's length as if it were one input."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        computing = [route for route in routes if isinstance(route, Gated) and route.computes]
        self._routes = {route.path: route for route in computing if not route.param_convertors}
        self._patterns = [route for route in computing if route.param_convertors]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429."""
        if route := self._route(scope):
            service: Service = scope["app"].state.service
            head = dict(scope["headers"])
            try:
                work = _announced(scope["query_string"], head, service)
                service.admission.check(time.perf_counter(), work, _deadline(head, service))
            except OverloadedError as error:
                scope["route"] = route  # by which it is counted
                answer: Response = await scope["app"].exception_handlers[LoratError](Request(scope), error)
                return await answer(scope, receive, send)
        await self._app(scope, receive, send)

    def _route(self, scope: Scope) -> Gated | None:
        """The route that would compute."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        path = scope["path"]
        return self._routes.get(path) or next((one for one in self._patterns if one.path_regex.match(path)), None)


def _announced(query: bytes, head: Mapping[bytes, bytes], service: Service) -> Work | None:
    """What the head says of a request's work. None: it does not say whose."""
    asked = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    adapters = [name_of(value) for name, value in asked if name == "adapter"]
    if not adapters:
        return None
    size = head.get(b"content-length", b"")
    characters = int(size) if size.isdigit() else 0
    return service.admission.work(adapters, [characters], service.max_input_length(None))


def _deadline(head: Mapping[bytes, bytes], service: Service) -> float:
    """Of a timeout that is none the route complains."""
    given = head.get(_TIMEOUT)
    try:
        return deadline_of(None if given is None else given.decode("latin-1"), service.settings.request_timeout_seconds)
    except InvalidRequestError:
        return math.inf
