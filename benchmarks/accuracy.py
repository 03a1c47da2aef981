"""What a type costs in accuracy: the engine in bfloat16 and float16 against itself in float32, on trained adapters.

python -m benchmarks.accuracy --data DIR

DIR holds `banking77/test.jsonl` and `uci_sentiment/test.jsonl`, rows of `text` and `label`: the sets that the demo
adapters were trained on (their cards say where they come from), and the corpus of the vectors.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from app.demo import DIRECTORY
from benchmarks.checks import cosines, unit
from benchmarks.rounds import save
from benchmarks.served import Content, Served
from lorat.adapter import Task

DTYPES = ("float32", "bfloat16", "float16")
CLASSIFIERS = {"banking77": "banking77", "sentiment": "uci_sentiment"}
ADAPTERS = ("intent-search", "banking77", "sentiment")
VECTORS = 2000  # texts
Rows = list[dict[str, str]]


def main() -> None:
    options = _options()
    sets = {name: _read(options.data / directory / "test.jsonl") for name, directory in CLASSIFIERS.items()}
    corpus = _corpus(sets)
    seen = {dtype: _run(dtype, sets, corpus) for dtype in tqdm(DTYPES, unit="type", file=sys.stderr)}
    exact = seen["float32"]
    result = {"texts": len(corpus), "types": {dtype: _compare(found, exact) for dtype, found in seen.items()}}
    print(save("accuracy", result, options.out))
    print(json.dumps(result, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _corpus(sets: dict[str, Rows]) -> list[str]:
    """Of each set as much as there is for an even mix."""
    few, many = sorted((rows for rows in sets.values()), key=len)
    return [row["text"] for row in [*few, *many[: VECTORS - len(few)]]]


def _run(dtype: str, sets: dict[str, Rows], corpus: list[str]) -> dict[str, Any]:
    """Vectors of the corpus by adapter, mixed and merged, and accuracies of the classifiers on all their texts."""
    served = Served([], dtype, workers=2)
    contents = {name: served.read(DIRECTORY / name) for name in ADAPTERS}
    ids = _ids(served, corpus)
    vectors = {"base": served.answers(ids, [None])}
    mixed = served.answers([one for one in ids for _ in ADAPTERS], list(contents.values()))
    vectors |= {name: mixed[place :: len(ADAPTERS)] for place, name in enumerate(ADAPTERS)}
    accuracy = {name: _accuracy(served, contents[name], rows) for name, rows in sets.items()}
    served.merge(*(digest for digest, _ in contents.values()))
    vectors |= {f"{name}, merged": served.answers(ids, [content]) for name, content in contents.items()}
    served.close()
    return {"vectors": vectors, "accuracy": accuracy}


def _ids(served: Served, texts: Sequence[str]) -> list[list[int]]:
    return [tokens.ids for tokens in served.model.base.encode(texts, served.model.base.recipe)]


def _accuracy(served: Served, content: Content, rows: Rows) -> float:
    head = content[1].head
    assert head is not None
    task: Task = "sequence_classification"
    logits = served.answers(_ids(served, [row["text"] for row in rows]), [content], task)
    return float(np.mean([head.labels[best] == row["label"] for best, row in zip(logits.argmax(1), rows, strict=True)]))


def _compare(found: dict[str, Any], exact: dict[str, Any]) -> dict[str, Any]:
    vectors, expected = found["vectors"], exact["vectors"]
    found_cosines = {name: cosines(vectors[name], expected[name]) for name in vectors}
    effects = {name: _effects(vectors, expected, name) for name in vectors if name != "base"}
    return {
        "lowest_cosine": {name: float(values.min()) for name, values in found_cosines.items()},
        "effect_lost_of_the_mean": {name: float(values[0]) for name, values in effects.items()},
        "effect_lost_median": {name: float(np.median(values[1])) for name, values in effects.items()},
        "effect_lost_99_percent": {name: float(np.quantile(values[1], 0.99)) for name, values in effects.items()},
        "effect_lost_most": {name: float(values[1].max()) for name, values in effects.items()},
        "accuracy": found["accuracy"],
        "accuracy_points": {name: 100 * (found["accuracy"][name] - exact["accuracy"][name]) for name in CLASSIFIERS},
    }


def _effects(vectors: dict[str, np.ndarray], expected: dict[str, np.ndarray], name: str) -> tuple[float, np.ndarray]:
    """How far the change that an adapter makes is from what it should be, as a share of its length.

    Of all texts together, and of each.
    """
    made = unit(vectors[name]) - unit(vectors["base"])
    wanted = unit(expected[name]) - unit(expected["base"])
    lost, length = np.linalg.norm(made - wanted, axis=1), np.linalg.norm(wanted, axis=1)
    return float(np.linalg.norm(lost) / np.linalg.norm(length)), lost / length


if __name__ == "__main__":
    main()
