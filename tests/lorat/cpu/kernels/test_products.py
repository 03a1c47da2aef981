"""The product of bfloat16 against float64, and its rows each alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorat.layout import pairs

numba = pytest.importorskip("numba")
multiply = pytest.importorskip("lorat.cpu.kernels.products").multiply


def product(c, initial, a, b):
    """C = C0 + A B in place; `initial` of one row is taken for all. b (depth, columns), a multiple of 16 of them."""
    laid_out, stride = pairs(b), 4 * b.shape[1]
    each = stride if len(initial) > 1 else 0
    place = c.data_ptr(), stride, initial.data_ptr(), each, a.data_ptr(), 2 * a.stride(0), laid_out.data_ptr(), stride
    multiply(*place, b.shape[0] // 2, len(a), b.shape[1] // 16)


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 40), st.integers(1, 13), st.booleans(), st.integers(0, 99))
def test_it_equals_the_product_in_float64_and_each_row_is_the_same_alone(rows, pairs_, vectors, one_row, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, 2 * pairs_ + 6, generator=generator).bfloat16()[:, : 2 * pairs_]  # rows are not neighbours
    b = torch.randn(2 * pairs_, 16 * vectors, generator=generator).bfloat16()
    initial = torch.randn(1 if one_row else rows, 16 * vectors, generator=generator)
    c = torch.full((rows, 16 * vectors), torch.nan)
    product(c, initial, a, b)
    expected = initial.double() + a.double() @ b.double()
    assert (c - expected).abs().max() <= 1e-5 * (1 + expected.abs().max())
    for row in range(rows):
        alone = torch.full_like(c[:1], torch.nan)
        product(alone, initial[:1] if one_row else initial[row : row + 1], a[row : row + 1], b)
        assert torch.equal(alone[0], c[row])


def test_it_adds_to_what_is_there_and_writes_nothing_else():
    c, a, b = torch.ones(9, 64), torch.ones(5, 6).bfloat16(), torch.ones(6, 64).bfloat16()
    product(c[2:7], c[2:7], a, b)
    assert torch.equal(c[2:7], torch.full((5, 64), 7.0))
    assert torch.equal(c[[0, 1, 7, 8]], torch.ones(4, 64))
