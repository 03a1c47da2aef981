"""FrozenLinear with merged segments, against each row through its own weight."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lorat.layout import lay_out
from lorat.linear import FrozenLinear
from lorat.routing import Merged, Routing

IN, OUT = 24, 40


class MergedOnly(Routing):
    def __init__(self, segments):
        super().__init__(())
        self._given = segments

    def merged(self, key):
        return self._given


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 90)), min_size=1, max_size=6))
def test_each_segment_is_computed_with_its_own_weight(segments):
    torch.manual_seed(0)
    base = nn.Linear(IN, OUT)
    rows = sum(length for _, length in segments)
    x = torch.randn(rows, IN)
    given_, expected, start = [], [], 0
    for own, length in segments:
        weight, bias = (torch.randn(OUT, IN), torch.randn(OUT)) if own else (base.weight, torch.zeros(OUT))
        if own:
            given_.append(Merged(start, start + length, lay_out(weight), bias))
        expected.append(F.linear(x[start : start + length], weight, base.bias + bias))
        start += length
    with torch.inference_mode():
        got = FrozenLinear((0, "qkv"), [base])(x, MergedOnly(given_))
    assert (got - torch.cat(expected)).abs().max() <= 1e-4
