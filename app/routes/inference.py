"""`/embed`, `/classify` and `/token_classify`: shape in, engine call, shape out."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from app.answers import gone, json_response, predictions, unless_gone, vector_response, vectors
from app.auth import require_inference
from app.entities import entities
from app.errors import InvalidRequestError
from app.schemas import ClassifyRequest, EmbedRequest, Entity, ErrorBody, Prediction, TokenClassifyRequest, TokenEntity
from app.service import Options, Service
from lorat.tokenizer import Text

AdapterQuery = Annotated[str | None, Query(alias="adapter", description="`name` or `name@version`; none: the base")]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 413, 422, 424, 429, 500, 503)
}
router = APIRouter(tags=["inference"], dependencies=[Depends(require_inference)], responses=ERRORS)


@router.post("/embed", response_model=list[list[float]])
async def embed(body: EmbedRequest, request: Request, adapter: AdapterQuery = None) -> Response:
    """A vector for each input."""
    service: Service = request.app.state.service
    work = service.infer("embedding", body.items(), adapter, _options(body))
    answer = await unless_gone(request, work)
    if answer is None:
        return gone()
    return vector_response(request, vectors(answer, body.normalize, body.dimensions), answer.headers)


@router.post("/classify", response_model=list[Prediction] | list[list[Prediction]])
@router.post("/predict", response_model=list[Prediction] | list[list[Prediction]])
async def classify(body: ClassifyRequest, request: Request, adapter: AdapterQuery = None) -> Response:
    """Labels with scores for each input, highest first."""
    service: Service = request.app.state.service
    texts = [_text(item, position) for position, item in enumerate(body.items())]
    answer = await unless_gone(request, service.infer("sequence_classification", texts, adapter, _options(body)))
    if answer is None:
        return gone()
    assert answer.bound is not None and answer.bound.content.head is not None
    rows = predictions(answer.outputs, answer.bound.content.head, body.raw_scores)
    return json_response(rows[0] if body.single else rows, answer.headers)


@router.post("/token_classify", response_model=list[list[Entity]] | list[list[TokenEntity]])
async def token_classify(body: TokenClassifyRequest, request: Request, adapter: AdapterQuery = None) -> Response:
    """The entities of each text, in its order; without `aggregate`, each of its tokens with its label."""
    service: Service = request.app.state.service
    texts = body.items()
    answer = await unless_gone(request, service.infer("token_classification", texts, adapter, _options(body)))
    if answer is None:
        return gone()
    assert answer.bound is not None and answer.bound.content.head is not None
    head = answer.bound.content.head
    found = [
        entities(text, logits, tokens.spans or [], head, body.aggregate)
        for text, logits, tokens in zip(texts, answer.outputs, answer.tokens, strict=True)
    ]
    return json_response(found, answer.headers)


def _options(body: EmbedRequest | ClassifyRequest | TokenClassifyRequest) -> Options:
    return Options(body.truncate, body.truncation_direction, body.prompt_name)


def _text(item: list[str], position: int) -> Text:
    if len(item) == 1:
        return item[0]
    if len(item) == 2:
        return item[0], item[1]
    raise InvalidRequestError(f"input {position} has {len(item)} texts: one text, or two for a pair")
