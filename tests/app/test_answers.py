"""Answers as they are written, and who cut off one that is not."""

import asyncio
import json
import math
from contextlib import ExitStack, suppress
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


def asked():
    """A request to a server whose answers may take a minute."""
    app = SimpleNamespace(state=SimpleNamespace(settings=SimpleNamespace(body_timeout_seconds=60)))
    return Request({"type": "http", "app": app, "method": "POST"}, stays)


async def sent_by(response, taken=math.inf):
    """The parts that a client gets who takes so many of them, and then no more."""
    sent = []

    async def send(message):
        if message["type"] == "http.response.body":
            sent.append(message["body"])
        if len(sent) > taken:
            await asyncio.Event().wait()

    with suppress(TimeoutError):
        async with asyncio.timeout(None if taken == math.inf else 0.1):
            await response({"type": "http", "asgi": {"spec_version": "2.3"}}, stays, send)
    return sent


def test_a_large_answer_is_written_only_as_far_as_it_is_taken():
    array, let_go = np.ones((300, 384), np.float32), []
    with ExitStack() as held:
        held.callback(let_go.append, True)
        response = arrays_response(asked(), [array] * 4, {}, held.pop_all())
    assert len(asyncio.run(sent_by(response, taken=5))) == 6
    assert let_go, "who leaves frees what was held"


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
        response = arrays_response(asked(), [array] * texts if texts else array, {"X-Shape": "any"})
        sent = await sent_by(response)
        waiting.cancel()
        return response, sent

    response, sent = asyncio.run(run())
    assert response.headers["x-shape"] == "any"
    read = np.array(json.loads(b"".join(sent)), np.float32)
    assert np.array_equal(read, np.stack([array] * texts) if texts else array)
    assert turns >= (300 if array.size > 100_000 else 0)
