"""LoRAT's engine as the service runs it, and LoRAT's server as a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from app.engine.engine import Engine
from app.engine.jobs import Call
from app.observe.metrics import Metrics
from lorat import Adapter, MultiLoRAT, Tokens, read_adapter
from lorat.adapter import Task
from lorat.base import locate_base

TOKENS = 1024  # of a batch
PEER_MODEL = "base"
Content = tuple[str, Adapter]
"""An adapter by its digest."""


class Served:
    """The engine without HTTP; every text is a request of its own."""

    def __init__(
        self,
        ids: Sequence[list[int]],
        dtype: str,
        workers: int,
        slots: int = 128,
        base: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.model = MultiLoRAT.from_pretrained(base, device=device, dtype=dtype, slots=slots)
        self.metrics = Metrics()
        self._engine = Engine(self.model, TOKENS, self.metrics, workers, express=True)
        self._ids = ids

    def read(self, directory: Path) -> Content:
        return str(directory), read_adapter(directory, self.model.base.shape)

    def merge(self, *digests: str) -> None:
        self._engine.prefer(frozenset(), frozenset(digests))

    def vectors(self, adapters: Sequence[Content | None]) -> np.ndarray:
        """Every text once, all submitted at once, with the adapters in turn."""
        return self.answers(self._ids, adapters)

    def answers(
        self, inputs: Sequence[list[int]], adapters: Sequence[Content | None], task: Task = "embedding"
    ) -> np.ndarray:
        """As `vectors`, of other inputs and another task."""
        calls = []
        for place, ids in enumerate(inputs):
            digest, content = adapters[place % len(adapters)] or (None, None)
            calls.append(Call(task, digest, content).begin([Tokens(ids)]))
        for call in calls:
            self._engine.submit(call)
        return np.stack([call.future.result()[0].values for call in calls])

    def close(self) -> None:
        self._engine.close(10)


@contextmanager
def server(store: Path, flags: Sequence[str]) -> Iterator[str]:
    """`lorat serve` without demo adapters; its URL."""
    with server_process(store, flags) as (url, _):
        yield url


@contextmanager
def server_process(store: Path, flags: Sequence[str]) -> Iterator[tuple[str, "ProcessFacts"]]:
    """As `server`, with what the system says of its process."""
    command = [sys.executable, "-m", "app", "serve", "--demo=0", f"--store={store}", *flags]
    with _process(command, "/ready") as (url, pid):
        yield url, ProcessFacts(pid)


class ProcessFacts:
    """What Linux says of a process."""

    def __init__(self, pid: int) -> None:
        self._directory = Path(f"/proc/{pid}")

    def rss_mb(self) -> float:
        """Resident memory."""
        pages = int((self._directory / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def descriptors(self) -> int:
        """Open files and connections."""
        return len(os.listdir(self._directory / "fd"))

    def threads(self) -> int:
        """Threads."""
        return len(os.listdir(self._directory / "task"))


@contextmanager
def infinity(command: Path, base: str | None = None, device: str = "cpu") -> Iterator[str]:
    """Infinity with its torch engine, serving the base; its URL."""
    flags = ["--engine", "torch", "--device", device, "--no-bettertransformer", "--no-trust-remote-code"]
    model = ["--model-id", str(locate_base(base)), "--served-model-name", PEER_MODEL]
    with _process([str(command), "v2", *model, *flags], "/health") as (url, _):
        yield url


@contextmanager
def _process(command: Sequence[str], ready: str) -> Iterator[tuple[str, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([*command, "--port", str(port)]) as process:
        try:
            yield _await_ready(process, f"http://127.0.0.1:{port}", ready), process.pid
        finally:
            process.terminate()


def _await_ready(process: "subprocess.Popen[bytes]", url: str, path: str) -> str:
    while True:
        try:
            urllib.request.urlopen(url + path).close()
            return url
        except OSError:
            assert process.poll() is None, f"{process.args} did not start"
            time.sleep(0.1)
