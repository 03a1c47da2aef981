"""Weights in the matrix library's layout, against F.linear in float32."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lorat.layout import computes, lay_out, linear, plain, round_rows


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 4e-3), ("float16", 1e-3)])
@pytest.mark.parametrize("rows", [1, 7, 64, 300])
def test_a_laid_out_weight_keeps_its_values_and_multiplies(dtype, tolerance, rows):
    generator = torch.Generator().manual_seed(rows)
    kind = getattr(torch, dtype)
    weight, bias, x = (torch.randn(shape, generator=generator).to(kind) for shape in [(48, 40), (48,), (rows, 40)])
    laid_out = lay_out(weight)
    assert torch.equal(plain(laid_out), weight)
    got = linear(x, laid_out, bias)
    expected = F.linear(x.float(), weight.float(), bias.float())
    assert got.dtype == kind
    assert (got.float() - expected).abs().max() <= tolerance * expected.abs().max()


def test_a_type_is_computed_where_the_processor_has_it():
    flags = Path("/proc/cpuinfo").read_text()
    assert computes(torch.float32)
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        assert computes(torch.bfloat16)
    if "avx512" not in flags:
        assert not computes(torch.bfloat16)


def test_without_onednn_only_float32_is_computed(monkeypatch):
    monkeypatch.setattr("lorat.layout.OPERATORS", False)
    assert [computes(kind) for kind in (torch.float32, torch.bfloat16, torch.float16)] == [True, False, False]
    weight = torch.randn(8, 4).bfloat16()
    assert lay_out(weight) is weight


@given(st.integers(1, 20_000))
def test_numbers_of_rows_are_rounded_up_a_little_to_few_numbers(rows):
    rounded = round_rows(rows)
    assert rows <= rounded < rows + max(4, rows / 16 + 1)
    assert round_rows(rounded) == rounded


def test_a_batch_of_up_to_4096_tokens_has_112_numbers_of_rows():
    assert len({round_rows(rows) for rows in range(1, 4097)}) == 112
