"""`POST /models/{name}`: a model's own URL, as Hugging Face's InferenceClient calls it. `POST /` is the base's."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from app.access.auth import require_inference
from app.access.gated import Gated
from app.answers import entities_of, headers_of, json_response, predictions, similarities, vectors
from app.engine.tokenizing import Input
from app.errors import InvalidRequestError
from app.names import BASE
from app.routes.asking import ERRORS, Adapters, ask_one, one, version_named
from app.schemas.hub import ModelRequest, Parameters
from app.schemas.inference import Entity, Prediction, SentencePairs, TokenEntity, listed
from app.service import Answer
from lorat.adapter import OUTSIDE, Task

router = APIRouter(tags=["models"], route_class=Gated, dependencies=[Depends(require_inference)], responses=ERRORS)
Answers = list[list[float]] | list[float] | list[list[Prediction]] | list[Entity | TokenEntity] | list[list[Entity]]
_MEANT_FOR: dict[str, frozenset[str]] = {
    "embedding": frozenset({"normalize", "dimensions"}),
    "sequence_classification": frozenset({"top_k", "function_to_apply"}),
    "token_classification": frozenset({"aggregation_strategy", "ignore_labels"}),
}


@router.post("/models/{name}", response_model=Answers)
async def model(body: ModelRequest, request: Request, name: str, adapter: Adapters = None) -> Response:
    """What the adapter was trained for: vectors, labels (always a list for each text), or entities."""
    if one(adapter) not in (None, name):
        raise InvalidRequestError(f"the path's {name!r} and ?adapter={one(adapter)!r} differ: send one of them")
    return await _answer(body, request, name)


@router.post("/", response_model=Answers)
async def root(body: ModelRequest, request: Request, adapter: Adapters = None) -> Response:
    """As `/models/{name}`, with the adapter as on the other routes: text-embeddings-inference answers here."""
    return await _answer(body, request, one(adapter) or BASE)


async def _answer(body: ModelRequest, request: Request, name: str) -> Response:
    version = await version_named(request, name)
    task: Task = version.record["task"] if version else "embedding"
    reference = version.reference if version else None  # the one that was looked at, whatever the name means by now
    if isinstance(body.inputs, SentencePairs):
        _check_fields(body, name, "similarity")
        answer = await ask_one(request, "embedding", body.inputs.items(), reference, body, "inputs.sentences")
        return json_response(similarities(answer), headers_of([answer]))
    _check_fields(body, name, task)
    inputs = listed(body.inputs)
    answer = await ask_one(request, task, inputs if task == "embedding" else _texts(inputs, name), reference, body)
    return json_response(_shape(body, task, inputs, answer), headers_of([answer]))


def _shape(body: ModelRequest, task: Task, inputs: list[str | list[int]], answer: Answer) -> Any:
    given = body.parameters or Parameters()
    if task == "embedding":
        return vectors(answer, body.normalize is not False, body.dimensions)
    if task == "sequence_classification":
        return [row[: given.top_k] for row in predictions(answer, given.function_to_apply)]
    ignored = [OUTSIDE] if given.ignore_labels is None else given.ignore_labels
    texts = [text for text in inputs if isinstance(text, str)]
    found = entities_of(texts, answer, given.aggregation_strategy != "none", ignored)
    return found[0] if isinstance(body.inputs, str) else found


def _texts(inputs: list[str | list[int]], name: str) -> list[Input]:
    if any(isinstance(item, list) for item in inputs):
        raise InvalidRequestError(f"{name!r} is a classifier: send texts, token ids are for embeddings")
    return list(inputs)


def _check_fields(body: ModelRequest, name: str, task: str) -> None:
    """Refuse what would change nothing, so that nobody believes that it does."""
    given = {*body.model_dump(exclude_none=True), *(body.parameters or Parameters()).model_dump(exclude_none=True)}
    for meant, fields in _MEANT_FOR.items():
        if meant != task and (wrong := sorted(fields & given)):
            raise InvalidRequestError(
                f"{wrong[0]!r} is for {meant}, this request to {name!r} is for {task}: leave it out"
            )
