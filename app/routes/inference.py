"""`/embed`, `/embed_all`, `/classify` and `/token_classify`: shape in, engine call, shape out."""

from contextlib import ExitStack

from fastapi import APIRouter, Depends, Request, Response

from app.access.answer_room import most_bytes
from app.access.auth import require_inference
from app.access.gated import Gated
from app.answers import arrays_response, entities_of, headers_of, json_response, predictions, vector_response, vectors
from app.errors import InvalidRequestError
from app.routes.asking import ERRORS, Adapters, ask, ask_one, one, service_of, several, version_named
from app.schemas.inference import (
    ClassifyRequest,
    EmbedAllRequest,
    EmbedRequest,
    Entity,
    Prediction,
    TokenClassifyRequest,
    TokenEntity,
)
from lorat.tokenizer import Text

router = APIRouter(tags=["inference"], route_class=Gated, dependencies=[Depends(require_inference)], responses=ERRORS)
Vectors = list[list[float]]
Predictions = list[Prediction] | list[list[Prediction]]


@router.post("/embed", response_model=Vectors | dict[str, Vectors])
async def embed(body: EmbedRequest, request: Request, adapter: Adapters = None) -> Response:
    """A vector for each input; of several adapters by name."""
    references = several(adapter)
    answers = await ask(request, "embedding", body.items(), references, body)
    found = [vectors(answer, body.normalize, body.dimensions) for answer in answers]
    if len(found) == 1:
        return vector_response(request, found[0], headers_of(answers))
    return json_response(dict(zip(references, found, strict=True)), headers_of(answers))


@router.post("/embed_all", response_model=list[Vectors])
async def embed_all(body: EmbedAllRequest, request: Request, adapter: Adapters = None) -> Response:
    """A vector for each token of each input, special tokens included: the last hidden states."""
    service, inputs = service_of(request), body.items()
    version = await version_named(request, one(adapter))
    size = most_bytes(inputs, service.max_input_length(version), service.model.base.shape.hidden)
    with ExitStack() as held:
        held.enter_context(service.limits.token_vectors.held(size))
        answer = await ask_one(request, "hidden_states", inputs, version.reference if version else None, body)
        return arrays_response(request, answer.outputs, headers_of([answer]), held.pop_all())


@router.post("/classify", response_model=Predictions | dict[str, Predictions])
@router.post("/predict", response_model=Predictions | dict[str, Predictions])
async def classify(body: ClassifyRequest, request: Request, adapter: Adapters = None) -> Response:
    """Labels with scores for each input, highest first; of several adapters by name."""
    references = several(adapter)
    texts = [_text(item, position) for position, item in enumerate(body.items())]
    answers = await ask(request, "sequence_classification", texts, references, body)
    found = [predictions(answer, "none" if body.raw_scores else None) for answer in answers]
    shaped = [rows[0] if body.single else rows for rows in found]
    return json_response(
        shaped[0] if len(shaped) == 1 else dict(zip(references, shaped, strict=True)), headers_of(answers)
    )


@router.post("/token_classify", response_model=list[list[Entity]] | list[list[TokenEntity]])
async def token_classify(body: TokenClassifyRequest, request: Request, adapter: Adapters = None) -> Response:
    """The entities of each text, in its order; without `aggregate`, each of its tokens with its label."""
    texts = body.items()
    answer = await ask_one(request, "token_classification", texts, one(adapter), body)
    return json_response(entities_of(texts, answer, body.aggregate), headers_of([answer]))


def _text(item: list[str], position: int) -> Text:
    if len(item) == 1:
        return item[0]
    if len(item) == 2:
        return item[0], item[1]
    raise InvalidRequestError(f"input {position} has {len(item)} texts: one text, or two for a pair")
