"""The encoder on a CPU: embeddings and layers in one call.

A forward pass of many operations takes Python's lock back after each of them, and beside an event loop waits for it
each time. TorchScript runs all of them without Python; the arithmetic is that of `PackedBert`, to the bit.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lorat.activation import activate
from lorat.attention import BlockAttention, Blocks, attend
from lorat.deltas import Delta
from lorat.layout import OPERATORS
from lorat.linear import products
from lorat.ops.torch import lora_delta
from lorat.packed import Norm, PackedBert, PackedLayer, embed, norm
from lorat.packing import PackedBatch
from lorat.routing import Merged, Routing


class RoutedLinear(NamedTuple):
    """A group's weight, laid out, and bias, with what the adapters of a batch change there."""

    weight: Tensor
    bias: Tensor
    merged: list[Merged]
    deltas: list[tuple[int, int, Delta]]


class Scale(NamedTuple):
    """A norm's."""

    weight: Tensor
    bias: Tensor


class Embeddings(NamedTuple):
    """The tables of words, positions and token types (entries, hidden), and their norm."""

    word: Tensor
    position: Tensor
    token_type: Tensor
    norm: Scale


class RoutedLayer(NamedTuple):
    """One layer."""

    qkv: RoutedLinear
    output: RoutedLinear
    attention_norm: Scale
    intermediate: RoutedLinear
    ffn_output: RoutedLinear
    output_norm: Scale


class Inputs(NamedTuple):
    """What a batch has of its tokens, (tokens,) int64 each."""

    ids: Tensor
    positions: Tensor
    types: Tensor


class Encoder:
    """The base on a CPU, for batches of any adapters."""

    def __init__(self, model: PackedBert) -> None:
        self._model = model
        self._embeddings = Embeddings(model.word, model.position, model.token_type, _scale(model.norm))

    def __call__(self, batch: PackedBatch, routing: Routing) -> Tensor:
        """(tokens, hidden) float32: the last hidden states of a packed batch, those of no sequence as well."""
        model = self._model
        blocks = BlockAttention(batch.lengths, model.heads, model.device, model.dtype, len(batch.ids)).blocks
        inputs = Inputs(batch.ids, batch.positions, batch.types)
        layers = [_routed(layer, routing) for layer in model.layers if isinstance(layer, PackedLayer)]
        hidden: Tensor = _encode(inputs, blocks, self._embeddings, layers, model.activation, model.norm.epsilon)
        return hidden


def _routed(layer: PackedLayer, routing: Routing) -> RoutedLayer:
    qkv, output, intermediate, ffn_output = (
        RoutedLinear(
            linear.laid_out,
            linear.bias,
            routing.merged(linear.key),
            routing.deltas(linear.key),
        )
        for linear in layer.groups()
    )
    norms = _scale(layer.attention_norm), _scale(layer.output_norm)
    return RoutedLayer(qkv, output, norms[0], intermediate, ffn_output, norms[1])


def _scale(norm: Norm) -> Scale:
    return Scale(norm.weight, norm.bias)


def encode(
    inputs: Inputs, blocks: Blocks, table: Embeddings, layers: list[RoutedLayer], activation: str, epsilon: float
) -> Tensor:
    """(tokens, hidden) float32: the last hidden states."""
    x = embed(inputs.ids, inputs.types, inputs.positions, table.word, table.token_type, table.position)
    x = norm(x, None, table.norm.weight, table.norm.bias, epsilon)
    for layer in layers:
        context = attend(_linear(x, layer.qkv), blocks)
        y = _linear(context, layer.output, summed=True)
        x = norm(y, x, layer.attention_norm.weight, layer.attention_norm.bias, epsilon)
        inner = activate(_linear(x, layer.intermediate), activation)
        y = _linear(inner, layer.ffn_output, summed=True)
        x = norm(y, x, layer.output_norm.weight, layer.output_norm.bias, epsilon)
    return x


def _linear(x: Tensor, linear: RoutedLinear, summed: bool = False) -> Tensor:
    y = products(x.to(linear.bias.dtype), linear.weight, linear.bias, linear.merged, summed)
    lora_delta(y, x, linear.deltas)
    return y


def _one_call() -> Callable[..., Tensor]:
    """`encode` without Python; as it is where torch has no TorchScript (it is deprecated), or none of oneDNN."""
    if not (OPERATORS and hasattr(torch.jit, "script")):
        return encode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled: Callable[..., Tensor] = torch.jit.script(encode)
    return compiled


_encode = _one_call()
