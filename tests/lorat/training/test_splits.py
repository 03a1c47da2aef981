"""Rows in splits: chosen by place, and held out (from files: tests/lorat/training/test_data.py)."""

import pytest

from lorat.errors import ConfigError
from lorat.training.splits import LabelledTexts, TaggedWords, TextPairs, hold_out


def test_the_rows_at_some_places():
    assert LabelledTexts(("a", "b", "c"), ((0,), (1,), ())).take([2, 0]) == LabelledTexts(("c", "a"), ((), (0,)))
    assert TaggedWords((("a",), ("b",)), ((0,), (1,))).take([1]) == TaggedWords((("b",),), ((1,),))
    assert TextPairs(("a", "b"), ("c", "d"), (1.0, 2.0)).take([1]) == TextPairs(("b",), ("d",), (2.0,))
    assert TextPairs(("a", "b"), ("c", "d")).take([0]) == TextPairs(("a",), ("c",))


def test_pairs_held_out_are_part_of_a_whole_in_its_order():
    pairs = TextPairs(tuple("abcdefgh"), tuple("ijklmnop"), tuple(map(float, range(8))))
    train, dev = hold_out(pairs, 3, 0.25, "x.jsonl")
    assert len(dev) == 2
    assert train.scores == tuple(sorted(set(pairs.scores) - set(dev.scores)))
    assert [pairs.first[int(score)] for score in dev.scores] == list(dev.first)
    assert (train, dev) == hold_out(pairs, 3, 0.25, "x.jsonl")


def test_scores_that_would_be_one_in_a_part_are_refused():
    pairs = TextPairs(("a", "b", "c"), ("d", "e", "f"), (1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match=r"x\.jsonl has too few rows, those held out or left have one score"):
        hold_out(pairs, 3, 0.5, "x.jsonl")
