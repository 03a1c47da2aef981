"""FrozenLinear with merged segments, against each row through its own weight; and what is summed in float32."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lorat.adapter import Linear, LoRA
from lorat.deltas import stack
from lorat.layout import lay_out
from lorat.linear import FrozenLinear
from lorat.routing import Merged, Routing, Segment
from lorat.slots import Slot, Slots

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


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_where_its_output_is_summed_on_what_adapters_add_is_not_rounded_on_a_cpu(kind):
    torch.manual_seed(0)
    base, x = Linear(torch.randn(OUT, IN).to(kind), torch.randn(OUT).to(kind)), torch.randn(9, IN).to(kind)
    linear = FrozenLinear((0, "output"), [base], summed=True)
    delta = stack([LoRA(torch.randn(4, IN), torch.randn(OUT, 4), 0.5)], linear)
    with torch.inference_mode():
        alone = linear(x, Routing([]))
        slot = Slot(Slots({linear.key: linear}, 1), 1, None, {linear.key: delta})
        got = linear(x, Routing([Segment(2, 9, slot, {})]))
    expected = alone.clone()
    expected[2:] += x[2:].float() @ delta.a.float() @ delta.parts[0].b.float()
    assert got.dtype == alone.dtype == torch.float32
    assert torch.equal(got[:2], alone[:2])
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
