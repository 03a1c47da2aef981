"""The report of a run: what is drawn for a task, and the card that shows it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorat.training import pictures, statistics
from lorat.training.loop import History
from lorat.training.measure import Measured, multi_hot
from lorat.training.scores import reciprocal_ranks, searches
from lorat.training.splits import LabelledTexts, Split, TaggedWords, TextPairs, TrainingData

_CURVES, _LENGTH, _CONFUSION = "curves.png", "length.png", "confusion.png"
_SIMILARITY, _SCATTER = "similarity.png", "scatter.png"
_COSINES = "Cosine similarities, of the frozen base and of the adapter"
_PAIRS = 20_000  # of other texts, drawn for a histogram
_MOST_CONFUSED = 1_000  # labels: a picture of more is gigabytes, and no dot of it can be seen


def draw(
    directory: Path,
    task: str,
    data: TrainingData,
    split: Split,
    history: History,
    adapted: Measured,
    frozen: Measured,
    lengths: list[int],
) -> dict[str, str]:
    """Draw what a task calls for beside the adapter. Returns files and titles, in their order.

    split: what `adapted` and `frozen` were measured on. lengths: tokens of its rows.
    """
    main = next(iter(adapted.scores))
    pictures.draw_curves(directory / _CURVES, history.losses, history.scores, f"dev {main}", history.kept)
    drawn = {_CURVES: "Loss and dev score by epoch"}
    if isinstance(split, TextPairs) and split.scores is not None:
        return drawn | _draw_scored(directory, split, adapted, frozen, lengths)
    if task == "pairs":
        return drawn | _draw_searched(directory, split, adapted, frozen, lengths)
    pictures.draw_score_by_length(directory / _LENGTH, lengths, right(split, adapted, data), "right")
    drawn[_LENGTH] = "Score by length of the text"
    if task == "classify" and not data.multi_label and len(data.labels) <= _MOST_CONFUSED:
        matrix = _confusion(split, adapted, len(data.labels))
        pictures.draw_confusion(directory / _CONFUSION, matrix, data.labels)
        drawn[_CONFUSION] = "What is taken for what"
    return drawn


def right(split: Split, measured: Measured, data: TrainingData) -> list[float]:
    """How far each row is right: 0 or 1, of tags the share."""
    if isinstance(split, TaggedWords):
        return [float(np.mean(np.equal(mine, gold))) for mine, gold in zip(measured.rows, split.tags, strict=True)]
    assert isinstance(split, LabelledTexts)
    if data.multi_label:
        same = measured.rows == multi_hot(split, len(data.labels))
        return [float(row.all()) for row in same]
    return [float(best == own[0]) for best, own in zip(measured.rows, split.labels, strict=True)]


def _confusion(split: Split, measured: Measured, labels: int) -> NDArray[Any]:
    assert isinstance(split, LabelledTexts)
    matrix = np.zeros((labels, labels), dtype=np.int64)
    np.add.at(matrix, (np.array([own[0] for own in split.labels]), np.asarray(measured.rows)), 1)
    return matrix


def _draw_scored(
    directory: Path, split: TextPairs, adapted: Measured, frozen: Measured, lengths: list[int]
) -> dict[str, str]:
    gold = np.array(split.scores)
    middle = (gold.min() + gold.max()) / 2
    before, after = ((model.rows[gold > middle], model.rows[gold <= middle]) for model in (frozen, adapted))
    names = (f"score above {middle:.4g}", f"at most {middle:.4g}")
    pictures.draw_similarities(directory / _SIMILARITY, before, after, names)
    pictures.draw_scatter(directory / _SCATTER, gold, frozen.rows, adapted.rows)
    both = np.column_stack([gold, adapted.rows]).tolist()
    pictures.draw_score_by_length(
        directory / _LENGTH, lengths, both, next(iter(adapted.scores)), statistics.correlation_of
    )
    return {
        _SIMILARITY: f"{_COSINES}, by the half of the scale that the score is in",
        _SCATTER: f"{_COSINES}, by score",
        _LENGTH: "Correlation by length of the two texts",
    }


def _draw_searched(
    directory: Path, split: Split, adapted: Measured, frozen: Measured, lengths: list[int]
) -> dict[str, str]:
    pictures.draw_similarities(directory / _SIMILARITY, _similarities(split, frozen), _similarities(split, adapted))
    found = {row: score for row, score in enumerate(_found(split, adapted).tolist()) if not np.isnan(score)}
    pictures.draw_score_by_length(
        directory / _LENGTH, [lengths[row] for row in found], list(found.values()), next(iter(adapted.scores))
    )
    texts = "two texts" if isinstance(split, TextPairs) else "text"
    return {_SIMILARITY: _COSINES, _LENGTH: f"Score by length of the {texts}"}


def _found(split: Split, measured: Measured) -> NDArray[Any]:
    """How well each row's search went: the reciprocal rank of its partner, or the average precision of its label."""
    if isinstance(split, TextPairs):
        return reciprocal_ranks(*measured.rows)
    assert isinstance(split, LabelledTexts)
    average, _ = searches(measured.rows, [own[0] for own in split.labels])
    return average


def _similarities(split: Split, measured: Measured) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cosines of texts that belong together, and of others."""
    if isinstance(split, TextPairs):
        first, second = measured.rows
        left, right = _draw_places(len(first), len(second))
        apart = left != right
        return np.einsum("ij,ij->i", first, second), np.einsum("ij,ij->i", first[left[apart]], second[right[apart]])
    assert isinstance(split, LabelledTexts)
    label = np.array([own[0] for own in split.labels])
    left, right = _draw_places(len(label), len(label))
    left, right = left[left != right], right[left != right]
    cosine = np.einsum("ij,ij->i", measured.rows[left], measured.rows[right])
    same = label[left] == label[right]
    places = [(a, b) for own in np.unique(label) for a, b in _neighbours(np.flatnonzero(label == own))]
    together = np.array([measured.rows[a] @ measured.rows[b] for a, b in places])
    return np.concatenate([together, cosine[same]]), cosine[~same]


def _neighbours(places: NDArray[Any]) -> list[tuple[int, int]]:
    return [(int(places[at]), int(places[at + 1])) for at in range(len(places) - 1)]


def _draw_places(first: int, second: int) -> tuple[NDArray[Any], NDArray[Any]]:
    draw = np.random.default_rng(0)
    return draw.integers(first, size=_PAIRS), draw.integers(second, size=_PAIRS)
