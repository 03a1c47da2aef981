"""A server under mixed traffic for a long time: embeddings, labels, entities, and adapters that come and go.

python -m benchmarks.soak [--minutes 60]

Records, as time goes: requests, what was not answered 200 or as it should be, resident memory, descriptors, threads.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer

from app.client import Client, ServerError
from benchmarks.corpus import texts
from benchmarks.load import Connection, Request
from benchmarks.made import QV, make_adapter
from benchmarks.rounds import save
from benchmarks.served import ProcessFacts, server_process
from lorat.base import locate_base

TASKS = {"/embed": ("FEATURE_EXTRACTION", 0), "/classify": ("SEQ_CLS", 5), "/token_classify": ("TOKEN_CLS", 9)}
EACH, CHANGING, VARIANTS = 6, 8, 6  # adapters of a task; names that come and go; contents that they have
_CLIENTS = 4
_SAMPLES = 240
_SIZES = (1, 1, 1, 4, 16)  # texts in a request


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as directory:
        flags = [
            "--slots=16",
            "--keep-versions=3",
            "--max-queue-seconds=600",
            *options.flags,
        ]  # fewer slots than adapters
        with server_process(Path(directory) / "store", flags) as (url, process):
            soak = Soak(url, process, Path(directory), options.minutes * 60)
            result = uvloop.run(soak.run())
    print(save("soak", {"flags": flags, **result}, options.out))
    print(json.dumps({key: value for key, value in result.items() if key != "samples"}, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--flags", nargs="*", default=[], help="of lorat serve")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


@dataclass
class Counts:
    """What was asked so far."""

    requests: int = 0
    changes: int = 0
    errors: list[str] = field(default_factory=list)


class Soak:
    """One server's traffic."""

    def __init__(self, url: str, process: ProcessFacts, directory: Path, seconds: float) -> None:
        self._url, self._process, self._seconds = url, process, seconds
        config = AutoConfig.from_pretrained(locate_base(None))
        self._variants = [make_adapter(directory / f"v{seed}", config, seed, 4, QV) for seed in range(VARIANTS)]
        self._requests = _upload(url, directory, config)
        self.counts = Counts()
        self._end = time.perf_counter() + seconds

    async def run(self) -> dict[str, Any]:
        """All of it."""
        self._end = time.perf_counter() + self._seconds
        changing = threading.Thread(target=self._change)
        changing.start()
        clients = asyncio.gather(*(self._ask(first) for first in range(_CLIENTS)))
        samples = await self._watch()
        await clients
        changing.join()
        counts = self.counts
        return {
            "seconds": self._seconds,
            "requests": counts.requests,
            "changes": counts.changes,
            "errors": len(counts.errors),
            "first_errors": counts.errors[:20],
            **_growth(samples),
            "samples": samples,
        }

    async def _ask(self, number: int) -> None:
        connection = await Connection.open(self._url)
        while time.perf_counter() < self._end:
            request = self._requests[number % len(self._requests)]
            number += _CLIENTS
            if not await connection.post(request):
                self.counts.errors.append(f"{request.path}: {connection.status} {connection.body[:200]!r}")
            self.counts.requests += 1
            await asyncio.sleep(0.01)
        connection.close()

    def _change(self) -> None:
        """Upload, replace, roll back and delete, and ask each time whether the answer names what is there."""
        with Client(self._url) as client:
            turn = 0
            while time.perf_counter() < self._end:
                name = f"changing-{turn % CHANGING}"
                try:
                    self._turn(client, name, turn)
                except ServerError as error:
                    self.counts.errors.append(f"{name}: {error}")
                turn += 1

    def _turn(self, client: Client, name: str, turn: int) -> None:
        first, second = (self._variants[(turn + i) % VARIANTS] for i in (0, 1))
        created = client.push(first, name)
        client.infer("/embed", name, ["a"])
        replaced = client.push(second, name, replace=True)
        client.infer("/embed", name, ["a"])
        back = client.rollback(name, created["version"])
        if back["digest"] != created["digest"] or replaced["digest"] == created["digest"]:
            self.counts.errors.append(f"{name}: rolled back to {back['digest']}, not to {created['digest']}")
        client.infer("/embed", name, ["a"])
        client.delete(name)
        self.counts.changes += 4

    async def _watch(self) -> list[dict[str, float]]:
        """The process as time goes."""
        started, samples, pause = time.perf_counter(), list[dict[str, float]](), self._seconds / _SAMPLES
        for _ in tqdm(range(_SAMPLES), desc="soak", unit="sample", file=sys.stderr):
            await asyncio.sleep(pause)
            samples.append(
                {
                    "seconds": time.perf_counter() - started,
                    "requests": self.counts.requests,
                    "errors": len(self.counts.errors),
                    "rss_mb": self._process.rss_mb(),
                    "descriptors": self._process.descriptors(),
                    "threads": self._process.threads(),
                }
            )
        return samples


def _growth(samples: Sequence[dict[str, float]]) -> dict[str, float]:
    """From the second quarter to the last one, by medians: what a start fills is filled by then."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    return {
        f"{name}_growth": statistics.median(one[name] for one in late) - statistics.median(one[name] for one in early)
        for name in ("rss_mb", "descriptors", "threads")
    }


def _upload(url: str, directory: Path, config: Any) -> list[Request]:
    """Requests of all tasks and sizes, for adapters that stay."""
    corpus = texts(AutoTokenizer.from_pretrained(locate_base(None)))
    requests = list[Request]()
    with Client(url) as client:
        for path, (task_type, labels) in TASKS.items():
            for seed in range(EACH):
                name = f"{task_type.lower().replace('_', '-')}-{seed}"
                client.push(make_adapter(directory / name, config, seed, 8, QV, task_type, labels), name)
                for place, size in enumerate(_SIZES):
                    first = (seed * len(_SIZES) + place) * 16
                    chosen = [corpus[(first + i) % len(corpus)] for i in range(size)]
                    requests.append(_request(path, name, chosen))
    return requests


def _request(path: str, name: str, chosen: Sequence[str]) -> Request:
    inputs: list[Any] = [[text] for text in chosen] if path == "/classify" else list(chosen)
    body = json.dumps({"inputs": inputs}).encode()
    return Request(f"{path}?adapter={name}", body, len(chosen), f"x-lorat-adapter: {name}@1".encode())


if __name__ == "__main__":
    main()
