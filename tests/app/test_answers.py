"""Answers as they are written, and who cut off one that is not."""

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect

from app.answers import arrays_response, unless_gone
from app.errors import UnavailableError


def cut_off(ready, receive, cancel=None):
    """What a request raises whose work takes for ever."""

    async def run():
        app = SimpleNamespace(state=SimpleNamespace(service=SimpleNamespace(ready=ready)))
        request = Request({"type": "http", "app": app}, receive)
        working = asyncio.create_task(unless_gone(request, asyncio.Event().wait()))
        await asyncio.sleep(0.01)
        if cancel:
            working.cancel(cancel)
        return (await asyncio.gather(working, return_exceptions=True))[0]

    return asyncio.run(run())


async def stays():
    await asyncio.Event().wait()


async def goes():
    return {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("ready", "receive", "cancel", "raised"),
    [
        (True, goes, None, ClientDisconnect),
        (False, goes, None, ClientDisconnect),
        (False, stays, "the time to drain is over", UnavailableError),
        (True, stays, "somebody else", asyncio.CancelledError),
    ],
)
def test_it_is_the_client_the_server_or_somebody_else(ready, receive, cancel, raised):
    assert type(cut_off(ready, receive, cancel)) is raised


@pytest.mark.parametrize("shape", [(3, 8), (300, 384)], ids=str)
@pytest.mark.parametrize("texts", [None, 1, 3])
def test_a_large_answer_reads_as_written_at_once_and_lets_others_have_their_turn(shape, texts):
    array = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run():
        waiting = asyncio.create_task(others())
        response = await arrays_response([array] * texts if texts else array, {"X-Shape": "any"})
        waiting.cancel()
        return response

    response = asyncio.run(run())
    assert response.headers["x-shape"] == "any"
    read = np.array(json.loads(response.body), np.float32)
    assert np.array_equal(read, np.stack([array] * texts) if texts else array)
    assert turns >= (300 if array.size > 100_000 else 0)
