"""The numbers that the pictures of a training report show: shares, intervals, correlations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054
"""Standard deviations on either side of the mean that hold 95% of a normal distribution."""
_ROWS_A_BUCKET = 20
_NEARLY = 1 - 1e-9


@dataclass(frozen=True)
class Mistake:
    """`count` rows of the `of` whose truth is one label (its index) were taken for another."""

    truth: int
    taken_for: int
    count: int
    of: int


@dataclass(frozen=True)
class Mean:
    """What `rows` scores come to, with its 95% interval. All are nan for no rows, the ends where rows are too few."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Bucket:
    """The rows of `shortest` to `longest` tokens, both included, and what their scores come to."""

    shortest: int
    longest: int
    score: Mean

    @property
    def name(self) -> str:
        """The span of lengths, for people."""
        return f"{self.shortest}" if self.shortest == self.longest else f"{self.shortest}-{self.longest}"


Measure = Callable[[NDArray[Any]], Mean]


def row_shares(matrix: NDArray[Any]) -> NDArray[np.float64]:
    """Each count as a share of its row. matrix: (labels, labels); a row without counts stays zero."""
    counts = np.asarray(matrix, dtype=np.float64)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), dtype=np.float64)


def mistakes(matrix: NDArray[Any]) -> list[Mistake]:
    """Every pair of labels that was confused: most rows first, then the greater share, then the labels' order.

    matrix: (labels, labels) counts; its rows are the truth.
    """
    of = np.asarray(matrix).sum(axis=1)
    found = [
        Mistake(int(truth), int(taken_for), int(matrix[truth, taken_for]), int(of[truth]))
        for truth, taken_for in np.argwhere(matrix)
        if truth != taken_for
    ]
    return sorted(found, key=lambda mistake: (-mistake.count, mistake.of))


def most_confused(matrix: NDArray[Any], names: Sequence[str], most: int = 10) -> str:
    """The first `most` of the mistakes, a line each, below a line that says how many kinds there are.

    matrix: (labels, labels) counts; names: (labels,).
    """
    found = mistakes(matrix)
    if not found:
        return "no mistakes"
    lines = [f"{m.count} of {m.of}: {names[m.truth]} taken for {names[m.taken_for]}" for m in found[:most]]
    return "\n".join([f"most confused ({len(lines)} of {len(found)} kinds of mistakes):", *lines])


def short(name: str, longest: int = 40) -> str:
    """A name on one line, its middle left out where it has more than `longest` characters."""
    line, half = " ".join(name.split()), longest // 2
    return line if len(line) <= longest else f"{line[:half]}…{line[-half:]}"


def wilson(right: float, rows: int) -> tuple[float, float]:
    """The 95% Wilson interval of a share, of which `right` of `rows` were seen."""
    if not rows:
        return float("nan"), float("nan")
    share, spread = right / rows, _Z**2 / rows
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * float(np.sqrt(share * (1 - share) / rows + spread / rows / 4))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def mean_of(scores: NDArray[Any], *, shares: bool) -> Mean:
    """The mean of scores (rows,): Wilson's interval where they are `shares` (each 0 or 1), else the normal one."""
    rows = len(scores)
    if not rows:
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    value = float(np.mean(scores))
    if shares:
        return Mean(value, *wilson(float(np.sum(scores)), rows), rows)
    half = _Z * float(np.std(scores, ddof=1)) / rows**0.5 if rows > 1 else float("nan")
    return Mean(value, value - half, value + half, rows)


def mean_measure(scores: Sequence[float]) -> Measure:
    """`mean_of`, by Wilson's interval where every score is 0 or 1."""
    return partial(mean_of, shares=bool(np.isin(np.asarray(scores, dtype=np.float64), (0.0, 1.0)).all()))


def correlation_of(pairs: NDArray[Any]) -> Mean:
    """Spearman's correlation of two columns (rows, 2), by the interval of Bonett and Wright (2000)."""
    value, rows = spearman(pairs[:, 0], pairs[:, 1]), len(pairs)
    if rows < 4:
        return Mean(value, float("nan"), float("nan"), rows)
    middle = np.arctanh(np.clip(value, -_NEARLY, _NEARLY))
    half = _Z * float(np.sqrt((1 + value**2 / 2) / (rows - 3)))
    return Mean(value, float(np.tanh(middle - half)), float(np.tanh(middle + half)), rows)


def length_buckets(
    lengths: Sequence[int], scores: Sequence[Any], most: int = 8, measure: Measure | None = None
) -> list[Bucket]:
    """Rows in at most `most` buckets of about as many rows each, shortest texts first.

    lengths, scores: one a row. Rows of one length are never parted, and a bucket is meant to have 20 rows or more.
    measure: what the scores of a bucket come to; None for their mean (`mean_measure` of all).
    """
    tokens, values = np.asarray(lengths, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    if not len(tokens):
        return []
    wanted = int(np.clip(len(tokens) // _ROWS_A_BUCKET, 1, most))
    ends = np.quantile(tokens, np.arange(1, wanted + 1) / wanted, method="inverted_cdf")
    places = np.searchsorted(np.unique(ends), tokens)
    measure = measure or mean_measure(scores)
    inside = [places == place for place in range(int(places.max()) + 1)]
    return [
        Bucket(int(tokens[rows].min()), int(tokens[rows].max()), measure(values[rows])) for rows in inside if rows.any()
    ]


def spearman(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Spearman's correlation of two measures (rows,); nan where one of them is constant or has no two rows."""
    from scipy.stats import spearmanr

    if any(len(np.unique(values)) < 2 for values in (first, second)):
        return float("nan")
    return float(spearmanr(first, second).statistic)


def auc(similar: NDArray[Any], other: NDArray[Any]) -> float:
    """How often one of `similar` (pairs,) is above one of `other` (pairs,), ties counting half; nan if one is empty."""
    from sklearn.metrics import roc_auc_score

    if not len(similar) or not len(other):
        return float("nan")
    return float(roc_auc_score([True] * len(similar) + [False] * len(other), np.concatenate([similar, other])))


def span(values: NDArray[Any]) -> tuple[float, float]:
    """The least and the greatest of some cosines (values,); -1 and 1 where they are one value or none."""
    if not len(values) or not values.min() < values.max():
        return -1.0, 1.0
    return float(values.min()), float(values.max())


def running_mean(values: NDArray[Any], window: int) -> NDArray[np.float64]:
    """The mean of each value (values,) and those around it, `window` at most; fewer at the ends."""
    before, after = (window - 1) // 2, window // 2 + 1
    means = [np.mean(values[max(place - before, 0) : place + after]) for place in range(len(values))]
    return np.asarray(means, dtype=np.float64)
