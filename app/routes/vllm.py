"""vLLM's routes: `/v1/classify`, `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, with its texts and statuses."""

import time
import uuid
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse

from app.access.auth import caller_of, require_admin, require_all_names, require_inference
from app.access.gated import Gated
from app.adapters.temporary import temporary_room
from app.answers import headers_of, json_response, scores_of
from app.errors import ForbiddenError, NoRoomError, OverloadedError, StoreError, UnknownAdapterError
from app.names import number_of
from app.routes.asking import Adapters, ask_one, one, service_of
from app.routes.loading import AlreadyLoadedError, NoAdapterError, load_directory
from app.routes.openai import ERRORS, reference_of, usage
from app.schemas.inference import Manners
from app.schemas.openai import Classification, ClassificationRequest, LoadRequest, UnloadRequest
from app.service import Answer
from lorat.errors import LoratError

router = APIRouter(
    prefix="/v1", tags=["vllm"], route_class=Gated, dependencies=[Depends(require_inference)], responses=ERRORS
)
DONE: dict[int | str, dict[str, Any]] = {
    200: {"description": "Done", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.post("/classify", response_model=Classification)
async def classify(body: ClassificationRequest, request: Request, adapter: Adapters = None) -> Response:
    """The most likely label of each input, and the probabilities of all."""
    reference = reference_of(service_of(request), body.model, one(adapter))
    answer = await ask_one(request, "sequence_classification", body.items(), reference, Manners(), "input")
    content = {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": body.model or reference,
        "data": _data(answer),
        "usage": usage(answer),
    }
    return json_response(content, headers_of([answer]))


def _data(answer: Answer) -> list[dict[str, Any]]:
    labels = answer.head.labels
    rows = scores_of(answer).tolist()
    return [
        {"index": index, "label": labels[row.index(max(row))], "probs": row, "num_classes": len(labels)}
        for index, row in enumerate(rows)
    ]


@router.post(
    "/load_lora_adapter",
    response_class=Response,
    responses=DONE,
    dependencies=[Depends(require_admin), Depends(require_all_names)],
)
async def load(body: LoadRequest, request: Request) -> Response:
    """Serve the adapter in a directory below `LORAT_LORA_DIR` under a name. It goes into the store, as an upload.

    Whose the directories are is not known here, so only a key that opens all names may read them.
    """
    if not body.lora_name or not body.lora_path:
        return _refuse(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
    service = service_of(request)
    try:
        with service.limits.uploads.held(), temporary_room():
            await run_in_threadpool(load_directory, service, body.lora_name, body.lora_path, body.load_inplace)
    except AlreadyLoadedError as error:
        return _refuse(400, "InvalidUserInput", str(error))
    except NoAdapterError as error:
        return _refuse(404, "NotFoundError", str(error))
    except (StoreError, ForbiddenError, NoRoomError, OverloadedError):
        raise
    except LoratError as error:
        return _refuse(400, "BadRequestError", str(error))
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


@router.post("/unload_lora_adapter", response_class=Response, responses=DONE, dependencies=[Depends(require_admin)])
async def unload(body: UnloadRequest, request: Request) -> Response:
    """Stop serving a name in this process until it is loaded again, or has a newer version. The store keeps it."""
    if not body.lora_name:
        return _refuse(400, "InvalidUserInput", "'lora_name' needs to be provided to unload a LoRA adapter.")
    if number_of(body.lora_name) is not None:
        return _refuse(
            400, "InvalidUserInput", "'lora_name' is one version: only a name is unloaded, with all of them."
        )
    caller_of(request).require(body.lora_name)
    service = service_of(request)
    try:
        service.unload(await service.version_of(body.lora_name))
    except UnknownAdapterError:
        return _refuse(404, "NotFoundError", f"The lora adapter '{body.lora_name}' cannot be found.")
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


def _refuse(status: int, kind: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)
