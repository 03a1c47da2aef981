"""How good the adapters are: LoRAT, PEFT with the same recipe, full fine-tuning and the frozen base, by data set.

python -m benchmarks.training --data DIR [--sets trec6 …] [--systems lorat peft full frozen] [--seeds 1 2 3] [--table]

DIR holds a directory for each set, with `train.jsonl`, perhaps `dev.jsonl` and `labels.json`, and `test.jsonl`. Each
cell of the table is a file in `benchmarks/results/training`, written when it is done; those that are there are not
computed again. `--table` only prints what there is.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks.rounds import machine
from benchmarks.training_peers import PEERS
from benchmarks.training_table import CELLS, SETS, SYSTEMS, path_of, scores, table
from lorat.train import train
from lorat.training.plan import Plan


def main() -> None:
    options = _options()
    cells = [] if options.table else _missing(options)
    for name, system, seed in tqdm(cells, unit="cell", file=sys.stderr):
        started = time.perf_counter()
        cell = {
            "scores": _compute(options.data / name, system, seed),
            "seconds": time.perf_counter() - started,
            "machine": machine(),
        }
        CELLS.mkdir(parents=True, exist_ok=True)
        path_of(name, system, seed).write_text(json.dumps(cell, indent=1) + "\n")
    print(table(scores()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--systems", nargs="+", default=tuple(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    parser.add_argument("--table", action="store_true", help="print what there is, compute nothing")
    return parser.parse_args()


def _missing(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """All of the first seed, then of the next."""
    cells = [(name, system, seed) for seed in options.seeds for name in options.sets for system in options.systems]
    return [cell for cell in cells if not path_of(*cell).exists()]


def _compute(data: Path, system: str, seed: int) -> dict[str, float]:
    """The scores of the test split."""
    with tempfile.TemporaryDirectory() as directory:
        plan = Plan(data, Path(directory) / "adapter", seed=seed)
        return PEERS[system](plan) if system in PEERS else train(plan)[plan.title]


if __name__ == "__main__":
    main()
