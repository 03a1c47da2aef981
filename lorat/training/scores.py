"""Scores of predictions. Each gives its measures by name, in the order they are shown; the first is the main one."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorat.adapter import OUTSIDE
from lorat.errors import ConfigError

_BLOCK = 512
Scores = dict[str, float]


def label_scores(predicted: Sequence[int] | NDArray[Any], truth: Sequence[int] | NDArray[Any]) -> Scores:
    """Accuracy, and the F1 of each label averaged over the labels."""
    from sklearn.metrics import f1_score

    accuracy = float(np.mean(np.asarray(predicted) == np.asarray(truth)))
    return {"accuracy": accuracy, "macro F1": float(f1_score(truth, predicted, average="macro", zero_division=0.0))}


def multi_label_scores(predicted: NDArray[Any], truth: NDArray[Any]) -> Scores:
    """(rows, labels) of booleans each: F1 over all decisions and averaged over labels, and rows that are all right."""
    from sklearn.metrics import f1_score

    micro, macro = (float(f1_score(truth, predicted, average=kind, zero_division=0.0)) for kind in ("micro", "macro"))
    return {"micro F1": micro, "macro F1": macro, "exact": float((predicted == truth).all(1).mean())}


def entity_scores(predicted: Iterable[Sequence[int]], truth: Iterable[Sequence[int]], labels: Sequence[str]) -> Scores:
    """F1, precision and recall of whole entities, as CoNLL-2003 counts them, and the accuracy of tags.

    An entity counts where its first word, its last word and its type are right.
    """
    found = wanted = right = same = words = 0
    for mine, gold in zip(predicted, truth, strict=True):
        ours, theirs = (entities_of([labels[tag] for tag in tags]) for tags in (mine, gold))
        found, wanted, right = found + len(ours), wanted + len(theirs), right + len(ours & theirs)
        same, words = same + sum(a == b for a, b in zip(mine, gold, strict=True)), words + len(gold)
    precision, recall = right / max(found, 1), right / max(wanted, 1)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"F1": f1, "precision": precision, "recall": recall, "accuracy": same / max(words, 1)}


def entities_of(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first word, end, type) of the entities that BIO tags mark; an `I-` that continues nothing begins one.

    A tag that is neither `O` nor `B-` nor `I-` is an entity of one word or more of that name.
    """
    found, start, kind = set(), 0, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        begins, name = tag.startswith("B-"), tag[2:] if tag[:2] in ("B-", "I-") else tag if tag != OUTSIDE else ""
        if kind and (begins or name != kind):
            found.add((start, place, kind))
        if name and (begins or name != kind):
            start = place
        kind = name
    return found


def retrieval_scores(vectors: NDArray[Any], labels: Sequence[int]) -> Scores:
    """Leave-one-out retrieval: each text searches all others; those of its own label are right.

    vectors: (texts, dimensions), normalised. Texts whose label has no other text are not counted.
    Raises ConfigError where no label has two texts.
    """
    average, first = searches(vectors, labels)
    counted = ~np.isnan(average)
    if not counted.any():
        raise ConfigError("no two texts of the dev or test split share a label: give more, or a dev.jsonl of its own")
    return {"MAP": float(np.mean(average[counted])), "accuracy@1": float(np.mean(first[counted]))}


def searches(vectors: NDArray[Any], labels: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of each text's search among all others: its average precision, and whether what comes first is right.

    vectors: (texts, dimensions), normalised. nan where the label has no other text.
    """
    truth = np.asarray(labels)
    average, first = np.full(len(vectors), np.nan), np.full(len(vectors), np.nan)
    for start in range(0, len(vectors), _BLOCK):
        similarity = vectors[start : start + _BLOCK] @ vectors.T
        rows = np.arange(start, start + len(similarity))
        similarity[np.arange(len(rows)), rows] = -np.inf
        ranked = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
        right = truth[ranked] == truth[rows, None]
        rows, right = rows[right.any(axis=1)], right[right.any(axis=1)]
        precision = right.cumsum(axis=1) / np.arange(1, len(vectors))
        first[rows] = right[:, 0]
        average[rows] = (precision * right).sum(axis=1) / right.sum(axis=1)
    return average, first


def pair_scores(first: NDArray[Any], second: NDArray[Any], gold: Sequence[float]) -> Scores:
    """Spearman's and Pearson's correlation of cosine and score; nan where all cosines are one.

    first, second: (pairs, dimensions), normalised.
    """
    from scipy.stats import pearsonr, spearmanr

    cosine = np.einsum("ij,ij->i", first, second)
    if np.ptp(cosine) == 0:
        return {"Spearman": math.nan, "Pearson": math.nan}
    return {"Spearman": float(spearmanr(cosine, gold)[0]), "Pearson": float(pearsonr(cosine, gold)[0])}


def match_scores(first: NDArray[Any], second: NDArray[Any]) -> Scores:
    """Each first text searches all second ones; its partner is right: mean reciprocal rank, and found at once.

    first, second: (pairs, dimensions), normalised. Among equals the partner's place is the middle one, so vectors
    that are all the same find nothing.
    """
    better, ties = _partners(first, second)
    return {"MRR": float(np.mean(_reciprocal(better, ties))), "accuracy@1": float(np.mean((better == 0) / ties))}


def reciprocal_ranks(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """(pairs,): 1 / the place of each partner, as `match_scores` has it."""
    return _reciprocal(*_partners(first, second))


def _reciprocal(better: NDArray[Any], ties: NDArray[Any]) -> NDArray[Any]:
    ranks: NDArray[Any] = 1 / (better + (ties + 1) / 2)
    return ranks


def _partners(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """How many second texts are above each first one's partner, and how many are level with it, itself counted."""
    above: list[int] = []
    equal: list[int] = []
    for start in range(0, len(first), _BLOCK):
        similarity = first[start : start + _BLOCK] @ second.T
        own = similarity[np.arange(len(similarity)), np.arange(start, start + len(similarity))][:, None]
        above += (similarity > own).sum(axis=1).tolist()
        equal += (similarity == own).sum(axis=1).tolist()
    return np.array(above), np.array(equal)
