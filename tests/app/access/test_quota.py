"""Rates and places: never more than is allowed, never less, and nobody is remembered for long."""

from hypothesis import given
from hypothesis import strategies as st

from app.access.quota import Places, Rates

rates = st.floats(0.05, 200)
gaps = st.lists(st.floats(0, 3), min_size=1, max_size=120)
EPSILON = 1e-6


def served(rate, gaps):
    """When requests after these gaps pass, and how long those that do not are told to wait."""
    buckets, now, passed = Rates(rate), 0.0, []
    for gap in gaps:
        now += gap
        if not buckets.wait("who", now):
            buckets.take("who", now)
            passed.append(now)
    return passed


@given(rates, gaps)
def test_no_stretch_of_time_sees_more_than_its_rate_and_one_burst(rate, gaps):
    passed = served(rate, gaps)
    burst = max(1.0, rate)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - start) + EPSILON * (1 + last)


@given(rates, gaps)
def test_who_waits_as_long_as_told_passes_and_no_sooner(rate, gaps):
    buckets, now = Rates(rate), 0.0
    for gap in gaps:
        now += gap
        wait = buckets.wait("who", now)
        if wait > 100 * EPSILON:
            assert buckets.wait("who", now + wait * 0.99) > 0
        now += wait + EPSILON
        assert buckets.wait("who", now) == 0
        buckets.take("who", now)


@given(rates)
def test_a_burst_is_one_second_s_worth_and_at_least_one(rate):
    assert len(served(rate, [0.0] * 400)) == max(1, int(rate + EPSILON))


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 0.4)), max_size=80))
def test_nobody_counts_for_another(asked):
    together, apart, now = Rates(2), {who: Rates(2) for who in range(6)}, 0.0
    for who, gap in asked:
        now += gap
        assert together.wait(who, now) == apart[who].wait(who, now)
        if not together.wait(who, now):
            together.take(who, now)
            apart[who].take(who, now)


def test_full_buckets_are_forgotten():
    buckets = Rates(10)
    for number in range(100_000):
        buckets.take(number, number * 0.001)
        assert len(buckets) <= 512  # 100 are not full at a time
    buckets.take("last", 1e6)
    for number in range(64):
        buckets.take(number, 1e6 + 1 + number)
    assert len(buckets) <= 64


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60), st.integers(1, 3))
def test_places_hold_so_many_and_forget_who_has_none(steps, most):
    places, taken = Places(most), [0] * 4
    for enters, who in steps:
        assert places.full(who) == (taken[who] >= most)
        if enters and not places.full(who):
            places.enter([who])
            taken[who] += 1
        elif not enters and taken[who]:
            places.leave([who])
            taken[who] -= 1
        assert len(places) == sum(map(bool, taken))
