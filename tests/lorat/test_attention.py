"""Attention over packed sequences, against PyTorch's over each alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lorat.attention import BlockAttention

HEADS, HIDDEN = 3, 24


def alone(qkv):
    query, value, key = qkv.view(len(qkv), 3, HEADS, HIDDEN // HEADS).permute(1, 2, 0, 3)
    return F.scaled_dot_product_attention(query, key, value).transpose(0, 1).reshape(-1, HIDDEN)


def check(lengths, dtype, tolerance):
    generator = torch.Generator().manual_seed(sum(lengths))
    qkv = torch.randn(sum(lengths), 3 * HIDDEN, generator=generator).to(dtype)
    got = BlockAttention(lengths, HEADS, qkv.device, dtype)(qkv)
    expected = torch.cat([alone(sequence.float()) for sequence in qkv.split(lengths)])
    assert (got.float() - expected).abs().max() <= tolerance


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 140), min_size=1, max_size=12))
def test_each_sequence_attends_to_itself_alone(lengths):
    check(lengths, torch.float32, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 4e-2), ("float16", 5e-3)])
@pytest.mark.parametrize("lengths", [[512], [16, 513, 2000], [1], [257, 256, 255], [8] * 40])
def test_every_length_in_every_dtype(dtype, tolerance, lengths):
    check(lengths, getattr(torch, dtype), tolerance)


def test_a_sequence_does_not_depend_on_the_others():
    qkv = torch.randn(100, 3 * HIDDEN, generator=torch.Generator().manual_seed(0))
    together = BlockAttention([30, 70], HEADS, qkv.device, qkv.dtype)(qkv)
    assert torch.allclose(together[:30], BlockAttention([30], HEADS, qkv.device, qkv.dtype)(qkv[:30]), atol=1e-6)
