"""The choice of merged adapters: who gains, within memory, without flapping."""

from hypothesis import given
from hypothesis import strategies as st

from app.engine.merging import Candidate, MergePolicy

LONG = 1_000_000  # tokens since it is in its slot
SMALL = Candidate(size=0.01, bytes=10, tokens=LONG)
LARGE = Candidate(size=0.06, bytes=20, tokens=LONG)


def watched(limit: int, *batches: dict[str | None, int]) -> MergePolicy:
    policy = MergePolicy(limit)
    for batch in batches:
        for _ in range(200):
            policy.observe(batch)
    return policy


def choose(policy, candidates, merged=(), always=(), never=()):
    return policy.choose(candidates, set(merged), set(always), set(never))


def test_one_hot_adapter_is_merged_and_cold_ones_are_not():
    policy = watched(100, {"hot": 900, "cold": 10, None: 90})
    assert choose(policy, {"hot": SMALL, "cold": SMALL}) == {"hot"}


def test_many_that_share_the_traffic_are_not_merged():
    policy = watched(10_000, {f"{n}": 30 for n in range(32)})
    assert choose(policy, {f"{n}": SMALL for n in range(32)}) == set()


def test_the_larger_gains_more_from_the_same_share():
    policy = watched(100, {"small": 100, "large": 100, None: 800})
    assert choose(policy, {"small": SMALL, "large": LARGE}) == {"large"}


def test_a_choice_is_kept_until_it_has_clearly_fallen():
    candidates = {"x": SMALL}
    assert choose(watched(100, {"x": 400, None: 600}), candidates) == {"x"}
    between = watched(100, {"x": 200, None: 800})
    assert choose(between, candidates) == set()
    assert choose(between, candidates, merged={"x"}) == {"x"}
    assert choose(watched(100, {"x": 100, None: 900}), candidates, merged={"x"}) == set()


def test_who_came_just_now_may_soon_give_way_and_is_not_merged_yet():
    policy = watched(100, {"x": 1000})
    assert choose(policy, {"x": Candidate(0.01, 10, tokens=1000)}) == set()
    assert choose(policy, {"x": Candidate(0.01, 10, tokens=20_000)}) == {"x"}
    assert choose(policy, {"x": Candidate(0.1, 10, tokens=2000)}) == {"x"}
    assert choose(policy, {"x": Candidate(0.01, 10, tokens=0)}, merged={"x"}) == {"x"}
    assert choose(policy, {"x": Candidate(0.01, 10, tokens=0)}, always={"x"}) == {"x"}


def test_two_of_equal_traffic_do_not_take_turns_where_memory_is_for_one():
    policy = MergePolicy(10)
    merged: frozenset[str] = frozenset()
    choices = set()
    for turn in range(500):
        policy.observe({"a": 500 + 40 * (turn % 2), "b": 540 - 40 * (turn % 2)})
        merged = choose(policy, {"a": SMALL, "b": SMALL}, merged=merged)
        choices.add(merged)
    assert len(choices - {frozenset()}) == 1


def test_what_is_to_be_merged_is_and_what_is_not_is_not():
    policy = watched(100, {"x": 1000})
    assert choose(policy, {"x": SMALL, "y": SMALL}, always={"y"}, never={"x"}) == {"y"}


names = st.sampled_from("abcdef")


@given(
    st.lists(st.dictionaries(names, st.integers(0, 1000), min_size=1), max_size=20),
    st.dictionaries(names, st.builds(Candidate, st.floats(0, 1), st.integers(1, 50), st.integers(0, LONG))),
    st.sets(names),
    st.sets(names),
    st.integers(0, 200),
)
def test_only_candidates_are_chosen_and_memory_holds(batches, candidates, merged, never, limit):
    policy = MergePolicy(limit)
    for batch in batches:
        policy.observe(batch)
    chosen = choose(policy, candidates, merged=merged, never=never)
    assert chosen <= candidates.keys() - never
    assert sum(candidates[digest].bytes for digest in chosen) <= limit
