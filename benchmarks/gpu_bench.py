"""What is measured on a GPU: one model with its adapters, and each thing it does as a function."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BertConfig

from benchmarks.made import random_adapter, random_base
from lorat import MultiLoRAT, Row, Tokens
from lorat.gpu.lanes import Lane
from lorat.gpu.plan import Plan
from lorat.ops import tiles, triton
from lorat.targets import MODULES

DEVICE, DTYPE = "cuda", torch.bfloat16
CONFIG = BertConfig()  # BERT-base
SEQUENCES, LENGTH, ADAPTERS = 64, 128, 64  # of a batch
BATCHES = 32  # of a pass, by two threads as the service's
_SWEEP = ((32, 128, 4), (32, 256, 4), (32, 256, 8), (64, 128, 4), (64, 256, 8))  # rows, columns, warps


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
        """The encoder alone as one CUDA graph, replayed BATCHES times: what the device takes, whatever Python does."""
        order = sorted(rows, key=lambda row: row.slot.index if row.slot else 0)
        plan = self._plan([row.tokens.ids for row in order], [row.slot for row in order])
        inputs = self._sent(plan)
        replay = _captured(lambda: self.model._gpu._encoder.exact(plan, inputs))

        def run() -> None:
            for _ in range(BATCHES):
                replay()
            torch.cuda.synchronize()

        return run

    def _plan(self, ids: Sequence[Sequence[int]], slots: Sequence[Any]) -> Plan:
        return Plan.of(ids, [None] * len(ids), slots)

    def _sent(self, plan: Plan) -> list[torch.Tensor]:
        stage = plan.stage()
        return stage.views(Lane(self.model.device).write(stage).to(self.model.device))

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
        """Microseconds of what 64 adapters in a batch add, by linear layer; and of shrink and expand one by one."""
        groups = ("qkv", "output", "intermediate", "ffn_output")
        chosen = {group: self._kernel_time(group) for group in groups}
        return chosen | {f"{group}, in two": self._kernel_time(group, in_two=True) for group in groups}

    def _kernel_time(self, group: str, *, in_two: bool = False) -> float:
        slots = self.small if group == "qkv" else self.large
        plan = self._plan([[1] * LENGTH] * SEQUENCES, slots)
        weight = self.model._model.layers[0].linears[group].weight
        x, y = (torch.randn(len(plan.ids), size, device=DEVICE, dtype=DTYPE) for size in weight.shape[::-1])
        launch = triton.Launch(self._sent(plan)[-1], len(plan.ids), plan.ranks, plan.aligned, CONFIG.intermediate_size)
        if in_two:
            return _microseconds(lambda layer: launch._in_two((layer, group), y, x, least=0))
        return _microseconds(lambda layer: launch.add((layer, group), y, x))

    def passes(self) -> dict[str, float]:
        """Microseconds of what lies between the products and behind them, ours and PyTorch's."""
        made = (torch.randn(SEQUENCES * LENGTH, CONFIG.hidden_size, device=DEVICE, dtype=DTYPE) for _ in range(4))
        y, x, weights, biases = made
        wide = torch.randn(SEQUENCES * LENGTH, CONFIG.intermediate_size, device=DEVICE, dtype=DTYPE)
        weight, bias, width = weights[0], biases[0], (CONFIG.hidden_size,)
        bags = torch.tensor([[place * LENGTH, LENGTH, 0] for place in range(SEQUENCES)], device=DEVICE)
        runs: dict[str, Callable[[int], object]] = {
            "norm of a sum": lambda _: triton.add_norm(y, x, weight, bias, 1e-12),
            "norm of a sum, PyTorch": lambda _: F.layer_norm(y + x, width, weight, bias, 1e-12),
            "gelu": lambda _: triton.gelu(wide),
            "gelu, PyTorch": lambda _: F.gelu(wide),
            "means of texts": lambda _: triton.pool(y, bags, ("mean",)),
            "means of texts, PyTorch": lambda _: y.view(SEQUENCES, LENGTH, -1).float().mean(1),
        }
        return {name: _microseconds(run) for name, run in runs.items()}

    def sweep(self) -> dict[str, dict[str, float]]:
        """The same for other sizes of a program's block."""
        chosen = tiles.ROWS, triton._COLUMNS, triton._CHUNK_COLUMNS, triton._WARPS
        found = {}
        for rows, columns, warps in _SWEEP:
            self._use(rows, columns, columns, warps)
            times = {group: self._kernel_time(group) for group in ("qkv", "ffn_output")}
            found[f"{rows} rows, {columns} columns, {warps} warps"] = times
        self._use(*chosen)
        return found

    def _use(self, rows: int, columns: int, chunk_columns: int, warps: int) -> None:
        tiles.ROWS = triton.ROWS = rows
        triton._COLUMNS, triton._CHUNK_COLUMNS, triton._WARPS = columns, chunk_columns, warps

    def profile(self) -> dict[str, float]:
        """Microseconds a batch by kernel, of 64 adapters in one: the dozen that take the most."""
        run = self.encoded(self.rows(self.small))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            run()
        events = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)[:12]
        return {event.key[:80]: event.self_device_time_total / BATCHES for event in events}


def _microseconds(run: Callable[[int], object], passes: int = 50) -> float:
    """Of one of a dozen calls in a graph, by the device's clock."""
    layers = range(CONFIG.num_hidden_layers)
    replay = _captured(lambda: [run(layer) for layer in layers])
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    replay()
    start.record()
    for _ in range(passes):
        replay()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) * 1000 / passes / len(layers)


@torch.inference_mode()
def _captured(run: Callable[[], object]) -> Callable[[], None]:
    """A replay of it, captured after one call that is not: kernels are compiled there."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return partial(_replay, graph, run)


def _replay(graph: torch.cuda.CUDAGraph, _: object) -> None:
    """What was captured is kept as long: it holds the tensors that the graph reads."""
    graph.replay()
