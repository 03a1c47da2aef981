"""A request that is cut off says by whom."""

import asyncio
from types import SimpleNamespace

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect

from app.answers import unless_gone
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
