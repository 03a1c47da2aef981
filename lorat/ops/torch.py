"""Two products and a sum for each segment: what runs wherever torch runs.

On a CPU it is fastest with A and B in float32, whatever x and y are: a small product in bfloat16 lays B out each time.
"""

from collections.abc import Sequence

from torch import Tensor

from lorat.slots import Delta


def lora_delta(y: Tensor, x: Tensor, segments: Sequence[tuple[int, int, Delta]]) -> None:
    """y[start:stop, columns] += (x[start:stop] A^T)[:, ranks] B^T for each segment, in place.

    y: (rows, out), written. x: (rows, in), of y's dtype. segments: (start, stop, delta), not overlapping;
    rows outside them stay as they are. What is added is computed in the delta's dtype.
    """
    for start, stop, delta in segments:
        shrunk = x[start:stop].to(delta.a.dtype) @ delta.a
        for part in delta.parts:
            _add_product(y[start:stop, part.columns], shrunk[:, part.ranks], part.b)
        if delta.bias is not None:
            y[start:stop] += delta.bias


def _add_product(y: Tensor, shrunk: Tensor, b: Tensor) -> None:
    if y.dtype == b.dtype:
        y.addmm_(shrunk, b)
    else:
        y.add_((shrunk @ b).to(y.dtype))
