"""`lorat convert SOURCE --out DIR`."""

import argparse
from pathlib import Path
from typing import Any

from app.commands.process import prepare_process
from lorat.convert.kinds import KINDS


def add_parsers(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = commands.add_parser("convert", help="make an adapter of another library's fine-tune, or of a whole model")
    kinds = "; ".join(f"{name}: {meaning}" for name, meaning in KINDS.items())
    parser.add_argument(
        "source", type=Path, help="a checkpoint's file (.safetensors, .pt, .bin) or a model's directory"
    )
    parser.add_argument("--out", type=Path, required=True, help="the adapter's directory, new or empty")
    parser.add_argument("--base", help="the base it was trained on (default: the embedded MiniLM)")
    parser.add_argument("--kind", choices=("auto", *KINDS), default="auto", help=f"{kinds} (default: auto)")
    parser.add_argument("--rank", type=int, help="for a whole model: rank of each layer's change (default 32)")
    parser.add_argument("--alpha", type=float, help="for lorat and loralib, as in training: it is not in the file")
    parser.add_argument("--labels", type=_names, default=(), help="names of the classifier's outputs: a,b,c")
    parser.add_argument(
        "--task",
        choices=("sequence_classification", "token_classification"),
        help="for lorat and loralib, what the classifier is for, where the file does not show it",
    )
    parser.add_argument("--drop", action="store_true", help="leave out, and name, what an adapter cannot carry")
    parser.set_defaults(run=_run)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _run(options: argparse.Namespace) -> None:
    prepare_process()
    from lorat.convert.conversion import convert

    report = convert(
        options.source,
        options.out,
        base=options.base,
        kind=options.kind,
        rank=options.rank,
        alpha=options.alpha,
        labels=options.labels,
        drop=options.drop,
        task=options.task,
    )
    print(report)
