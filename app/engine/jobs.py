"""A request on its way through the engine: its inputs are jobs that may run in different batches."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.names import BASE
from lorat import Adapter, Tokens
from lorat.rows import Asked

Array = NDArray[np.float32]


def plain(error: BaseException) -> Exception:
    """An error that ends no thread which waits for it, as a panic in Rust or an exit of Python's would."""
    return error if isinstance(error, Exception) else RuntimeError(f"what computes panicked: {error!r}")


@dataclass(frozen=True)
class Output:
    """One input's answer: a vector, or logits. Times are in seconds."""

    values: Array
    queued: float
    inference: float


class Call:
    """One request: its inputs become tokens, and its future brings their outputs, in the order of the inputs."""

    def __init__(
        self,
        task: Asked,
        digest: str | None = None,
        content: Adapter | None = None,
        deadline: float = math.inf,
        name: str = BASE,
    ) -> None:
        """Bound to an adapter's content (None: the base) before it is queued.

        deadline: by `time.perf_counter`. name: for whom its tokens are counted.
        """
        self.task = task
        self.deadline = deadline
        self.name = name
        self.digest = digest
        self.content = content
        self.future: Future[list[Output]] = Future()
        self.inputs: Sequence[Tokens] = ()
        self.tokenized = 0.0
        """When it got its tokens, by `time.perf_counter`."""
        self._outputs: dict[int, Output] = {}
        self._lock = threading.Lock()

    def begin(self, inputs: Sequence[Tokens]) -> "Call":
        """Its inputs' tokens are there."""
        self.inputs = inputs
        self.tokenized = time.perf_counter()
        return self

    def jobs(self) -> "list[Job]":
        """Its inputs for the queue. It keeps none of them: a circle would be garbage that waits for the collector."""
        return [Job(self, index, tokens) for index, tokens in enumerate(self.inputs)]

    @property
    def wanted(self) -> bool:
        """Whether anyone still waits: false once it was cancelled, or one of its inputs failed, or it is too late."""
        return not self.future.done() and (self.deadline == math.inf or time.perf_counter() < self.deadline)

    def resolve(self, index: int, output: Output) -> None:
        """Note one input's output. The last one resolves the future."""
        with self._lock:
            self._outputs[index] = output
            done = len(self._outputs) == len(self.inputs)
        if done:
            self._finish(lambda: self.future.set_result([self._outputs[place] for place in range(len(self.inputs))]))

    def fail(self, error: Exception) -> None:
        """Fail the whole request; of its inputs that still wait none is computed."""
        self._finish(lambda: self.future.set_exception(error))

    def _finish(self, finish: Callable[[], None]) -> None:
        try:
            finish()
        except InvalidStateError:  # its client has gone, or it failed already
            return


@dataclass(frozen=True, eq=False)
class Job:
    """One input of a request."""

    call: Call
    index: int
    tokens: Tokens

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.tokens)

    @property
    def adapter(self) -> str | None:
        """What a batch counts as one adapter."""
        return self.call.digest

    @property
    def request(self) -> Call:
        """What it came with."""
        return self.call
