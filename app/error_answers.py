"""From exceptions to error responses: text-embeddings-inference's shape, and OpenAI's under `/v1`."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from app.access.auth import caller_of
from app.answers import gone
from app.errors import (
    EmptyInputError,
    InvalidRequestError,
    OverloadedError,
    UnauthorizedError,
    UnknownAdapterError,
    reason,
    status_of,
)
from app.observe.exchange import current
from lorat.errors import InputError, LoratError, NoHeadError

logger = logging.getLogger("lorat")
_NO_JSON = "json_invalid"
_KINDS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "Timeout",
    413: "TooLarge",
}
_CODES: dict[type[LoratError], str] = {
    UnauthorizedError: "invalid_api_key",
    UnknownAdapterError: "model_not_found",
    OverloadedError: "rate_limit_exceeded",
}
_PARAMS: dict[type[LoratError], str] = {
    EmptyInputError: "input",
    InputError: "input",
    UnknownAdapterError: "model",
    NoHeadError: "model",
}
_MOST_FAULTS = 3


def add_handlers(app: FastAPI) -> None:
    """Have an application answer every exception in the shape of its path."""
    app.add_exception_handler(LoratError, _lorat_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Exception, _unexpected_error)


def error_body(
    path: str, status: int, message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """An error as the clients of a path read it.

    kind: text-embeddings-inference's `error_type`. param, code: OpenAI's, the field at fault and a name for the error.
    """
    if not path.startswith("/v1/"):
        return {"error": message, "error_type": kind}
    family = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": family, "param": param, "code": code}}


def _respond(
    request: Request,
    status: int,
    message: str,
    kind: str,
    headers: Mapping[str, str] | None = None,
    param: str | None = None,
    code: str | None = None,
) -> JSONResponse:
    return JSONResponse(error_body(request.scope["path"], status, message, kind, param, code), status, headers)


async def _lorat_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LoratError)
    status, kind = status_of(error)
    current().refuse(reason(error), str(error))
    message = str(error) + _hint(request, error)
    return _respond(request, status, message, kind, _headers(error), _param(error), _CODES.get(type(error)))


def _param(error: LoratError) -> str | None:
    """The field of a `/v1` request that an error is about."""
    if isinstance(error, InvalidRequestError):
        return error.param
    return next((param for kind, param in _PARAMS.items() if isinstance(error, kind)), None)


def _headers(error: LoratError) -> dict[str, str]:
    """What HTTP wants beside some errors."""
    if isinstance(error, OverloadedError):
        return {"Retry-After": str(error.retry_after)}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, UnauthorizedError) else {}


def _hint(request: Request, error: LoratError) -> str:
    """A close name, but only one that the caller's key opens: others are not to be told of."""
    close = error.close if isinstance(error, UnknownAdapterError) else None
    return f": did you mean {close!r}?" if close and caller_of(request).may(close) else ""


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    message = "; ".join(map(_explain, faults[:_MOST_FAULTS])) + _unread(request, faults[0])
    param = None if faults[0]["type"] == _NO_JSON else _where(faults[0]["loc"][:2]) or None
    return _respond(request, 422, message, "Validation", param=param)


def _unread(request: Request, fault: Mapping[str, Any]) -> str:
    """FastAPI reads a body as JSON where its header says so, and else takes it for a value that is no object."""
    if fault["loc"] != ("body",) or not isinstance(fault["input"], bytes):
        return ""
    return f": the body came as {request.headers.get('content-type') or 'no type'}, send Content-Type: application/json"


def _explain(error: Mapping[str, Any]) -> str:
    if error["type"] == _NO_JSON:
        what, place = error["ctx"]["error"], error["loc"][-1]
        return f"the body is no JSON ({what}, at character {place}): send well-formed JSON"
    if (error["type"], error["loc"]) == ("missing", ("body",)):
        return "the body is empty: send a JSON object"
    where = _where(error["loc"][:4])
    return f"{where}: {error['msg']}" if where else str(error["msg"])


def _where(location: Sequence[object]) -> str:
    return ".".join(str(part) for part in location if part != "body")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message, status = str(error.detail), error.status_code
    if status == 400:  # a body that its parser gave up on
        status, message = 422, f"{message.rstrip('.')}: send {_wanted(request)}"
    headers = {"Allow": ", ".join(_allowed(request))} if status == 405 else error.headers
    return _respond(request, status, message, _KINDS.get(status, "Validation"), headers)


def _wanted(request: Request) -> str:
    """The body that a route reads."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        return f"it as it is, not compressed (Content-Encoding: {encoding[:20]})"
    return "the files of one adapter as a form" if _is_form(request) else "well-formed JSON in UTF-8"


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("multipart/")


def _allowed(request: Request) -> list[str]:
    """The methods of a path. Starlette names those of the first route that has it."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    return sorted(
        {
            method
            for route in routes
            if route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods or ()
        }
    )


async def _client_gone(_: Request, __: Exception) -> Response:
    return gone()


async def _unexpected_error(request: Request, error: Exception) -> Response:
    logger.exception("unexpected error at %s", request.url.path, exc_info=error)
    return _respond(request, 500, "the server failed at this request; its log says why", "Backend")
