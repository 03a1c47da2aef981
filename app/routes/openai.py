"""OpenAI's routes: `/v1/embeddings` and `/v1/models`."""

import base64
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.access.auth import caller_of, require_inference
from app.access.caller import Caller
from app.access.gated import Gated
from app.answers import count_tokens, headers_of, json_response, vectors
from app.engine.jobs import Array
from app.errors import ConflictError, InvalidRequestError
from app.names import BASE
from app.routes.asking import Adapters, ask_one, one, service_of
from app.schemas.errors import OpenAIErrorBody
from app.schemas.inference import Manners
from app.schemas.openai import EmbeddingRequest, Embeddings, Model, Models
from app.service import Answer, Service
from app.store.catalog import Version

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": OpenAIErrorBody} for status in (400, 401, 403, 404, 408, 409, 413, 422, 424, 429, 500, 503, 504)
}
router = APIRouter(
    prefix="/v1", tags=["openai"], route_class=Gated, dependencies=[Depends(require_inference)], responses=ERRORS
)


@router.post("/embeddings", response_model=Embeddings)
async def embeddings(body: EmbeddingRequest, request: Request, adapter: Adapters = None) -> Response:
    """A vector for each input, normalised."""
    service = service_of(request)
    reference = reference_of(service, body.model, one(adapter))
    answer = await ask_one(request, "embedding", body.items(), reference, Manners(), "input")
    rows = vectors(answer, True, body.dimensions)
    data = [
        {"object": "embedding", "index": index, "embedding": _encode(row, body.encoding_format)}
        for index, row in enumerate(rows)
    ]
    named = body.model or one(adapter) or service.settings.served_name
    content = {"object": "list", "data": data, "model": named, "usage": usage(answer)}
    return json_response(content, headers_of([answer]))


def reference_of(service: Service, model: str | None, adapter: str | None) -> str | None:
    """The adapter that `model` and `?adapter=` name, None for the base.

    Raises InvalidRequestError where they differ, ConflictError where the model's name means two things.
    """
    model = BASE if model is not None and _is_base(service, model) else model
    if model is not None and adapter is not None and model != adapter:
        raise InvalidRequestError(f"model {model!r} and ?adapter={adapter!r} differ: send one of them", "model")
    return model if adapter is None else adapter


def _is_base(service: Service, name: str) -> bool:
    """Whether a name means the base. Raises ConflictError where an adapter has the base's name."""
    served = service.settings.served_name
    if name == served and service.registry.catalog.newest(served):
        raise ConflictError(
            f"{served!r} is what this server calls the base (LORAT_SERVED_NAME), and another server sharing its store "
            f"took an adapter of that name: ask for {BASE!r}, or for the adapter at /embed or /classify"
        )
    return name in (served, BASE)


def usage(answer: Answer) -> dict[str, int]:
    """Tokens that were computed, special ones included."""
    tokens = count_tokens([answer])
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _encode(row: Array, encoding: str) -> Array | str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode() if encoding == "base64" else row


@router.get("/models", response_model=Models)
async def models(request: Request) -> Response:
    """The base, and the newest version of every adapter, by name."""
    return await run_in_threadpool(_models, service_of(request), caller_of(request))


def _models(service: Service, caller: Caller) -> Response:
    service.registry.log.refresh()
    newest = service.registry.catalog.list()
    shown = [version for version in newest if version.name not in service.unloaded and caller.may(version.name)]
    data = [_base(service), *(_adapter(service, version) for version in shown)]
    return json_response({"object": "list", "data": [model.model_dump() for model in data]}, {})


@router.get("/models/{name}")
async def model(request: Request, name: str) -> Model:
    """The base, or one adapter: `name` or `name@version`."""
    service = service_of(request)
    if _is_base(service, name):
        return _base(service)
    return _adapter(service, await service.version_of(name), name)


def _base(service: Service) -> Model:
    base = service.model.base
    return Model(
        id=service.settings.served_name,
        created=service.started,
        root=base.name,
        parent=None,
        max_model_len=service.max_input_length(None),
    )


def _adapter(service: Service, version: Version, name: str | None = None) -> Model:
    return Model(
        id=name or version.name,
        created=int(datetime.fromisoformat(version.created).timestamp()),
        root=version.reference,
        parent=service.settings.served_name,
        max_model_len=service.max_input_length(version),
    )
