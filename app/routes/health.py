"""`/health`, `/ready`, `/info`, `/metrics`."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.auth import require_inference
from app.errors import UnavailableError
from app.info import describe
from app.service import Service

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(request: Request) -> dict[str, str]:
    """200 while the engine answers, 503 when it does not."""
    service: Service = request.app.state.service
    if not service.engine.healthy():
        raise UnavailableError("the engine does not answer: restart this server")
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> dict[str, str]:
    """200 once the base and the declared adapters are loaded; 503 while shutting down."""
    service: Service = request.app.state.service
    if not (service.ready and service.engine.healthy()):
        raise UnavailableError("the server is not ready: ask again, or another one")
    return {"status": "ready"}


@router.get("/info", dependencies=[Depends(require_inference)])
async def info(request: Request) -> dict[str, Any]:
    """The model and the limits."""
    return describe(request.app.state.service)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(request.app.state.metrics.render(), media_type=CONTENT_TYPE_LATEST)
