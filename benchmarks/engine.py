"""The engine without HTTP: texts a second of mixed lengths, against the peers that are installed.

python -m benchmarks.engine [--rounds 5] [--peers]
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from app.engine import Engine
from app.jobs import Call
from app.metrics import Metrics
from benchmarks.ceiling import matrix_ceiling, multiply_adds
from benchmarks.corpus import texts
from benchmarks.made import ALL, QV, make_adapter
from benchmarks.peers import peers
from benchmarks.rounds import measure, median, save
from lorat import Adapter, MultiLoRAT, Tokens, read_adapter
from lorat.base import locate_base
from lorat.memory import keep_freed_memory

TOKENS = 1024  # of a batch
Digests = Sequence[tuple[str, Adapter] | None]


class Served:
    """LoRAT's engine, as the service runs it; every text is a request of its own."""

    def __init__(self, ids: list[list[int]], dtype: str, workers: int) -> None:
        self.model = MultiLoRAT.from_pretrained(device="cpu", dtype=dtype, slots=128)
        self._engine = Engine(self.model, TOKENS, Metrics(), workers)
        self._ids = ids

    def read(self, directory: Path) -> tuple[str, Adapter]:
        return str(directory), read_adapter(directory, self.model.base.shape)

    def merge(self, digest: str) -> None:
        self._engine.prefer(frozenset(), {digest})

    def vectors(self, adapters: Digests) -> np.ndarray:
        """Every text once, with the adapters in turn."""
        calls = []
        for place, ids in enumerate(self._ids):
            digest, content = adapters[place % len(adapters)] or (None, None)
            calls.append(Call("embedding", digest, content).begin([Tokens(ids)]))
        for call in calls:
            self._engine.submit(call)
        return np.stack([call.future.result()[0].values for call in calls])


def main() -> None:
    options = _options()
    keep_freed_memory()
    base = locate_base(None)
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = [tokenizer(text)["input_ids"] for text in texts(tokenizer)]
    with tempfile.TemporaryDirectory() as directory:
        contenders, check = _contenders(ids, base, Path(directory), options)
        check()
        ceiling = matrix_ceiling(torch.bfloat16)
        seconds = measure(contenders, options.rounds)
    tokens = sum(map(len, ids))
    work = 2 * multiply_adds(base) * tokens
    result = {
        "texts": len(ids),
        "tokens": tokens,
        "seconds": seconds,
        "texts_per_second": {name: len(ids) / median(times) for name, times in seconds.items()},
        "ceiling_gflops": {"before": ceiling, "after": matrix_ceiling(torch.bfloat16)},
        "gflops": {name: work / median(times) / 1e9 for name, times in seconds.items()},
    }
    print(save("engine", result, options.out))
    for name, times in seconds.items():
        print(f"{name:32} {len(ids) / median(times):8.1f} texts/s {work / median(times) / 1e9:8.1f} GFLOP/s")
    print("ceiling", result["ceiling_gflops"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peers", action="store_true", help="measure every peer that is installed")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _contenders(
    ids: list[list[int]], base: Path, directory: Path, options: argparse.Namespace
) -> tuple[dict[str, Callable[[], object]], Callable[[], None]]:
    exact, fast = (Served(ids, dtype, options.workers) for dtype in ("float32", "bfloat16"))
    config = fast.model.base.model.config
    made = {
        name: [make_adapter(directory / f"{name}{seed}", config, seed, rank, targets) for seed in range(32)]
        for name, rank, targets in (("qv", 8, QV), ("all", 16, ALL))
    }
    small, large = ([fast.read(path) for path in made[name]] for name in ("qv", "all"))
    hot = fast.read(make_adapter(directory / "hot", config, 99, 8, QV))
    fast.merge(hot[0])
    alone: Digests = [None]
    runs: dict[str, Callable[[], object]] = {
        "lorat fp32": lambda: exact.vectors(alone),
        "lorat bf16": lambda: fast.vectors(alone),
        "lorat bf16, hot merged": lambda: fast.vectors([hot]),
        "lorat bf16, 1 qv r8": lambda: fast.vectors(small[:1]),
        "lorat bf16, 8 qv r8": lambda: fast.vectors(small[:8]),
        "lorat bf16, 32 qv r8": lambda: fast.vectors(small),
        "lorat bf16, 32 all r16": lambda: fast.vectors(large),
    }
    others = peers(ids, base, made["qv"], everything=options.peers)

    def check() -> None:
        expected = others["torch padded fp32"]()
        for name in ("lorat fp32", "lorat bf16"):
            answers = np.asarray(runs[name]())
            cosine = (answers * expected).sum(1) / np.linalg.norm(answers, axis=1) / np.linalg.norm(expected, axis=1)
            assert cosine.min() >= 0.9995, (name, cosine.min())

    return runs | others, check


if __name__ == "__main__":
    main()
