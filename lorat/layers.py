"""LoRALinear: a frozen linear layer with one trainable low-rank adapter."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoRALinear(nn.Module):
    """y = Wx + b + scaling * B(A(dropout(x))), as in LoRA (arXiv 2106.09685, section 4.1).

    W and b are frozen and never written. A, of shape (rank, in), starts Kaiming uniform with a = sqrt(5);
    B, of shape (out, rank), starts at zero, so a new adapter changes nothing.
    """

    def __init__(self, linear: nn.Linear, rank: int, scaling: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.lora_A = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        self.dropout = nn.Dropout(dropout)
        self.scaling = scaling
        self.merged: Tensor | None = None
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if self.merged is not None:
            return F.linear(x, self.merged, self.linear.bias)
        low_rank = F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B)
        y: Tensor = self.linear(x)
        return y + self.scaling * low_rank

    @torch.no_grad()
    def merge(self) -> None:
        """Compute with W + scaling * B A, held in a tensor of its own, until `unmerge`."""
        self.merged = merged_weight(self.linear.weight, self.lora_A, self.lora_B * self.scaling)

    def unmerge(self) -> None:
        """Drop the merged weight. W was never written, so it is what it was, to the bit."""
        self.merged = None


def merged_weight(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """W + B A as a new tensor of W's dtype, summed in float32. W (out, in), a (r, in), b (out, r)."""
    return (weight.float() + b.float() @ a.float()).to(weight.dtype)
