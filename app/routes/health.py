"""`/health`, `/ready`, `/info`, `/metrics`. The first two answer HEAD, too: some that watch a server ask so."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from app.access.auth import require_inference, require_metrics
from app.access.gated import Gated
from app.errors import UnavailableError
from app.info import describe
from app.routes.asking import ERRORS
from app.schemas.errors import ErrorBody
from app.schemas.info import Info, Status
from app.service import Service

router = APIRouter(tags=["health"], route_class=Gated)
UNHEALTHY: dict[int | str, dict[str, Any]] = {503: {"model": ErrorBody}}


@router.head("/health", include_in_schema=False)
@router.get("/health", responses=UNHEALTHY)
async def health(request: Request) -> Status:
    """200 while the tokenizer and the engine answer, 503 when one does not."""
    service: Service = request.app.state.service
    if not service.healthy():
        raise UnavailableError("the tokenizer or the engine does not answer: restart this server")
    return Status(status="ok")


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=UNHEALTHY)
async def ready(request: Request) -> Status:
    """200 once the base and the declared adapters are loaded; 503 while shutting down."""
    service: Service = request.app.state.service
    if not (service.ready and service.healthy()):
        raise UnavailableError("the server is not ready: ask again, or another one")
    return Status(status="ready")


@router.get("/info", response_model=Info, responses=ERRORS, dependencies=[Depends(require_inference)])
async def info(request: Request) -> dict[str, Any]:
    """The model and the limits."""
    return describe(request.app.state.service)


@router.get("/metrics", response_class=PlainTextResponse, responses=ERRORS, dependencies=[Depends(require_metrics)])
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    text = await run_in_threadpool(request.app.state.metrics.render)  # thousands of lines: the loop goes on meanwhile
    return Response(text, media_type=CONTENT_TYPE_LATEST)
