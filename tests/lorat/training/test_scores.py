"""Scores against scikit-learn's, numpy's and a reading of tags by regular expressions."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorat.errors import ConfigError
from lorat.training.scores import (
    entities_of,
    entity_scores,
    label_scores,
    match_scores,
    multi_label_scores,
    pair_scores,
    reciprocal_ranks,
    retrieval_scores,
    searches,
)

metrics = pytest.importorskip("sklearn.metrics")  # of lorat[train]
TAGS = ("O", "B-a", "I-a", "B-b", "I-b")
draw = np.random.default_rng(0)
sentences = st.lists(st.lists(st.sampled_from(range(len(TAGS))), max_size=12), min_size=1, max_size=6)


def unit(rows, size=8):
    vectors = draw.standard_normal((rows, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_pattern(tags):
    """Each entity is a run of one type's letters: `A` begins one, `a` goes on or begins one."""
    text = "".join({"O": ".", "B-a": "A", "I-a": "a", "B-b": "B", "I-b": "b"}[tag] for tag in tags)
    return {(*match.span(), match[0][0].lower()) for match in re.finditer("[Aa]a*|[Bb]b*", text)}


@given(st.lists(st.sampled_from(TAGS), max_size=20))
def test_entities_are_runs_of_one_type(tags):
    assert entities_of(tags) == by_pattern(tags)


def test_a_tag_without_a_prefix_names_an_entity():
    assert entities_of(["X", "X", "O", "Y"]) == {(0, 2, "X"), (3, 4, "Y")}


@given(sentences, st.data())
def test_entity_scores_are_those_of_the_sets_of_entities(truth, data):
    predicted = [data.draw(st.lists(st.sampled_from(range(5)), min_size=len(row), max_size=len(row))) for row in truth]
    found, wanted = (
        {(place, *entity) for place, row in enumerate(rows) for entity in by_pattern([TAGS[tag] for tag in row])}
        for rows in (predicted, truth)
    )
    scores = entity_scores(predicted, truth, TAGS)
    every = sorted(found | wanted)
    if every:
        y, x = ([entity in among for entity in every] for among in (wanted, found))
        expected = metrics.precision_recall_fscore_support(y, x, average="binary", zero_division=0.0)
        assert [scores["precision"], scores["recall"], scores["F1"]] == pytest.approx(expected[:3])
    flat = [np.array([tag for row in rows for tag in row]) for rows in (predicted, truth)]
    assert scores["accuracy"] == pytest.approx(np.mean(flat[0] == flat[1]) if len(flat[0]) else 0.0)


def test_label_scores():
    truth, predicted = draw.integers(5, size=(2, 200))
    assert label_scores(predicted, truth) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(truth, predicted),
            "macro F1": metrics.f1_score(truth, predicted, average="macro"),
        }
    )


def test_multi_label_scores():
    truth, predicted = draw.integers(2, size=(2, 100, 6)).astype(bool)
    scores = multi_label_scores(predicted, truth)
    right, wrong = (predicted & truth).sum(), (predicted != truth).sum()
    assert scores["micro F1"] == pytest.approx(2 * right / (2 * right + wrong))
    assert scores["macro F1"] == pytest.approx(
        np.mean([metrics.f1_score(truth[:, label], predicted[:, label]) for label in range(6)])
    )
    assert scores["exact"] == metrics.accuracy_score(truth, predicted)


@pytest.mark.parametrize("rows", [7, 600])  # in one block of rows, in two
def test_each_text_searches_all_others(rows):
    vectors, labels = unit(rows), draw.integers(3, size=rows)
    labels[0] = 9  # the only one of its label
    scores = retrieval_scores(vectors, labels)
    average, first = [], []
    for query in range(1, rows):
        others = np.arange(rows) != query
        right, similarity = (labels == labels[query])[others], (vectors @ vectors[query])[others]
        if right.any():
            average.append(metrics.average_precision_score(right, similarity))
            first.append(right[similarity.argmax()])
    assert scores == pytest.approx({"MAP": np.mean(average), "accuracy@1": np.mean(first)})
    by_text = searches(vectors, labels)
    assert [np.isnan(values).sum() for values in by_text] == [rows - len(average)] * 2 and np.isnan(by_text[0][0])
    np.testing.assert_allclose([values[~np.isnan(values)] for values in by_text], [average, first], atol=1e-3)


def test_labels_that_no_two_texts_share_cannot_be_searched():
    with pytest.raises(ConfigError, match="share a label"):
        retrieval_scores(unit(3), [0, 1, 2])


@pytest.mark.parametrize("rows", [1, 50, 600])
def test_partners_are_searched(rows):
    first, second = unit(rows, 4), unit(rows, 4)
    similarity = first @ second.T
    assert match_scores(first, second) == pytest.approx(
        {
            "MRR": metrics.label_ranking_average_precision_score(np.eye(rows), similarity),
            "accuracy@1": np.mean(similarity.argmax(axis=1) == np.arange(rows)),
        }
    )
    first, second = first.astype(np.float64), second.astype(np.float64)
    places = (first @ second.T >= (first * second).sum(axis=1, keepdims=True) - 1e-12).sum(axis=1)
    np.testing.assert_allclose(reciprocal_ranks(first, second), 1 / places)


def test_vectors_that_are_all_the_same_find_no_partner():
    same = np.ones((9, 1), dtype=np.float32)
    assert match_scores(same, same) == pytest.approx({"MRR": 1 / 5, "accuracy@1": 1 / 9})


def test_cosines_are_correlated_with_scores():
    first, second, gold = unit(80), unit(80), draw.permutation(80)
    cosine = (first * second).sum(axis=1)
    ranks = cosine.argsort().argsort()
    assert pair_scores(first, second, gold) == pytest.approx(
        {"Spearman": np.corrcoef(ranks, gold)[0, 1], "Pearson": np.corrcoef(cosine, gold)[0, 1]}, abs=1e-6
    )
