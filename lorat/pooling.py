"""From hidden states to vectors: pooling, dense layers, normalising."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lorat.recipe import Dense, Recipe, activation

Vectors = np.ndarray[Any, np.dtype[np.float32]]
_SHORTEST = 1e-12  # what a vector is divided by at least, as in torch's `normalize`


def pool(hidden: Tensor, lengths: Sequence[int], skip: Sequence[int], recipe: Recipe) -> Tensor:
    """One vector for each packed sequence, before normalising. Returns (sequences, dimensions) float32.

    hidden: (tokens, hidden), the sequences end to end. skip: leading tokens (a prompt's) that each
    sequence leaves out. Formulas as in sentence-transformers' Pooling; sums are in float32.
    """
    size = torch.tensor(lengths, device=hidden.device)
    start = size.cumsum(0) - size
    first = start + torch.minimum(torch.tensor(skip, device=hidden.device), size - 1)
    pooled = [_POOLERS[mode](hidden.float(), start, first, size) for mode in recipe.pooling]
    vectors = torch.cat(pooled, dim=1)
    for dense in recipe.dense:
        vectors = _dense(vectors, dense)
    return vectors


def _cls(hidden: Tensor, start: Tensor, first: Tensor, size: Tensor) -> Tensor:
    return hidden[first]


def _lasttoken(hidden: Tensor, start: Tensor, first: Tensor, size: Tensor) -> Tensor:
    return hidden[start + size - 1]


def _rows(hidden: Tensor, start: Tensor, first: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens that count: their sequence, their position in it, their hidden states."""
    kept = start + size - first
    sequence = torch.repeat_interleave(torch.arange(len(size), device=size.device), kept)
    before = first - (kept.cumsum(0) - kept)  # of a sequence's tokens among all, and among those that count
    token = torch.arange(len(sequence), device=size.device) + before.index_select(0, sequence)
    return sequence, token - start.index_select(0, sequence), hidden.index_select(0, token)


def _sum(values: Tensor, sequence: Tensor, count: int) -> Tensor:
    return values.new_zeros(count, values.shape[1]).index_add_(0, sequence, values)


def _mean(hidden: Tensor, start: Tensor, first: Tensor, size: Tensor) -> Tensor:
    sequence, _, kept = _rows(hidden, start, first, size)
    return _sum(kept, sequence, len(size)) / (start + size - first).unsqueeze(1)


def _mean_sqrt(hidden: Tensor, start: Tensor, first: Tensor, size: Tensor) -> Tensor:
    sequence, _, kept = _rows(hidden, start, first, size)
    return _sum(kept, sequence, len(size)) / (start + size - first).unsqueeze(1).sqrt()


def _weighted_mean(hidden: Tensor, start: Tensor, first: Tensor, size: Tensor) -> Tensor:
    sequence, position, kept = _rows(hidden, start, first, size)
    weight = (position + 1).unsqueeze(1).to(kept.dtype)
    return _sum(kept * weight, sequence, len(size)) / _sum(weight, sequence, len(size))


def _max(hidden: Tensor, start: Tensor, first: Tensor, size: Tensor) -> Tensor:
    sequence, _, kept = _rows(hidden, start, first, size)
    lowest = kept.new_full((len(size), kept.shape[1]), float("-inf"))
    return lowest.scatter_reduce(0, sequence.unsqueeze(1).expand_as(kept), kept, reduce="amax")


_POOLERS = {
    "cls": _cls,
    "lasttoken": _lasttoken,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "max": _max,
}


def _dense(vectors: Tensor, dense: Dense) -> Tensor:
    bias = None if dense.bias is None else dense.bias.to(vectors)
    result: Tensor = activation(dense.activation)(F.linear(vectors, dense.weight.to(vectors), bias))
    return result


def finish(vectors: Vectors, dimensions: int | None, normalize: bool) -> Vectors:
    """Cut to `dimensions`, then divide by the Euclidean length. (n, d) to (n, min(d, dimensions)), float32."""
    cut = vectors[:, :dimensions] if dimensions else vectors
    if not normalize:
        return cut
    lengths = np.sqrt(np.einsum("ij,ij->i", cut, cut, dtype=np.float64))[:, None]
    unit: Vectors = (cut / np.maximum(lengths, _SHORTEST)).astype(np.float32)
    return unit
