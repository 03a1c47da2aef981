"""The activations that a BERT's config may name as its `hidden_act`."""

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS = ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")


def activate(y: Tensor, name: str) -> Tensor:
    """By transformers' name, one of `ACTIVATIONS`; y may be written.

    oneDNN would do gelu inside the product, which takes longer in bfloat16, and as long in float32.
    """
    if name == "gelu":
        written: Tensor = torch.ops.aten.gelu_(y)
        return written
    if name == "relu":
        return y.relu_()
    if name == "tanh":
        return y.tanh_()
    if name == "silu" or name == "swish":
        return F.silu(y)
    return F.gelu(y, approximate="tanh")
