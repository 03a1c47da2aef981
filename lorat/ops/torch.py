"""Matrix products per segment: what runs wherever torch runs."""

from collections.abc import Sequence

from torch import Tensor

from lorat.slots import Delta


def lora_delta(y: Tensor, x: Tensor, segments: Sequence[tuple[int, int, Delta]]) -> None:
    """y[start:stop, columns] += (x[start:stop] A^T)[:, ranks] B^T for each segment, in place.

    y: (rows, out), written. x: (rows, in), of y's dtype. segments: (start, stop, delta), not overlapping;
    rows outside them stay as they are. One product shrinks for all targets of a segment, one per target
    expands straight into y.
    """
    for start, stop, delta in segments:
        shrunk = x[start:stop] @ delta.a
        for part in delta.parts:
            y[start:stop, part.columns].addmm_(shrunk[:, part.ranks], part.b)
        if delta.bias is not None:
            y[start:stop] += delta.bias
