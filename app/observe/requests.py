"""ASGI middleware around everything: a request's id, its metrics, its log line, its trace, an answer to surprises."""

import logging
import re
import secrets
import time

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.observe.exchange import Exchange, begin
from app.observe.metrics import Metrics
from app.observe.traces import Traces

HEADER = b"x-request-id"
NO_ROUTE = "none"
logger = logging.getLogger("lorat.access")
_HARMLESS = re.compile(rb"[!#-&(-~]{1,128}")  # printable ASCII without quotes and spaces
_PATH_LENGTH = 200


class Observed:
    """Passes requests on and notes how they end. No other middleware is outside of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: Traces | None, access_log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._traces = traces
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. An error that nobody expected is answered by the application's handler for it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        client = scope.get("client")
        exchange = begin(Exchange(request_id(scope), scope["method"], client[0] if client else ""))
        header = (HEADER, exchange.id.encode())

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if exchange.status:  # too late for another answer: the server closes the connection
                raise
            exchange.refuse("unexpected", type(error).__name__)
            answer = await scope["app"].exception_handlers[Exception](Request(scope), error)
            await answer(scope, receive, noting)
        finally:
            self._end(exchange, scope)

    def _end(self, exchange: Exchange, scope: Scope) -> None:
        ended = time.perf_counter()
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        self._metrics.observe_request(exchange, route, ended)
        trace = self._traces.record(exchange, route, scope, ended) if self._traces else ""
        if self._access_log:
            fields = _fields(exchange, route, scope["path"], ended)
            logger.info("request", extra={"fields": fields | ({"trace": trace} if trace else {})})


def request_id(scope: Scope) -> str:
    """The client's `X-Request-Id` if it is harmless, else a fresh one."""
    for name, value in scope["headers"]:
        if name == HEADER and _HARMLESS.fullmatch(value):
            return str(value, "ascii")
    return secrets.token_hex(16)


def _fields(exchange: Exchange, route: str, path: str, ended: float) -> dict[str, str | int | float]:
    """What a request's log line says. Never the query or a header: those may hold what is secret."""
    fields: dict[str, str | int | float] = {
        "method": exchange.method,
        "route": route,
        "status": exchange.status,
        "ms": round((ended - exchange.started) * 1000, 3),
        "client": exchange.client,
    }
    if route == NO_ROUTE:
        fields["path"] = path[:_PATH_LENGTH]
    if exchange.adapters:
        fields |= {"adapter": exchange.adapters, "tokens": exchange.tokens, "inputs": exchange.inputs}
    for stage in ("queue", "inference"):
        if (seconds := exchange.seconds(stage, ended)) is not None:
            fields[f"{stage}_ms"] = round(seconds * 1000, 3)
    if exchange.key:
        fields["key"] = exchange.key
    if exchange.reason:
        fields["reason"] = exchange.reason
    return fields
