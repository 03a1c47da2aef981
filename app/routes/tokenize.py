"""`/tokenize`: what the base's tokenizer makes of a text."""

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.access.auth import require_inference
from app.access.gated import Gated
from app.answers import json_response
from app.errors import EmptyInputError
from app.routes.asking import ERRORS, service_of
from app.schemas.inference import SimpleToken, TokenizeRequest
from lorat.tokenizer import Tokenizer

router = APIRouter(tags=["inference"], route_class=Gated, dependencies=[Depends(require_inference)], responses=ERRORS)


@router.post("/tokenize", response_model=list[list[SimpleToken]])
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """Each text's tokens, however many they are; offsets in characters."""
    if not body.items():
        raise EmptyInputError("`inputs` is empty: send at least one input")
    tokenizer = service_of(request).model.base.tokenizer
    return json_response(await run_in_threadpool(_pieces, tokenizer, body), {})


def _pieces(tokenizer: Tokenizer, body: TokenizeRequest) -> list[list[dict[str, object]]]:
    found = tokenizer.pieces(body.items(), add_special_tokens=body.add_special_tokens)
    return [[piece._asdict() for piece in pieces] for pieces in found]
