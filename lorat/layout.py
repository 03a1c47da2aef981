"""Weights laid out once for the matrix library.

On a CPU the layout is oneDNN's own blocked layout, which a plain weight would be brought into at every call. The
operators are those that torch.compile's freezing pass calls; where they are missing, or do not know the dtype,
the weight stays as it is and `F.linear` runs.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

OPERATORS = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether torch was built with oneDNN's."""
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


def plain(weight: Tensor) -> Tensor:
    """The weight (out, in) that was laid out."""
    return weight.to_dense() if weight.is_mkldnn else weight


def linear(x: Tensor, weight: Tensor, bias: Tensor, plus: Tensor | None = None) -> Tensor:
    """x W^T + b + plus. x (rows, in), `weight` as `lay_out` left it, bias (out,), plus (rows, out)."""
    if weight.is_mkldnn:
        return _laid_out_linear(x, weight, bias, plus)
    y = F.linear(x, weight, bias)
    return y if plus is None else y.add_(plus)


def _laid_out_linear(x: Tensor, weight: Tensor, bias: Tensor, plus: Tensor | None) -> Tensor:
    if plus is None:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    else:  # added before the product is rounded
        y = torch.ops.mkldnn._linear_pointwise(x, plus, weight, bias, "add")
    return y


def round_rows(rows: int) -> int:
    """The number of rows (or tiles) to compute where `rows` are wanted: as many, or up to 6 % (3 at least) more.

    The matrix library makes code for every shape that it meets, a millisecond and some 600 KB each, and keeps a
    thousand: with round numbers it soon has met them all.
    """
    power = 1
    while 2 * power < rows:
        power *= 2
    step = max(4, power // 16)  # 16 steps between a power of two and the next
    return (rows + step - 1) // step * step
