"""The bound on adapters with series of their own, whatever comes and goes."""

from hypothesis import given
from hypothesis import strategies as st

from app.names import BASE
from app.observe.adapter_counts import OTHER, AdapterCounts

NAMES = [BASE, *(f"a{number}" for number in range(12))]
ASKED = st.tuples(st.sampled_from(NAMES), st.integers(0, 500))
SETTLED = st.sets(st.sampled_from(NAMES[1:]))


@given(st.integers(0, 5), st.lists(st.one_of(ASKED, SETTLED), max_size=80))
def test_no_more_names_than_places_and_every_request_is_counted_once(places, events):
    counts = AdapterCounts(places)
    requests = tokens = ended_requests = ended_tokens = 0
    for event in events:
        before = counts.counts()
        if isinstance(event, set):
            counts.keep(event.__contains__)
            assert counts.counts() == before, "settling alone ends no series"
        else:
            counts.add(*event)
            requests, tokens = requests + 1, tokens + event[1]
        after = counts.counts()
        assert len(after.keys() - {BASE, OTHER}) <= places
        for name in before.keys() - after.keys():  # its series has ended, and its last value was shown
            ended_requests += before[name][0]
            ended_tokens += before[name][1]
        for name in before.keys() & after.keys():
            assert after[name] >= before[name], "a counter only grows"
        assert sum(count for count, _ in after.values()) + ended_requests == requests
        assert sum(count for _, count in after.values()) + ended_tokens == tokens


def test_a_deleted_name_keeps_its_place_until_another_needs_it():
    counts = AdapterCounts(2)
    for name in ("a", "b", "c", BASE):
        counts.add(name, 1)
    assert counts.counts() == {BASE: (1, 1), "a": (1, 1), "b": (1, 1), OTHER: (1, 1)}
    counts.keep(lambda name: name != "a")
    counts.add("a", 1)  # a request that was under way
    assert counts.counts()["a"] == (2, 2)
    counts.add("c", 5)
    assert counts.counts() == {BASE: (1, 1), "b": (1, 1), "c": (1, 5), OTHER: (1, 1)}
    counts.add("d", 1)
    assert counts.counts()[OTHER] == (2, 2)
