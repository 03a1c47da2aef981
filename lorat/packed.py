"""A BERT over packed rows, each row with its own adapter."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorat.activation import ACTIVATIONS, activate
from lorat.adapter import Linear
from lorat.deltas import GROUPS
from lorat.errors import BaseError
from lorat.layout import LIBRARY, Layout
from lorat.linear import Activation, FrozenLinear
from lorat.routing import Routing
from lorat.targets import MODULES, POOLER

Attention = Callable[[Tensor], Tensor]
"""(tokens, 3 * hidden) to (tokens, hidden), each sequence by itself."""
Weights = Mapping[str, Tensor]
"""A checkpoint's tensors, by the names that transformers' BertModel gives them."""


class PackedBert(nn.Module):
    """What BertModel computes, for packed rows; attention and adapters come with each call. Its tensors are frozen.

    On a CPU what goes from layer to layer is float32 in any dtype: the products round what they take, and no sum.
    """

    word: Tensor
    position: Tensor
    token_type: Tensor
    pooler_weight: Tensor | None
    pooler_bias: Tensor | None

    def __init__(self, weights: Weights, config: Any, layout: Layout = LIBRARY) -> None:
        """weights: of one device and dtype. config: transformers' BertConfig. layout: with another than the library's
        it only holds the tensors, and an encoder computes. Raises BaseError for its activation.
        """
        super().__init__()
        self.layout = layout
        for name in ("word", "position", "token_type"):
            self.register_buffer(name, weights[f"embeddings.{name}_embeddings.weight"])
        self.norm = Norm(weights, "embeddings.LayerNorm", config.layer_norm_eps)
        self.activation = _known(config.hidden_act)
        activation = _activation(self.activation, self.word.device)
        self.layers = nn.ModuleList(
            PackedLayer(weights, index, activation, config.layer_norm_eps, layout)
            for index in range(config.num_hidden_layers)
        )
        for name in ("weight", "bias"):
            given = weights.get(f"{POOLER}.{name}")
            self.register_buffer(f"pooler_{name}", None if given is None else given.float())
        self.heads: int = config.num_attention_heads
        self.inner: int = config.intermediate_size
        self.widest: int = max(config.hidden_size, config.intermediate_size)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.word.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.word.dtype

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that it takes."""
        return len(self.position)

    @property
    def head_size(self) -> int:
        """Values of an attention head."""
        return self.word.shape[1] // self.heads

    @property
    def pooler(self) -> Linear | None:
        """Its pooler in float32, as heads compute; None where the checkpoint has none."""
        if self.pooler_weight is None or self.pooler_bias is None:
            return None
        return Linear(self.pooler_weight, self.pooler_bias)

    def groups(self) -> list[FrozenLinear]:
        """The linears of all layers, each with its key."""
        return [linear for layer in self.layers if isinstance(layer, PackedLayer) for linear in layer.groups()]

    def forward(self, ids: Tensor, positions: Tensor, types: Tensor, attention: Attention, routing: Routing) -> Tensor:
        """(tokens,) int64 each, to (tokens, hidden): the last hidden states, float32 on a CPU."""
        x: Tensor = self.norm(embed(ids, types, positions, self.word, self.token_type, self.position))
        for layer in self.layers:
            x = layer(x, attention, routing)
        return x


class PackedLayer(nn.Module):
    """One layer, with query, key and value as one product."""

    def __init__(self, weights: Weights, index: int, activation: Activation, epsilon: float, layout: Layout) -> None:
        super().__init__()
        prefix = f"encoder.layer.{index}"
        self.linears = nn.ModuleDict(
            {
                group: FrozenLinear(
                    (index, group),
                    [_linear(weights, f"{prefix}.{MODULES[target]}") for target in targets],
                    activation if group == "intermediate" else None,
                    summed=group in ("output", "ffn_output"),
                    layout=layout,
                )
                for group, targets in GROUPS.items()
            }
        )
        self.attention_norm = Norm(weights, f"{prefix}.attention.output.LayerNorm", epsilon)
        self.output_norm = Norm(weights, f"{prefix}.output.LayerNorm", epsilon)

    def groups(self) -> list[FrozenLinear]:
        """Its linears, each with its key."""
        return [linear for linear in self.linears.values() if isinstance(linear, FrozenLinear)]

    def forward(self, x: Tensor, attention: Attention, routing: Routing) -> Tensor:
        """(tokens, hidden) to the same shape."""
        linear = self.linears
        context = attention(linear["qkv"](x, routing))
        x = self.attention_norm(linear["output"](context, routing), x)
        inner = linear["intermediate"](x, routing)
        y: Tensor = self.output_norm(linear["ffn_output"](inner, routing), x)
        return y


class Norm(nn.Module):
    """Layer norm over the last dimension, perhaps of a sum."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weights: Weights, module: str, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        for name in ("weight", "bias"):
            given = weights[f"{module}.{name}"]
            self.register_buffer(name, given if given.is_cuda else given.float())

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(rows, hidden) to the same shape, on a CPU in float32. With `residual` of their sum; x may be written."""
        if x.is_cuda and residual is not None:
            from lorat.ops import triton  # a CPU has no Triton

            return triton.add_norm(x, residual, self.weight, self.bias, self.epsilon)
        return norm(x, residual, self.weight, self.bias, self.epsilon)


def embed(ids: Tensor, types: Tensor, positions: Tensor, word: Tensor, token_type: Tensor, position: Tensor) -> Tensor:
    """(tokens, hidden): what three tables of (entries, hidden) have for each token, summed; (tokens,) int64 each."""
    return F.embedding(ids, word) + F.embedding(types, token_type) + F.embedding(positions, position)


def norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """As `Norm`, in the weight's dtype."""
    total = x.to(weight.dtype)
    if residual is not None:
        total.add_(residual)
    return F.layer_norm(total, weight.shape, weight, bias, epsilon)


def _linear(weights: Weights, module: str) -> Linear:
    return Linear(weights[f"{module}.weight"], weights[f"{module}.bias"])


def _known(name: str) -> str:
    if name not in ACTIVATIONS:
        raise BaseError(f"the base's hidden_act {name!r} is unknown: it may be {', '.join(ACTIVATIONS)}")
    return name


def _activation(name: str, device: torch.device) -> Activation:
    return _gelu_on_gpu if name == "gelu" and device.type == "cuda" else partial(activate, name=name)


def _gelu_on_gpu(y: Tensor) -> Tensor:
    from lorat.ops import triton  # a CPU has no Triton

    return triton.gelu(y)
