"""LoRALinear: a frozen linear layer with one trainable low-rank adapter."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoRALinear(nn.Module):
    """y = Wx + b + B(scaling * A(dropout(x))), as in LoRA (arXiv 2106.09685, section 4.1).

    W and b are frozen and never written. A, of shape (rank, in), starts Kaiming uniform with a = sqrt(5);
    B, of shape (out, rank), starts at zero, so a new adapter changes nothing. Beside a base of half precision
    they are float32, where small steps of an optimizer are not rounded away, and so is their product.
    """

    merged: Tensor | None

    def __init__(self, linear: nn.Linear, rank: int, scaling: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        dtype = torch.promote_types(linear.weight.dtype, torch.float32)
        self.lora_A = nn.Parameter(linear.weight.new_empty(rank, linear.in_features, dtype=dtype))
        self.lora_B = nn.Parameter(linear.weight.new_empty(linear.out_features, rank, dtype=dtype))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()  # Dropout(0) would draw and copy
        self.scaling = scaling
        self.register_buffer("merged", None, persistent=False)
        self.reset_parameters()
        self.train(linear.training)

    def reset_parameters(self) -> None:
        """Draw A anew and set B to zero."""
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def train(self, mode: bool = True) -> "LoRALinear":
        """As every module's; training also drops the merged weight, which would hide what A and B learn."""
        if mode:
            self.unmerge()
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if self.merged is not None:
            return F.linear(x, self.merged, self.linear.bias)
        y: Tensor = self.linear(x)
        if x.is_meta or not torch.is_autocast_enabled(x.device.type):  # which casts by itself
            x = x.to(self.lora_A.dtype)
        low_rank = F.linear(self.dropout(x), self.lora_A) * self.scaling  # scaled where it is small
        by_rank = self.lora_B.t().contiguous()  # laid out so, its gradient takes a CPU an eighth of the time
        return (y + low_rank @ by_rank).to(y.dtype)

    @torch.no_grad()
    def merge(self) -> None:
        """Compute with W + scaling * B A, held in a tensor of its own, until `unmerge` or `train`."""
        self.merged = merged_weight(self.linear.weight, self.lora_A, self.lora_B * self.scaling)

    def unmerge(self) -> None:
        """Drop the merged weight. W was never written, so it is what it was, to the bit."""
        self.merged = None


def merged_weight(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """W + B A as a new tensor of W's dtype, summed in float32 at least. W (out, in), a (r, in), b (out, r)."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return (weight.to(dtype) + b.to(dtype) @ a.to(dtype)).to(weight.dtype)
