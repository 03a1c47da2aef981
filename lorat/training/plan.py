"""Plan: what one training run is told, with the defaults of its task."""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lorat.base import EMBEDDED_NAME
from lorat.config import LoRATConfig
from lorat.errors import ConfigError
from lorat.files.facts import MAX_DESCRIPTION
from lorat.files.out import check_out
from lorat.targets import parse_tune

LEARNS_FROM: dict[str, tuple[str, ...]] = {"classify": ("labels",), "tokens": ("tags",), "pairs": ("pairs", "labels")}
"""By task, the kinds of data it learns from; a kind's first task is what `auto` chooses."""
_TEXTS_READ = 60_000  # by default a run ends when the model has read so many, a pair being two
_EPOCHS = (3, 20)
_LONGEST = {"description": MAX_DESCRIPTION, "data_name": 1_000}  # of characters


@dataclass(frozen=True)
class Hyperparameters:
    """How a run learns: the adapter's shape, and the optimiser's.

    epochs: None for as many as the data's size asks for. b_ratio: how much faster B learns than A
    (LoRA+, arXiv 2402.12354). patience: epochs without a better dev score before it stops.
    """

    rank: int = 8
    alpha: float = 16.0
    tune: str = "qkovid"
    use_rslora: bool = False
    dropout: float = 0.0
    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float = 1e-3
    b_ratio: float = 1.0
    warmup: float = 0.1
    weight_decay: float = 0.01
    patience: int = 5

    def epochs_for(self, texts: int) -> int:
        """The epochs for so many texts to train on."""
        least, most = _EPOCHS
        return self.epochs or min(most, max(least, round(_TEXTS_READ / texts)))


DEFAULTS: dict[str, Hyperparameters] = {
    "classify": Hyperparameters(),
    "tokens": Hyperparameters(),
    "pairs": Hyperparameters(learning_rate=5e-4),
}
"""Chosen on the dev splits of several data sets: see docs/training.md."""


@dataclass(frozen=True)
class Plan:
    """One training run: on what, how, and where it goes.

    given: the hyperparameters that differ from the task's defaults, by name. columns: fields of the data by the
    names they are read as.
    """

    data: Path
    out: Path
    task: str = "auto"
    base: str | None = None
    seed: int = 1
    name: str = ""
    description: str = ""
    data_name: str = ""
    data_licence: str = "not stated"
    leave_out: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    given: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that cannot be honoured."""
        if self.task not in ("auto", *LEARNS_FROM):
            raise ConfigError(f"task {self.task!r}: use auto, {', '.join(LEARNS_FROM)}")
        unknown = set(self.given) - {item.name for item in fields(Hyperparameters)}
        if unknown:
            raise ConfigError(f"{sorted(unknown)[0]!r} is no hyperparameter")
        for name in ("epochs", "batch_size", "learning_rate", "b_ratio", "patience"):
            if name in self.given and not self.given[name] > 0:
                raise ConfigError(f"{name} must be above 0, it is {self.given[name]}")
        for name in ("warmup", "weight_decay"):
            if name in self.given and not 0 <= self.given[name] < 1:
                raise ConfigError(f"{name} must be from 0 to below 1, it is {self.given[name]}")
        how = self.hyperparameters("classify")
        LoRATConfig(how.rank, how.alpha, parse_tune(how.tune), (), dropout=how.dropout)
        for name, longest in _LONGEST.items():
            if len(getattr(self, name)) > longest:
                raise ConfigError(f"{name} has {len(getattr(self, name)):,} characters: give at most {longest:,}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be from 0 to {2**32 - 1}, it is {self.seed}")
        check_out(self.out)

    @property
    def title(self) -> str:
        """The adapter's name for people, on one line."""
        return " ".join(self.name.split()) or " ".join(self.out.resolve().name.split())

    @property
    def base_name(self) -> str:
        """The base's name for people: never a path of this machine."""
        if self.base is None:
            return EMBEDDED_NAME
        return Path(self.base).resolve().name if Path(self.base).is_dir() else self.base

    def task_for(self, kind: str) -> str:
        """The task for a kind of data. Raises ConfigError where they do not fit."""
        chosen = (
            next(task for task, kinds in LEARNS_FROM.items() if kinds[0] == kind) if self.task == "auto" else self.task
        )
        if kind not in LEARNS_FROM[chosen]:
            fitting = [task for task, kinds in LEARNS_FROM.items() if kind in kinds]
            raise ConfigError(f"task {chosen} cannot learn from rows of {kind}: use task {' or '.join(fitting)}")
        return chosen

    def hyperparameters(self, task: str) -> Hyperparameters:
        """Those of the task, with what was given in their place."""
        return replace(DEFAULTS[task], **self.given)

    def command(self, task: str) -> list[str]:
        """The arguments that train it again; directories stand as DATA, OUT and BASE."""
        words = ["--data", "DATA", "--task", task, "--out", "OUT"]
        words += [word for name in ("name", "description", "data_name", "data_licence") for word in self._option(name)]
        for name, value in asdict(self.hyperparameters(task)).items():
            if name in self.given or (value is not None and value is not False):
                words += [_flag(name), *([] if value is True else [_word(value)])]
        words += ["--seed", f"{self.seed}"]
        words += [word for label in self.leave_out for word in _text("--leave-out", label)]
        words += [word for name, column in self.columns for word in _text("--column", f"{name}={column}")]
        if self.base is not None:
            words += ["--base", "BASE" if Path(self.base).is_dir() else self.base]
        return words

    def _option(self, name: str) -> list[str]:
        value = getattr(self, name)
        return _text(_flag(name), value) if value and value != "not stated" else []


def _text(flag: str, value: str) -> list[str]:
    """An option with a text that may look like another option."""
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
