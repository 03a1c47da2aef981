"""A server under more load than it can serve: what it still serves, how long that takes, how quickly it refuses.

python -m benchmarks.overload [--seconds 60] [--texts 32]

A closed loop measures the capacity. Then requests come by chance (Poisson) at shares of it, whatever the answers do,
for mixed adapters; after each load, requests one after another show when the latency is back.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer

from app.client import Client
from benchmarks.corpus import texts
from benchmarks.load import PAUSE, Connection, Request, closed_loop
from benchmarks.made import QV, make_adapter
from benchmarks.rounds import save
from benchmarks.served import ProcessFacts, server_process
from lorat.base import locate_base

ADAPTERS = 32
SHARES = (0.5, 1.0, 2.0, 3.0, 5.0)
_CLIENTS = {1: 64}  # that keep the server busy, and its queue short of a refusal; of large requests 3 do
_NORMAL = 2.0  # times the latency at rest: recovered
_RECOVERED = 3  # so many in a row
Choose = Callable[[int], Request]


def main() -> None:
    options = _options()
    result: dict[str, Any] = {"flags": options.flags}
    for size in options.texts:
        with tempfile.TemporaryDirectory() as directory:
            store = Path(directory) / "store"
            with server_process(store, options.flags) as (url, process):
                loads = Loads(url, process, Path(directory), size)
                with _ahead_of_the_server():
                    result[f"{size} texts"] = uvloop.run(loads.run(options.seconds, options.shares))
    print(save("overload", result, options.out))
    print(json.dumps(result, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each load")
    parser.add_argument("--texts", type=int, nargs="*", default=[32, 1], help="in a request")
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES, help="of the capacity")
    parser.add_argument("--flags", nargs="*", default=[], help="of lorat serve")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


@dataclass
class Outcome:
    """What became of a load's requests. Times are in seconds, of what was answered from when it was due."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    retry_after: list[int] = field(default_factory=list)
    errors: int = 0
    late: float = 0.0
    """By how much the client itself was at worst behind."""
    stolen: list[float] = field(default_factory=list)
    """Of each second, the processor time that this machine's host gave to others."""

    def summary(self, seconds: float, size: int) -> dict[str, float]:
        """Goodput in texts a second, and times in milliseconds."""
        return {
            "goodput": len(self.answered) * size / seconds,
            "answered": len(self.answered),
            "refused": len(self.refused),
            "errors": self.errors,
            **{f"p{point}_ms": _percentile(self.answered, point) for point in (50, 99)},
            **{f"refused_p{point}_ms": _percentile(self.refused, point) for point in (50, 99, 100)},
            "retry_after": statistics.median(self.retry_after) if self.retry_after else 0.0,
            "client_late_ms": self.late * 1e3,
            "stolen_s": sum(self.stolen),
            "stolen_worst_second_s": max(self.stolen, default=0.0),
        }


def _percentile(values: list[float], point: int) -> float:
    return float(np.percentile(values, point)) * 1e3 if values else 0.0


@contextlib.contextmanager
def _ahead_of_the_server() -> Iterator[None]:
    """Let this thread go first where that is allowed: what it waits for is not the server's doing.

    Only for as long as the block lasts: a server that is started later must not have it too.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _stolen_seconds() -> float:
    """So far, all cores together."""
    ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(ticks[8]) / os.sysconf("SC_CLK_TCK")


class Loads:
    """One server's loads, of requests with so many texts."""

    def __init__(self, url: str, process: ProcessFacts, directory: Path, size: int) -> None:
        self._url, self._process, self._size = url, process, size
        self._choose = _requests(url, directory, size)
        self._asking: set[asyncio.Task[None]] = set()  # of the last load
        self._free: list[Connection] = []

    async def run(self, seconds: float, shares: list[float]) -> dict[str, Any]:
        """The capacity, and each load's row."""
        clients = _CLIENTS.get(self._size, 3)
        await closed_loop(self._url, clients, 3, self._choose)  # adapters come into slots, the pace is learnt
        measured = await closed_loop(self._url, clients, max(5.0, seconds / 3), self._choose)
        capacity = measured.summary()["texts_per_second"]
        at_rest = await self._at_rest()
        rows = []
        for share in shares:
            outcome = await self._load(share * capacity / self._size, seconds, f"{share:g} x")
            recovery = await self._recover(at_rest)
            row = {"share": share, "rate": share * capacity, **outcome.summary(seconds, self._size)}
            rows.append(row | {"rss_mb": self._process.rss_mb(), "recovered_s": recovery})
        return {"capacity": capacity, "at_rest_ms": at_rest * 1e3, "loads": rows}

    async def _load(self, rate: float, seconds: float, name: str) -> Outcome:
        """Requests at a rate, by chance; of some the answer may come later than the last one is due."""
        outcome, free, asking = Outcome(), list[Connection](), set[asyncio.Task[None]]()
        drawn, started = random.Random(0), time.perf_counter()
        due, told, stolen = started, started, _stolen_seconds()
        with tqdm(total=round(seconds), desc=f"{self._size} texts, {name}", unit="s", file=sys.stderr) as bar:
            for number in itertools.count():
                due += drawn.expovariate(rate)
                if due > started + seconds:
                    break
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                outcome.late = max(outcome.late, time.perf_counter() - due)
                task = asyncio.ensure_future(self._ask(free, number, due, outcome))
                asking.add(task)
                task.add_done_callback(asking.discard)
                while told + 1 <= due:
                    told += 1
                    stolen, before = _stolen_seconds(), stolen
                    outcome.stolen.append(stolen - before)
                    bar.update()
        self._asking, self._free = asking, free
        return outcome

    async def _ask(self, free: list[Connection], number: int, due: float, outcome: Outcome) -> None:
        connection = await Connection.reuse(free, self._url)
        sent = time.perf_counter()
        good = await connection.post(self._choose(number))
        now = time.perf_counter()
        if good:
            outcome.answered.append(now - due)
        elif connection.status == 429:
            outcome.refused.append(now - sent)
            outcome.retry_after.append(int(connection.head.split(b"retry-after: ")[1].split(b"\r\n", 1)[0]))
        else:
            outcome.errors += 1
        free.append(connection)

    async def _at_rest(self) -> float:
        """The latency of requests one after another."""
        connection = await Connection.open(self._url)
        times = [await self._timed(connection, number) for number in range(40)]
        connection.close()
        return statistics.median(times)

    async def _recover(self, at_rest: float) -> float:
        """Seconds from a load's end until latencies are as at rest."""
        started, connection, good, number = time.perf_counter(), await Connection.open(self._url), 0, 0
        since = started
        while good < _RECOVERED and time.perf_counter() - started < 30:
            begun = time.perf_counter()
            seconds = await self._timed(connection, number)
            quick = seconds <= _NORMAL * at_rest
            if seconds == math.inf:
                await asyncio.sleep(PAUSE)
            since = (begun if not good else since) if quick else begun
            good, number = (good + 1 if quick else 0), number + 1
        connection.close()
        await asyncio.gather(*self._asking)
        for one in self._free:
            one.close()
        return since - started

    async def _timed(self, connection: Connection, number: int) -> float:
        """Of a request that was served; one that was refused took forever."""
        started = time.perf_counter()
        good = await connection.post(self._choose(number))
        return time.perf_counter() - started if good else math.inf


def _requests(url: str, directory: Path, size: int) -> Choose:
    """Requests for adapters in turn, after these were uploaded."""
    base = locate_base(None)
    config, corpus = AutoConfig.from_pretrained(base), texts(AutoTokenizer.from_pretrained(base))
    names = [f"a{seed}" for seed in range(ADAPTERS)]
    with Client(url) as client:
        for seed, name in enumerate(tqdm(names, unit="adapter", file=sys.stderr)):
            client.push(make_adapter(directory / name, config, seed, 8, QV), name)
    count = len(corpus)
    made = [
        Request.embed([corpus[(number * size + i) % count] for i in range(size)], names[number % ADAPTERS])
        for number in range(count)
    ]
    return lambda number: made[number % count]


if __name__ == "__main__":
    main()
