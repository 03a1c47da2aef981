"""The request's way through the service: bind → tokenise → queue → answer."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app.access.admission import Admission, Work
from app.access.caller import Caller
from app.access.deadline import in_time
from app.access.limits import Limits
from app.adapters.changes import Changes
from app.adapters.follow import Follower
from app.adapters.registry import Registry
from app.adapters.unloaded import Unloaded
from app.adapters.usage import Usage
from app.engine.engine import Engine
from app.engine.jobs import Array, Call, Output
from app.engine.tokenizing import Input, Manner, Tokenizing, characters
from app.errors import InvalidRequestError, UnknownAdapterError
from app.names import BASE, name_of
from app.observe.changes import note_change
from app.observe.exchange import current
from app.observe.metrics import Metrics
from app.observe.state import watch
from app.settings import Settings
from app.store.catalog import Version
from lorat import Adapter, MultiLoRAT, Tokens
from lorat.adapter import Head
from lorat.ends import Direction
from lorat.errors import NoHeadError
from lorat.rows import HEADLESS, Asked
from lorat.tokenizer import Piece

TOKENIZER_THREADS = 1
_MOST_CHARACTERS = 1 << 18  # whose tokens are shown one by one


@dataclass(frozen=True)
class Options:
    """How inputs become tokens."""

    truncate: bool | None = None
    direction: Direction = "right"
    prompt_name: str | None = None


@dataclass(frozen=True)
class Chosen:
    """What a request is computed with, whatever happens to its name meanwhile.

    adapter: `name@version`, or `base`. digest: of the content, or the base's fingerprint. content: None for the base.
    """

    adapter: str
    digest: str
    content: Adapter | None

    def call(self, asked: Asked, deadline: float) -> Call:
        """A request to the engine, of no use after the deadline."""
        return Call(asked, self.digest if self.content else None, self.content, deadline, name_of(self.adapter))


@dataclass(frozen=True)
class Answer:
    """One adapter's outputs for a request's inputs, in their order, and how they came.

    tokens: what was computed, with spans where the task is token classification. times: seconds by stage.
    """

    outputs: list[Array]
    tokens: Sequence[Tokens]
    chosen: Chosen
    times: dict[str, float]

    @property
    def head(self) -> Head:
        """The adapter's head; only where the task needs one."""
        assert self.chosen.content is not None and self.chosen.content.head is not None
        return self.chosen.content.head


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
        admission: Admission,
    ) -> None:
        self.settings = settings
        self.model = model
        self.registry = registry
        self.changes = changes
        self.follower = follower
        self.usage = usage
        self.engine = engine
        self.metrics = metrics
        self.admission = admission
        self.fingerprint = model.fingerprint()
        self.ready = True
        self.started = int(time.time())
        """Seconds since 1970."""
        self.unloaded = Unloaded(registry)
        self.limits = Limits(settings)
        self._tokenizing = Tokenizing(model.base, engine.submit, TOKENIZER_THREADS)
        watch(metrics, engine, registry, admission)

    async def infer(
        self,
        asked: Asked,
        inputs: Sequence[Input],
        references: Sequence[str | None],
        options: Options,
        caller: Caller,
    ) -> list[Answer]:
        """Outputs for a request's inputs, one at least, from each of the adapters, by the versions bound here.

        Raises a LoratError for every reason not to answer; nothing of a refused request is computed.
        """
        started = time.perf_counter()
        seen = current()
        seen.ask(references, len(inputs))
        self._check_count(len(inputs) * len(references))
        for reference in references:
            caller.require(reference or BASE)
        with self._admitted(inputs, list(map(name_of, references)), caller) as work:
            async with in_time(caller.deadline):
                chosen = [await self._choose(reference, asked) for reference in references]
                calls = [one.call(asked, caller.deadline) for one in chosen]
                runs = [seen.run(one.adapter, one.digest, call) for one, call in zip(chosen, calls, strict=True)]
                for one, call in zip(chosen, calls, strict=True):
                    self._tokenizing.put(call, inputs, self._manner(asked, one.content, options))
                outputs = await _all(calls)
        self.admission.learn(work, sum(map(len, calls[0].inputs)))
        for run, computed in zip(runs, outputs, strict=True):
            run.outputs = computed
        found = zip(chosen, calls, outputs, strict=True)
        return [_answer(one, call, output, started) for one, call, output in found]

    async def pieces(self, texts: Sequence[str], add_special_tokens: bool, caller: Caller) -> list[list[Piece]]:
        """What the tokenizer makes of texts, one at least, admitted as inference is.

        Raises InvalidRequestError for too many.
        """
        self._check_count(len(texts))
        length = sum(map(len, texts))
        if length > _MOST_CHARACTERS:
            raise InvalidRequestError(
                f"{length} characters, the limit here is {_MOST_CHARACTERS}: send them in several requests"
            )
        with self._admitted(texts, [BASE], caller):
            async with in_time(caller.deadline):
                tokenizer = self.model.base.tokenizer
                return await asyncio.to_thread(tokenizer.pieces, texts, add_special_tokens=add_special_tokens)

    def _check_count(self, inputs: int) -> None:
        limit = self.settings.max_client_batch_size
        if inputs > limit:
            raise InvalidRequestError(f"{inputs} inputs, the limit is {limit}: send them in several requests", "input")

    @contextmanager
    def _admitted(self, inputs: Sequence[Input], names: Sequence[str], caller: Caller) -> Iterator[Work]:
        """A whole request or none of it, counted as long as it lasts. Raises OverloadedError."""
        sizes = list(map(characters, inputs))
        work = self.admission.work(names, sizes, self.max_input_length(None))
        self.admission.check(time.perf_counter(), work, caller.deadline)
        with self.limits.adapters.held(names):
            self.admission.begin(work, time.perf_counter(), self.engine.computed)
            try:
                yield work
            finally:
                self.admission.end(work, time.perf_counter(), self.engine.computed)

    async def version_of(self, reference: str) -> Version:
        """The version that `x` or `x@2` means now. Raises UnknownAdapterError, after one more look at the log."""
        name = name_of(reference)
        if name in self.unloaded:
            raise UnknownAdapterError(f"adapter {name!r} was unloaded here: load or upload it, or ask another server")
        found = self.registry.catalog.find(reference)
        if found is None:  # however many ask, and however long the store takes, no thread waits with them
            await asyncio.wrap_future(self.registry.log.look())
        return found or self.registry.catalog.resolve(reference)

    async def _choose(self, reference: str | None, asked: Asked) -> Chosen:
        """What a reference means now, with its content at hand. Raises NoHeadError for one of another task."""
        if reference is None or reference == BASE:
            chosen = Chosen(BASE, self.fingerprint, None)
        else:
            version = await self.version_of(reference)
            self.usage.note(version.reference)
            with self.registry.naming(version):
                content = self.registry.at_hand(version) or await self._load(version)
            chosen = Chosen(version.reference, version.digest, content)
        _check_task(asked, chosen)
        return chosen

    async def _load(self, version: Version) -> Adapter:
        loading = asyncio.wrap_future(self.registry.load(version))
        return await asyncio.shield(loading)  # who leaves must not end the reading that others wait for

    def _manner(self, asked: Asked, content: Adapter | None, options: Options) -> Manner:
        return Manner(
            recipe=(content and content.recipe) or self.model.base.recipe,
            truncate=self.settings.auto_truncate if options.truncate is None else options.truncate,
            direction=options.direction,
            prompt_name=options.prompt_name,
            default_prompt=asked in HEADLESS,
            spans=asked == "token_classification",
        )

    def max_input_length(self, version: Version | None) -> int:
        """Tokens of an input that are read at most, special ones included. None: by the base alone."""
        base = self.model.base
        recipe = (version.record["recipe"] if version else None) or {}
        return base.tokenizer.limit(recipe.get("max_length") or base.recipe.max_length)

    def unload(self, version: Version) -> None:
        """Do not serve a name in this process any more, until it is loaded here or has a newer version."""
        self.unloaded.add(version.name)
        if all(same.name in self.unloaded for same in self.registry.catalog.having(version.digest)):
            self.engine.forget(version.digest)
        note_change("unloaded", version)

    def serve(self, name: str) -> None:
        """End what `unload` began."""
        self.unloaded.discard(name)

    def healthy(self) -> bool:
        """Whether the tokenizer and the engine answer."""
        return self._tokenizing.alive and self.engine.healthy()

    def close(self) -> None:
        """Answer what is queued, then stop."""
        self.ready = False
        self.follower.close()
        self._tokenizing.close()
        self.engine.close(self.settings.graceful_seconds)
        self.registry.close()


async def _all(calls: Sequence[Call]) -> list[list[Output]]:
    """The outputs of each. When one fails, or the waiting is cancelled, what of the others is queued is dropped."""
    waiting = [asyncio.wrap_future(call.future) for call in calls]
    try:
        return await asyncio.gather(*waiting)
    finally:
        for future in waiting:
            future.cancel()


def _answer(chosen: Chosen, call: Call, outputs: Sequence[Output], started: float) -> Answer:
    times = {
        "total": time.perf_counter() - started,
        "tokenization": call.tokenized - started,
        "queue": max(output.queued for output in outputs),
        "inference": max(output.inference for output in outputs),
    }
    return Answer([output.values for output in outputs], call.inputs, chosen, times)


def _check_task(asked: Asked, chosen: Chosen) -> None:
    has = chosen.content.task if chosen.content else "embedding"
    if asked not in HEADLESS and asked != has:
        raise NoHeadError(
            f"{chosen.adapter!r} has no head for {asked} (its task is {has}): name one that was trained for it"
        )
