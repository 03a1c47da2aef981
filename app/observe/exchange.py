"""What is known of the request under way: written where it happens, read when the request has ended."""

import time
from collections.abc import Sequence
from contextvars import ContextVar
from math import inf

from app.engine.jobs import Call, Output
from app.names import BASE, name_of

CLIENT_GONE = 499
Stage = tuple[str, float, float]
"""A part of a request's time: its name, its start and its end by `time.perf_counter`."""


class Run:
    """One adapter's part of a request, from where it is bound. `outputs`: by the service, once they are there."""

    __slots__ = ("_call", "bound", "digest", "name", "outputs", "reference")

    def __init__(self, reference: str, digest: str, call: Call) -> None:
        """`reference`: `name@version`, or the base's name."""
        self._call = call
        self.bound = time.perf_counter()
        self.name = name_of(reference)
        self.reference = reference
        self.digest = f"sha256:{digest}"
        self.outputs: Sequence[Output] = ()

    @property
    def tokens(self) -> int:
        """Of all its inputs; 0 until they are tokenised."""
        return sum(map(len, self._call.inputs))

    def stages(self, asked: float, ended: float) -> list[Stage]:
        """Those it went through. `asked`: when the inference began; `ended`: when the answer was written.

        Of inputs in several batches: queued until the last one was taken, inference from when the first one was.
        """
        stages = [("binding", asked, self.bound)]
        tokenized = self._call.tokenized
        if not tokenized:
            return stages
        stages.append(("tokenization", self.bound, tokenized))
        if not self.outputs:
            return stages
        first, last, done = inf, 0.0, 0.0
        for output in self.outputs:
            taken = output.queued
            first, last, done = min(first, taken), max(last, taken), max(done, taken + output.inference)
        stages.append(("queue", tokenized, tokenized + last))
        stages.append(("inference", tokenized + first, tokenized + done))
        stages.append(("answer", tokenized + done, ended))
        return stages


class Exchange:
    """One request and its answer. `status` is 0 until the answer begins."""

    __slots__ = (
        "_began",
        "_reason",
        "_references",
        "asked",
        "client",
        "error",
        "id",
        "inputs",
        "key",
        "method",
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
        self._reason = ""
        self.error = ""
        self.key = ""
        """Which key asks, as `api-0`, once that is known; empty where there are no keys."""
        self.inputs = 0
        self.runs: list[Run] = []
        self.asked = 0.0
        self._references: Sequence[str] = ()

    def ask(self, references: Sequence[str | None], inputs: int) -> None:
        """An inference begins, with these adapters and so many inputs."""
        self.asked = time.perf_counter()
        self.inputs = inputs
        self._references = [reference or BASE for reference in references]

    def run(self, reference: str, digest: str, call: Call) -> Run:
        """One of its adapters is bound."""
        run = Run(reference, digest, call)
        self.runs.append(run)
        return run

    def refuse(self, reason: str, error: str) -> None:
        """It is answered with an error: `reason` for metrics, `error` for people."""
        self._reason, self.error = reason, error

    @property
    def reason(self) -> str:
        """Why it is a refusal; empty where it is none, or the client has gone."""
        if self.status < 400 or self.status == CLIENT_GONE:
            return ""
        return self._reason or f"http_{self.status}"

    @property
    def adapters(self) -> str:
        """References, comma separated: `name@version` once bound, until then as asked; empty without inference."""
        return ",".join([run.reference for run in self.runs] or self._references)

    @property
    def tokens(self) -> int:
        """Of all its runs."""
        return sum([run.tokens for run in self.runs])

    def seconds(self, stage: str, ended: float) -> float | None:
        """How long it was in a stage, the longest of its runs; None where it came to none."""
        stages = [one for run in self.runs for one in run.stages(self.asked, ended)]
        return max((end - start for name, start, end in stages if name == stage), default=None)

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
