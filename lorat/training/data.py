"""Labelled texts to train on, read from a directory and checked row by row.

train.jsonl    `{"text": …, "label": …}` on each line; other fields are not read
dev.jsonl      optional: without it a tenth of the train rows is held out, by a seed
test.jsonl     optional: read for the final scores only
labels.json    optional: the labels in the order of the head; without it train's, sorted
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorat.errors import ConfigError

DEV_SHARE = 0.1


@dataclass(frozen=True)
class Rows:
    """Texts with their labels, as indices into the data's list of labels."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, places: Sequence[int]) -> "Rows":
        """The rows at some places, in that order."""
        return Rows(tuple(self.texts[place] for place in places), tuple(self.labels[place] for place in places))


@dataclass(frozen=True)
class TrainingData:
    """The splits of one directory. `held_out`: dev was cut from train; `test` is None where there is none."""

    labels: tuple[str, ...]
    train: Rows
    dev: Rows
    test: Rows | None
    held_out: bool


def read_training_data(directory: Path, *, seed: int, leave_out: Sequence[str] = ()) -> TrainingData:
    """Read the splits of a directory, without the rows of the labels in `leave_out`.

    Raises ConfigError, naming the file and the line, for a row that cannot be honoured.
    """
    raw = {name: list(_read_rows(directory / f"{name}.jsonl")) for name in ("train", "dev", "test")}
    if not raw["train"]:
        raise ConfigError(f"{directory} has no train.jsonl with rows: give one JSON object a line")
    names = _read_labels(directory / "labels.json") or sorted({label for _, _, label in raw["train"]})
    labels = _kept_labels(names, leave_out)
    known = {label: index for index, label in enumerate(labels)} | dict.fromkeys(leave_out, -1)
    splits = {name: _index(f"{name}.jsonl", rows, known) for name, rows in raw.items()}
    _check_cover(labels, splits["train"])
    emptied = next((name for name, rows in splits.items() if raw[name] and not rows), None)
    if emptied:
        raise ConfigError(f"{emptied}.jsonl has only rows that are left out: give others, or no such file")
    train, dev, held_out = splits["train"], splits["dev"], not raw["dev"]
    if held_out:
        train, dev = _hold_out(train, seed)
    return TrainingData(labels, train, dev, splits["test"] if raw["test"] else None, held_out)


def _read_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, text, label) of each row; nothing where there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield number, *_parse_row(line, f"{path.name}, line {number}")


def _parse_row(line: bytes, place: str) -> tuple[str, str]:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{place}: not a line of JSON in UTF-8: {error}") from error
    if not isinstance(row, dict):
        raise ConfigError(f'{place}: use an object {{"text": …, "label": …}}')
    for name in ("text", "label"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise ConfigError(f"{place}: {name!r} must be a text that is not empty, it is {row.get(name)!r}")
    return row["text"], row["label"]


def _read_labels(path: Path) -> list[str] | None:
    if not path.exists():
        return None
    try:
        labels: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"labels.json is not JSON in UTF-8: {error}") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise ConfigError("labels.json must be a list of texts that are not empty")
    if len(set(labels)) != len(labels):
        raise ConfigError("labels.json names a label twice")
    return labels


def _kept_labels(names: Sequence[str], leave_out: Sequence[str]) -> tuple[str, ...]:
    unknown = sorted(set(leave_out) - set(names))
    if unknown:
        raise ConfigError(f"leave_out has {unknown[0]!r}, which is no label of the data")
    labels = tuple(name for name in names if name not in leave_out)
    if len(labels) < 2:
        raise ConfigError(f"the data has {len(labels)} label(s): at least 2 are needed")
    return labels


def _index(file: str, rows: Sequence[tuple[int, str, str]], known: dict[str, int]) -> Rows:
    unknown = next(((number, label) for number, _, label in rows if label not in known), None)
    if unknown:
        raise ConfigError(f"{file}, line {unknown[0]}: the label {unknown[1]!r} is not in labels.json (or train.jsonl)")
    kept = [(text, known[label]) for _, text, label in rows if known[label] >= 0]
    return Rows(tuple(text for text, _ in kept), tuple(label for _, label in kept))


def _check_cover(labels: Sequence[str], train: Rows) -> None:
    missing = sorted(set(range(len(labels))) - set(train.labels))
    if missing:
        raise ConfigError(f"train.jsonl has no row with the label {labels[missing[0]]!r}: add some, or leave it out")


def _hold_out(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """A seeded tenth of the rows as dev, never the last row of a label; the rest as train."""
    left = Counter(rows.labels)
    wanted = max(1, round(len(rows) * DEV_SHARE))
    dev: list[int] = []
    for place in random.Random(seed).sample(range(len(rows)), len(rows)):
        if len(dev) < wanted and left[rows.labels[place]] > 1:
            left[rows.labels[place]] -= 1
            dev.append(place)
    if not dev:
        raise ConfigError("train.jsonl has one row for each label, so none can be held out: add rows, or a dev.jsonl")
    chosen = set(dev)
    return rows.take([place for place in range(len(rows)) if place not in chosen]), rows.take(sorted(dev))


def similar_pairs(rows: Rows, seed: int) -> list[tuple[str, str, int]]:
    """(anchor, positive, label): each text in one pair with another of its label, drawn by a seed.

    The last of an odd number of texts is paired with one that is in a pair already.
    Raises ConfigError where no label has two texts.
    """
    by_label: dict[int, list[str]] = {}
    for text, label in zip(rows.texts, rows.labels, strict=True):
        by_label.setdefault(label, []).append(text)
    draw = random.Random(seed)
    pairs = []
    for label, texts in sorted(by_label.items()):
        draw.shuffle(texts)
        if len(texts) > 1:
            ends = [*range(1, len(texts), 2), *([len(texts) - 1] if len(texts) % 2 else [])]
            pairs += [(texts[place], texts[place - 1], label) for place in ends]
    if not pairs:
        raise ConfigError("no label of train.jsonl has two texts: similar texts are those that share a label")
    return pairs
