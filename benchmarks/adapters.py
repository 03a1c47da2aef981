"""What adapters cost: which texts have which, and how many there are to choose from. No HTTP.

python -m benchmarks.adapters [--rounds 5]

Every contender computes the same texts. The engine has 64 slots; an adapter that is in none comes from host memory.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm
from transformers import AutoTokenizer

from benchmarks.checks import Checked
from benchmarks.corpus import texts
from benchmarks.made import QV, random_adapter
from benchmarks.rounds import measure, median, save
from benchmarks.served import Content, Served
from lorat import MultiLoRAT, Row, Tokens
from lorat.base import locate_base
from lorat.memory import keep_freed_memory

TEXTS, SLOTS, MANY = 1024, 64, 10_000
Choice = Sequence[Content | None]


def main() -> None:
    options = _options()
    keep_freed_memory()
    tokenizer = AutoTokenizer.from_pretrained(locate_base(None))
    ids = [tokenizer(text)["input_ids"] for text in texts(tokenizer)] * (TEXTS // 256)
    served = Served(ids, options.dtype, options.workers, SLOTS)
    adapters = _adapters(served)
    choices = _choices(adapters)
    checked = Sampled(ids)
    runs: dict[str, Callable[[], np.ndarray]] = {
        name: (lambda choice=choice: served.vectors(choice)) for name, choice in choices.items()
    }
    seconds = measure(runs, options.rounds, lambda name, answers: checked(answers, choices[name]))
    served.close()
    base = median(seconds["base"])
    result = {
        "texts": len(ids),
        "tokens": sum(map(len, ids)),
        "slots": SLOTS,
        "seconds": seconds,
        "texts_per_second": {name: len(ids) / median(times) for name, times in seconds.items()},
        "against_base": {name: base / median(times) for name, times in seconds.items()},
        **checked.facts(),
    }
    print(save("adapters", result, options.out))
    for name, ratio in result["against_base"].items():
        print(f"{name:32} {result['texts_per_second'][name]:8.1f} texts/s  {ratio:5.2f} of base")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _adapters(served: Served) -> list[Content]:
    config = served.model.base.config
    return [
        (str(seed), random_adapter(config, seed, 8, QV)) for seed in tqdm(range(MANY), unit="adapter", file=sys.stderr)
    ]


def _choices(adapters: list[Content]) -> dict[str, Choice]:
    """The adapter of each text."""
    return {
        "base": [None] * TEXTS,
        "identical": adapters[:1] * TEXTS,
        "8 adapters": adapters[:8] * (TEXTS // 8),
        "32 adapters": adapters[:32] * (TEXTS // 32),
        "64 adapters": adapters[:64] * (TEXTS // 64),
        "distinct, 1,024 in 64 slots": adapters[:TEXTS],
    } | {f"Zipf over {count:,}": _zipf(adapters[:count]) for count in (1, 10, 100, 1_000, MANY)}


def _zipf(adapters: list[Content]) -> Choice:
    """Adapter k is asked for in proportion to 1 / k."""
    weights = 1 / np.arange(1, len(adapters) + 1)
    chosen = np.random.default_rng(0).choice(len(adapters), TEXTS, p=weights / weights.sum())
    return [adapters[place] for place in chosen]


class Sampled(Checked):
    """Holds a sample of every pass against the same text with the same adapter alone, in float32."""

    SAMPLE = 8

    def __init__(self, ids: Sequence[list[int]]) -> None:
        super().__init__()
        self._ids = ids
        self._model = MultiLoRAT.from_pretrained(device="cpu", dtype="float32", slots=1)
        self._rng = np.random.default_rng(1)

    def __call__(self, answers: np.ndarray, choice: Choice) -> None:
        for place in self._rng.choice(len(answers), self.SAMPLE, replace=False):
            expected = self._alone(self._ids[place], choice[place])
            self.hold(answers[place][None], expected[None], place)

    def _alone(self, ids: list[int], content: Content | None) -> np.ndarray:
        slot = self._model.load(content[1]) if content else None
        try:
            return self._model.forward([Row(Tokens(ids), slot)])[0].numpy()
        finally:
            if slot:
                self._model.unload(slot)


if __name__ == "__main__":
    main()
