"""The request's way through the service: bind → tokenise → queue → answer."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.catalog import Version
from app.changes import Changes
from app.engine import Engine
from app.errors import EmptyInputError, InvalidRequestError, OverloadedError
from app.follow import Follower
from app.jobs import Array, Call, Output
from app.metrics import Metrics
from app.registry import Bound, Registry
from app.settings import Settings
from app.tokenizing import Input, Manner, Tokenizing
from app.usage import Usage
from lorat import Adapter, MultiLoRAT, Tokens, __version__
from lorat.adapter import Task
from lorat.errors import NoHeadError
from lorat.tokenizer import Direction

TOKENIZER_THREADS = 1


@dataclass(frozen=True)
class Options:
    """How inputs become tokens."""

    truncate: bool | None = None
    direction: Direction = "right"
    prompt_name: str | None = None


@dataclass(frozen=True)
class Answer:
    """The outputs of a request, in the order of its inputs, and the headers that say how they came."""

    outputs: list[Array]
    call: Call
    bound: Bound | None
    headers: dict[str, str]

    @property
    def tokens(self) -> list[Tokens]:
        """What was computed, with spans where the task is token classification."""
        return [job.tokens for job in self.call.jobs]


class Service:
    """Everything that answers a request, made once per process."""

    def __init__(
        self,
        settings: Settings,
        model: MultiLoRAT,
        registry: Registry,
        changes: Changes,
        follower: Follower,
        usage: Usage,
        engine: Engine,
        metrics: Metrics,
    ) -> None:
        self.settings = settings
        self.model = model
        self.registry = registry
        self.changes = changes
        self.follower = follower
        self.usage = usage
        self.engine = engine
        self.metrics = metrics
        self.fingerprint = model.fingerprint()
        self.ready = True
        self._running = 0
        self._tokenizing = Tokenizing(model.base, engine.submit, TOKENIZER_THREADS)
        metrics.gauge("lorat_queue_tokens", "Tokens waiting", lambda: engine.waiting)
        metrics.gauge("lorat_running_requests", "Requests admitted", lambda: self._running)
        metrics.gauge("lorat_adapters", "Adapters in the store", lambda: len(registry.catalog))

    async def infer(self, task: Task, inputs: Sequence[Input], reference: str | None, options: Options) -> Answer:
        """Outputs for a request's inputs, each computed with the adapter version bound here.

        Raises a LoratError for every reason not to answer; nothing of a refused request is computed.
        """
        started = time.perf_counter()
        self._admit(len(inputs))
        self._running += 1
        try:
            bound = await self._bind(reference)
            _check_task(task, bound, reference)
            call = Call(task, *((bound.version.digest, bound.content) if bound else (None, None)))
            self._tokenizing.put(call, inputs, self._manner(task, bound, options))
            # when the waiting is cancelled (the client has gone), what is queued is dropped
            outputs = await asyncio.wrap_future(call.future)
        finally:
            self._running -= 1
        return Answer([output.values for output in outputs], call, bound, self._headers(bound, call, outputs, started))

    def _admit(self, inputs: int) -> None:
        """A whole request or none of it."""
        if not inputs:
            raise EmptyInputError("`inputs` is empty: send at least one input")
        limit = self.settings.max_client_batch_size
        if inputs > limit:
            raise InvalidRequestError(f"{inputs} inputs, the limit is {limit}: send them in several requests")
        if self._running >= self.settings.max_concurrent_requests:
            raise OverloadedError(
                f"{self._running} requests are running, the most this server admits: try again later",
                retry_after=self.engine.seconds_to_drain(),
            )

    async def _bind(self, reference: str | None) -> Bound | None:
        if reference is None or reference == "base":
            return None
        registry = self.registry
        version = registry.catalog.find(reference)
        if version is None:
            version = await asyncio.to_thread(registry.resolve, reference)
        self.usage.note(version.reference)
        with registry.naming(version):
            return Bound(version, registry.at_hand(version) or await self._load(version))

    async def _load(self, version: Version) -> Adapter:
        loading = asyncio.wrap_future(self.registry.load(version))
        return await asyncio.shield(loading)  # who leaves must not end the reading that others wait for

    def _manner(self, task: Task, bound: Bound | None, options: Options) -> Manner:
        return Manner(
            recipe=(bound and bound.content.recipe) or self.model.base.recipe,
            truncate=self.settings.auto_truncate if options.truncate is None else options.truncate,
            direction=options.direction,
            prompt_name=options.prompt_name,
            default_prompt=task == "embedding",
            spans=task == "token_classification",
        )

    def _headers(self, bound: Bound | None, call: Call, outputs: Sequence[Output], started: float) -> dict[str, str]:
        version = bound and bound.version
        times = {
            "total": time.perf_counter() - started,
            "tokenization": call.tokenized - started,
            "queue": max(output.queued for output in outputs),
            "inference": max(output.inference for output in outputs),
        }
        return {
            "X-Lorat-Adapter": f"{version.name}@{version.version}" if version else "base",
            "X-Lorat-Digest": f"sha256:{version.digest if version else self.fingerprint}",
            "X-Compute-Tokens": str(sum(job.size for job in call.jobs)),
            **{f"X-{name}-Time": f"{seconds * 1000:.3f}" for name, seconds in times.items()},
        }

    def close(self) -> None:
        """Answer what is queued, then stop."""
        self.ready = False
        self.follower.close()
        self._tokenizing.close()
        self.engine.close(self.settings.graceful_seconds)
        self.registry.close()


def _check_task(task: Task, bound: Bound | None, reference: str | None) -> None:
    has = bound.content.task if bound else "embedding"
    if task not in ("embedding", has):
        raise NoHeadError(
            f"{reference or 'base'!r} has no head for {task} (it is an {has} adapter): name one that was trained for it"
        )


def describe(service: Service) -> dict[str, Any]:
    """What `/info` answers: TEI's fields, and ours."""
    settings, model = service.settings, service.model
    recipe = model.base.recipe
    return {
        "model_id": model.base.name,
        "model_sha": model.base.shape.base_id,
        "model_dtype": str(model.dtype).removeprefix("torch."),
        "model_type": {"embedding": {"pooling": "+".join(recipe.pooling)}},
        "max_concurrent_requests": settings.max_concurrent_requests,
        "max_input_length": min(recipe.max_length or model.base.tokenizer.max_length, model.base.tokenizer.max_length),
        "max_batch_tokens": service.engine.max_batch_tokens,
        "max_client_batch_size": settings.max_client_batch_size,
        "auto_truncate": settings.auto_truncate,
        "tokenization_workers": TOKENIZER_THREADS,
        "version": __version__,
        "adapters": len(service.registry.catalog),
        "slots": {"capacity": model.slots.capacity, "used": service.engine.resident},
        "device": str(model.device),
        "fingerprint": service.fingerprint,
    }
