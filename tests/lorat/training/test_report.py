"""What is drawn for embeddings: of which rows, and by which numbers."""

import numpy as np
import pytest

from lorat.training import pictures, report
from lorat.training.loop import History
from lorat.training.measure import Measured
from lorat.training.scores import match_scores, pair_scores, retrieval_scores
from lorat.training.splits import LabelledTexts, TextPairs, TrainingData

ROWS = 60
LENGTHS = [5 + row % 3 for row in range(ROWS)]
HISTORY = History([(0.5, 1.0), (1.0, 0.5)], [(1.0, 0.5)], 1.0, 1.0)


def unit(seed):
    vectors = np.random.default_rng(seed).standard_normal((ROWS, 4))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def drawn(monkeypatch, directory, split, models):
    """Titles by file; what each function of `pictures` was given; and every file is there."""
    given = {}
    for name in ("draw_similarities", "draw_scatter", "draw_score_by_length"):
        draw = getattr(pictures, name)
        keep = lambda *values, name=name, draw=draw: given.setdefault(name, values) and draw(*values)  # noqa: E731
        monkeypatch.setattr(pictures, name, keep)
    data = TrainingData("pairs", (), False, split, split, None, False, "x")
    titles = report.draw(directory, "pairs", data, split, HISTORY, *models, LENGTHS)
    assert {path.name for path in directory.iterdir()} == set(titles)
    return titles, given


def test_scored_pairs_are_drawn_by_halves_of_the_scale_and_correlated_by_length(monkeypatch, tmp_path):
    gold = np.arange(ROWS) % 6.0
    models = []
    for seed in (0, 1):
        first, second = unit(seed), unit(seed + 2)
        models.append(Measured(pair_scores(first, second, gold), np.einsum("ij,ij->i", first, second)))
    texts = tuple(map(str, range(ROWS)))
    titles, given = drawn(monkeypatch, tmp_path, TextPairs(texts, texts, tuple(gold)), models)
    assert list(titles) == ["curves.png", "similarity.png", "scatter.png", "length.png"]
    _, before, after, names = given["draw_similarities"]
    assert names == ("score above 2.5", "at most 2.5")
    for halves, model in ((before, models[1]), (after, models[0])):
        assert all(map(np.array_equal, halves, (model.rows[gold > 2.5], model.rows[gold <= 2.5])))
    path, lengths, scores, name, measure = given["draw_score_by_length"]
    assert (path.name, lengths, name) == ("length.png", LENGTHS, "Spearman")
    assert measure(np.array(scores)).value == pytest.approx(models[0].scores["Spearman"])


def test_pairs_that_belong_together_are_scored_by_length(monkeypatch, tmp_path):
    models = [Measured(match_scores(*both), both) for both in ((unit(0), unit(1)), (unit(2), unit(3)))]
    texts = tuple(map(str, range(ROWS)))
    titles, given = drawn(monkeypatch, tmp_path, TextPairs(texts, texts), models)
    assert list(titles) == ["curves.png", "similarity.png", "length.png"]
    _, lengths, scores, name = given["draw_score_by_length"]
    assert (lengths, name) == (LENGTHS, "MRR") and np.mean(scores) == pytest.approx(models[0].scores["MRR"])


def test_texts_of_a_label_are_scored_by_length_where_another_shares_it(monkeypatch, tmp_path):
    labels = [9, *(row % 3 for row in range(1, ROWS))]
    models = [Measured(retrieval_scores(vectors, labels), vectors) for vectors in (unit(0), unit(1))]
    split = LabelledTexts(tuple(map(str, range(ROWS))), tuple((label,) for label in labels))
    titles, given = drawn(monkeypatch, tmp_path, split, models)
    assert list(titles) == ["curves.png", "similarity.png", "length.png"]
    _, lengths, scores, name = given["draw_score_by_length"]
    assert (lengths, name) == (LENGTHS[1:], "MAP") and np.mean(scores) == pytest.approx(models[0].scores["MAP"])


@pytest.mark.parametrize(("count", "shown"), [(1_000, True), (1_001, False)])
def test_no_picture_shows_more_labels_than_can_be_seen(count, shown, monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "draw_confusion", lambda *_: None)
    split = LabelledTexts(("a", "b"), ((0,), (count - 1,)))
    labels = tuple(map(str, range(count)))
    data = TrainingData("labels", labels, False, split, split, None, False, "x")
    answers = Measured({"accuracy": 1.0}, np.array([0, count - 1]))
    titles = report.draw(tmp_path, "classify", data, split, HISTORY, answers, answers, [3, 4])
    assert ("confusion.png" in titles) == shown
