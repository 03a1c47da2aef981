"""What is done row by row against torch in float64."""

import pytest
import torch
from torch.nn import functional as F

numba = pytest.importorskip("numba")
passes = pytest.importorskip("lorat.cpu.kernels.passes")
vectors = pytest.importorskip("lorat.cpu.kernels.vectors")


def by_vector(function):
    """A function of a vector as one of a tensor of float32."""

    @numba.njit
    def run(y, x, count):
        for place in range(0, 4 * count, 64):
            vectors.store(y + place, function(vectors.load(x + place)))

    def of_tensor(x):
        assert x.numel() % 16 == 0 and x.dtype == torch.float32
        y = torch.empty_like(x)
        run(y.data_ptr(), x.data_ptr(), x.numel())
        return y

    return of_tensor


def test_the_exponential():
    x = torch.linspace(-100, 0, 16000)
    got, expected = by_vector(passes.exponential)(x).double(), x.double().exp()
    usual = expected > 1e-37
    assert ((got - expected).abs() <= 5e-6 * expected)[usual].all()
    assert got[~usual].max() <= 2e-37
    special = torch.tensor([0.0, -torch.inf, torch.nan, -1e38] * 4)
    one, least, none, less = by_vector(passes.exponential)(special)[:4]
    assert one == 1 and least == less <= 2e-38 and none.isnan()


def test_gelu():
    x = torch.linspace(-12, 12, 32000)
    expected = F.gelu(x.double())
    got = by_vector(passes.gelu)(x).double()
    assert ((got - expected).abs() <= 1e-6 * (1 + expected.abs())).all()
    assert by_vector(passes.gelu)(torch.full((16,), torch.nan)).isnan().all()


@pytest.mark.parametrize("width", [64, 128, 384, 1024])
def test_the_norm(width):
    generator = torch.Generator().manual_seed(width)
    x, weight, bias = (torch.randn(width, generator=generator) * 3 + 1 for _ in range(3))
    y, rounded = x.clone(), torch.empty(width, dtype=torch.bfloat16)
    passes.norm(y.data_ptr(), rounded.data_ptr(), weight.data_ptr(), bias.data_ptr(), width, 1e-12)
    expected = F.layer_norm(x.double(), (width,), weight.double(), bias.double(), 1e-12)
    assert (y - expected).abs().max() <= 5e-6 * expected.abs().max()
    assert torch.equal(rounded, y.bfloat16())


def test_the_norm_of_a_row_whose_variance_is_no_number_is_none():
    x, ones, rounded = torch.full((64,), 1e30), torch.ones(64), torch.empty(64, dtype=torch.bfloat16)
    x[::2] *= -1
    passes.norm(x.data_ptr(), rounded.data_ptr(), ones.data_ptr(), ones.data_ptr(), 64, 1e-12)
    assert x.isnan().all() and rounded.isnan().all()


def test_rows_of_tables_are_added_in_float32():
    word, position, token_type = torch.randn(3, 128).bfloat16()
    x = torch.empty(128)
    passes.embed(x.data_ptr(), word.data_ptr(), position.data_ptr(), token_type.data_ptr(), 128)
    assert torch.equal(x, word.float() + token_type.float() + position.float())


def test_numbers_are_rounded_to_the_nearest_bfloat16_as_torch_does():
    @numba.njit
    def run(y, x, count):
        for place in range(0, count, 16):
            vectors.store_bfloat16(y + 2 * place, vectors.load(x + 4 * place))

    bits = torch.randint(-(2**31), 2**31 - 1, (16000,), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    x = torch.cat(
        [bits.view(torch.float32), torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-40, 1, 3e38] * 2)]
    )
    x = torch.where(x.abs() < 2e-38, x.sign(), x)  # a processor may take what is next to zero for zero
    y = torch.empty(len(x), dtype=torch.bfloat16)
    run(y.data_ptr(), x.data_ptr(), len(x))
    assert torch.equal(y.isnan(), x.isnan())
    assert torch.equal(y[~x.isnan()], x[~x.isnan()].bfloat16())
