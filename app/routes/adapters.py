"""`/adapters`: upload, list, show, delete."""

from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData, UploadFile

from app.access.auth import caller_of, require_admin, require_inference
from app.access.gated import Gated
from app.adapters.preconditions import Conditions
from app.adapters.registry import Registry
from app.adapters.temporary import temporary_room
from app.adapters.upload_archive import Received
from app.errors import UploadError
from app.routes.asking import ERRORS, service_of
from app.routes.versions import CHANGED, CONDITIONAL, Match, etag
from app.schemas.adapters import DryRun, Page, Record
from app.store.catalog import Version
from lorat.adapter import Task

router = APIRouter(tags=["adapters"], route_class=Gated, dependencies=[Depends(require_inference)], responses=ERRORS)
_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["name", "files"],
                    "properties": {
                        "name": {"type": "string"},
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                }
            }
        },
    }
}


@router.post(
    "/adapters",
    status_code=201,
    response_model=Record,
    responses=CHANGED | {200: {"model": Record | DryRun, "description": "Nothing new, or a dry run"}},
    dependencies=[Depends(require_admin)],
    openapi_extra=_UPLOAD_BODY,
)
async def upload(
    request: Request,
    replace: bool = False,
    dry_run: bool = False,
    if_match: Match = None,
    if_none_match: Match = None,
) -> JSONResponse:
    """Check an adapter and serve it under a name: the files of its directory, or one archive of it."""
    service = service_of(request)
    conditions = Conditions(if_match, if_none_match, replace)
    with service.limits.uploads.held(), temporary_room():
        async with request.form(max_files=1000, max_fields=10) as form:
            name, received = _fields(form)
            caller_of(request).require(name)
            done = await run_in_threadpool(service.changes.upload, name, received, conditions, dry_run=dry_run)
    ignored = {"ignored": list(done.ignored)} if done.ignored else {}
    if not dry_run:
        service.serve(name)
    if done.version is None:
        return JSONResponse({"name": name, "dry_run": True, **done.record, **ignored})
    headers = {"Location": f"/adapters/{done.version.name}", **etag(done.version)}
    return JSONResponse({**service.registry.show(done.version), **ignored}, 201 if done.new else 200, headers)


def _fields(form: FormData) -> tuple[str, Received]:
    """The name and the files of an upload. Raises UploadError for any other form."""
    unknown = sorted(set(form) - {"name", "files"})
    if unknown:
        raise UploadError(f"the form has the unknown field {unknown[0]!r}: send `name` and `files`")
    names, files = form.getlist("name"), form.getlist("files")
    if len(names) > 1:
        raise UploadError(f"the form has the field `name` {len(names)} times: send it once")
    if not (names and isinstance(names[0], str) and files):
        raise UploadError("the form must have the text field `name` and at least one file in `files`")
    received = [(file.filename or "", file.file) for file in files if isinstance(file, UploadFile)]
    if len(received) < len(files):
        raise UploadError("the form has text in the field `files`: send files there, each with its name")
    return names[0], received


@router.get("/adapters", response_model=Page, response_model_exclude_unset=True)
async def listing(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: str | None = None,
    task: Task | None = None,
    tag: str | None = None,
) -> dict[str, Any]:
    """The newest version of each adapter, by name; `next` continues the list with `?after=`."""
    registry, may = service_of(request).registry, caller_of(request).may
    return await run_in_threadpool(_page, registry, after, limit, lambda v: may(v.name) and _wanted(v, task, tag))


def _page(registry: Registry, after: str | None, limit: int, wanted: Callable[[Version], bool]) -> dict[str, Any]:
    registry.log.refresh()
    found = list(islice(filter(wanted, registry.catalog.list(after)), limit + 1))
    shown = found[:limit]
    return {
        "adapters": [registry.show(version) for version in shown],
        "next": shown[-1].name if len(found) > limit else None,
    }


def _wanted(version: Version, task: Task | None, tag: str | None) -> bool:
    return task in (None, version.record["task"]) and (tag is None or tag in version.record["tags"])


@router.get("/adapters/{name}", response_model=Record, response_model_exclude_unset=True)
async def record(request: Request, name: str, response: Response) -> dict[str, Any]:
    """One adapter: `name` (its newest version) or `name@version`."""
    registry = service_of(request).registry
    version = await run_in_threadpool(registry.resolve, name)
    response.headers.update(etag(version))
    return registry.show(version)


@router.delete("/adapters/{name}", status_code=204, responses=CONDITIONAL, dependencies=[Depends(require_admin)])
async def delete(request: Request, name: str, if_match: Match = None, if_none_match: Match = None) -> None:
    """End a name, or one version of it; requests already admitted finish."""
    service = service_of(request)
    await run_in_threadpool(service.changes.delete, name, Conditions(if_match, if_none_match))
    service.serve(name)
