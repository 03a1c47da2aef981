"""A transformers directory held against the base: architecture, vocabulary, and task."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lorat.adapter import Task
from lorat.errors import AdapterFileError, BaseMismatchError, UnsupportedAdapterError
from lorat.files.architecture import difference
from lorat.files.json_file import read_json, short
from lorat.wrapping import TASK_OF_MODEL

_PIPELINE = ("normalizer", "pre_tokenizer")


def read_config(directory: Path | None, base: Any) -> dict[str, Any]:
    """The `config.json` of a fine-tune. `base`: the base's transformers config.

    Raises BaseMismatchError where another architecture computes otherwise than the base.
    """
    if directory is None:
        raise AdapterFileError("a whole model is converted from its directory, with config.json: name that")
    config: dict[str, Any] = read_json(directory / "config.json", dict)
    if wrong := difference(config, base, "the base"):
        raise BaseMismatchError(f"config.json: {wrong}: name its base")
    return config


def task_of(config: Mapping[str, Any]) -> Task:
    """What a model is for. Raises UnsupportedAdapterError for a class that has no adapter."""
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or names[0] not in TASK_OF_MODEL:
        raise UnsupportedAdapterError(
            f"config.json: architectures is {short(names)}: use one of {', '.join(TASK_OF_MODEL)}"
        )
    if config.get("problem_type") == "regression":
        raise UnsupportedAdapterError("config.json: problem_type is 'regression': served heads score labels")
    return TASK_OF_MODEL[names[0]]


def vocabulary_changes(source: Path, base: Path) -> dict[str, float]:
    """How two directories' tokenizers differ, by what differs; the vocabulary's as a share of the base's tokens."""
    theirs, ours = _tokenizer(source), _tokenizer(base)
    if not theirs or not ours:
        return {}
    tokens = theirs["vocabulary"].items() ^ ours["vocabulary"].items()
    changes = {"the vocabulary": len(dict(tokens)) / max(1, len(ours["vocabulary"]))}
    both = [name for name in _PIPELINE if name in theirs and name in ours and theirs[name] != ours[name]]
    return changes | {f"the tokenizer's {name}": math.inf for name in both}


def _tokenizer(directory: Path) -> dict[str, Any]:
    """Its vocabulary, and of a tokenizer.json how it cuts a text."""
    file, words = directory / "tokenizer.json", directory / "vocab.txt"
    if file.exists():
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises nothing more special
            raise AdapterFileError(f"tokenizer.json cannot be read: {short(str(error), 200)}") from error
        settings = json.loads(tokenizer.to_str())
        return {"vocabulary": tokenizer.get_vocab()} | {name: settings[name] for name in _PIPELINE}
    if words.exists():
        lines = words.read_text(encoding="utf-8").splitlines()
        return {"vocabulary": {line: index for index, line in enumerate(lines)}}
    return {}
