"""From outputs to response bodies."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any, Literal, TypeVar

import numpy as np
import orjson
import torch
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from torch import Tensor

from app.accept import prefers
from app.engine.jobs import Array
from app.entities import entities
from app.errors import InvalidRequestError, UnavailableError
from app.observe.exchange import CLIENT_GONE
from app.sending import InParts
from app.service import Answer
from lorat.pooling import finish

T = TypeVar("T")
Scoring = Literal["sigmoid", "softmax", "none"]
SCORINGS: dict[Scoring, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda logits: logits.softmax(-1),
    "none": lambda logits: logits,
}
_PART = 16_384  # numbers: some milliseconds
_GONE = "the client has gone"
_STOPPED = "the server stopped before the answer was ready: send the request again"


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled where the client goes or the server ends first.

    Raises ClientDisconnect, UnavailableError.
    """
    working, waiting = asyncio.current_task(), True
    assert working

    def leave(watching: asyncio.Future[None]) -> None:
        if waiting and not watching.cancelled():
            working.cancel(_GONE)

    watching = asyncio.ensure_future(_disconnected(request))
    watching.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError as reason:
        gone = reason.args == (_GONE,)
        if not gone and request.app.state.service.ready:
            raise
        working.uncancel()
        raise (ClientDisconnect() if gone else UnavailableError(_STOPPED)) from None
    finally:
        waiting = False
        watching.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def gone() -> Response:
    """What is logged, and nobody reads, when the client has gone."""
    return Response(status_code=CLIENT_GONE)


def headers_of(answers: Sequence[Answer]) -> dict[str, str]:
    """What computed an answer, and how long its stages took: the longest, in milliseconds."""
    times = {stage: max(answer.times[stage] for answer in answers) for stage in answers[0].times}
    return {
        "X-Lorat-Adapter": ",".join(answer.chosen.adapter for answer in answers),
        "X-Lorat-Digest": ",".join(f"sha256:{answer.chosen.digest}" for answer in answers),
        "X-Compute-Tokens": str(count_tokens(answers)),
        **{f"X-{stage}-Time": f"{seconds * 1000:.3f}" for stage, seconds in times.items()},
    }


def count_tokens(answers: Sequence[Answer]) -> int:
    """Tokens that were computed, special ones included."""
    return sum(len(tokens) for answer in answers for tokens in answer.tokens)


def vectors(answer: Answer, normalize: bool, dimensions: int | None) -> Array:
    """(inputs, dimensions) float32: cut, then normalised. Raises InvalidRequestError for too many dimensions."""
    stacked = np.stack(answer.outputs)
    if dimensions and dimensions > stacked.shape[1]:
        raise InvalidRequestError(
            f"dimensions={dimensions}: these vectors have {stacked.shape[1]}, ask for at most that", "dimensions"
        )
    return finish(stacked, dimensions, normalize)


def vector_response(request: Request, values: Array, headers: dict[str, str]) -> Response:
    """JSON, or raw little-endian float32 where the client accepts `application/octet-stream`: the same bits."""
    if prefers(request.headers.get("accept", ""), "application/octet-stream", "application/json"):
        shape = ",".join(map(str, values.shape))
        return Response(values.astype("<f4").tobytes(), 200, {**headers, "X-Shape": shape}, "application/octet-stream")
    return arrays_response(request, values, headers)


def arrays_response(
    request: Request, arrays: Array | Sequence[Array], headers: dict[str, str], held: ExitStack | None = None
) -> Response:
    """As `json_response`; a large one is written as its client takes it, and others have their turn between its parts.

    held: what is let go once it is sent.
    """
    held = held or ExitStack()
    if sum(array.size for array in arrays) <= _PART:
        held.close()
        return json_response(arrays, headers)
    seconds = request.app.state.settings.body_timeout_seconds
    return InParts(_in_parts(arrays), headers, "application/json", seconds, held)


def json_response(content: Any, headers: dict[str, str]) -> Response:
    """A JSON body, written once: arrays as they are, float32 in the fewest digits that read back as the same bits."""
    return Response(_written(content), 200, headers, "application/json")


def _written(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


async def _in_parts(values: Array | Sequence[Array]) -> AsyncIterator[bytes]:
    if isinstance(values, np.ndarray) and values.size <= _PART:
        yield _written(values)
        return
    before = b"["
    for value in values:
        async for part in _in_parts(value):
            yield before + part
            before = b""
        before = b","
        await asyncio.sleep(0)
    yield b"]"


def scores_of(answer: Answer, function: Scoring | None = None) -> Tensor:
    """(inputs, labels) float32. function: from logits to scores, None for what the adapter was trained for."""
    logits = torch.from_numpy(np.stack(answer.outputs))
    return answer.head.scores(logits) if function is None else SCORINGS[function](logits)


def predictions(answer: Answer, function: Scoring | None = None) -> list[list[dict[str, Any]]]:
    """Labels with scores for each input, highest first."""
    ordered = scores_of(answer, function).sort(dim=1, descending=True, stable=True)
    labels = answer.head.labels
    return [
        [{"score": score, "label": labels[place]} for score, place in zip(row, places, strict=True)]
        for row, places in zip(ordered.values.tolist(), ordered.indices.tolist(), strict=True)
    ]


def entities_of(
    texts: Sequence[str], answer: Answer, aggregate: bool, ignored: Collection[str] | None = None
) -> list[list[dict[str, Any]]]:
    """Each text's entities, or its tokens: see `entities`."""
    rows = zip(texts, answer.outputs, answer.tokens, strict=True)
    return [
        entities(text, logits, tokens.spans or [], answer.head, aggregate, ignored) for text, logits, tokens in rows
    ]


def similarities(answer: Answer) -> Array:
    """Cosines of the first input with each of the others, float32."""
    unit = vectors(answer, True, None)
    cosines: Array = unit[1:] @ unit[0]
    return cosines
