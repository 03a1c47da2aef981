"""The oracle: one row at a time, in float32."""

from collections.abc import Sequence

from torch import Tensor

from lorat.deltas import Delta


def lora_delta(y: Tensor, x: Tensor, segments: Sequence[tuple[int, int, Delta]]) -> None:
    """y[row, columns] += B (A x[row]) for each row of each segment, in place.

    y: (rows, out), written. x: (rows, in). segments: (start, stop, delta), not overlapping; rows outside
    them stay as they are. Any floating dtype; each row is summed in float32 and rounded once.
    """
    for start, stop, delta in segments:
        for row in range(start, stop):
            total = y[row].float()
            for part in delta.parts:
                shrunk = delta.a[:, slice(*part.ranks)].float().T @ x[row].float()
                total[slice(*part.columns)] += part.b.float().T @ shrunk
            if delta.bias is not None:
                total += delta.bias.float()
            y[row] = total.to(y.dtype)
