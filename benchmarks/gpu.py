"""Everything about a GPU in one run of under 8 minutes: the checks, then the measurements, then a table.

python -m benchmarks.gpu [--rounds 7]

BERT-base with random weights in bfloat16. Needs torch, transformers, safetensors, tokenizers, numpy and triton;
PEFT is measured where it is installed. Without a CUDA device it says so, writes nothing and ends with status 2.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.corpus import lengths
from benchmarks.gpu_bench import ADAPTERS, BATCHES, CONFIG, DEVICE, DTYPE, LENGTH, SEQUENCES, Bench
from benchmarks.gpu_checks import checks
from benchmarks.gpu_peers import PEFT_BATCHES, padded, peft, sentence_transformers
from benchmarks.made import random_bert
from benchmarks.rounds import measure, median, save
from lorat import Row, Tokens

MIXED_TEXTS, MIXED_TOKENS = 2048, 16384
_REST = 0.15  # seconds before each pass: one that followed the products alone was 7 % slower


def main() -> None:
    options = _options()
    if not torch.cuda.is_available():
        print("there is no CUDA device here: nothing was checked, measured or written", file=sys.stderr)
        sys.exit(2)
    started = time.perf_counter()
    result: dict[str, Any] = {"gpu": _gpu()}
    for part in _parts(options.rounds):  # written after each: device time may end at any of them
        result |= part() | {"seconds_in_all": time.perf_counter() - started}
        for out in {None, options.out}:
            save("gpu", result, out)
    result["table"] = table(result)
    for out in {None, options.out}:
        print(save("gpu", result, out))
    print("\n".join(f"{name:52} {value:>12} {target}" for name, value, target in result["table"]))


def _parts(rounds: int) -> Iterator[Callable[[], dict[str, Any]]]:
    yield lambda: {"errors": checks(DEVICE)}
    bench = Bench()
    yield lambda: _latency(bench)
    yield lambda: _throughput(bench, rounds)
    yield lambda: _mixed(bench, rounds)
    yield lambda: {"kernels_us": bench.kernels(), "passes_us": bench.passes()}
    yield lambda: {"sweep_us": bench.sweep(), "profile_us": bench.profile()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a directory for a second copy of the numbers")
    return parser.parse_args()


def _gpu() -> dict[str, Any]:
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "multiprocessors": found.multi_processor_count,
        "memory_bytes": found.total_memory,
        "cuda": torch.version.cuda,
        "triton": version("triton"),
    }


def _throughput(bench: Bench, rounds: int) -> dict[str, Any]:
    """Seconds of a batch of SEQUENCES texts of LENGTH tokens, by passes of many."""
    rows = {name: bench.rows(slots) for name, slots in bench.mixes().items()}
    runs: dict[str, Callable[[], object]] = {name: bench.served([batch] * BATCHES) for name, batch in rows.items()}
    runs |= {f"encoder: {name}": bench.encoded(batch) for name, batch in rows.items()}
    runs["matrix products alone"] = bench.matrices()
    others = peft()
    passes = measure(runs | others, rounds, rest=_REST)
    seconds = {
        name: [one / (PEFT_BATCHES if name in others else BATCHES) for one in times] for name, times in passes.items()
    }
    work = (
        2 * CONFIG.num_hidden_layers * (4 * CONFIG.hidden_size**2 + 2 * CONFIG.hidden_size * CONFIG.intermediate_size)
    )
    tokens = SEQUENCES * LENGTH
    return {
        "seconds": seconds,
        "tokens_per_second": {name: tokens / median(times) for name, times in seconds.items()},
        "tflops": {name: work * tokens / median(times) / 1e12 for name, times in seconds.items()},
        "square_product_tflops": _square(),
    }


def _square(size: int = 8192, passes: int = 20) -> float:
    """TFLOP/s of a large square product: the rate that shares are taken of."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=DTYPE) for _ in range(2))
    rates = []
    for _ in range(5):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(passes):
            a @ b
        torch.cuda.synchronize()
        rates.append(2 * size**3 * passes / (time.perf_counter() - started) / 1e12)
    return median(rates)


def _mixed(bench: Bench, rounds: int) -> dict[str, Any]:
    """Seconds for MIXED_TEXTS texts of the corpus' lengths, against a padded forward sorted by length."""
    ids = [bench._rng.integers(0, CONFIG.vocab_size, size).tolist() for size in lengths(MIXED_TEXTS)]
    model = random_bert(CONFIG, DEVICE, DTYPE)
    runs = {
        "lorat, base only": bench.served(_batches([Row(Tokens(one)) for one in ids])),
        "lorat, 64 adapters": bench.served(
            _batches([Row(Tokens(one), bench.small[place % ADAPTERS]) for place, one in enumerate(ids)])
        ),
        "padded, batches of 32": padded(model, ids, 32),
        "padded, batches of 256": padded(model, ids, 256),
        **sentence_transformers(model, ids, 32),
    }
    seconds = measure(runs, rounds, rest=_REST)
    return {"mixed_texts": len(ids), "mixed_tokens": sum(map(len, ids)), "mixed_seconds": seconds}


def _batches(rows: Sequence[Row]) -> list[list[Row]]:
    """In the order of arrival, each as many as fit the token budget."""
    batches: list[list[Row]] = [[]]
    room = MIXED_TOKENS
    for row in rows:
        if len(row.tokens) > room:
            batches.append([])
            room = MIXED_TOKENS
        batches[-1].append(row)
        room -= len(row.tokens)
    return batches


def _latency(bench: Bench, passes: int = 200) -> dict[str, Any]:
    """Milliseconds for one text, from token ids to its vector, and of the graph's replay alone."""
    found = {}
    for name, slots, length in (
        ("base only, 16 tokens", [None], 16),
        ("base only, 128 tokens", [None], 128),
        ("an adapter, 128 tokens", bench.small[:1], 128),
    ):
        rows = bench.rows(slots, 1, length)
        whole = _milliseconds(lambda rows=rows: bench.model.forward(rows), passes)
        graphs = bench.model._gpu._graphs
        graph = next(reversed(graphs._captured.values())).captured
        floor = _milliseconds(lambda graph=graph: (graph.replay(), torch.cuda.synchronize()), passes)
        found[name] = {"whole": whole, "replay": floor}
    return {"latency_ms": found}


def _milliseconds(run: Callable[[], object], passes: int) -> list[float]:
    times = []
    for place in range(passes + 10):
        started = time.perf_counter()
        run()
        if place >= 10:
            times.append(1000 * (time.perf_counter() - started))
    return times


def table(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What it comes to: name, value, target."""
    rate, tflops, mixed = result["tokens_per_second"], result["tflops"], result["mixed_seconds"]
    base, alone = rate["base only"], tflops["matrix products alone"]
    rows = [("largest error of a check", max(result["errors"].values()), "")]
    for prefix in ("", "encoder: "):
        for name in ("1 adapter, qv rank 8", "8 adapters, qv rank 8", "64 adapters, qv rank 8"):
            rows.append((f"{prefix}{name} / base only", rate[prefix + name] / rate[f"{prefix}base only"], ">= 0.90"))
        for name in ("64 adapters, all six rank 16", "1 merged", "8 merged"):
            rows.append((f"{prefix}{name} / base only", rate[prefix + name] / rate[f"{prefix}base only"], ""))
    rows += [
        ("base only, million tokens/s", base / 1e6, ""),
        ("base only, of the square product's rate", tflops["base only"] / result["square_product_tflops"], ">= 0.45"),
        ("base only, of its own products' rate", tflops["base only"] / alone, ""),
    ]
    if f"peft, {ADAPTERS} adapters" in rate:
        ratio = rate["64 adapters, qv rank 8"] / rate[f"peft, {ADAPTERS} adapters"]
        rows.append(("64 adapters / PEFT with 64", ratio, ">= 10"))
    for name in sorted(set(mixed) - {"lorat, base only"}):
        ratio = median(mixed[name]) / median(mixed["lorat, base only"])
        rows.append((f"mixed lengths, base only / {name}", ratio, ">= 3" if name.startswith("sentence") else ""))
    for name, times in result["latency_ms"].items():
        rows.append((f"one text, {name}, ms", median(times["whole"]), ""))
        rows.append((f"one text, {name} / replay", median(times["whole"]) / median(times["replay"]), "<= 1.5"))
    return [(name, f"{value:.4g}", target) for name, value, target in rows]


if __name__ == "__main__":
    main()
