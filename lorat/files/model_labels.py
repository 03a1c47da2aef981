"""What a transformers config says of a classifier: its labels' names, and how they are scored."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from lorat.adapter import Head
from lorat.errors import AdapterFileError
from lorat.files.facts import MAX_LABEL

MULTI_LABEL = "multi_label_classification"
"""The problem type of labels that are scored independently."""


def labels_of(config: Mapping[str, Any]) -> list[str] | None:
    """The labels' names in a `config.json`, in order; None where it gives none. Raises AdapterFileError."""
    names = config.get("id2label")
    if not names:
        return None
    if not isinstance(names, dict) or set(names) != {str(index) for index in range(len(names))}:
        raise AdapterFileError("config.json: id2label must map '0', '1', … to names")
    labels = [str(names[str(index)]) if _is_name(names[str(index)]) else "" for index in range(len(names))]
    if not all(0 < len(label) <= MAX_LABEL for label in labels):
        raise AdapterFileError(f"config.json: id2label must map numbers to names of at most {MAX_LABEL} characters")
    return labels


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def default_labels(count: int) -> list[str]:
    """Those that transformers gives where nobody names any."""
    return [f"LABEL_{index}" for index in range(count)]


@dataclass(frozen=True)
class ModelLabels:
    """What a transformers config says of its labels: their names in order, and how they are scored."""

    names: tuple[str, ...]
    problem_type: str | None

    @classmethod
    def of(cls, config: Any) -> Self:
        """Those of a config."""
        return cls(tuple(config.id2label[index] for index in sorted(config.id2label)), config.problem_type)

    @property
    def named(self) -> bool:
        """Whether anybody named them: not all are LABEL_0, LABEL_1, …"""
        return list(self.names) != default_labels(len(self.names))

    def joined(self, head: Head | None) -> Self:
        """These labels, by the names and the kind that an adapter gives them."""
        if head is None:
            return self
        theirs = replace(self, names=head.labels)
        problem_type = MULTI_LABEL if head.multi_label else self.problem_type
        return replace(theirs if theirs.named else self, problem_type=problem_type)

    def put(self, config: Any) -> None:
        """Write them into a config."""
        config.id2label = dict(enumerate(self.names))
        config.label2id = {name: index for index, name in enumerate(self.names)}
        config.problem_type = self.problem_type
