"""`/adapters/{name}/…`: versions, rollback, download, settings, stats."""

import os
from collections.abc import Iterator
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.auth import require_admin, require_inference
from app.catalog import Version
from app.service import Service
from app.stats import stats_of

router = APIRouter(tags=["adapters"], dependencies=[Depends(require_inference)])
Match = Annotated[str | None, Header()]
_CHUNK_BYTES = 1 << 18


class RollbackRequest(BaseModel):
    """`POST /adapters/{name}/rollback`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[int, Field(ge=1, lt=10**9, strict=True)] = Field(description="the version to go back to")


class SettingsRequest(BaseModel):
    """`PATCH /adapters/{name}`. What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pinned: StrictBool = Field(False, description="kept on the device as long as others can give way")
    merge: Literal["auto", "always", "never"] = Field("auto", description="whether it gets merged weights of its own")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def etag(version: Version) -> dict[str, str]:
    """The header that `If-Match` is held against."""
    return {"ETag": f'"{version.digest}"'}


@router.get("/adapters/{name}/versions")
async def versions(request: Request, name: str) -> dict[str, Any]:
    """Every version of a name, newest first."""
    registry = _service(request).registry
    await run_in_threadpool(registry.log.refresh)
    newest = await run_in_threadpool(registry.resolve, name)
    return {"versions": [registry.show(version) for version in registry.catalog.versions(newest.name)]}


@router.post("/adapters/{name}/rollback", status_code=201, dependencies=[Depends(require_admin)])
async def rollback(request: Request, name: str, body: RollbackRequest, if_match: Match = None) -> JSONResponse:
    """Make an old version's content the newest version again."""
    service = _service(request)
    version, new = await run_in_threadpool(service.changes.rollback, name, body.version, if_match)
    headers = {"Location": f"/adapters/{version.name}", **etag(version)}
    return JSONResponse(service.registry.show(version), 201 if new else 200, headers)


@router.patch("/adapters/{name}", dependencies=[Depends(require_admin)])
async def configure(
    request: Request, response: Response, name: str, body: SettingsRequest, if_match: Match = None
) -> dict[str, Any]:
    """Change the settings of a name."""
    service = _service(request)
    changes = body.model_dump(exclude_unset=True)
    version = await run_in_threadpool(service.changes.configure, name, changes, if_match)
    service.follower.wake()
    response.headers.update(etag(version))
    return service.registry.show(version)


@router.get("/adapters/{reference}/stats")
async def stats(request: Request, reference: str) -> dict[str, Any]:
    """What changes by itself, of one version in this process: where it is, and how often it was asked for."""
    service = _service(request)
    version = await run_in_threadpool(service.registry.resolve, reference)
    return stats_of(service, version)


@router.get("/adapters/{reference}/download", response_class=StreamingResponse)
async def download(request: Request, reference: str) -> StreamingResponse:
    """A version's content as a .zip that can be uploaded again."""
    registry = _service(request).registry
    version = await run_in_threadpool(registry.resolve, reference)
    file = await run_in_threadpool(registry.export, version)
    headers = {
        "Content-Length": str(os.fstat(file.fileno()).st_size),
        "Content-Disposition": f'attachment; filename="{version.name}-{version.version}.zip"',
        **etag(version),
    }
    return StreamingResponse(_chunks(file), 200, headers, "application/zip")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
