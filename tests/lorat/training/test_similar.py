"""Pairs of texts that share a label."""

import pytest

from lorat.errors import ConfigError
from lorat.training.data import read_training_data
from lorat.training.similar import check_similar, similar_pairs
from lorat.training.splits import LabelledTexts
from tests.lorat.training.conftest import directory_of, rows, write


def test_pairs_share_a_label_and_use_each_text():
    some = LabelledTexts(("a", "b", "c", "d", "e", "f"), ((0,), (0,), (0,), (1,), (1,), (2,)))
    pairs = similar_pairs(some, seed=3)
    assert pairs == similar_pairs(some, seed=3)
    labels = {text: label for text, (label,) in zip(some.texts, some.labels, strict=True)}
    assert all(labels[anchor] == labels[positive] == label and anchor != positive for anchor, positive, label in pairs)
    assert {text for anchor, positive, _ in pairs for text in (anchor, positive)} == set("abcde")


def test_texts_that_make_no_pairs_are_refused():
    with pytest.raises(ConfigError, match="two texts"):
        similar_pairs(LabelledTexts(("a", "b"), ((0,), (1,))), seed=3)
    with pytest.raises(ConfigError, match="one label"):
        similar_pairs(LabelledTexts(("a", "b"), ((0,), (0, 1))), seed=3)


@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_every_split_needs_two_texts_of_one_label(name, tmp_path):
    data = directory_of(tmp_path / "things", rows)
    check_similar(read_training_data(data, seed=1))
    write(data / f"{name}.jsonl", rows(0, 2))
    with pytest.raises(ConfigError, match=f"no label of {name} has two texts: "):
        check_similar(read_training_data(data, seed=1))


def test_a_dev_split_that_was_held_out_is_named(tmp_path):
    write(tmp_path / "x.jsonl", rows(0, 4))
    with pytest.raises(ConfigError, match="no label of dev has two texts, with dev held out from train"):
        check_similar(read_training_data(tmp_path / "x.jsonl", seed=1))
