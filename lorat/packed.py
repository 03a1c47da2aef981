"""PackedLayer: a BERT encoder layer over packed rows, each row with its own adapter."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lorat.linear import FrozenLinear
from lorat.routing import Routing
from lorat.slots import GROUPS

Attention = Callable[[Tensor], Tensor]
"""(tokens, 3 * hidden) to (tokens, hidden), each sequence by itself."""


class PackedLayer(nn.Module):
    """One `BertLayer` for packed rows, with query, key and value as one product.

    Takes the place of the layer it is made from: transformers' encoder loop hands it `attention` and
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
        activations = {"intermediate": layer.intermediate.intermediate_act_fn}
        self.linears = nn.ModuleDict(
            {
                group: FrozenLinear((index, group), [linears[target] for target in targets], activations.get(group))
                for group, targets in GROUPS.items()
            }
        )
        self.attention_norm = attention.output.LayerNorm
        self.output_norm = layer.output.LayerNorm

    def groups(self) -> list[FrozenLinear]:
        """Its linears, each with its key."""
        return [linear for linear in self.linears.values() if isinstance(linear, FrozenLinear)]

    def forward(self, hidden_states: Tensor, *_: Any, attention: Attention, routing: Routing, **__: Any) -> Tensor:
        """(1, tokens, hidden) to the same shape."""
        x = hidden_states[0]
        linear = self.linears
        context = attention(linear["qkv"](x, routing))
        x = self.attention_norm(linear["output"](context, routing, x))
        inner = linear["intermediate"](x, routing)
        y: Tensor = self.output_norm(linear["ffn_output"](inner, routing, x))
        return y.unsqueeze(0)
