"""Attention of a sequence against torch's in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

attention = pytest.importorskip("lorat.cpu.kernels.attention", reason="Numba is not installed")


def attend(qkv, length, size, behind=torch.nan):
    """(length, size) of qkv (length, 3, size): queries, values, keys."""
    rows = torch.cat([qkv, torch.full((16, 3, size), behind)]).bfloat16()
    out = torch.empty(length, size, dtype=torch.bfloat16)
    room = torch.zeros(attention.room_for(length, size), dtype=torch.uint8)
    zeros = torch.zeros(max(length + 16, size))
    query, value, key = (rows[:, part].data_ptr() for part in range(3))
    places = out.data_ptr(), 2 * size, query, key, value, 6 * size
    attention.attend(*places, length, size, size**-0.5, zeros.data_ptr(), room.data_ptr())
    return out


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.sampled_from([32, 64, 96, 128]), st.sampled_from([0.1, 1, 8]), st.integers(0, 99))
def test_it_equals_attention_in_float64_whatever_stands_behind(length, size, scale, seed):
    qkv = torch.randn(length, 3, size, generator=torch.Generator().manual_seed(seed)) * scale
    query, value, key = qkv.bfloat16().double().unbind(1)
    expected = F.scaled_dot_product_attention(query, key, value)
    got = attend(qkv, length, size)
    assert (got.double() - expected).abs().max() <= 8e-3 * value.abs().max()


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_what_is_no_number_stays_none(number, part):
    qkv = torch.randn(40, 3, 32, generator=torch.Generator().manual_seed(0))
    qkv[7, part] = number
    got = attend(qkv, 40, 32)
    reached = slice(7, 8) if part == 0 else slice(None)
    assert not got[reached].isfinite().any()
    if part == 0:
        assert got[8:].isfinite().all() and got[:7].isfinite().all()
