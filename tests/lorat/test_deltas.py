"""What an adapter adds to a group of linears, against each target's own product in float64."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorat.adapter import Linear, LoRA
from lorat.deltas import GROUPS, merge, stack
from lorat.layout import KERNELS, LIBRARY, PANEL, plain
from lorat.linear import FrozenLinear
from lorat.ops.reference import lora_delta

IN, OUT, ROWS = 24, 16, 5
ranks = st.one_of(st.none(), st.integers(1, 40))
chosen_ranks = st.one_of(st.tuples(ranks), st.tuples(ranks, ranks, ranks)).filter(any)


def group_of(targets, dtype=torch.float32, layout=LIBRARY, out=OUT):
    made = [Linear(torch.randn(out, IN, dtype=dtype), torch.randn(out, dtype=dtype)) for _ in range(targets)]
    return FrozenLinear((0, "qkv"), made, layout=layout), made


def lora_of(rank, bias, out=OUT):
    return LoRA(torch.randn(rank, IN), torch.randn(out, rank), 0.5, torch.randn(out) if bias else None)


def laid_out_plainly(delta):
    parts = [part._replace(b=plain(part.b)) for part in delta.parts]
    return delta._replace(a=plain(delta.a), parts=parts)


def wanted(x, linears, chosen):
    """(rows, targets * out): (W + scaling B A) x, with the bias that the adapter gives or the layer's own."""
    outs = []
    for linear, lora in zip(linears, chosen, strict=True):
        weight, bias = linear.weight.double(), linear.bias.double()
        if lora is not None:
            weight = weight + lora.scaling * lora.b.double() @ lora.a.double()
            bias = bias if lora.bias is None else lora.bias.double()
        outs.append(x.double() @ weight.T + bias)
    return torch.cat(outs, 1)


@settings(deadline=None)
@given(chosen_ranks, st.booleans(), st.sampled_from([(LIBRARY, OUT), (KERNELS, PANEL)]), st.integers(0, 99))
def test_added_or_merged_it_is_each_targets_own_product(sizes, bias, layout, seed):
    torch.manual_seed(seed)
    layout, out = layout
    group, linears = group_of(len(sizes), layout=layout, out=out)
    chosen = [None if rank is None else lora_of(rank, bias, out) for rank in sizes]
    x, delta = torch.randn(ROWS, IN), stack(chosen, group)
    before = group.weight.clone()
    y = x @ group.weight.T + group.bias
    lora_delta(y, x, [(0, ROWS, laid_out_plainly(delta))])
    torch.testing.assert_close(y.double(), wanted(x, linears, chosen), atol=2e-3, rtol=1e-4)
    own = group.bias if delta.bias is None else group.bias + delta.bias
    merged = x @ plain(merge(group, delta)).T + own
    torch.testing.assert_close(merged.double(), wanted(x, linears, chosen), atol=2e-3, rtol=1e-4)
    assert torch.equal(group.weight, before)


@settings(deadline=None)
@given(chosen_ranks)
def test_a_gpu_can_read_it_16_bytes_at_a_time(sizes):
    group, _ = group_of(len(sizes))
    delta = stack([None if rank is None else lora_of(rank, False) for rank in sizes], group)
    edges = [edge for part in delta.parts for edge in (*part.ranks, *part.b.shape)]
    assert not any(edge % 8 for edge in (*edges, delta.a.shape[1]))
    assert all(tensor.is_contiguous() for tensor in (delta.a, *(part.b for part in delta.parts)))


@given(st.floats(-50, 50), st.integers(0, 99))
def test_beside_float16_rows_of_a_are_of_length_1_and_no_digit_of_the_product_changes(power, seed):
    torch.manual_seed(seed)
    group, _ = group_of(1, torch.float16)
    lora = lora_of(8, False)
    lora.a.mul_(2.0 ** (power + torch.arange(8)).unsqueeze(1))
    delta = stack([lora], group)
    lengths = delta.a.norm(dim=0)
    assert ((lengths > 0.49) & (lengths < 1.01)).all()
    assert torch.equal(of_each_rank(delta.a.T, delta.parts[0].b), of_each_rank(lora.a, (lora.b * lora.scaling).T))


def of_each_rank(a, b):
    """What each rank adds to a product, (rank, in, out), exact: no order of summing comes into it."""
    return a.double()[:, :, None] * b.double()[:, None, :]


def test_rows_of_zeros_and_of_the_largest_and_smallest_numbers_stay_finite():
    group, _ = group_of(1, torch.float16)
    lora = LoRA(torch.zeros(3, IN), torch.ones(OUT, 3), 1.0)
    lora.a[1, 0], lora.a[2, 0] = torch.finfo(torch.float32).max, 1e-45
    lora.b[0] = 0
    delta = stack([lora], group)
    assert delta.a.isfinite().all() and delta.parts[0].b.isfinite().all()
    assert not delta.a[:, 0].any() and not delta.parts[0].b[:, 0].any()


def test_small_ranks_of_neighbours_are_one_part():
    group, _ = group_of(3)
    assert len(stack([lora_of(8, False)] * 3, group).parts) == 1
    assert len(stack([lora_of(8, False), None, lora_of(8, False)], group).parts) == 2
    assert len(stack([lora_of(16, False)] * 3, group).parts) == 3


def test_a_targets_place_is_in_one_group():
    targets = [target for group in GROUPS.values() for target in group]
    assert len(targets) == len(set(targets)) == 6
