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
from lorat.linear import FrozenLinear, compute
from lorat.ops.stacked import fills, tiling
from lorat.ops.stacked import stack as of_one_shape
from lorat.routing import Merged, Routing, Segment

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
        got = linear(x, Routing([Segment(2, 9, {linear.key: delta}, {})]))
    expected = alone.clone()
    expected[2:] += x[2:].float() @ delta.a.float() @ delta.parts[0].b.float()
    assert got.dtype == alone.dtype == torch.float32
    assert torch.equal(got[:2], alone[:2])
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("ranks", [(8, 8, 8), (16, 16, 16), (8, 0, 8)])
def test_what_a_stack_adds_to_all_rows_is_added_within_the_product(ranks):
    generator = torch.Generator().manual_seed(0)

    def random(*size):
        return torch.randn(size, generator=generator).bfloat16()

    linears = [Linear(random(OUT, IN), random(OUT)) for _ in ranks]
    linear = FrozenLinear((0, "qkv"), linears)
    loras = [
        [LoRA(random(rank, IN).float(), random(OUT, rank).float(), 1.0) if rank else None for rank in ranks]
        for _ in range(8)
    ]
    deltas = [in_bfloat16(stack(chosen, linear)) for chosen in loras]
    tiles = tiling([(20 * place, 20 * place + 20) for place in range(8)])
    stacks = [of_one_shape(tiles, deltas)]
    x = random(160, IN)
    with torch.inference_mode():
        assert fills(stacks, len(x), len(linear.bias))
        assert not fills(stacks, len(x) + 1, len(linear.bias))
        got = compute(x, linear.laid_out, linear.bias, [], stacks, False).float()
    base = F.linear(x.float(), linear.weight.float(), linear.bias.float())
    added = torch.cat([plain_delta(x[20 * place :][:20].float(), chosen) for place, chosen in enumerate(loras)])
    assert (got - base - added).abs().max() <= 1e-2 * added.abs().max()


def in_bfloat16(delta):
    return delta._replace(a=delta.a.bfloat16(), parts=[part._replace(b=part.b.bfloat16()) for part in delta.parts])


def plain_delta(x, loras):
    return torch.cat([x @ lora.a.T @ lora.b.T if lora else torch.zeros(len(x), OUT) for lora in loras], 1)
