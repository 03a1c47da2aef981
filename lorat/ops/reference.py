"""The oracle: one row or one text at a time, in float32."""

from collections.abc import Sequence

import torch
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


def pool(hidden: Tensor, bags: Tensor, modes: Sequence[str]) -> Tensor:
    """Vectors of texts by pooling modes (`lorat.recipe.POOLING_MODES`), side by side: (bags, modes * width) float32.

    hidden: (rows, width). bags: (bags, 3) int64, for each text the first row that counts, how many do, and how many
    are left out before them; one of no rows is zeros. Formulas as in sentence-transformers' Pooling.
    """
    vectors = hidden.new_zeros((len(bags), len(modes), hidden.shape[1]), dtype=torch.float32)
    for vector, (first, count, before) in zip(vectors, bags.tolist(), strict=True):
        if count:
            rows = hidden[first : first + count].float()
            position = torch.arange(before + 1, before + count + 1, device=rows.device).unsqueeze(1)
            ways = {
                "cls": rows[0],
                "lasttoken": rows[-1],
                "max": rows.amax(0),
                "mean": rows.mean(0),
                "mean_sqrt_len_tokens": rows.sum(0) / count**0.5,
                "weightedmean": (rows * position).sum(0) / position.sum(),
            }
            vector.copy_(torch.stack([ways[mode] for mode in modes]))
    return vectors.flatten(1)
