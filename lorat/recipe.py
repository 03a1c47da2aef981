"""How a text becomes one vector: pooling, normalise, prompts, maximum length."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Tanh": nn.Tanh,
    "Identity": nn.Identity,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "Sigmoid": nn.Sigmoid,
}


@dataclass(frozen=True)
class Dense:
    """A linear layer after pooling: weight (out, in), bias (out,) or None, then the activation."""

    weight: Tensor
    bias: Tensor | None
    activation: str


@dataclass(frozen=True)
class Recipe:
    """An embedding recipe. `max_length` counts tokens, special ones included; None: the model's own."""

    pooling: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    dense: tuple[Dense, ...] = ()
    normalize: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    max_length: int | None = None
    lower_case: bool = False

    def dimensions(self, hidden: int) -> int:
        """Numbers in a vector, of a base of this hidden size."""
        return self.dense[-1].weight.shape[0] if self.dense else hidden * len(self.pooling)

    def to_json(self) -> dict[str, Any]:
        """Its facts, for people to read."""
        return {
            "pooling": list(self.pooling),
            "normalize": self.normalize,
            "prompts": dict(self.prompts),
            "default_prompt_name": self.default_prompt_name,
            "max_length": self.max_length,
        }


def activation(name: str) -> nn.Module:
    """The activation module of a `Dense`."""
    return ACTIVATIONS[name]()
