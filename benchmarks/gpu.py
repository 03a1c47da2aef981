"""Everything about a GPU in one run of under 8 minutes: the checks, then the measurements, then a table.

python -m benchmarks.gpu [--rounds 7]

BERT-base with random weights in bfloat16. Needs torch, transformers, safetensors, tokenizers, numpy and triton;
PEFT is measured where it is installed. Without a CUDA device it says so, writes nothing and ends with status 2.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from benchmarks.corpus import lengths
from benchmarks.gpu_checks import checks
from benchmarks.made import random_adapter, random_base
from benchmarks.rounds import measure, median, save
from lorat import MultiLoRAT, Row, Tokens
from lorat.gpu.plan import Plan
from lorat.ops import tiles, triton
from lorat.targets import MODULES

DEVICE, DTYPE = "cuda", torch.bfloat16
CONFIG = BertConfig()  # BERT-base
SEQUENCES, LENGTH, ADAPTERS = 64, 128, 64  # of a batch
BATCHES = 8  # of a pass, by two threads as the service's
MIXED_TEXTS, MIXED_TOKENS = 2048, 16384
_SWEEP = ((16, 128), (32, 64), (32, 128), (32, 256), (64, 128), (64, 256))  # rows, columns
Runs = Mapping[str, Callable[[], object]]


def main() -> None:
    options = _options()
    if not torch.cuda.is_available():
        print("there is no CUDA device here: nothing was checked, measured or written", file=sys.stderr)
        sys.exit(2)
    started = time.perf_counter()
    result: dict[str, Any] = {"gpu": _gpu(), "errors": checks(DEVICE)}
    bench = Bench()
    result |= _throughput(bench, options.rounds) | _latency(bench) | _mixed(bench, options.rounds)
    result |= {"kernels_us": bench.kernels(), "sweep_us": bench.sweep(), "profile_us": bench.profile()}
    result |= {"seconds_in_all": time.perf_counter() - started}
    result["table"] = table(result)
    for out in {None, options.out}:
        print(save("gpu", result, out))
    print("\n".join(f"{name:52} {value:>12} {target}" for name, value, target in result["table"]))


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


class Bench:
    """A served BERT-base with adapters of each kind loaded, and batches for it."""

    def __init__(self) -> None:
        self.model = MultiLoRAT(random_base(CONFIG, DEVICE, DTYPE), slots=4 * ADAPTERS)
        self.small = [self._load(seed, 8, ["query", "value"]) for seed in range(ADAPTERS)]
        self.large = [self._load(seed, 16, list(MODULES)) for seed in range(ADAPTERS)]
        self.merged = [self._load(seed, 8, ["query", "value"]) for seed in range(8)]
        for slot in self.merged:
            self.model.merge(slot)
        self._pool = ThreadPoolExecutor(2)
        self._rng = np.random.default_rng(0)

    def _load(self, seed: int, rank: int, targets: Sequence[str]) -> Any:
        return self.model.load(random_adapter(CONFIG, seed, rank, targets))

    def mixes(self) -> dict[str, list[Any]]:
        """The adapters of a batch, by name."""
        return {
            "base only": [None],
            "1 adapter, qv rank 8": self.small[:1],
            "8 adapters, qv rank 8": self.small[:8],
            "64 adapters, qv rank 8": self.small,
            "64 adapters, all six rank 16": self.large,
            "1 merged": self.merged[:1],
            "8 merged": self.merged,
        }

    def rows(self, slots: Sequence[Any], count: int = SEQUENCES, length: int = LENGTH) -> list[Row]:
        """A batch of equal lengths, with the adapters in turn."""
        ids = self._rng.integers(0, CONFIG.vocab_size, (count, length)).tolist()
        return [Row(Tokens(one), slots[place % len(slots)]) for place, one in enumerate(ids)]

    def served(self, batches: Sequence[Sequence[Row]]) -> Callable[[], object]:
        """Batches, from token ids to vectors on the host, by two threads."""
        return lambda: list(self._pool.map(self.model.forward, batches))

    def encoded(self, rows: Sequence[Row]) -> Callable[[], object]:
        """The encoder alone, eager: what the device does for a batch, enqueued BATCHES times."""
        encoder = self.model._gpu._encoder
        order = sorted(rows, key=lambda row: row.slot.index if row.slot else 0)
        plan = Plan.of(
            [row.tokens.ids for row in order], [None] * len(order), [row.slot for row in order],
            CONFIG.num_hidden_layers, self.model.device,
        )  # fmt: skip
        inputs = plan.stage().send(self.model.device)

        @torch.inference_mode()
        def run() -> None:
            for _ in range(BATCHES):
                encoder.exact(plan, inputs)
            torch.cuda.synchronize()

        return run

    def matrices(self) -> Callable[[], object]:
        """The encoder's own products, BATCHES times: what no forward pass can be faster than."""
        hidden, inner = CONFIG.hidden_size, CONFIG.intermediate_size
        shapes = [(3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner)]
        made = [self._matrix(*shape) for _ in range(CONFIG.num_hidden_layers) for shape in shapes]
        inputs = {wide: torch.randn(SEQUENCES * LENGTH, wide, device=DEVICE, dtype=DTYPE) for wide in (hidden, inner)}

        @torch.inference_mode()
        def run() -> None:
            for _ in range(BATCHES):
                for weight, bias in made:
                    F.linear(inputs[weight.shape[1]], weight, bias)
            torch.cuda.synchronize()

        return run

    def _matrix(self, tall: int, wide: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(tall, wide, device=DEVICE, dtype=DTYPE), torch.randn(tall, device=DEVICE, dtype=DTYPE)

    def kernels(self) -> dict[str, float]:
        """Microseconds of one shrink and one expand for 64 adapters in a batch, by linear layer."""
        return {group: self._kernel_time(group) for group in ("qkv", "output", "intermediate", "ffn_output")}

    def _kernel_time(self, group: str, passes: int = 50) -> float:
        slots = self.small if group == "qkv" else self.large
        plan = Plan.of(
            [[1] * LENGTH] * SEQUENCES, [None] * SEQUENCES, slots, CONFIG.num_hidden_layers, self.model.device
        )
        sent = plan.stage().send(self.model.device)[-1]
        weight = self.model.base.model.encoder.layer[0].linears[group].weight
        x, y = (torch.randn(len(plan.ids), size, device=DEVICE, dtype=DTYPE) for size in weight.shape[::-1])
        launch = triton.Launch(sent, len(plan.ids), plan.ranks, plan.aligned, CONFIG.intermediate_size)
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        launch.add((0, group), y, x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for layer in range(CONFIG.num_hidden_layers):
                launch.add((layer, group), y, x)
        graph.replay()
        start.record()
        for _ in range(passes):
            graph.replay()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) * 1000 / passes / CONFIG.num_hidden_layers

    def sweep(self) -> dict[str, dict[str, float]]:
        """The same for other sizes of a program's block."""
        chosen = tiles.ROWS, triton._COLUMNS
        found = {}
        for rows, columns in _SWEEP:
            tiles.ROWS = triton.ROWS = rows
            triton._COLUMNS = columns
            found[f"{rows} rows, {columns} columns"] = {g: self._kernel_time(g) for g in ("qkv", "ffn_output")}
        tiles.ROWS, triton._COLUMNS = chosen
        triton.ROWS = tiles.ROWS
        return found

    def profile(self) -> dict[str, float]:
        """Microseconds a batch by kernel, of 64 adapters in one: the dozen that take the most."""
        run = self.encoded(self.rows(self.small))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            run()
        events = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)[:12]
        return {event.key[:80]: event.self_device_time_total / BATCHES for event in events}


def _throughput(bench: Bench, rounds: int) -> dict[str, Any]:
    """Seconds of a pass: BATCHES batches of SEQUENCES texts of LENGTH tokens."""
    rows = {name: bench.rows(slots) for name, slots in bench.mixes().items()}
    runs: dict[str, Callable[[], object]] = {name: bench.served([batch] * BATCHES) for name, batch in rows.items()}
    runs |= {f"encoder: {name}": bench.encoded(batch) for name, batch in rows.items()}
    runs["matrix products alone"] = bench.matrices()
    runs |= _peft()
    seconds = measure(runs, rounds)
    work = (
        2 * CONFIG.num_hidden_layers * (4 * CONFIG.hidden_size**2 + 2 * CONFIG.hidden_size * CONFIG.intermediate_size)
    )
    tokens = BATCHES * SEQUENCES * LENGTH
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


def _peft() -> Runs:
    """PEFT's own way to mix adapters in a batch: 1, 8 and 64 of rank 8 on query and value."""
    if not importlib.util.find_spec("peft"):
        print("peft is not installed: it was left out", file=sys.stderr)
        return {}
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], init_lora_weights=False)
    model = get_peft_model(BertModel(CONFIG), config, adapter_name="0")
    for place in range(1, ADAPTERS):
        model.add_adapter(str(place), config)
    model = model.to(DEVICE, DTYPE).eval()
    ids = torch.randint(0, CONFIG.vocab_size, (SEQUENCES, LENGTH), device=DEVICE)
    return {f"peft, {count} adapters": _peft_run(model, ids, count) for count in (1, 8, ADAPTERS)}


def _peft_run(model: Any, ids: torch.Tensor, count: int) -> Callable[[], object]:
    names = [str(place % count) for place in range(SEQUENCES)]

    @torch.inference_mode()
    def run() -> None:
        for _ in range(BATCHES):
            model(input_ids=ids, adapter_names=names).last_hidden_state.float().mean(1).cpu()

    return run


def _mixed(bench: Bench, rounds: int) -> dict[str, Any]:
    """Seconds for MIXED_TEXTS texts of the corpus' lengths, against a padded forward sorted by length."""
    ids = [bench._rng.integers(0, CONFIG.vocab_size, size).tolist() for size in lengths(MIXED_TEXTS)]
    model = random_base(CONFIG, DEVICE, DTYPE).model
    runs = {
        "lorat, base only": bench.served(_batches([Row(Tokens(one)) for one in ids])),
        "lorat, 64 adapters": bench.served(
            _batches([Row(Tokens(one), bench.small[place % ADAPTERS]) for place, one in enumerate(ids)])
        ),
        "padded, batches of 32": _padded(model, ids, 32),
        "padded, batches of 256": _padded(model, ids, 256),
    }
    seconds = measure(runs, rounds)
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


def _padded(model: BertModel, ids: list[list[int]], size: int) -> Callable[[], object]:
    """What sentence-transformers does: sorted by length, padded, the mean over the tokens, copied back."""
    order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))

    @torch.inference_mode()
    def run() -> None:
        vectors = []
        for start in range(0, len(order), size):
            chosen = [ids[place] for place in order[start : start + size]]
            longest = len(chosen[0])
            tokens = torch.tensor([one + [0] * (longest - len(one)) for one in chosen]).to(DEVICE)
            mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in chosen]).to(DEVICE)
            hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
            vectors.append((hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True))
        torch.cat(vectors).cpu()

    return run


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
        graph = next(reversed(graphs._captured.values())).graph
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
    for size in (32, 256):
        ratio = median(mixed[f"padded, batches of {size}"]) / median(mixed["lorat, base only"])
        rows.append((f"mixed lengths, base only / padded by {size}", ratio, ">= 3" if size == 32 else ""))
    for name, times in result["latency_ms"].items():
        rows.append((f"one text, {name}, ms", median(times["whole"]), ""))
        rows.append((f"one text, {name} / replay", median(times["whole"]) / median(times["replay"]), "<= 1.5"))
    return [(name, f"{value:.4g}", target) for name, value, target in rows]


if __name__ == "__main__":
    main()
