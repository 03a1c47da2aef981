"""The engine: worker threads that take a batch, lease its slots, run it, resolve its requests."""

import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Hashable, Sequence, Set
from concurrent.futures import Future
from functools import partial
from operator import attrgetter

import numpy as np

from app.engine.dispatch import EXPRESS, Dispatch
from app.engine.jobs import Array, Call, Job, Output, plain
from app.engine.merging import MergePolicy
from app.engine.residency import Residency
from app.engine.tuning import share_cores
from app.errors import NotFiniteError, UnavailableError
from app.observe.metrics import Metrics
from lorat import Adapter, MultiLoRAT, Row

STUCK_SECONDS = 60.0
_NICE = 10  # workers give way by so much to the express, the event loop and the tokeniser
_BATCHES_A_CHOICE = 20  # between two looks at who should be merged
_NOT_FINITE = "this adapter's weights drive the answer out of range: train it again with a lower learning rate"
logger = logging.getLogger("lorat")


class Engine:
    """Runs inputs of any adapters and tasks together. Every request's future is resolved, whatever happens."""

    def __init__(
        self,
        model: MultiLoRAT,
        max_batch_tokens: int,
        metrics: Metrics,
        workers: int = 1,
        merge_bytes: int = 0,
        express: bool = False,
    ) -> None:
        """`workers`: forward passes at a time; each may hold as many adapters as its share of the slots.

        `merge_bytes`: memory for merged weights. `express`: one worker more, for what must not wait long.
        """
        self._model = model
        self._residency = Residency(model, metrics.loaded_to_device)
        self.max_batch_tokens = max_batch_tokens
        self._dispatch = Dispatch(max_batch_tokens, model.slots.capacity, workers, express=express)
        self._policy = MergePolicy(merge_bytes)
        self._always: Set[str] = frozenset()
        self._never: Set[str] = frozenset()
        self._batches = 0
        self._chosen_at = 0  # loads so far
        self._metrics = metrics
        self._threads = [
            threading.Thread(target=self._work, args=[name], name=name, daemon=True) for name in self._dispatch.names
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Call) -> None:
        """Queue a request that has its tokens. Its future brings an `Output` for each, or what stopped one."""
        self._dispatch.put(call.jobs())

    def forget(self, digest: str) -> None:
        """Free the slot of an adapter that is no longer served."""
        self._dispatch.order(lambda: self._residency.forget(digest))

    def prefer(self, pinned: Set[str], merged: Set[str], unmerged: Set[str] = frozenset()) -> None:
        """By digest: which adapters give way last; which compute with merged weights, and which never do.

        It holds until called again. Of the others those are merged that gain by it.
        """
        self._residency.prefer(pinned)
        self._always, self._never = merged, unmerged
        self._merge()

    def _merge(self) -> None:
        """Order what the merge policy wants changed."""
        self._chosen_at = self._residency.loads
        merged = self._residency.merged()
        chosen = self._policy.choose(self._residency.candidates(), merged, self._always, self._never)
        for digest in chosen ^ merged:
            self._dispatch.order(partial(self._residency.merge, digest, digest in chosen))

    def preload(self, digest: str, content: Adapter) -> "Future[None]":
        """Put an adapter into a slot before anyone asks for it; one that is pinned does not give way to it."""
        return self._dispatch.order(lambda: self._residency.preload(digest, content))

    def has_room(self) -> bool:
        """Whether `preload` would find a slot now."""
        return self._residency.has_room()

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
    def residency(self) -> Residency:
        """Who is in the slots."""
        return self._residency

    @property
    def queue(self) -> Dispatch:
        """What waits."""
        return self._dispatch

    @property
    def running(self) -> int:
        """Forward passes under way."""
        return len(self._dispatch.under_way)

    @property
    def resident(self) -> int:
        """Adapters in slots."""
        return len(self._residency)

    @property
    def computed(self) -> int:
        """Tokens computed so far."""
        return self._dispatch.computed

    @property
    def enough(self) -> int:
        """Tokens that give every worker a batch and the next one."""
        return 2 * self.max_batch_tokens * len(self._dispatch.workers)

    def healthy(self) -> bool:
        """Whether the workers are there and none is stuck in one batch for a minute."""
        oldest = self._dispatch.under_way.oldest()
        stuck = oldest is not None and time.perf_counter() - oldest > STUCK_SECONDS
        return self._dispatch.open and all(thread.is_alive() for thread in self._threads) and not stuck

    def close(self, timeout: float) -> None:
        """Finish what is queued, then stop. What is left after `timeout` seconds fails, whether it waits or runs."""
        self._dispatch.close()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._dispatch.abandon(UnavailableError("the server stopped before this was done: send it again"))

    def _work(self, name: str) -> None:
        self._settle(name)
        while taken := self._dispatch.next(name):
            order, batch = taken
            if order:
                order.obey()
            if batch:
                self._attend(name, batch)

    def _attend(self, name: str, batch: list[Job]) -> None:
        """Answer a batch. Whatever goes wrong, its requests end, and the worker goes on."""
        try:
            self._answer(batch)
        except BaseException as error:
            logger.exception("a worker failed in a batch of %d", len(batch))
            _fail(batch, plain(error))
        finally:
            self._dispatch.end(name)

    def _settle(self, name: str) -> None:
        """This thread's share of the machine."""
        if len(self._dispatch.names) > 1:  # nobody waits for another at a barrier
            share_cores(len(self._dispatch.workers))
        if EXPRESS in self._dispatch.names and name != EXPRESS and sys.platform == "linux":  # there it is one thread's
            os.nice(_NICE)

    def _answer(self, batch: list[Job]) -> None:
        started = time.perf_counter()
        reason: Exception
        try:
            outputs = self._run(batch)
        except Exception as error:
            logger.exception("a batch of %d failed", len(batch))
            self._metrics.batch_failed()
            failed, reason = batch, error
        else:
            failed, reason = self._resolve(batch, outputs, started), NotFiniteError(_NOT_FINITE)
        for part in _apart(batch, failed, reason):
            self._answer(part)

    def _run(self, batch: list[Job]) -> list[Array]:
        wanted = {job.call.digest: job.call.content for job in batch if job.call.digest and job.call.content}
        with self._residency.lease(wanted) as slots:
            rows = [Row(job.tokens, slots[job.adapter] if job.adapter else None, job.call.task) for job in batch]
            return [output.cpu().numpy() for output in self._model.forward(rows)]

    def _resolve(self, batch: list[Job], outputs: list[Array], started: float) -> list[Job]:
        """Hand out what is finite. Returns the others: NaN spreads to rows that are multiplied along with it."""
        seconds, overflown = time.perf_counter() - started, []
        for job, values in zip(batch, outputs, strict=True):
            if np.isfinite(values).all():
                job.call.resolve(job.index, Output(values, started - job.call.tokenized, seconds))
            else:
                overflown.append(job)
        self._observe(batch, seconds)
        return overflown

    def _observe(self, batch: list[Job], seconds: float) -> None:
        tasks = Counter(job.call.task for job in batch)
        residency = self._residency
        by_adapter: Counter[str | None] = Counter()
        by_name: Counter[str] = Counter()
        for job in batch:
            by_adapter[job.adapter] += job.size
            by_name[job.call.name] += job.size
        tokens = by_adapter.total()
        self._policy.observe(by_adapter)
        residency.count(by_adapter)
        self._batches += 1
        if self._batches % _BATCHES_A_CHOICE == 0 or (self._always and residency.loads != self._chosen_at):
            self._merge()
        self._metrics.observe_tokens(by_name)
        self._metrics.observe_batch(tasks, len(by_adapter), tokens, seconds, tokens / self.max_batch_tokens)
        logger.debug(
            "forward: %d inputs, %d tokens, %d adapters, %s, %.1f ms",
            len(batch), tokens, len(by_adapter), dict(tasks), seconds * 1000,
        )  # fmt: skip


def _apart(batch: Sequence[Job], failed: Sequence[Job], reason: Exception) -> list[list[Job]]:
    """Rows without an answer, each adapter's alone, or each request's. One that was alone already fails."""
    of = next((of for of in map(attrgetter, ("adapter", "call")) if len(set(map(of, batch))) > 1), None)
    if of is None:
        _fail(failed, reason)
        return []
    parts: dict[Hashable, list[Job]] = {}
    for job in failed:
        parts.setdefault(of(job), []).append(job)
    return list(parts.values())


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    for job in jobs:
        job.call.fail(error)
