"""How good the adapters are: LoRAT, PEFT with the same recipe, full fine-tuning and the frozen base, by data set.

python -m benchmarks.training --data DIR [--sets trec6 …] [--systems lorat peft full frozen] [--seeds 1 2 3] [--table]

DIR holds a directory for each set, with `train.jsonl`, perhaps `dev.jsonl` and `labels.json`, and `test.jsonl`. Each
cell of the table is a file in `benchmarks/results/training`, written when it is done; those that are there are not
computed again. `--table` only prints what there is.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.rounds import RESULTS, machine
from benchmarks.training_peers import PEERS
from lorat.train import train
from lorat.training.plan import Plan

SETS = (
    "trec6", "sst2", "banking77", "clinc150", "snips", "goemotions_ekman", "uci_sentiment", "wnut17_ner", "stsb_en",
)  # fmt: skip
SYSTEMS = ("lorat", *PEERS)
CELLS = RESULTS / "training"


def main() -> None:
    options = _options()
    cells = [] if options.table else _missing(options)
    for name, system, seed in tqdm(cells, unit="cell", file=sys.stderr):
        started = time.perf_counter()
        scores = _compute(options.data / name, system, seed)
        cell = {"scores": scores, "seconds": time.perf_counter() - started, "machine": machine()}
        CELLS.mkdir(parents=True, exist_ok=True)
        _path(name, system, seed).write_text(json.dumps(cell, indent=1) + "\n")
    print(table())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    parser.add_argument("--table", action="store_true", help="print what there is, compute nothing")
    return parser.parse_args()


def _path(name: str, system: str, seed: int) -> Path:
    return CELLS / f"{name}-{system}-{seed}.json"


def _missing(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """All of the first seed, then of the next."""
    cells = [(name, system, seed) for seed in options.seeds for name in options.sets for system in options.systems]
    return [cell for cell in cells if not _path(*cell).exists()]


def _compute(data: Path, system: str, seed: int) -> dict[str, float]:
    """The scores of the test split."""
    with tempfile.TemporaryDirectory() as directory:
        plan = Plan(data, Path(directory) / "adapter", seed=seed)
        return PEERS[system](plan) if system in PEERS else train(plan)[plan.title]


def table() -> str:
    """The main score of each set and system, in points: the mean of the seeds, ± their standard deviation."""
    found: dict[tuple[str, str], list[float]] = {}
    for path in sorted(CELLS.glob("*.json")):
        name, system, _ = path.stem.rsplit("-", 2)
        found.setdefault((name, system), []).append(_main(json.loads(path.read_text())))
    lines = [f"| | {' | '.join(SYSTEMS)} |", "|---" * (len(SYSTEMS) + 1) + "|"]
    for name in SETS:
        cells = [_cell(found.get((name, system), [])) for system in SYSTEMS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _main(cell: dict[str, Any]) -> float:
    return 100 * float(next(iter(cell["scores"].values())))


def _cell(scores: Sequence[float]) -> str:
    if not scores:
        return ""
    spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.1f}{spread} ({len(scores)})"


if __name__ == "__main__":
    main()
