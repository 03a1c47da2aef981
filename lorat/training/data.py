"""Data to fine-tune on: read from a file or a directory, of one of three kinds, checked row by row.

labels   `text` and `label`, or `text` and `labels` (a list; in a table a text split at "|")
tags     `tokens` and `tags`, lists of one length; in JSON lines only
pairs    `text_a` and `text_b` (or sentence1 and sentence2, anchor and positive, query and positive), perhaps `score`

A directory holds train.*, perhaps dev.* (or valid.*, validation.*), test.* and labels.json: the labels in the order
of the head. Without it they are train's, sorted. Without dev a share of train is held out, by a seed. Other fields of
a row are not read.
"""

import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lorat.adapter import OUTSIDE
from lorat.errors import AdapterFileError, ConfigError
from lorat.files.facts import MAX_LABEL, MAX_LABELS
from lorat.files.json_file import read_json, short
from lorat.training.files import FIELDS, FieldRows, choice, find_file, listed, read_fields
from lorat.training.splits import (
    Kind,
    LabelledTexts,
    Split,
    TaggedWords,
    TextPairs,
    TrainingData,
    have_one_score,
    hold_out,
    missing_label,
)

DEV_SHARE = 0.1
_SPLITS = {"train": ("train",), "dev": ("dev", "valid", "validation"), "test": ("test",)}
_KINDS: dict[str, Kind] = {"text": "labels", "tokens": "tags"}
_GIVEN = "the adapter's labels"
_NO_COLUMNS: Mapping[str, str] = MappingProxyType({})


def read_training_data(
    path: Path,
    *,
    seed: int,
    leave_out: Sequence[str] = (),
    columns: Mapping[str, str] = _NO_COLUMNS,
    held_out_share: float = DEV_SHARE,
    labels: Sequence[str] | None = None,
    for_head: bool = True,
) -> TrainingData:
    """Read a file of train rows, or the splits of a directory.

    leave_out: labels whose rows are not read, where each text has one. columns: which field is read as `text`,
    `label` … where it has another name. labels: their order, in place of the data's own. for_head: labels become
    a head's: no more and no longer than is served, and each in train. Raises ConfigError, naming the file and the
    line, for what cannot be honoured.
    """
    files = {split: read_fields(file, columns) for split, file in _find_splits(path).items()}
    train = files["train"]
    kind, multi_label = _kind(train.fields), _multi_label(train)
    _check_alike(train, files.values())
    _check_single(leave_out, train)
    names, source = (tuple(labels), _GIVEN) if labels else _read_labels(path, train, leave_out)
    if for_head:
        _check_limits(names, train)
    known = _known(names, leave_out)
    splits = {split: _split(file, known, source) for split, file in files.items()}
    if for_head and kind == "labels" and not multi_label:
        _check_cover(names, splits["train"], train.name)
    held_out = "dev" not in splits
    if held_out:
        splits["train"], splits["dev"] = hold_out(splits["train"], seed, held_out_share, train.name)
    title = path.resolve().name if os.path.isdir(path) else path.stem
    return TrainingData(kind, names, multi_label, splits["train"], splits["dev"], splits.get("test"), held_out, title)


def read_split(
    path: Path,
    *,
    kind: Kind,
    labels: Sequence[str],
    multi_label: bool,
    leave_out: Sequence[str] = (),
    columns: Mapping[str, str] = _NO_COLUMNS,
) -> Split:
    """Read one file of a known kind against known labels. Raises ConfigError, naming the file and the line."""
    file = read_fields(path, columns)
    _check_single(leave_out, file)
    if (_kind(file.fields), _multi_label(file)) != (kind, multi_label):
        wanted = [fields for fields in FIELDS if _kind(fields) == kind and ("labels" in fields) == multi_label]
        raise ConfigError(f"{file.name} has rows of {listed(file.fields)}: give rows of {choice(wanted)}")
    return _split(file, _known(labels, leave_out), _GIVEN)


def read_search_split(path: Path, *, leave_out: Sequence[str] = (), columns: Mapping[str, str] = _NO_COLUMNS) -> Split:
    """Read one file of pairs, or of texts with one label each, which are then those that belong together."""
    file = read_fields(path, columns)
    _check_single(leave_out, file)
    if _kind(file.fields) == "tags" or _multi_label(file):
        raise ConfigError(f"{file.name} has rows of {listed(file.fields)}: give pairs, or texts with one label each")
    names = sorted({name for row in file.values for name in row[1]} if _kind(file.fields) == "labels" else ())
    return _split(file, _known(names, leave_out), file.name)


def check_left_out(
    path: Path, leave_out: Sequence[str], labels: Sequence[str], columns: Mapping[str, str] = _NO_COLUMNS
) -> None:
    """Raise ConfigError for a label to leave out that is not in `labels`, nor in the rows of a file or directory."""
    unknown = set(leave_out) - set(labels)
    for file in _find_splits(path).values() if unknown else ():
        rows = read_fields(file, columns)
        _check_single(leave_out, rows)
        unknown -= {name for _, names in rows.values for name in names}
    _refuse_unknown(unknown)


def _kind(fields: Sequence[str]) -> Kind:
    return _KINDS.get(fields[0], "pairs")


def _multi_label(file: FieldRows) -> bool:
    return "labels" in file.fields


def _check_single(leave_out: Sequence[str], file: FieldRows) -> None:
    if leave_out and "label" not in file.fields:
        raise ConfigError("leave_out is for texts with one label each")


def _known(labels: Sequence[str], leave_out: Sequence[str]) -> dict[str, int]:
    """Labels by their indices, and -1 for those that are left out."""
    return {label: place for place, label in enumerate(labels)} | dict.fromkeys(leave_out, -1)


def _split(file: FieldRows, known: Mapping[str, int], source: str) -> Split:
    """The rows with indices for labels, without those that are known as -1. source: what knows the labels."""
    if _kind(file.fields) == "pairs":
        pairs = TextPairs(*(tuple(column) for column in zip(*file.values, strict=True)))
        _check_scores(pairs, f"all rows of {file.name}")
        return pairs
    for line, (_, names) in zip(file.lines, file.values, strict=True):
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            raise ConfigError(f"{file.name}, line {line}: the label {short(unknown)} is not in {source}")
    indexed = [(inputs, tuple(known[name] for name in names)) for inputs, names in file.values]
    kept = [(inputs, indices) for inputs, indices in indexed if -1 not in indices]
    if not kept:
        raise ConfigError(f"{file.name} has only rows that are left out: give others, or no such file")
    if _kind(file.fields) == "tags":
        return TaggedWords(tuple(words for words, _ in kept), tuple(tags for _, tags in kept))
    return LabelledTexts(tuple(text for text, _ in kept), tuple(tuple(sorted(set(some))) for _, some in kept))


def _find_splits(path: Path) -> dict[str, Path]:
    """The file of each split that is there; train always is."""
    if not os.path.isdir(path):
        return {"train": path}
    found = {split: find_file(path, names) for split, names in _SPLITS.items()}
    files = {split: file for split, file in found.items() if file is not None}
    if "train" not in files:
        raise ConfigError(f"{path} has no train.jsonl (or train.csv, train.tsv): give one, or the path of a file")
    return files


def _check_alike(train: FieldRows, files: Iterable[FieldRows]) -> None:
    """Refuse splits of another kind than train's; only the names of pairs may differ."""
    for file in files:
        both = [(_kind(some.fields), _multi_label(some), len(some.fields)) for some in (file, train)]
        if both[0] != both[1]:
            problem = f"{file.name} has rows of {listed(file.fields)}, {train.name} of {listed(train.fields)}"
            raise ConfigError(f"{problem}: give rows of one kind")


def _read_labels(path: Path, train: FieldRows, leave_out: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The labels in the order of their indices, and the file that they are from."""
    kind = _kind(train.fields)
    if kind == "pairs":
        return (), train.name
    file = path / "labels.json"
    given = os.path.isdir(path) and file.exists()
    names = _labels_file(file) if given else sorted({name for _, names in train.values for name in names})
    if not given and kind == "tags":
        names.sort(key=lambda name: name != OUTSIDE)
    _refuse_unknown(set(leave_out) - set(names))
    labels = tuple(name for name in names if name not in leave_out)
    source = file.name if given else train.name
    if len(labels) < 2:
        raise ConfigError(f"{source} has {len(labels)} label(s): at least 2 are needed")
    return labels, source


def _refuse_unknown(left_out: Collection[str]) -> None:
    if left_out:
        raise ConfigError(f"leave_out has {short(min(left_out))}, which is no label of the data")


def _labels_file(path: Path) -> list[str]:
    try:
        labels: list[Any] = read_json(path, list)
    except AdapterFileError as error:
        raise ConfigError(str(error)) from error
    if not all(isinstance(label, str) and label.strip() for label in labels):
        raise ConfigError(f"{path.name} must be a list of texts that are not blank")
    if len(set(labels)) != len(labels):
        raise ConfigError(f"{path.name} names a label twice")
    return labels


def _check_limits(labels: Sequence[str], train: FieldRows) -> None:
    """Refuse labels that no head can have."""
    if len(labels) > MAX_LABELS:
        raise ConfigError(f"{train.name} has {len(labels):,} labels: at most {MAX_LABELS:,} are served")
    long = next((label for label in labels if len(label) > MAX_LABEL), None)
    if long is not None:
        lines = [line for line, row in zip(train.lines, train.values, strict=True) if long in row[1]]
        place = f"{train.name}, line {lines[0]}" if lines else "labels.json"
        raise ConfigError(f"{place}: the label {short(long)} has {len(long)} characters: give at most {MAX_LABEL}")


def _check_cover(labels: Sequence[str], train: Split, file: str) -> None:
    missing = missing_label(labels, train)
    if missing is not None:
        raise ConfigError(f"{file} has no row with the label {short(missing)}: add some, or leave it out")


def _check_scores(pairs: Split, rows: str) -> None:
    if have_one_score(pairs):
        assert isinstance(pairs, TextPairs) and pairs.scores
        raise ConfigError(f"{rows} have the score {pairs.scores[0]:g}: give others as well, or pairs without scores")
    if isinstance(pairs, TextPairs) and pairs.scores and not math.isfinite(max(pairs.scores) - min(pairs.scores)):
        raise ConfigError(f"{rows} have scores from {min(pairs.scores):g} to {max(pairs.scores):g}: scale them down")
