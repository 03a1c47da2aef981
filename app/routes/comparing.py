"""`/similarity` and `/rerank`: one text against others."""

from fastapi import APIRouter, Depends, Request, Response

from app.access.auth import require_inference
from app.access.gated import Gated
from app.answers import headers_of, json_response, scores_of, similarities
from app.routes.asking import ERRORS, Adapters, ask_one, one, service_of
from app.schemas.inference import Manners, Rank, RerankRequest, SimilarityRequest
from app.service import Answer
from lorat.errors import NoHeadError

router = APIRouter(tags=["inference"], route_class=Gated, dependencies=[Depends(require_inference)], responses=ERRORS)


@router.post("/similarity", response_model=list[float])
async def similarity(body: SimilarityRequest, request: Request, adapter: Adapters = None) -> Response:
    """The cosine of the source sentence with each of the sentences."""
    sentences, manners = body.inputs.items(), body.parameters or Manners()
    answer = await ask_one(request, "embedding", sentences, one(adapter), manners, "inputs.sentences")
    return json_response(similarities(answer), headers_of([answer]))


@router.post("/rerank", response_model=list[Rank], response_model_exclude_none=True)
async def rerank(body: RerankRequest, request: Request, adapter: Adapters = None) -> Response:
    """The texts by how well they fit the query, best first: a classifier of pairs with one label."""
    pairs = [(body.query, text) for text in body.texts]
    reference = one(adapter) or service_of(request).settings.reranker
    answer = await ask_one(request, "sequence_classification", pairs, reference, body, "texts")
    return json_response(_ranks(answer, body), headers_of([answer]))


def _ranks(answer: Answer, body: RerankRequest) -> list[dict[str, object]]:
    labels = answer.head.labels
    if len(labels) != 1:
        raise NoHeadError(f"{answer.chosen.adapter!r} has {len(labels)} labels: rerank with an adapter that has one")
    scores = scores_of(answer, "none" if body.raw_scores else None)[:, 0].tolist()
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    texts = [{"text": text} if body.return_text else {} for text in body.texts]
    return [{"index": place, "score": scores[place], **texts[place]} for place in order]
