"""The whole server over HTTP: closed and open loop, mixed adapters, a flood, cold adapters.

python -m benchmarks.serve [--seconds 10] [--infinity /path/to/infinity_emb] [--device cuda] [--base DIR]

Every load's answers must be 200 and name the adapter that was asked for; a sample of their vectors is held against the
same texts computed alone in float32.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer

from app.client import Client
from benchmarks.checks import Checked
from benchmarks.corpus import texts
from benchmarks.load import Connection, Request, Seen, closed_loop, open_loop
from benchmarks.made import QV, make_adapter
from benchmarks.rounds import save
from benchmarks.served import PEER_MODEL, Content, Served, infinity, server
from lorat import MultiLoRAT
from lorat.base import locate_base

ADAPTERS, PASSES = 32, 4
LARGE = 32  # texts in a large request
TENANT, TENANT_RATE = 300, 10  # requests of the tenant beside a flood, so that three make its p99; a second
Choose = Callable[[int], Request]


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        flags = [f"--dtype={options.dtype}", f"--device={options.device}", "--max-queue-seconds=600"]
        flags += [f"--base={options.base}"] if options.base else []
        url = stack.enter_context(server(Path(directory) / "store", flags))
        loads = Loads(url, Path(directory), options)
        peer = options.infinity and stack.enter_context(infinity(options.infinity, options.base, options.device))
        result = {
            "closed": loads.closed(peer),
            "open": loads.open(),
            "stages_ms": uvloop.run(loads.stages()),
            "flood": loads.flood(),
            "cold": loads.cold(),
            **loads.oracle.facts(),
        }
    print(save("serve", {"flags": flags, **result}, options.out))
    print(json.dumps({**result, "closed": medians(result["closed"])}, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each load but the flood")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32, 128])
    parser.add_argument("--cold", type=int, default=200, help="adapters to load one after another")
    parser.add_argument("--infinity", type=Path, help="Infinity's command, to measure it beside: the base alone")
    parser.add_argument("--dtype", default="bfloat16", help="what LoRAT computes in")
    parser.add_argument("--device", default="cpu", help="of all servers")
    parser.add_argument("--base", help="a model's directory; none: the embedded base")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def medians(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of the rounds of each load."""
    by_load: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_load.setdefault(f"{row['name']}, {row['clients']} clients, {row['texts']} texts", []).append(row)
    kept = ("texts_per_second", "p50_ms", "p99_ms", "errors")
    return {load: {key: statistics.median(row[key] for row in same) for key in kept} for load, same in by_load.items()}


class Loads:
    """The loads of one server, with its adapters uploaded."""

    def __init__(self, url: str, directory: Path, options: argparse.Namespace) -> None:
        tokenizer = AutoTokenizer.from_pretrained(locate_base(options.base))
        self._url, self._directory = url, directory
        self._seconds, self._rounds, self._clients = options.seconds, options.rounds, options.clients
        self._options = options
        self._corpus = texts(tokenizer)
        self._ids = [tokenizer(text)["input_ids"] for text in self._corpus]
        self._names = _upload(url, directory, ADAPTERS + options.cold, options.base)
        self._mixed = self._names[:ADAPTERS]
        self.oracle = Oracle(directory, options.base)

    def closed(self, peer: str | None) -> list[dict[str, Any]]:
        """Closed loop, interleaved, beside the peer and beside the engine without HTTP."""
        loads: list[tuple[str, str, int, int, Choose]] = []
        for clients, size in product(self._clients, (1, LARGE)):
            loads.append(("lorat base", self._url, clients, size, self._choose([None], size)))
            loads.append(("lorat 32 adapters", self._url, clients, size, self._choose(self._mixed, size)))
            if peer:
                loads.append(("infinity base", peer, clients, size, self._choose_openai(size)))
        rows = []
        with _engine(self._ids, self._options) as engine:
            contents = [engine.read(self._directory / name) for name in self._mixed]
            turns = [*product(range(self._rounds), [*loads, None])]
            for turn, load in tqdm(turns, unit="load", file=sys.stderr):
                if load is None:
                    rows += [self._without_http(engine, turn, "base", [None])]
                    rows += [self._without_http(engine, turn, "32 adapters", contents)]
                else:
                    name, url, clients, size, choose = load
                    seen = self._run(closed_loop(url, clients, self._seconds, choose))
                    rows.append({"name": name, "clients": clients, "texts": size, "round": turn} | seen.summary())
        return rows

    def _without_http(self, engine: Served, turn: int, name: str, adapters: Sequence[Content | None]) -> dict[str, Any]:
        started, count, seen = time.perf_counter(), 0, Seen()
        while time.perf_counter() - started < self._seconds:
            engine.vectors(adapters)
            count += 1
        seen.seconds, seen.texts = time.perf_counter() - started, count * len(self._ids) * PASSES
        return {"name": f"engine {name}", "clients": 0, "texts": 0, "round": turn} | seen.summary()

    def open(self) -> list[dict[str, Any]]:
        """Open loop at shares of what 32 clients reach."""
        choose = self._choose(self._mixed, 1)
        capacity = self._run(closed_loop(self._url, 32, self._seconds, choose)).summary()["texts_per_second"]
        rows = []
        for share in (0.25, 0.5, 0.75, 0.9):
            seen = self._run(open_loop(self._url, share * capacity, self._seconds, choose))
            rows.append({"share_of_capacity": share, "rate": share * capacity} | seen.summary())
        return rows

    async def stages(self) -> dict[str, dict[str, float]]:
        """Where the time of a request goes, by its own headers: medians of one text alone, and under 32 clients."""
        found = {}
        choose = self._choose(self._mixed, 1)
        for clients in (1, 32):
            times: dict[str, list[float]] = {}
            turns = [_timed_client(self._url, choose, 60 * turn, times) for turn in range(clients)]
            await asyncio.gather(*turns)
            found[f"{clients} clients"] = {stage: float(np.median(values)) for stage, values in times.items()}
        return found

    def flood(self) -> dict[str, dict[str, float]]:
        """A tenant that asks one text at a time, alone and while another sends 32 texts a request from 16 clients."""
        small, large = self._choose([self._names[0]], 1), self._choose([self._names[1]], LARGE)

        seconds = TENANT / TENANT_RATE

        async def both() -> tuple[Seen, Seen]:
            quiet = open_loop(self._url, TENANT_RATE, seconds, small)
            return await asyncio.gather(quiet, closed_loop(self._url, 16, seconds, large))

        alone = self._run(open_loop(self._url, TENANT_RATE, seconds, small))
        quiet, flood = uvloop.run(both())
        return {"alone": alone.summary(), "flooded": quiet.summary(), "flood": flood.summary()}

    def cold(self) -> dict[str, dict[str, float]]:
        """Requests for resident adapters, while others are taken from the host cache into slots."""
        warm = self._choose(self._names[:8], 1)
        others = [Request.embed(["a"], name) for name in self._names[ADAPTERS:]]
        resident = [Request.embed(["a"], name) for name in self._names[8:16]]

        async def both(requests: list[Request]) -> tuple[Seen, Seen]:
            beside = open_loop(self._url, 20, self._seconds, lambda number: requests[number % len(requests)])
            return await asyncio.gather(open_loop(self._url, 40, self._seconds, warm), beside)

        still, _ = uvloop.run(both(resident))
        before = self._slots_filled()
        moving, loaded = uvloop.run(both(others))
        seconds, count = np.subtract(self._slots_filled(), before).tolist()
        return {
            "resident": still.summary(),
            "while loading": moving.summary(),
            "the loaded": loaded.summary(),
            "a slot filled": {"count": count, "mean_ms": seconds / max(count, 1) * 1e3},
        }

    def _slots_filled(self) -> tuple[float, float]:
        """Seconds that filling slots took so far, and how many times; by the server's own metrics."""
        with urllib.request.urlopen(f"{self._url}/metrics") as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        found = {sample.name: sample.value for family in families for sample in family.samples if _is_device(sample)}
        return found["lorat_load_seconds_sum"], found["lorat_load_seconds_count"]

    def _run(self, load: Any) -> Seen:
        seen: Seen = uvloop.run(load)
        self.oracle.check(seen)
        return seen

    def _texts(self, place: int, size: int) -> list[str]:
        return [self._corpus[(place * size + i) % len(self._corpus)] for i in range(size)]

    def _choose(self, adapters: Sequence[str | None], size: int) -> Choose:
        count = len(self._corpus)
        made = [Request.embed(self._texts(n, size), adapters[n % len(adapters)]) for n in range(count)]
        return lambda number: made[number % count]

    def _choose_openai(self, size: int) -> Choose:
        count = len(self._corpus)
        made = [Request.openai(self._texts(n, size), PEER_MODEL) for n in range(count)]
        return lambda number: made[number % count]


class Oracle(Checked):
    """The same texts with the same adapters, alone and in float32."""

    def __init__(self, directory: Path, base: str | None) -> None:
        """directory: holds each adapter under its name."""
        super().__init__()
        self._directory = directory
        self._model = MultiLoRAT.from_pretrained(base, device="cpu", dtype="float32", slots=1)
        self._known: dict[tuple[str, str | None], np.ndarray] = {}

    def check(self, seen: Seen) -> None:
        """Hold a load's sample against what it should be."""
        assert not seen.errors, f"{seen.errors} answers were wrong"
        for request, body in seen.samples:
            for text, vector in zip(request.inputs, json.loads(body) if request.inputs else [], strict=True):
                self.hold(np.array([vector]), self._vector(text, request.adapter)[None], (request.adapter, text))

    def _vector(self, text: str, adapter: str | None) -> np.ndarray:
        if (text, adapter) not in self._known:
            slot = self._model.load(self._directory / adapter) if adapter else None
            self._known[text, adapter] = self._model.embed([text], slot)[0]
            if slot:
                self._model.unload(slot)
        return self._known[text, adapter]


def _upload(url: str, directory: Path, count: int, base: str | None) -> list[str]:
    config = AutoConfig.from_pretrained(locate_base(base))
    names = [f"a{seed}" for seed in range(count)]
    with Client(url, None) as client:
        for seed, name in enumerate(tqdm(names, unit="adapter", file=sys.stderr)):
            client.push(make_adapter(directory / name, config, seed, 8, QV), name, replace=False, dry_run=False)
    return names


def _is_device(sample: Any) -> bool:
    return sample.labels.get("tier") == "device"


@contextmanager
def _engine(ids: list[list[int]], options: argparse.Namespace) -> Iterator[Served]:
    engine = Served(ids * PASSES, options.dtype, workers=2, base=options.base, device=options.device)
    engine.vectors([None])  # its first batch compiles
    yield engine
    engine.close()


async def _timed_client(url: str, choose: Choose, first: int, times: dict[str, list[float]]) -> None:
    connection = await Connection.open(url)
    for number in range(first, first + 60):
        started = time.perf_counter()
        await connection.post(choose(number))
        times.setdefault("client", []).append((time.perf_counter() - started) * 1e3)
        for line in connection.head.split(b"\r\n"):
            key, _, value = line.decode().partition(": ")
            if key.endswith("-time"):
                times.setdefault(key[2:-5], []).append(float(value))
    connection.close()


if __name__ == "__main__":
    main()
