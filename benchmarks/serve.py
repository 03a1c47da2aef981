"""The whole server over HTTP: closed and open loop, mixed adapters, a flood, cold adapters.

python -m benchmarks.serve [--seconds 10] [--peer-url http://127.0.0.1:7997]
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer

from benchmarks.corpus import texts
from benchmarks.load import Connection, Request, closed_loop, open_loop
from benchmarks.made import QV, make_adapter
from benchmarks.rounds import save
from lorat.base import locate_base

ADAPTERS = 32
Choose = Callable[[int], Request]


def main() -> None:
    options = _options()
    corpus = texts(AutoTokenizer.from_pretrained(locate_base(None)))
    with tempfile.TemporaryDirectory() as directory, _server(Path(directory), options.flags) as url:
        names = _upload(url, Path(directory), options.cold)
        _check(url, corpus, names)
        result = {
            "closed": _closed(url, corpus, names[:ADAPTERS], options),
            "open": _open(url, corpus, names[:ADAPTERS], options),
            "stages_ms": asyncio.run(_stages(url, corpus, names[:ADAPTERS])),
            "flood": _flood(url, corpus, names, options.seconds),
            "cold": _cold(url, corpus, names, options.seconds),
        }
    print(save("serve", {"flags": options.flags, **result}, options.out))
    print(json.dumps(result, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32, 128])
    parser.add_argument("--cold", type=int, default=200, help="adapters to load one after another")
    parser.add_argument("--peer-url", help="a running server of the base with OpenAI's /embeddings")
    parser.add_argument("--peer-model", default="model")
    parser.add_argument("--flags", nargs="*", default=["--dtype=bfloat16"], help="of lorat serve")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


@contextmanager
def _server(directory: Path, flags: list[str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "app", "serve", "--demo=0", f"--port={port}", f"--store={directory / 'store'}"]
    with subprocess.Popen([*command, *flags]) as server:
        url = f"http://127.0.0.1:{port}"
        while True:
            try:
                urllib.request.urlopen(f"{url}/ready").close()
                break
            except OSError:
                assert server.poll() is None, "the server did not start"
                time.sleep(0.1)
        yield url
        server.terminate()


def _upload(url: str, directory: Path, cold: int) -> list[str]:
    from app.client import Client

    config = AutoConfig.from_pretrained(locate_base(None))
    names = [f"a{seed}" for seed in range(ADAPTERS + cold)]
    with Client(url, None) as client:
        for seed, name in enumerate(tqdm(names, unit="adapter", file=sys.stderr)):
            client.push(make_adapter(directory / name, config, seed, 8, QV), name, replace=False, dry_run=False)
    return names


def _check(url: str, corpus: list[str], names: list[str]) -> None:
    """A text through the server is what it is through the library, in float32, to the dtype's bound."""
    from lorat import MultiLoRAT

    model = MultiLoRAT.from_pretrained(device="cpu", dtype="float32", slots=1)

    async def ask(adapter: str | None) -> np.ndarray:
        connection = await Connection.open(url)
        assert await connection.post(Request.embed(corpus[:16], adapter))
        connection.close()
        return np.array(json.loads(connection.body))

    assert ((asyncio.run(ask(None)) * model.embed(corpus[:16])).sum(1) >= 0.9995).all()
    assert ((asyncio.run(ask(names[0])) * asyncio.run(ask(names[1]))).sum(1) < 0.9995).all()


def _choose(corpus: list[str], adapters: list[str | None], size: int) -> Choose:
    requests = [
        Request.embed([corpus[(place * size + i) % len(corpus)] for i in range(size)], adapters[place % len(adapters)])
        for place in range(len(corpus))
    ]
    return lambda number: requests[number % len(requests)]


def _closed(url: str, corpus: list[str], names: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    loads: list[tuple[str, str, int, int, Choose]] = []
    for clients, size in product(options.clients, (1, 32)):
        loads.append(("lorat base", url, clients, size, _choose(corpus, [None], size)))
        loads.append(("lorat 32 adapters", url, clients, size, _choose(corpus, [*names], size)))
        if options.peer_url:
            asked = [
                Request.openai([corpus[(p * size + i) % len(corpus)] for i in range(size)], options.peer_model)
                for p in range(len(corpus))
            ]
            loads.append(("peer base", options.peer_url, clients, size, lambda n, asked=asked: asked[n % len(asked)]))
    rows = []
    turns = list(product(range(options.rounds), loads))
    for turn, (name, place, clients, size, choose) in tqdm(turns, unit="load", file=sys.stderr):
        seen = asyncio.run(closed_loop(place, clients, options.seconds, choose))
        rows.append({"name": name, "clients": clients, "texts": size, "round": turn} | seen.summary())
    return rows


def _open(url: str, corpus: list[str], names: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    choose = _choose(corpus, [*names], 1)
    capacity = asyncio.run(closed_loop(url, 32, options.seconds, choose)).summary()["texts_per_second"]
    rows = []
    for share in (0.25, 0.5, 0.75, 0.9):
        seen = asyncio.run(open_loop(url, share * capacity, options.seconds, choose))
        rows.append({"share_of_capacity": share, "rate": share * capacity} | seen.summary())
    return rows


async def _stages(url: str, corpus: list[str], names: list[str]) -> dict[str, dict[str, float]]:
    """Where the time of a request goes, by its own headers: medians of one text alone, and under 32 clients."""
    found = {}
    for clients in (1, 32):
        times: dict[str, list[float]] = {}

        async def client(turn: int, times: dict[str, list[float]] = times) -> None:
            connection = await Connection.open(url)
            for number in range(60):
                request = Request.embed([corpus[(turn * 60 + number) % len(corpus)]], names[(turn + number) % ADAPTERS])
                started = time.perf_counter()
                await connection.post(request)
                times.setdefault("client", []).append((time.perf_counter() - started) * 1e3)
                for line in connection.head.split(b"\r\n"):
                    key, _, value = line.decode().partition(": ")
                    if key.endswith("-time"):
                        times.setdefault(key[2:-5], []).append(float(value))
            connection.close()

        await asyncio.gather(*(client(turn) for turn in range(clients)))
        found[f"{clients} clients"] = {stage: float(np.median(values)) for stage, values in times.items()}
    return found


def _flood(url: str, corpus: list[str], names: list[str], seconds: float) -> dict[str, dict[str, float]]:
    """A tenant that asks one text at a time, alone and while another sends 32 texts a request from 16 clients."""
    small, large = _choose(corpus, [names[0]], 1), _choose(corpus, [names[1]], 32)

    async def both() -> tuple[Any, Any]:
        return await asyncio.gather(open_loop(url, 5, seconds, small), closed_loop(url, 16, seconds, large))

    alone = asyncio.run(open_loop(url, 5, seconds, small)).summary()
    quiet, flood = asyncio.run(both())
    return {"alone": alone, "flooded": quiet.summary(), "flood": flood.summary()}


def _cold(url: str, corpus: list[str], names: list[str], seconds: float) -> dict[str, dict[str, float]]:
    """Requests for resident adapters, while others are taken from the host cache into slots."""
    warm = _choose(corpus, [*names[:8]], 1)
    requests = [Request.embed(["a"], name) for name in names[ADAPTERS:]]

    async def both() -> tuple[Any, Any]:
        cold = open_loop(url, 20, seconds, lambda number: requests[number % len(requests)])
        return await asyncio.gather(open_loop(url, 40, seconds, warm), cold)

    async def control() -> tuple[Any, Any]:
        same = open_loop(url, 20, seconds, lambda number: Request.embed(["a"], names[8 + number % 8]))
        return await asyncio.gather(open_loop(url, 40, seconds, warm), same)

    still, _ = asyncio.run(control())
    moving, cold = asyncio.run(both())
    return {"resident": still.summary(), "while loading": moving.summary(), "the loaded": cold.summary()}


if __name__ == "__main__":
    main()
