"""Attention over packed sequences, against PyTorch's over each alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lorat.attention import BlockAttention
from lorat.gpu import attention
from tests.kernels import GPU, varlen_here

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


def test_tokens_of_no_sequence_change_nothing():
    qkv = torch.randn(48, 3 * HIDDEN, generator=torch.Generator().manual_seed(0))
    filled = BlockAttention([9, 21], HEADS, qkv.device, qkv.dtype, tokens=48)(qkv)
    assert filled.shape == (48, HIDDEN)
    assert filled.isfinite().all()
    assert torch.equal(filled[:30], BlockAttention([9, 21], HEADS, qkv.device, qkv.dtype)(qkv[:30]))


def test_varlen_attention_hands_on_queries_keys_and_values_and_passes_by_empty_sequences(monkeypatch):
    monkeypatch.setattr(attention, "varlen_attn", varlen_here)
    qkv = torch.randn(40, 3 * HIDDEN, generator=torch.Generator().manual_seed(0))
    got = attention.VarlenAttention(torch.tensor([0, 9, 30, 30, 30], dtype=torch.int32), 32, HEADS)(qkv)
    assert torch.allclose(got[:30], BlockAttention([9, 21], HEADS, qkv.device, qkv.dtype)(qkv[:30]), atol=1e-6)


@pytest.mark.parametrize("head", [8, 32, 64, 128, 256])
@pytest.mark.parametrize("dtype", [pytest.param(dtype, marks=GPU) for dtype in (torch.bfloat16, torch.float16)])
def test_varlen_attention_equals_each_sequence_alone_on_a_gpu(dtype, head):
    lengths = [1, 128, 37, 512, 129]
    assert attention.runs_flash(torch.device("cuda"), dtype, head)
    qkv = torch.randn(sum(lengths) + 5, 9 * head, device="cuda", dtype=dtype)
    offsets = torch.tensor([0, *lengths, 0], device="cuda").cumsum(0).to(torch.int32)
    got = attention.VarlenAttention(offsets, 600, 3)(qkv)[: sum(lengths)].float().cpu()
    expected = BlockAttention(lengths, 3, torch.device("cpu"), torch.float32)(qkv[: sum(lengths)].float().cpu())
    assert (got - expected).abs().max() <= 3e-2


def test_flash_attention_is_for_half_types_on_a_gpu_with_heads_it_knows(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert attention.runs_flash(cuda, torch.bfloat16, 64)
    for refused in (
        (cpu, torch.bfloat16, 64),
        (cuda, torch.float32, 64),
        (cuda, torch.float16, 12),
        (cuda, torch.float16, 264),
    ):
        assert not attention.runs_flash(*refused)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not attention.runs_flash(cuda, torch.bfloat16, 64)
