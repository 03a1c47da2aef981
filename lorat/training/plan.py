"""Plan: what one training run is told, from the command line, and the command that repeats it."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorat.base import EMBEDDED_NAME
from lorat.errors import ConfigError

WARMUP = 0.1
"""Share of the steps over which the learning rate rises."""
WEIGHT_DECAY = 0.01
HEAD_C = 10.0
"""Inverse regularisation of the logistic regression that a head starts as."""
BATCH = 64
"""Texts in one forward pass where nothing is trained."""


@dataclass(frozen=True)
class Plan:
    """One training run: what is trained, on what, how, and where it goes."""

    data: Path
    task: str
    out: Path
    name: str
    description: str
    data_name: str
    data_licence: str
    rank: int
    alpha: float
    tune: str
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    base: str | None
    leave_out: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that cannot be honoured."""
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, it is {getattr(self, name)}")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise ConfigError(f"{self.out} is there already: give a new directory, or empty it")

    @property
    def base_name(self) -> str:
        """The base's name for people: never a path of this machine."""
        if self.base is None:
            return EMBEDDED_NAME
        return Path(self.base).resolve().name if Path(self.base).is_dir() else self.base

    def command(self) -> list[str]:
        """The arguments that train it again; directories stand as DATA, OUT and BASE."""
        words = ["--data", "DATA", "--task", self.task, "--out", "OUT"]
        for name in ("name", "description", "data_name", "data_licence", "rank", "alpha", "tune", "epochs"):
            words += [f"--{name.replace('_', '-')}", _word(getattr(self, name))]
        words += ["--batch-size", f"{self.batch_size}", "--learning-rate", _word(self.learning_rate)]
        words += ["--seed", f"{self.seed}"]
        words += [word for label in self.leave_out for word in ("--leave-out", label)]
        if self.base is not None:
            words += ["--base", "BASE" if Path(self.base).is_dir() else self.base]
        return words


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def parse_plan(argv: Sequence[str] | None = None) -> Plan:
    """The plan that command-line arguments describe."""
    parser = argparse.ArgumentParser("python -m lorat.train", description="Fine-tune an adapter on labelled texts.")
    parser.add_argument("--data", type=Path, required=True, help="directory with train.jsonl (dev, test, labels.json)")
    parser.add_argument("--task", choices=("classify", "similar"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="a new directory for the adapter")
    parser.add_argument("--name", default="", help="for the model card; default: the name of OUT")
    parser.add_argument("--description", default="", help="a sentence: what it is for")
    parser.add_argument("--data-name", default="", help="for the model card; default: the name of DATA")
    parser.add_argument("--data-licence", default="not stated")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16.0)
    parser.add_argument("--tune", default="qv", help="letters of 'qkovid'")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base", help="directory or hub id; default: the embedded all-MiniLM-L6-v2")
    parser.add_argument("--leave-out", action="append", default=[], metavar="LABEL", help="skip a label's rows")
    given = vars(parser.parse_args(argv))
    given["name"] = given["name"] or given["out"].resolve().name
    given["data_name"] = given["data_name"] or given["data"].resolve().name
    given["description"] = given["description"] or f"Trained on {given['data_name']}."
    return Plan(**{**given, "leave_out": tuple(given["leave_out"])})
