"""Which segments of a batch are computed together."""

from hypothesis import given
from hypothesis import strategies as st

from lorat.routing import Routing, Segment

KEY, OTHER = (0, "qkv"), (0, "output")
SHAPES = [None, ((KEY, ()),), ((KEY, ()), (OTHER, ()))]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 150), st.integers(0, 2), st.booleans()), max_size=20))
def test_each_segment_is_computed_once_and_its_neighbours_in_a_stack_are_of_its_shape(given_):
    segments, start = [], 0
    for gap, length, kind, merged in given_:
        start += gap
        deltas = {KEY: object()} if kind < 2 else {KEY: object(), OTHER: object()}
        of = None if merged else SHAPES[kind]
        segments.append(Segment(start, start + length, deltas, dict.fromkeys(deltas) if merged else {}, of))
        start += length
    routing = Routing(segments)
    for key in (KEY, OTHER):
        unmerged = [one for one in segments if key in one.deltas and not one.merged]
        single = {edges[2]: edges[:2] for edges in routing.deltas(key)}
        stacked = {delta: stack for stack in routing.stacks(key) for delta in stack.deltas}
        assert len(single) + len(stacked) == len(unmerged)
        for one in unmerged:
            if one.deltas[key] in single:
                assert single[one.deltas[key]] == one[:2]
            else:
                stack = stacked[one.deltas[key]]
                inside = [other for other in segments if stack.start <= other.start < stack.stop]
                assert {other.shape for other in inside} == {one.shape} != {None}
                assert sum(other.stop - other.start for other in inside) == stack.stop - stack.start
