"""A load generator that is cheap in CPU: requests written beforehand, over kept connections."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

PAUSE = 0.05
"""Seconds that a client waits after a refusal: who asks again at once is a load of its own."""
_SAMPLED, _MOST_SAMPLES = 25, 16  # one in so many answers is kept, so many in all


@dataclass(frozen=True)
class Request:
    """One POST, and what its answer must hold."""

    path: str
    body: bytes
    texts: int
    header: bytes = b""
    """A line of the answer's head, in lower case."""
    inputs: tuple[str, ...] = ()
    adapter: str | None = None

    @classmethod
    def embed(cls, texts: Sequence[str], adapter: str | None) -> "Request":
        """LoRAT's `/embed`."""
        path = f"/embed?adapter={adapter}" if adapter else "/embed"
        header = f"x-lorat-adapter: {f'{adapter}@1' if adapter else 'base'}".encode()
        return cls(path, json.dumps({"inputs": list(texts)}).encode(), len(texts), header, tuple(texts), adapter)

    @classmethod
    def openai(cls, texts: Sequence[str], model: str) -> "Request":
        """`/embeddings` of OpenAI's API."""
        return cls("/embeddings", json.dumps({"input": list(texts), "model": model}).encode(), len(texts))


@dataclass
class Seen:
    """What a load came to. Latencies are in seconds."""

    seconds: float = 0.0
    texts: int = 0
    errors: int = 0
    latencies: list[float] = field(default_factory=list)
    samples: list[tuple[Request, bytes]] = field(default_factory=list)
    """A few requests with the bodies of their answers."""

    def summary(self) -> dict[str, float]:
        """Texts a second, and percentiles in milliseconds."""
        points = np.percentile(self.latencies, [50, 95, 99]) * 1e3 if self.latencies else [float("nan")] * 3
        names = ("p50_ms", "p95_ms", "p99_ms")
        rate = {"texts_per_second": self.texts / self.seconds, "errors": float(self.errors)}
        return rate | dict(zip(names, map(float, points), strict=True))


async def closed_loop(url: str, clients: int, seconds: float, choose: Callable[[int], Request]) -> Seen:
    """So many clients, each sending its next request when it has its answer. `choose` is asked with a count."""
    seen, count = Seen(), iter(range(1 << 60))
    end = time.perf_counter() + seconds

    async def client() -> None:
        connection = await Connection.open(url)
        while time.perf_counter() < end:
            if not await _ask(connection, choose(next(count)), seen):
                await asyncio.sleep(PAUSE)
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seen.seconds = time.perf_counter() - started
    return seen


async def open_loop(url: str, rate: float, seconds: float, choose: Callable[[int], Request]) -> Seen:
    """Requests at a fixed rate, whatever the answers do; latency counts from when each was due."""
    seen, free = Seen(), list[Connection]()
    started, asking = time.perf_counter(), set[asyncio.Task[None]]()

    async def ask(number: int, due: float) -> None:
        connection = await Connection.reuse(free, url)
        await _ask(connection, choose(number), seen, due)
        free.append(connection)

    for number in range(int(rate * seconds)):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asking.add(task := asyncio.ensure_future(ask(number, due)))
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)
    seen.seconds = time.perf_counter() - started
    for connection in free:
        connection.close()
    return seen


async def _ask(connection: "Connection", request: Request, seen: Seen, due: float | None = None) -> bool:
    started = due or time.perf_counter()
    good = await connection.post(request)
    seen.latencies.append(time.perf_counter() - started)
    seen.texts += request.texts if good else 0
    seen.errors += not good
    if good and len(seen.latencies) % _SAMPLED == 0 and len(seen.samples) < _MOST_SAMPLES:
        seen.samples.append((request, connection.body))
    return good


class Connection:
    """One kept HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host
        self.body = b""
        self.head = b""

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """Connect to the server of a URL."""
        place = urlsplit(url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=1 << 24)
        return cls(reader, writer, place.netloc)

    @classmethod
    async def reuse(cls, free: "list[Connection]", url: str) -> "Connection":
        """The last one that became free, unless the server has closed it: it was idle for too long. Else a new one."""
        while free:
            connection = free.pop()
            if not connection._reader.at_eof():
                return connection
        return await cls.open(url)

    async def post(self, request: Request) -> bool:
        """Send, and read the answer whole. Returns whether it is a 200 with the header that it must have."""
        head = f"POST {request.path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(request.body)}\r\n\r\n".encode() + request.body)
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(self.head.split(b"content-length: ")[1].split(b"\r\n", 1)[0])
        self.body = await self._reader.readexactly(length)
        return self.status == 200 and request.header in self.head

    @property
    def status(self) -> int:
        """Of the last answer."""
        return int(self.head.split(b" ", 2)[1])

    def close(self) -> None:
        """Close it."""
        self._writer.close()
