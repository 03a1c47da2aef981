"""What is measured on a GPU: one model with its adapters, and each thing it does as a function."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BertConfig

from benchmarks.made import random_adapter, random_base
from lorat import MultiLoRAT, Row, Tokens
from lorat.gpu.plan import Plan
from lorat.ops import tiles, triton
from lorat.targets import MODULES

DEVICE, DTYPE = "cuda", torch.bfloat16
CONFIG = BertConfig()  # BERT-base
SEQUENCES, LENGTH, ADAPTERS = 64, 128, 64  # of a batch
BATCHES = 8  # of a pass, by two threads as the service's
_SWEEP = ((16, 128), (32, 64), (32, 128), (32, 256), (64, 128), (64, 256))  # rows, columns


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
        weight = self.model._model.layers[0].linears[group].weight
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
