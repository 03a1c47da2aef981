"""LoRALinear while it trains: dropout, a new start, beside a half-precision base."""

import pytest
import torch
from torch import nn

from lorat.layers import LoRALinear
from tests.lorat.test_layers import layer


def test_without_dropout_training_draws_nothing():
    lora, x = layer().train(), torch.randn(5, 24)
    before = torch.get_rng_state()
    lora(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_of_the_adapters_input_alone():
    torch.manual_seed(0)
    lora, x = LoRALinear(nn.Linear(24, 16), rank=4, scaling=2.0, dropout=0.5), torch.randn(5, 24)
    assert torch.equal(lora.train()(x), lora.linear(x))  # B is zero
    nn.init.normal_(lora.lora_B)
    torch.manual_seed(1)
    got = lora(x)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(x, 0.5)
    torch.testing.assert_close(got, lora.linear(x) + 2.0 * dropped @ lora.lora_A.T @ lora.lora_B.T)
    assert torch.equal(lora.eval()(x), lora(x))


def test_a_reset_layer_is_a_new_one():
    lora = layer()
    before = lora.lora_A.detach().clone()
    torch.manual_seed(0)
    linear = nn.Linear(24, 16)
    new = LoRALinear(linear, rank=4, scaling=2.0)
    torch.manual_seed(0)
    nn.Linear(24, 16)
    lora.reset_parameters()
    assert torch.equal(lora.lora_A, new.lora_A) and torch.equal(lora.lora_A, before) and not lora.lora_B.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_beside_a_half_base_the_adapter_is_float32(dtype):
    lora, x = layer(dtype), torch.randn(5, 24, dtype=dtype)
    assert lora.lora_A.dtype == lora.lora_B.dtype == torch.float32
    exact = x.float() @ (lora.linear.weight.float() + 2 * lora.lora_B @ lora.lora_A).T + lora.linear.bias.float()
    y = lora(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), exact, atol=0.1, rtol=0.02)
    y.float().sum().backward()
    assert lora.lora_A.grad.dtype == torch.float32


def test_merged_weights_move_with_the_layer():
    lora = layer()
    lora.merge()
    assert lora.to(torch.float64)(torch.randn(2, 24, dtype=torch.float64)).dtype == torch.float64
    assert "merged" not in lora.state_dict()
