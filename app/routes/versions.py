"""`/adapters/{name}/…`: versions, rollback, download, settings, stats."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from app.access.auth import require_admin, require_inference
from app.access.gated import Gated
from app.adapters.preconditions import Conditions, is_known
from app.adapters.registry import Registry
from app.adapters.temporary import temporary_room
from app.answers import json_response
from app.routes.asking import ERRORS, service_of
from app.routes.stats import stats_of
from app.schemas.adapters import Record, RollbackRequest, SettingsRequest, Stats, Versions
from app.schemas.errors import ErrorBody
from app.sending import InParts
from app.store.catalog import Version

router = APIRouter(tags=["adapters"], route_class=Gated, dependencies=[Depends(require_inference)], responses=ERRORS)
Match = Annotated[str | None, Header()]
_CHUNK_BYTES = 1 << 18
CONDITIONAL: dict[int | str, dict[str, Any]] = {409: {"model": ErrorBody}, 412: {"model": ErrorBody}}
CHANGED = CONDITIONAL | {200: {"model": Record, "description": "It was so already"}}


def etag(version: Version) -> dict[str, str]:
    """The header that `If-Match` is held against."""
    return {"ETag": f'"{version.digest}"'}


@router.get("/adapters/{name}/versions", response_model=Versions, response_model_exclude_unset=True)
async def versions(
    request: Request,
    name: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """The versions of a name, newest first; `next` continues the list with `?after=`."""
    return await run_in_threadpool(_page, service_of(request).registry, name, limit, after)


def _page(registry: Registry, name: str, limit: int, after: int | None) -> Response:
    registry.log.refresh()
    there = registry.catalog.versions(registry.resolve(name).name)
    found = [version for version in there if after is None or version.version < after][: limit + 1]
    shown = found[:limit]
    content = {
        "versions": [registry.show(version) for version in shown],
        "next": shown[-1].version if len(found) > limit else None,
    }
    return json_response(content, {})


@router.post(
    "/adapters/{name}/rollback",
    status_code=201,
    response_model=Record,
    responses=CHANGED,
    dependencies=[Depends(require_admin)],
)
async def rollback(
    request: Request, name: str, body: RollbackRequest, if_match: Match = None, if_none_match: Match = None
) -> JSONResponse:
    """Make an old version's content the newest version again."""
    service = service_of(request)
    conditions = Conditions(if_match, if_none_match)
    version, new = await run_in_threadpool(service.changes.rollback, name, body.version, conditions)
    service.serve(name)
    headers = {"Location": f"/adapters/{version.name}", **etag(version)}
    return JSONResponse(service.registry.show(version), 201 if new else 200, headers)


@router.patch(
    "/adapters/{name}",
    response_model=Record,
    response_model_exclude_unset=True,
    responses=CONDITIONAL,
    dependencies=[Depends(require_admin)],
)
async def configure(
    request: Request,
    response: Response,
    name: str,
    body: SettingsRequest,
    if_match: Match = None,
    if_none_match: Match = None,
) -> dict[str, Any]:
    """Change the settings of a name."""
    service = service_of(request)
    changes = body.model_dump(exclude_unset=True)
    version = await run_in_threadpool(service.changes.configure, name, changes, Conditions(if_match, if_none_match))
    service.follower.wake()
    response.headers.update(etag(version))
    return service.registry.show(version)


@router.get("/adapters/{reference}/stats", response_model=Stats)
async def stats(request: Request, reference: str) -> dict[str, Any]:
    """What changes by itself, of one version in this process: where it is, and how often it was asked for."""
    service = service_of(request)
    version = await run_in_threadpool(service.registry.resolve, reference)
    return stats_of(service, version)


@router.get(
    "/adapters/{reference}/download",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "The client has it already: it sent its tag as `If-None-Match`"},
    },
)
async def download(request: Request, reference: str, if_none_match: Match = None) -> Response:
    """A version's content as a .zip that can be uploaded again."""
    service = service_of(request)
    version = await run_in_threadpool(service.registry.resolve, reference)
    if is_known(version, if_none_match):
        return Response(status_code=304, headers=etag(version))
    with ExitStack() as held:
        held.enter_context(service.limits.downloads.held())
        with temporary_room():
            file = held.enter_context(await run_in_threadpool(service.registry.export, version))
        headers = {
            "Content-Length": str(os.fstat(file.fileno()).st_size),
            "Content-Disposition": f'attachment; filename="{version.name}-{version.version}.zip"',
            **etag(version),
        }
        seconds = service.settings.body_timeout_seconds
        return InParts(_chunks(file), headers, "application/zip", seconds, held.pop_all())


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
