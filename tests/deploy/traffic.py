"""Mixed traffic through the gateway that checks every answer against PEFT's."""

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 2e-3
WORKERS = 16


@dataclass(frozen=True)
class Question:
    """A request and what PEFT answers to it: a vector, or the logits of a classifier."""

    path: str
    body: bytes
    adapter: str
    answer: NDArray[np.float32]
    weight: int = 1

    def is_answered_by(self, body: bytes) -> bool:
        """Whether an answer holds what PEFT says."""
        got = json.loads(body)
        if self.path.startswith("/v1/"):
            values = got["data"][0]["embedding"]
        elif self.path.startswith("/classify"):
            values = [score for _, score in sorted((item["label"], item["score"]) for item in got)]
        else:
            [values] = got
        return len(values) == len(self.answer) and float(np.abs(np.array(values) - self.answer).max()) < TOLERANCE


@dataclass
class Traffic:
    """Asks at a rate, or as fast as the answers come if that is slower, from when it is entered until it is left."""

    host: str
    port: int
    key: str
    questions: Sequence[Question]
    rate: float
    seed: int = 0
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __enter__(self) -> "Traffic":
        self._ended = threading.Event()
        self._numbers = itertools.count()
        self._started = time.monotonic()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(WORKERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.lasted = time.monotonic() - self._started

    def _ask(self, number: int) -> None:
        chosen = random.Random(self.seed + number)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        weights = [question.weight for question in self.questions]
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        while not self._ended.is_set():
            due = self._started + next(self._numbers) / self.rate
            if self._ended.wait(max(0.0, due - time.monotonic())):
                break
            [question] = chosen.choices(self.questions, weights)
            asked = time.monotonic()
            try:
                connection.request("POST", question.path, question.body, headers)
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{asked - self._started:.2f} s: {question.path}: {error!r}")
                connection.close()
                continue
            self._note(question, response, body, asked)
        connection.close()

    def _note(self, question: Question, response: http.client.HTTPResponse, body: bytes, asked: float) -> None:
        when = f"{asked - self._started:.2f} s: {question.path}"
        self.seconds.append(time.monotonic() - asked)
        if response.status != 200:
            self.failed.append(f"{when}: {response.status} {body[:200]!r}")
        elif response.headers["X-Lorat-Adapter"].partition("@")[0] != question.adapter:
            self.wrong.append(f"{when}: answered by {response.headers['X-Lorat-Adapter']}")
        elif not question.is_answered_by(body):
            self.wrong.append(f"{when}: {body[:200]!r}")

    def settle(self, seconds: float = 3.0) -> None:
        """Let it run for a while."""
        time.sleep(seconds)

    def report(self, event: str) -> str:
        """What was seen, in a line. Raises AssertionError where a request failed or was answered wrongly."""
        assert not self.failed, f"{event}: {len(self.failed)} of {len(self.seconds)} failed: {self.failed[:5]}"
        assert not self.wrong, f"{event}: {len(self.wrong)} of {len(self.seconds)} wrong: {self.wrong[:5]}"
        half, late = np.quantile(self.seconds, [0.5, 0.99]) * 1000
        return (
            f"{event}: {len(self.seconds)} requests in {self.lasted:.0f} s, {len(self.seconds) / self.lasted:.0f}/s, "
            f"0 failed, 0 wrong, p50 {half:.0f} ms, p99 {late:.0f} ms, longest {max(self.seconds):.2f} s"
        )
