"""Limits on a request's head, its time and its size, and on an answer that nobody takes. uvicorn has none of its own.

A connection has so many seconds to send a head, from its opening or from the first byte after a request; as many to
send the rest of a body that was answered unread; and so many bytes of head. What waits to be taken of an answer has
the time of a body of its size. Then the connection is closed.
"""

from asyncio import Transport
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.access.body_limit import LEAST_BYTES_PER_SECOND
from app.settings import Settings

_LINE = 4  # bytes that a header line has beside its name and value


class HeadTooLargeError(Exception):
    """Stops the parser."""


class Guarded(HttpToolsProtocol):
    """uvicorn's protocol with these limits. `guarded` makes the class for a server's settings."""

    head_seconds: float
    head_bytes: int
    answer_seconds: float

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._timer: TimerHandle | None = None
        self._untaken: TimerHandle | None = None
        self._received = 0  # since the last head was whole
        self._heads = 0
        self._begun = False  # a head
        self._between = True  # no message has a whole head and no end
        self._too_large = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A head is due."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._stop_timer()
        self._taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and see what is due."""
        between, heads = self._between, self._heads
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        part_of_head = self._between and (self._begun or (between and heads == self._heads))
        if part_of_head and self._received > self.head_bytes:
            self._refuse_head()
        elif part_of_head or self._unread:
            self._start_timer()
        else:
            self._stop_timer()

    def pause_writing(self) -> None:
        """Much of an answer waits to be taken; what is never taken is dropped with its connection."""
        super().pause_writing()
        seconds = self.answer_seconds + self.transport.get_write_buffer_size() / LEAST_BYTES_PER_SECOND
        self._untaken = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It was taken."""
        self._taken()
        super().resume_writing()

    def _taken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    @property
    def _unread(self) -> bool:
        """Whether a request was answered whose body is still coming."""
        return not self._between and self.cycle is not None and self.cycle.response_complete

    def on_message_begin(self) -> None:
        """A head begins."""
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._begun, self._between, self._received = False, False, 0
        self._heads += 1
        if len(self.url) + sum(len(name) + len(value) + _LINE for name, value in self.headers) > self.head_bytes:
            self._too_large = True
            raise HeadTooLargeError
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A body is whole; where its request was answered before, the connection is idle from now on."""
        answered = self._unread
        self._between, self._received = True, 0
        super().on_message_complete()
        if answered:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """A request is answered; the rest of its body is due."""
        super().on_response_complete()
        if self._unread and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._start_timer()

    def send_400_response(self, msg: str) -> None:
        """What the parser gave up on; 431 where it was told to."""
        if self._too_large:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def _unsupported_upgrade_warning(self) -> None:
        """Who asks for WebSocket is answered in HTTP, as HTTP allows: that is no warning, and no package is missing."""

    def _refuse_head(self) -> None:
        text = f"the request's head is over the limit of {self.head_bytes} bytes: send less".encode()
        head = f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[431] + head.encode() + text)
        self.transport.close()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:  # pipelined: it has an answer coming first
            self._start_timer()
        elif not self.transport.is_closing():
            self.transport.close()


def guarded(settings: Settings) -> type[Guarded]:
    """The protocol of a server with these settings."""
    limits = {
        "head_seconds": settings.header_timeout_seconds,
        "head_bytes": settings.max_header_bytes,
        "answer_seconds": settings.body_timeout_seconds,
    }
    return type("Guarded", (Guarded,), limits)
