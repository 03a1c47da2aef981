"""Scores of an adapter on any labelled file, beside the frozen base's: what `lorat eval` shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorat.adapter import Task
from lorat.errors import ConfigError
from lorat.files.json_file import short
from lorat.training.data import check_left_out, read_search_split, read_split, read_training_data
from lorat.training.measure import Answers, measure
from lorat.training.scores import Scores
from lorat.training.splits import Kind, Split, TaggedWords, TrainingData, missing_label

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


@dataclass(frozen=True)
class Source:
    """Where the rows are. columns: fields by the names they are read as. leave_out: labels whose rows are skipped.

    train: where those are that the frozen base's probe is fitted to; a directory's are its own.
    """

    path: Path
    columns: Mapping[str, str]
    leave_out: Sequence[str] = ()
    train: Path | None = None


@dataclass(frozen=True)
class Evaluation:
    """Scores by model. about: sentences that say on what rows, and what was not measured."""

    scores: dict[str, Scores]
    about: tuple[str, ...]


def evaluate(source: Source, subject: Subject, frozen: Callable[[TrainingData | None], Answers]) -> Evaluation:
    """Measure on a file, or on the test split (else dev) of a directory.

    frozen: the base, given rows to fit a probe to: where there are labels, it is measured only if there are train rows
    of each. Raises ConfigError for data that cannot be read, or is for another task.
    """
    _check_train(source, subject)
    check_left_out(source.path, source.leave_out, subject.labels, source.columns)
    data, split, about = _read(source, subject)
    task, _ = _TASKS.get(subject.task, ("pairs", "pairs"))
    models, lacking = {subject.name: subject.answers}, _lacking(data) if subject.labels else None
    if lacking:
        about += (f"{FROZEN}: not measured, {lacking}",)
    else:
        models[FROZEN] = frozen(data)
    scores = {
        name: measure(task, who, split, subject.labels, subject.multi_label).scores for name, who in models.items()
    }
    return Evaluation(scores, about)


def _check_train(source: Source, subject: Subject) -> None:
    """Raise ConfigError for train rows that nothing would be fitted to."""
    if source.train and source.path.is_dir():
        raise ConfigError(f"{source.path} is a directory, whose own train rows count: leave --train out")
    if source.train and not subject.labels:
        raise ConfigError("an embedding adapter is held against the frozen base's raw vectors: leave --train out")


def _lacking(data: TrainingData | None) -> str | None:
    """What is lacking for a probe, if anything is."""
    if data is None:
        return "it needs train rows: give a directory, or --train FILE"
    if isinstance(data.train, TaggedWords):
        return "train has a single tag" if len({tag for row in data.train.tags for tag in row}) < 2 else None
    missing = None if data.multi_label else missing_label(data.labels, data.train)
    return None if missing is None else f"train has no row with the label {short(missing)}"


def _read(source: Source, subject: Subject) -> tuple[TrainingData | None, Split, tuple[str, ...]]:
    """What a probe is fitted to, if there is something, the split to measure, and what that is."""
    if not source.path.is_dir():
        split = _read_file(source, subject)
        data = _read_training(source.train, source, subject) if source.train else None
        return data, split, (f"on the file {source.path.name}: {len(split):,} rows",)
    data = _read_training(source.path, source, subject)
    split, which = (data.test, "the test split") if data.test else (data.dev, "the dev split (there is no test split)")
    if data.held_out and not data.test:
        which = f"rows held out by seed {_SEED}, which the adapter may have been trained on"
    return data if subject.labels else None, split, (f"on {which}: {len(split):,} rows",)


def _read_file(source: Source, subject: Subject) -> Split:
    if not subject.labels:
        return read_search_split(source.path, leave_out=source.leave_out, columns=source.columns)
    return read_split(
        source.path,
        kind=_TASKS[subject.task][1],
        labels=subject.labels,
        multi_label=subject.multi_label,
        leave_out=source.leave_out,
        columns=source.columns,
    )


def _read_training(path: Path, source: Source, subject: Subject) -> TrainingData:
    data = read_training_data(
        path,
        seed=_SEED,
        leave_out=source.leave_out,
        columns=source.columns,
        labels=subject.labels or None,
        for_head=False,
    )
    if subject.labels:
        if (data.kind, data.multi_label) != (_TASKS[subject.task][1], subject.multi_label):
            raise ConfigError(
                f"{path} has rows of {data.kind}, the adapter is for {subject.task}: give data of its kind"
            )
        return data
    if data.kind == "tags" or data.multi_label:
        raise ConfigError(
            f"{path} has rows of {data.kind}: an embedding adapter is measured on pairs, or one label a text"
        )
    return data
