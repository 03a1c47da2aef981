"""Answers that are sent in parts, at the pace of their clients."""

import asyncio
from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import ExitStack, suppress

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.access.body_limit import LEAST_BYTES_PER_SECOND


class InParts(StreamingResponse):
    """An answer, and what is held until the client has it, has gone, or takes it too slowly."""

    def __init__(
        self,
        parts: AsyncIterable[bytes] | Iterable[bytes],
        headers: Mapping[str, str],
        media_type: str,
        seconds: float,
        held: ExitStack,
    ) -> None:
        """seconds: for all of it, and one more for each 64 KiB that was taken."""
        super().__init__(parts, 200, headers, media_type)
        self._seconds, self._held = seconds, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. One that returns before it has sent all has its connection closed."""
        with self._held, suppress(TimeoutError):
            async with asyncio.timeout(self._seconds) as limit:

                async def paced(message: Message) -> None:
                    await send(message)
                    taken = len(message.get("body", b"")) / LEAST_BYTES_PER_SECOND
                    if not limit.expired():
                        limit.reschedule((limit.when() or 0.0) + taken)

                await super().__call__(scope, receive, paced)
