"""The engine: one worker thread that takes a batch, holds its slots, runs it, resolves its futures."""

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.batching import Queue
from app.errors import NotFiniteError, UnavailableError
from app.metrics import Metrics
from app.residency import Residency
from lorat import Adapter, MultiLoRAT, Row, Tokens
from lorat.adapter import Task

Array = np.ndarray[Any, np.dtype[np.float32]]
STUCK_SECONDS = 60.0
_NOT_FINITE = "this adapter's weights drive the answer out of range: train it again with a lower learning rate"
logger = logging.getLogger("lorat")


@dataclass(frozen=True)
class Output:
    """One input's answer: a vector, or logits. Times are in seconds."""

    values: Array
    queued: float
    inference: float


@dataclass(eq=False)
class Job:
    """One input on its way: bound to an adapter (None: the base) before it is queued."""

    tokens: Tokens
    task: Task
    digest: str | None = None
    content: Adapter | None = None
    future: "Future[Output]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.perf_counter)

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.tokens)

    @property
    def adapter(self) -> str | None:
        """What a batch counts as one adapter."""
        return self.digest


class Engine:
    """Runs jobs of any adapters and tasks together. Every job's future is resolved, whatever happens."""

    def __init__(self, model: MultiLoRAT, max_batch_tokens: int, metrics: Metrics) -> None:
        self._model = model
        self._residency = Residency(model)
        self._queue: Queue[Job] = Queue(max_batch_tokens, model.slots.capacity)
        self._orders: deque[tuple[Callable[[], object], Future[None]]] = deque()
        self._wake = threading.Condition()
        self._open = True
        self._busy_since: float | None = None
        self._tokens_per_second = 1000.0
        self._metrics = metrics
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs. Their futures bring an `Output`, or the error that stopped them."""
        with self._wake:
            if not self._open:
                raise UnavailableError("the server is shutting down: send the request to another one")
            self._queue.put(jobs)
            self._wake.notify()

    def forget(self, digest: str) -> None:
        """Free the slot of an adapter that is no longer served."""
        self._order(lambda: self._residency.forget(digest))

    def prefer(self, pinned: Set[str], merged: Set[str]) -> None:
        """Which adapters give way last, and which compute with merged weights, by digest; until called again."""
        self._order(lambda: self._residency.prefer(pinned, merged))

    def preload(self, digest: str, content: Adapter) -> "Future[None]":
        """Put an adapter into a slot before anyone asks for it; one that is pinned does not give way to it."""
        return self._order(lambda: self._residency.preload(digest, content))

    def _order(self, work: Callable[[], object]) -> "Future[None]":
        done: Future[None] = Future()
        with self._wake:
            self._orders.append((work, done))
            self._wake.notify()
        return done

    def content(self, digest: str) -> Adapter | None:
        """The content of a slot, if one holds it."""
        return self._residency.content(digest)

    def digests(self) -> list[str]:
        """What the slots hold."""
        return self._residency.digests()

    def merged(self, digest: str) -> bool:
        """Whether an adapter is in a slot with merged weights."""
        return self._residency.is_merged(digest)

    @property
    def waiting(self) -> int:
        """Tokens in the queue."""
        return self._queue.tokens

    @property
    def resident(self) -> int:
        """Adapters in slots."""
        return len(self._residency)

    def seconds_to_drain(self) -> int:
        """Whole seconds, at least 1, until what waits now is done, at the pace of the last batches."""
        return max(1, math.ceil(self.waiting / self._tokens_per_second))

    def healthy(self) -> bool:
        """Whether the worker is there and not stuck in one batch for a minute."""
        busy_since = self._busy_since
        stuck = busy_since is not None and time.perf_counter() - busy_since > STUCK_SECONDS
        return self._open and self._thread.is_alive() and not stuck

    def close(self, timeout: float) -> None:
        """Finish what is queued, then stop. What is left after `timeout` seconds fails."""
        with self._wake:
            self._open = False
            self._wake.notify()
        self._thread.join(timeout)
        with self._wake:
            left = self._queue.clear()
        _fail(left, UnavailableError("the server stopped before it came to this input: send it again"))

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            self._busy_since = time.perf_counter()
            try:
                outputs = self._run(batch)
            except Exception as error:
                logger.exception("a batch of %d failed", len(batch))
                _fail(batch, error)
            else:
                self._resolve(batch, outputs)
            self._busy_since = None

    def _next(self) -> list[Job] | None:
        """The next batch, once there is one; None when the engine is closed and nothing waits."""
        while True:
            with self._wake:
                order = self._orders.popleft() if self._orders else None
                batch = self._queue.take(lambda job: job.future.set_running_or_notify_cancel())
                if not (order or batch):
                    if not self._open:
                        return None
                    self._wake.wait()
                    continue
            if order:  # one between two batches: loading many pins must not hold requests up
                _obey(*order)
            if batch:
                return batch

    def _run(self, batch: list[Job]) -> list[Array]:
        slots = self._residency.hold({job.digest: job.content for job in batch if job.digest and job.content})
        rows = [Row(job.tokens, slots[job.digest] if job.digest else None, job.task) for job in batch]
        return [output.cpu().numpy() for output in self._model.forward(rows)]

    def _resolve(self, batch: list[Job], outputs: list[Array]) -> None:
        started, now = self._busy_since or 0.0, time.perf_counter()
        for job, values in zip(batch, outputs, strict=True):
            if np.isfinite(values).all():
                job.future.set_result(Output(values, started - job.arrived, now - started))
            else:  # not JSON, and no answer; the other rows of the batch are not touched by it
                job.future.set_exception(NotFiniteError(_NOT_FINITE))
        self._observe(batch, now - started)

    def _observe(self, batch: list[Job], seconds: float) -> None:
        tasks, adapters = Counter(job.task for job in batch), {job.adapter for job in batch}
        tokens, residency = sum(job.size for job in batch), self._residency
        self._tokens_per_second += 0.1 * (tokens / max(seconds, 1e-6) - self._tokens_per_second)
        self._metrics.observe_batch(tasks, len(adapters), tokens, seconds)
        self._metrics.observe_slots(residency.loads, residency.evictions, len(residency))
        logger.debug(
            "forward: %d inputs, %d tokens, %d adapters, %s, %.1f ms",
            len(batch), tokens, len(adapters), dict(tasks), seconds * 1000,
        )  # fmt: skip


def _obey(work: Callable[[], object], done: "Future[None]") -> None:
    try:
        work()
    except Exception as error:
        logger.exception("an order to the engine failed")
        done.set_exception(error)
    else:
        done.set_result(None)


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    for job in jobs:
        try:
            job.future.set_exception(error)
        except InvalidStateError:  # its client has gone
            continue
