import pytest
import torch
from torch import nn

from lorat.layers import LoRALinear, merged_weight


def layer(dtype=torch.float32):
    torch.manual_seed(0)
    made = LoRALinear(nn.Linear(24, 16, dtype=dtype), rank=4, scaling=2.0)
    nn.init.normal_(made.lora_B)
    return made


def test_forward_is_the_equation():
    lora, x = layer().double(), torch.randn(5, 24, dtype=torch.float64)
    w = lora.linear.weight + 2.0 * lora.lora_B @ lora.lora_A
    torch.testing.assert_close(lora(x), x @ w.T + lora.linear.bias)


@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 3, 24), (0, 24)])
def test_values_and_gradients_are_those_of_the_merged_weight(shape):
    lora, x = layer().double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = lora(x)
    upstream = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, lora.lora_A, lora.lora_B], upstream)
    merged = x @ (lora.linear.weight + 2.0 * lora.lora_B @ lora.lora_A).T + lora.linear.bias
    torch.testing.assert_close(y, merged)
    torch.testing.assert_close(found, torch.autograd.grad(merged, [x, lora.lora_A, lora.lora_B], upstream))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_beside_a_half_precision_base_the_delta_is_float32(dtype):
    lora, x = layer(dtype), torch.randn(5, 24).to(dtype)
    assert lora.lora_B.dtype == torch.float32
    delta = 2.0 * x.float() @ lora.lora_A.T @ lora.lora_B.T
    torch.testing.assert_close(lora(x), (lora.linear(x) + delta).to(dtype))


def test_a_new_adapter_changes_nothing():
    linear = nn.Linear(24, 16)
    x = torch.randn(3, 24)
    assert torch.equal(LoRALinear(linear, 4, 2.0)(x), linear(x))


def test_only_a_and_b_train():
    lora = layer()
    assert {name for name, p in lora.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_10_000_merges_leave_the_base_as_it_was_to_the_bit(dtype):
    lora = layer(dtype)
    before = lora.linear.weight.clone()
    for _ in range(10_000):
        lora.merge()
        lora.unmerge()
    assert torch.equal(lora.linear.weight, before)


def test_merged_equals_unmerged():
    lora, x = layer(), torch.randn(5, 24)
    unmerged = lora(x)
    lora.merge()
    torch.testing.assert_close(lora(x), unmerged)
    assert lora.merged.data_ptr() != lora.linear.weight.data_ptr()


def test_merging_sums_in_float32():
    weight = torch.full((1, 1), 1.0, dtype=torch.bfloat16)
    a, b = torch.full((2, 1), 0.0625, dtype=torch.bfloat16), torch.full((1, 2), 0.0625, dtype=torch.bfloat16)
    assert merged_weight(weight, a, b).item() == pytest.approx(1 + 2 * 0.0625**2, abs=1e-6)


def test_merging_keeps_float64():
    w, a, b = (torch.randn(shape, dtype=torch.float64) for shape in ((6, 4), (2, 4), (6, 2)))
    assert torch.equal(merged_weight(w, a, b), w + b @ a)
