"""The event loop's metrics against prometheus_client's own."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from app.observe.loop import LoopCounter, LoopHistogram

BOUNDS = (0.5, 1, 2.5, 10)
VALUES = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 10.0, 10.5]), st.floats(0, 20))
LABELS = st.sampled_from(["a", 'b"\n', "c\\"])


def shown(*collectors):
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return sorted(line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)


@given(st.lists(st.tuples(VALUES, LABELS)))
def test_a_histogram_shows_what_prometheus_client_would(values):
    ours, theirs = LoopHistogram("h", "Text", BOUNDS, "x"), Histogram("h", "Text", ["x"], buckets=BOUNDS, registry=None)
    plain, their_plain = LoopHistogram("p", "Text", BOUNDS), Histogram("p", "Text", buckets=BOUNDS, registry=None)
    for value, label in values:
        ours.observe(value, label)
        theirs.labels(label).observe(value)
        plain.observe(value)
        their_plain.observe(value)
    assert shown(ours, plain) == shown(theirs, their_plain)


@given(st.lists(st.tuples(LABELS, st.integers(100, 599))))
def test_a_counter_shows_what_prometheus_client_would(values):
    ours, theirs = LoopCounter("c", "Text", ["x", "y"]), Counter("c", "Text", ["x", "y"], registry=None)
    plain, their_plain = LoopCounter("p", "Text"), Counter("p", "Text", registry=None)
    for labels in values:
        ours.add(labels)
        theirs.labels(*labels).inc()
        plain.add(amount=2)
        their_plain.inc(2)
    assert shown(ours, plain) == shown(theirs, their_plain)
