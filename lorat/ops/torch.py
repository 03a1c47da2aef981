"""Two products and a sum for each segment: what runs wherever torch runs.

In float32, whatever x, y, A and B are: a small product in bfloat16 takes longer to begin than to compute.
"""

import torch
from torch import Tensor

from lorat.deltas import Delta


def lora_delta(y: Tensor, x: Tensor, segments: list[tuple[int, int, Delta]]) -> None:
    """y[start:stop, columns] += (x[start:stop] A^T)[:, ranks] B^T for each segment, in place.

    y: (rows, out), written. x: (rows, in). segments: (start, stop, delta), not overlapping; rows outside them stay
    as they are.
    """
    for start, stop, delta in segments:
        shrunk = x[start:stop].to(torch.float32) @ delta.a.to(torch.float32)
        for part in delta.parts:
            columns = y[start:stop, part.columns[0] : part.columns[1]]
            _add_product(columns, shrunk[:, part.ranks[0] : part.ranks[1]], part.b.to(torch.float32))
        bias = delta.bias
        if bias is not None:
            y[start:stop].add_(bias)


def _add_product(y: Tensor, shrunk: Tensor, b: Tensor) -> None:
    if y.dtype == b.dtype:
        y.addmm_(shrunk, b)
    else:
        y.add_((shrunk @ b).to(y.dtype))
