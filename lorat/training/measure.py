"""Measuring: what a model answers to a split, row by row, and the scores of that; beside it the frozen base's.

The model is asked through `Answers`, so that an adapter in this process and one behind a service are measured alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lorat.training.scores import (
    Scores,
    entity_scores,
    label_scores,
    match_scores,
    multi_label_scores,
    pair_scores,
    retrieval_scores,
)
from lorat.training.splits import LabelledTexts, Split, TaggedWords, TextPairs


class Answers(Protocol):
    """Who is measured."""

    def classify(self, texts: Sequence[str]) -> NDArray[Any]:
        """(texts, labels): scores in the order of the labels."""

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[int]]:
        """A tag for each word: that of its first token."""

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """(texts, dimensions), normalised."""


@dataclass(frozen=True)
class Measured:
    """The scores of a split, and the answers behind them.

    rows: the predicted label of each text, or (texts, labels) of booleans, or each sentence's tags; the cosine of each
    scored pair; of what is searched the vectors, of positive pairs those of both sides.
    """

    scores: Scores
    rows: Any


def measure(task: str, answers: Answers, split: Split, labels: Sequence[str], multi_label: bool) -> Measured:
    """Ask for every row of a split."""
    if isinstance(split, TaggedWords):
        tags = answers.tag(split.words)
        return Measured(entity_scores(tags, split.tags, labels), tags)
    if isinstance(split, TextPairs):
        return _pairs(answers, split)
    if task == "pairs":
        vectors = answers.embed(split.texts)
        return Measured(retrieval_scores(vectors, [own[0] for own in split.labels]), vectors)
    scores = answers.classify(split.texts)
    if multi_label:
        return Measured(multi_label_scores(scores > 0.5, multi_hot(split, len(labels))), scores > 0.5)
    best = scores.argmax(-1)
    return Measured(label_scores(best, [own[0] for own in split.labels]), best)


def _pairs(answers: Answers, split: TextPairs) -> Measured:
    first, second = answers.embed(split.first), answers.embed(split.second)
    if split.scores is None:
        return Measured(match_scores(first, second), (first, second))
    return Measured(pair_scores(first, second, split.scores), np.einsum("ij,ij->i", first, second))


def multi_hot(split: LabelledTexts, labels: int) -> NDArray[Any]:
    """(rows, labels) of booleans: which labels hold."""
    holds = np.zeros((len(split), labels), dtype=bool)
    for row, own in enumerate(split.labels):
        holds[row, list(own)] = True
    return holds
