"""Training: steps a second and peak memory of LoRAT and of PEFT, with one recipe.

python -m benchmarks.training_pace [--rounds 5] [--steps 4] [--rank 8] [--tune qv]

Both train a classifier of two labels on the embedded MiniLM: batches of 32 texts of mixed lengths, padded to their
longest, AdamW, float32, dropout as the base has it. Each round both start from the same values and seed and make a step
on each of the first batches; their losses must agree. Peak memory is that of a process for each, of one round.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tqdm import tqdm
from transformers import AutoTokenizer, BertForSequenceClassification
from transformers.utils import logging

from benchmarks.corpus import texts
from benchmarks.rounds import measure, median, save
from lorat import LoRAT
from lorat.base import locate_base
from lorat.targets import MODULES, parse_tune

BATCH, ALPHA, RATE = 32, 16, 2e-4
AGREES = 1e-4  # of losses around 0.7
Batches = list[dict[str, torch.Tensor]]


def main() -> None:
    options = _options()
    logging.set_verbosity_error()
    if options.alone:
        print(json.dumps(_alone(options)))
        return
    peaks = {name: _peak(name, options) for name in tqdm(MAKERS, unit="process", file=sys.stderr)}
    batches = _batches(options.steps)
    losses = Losses()
    seconds = measure(_contenders(batches, options), options.rounds, losses)
    pace = {name: len(batches) / median(times) for name, times in seconds.items()}
    result = {
        "recipe": {"rank": options.rank, "alpha": ALPHA, "tune": options.tune, "batch": BATCH, "steps": len(batches)},
        "tokens": [int(batch["attention_mask"].sum()) for batch in batches],
        "seconds": seconds,
        "steps_per_second": pace,
        "lorat_to_peft": pace["lorat"] / pace["peft"],
        "memory": peaks,
        "largest_difference_of_losses": losses.largest,
    }
    print(save("training_pace", result, options.out))
    for name, steps in pace.items():
        print(f"{name:6} {steps:6.2f} steps/s  peak {peaks[name]['peak_mib']:7.1f} MiB")
    print(f"LoRAT to PEFT: {result['lorat_to_peft']:.3f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="batches in a round; the corpus has 8")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--tune", default="qv", help="letters of 'qkovid'")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--alone", choices=MAKERS, help="train one round in this process and print its memory")
    return parser.parse_args()


def _batches(steps: int) -> Batches:
    tokenizer = AutoTokenizer.from_pretrained(locate_base(None))
    rows = texts(tokenizer)[: steps * BATCH]
    made = []
    for start in range(0, len(rows), BATCH):
        batch = dict(tokenizer(rows[start : start + BATCH], padding=True, return_tensors="pt"))
        made.append(batch | {"labels": torch.arange(BATCH) % 2})
    return made


def _base() -> Any:
    torch.manual_seed(0)  # it draws the head
    return BertForSequenceClassification.from_pretrained(locate_base(None), num_labels=2)


def _lorat(options: argparse.Namespace) -> torch.nn.Module:
    return LoRAT(_base(), options.rank, ALPHA, options.tune)


def _peft(options: argparse.Namespace) -> torch.nn.Module:
    targets = "|".join(MODULES[name].replace(".", r"\.") for name in parse_tune(options.tune))
    config = LoraConfig(
        task_type="SEQ_CLS", r=options.rank, lora_alpha=ALPHA, target_modules=rf".*encoder\.layer\.\d+\.(?:{targets})"
    )
    return get_peft_model(_base(), config)


MAKERS: dict[str, Callable[[argparse.Namespace], torch.nn.Module]] = {"peft": _peft, "lorat": _lorat}


def _trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """By a name that both give it."""
    named = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            short = name.removeprefix("base_model.").removeprefix("model.")
            named[short.replace(".modules_to_save.default", "").replace(".default.weight", "")] = parameter
    return named


def _contenders(batches: Batches, options: argparse.Namespace) -> dict[str, Callable[[], list[float]]]:
    models = {name: make(options) for name, make in MAKERS.items()}
    start = {name: parameter.detach().clone() for name, parameter in _trained(models["lorat"]).items()}
    assert start.keys() == _trained(models["peft"]).keys()
    return {name: lambda model=model: _round(model, start, batches) for name, model in models.items()}


def _round(model: torch.nn.Module, start: dict[str, torch.Tensor], batches: Batches) -> list[float]:
    """A step on each batch, from `start`. Returns the losses."""
    torch.manual_seed(1)
    trained = _trained(model)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(start[name])
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE)
    model.train()
    return [_step(model, optimizer, batch) for batch in batches]


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> float:
    loss: torch.Tensor = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


class Losses:
    """Holds every round's losses against PEFT's."""

    def __init__(self) -> None:
        self.largest = 0.0
        self._expected: list[float] = []

    def __call__(self, name: str, losses: list[float]) -> None:
        if name == "peft":
            self._expected = losses
        apart = max(abs(one - other) for one, other in zip(losses, self._expected, strict=True))
        self.largest = max(self.largest, apart)
        assert apart <= AGREES, (name, losses, self._expected)


def _peak(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Memory of a process that trains with nothing else in it."""
    words = ["--alone", name, "--steps", str(options.steps), "--rank", str(options.rank), "--tune", options.tune]
    command = [sys.executable, "-m", "benchmarks.training_pace", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return peak


def _alone(options: argparse.Namespace) -> dict[str, float]:
    model, batches = MAKERS[options.alone](options), _batches(options.steps)
    before = _mib()
    _round(model, {name: parameter.detach().clone() for name, parameter in _trained(model).items()}, batches)
    return {"peak_mib": _mib(), "before_training_mib": before}


def _mib() -> float:
    """The most this process has held; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
