"""The budget of tokens: what is chosen from what was measured."""

import pytest

from app.engine.tuning import Pace, choose_budget, measure_pace


@pytest.mark.parametrize(
    ("rates", "tokens"),
    [([100], 256), ([100, 200, 300, 310], 1024), ([100, 94, 90], 256), ([10, 94, 100], 1024), ([10, 95, 100], 512)],
)
def test_the_fewest_tokens_that_nearly_reach_the_best_pace(rates, tokens):
    assert choose_budget([Pace(256 << place, rate) for place, rate in enumerate(rates)]) == tokens


@pytest.mark.parametrize(("most", "largest"), [(1, 256), (300, 256), (512, 512)])
def test_no_batch_is_larger_than_the_most(tiny, most, largest):
    measured = [pace.tokens for pace in measure_pace(tiny, workers=2, most=most)]
    assert measured[0] == 256 and measured[-1] <= largest


def test_a_measured_pace_grows_until_it_does_not(tiny):
    paces = list(measure_pace(tiny, workers=2))
    assert [pace.tokens for pace in paces] == [256 << place for place in range(len(paces))]
    rates = [pace.rate for pace in paces]
    assert rates[:-1] == sorted(rates[:-1]) and min(rates) > 0
