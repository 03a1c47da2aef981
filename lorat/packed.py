"""PackedLayer: a BERT encoder layer over packed rows, each row with its own adapter."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorat.ops import lora_delta
from lorat.packing import PackedBatch
from lorat.routing import Key, Routing
from lorat.slots import GROUPS


class FrozenLinear(nn.Module):
    """Weight (out, in) and bias (out,) that are never written; the adapters come with each call."""

    def __init__(self, key: Key, linears: list[nn.Linear]) -> None:
        super().__init__()
        self.key = key
        self.weight = _frozen([linear.weight for linear in linears])
        self.bias = _frozen([linear.bias for linear in linears])

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """(rows, in) to (rows, out): Wx + b, plus what each segment's adapter adds."""
        merged = routing.merged(self.key)
        y = self._with_merged(x, merged) if merged else F.linear(x, self.weight, self.bias)
        lora_delta(y, x, routing.deltas(self.key))
        return y

    def _with_merged(self, x: Tensor, merged: list[tuple[int, int, Tensor, Tensor | None]]) -> Tensor:
        """Segments with a merged weight are one product each; what lies between them is the base's."""
        y = x.new_empty(x.shape[0], self.weight.shape[0])
        done = 0
        for start, stop, weight, extra in merged:
            y[done:start] = F.linear(x[done:start], self.weight, self.bias)
            y[start:stop] = F.linear(x[start:stop], weight, self.bias)
            if extra is not None:
                y[start:stop] += extra
            done = stop
        y[done:] = F.linear(x[done:], self.weight, self.bias)
        return y


def _frozen(tensors: list[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat([tensor.detach() for tensor in tensors]), requires_grad=False)


class PackedLayer(nn.Module):
    """One `BertLayer` for packed rows, with query, key and value as one product.

    Takes the place of the layer it is made from: transformers' encoder loop hands it `batch` and
    `routing` as keyword arguments.
    """

    def __init__(self, layer: Any, index: int) -> None:
        super().__init__()
        attention = layer.attention
        linears = {
            "query": attention.self.query,
            "key": attention.self.key,
            "value": attention.self.value,
            "output": attention.output.dense,
            "intermediate": layer.intermediate.dense,
            "ffn_output": layer.output.dense,
        }
        self.linears = nn.ModuleDict(
            {
                group: FrozenLinear((index, group), [linears[target] for target in targets])
                for group, targets in GROUPS.items()
            }
        )
        self.heads: int = attention.self.num_attention_heads
        self.attention_norm = attention.output.LayerNorm
        self.activation = layer.intermediate.intermediate_act_fn
        self.output_norm = layer.output.LayerNorm

    def groups(self) -> list[FrozenLinear]:
        """Its linears, each with its key."""
        return [linear for linear in self.linears.values() if isinstance(linear, FrozenLinear)]

    def forward(self, hidden_states: Tensor, *_: Any, batch: PackedBatch, routing: Routing, **__: Any) -> Tensor:
        """(1, tokens, hidden) to the same shape."""
        x = hidden_states[0]
        linear = self.linears
        context = self._attend(linear["qkv"](x, routing), batch)
        x = self.attention_norm(linear["output"](context, routing) + x)
        inner = self.activation(linear["intermediate"](x, routing))
        y: Tensor = self.output_norm(linear["ffn_output"](inner, routing) + x)
        return y.unsqueeze(0)

    def _attend(self, qkv: Tensor, batch: PackedBatch) -> Tensor:
        """Each sequence attends to itself alone. qkv (tokens, 3 * hidden) to (tokens, hidden)."""
        tokens, width = qkv.shape[0], qkv.shape[1] // 3
        context = qkv.new_empty(tokens, width)
        for start, count, length in batch.runs:
            rows = slice(start, start + count * length)
            shape = (count, length, 3, self.heads, width // self.heads)
            query, key, value = qkv[rows].view(shape).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(query, key, value)
            context[rows] = attended.transpose(1, 2).reshape(-1, width)
        return context
