"""The command line of a training run, for `lorat train` and `python -m lorat.train`.

Nothing that is large is imported before a run begins.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorat.errors import ConfigError

if TYPE_CHECKING:
    from lorat.training.plan import Plan

_NUMBERS: dict[str, tuple[type, str]] = {
    "rank": (int, "of the adapter"),
    "alpha": (float, "the adapter is scaled by alpha / rank"),
    "epochs": (int, "at most so many; default: by the number of rows"),
    "batch_size": (int, "rows in a step"),
    "learning_rate": (float, "at its highest, after the warm-up"),
    "b_ratio": (float, "how much faster B learns than A (LoRA+)"),
    "dropout": (float, "on the adapter's input"),
    "warmup": (float, "share of the steps over which the learning rate rises"),
    "weight_decay": (float, "of matrices"),
    "patience": (int, "epochs without a better dev score before it stops"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a run. Hyperparameters that are not given are the task's defaults (docs/training.md)."""
    parser.add_argument(
        "--data", type=Path, required=True, help="a file (.jsonl, .csv, .tsv), or a directory of splits"
    )
    parser.add_argument("--out", type=Path, required=True, help="a new directory for the adapter")
    parser.add_argument(
        "--task", default="auto", help="classify, tokens, pairs, or auto (default): what the rows ask for"
    )
    parser.add_argument("--base", help="directory or hub id; default: the embedded all-MiniLM-L6-v2")
    for name, (kind, about) in _NUMBERS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=about)
    parser.add_argument("--tune", help="the linear layers that adapt: letters of 'qkovid'")
    parser.add_argument("--use-rslora", action="store_true", default=None, help="scale by alpha / sqrt(rank)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--leave-out", action="append", default=[], metavar="LABEL", help="skip a label's rows")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=FIELD",
        help="read the data's FIELD as NAME (text, label …)",
    )
    for name, about in (
        ("name", "the adapter's name, on its card"),
        ("description", "a sentence: what it is for"),
        ("data-name", "for the card; default: that of the file or directory"),
        ("data-licence", "for the card"),
    ):
        parser.add_argument(f"--{name}", default="", help=about)


def read_plan(options: argparse.Namespace) -> "Plan":
    """The plan that the options describe. Raises ConfigError for a value that cannot be honoured."""
    from lorat.training.plan import Plan

    given = {name: getattr(options, name) for name in (*_NUMBERS, "tune", "use_rslora")}
    return Plan(
        data=options.data,
        out=options.out,
        task=options.task,
        base=options.base,
        seed=options.seed,
        name=options.name,
        description=options.description,
        data_name=options.data_name,
        data_licence=options.data_licence or "not stated",
        leave_out=tuple(options.leave_out),
        columns=read_columns(options.column),
        given={name: value for name, value in given.items() if value is not None},
    )


def read_columns(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(name, field) of each NAME=FIELD. Raises ConfigError for another text."""
    pairs = [text.partition("=") for text in given]
    wrong = next(("".join(parts) for parts in pairs if not all(parts)), None)
    if wrong is not None:
        raise ConfigError(f"--column {wrong}: use NAME=FIELD, as in text=review")
    twice = next((name for name, count in Counter(name for name, _, _ in pairs).items() if count > 1), None)
    if twice is not None:
        raise ConfigError(f"--column {twice}= is there twice: give it once")
    return tuple((name, field) for name, _, field in pairs)


def show(scores: Mapping[str, Mapping[str, float]], write: Callable[[str], object] = print) -> None:
    """One line a model."""
    for model, values in scores.items():
        write(f"{model}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
