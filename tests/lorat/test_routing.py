"""Which segments of a batch are computed together."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lorat.deltas import Delta
from lorat.routing import Routing, Segment

KEY, OTHER = (0, "qkv"), (0, "output")
SHAPES = [None, ((KEY, ()),), ((KEY, ()), (OTHER, ()))]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 150), st.integers(0, 2), st.booleans()), max_size=20))
def test_each_segment_is_computed_once_and_its_neighbours_in_a_stack_are_of_its_shape(given_):
    segments, start = [], 0
    for gap, length, kind, merged in given_:
        start += gap
        deltas = {key: Delta(torch.empty(0), [], None) for key in ([KEY] if kind < 2 else [KEY, OTHER])}
        of = None if merged else SHAPES[kind]
        segments.append(Segment(start, start + length, deltas, dict.fromkeys(deltas) if merged else {}, of))
        start += length
    routing = Routing(segments)
    for key in (KEY, OTHER):
        unmerged = [one for one in segments if key in one.deltas and not one.merged]
        single = {id(delta.a): (start, stop) for start, stop, delta in routing.deltas(key)}
        stacked = {id(a): stack.tiling for stack in routing.stacks(key) for a in stack.a}
        assert len(single) + len(stacked) == len(unmerged)
        for one in unmerged:
            if (itself := id(one.deltas[key].a)) in single:
                assert single[itself] == one[:2]
            else:
                tiling = stacked[itself]
                inside = [other for other in segments if tiling.start <= other.start < tiling.stop]
                assert {other.shape for other in inside} == {one.shape} != {None}
                assert sum(other.stop - other.start for other in inside) == tiling.stop - tiling.start
