"""Which segments of a batch are computed by which of an adapter's tensors."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lorat.adapter import Linear
from lorat.deltas import Delta
from lorat.linear import FrozenLinear
from lorat.routing import Routing, Segment
from lorat.slots import Slot, Slots

KEY, OTHER = (0, "qkv"), (0, "output")
SLOTS = Slots({KEY: FrozenLinear(KEY, [Linear(torch.zeros(1, 8), torch.zeros(1))])}, 1)


def slot_of(keys):
    return Slot(SLOTS, 1, None, {key: Delta(torch.empty(0, 8), [], torch.ones(1)) for key in keys})


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 150), st.booleans(), st.booleans()), max_size=20))
def test_each_segment_is_computed_once_where_its_adapter_adds_something(given_):
    segments, start = [], 0
    for gap, length, both, merged in given_:
        start += gap
        slot = slot_of([KEY, OTHER] if both else [KEY])
        weights = {key: torch.empty(1) for key in slot.deltas} if merged else {}
        segments.append(Segment(start, start + length, slot, weights))
        start += length
    routing = Routing(segments)
    for key in (KEY, OTHER):
        own = [one for one in segments if key in one.deltas]
        assert routing.deltas(key) == [(*one[:2], one.deltas[key]) for one in own if not one.merged]
        weights = [(*one[:2], one.merged[key], one.deltas[key].bias) for one in own if one.merged]
        assert [tuple(merged) for merged in routing.merged(key)] == weights


def test_sequences_of_one_slot_are_one_segment_and_those_of_the_base_none():
    one, two = slot_of([KEY]), slot_of([KEY])
    routing = Routing.of([None, one, one, None, two], [0, 3, 4, 9, 11, 12])
    assert [(start, stop, slot) for start, stop, slot, _ in routing.segments] == [(3, 9, one), (11, 12, two)]
