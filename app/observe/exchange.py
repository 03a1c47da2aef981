"""What is known of the request under way: written where it happens, read when the request has ended."""

import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import NamedTuple

from app.catalog import Version
from app.jobs import Call, Output

BASE = "base"


class Stage(NamedTuple):
    """A part of a request's time, by `time.perf_counter`."""

    name: str
    start: float
    end: float


class Run:
    """One adapter's part of a request, from where it is bound. `outputs`: by the service, once they are there."""

    __slots__ = ("_call", "bound", "digest", "name", "outputs", "reference")

    def __init__(self, version: Version | None, call: Call) -> None:
        """`version`: None for the base."""
        self._call = call
        self.bound = time.perf_counter()
        self.name = version.name if version else BASE
        self.reference = version.reference if version else BASE
        self.digest = version.digest if version else ""
        self.outputs: Sequence[Output] = ()

    @property
    def tokens(self) -> int:
        """Of all its inputs; 0 until they are tokenised."""
        return sum(job.size for job in self._call.jobs)

    def stages(self) -> Iterator[Stage]:
        """Those it went through. Of inputs in several batches: until the last one was taken, and from the first one."""
        tokenized = self._call.tokenized
        if not tokenized:
            return
        yield Stage("tokenization", self.bound, tokenized)
        if self.outputs:
            taken = [tokenized + output.queued for output in self.outputs]
            ends = [start + output.inference for start, output in zip(taken, self.outputs, strict=True)]
            yield Stage("queue", tokenized, max(taken))
            yield Stage("inference", min(taken), max(ends))


class Exchange:
    """One request and its answer. `status` is 0 until the answer begins; `reason` says why it is a refusal."""

    __slots__ = (
        "_asked",
        "_began",
        "client",
        "error",
        "id",
        "inferring",
        "method",
        "reason",
        "runs",
        "started",
        "status",
    )

    def __init__(self, id: str, method: str = "", client: str = "") -> None:
        """`client`: who asks, as logs and traces name it."""
        self.id = id
        self.method = method
        self.client = client
        self.started = time.perf_counter()
        self._began = time.time_ns()
        self.status = 0
        self.reason = ""
        self.error = ""
        self.runs: list[Run] = []
        self.inferring = 0.0
        self._asked: Sequence[str] = ()

    def ask(self, references: Sequence[str | None]) -> None:
        """An inference begins, with these adapters."""
        self.inferring = time.perf_counter()
        self._asked = [reference or BASE for reference in references]

    def run(self, version: Version | None, call: Call) -> Run:
        """One of its adapters is bound."""
        run = Run(version, call)
        self.runs.append(run)
        return run

    def refuse(self, reason: str, error: str) -> None:
        """It is answered with an error: `reason` for metrics, `error` for people."""
        self.reason, self.error = reason, error

    @property
    def adapters(self) -> str:
        """References, comma separated: `name@version` once bound, until then as asked; empty without inference."""
        return ",".join([run.reference for run in self.runs] or self._asked)

    @property
    def tokens(self) -> int:
        """Of all its runs."""
        return sum(run.tokens for run in self.runs)

    def stages(self, run: Run, ended: float) -> Iterator[Stage]:
        """Of a run, with finding its adapter before and writing the answer after. `ended`: of the request."""
        yield Stage("binding", self.inferring, run.bound)
        yield from run.stages()
        if run.outputs:
            yield Stage("answer", max(stage.end for stage in run.stages()), ended)

    def epoch(self, moment: float) -> int:
        """A moment of `time.perf_counter`, in nanoseconds since 1970."""
        return self._began + int((moment - self.started) * 1e9)


_current: ContextVar[Exchange] = ContextVar("exchange")


def begin(exchange: Exchange) -> Exchange:
    """It is the one under way in this task, and in the threads that the task hands work to."""
    _current.set(exchange)
    return exchange


def current() -> Exchange:
    """The exchange under way; one that nobody reads where there is none."""
    return _current.get(None) or Exchange("-")
