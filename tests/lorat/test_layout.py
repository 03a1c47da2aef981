"""Weights in the matrix library's layout, against F.linear in float32."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lorat.layout import LANES, PANEL, computes, lay_out, linear, pairs, panels, plain, round_rows


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_laid_out_for_our_kernels_keeps_its_values(dtype):
    weight = torch.randn(3 * PANEL, 48).to(dtype)
    assert panels(weight).shape == (3, 24, PANEL, 2)
    assert torch.equal(panels(weight)[1, 5, 7], weight[PANEL + 7, 10:12])
    assert torch.equal(plain(panels(weight)), weight)
    for columns in (8, LANES, 24):
        matrix = torch.randn(48, columns).to(dtype)
        laid_out = pairs(matrix)
        assert torch.equal(laid_out[5, 7], matrix[10:12, 7])
        assert torch.equal(plain(laid_out)[:, :columns], matrix) and not plain(laid_out)[:, columns:].any()
        assert laid_out.shape[1] % LANES == 0
