"""Weights laid out once, for the matrix library or for kernels of our own.

On a CPU the library's layout is oneDNN's own blocked layout, which a plain weight would be brought into at every call.
The operators are those that torch.compile's freezing pass calls; where they are missing, or do not know the dtype,
the weight stays as it is and `F.linear` runs. Our kernels (`lorat.cpu.kernels`) multiply pairs of neighbours: they want
panels of PANEL columns, and two rows of a matrix interleaved.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

OPERATORS = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether torch was built with oneDNN's."""
LANES = 16
"""Numbers of 32 bits that a processor with AVX-512 computes at once."""
PANEL = 4 * LANES
"""Columns of a weight that our kernels multiply together."""
_LAYOUT_ROWS = 1024  # the number of rows that the layout is chosen for; it serves others as well


def lay_out(weight: Tensor) -> Tensor:
    """A weight (out, in) in the layout that `linear` is fastest with; the values are the same."""
    if not _can_lay_out(weight):
        return weight
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _LAYOUT_ROWS)
    return laid_out


def _can_lay_out(weight: Tensor) -> bool:
    return OPERATORS and weight.device.type == "cpu" and computes(weight.dtype)


def computes(dtype: torch.dtype) -> bool:
    """Whether the matrix library computes a type on this processor. Where it does not, it is many times slower."""
    if not OPERATORS:
        return dtype == torch.float32
    supported: dict[torch.dtype, Callable[[], bool]] = {
        torch.float32: torch.backends.mkldnn.is_available,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return bool(supported[dtype]())


def panels(weight: Tensor) -> Tensor:
    """A weight (out, in) as (out / PANEL, in / 2, PANEL, 2): each panel's inputs in pairs. in is even."""
    size, inputs = weight.shape
    return weight.reshape(size // PANEL, PANEL, inputs // 2, 2).permute(0, 2, 1, 3).contiguous()


def pairs(matrix: Tensor) -> Tensor:
    """A matrix (depth, columns) as (depth / 2, columns, 2), filled up with zeros to a multiple of LANES columns."""
    depth, columns = matrix.shape
    filled = F.pad(matrix, (0, -columns % LANES)) if columns % LANES else matrix
    return filled.reshape(depth // 2, 2, -1).transpose(1, 2).contiguous()


def plain(matrix: Tensor) -> Tensor:
    """The weight (out, in), or matrix (depth, columns), that was laid out.

    One of 4 dimensions are `panels`, of 3 `pairs`, whose columns of zeros stay.
    """
    if matrix.is_mkldnn:
        return matrix.to_dense()
    if matrix.dim() == 4:
        return matrix.transpose(1, 2).reshape(matrix.shape[0] * matrix.shape[2], -1)
    if matrix.dim() == 3:
        return matrix.transpose(1, 2).reshape(2 * matrix.shape[0], -1)
    return matrix


class Layout(NamedTuple):
    """How a model's tensors are laid out. weight, bias: of a linear. factor: A (in, ranks) or B (rank, out).

    factor_dtype: beside a bias of some dtype and device. joined_rank: up to so many ranks of neighbours, one product
    with zeros in it is quicker than one for each target.
    """

    weight: Callable[[Tensor], Tensor]
    bias: Callable[[Tensor], Tensor]
    factor: Callable[[Tensor], Tensor]
    factor_dtype: Callable[[Tensor], torch.dtype]
    joined_rank: int


def _library_dtype(bias: Tensor) -> torch.dtype:
    return bias.dtype if bias.is_cuda else torch.float32


LIBRARY = Layout(lay_out, Tensor.contiguous, Tensor.contiguous, _library_dtype, joined_rank=32)
"""For torch's operators."""
KERNELS = Layout(panels, Tensor.float, pairs, lambda bias: bias.dtype, joined_rank=0)
"""For kernels of our own."""


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b. x (rows, in), `weight` as `lay_out` left it, bias (out,)."""
    if weight.is_mkldnn:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return y
    return F.linear(x, weight, bias)


def round_rows(rows: int) -> int:
    """The number of rows to compute where `rows` are wanted: as many, or up to 6 % (3 at least) more.

    The matrix library makes code for every shape that it meets, a millisecond and some 600 KB each, and keeps a
    thousand: with round numbers it soon has met them all.
    """
    power = 1
    while 2 * power < rows:
        power *= 2
    step = max(4, power // 16)  # 16 steps between a power of two and the next
    return (rows + step - 1) // step * step
