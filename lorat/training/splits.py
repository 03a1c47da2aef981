"""What is trained on, once it is read: rows of one of three kinds, in splits."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeVar

from lorat.errors import ConfigError

Kind = Literal["labels", "tags", "pairs"]
_T = TypeVar("_T")


def _at(values: Sequence[_T], places: Sequence[int]) -> tuple[_T, ...]:
    return tuple(values[place] for place in places)


@dataclass(frozen=True)
class LabelledTexts:
    """Texts, and the labels of each as sorted indices into a list of labels: one each, or any number."""

    texts: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, places: Sequence[int]) -> Self:
        """The rows at some places, in that order."""
        return replace(self, texts=_at(self.texts, places), labels=_at(self.labels, places))


@dataclass(frozen=True)
class TaggedWords:
    """Texts as words, and the tag of each word as an index into a list of labels."""

    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.words)

    def take(self, places: Sequence[int]) -> Self:
        """The rows at some places, in that order."""
        return replace(self, words=_at(self.words, places), tags=_at(self.tags, places))


@dataclass(frozen=True)
class TextPairs:
    """Pairs of texts with a score of how alike they are, on any scale; without scores each pair is alike."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.first)

    def take(self, places: Sequence[int]) -> Self:
        """The rows at some places, in that order."""
        scores = None if self.scores is None else _at(self.scores, places)
        return replace(self, first=_at(self.first, places), second=_at(self.second, places), scores=scores)


Split = LabelledTexts | TaggedWords | TextPairs


@dataclass(frozen=True)
class TrainingData:
    """The splits of one file or directory, all of one type.

    labels: what indices mean, () for pairs. multi_label: a text may have any number of labels.
    test: None where there is none. held_out: dev was cut from train. name: the directory's, or the file's.
    """

    kind: Kind
    labels: tuple[str, ...]
    multi_label: bool
    train: Split
    dev: Split
    test: Split | None
    held_out: bool
    name: str


def missing_label(labels: Sequence[str], rows: Split) -> str | None:
    """The first label that no row has."""
    assert isinstance(rows, LabelledTexts)
    covered = {index for row in rows.labels for index in row}
    return next((label for index, label in enumerate(labels) if index not in covered), None)


def have_one_score(pairs: Split) -> bool:
    """Whether these are pairs of which no two scores differ: nothing can be learned from them, or measured."""
    return isinstance(pairs, TextPairs) and pairs.scores is not None and len(set(pairs.scores)) == 1


def hold_out(split: Split, seed: int, share: float, file: str) -> tuple[Split, Split]:
    """(train, dev): dev is a seeded share of the rows, at least one, and never the last row of a label.

    file: what errors call the split. Raises ConfigError for too few rows, or a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ConfigError(f"held_out_share must be between 0 and 1, it is {share}")
    labels = split.labels if isinstance(split, LabelledTexts) else ((),) * len(split)
    left = Counter(label for row in labels for label in row)
    wanted = min(max(1, round(len(split) * share)), len(split) - 1)
    dev: list[int] = []
    for place in random.Random(seed).sample(range(len(split)), len(split)):
        if len(dev) < wanted and all(left[label] > 1 for label in labels[place]):
            left.subtract(labels[place])
            dev.append(place)
    if not dev:
        raise ConfigError(f"{file} has too few rows to hold any out: add rows, or a dev file")
    chosen = set(dev)
    parts = split.take([place for place in range(len(split)) if place not in chosen]), split.take(sorted(dev))
    if any(have_one_score(part) for part in parts):
        raise ConfigError(f"{file} has too few rows, those held out or left have one score: add rows, or a dev file")
    return parts
