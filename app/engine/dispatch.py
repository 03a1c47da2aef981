"""Who runs what next: the queue as threads see it, and the express.

An adapter floods while more of its work waits than a batch holds. What little others have does not wait for it: a
worker takes it in a batch of its own, before the flood's next; and while all are busy with floods, one more worker
takes it, the express (on a CPU only), whose thread goes before theirs. A worker that has just done so takes the flood's
next, for others may always have something. Where they have much as well, all take turns.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence, Set
from concurrent.futures import Future

from app.engine.batching import Queue
from app.engine.jobs import Job
from app.engine.orders import Order
from app.engine.underway import Pass, UnderWay
from app.errors import UnavailableError

EXPRESS = "engine-express"
_CLOSED = "the server is shutting down: send the request to another one"
_LEAST_TOKENS = 64  # fewer keep the matrix library from its pace
_LONG_TEXT = 256  # tokens that sentence encoders take at most


class Dispatch:
    """Waiting work and orders, handed to workers by name. Safe to use from any thread."""

    def __init__(
        self,
        max_tokens: int,
        slots: int,
        workers: int,
        *,
        express: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """max_tokens: of one batch. slots: for the adapters of all batches at a time; each worker has its share.

        clock: in seconds.
        """
        workers = min(workers, slots)
        express = express and slots > workers
        self.workers = [f"engine-{number}" for number in range(workers)]
        """Those without the express."""
        self.names = [*self.workers, EXPRESS] if express else self.workers
        self._express_slots = max(1, min(slots // 8, slots - workers)) if express else 0
        self._flood = max_tokens
        self._little = max(max_tokens // 4, _LONG_TEXT)  # tokens that the express takes
        self._queue: Queue[Job] = Queue(max_tokens, (slots - self._express_slots) // workers)
        self._orders: deque[Order] = deque()
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._wake_express = threading.Condition(self._lock)
        self._open = True
        self._clock = clock
        self._apart: set[str] = set()  # workers whose last batch passed a flood by
        self._obeying: dict[str, Order] = {}  # the order that a worker has, until it asks for more
        self.under_way = UnderWay()
        self.computed = 0
        """Tokens of all batches that ended."""

    @property
    def open(self) -> bool:
        """Whether it takes work."""
        return self._open

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        return self._queue.tokens

    @property
    def inputs(self) -> int:
        """Inputs that wait."""
        return len(self._queue)

    @property
    def requests(self) -> int:
        """Requests that have inputs that wait."""
        with self._lock:
            return self._queue.requests

    def put(self, jobs: Sequence[Job]) -> None:
        """Queue the inputs of a request. Raises UnavailableError when closed."""
        with self._lock:
            if not self._open:
                raise UnavailableError(_CLOSED)
            self._queue.put(jobs)
            self._wake.notify(len(jobs))
            self._call_express()

    def order(self, work: Callable[[], object]) -> "Future[None]":
        """Have a worker do something between two batches. When closed the future fails with UnavailableError."""
        order = Order(work)
        with self._lock:
            if self._open:
                self._orders.append(order)
                self._wake.notify()
            else:
                order.fail(UnavailableError(_CLOSED))
        return order.done

    def close(self) -> None:
        """Take no more work; workers end when nothing waits."""
        with self._lock:
            self._open = False
            self._wake.notify_all()
            self._wake_express.notify_all()

    def abandon(self, error: Exception) -> None:
        """Fail what waits and what is under way, orders as well."""
        with self._lock:
            jobs = self._queue.clear() + self.under_way.jobs()
            orders = [*self._orders, *self._obeying.values()]
            self._orders.clear()
        for job in jobs:
            job.call.fail(error)
        for order in orders:
            order.fail(error)

    def next(self, worker: str) -> tuple[Order | None, list[Job]] | None:
        """An order or a batch, once there is something for this worker; None when closed and nothing waits.

        An order may take long, so no batch comes with it: what waits meanwhile is for the others. After an order comes
        a batch, if there is one. It is under way until `end`.
        """
        with self._lock:
            while True:
                order, batch = (None, self._express()) if worker == EXPRESS else self._order_or_batch(worker)
                if batch:
                    self._begin(worker, batch)
                if order or batch:
                    return order, batch
                if not self._open:
                    return None
                (self._wake_express if worker == EXPRESS else self._wake).wait()

    def end(self, worker: str) -> None:
        """A worker's batch is done."""
        with self._lock:
            self.computed += self.under_way.end(worker, self._clock()).tokens

    def _order_or_batch(self, worker: str) -> tuple[Order | None, list[Job]]:
        batch = self._take(worker) if worker in self._obeying or not self._orders else []
        self._obeying.pop(worker, None)
        if batch or not self._orders:
            return None, batch
        self._obeying[worker] = self._orders.popleft()
        return self._obeying[worker], []

    def _take(self, worker: str) -> list[Job]:
        share = self._share(worker)
        floods = self._floods()
        if worker in self._apart:
            self._apart.discard(worker)
            floods = self._queue.adapters - floods if floods else floods
        elif floods:
            self._apart.add(worker)
        taken = self._queue.take(_wanted, share, without=floods)
        return taken or self._queue.take(_wanted, share)  # all of those may have been cancelled

    def _share(self, worker: str) -> int:
        """Tokens of a worker's next batch: as many as one may have; of what is left for two turns or one, equal parts.

        So there are large batches where there is work, and at its end no worker waits long for another's. While all
        others run, a quarter of a batch is the least: less takes longer to begin than it spares.
        """
        load = self._queue.tokens + self.under_way.left(self.workers, self._clock())
        turns = math.ceil(load / (self._queue.max_tokens * len(self.workers)))
        if turns > 2:
            return self._queue.max_tokens
        others_run = self.under_way.all_run(name for name in self.workers if name != worker)
        least = self._queue.max_tokens // 4 if others_run else _LEAST_TOKENS
        return max(least, math.ceil(load / (max(1, turns) * len(self.workers))))

    def _express(self) -> list[Job]:
        floods = self._floods() if self.under_way.all_run(self.workers) else frozenset()
        if not floods:
            return []
        return self._queue.take(_wanted, self._little, self._express_slots, without=floods)

    def _begin(self, worker: str, batch: list[Job]) -> None:
        self.under_way.begin(worker, Pass(self._clock(), batch))
        self._call_express()

    def _call_express(self) -> None:
        if self.under_way.all_run(self.workers) and self._floods():
            self._wake_express.notify()

    def _floods(self) -> Set[Hashable | None]:
        """The adapters that flood, where others have something, but little; else none."""
        floods = self._queue.larger_than(self._flood)
        others = self._queue.tokens - self._queue.tokens_of(floods)
        return floods if 0 < others <= self._little else frozenset()


def _wanted(job: Job) -> bool:
    return job.call.wanted
