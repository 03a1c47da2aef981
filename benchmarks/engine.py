"""The engine without HTTP: texts a second of mixed lengths, against the peers that are installed.

python -m benchmarks.engine [--rounds 5] [--peers]

Each round every contender computes the corpus of 256 texts four times: the peers batch after batch, LoRAT with all of
it in its queue. "products alone" are the encoder's multiply-adds for it and nothing else, by the matrix library; where
the processor multiplies bfloat16, by our own kernels as well.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer

from benchmarks.ceiling import Products, by_our_kernels, by_the_library, multiply_adds
from benchmarks.checks import Checked
from benchmarks.corpus import texts
from benchmarks.made import ALL, QV, make_adapter
from benchmarks.peers import peers
from benchmarks.rounds import measure, median, save
from benchmarks.served import Content, Served
from lorat.base import locate_base
from lorat.cpu import layout_for
from lorat.layout import KERNELS
from lorat.memory import keep_freed_memory

PASSES = 4  # of the corpus, by each contender each round
Digests = Sequence[Content | None]
Contenders = dict[str, Callable[[], np.ndarray | None]]


def main() -> None:
    options = _options()
    keep_freed_memory()
    base = locate_base(None)
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = [tokenizer(text)["input_ids"] for text in texts(tokenizer)]
    tokens = sum(map(len, ids)) * PASSES
    count = len(ids) * PASSES
    work = multiply_adds(base) * tokens
    with tempfile.TemporaryDirectory() as directory:
        contenders = _contenders(ids, base, Path(directory), options) | _products(work, base)
        checked = Passes()
        seconds = measure(contenders, options.rounds, checked)
    result = {
        "texts": count,
        "tokens": tokens,
        "seconds": seconds,
        "texts_per_second": {name: count / median(times) for name, times in seconds.items()},
        **checked.facts(),
        "gflops": {name: 2 * work / median(times) / 1e9 for name, times in seconds.items()},
    }
    print(save("engine", result, options.out))
    for name, times in seconds.items():
        print(f"{name:32} {count / median(times):8.1f} texts/s {2 * work / median(times) / 1e9:8.1f} GFLOP/s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peers", action="store_true", help="measure every peer that is installed")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _products(multiply_adds: int, base: Path) -> Contenders:
    made: Contenders = {
        f"products alone, {name}": Products(dtype, multiply_adds, by_the_library(dtype))
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    if layout_for(AutoConfig.from_pretrained(base), torch.device("cpu"), torch.bfloat16) is KERNELS:
        made["products alone, bf16, our kernels"] = Products(torch.bfloat16, multiply_adds, by_our_kernels())
    return made


def _contenders(ids: list[list[int]], base: Path, directory: Path, options: argparse.Namespace) -> Contenders:
    """The first ones are what the others are held against."""
    exact, fast = (Served(ids * PASSES, dtype, options.workers) for dtype in ("float32", "bfloat16"))
    config = fast.model.base.config
    made = {
        name: [make_adapter(directory / f"{name}{seed}", config, seed, rank, targets) for seed in range(32)]
        for name, rank, targets in (("qv", 8, QV), ("all", 16, ALL))
    }
    small, large = ([fast.read(path) for path in made[name]] for name in ("qv", "all"))
    hot = fast.read(make_adapter(directory / "hot", config, 99, 8, QV))
    choices: dict[str, tuple[Served, Digests]] = {}
    for kind, served in (("fp32", exact), ("bf16", fast)):
        served.merge(hot[0])
        choices |= {
            f"lorat {kind}": (served, [None]),
            f"lorat {kind}, hot merged": (served, [hot]),
            f"lorat {kind}, 1 qv r8": (served, small[:1]),
            f"lorat {kind}, 8 qv r8": (served, small[:8]),
            f"lorat {kind}, 32 qv r8": (served, small),
            f"lorat {kind}, 32 all r16": (served, large),
        }
    runs = {
        name: lambda served=served, digests=digests: served.vectors(digests)
        for name, (served, digests) in choices.items()
    }
    others = peers(ids, base, made["qv"], everything=options.peers)
    return {name: lambda run=run: np.concatenate([run() for _ in range(PASSES)]) for name, run in others.items()} | runs


class Passes(Checked):
    """Holds every pass's answers against those of another engine: the base's, and PEFT's where it is measured."""

    ORACLES: ClassVar = {
        "torch padded fp32": ("lorat fp32", "lorat bf16", "openvino f32", "openvino bf16", "onnxruntime fp32"),
        "peft, 1 adapters": ("lorat fp32, 1 qv r8", "lorat bf16, 1 qv r8"),
        "peft, 8 adapters": ("lorat fp32, 8 qv r8", "lorat bf16, 8 qv r8"),
        "peft, 32 adapters": ("lorat fp32, 32 qv r8", "lorat bf16, 32 qv r8"),
    }

    def __init__(self) -> None:
        super().__init__()
        self._oracles = {name: oracle for oracle, names in self.ORACLES.items() for name in names}
        self._answers: dict[str, np.ndarray] = {}

    def __call__(self, name: str, answers: np.ndarray | None) -> None:
        if answers is None:
            return
        if name in self.ORACLES:
            self._answers[name] = answers
        expected = self._answers.get(self._oracles.get(name, name))
        if expected is not None and expected is not answers:
            self.hold(answers, expected, name)


if __name__ == "__main__":
    main()
