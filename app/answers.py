"""From outputs to response bodies."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson
import torch
from fastapi import Request, Response

from app.errors import InvalidRequestError
from app.jobs import Array
from app.service import Answer
from lorat.adapter import Head
from lorat.pooling import finish

T = TypeVar("T")
CLIENT_GONE = 499
_GONE = "the client has gone"


async def unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """The result of `work`, or None where the client goes first: then the work is cancelled."""
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
        if reason.args != (_GONE,):
            raise
        working.uncancel()
        return None
    finally:
        waiting = False
        watching.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def gone() -> Response:
    """What is logged, and nobody reads, when the client has gone."""
    return Response(status_code=CLIENT_GONE)


def vectors(answer: Answer, normalize: bool, dimensions: int | None) -> Array:
    """(inputs, dimensions) float32: cut, then normalised. Raises InvalidRequestError for too many dimensions."""
    stacked = np.stack(answer.outputs)
    if dimensions and dimensions > stacked.shape[1]:
        raise InvalidRequestError(
            f"dimensions={dimensions}: these vectors have {stacked.shape[1]}, ask for at most that"
        )
    return finish(stacked, dimensions, normalize)


def vector_response(request: Request, values: Array, headers: dict[str, str]) -> Response:
    """JSON, or raw little-endian float32 where the client accepts `application/octet-stream`: the same bits."""
    if "application/octet-stream" in request.headers.get("accept", ""):
        shape = ",".join(map(str, values.shape))
        return Response(values.astype("<f4").tobytes(), 200, {**headers, "X-Shape": shape}, "application/octet-stream")
    return json_response(values, headers)


def json_response(content: Any, headers: dict[str, str]) -> Response:
    """A JSON body, written once: arrays as they are, float32 in the fewest digits that read back as the same bits."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, 200, headers, "application/json")


def predictions(logits: Sequence[Array], head: Head, raw_scores: bool) -> list[list[dict[str, Any]]]:
    """Labels with scores, highest first: softmax, or sigmoid for one label or independent ones."""
    scores = torch.from_numpy(np.stack(logits))
    if not raw_scores:
        scores = head.scores(scores)
    ordered = scores.sort(dim=1, descending=True, stable=True)
    return [
        [{"score": score, "label": head.labels[place]} for score, place in zip(row, places, strict=True)]
        for row, places in zip(ordered.values.tolist(), ordered.indices.tolist(), strict=True)
    ]
