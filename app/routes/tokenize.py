"""`/tokenize`: what the base's tokenizer makes of a text."""

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.access.auth import caller_of, require_inference
from app.access.gated import Gated
from app.answers import json_response
from app.routes.asking import ERRORS, Adapters, one, require_some, service_of, version_named
from app.schemas.inference import SimpleToken, TokenizeRequest
from lorat.tokenizer import Piece

router = APIRouter(tags=["inference"], route_class=Gated, dependencies=[Depends(require_inference)], responses=ERRORS)


@router.post("/tokenize", response_model=list[list[SimpleToken]])
async def tokenize(body: TokenizeRequest, request: Request, adapter: Adapters = None) -> Response:
    """Each text's tokens, however many they are, the same for every adapter; offsets in characters."""
    await version_named(request, one(adapter))
    texts = body.items()
    require_some(texts)
    found = await service_of(request).pieces(texts, body.add_special_tokens, caller_of(request))
    return await run_in_threadpool(_response, found)


def _response(found: list[list[Piece]]) -> Response:
    return json_response([[piece._asdict() for piece in pieces] for pieces in found], {})
