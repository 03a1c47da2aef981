"""Where a server listens: taken before the start, which has much to load, and listened on after it."""

import asyncio
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lorat.errors import ConfigError


def bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of a host, bound but not listening: connections are refused.

    Raises ConfigError where the host is none of this machine's, or the port cannot be had.
    """
    with _naming(host, port):
        return asyncio.run(_bind(host, port))


async def _bind(host: str, port: int) -> list[socket.socket]:
    """As the event loop does it: which addresses, and with which options."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
    bound = [socket.socket(fileno=os.dup(one.fileno())) for one in server.sockets]
    server.close()
    return bound


def listen(listeners: Iterable[socket.socket], backlog: int) -> None:
    """Take connections from now on. Raises ConfigError where another server that was bound as well does so already."""
    for listener in listeners:
        with _naming(*listener.getsockname()[:2]):
            listener.listen(backlog)


@contextmanager
def _naming(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"LORAT_HOST {host!r}, LORAT_PORT {port}: cannot listen there: {error}") from error
