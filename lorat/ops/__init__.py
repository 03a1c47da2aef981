"""The arithmetic of per-row adapters: one function, several ways to compute it.

`lora_delta(y, x, segments)` adds to each segment of y what its adapter adds. `reference` is the slow fp32
loop that every other way is held against; `torch` is what runs on a CPU, `triton` on a GPU. `stacked` is for
batches whose adapters a CPU computes together: `lorat.routing` decides.
"""

from torch import Tensor

from lorat.deltas import Delta
from lorat.ops.torch import lora_delta as products

__all__ = ["lora_delta"]


def lora_delta(y: Tensor, x: Tensor, segments: list[tuple[int, int, Delta]]) -> None:
    """y[row, columns] += B (A x[row]) for each row of each segment, in place; see `lorat.ops.reference`."""
    if y.is_cuda:
        from lorat.ops import triton  # a CPU has no Triton

        triton.lora_delta(y, x, segments)
    else:
        products(y, x, segments)
