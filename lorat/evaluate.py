"""Scores of an adapter on any labelled file, beside the frozen base's: what `lorat eval` shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorat.adapter import Task
from lorat.errors import ConfigError
from lorat.training.data import Kind, Split, TrainingData, read_search_split, read_split, read_training_data
from lorat.training.measure import Answers, measure
from lorat.training.scores import Scores

FROZEN = "frozen base"
_TASKS: dict[Task, tuple[str, Kind]] = {
    "sequence_classification": ("classify", "labels"),
    "token_classification": ("tokens", "tags"),
}
_SEED = 1  # of the rows held out where a directory has no dev split


@dataclass(frozen=True)
class Subject:
    """An adapter that is measured: who answers for it, and what it is for. labels: none of an embedding adapter."""

    name: str
    answers: Answers
    task: Task
    labels: Sequence[str] = ()
    multi_label: bool = False


def evaluate(
    path: Path, subject: Subject, frozen: Callable[[TrainingData | None], Answers], columns: Mapping[str, str]
) -> dict[str, Scores]:
    """Scores by model, on a file or on the test split (else dev) of a directory.

    frozen: the base, given rows to fit a probe to: where there are labels, it is measured only if the directory has
    train rows. Raises ConfigError for data that cannot be read, or is for another task.
    """
    data, split = _read(path, subject, columns)
    task, _ = _TASKS.get(subject.task, ("pairs", "pairs"))
    models = {subject.name: subject.answers}
    if data or not subject.labels:
        models[FROZEN] = frozen(data)
    return {name: measure(task, who, split, subject.labels, subject.multi_label).scores for name, who in models.items()}


def _read(path: Path, subject: Subject, columns: Mapping[str, str]) -> tuple[TrainingData | None, Split]:
    """What a probe is fitted to, if there is something, and the split to measure."""
    if subject.labels:
        return _read_labelled(path, subject, columns)
    if not path.is_dir():
        return None, read_search_split(path, columns=columns)
    data = read_training_data(path, seed=_SEED, columns=columns)
    if data.kind == "tags" or data.multi_label:
        raise ConfigError(
            f"{path} has rows of {data.kind}: an embedding adapter is measured on pairs, or one label a text"
        )
    return None, data.test or data.dev


def _read_labelled(path: Path, subject: Subject, columns: Mapping[str, str]) -> tuple[TrainingData | None, Split]:
    _, kind = _TASKS[subject.task]
    labels, multi_label = subject.labels, subject.multi_label
    if not path.is_dir():
        return None, read_split(path, kind=kind, labels=labels, multi_label=multi_label, columns=columns)
    data = read_training_data(path, seed=_SEED, columns=columns, labels=labels)
    if (data.kind, data.multi_label) != (kind, multi_label):
        raise ConfigError(f"{path} has rows of {data.kind}, the adapter is for {subject.task}: give data of its kind")
    return data, data.test or data.dev
