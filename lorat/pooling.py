"""From hidden states to vectors: pooling, dense layers, normalising."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lorat.recipe import Dense, Recipe, activation

Vectors = NDArray[np.float32]
_SHORTEST = 1e-12  # what a vector is divided by at least, as in torch's `normalize`


@dataclass(frozen=True)
class _Bags:
    """The tokens of each sequence that count, (sequences,) each: where it starts, the first that counts, all it has."""

    start: Tensor
    first: Tensor
    size: Tensor

    @cached_property
    def kept(self) -> Tensor:
        """How many count."""
        return self.start + self.size - self.first

    @cached_property
    def offsets(self) -> Tensor:
        """Where each begins among all that count."""
        return self.kept.cumsum(0) - self.kept

    @cached_property
    def tokens(self) -> Tensor:
        """(all that count,), their rows."""
        skipped = torch.repeat_interleave(self.first - self.offsets, self.kept)
        return torch.arange(len(skipped), device=skipped.device) + skipped


def pool(hidden: Tensor, lengths: Sequence[int], skip: Sequence[int], recipe: Recipe) -> Tensor:
    """One vector for each packed sequence, before normalising. Returns (sequences, dimensions) float32.

    hidden: (tokens, hidden), the sequences end to end. skip: leading tokens (a prompt's) that each
    sequence leaves out. Formulas as in sentence-transformers' Pooling; sums are in float32.
    """
    size = torch.tensor(lengths, device=hidden.device)
    start = size.cumsum(0) - size
    bags = _Bags(start, start + torch.minimum(torch.tensor(skip, device=hidden.device), size - 1), size)
    pooled = [_POOLERS[mode](hidden.float(), bags) for mode in recipe.pooling]
    vectors = pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)
    for dense in recipe.dense:
        vectors = _dense(vectors, dense)
    return vectors


def _cls(hidden: Tensor, bags: _Bags) -> Tensor:
    return hidden[bags.first]


def _lasttoken(hidden: Tensor, bags: _Bags) -> Tensor:
    return hidden[bags.start + bags.size - 1]


def _sum(values: Tensor, bags: _Bags, weights: Tensor | None = None) -> Tensor:
    return F.embedding_bag(bags.tokens, values, bags.offsets, mode="sum", per_sample_weights=weights)


def _mean(hidden: Tensor, bags: _Bags) -> Tensor:
    return _sum(hidden, bags) / bags.kept.unsqueeze(1)


def _mean_sqrt(hidden: Tensor, bags: _Bags) -> Tensor:
    return _sum(hidden, bags) / bags.kept.unsqueeze(1).sqrt()


def _weighted_mean(hidden: Tensor, bags: _Bags) -> Tensor:
    weights = (bags.tokens - torch.repeat_interleave(bags.start, bags.kept) + 1).to(hidden.dtype)
    before = bags.first - bags.start
    total = (bags.size * (bags.size + 1) - before * (before + 1)) // 2  # of the positions that count, from 1
    return _sum(hidden, bags, weights) / total.unsqueeze(1)


def _max(hidden: Tensor, bags: _Bags) -> Tensor:
    sequence = torch.repeat_interleave(torch.arange(len(bags.size), device=hidden.device), bags.kept)
    lowest = hidden.new_full((len(bags.size), hidden.shape[1]), float("-inf"))
    kept = hidden.index_select(0, bags.tokens)
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
        return np.ascontiguousarray(cut)
    lengths = np.sqrt(np.einsum("ij,ij->i", cut, cut, dtype=np.float64))[:, None]
    unit: Vectors = (cut / np.maximum(lengths, _SHORTEST)).astype(np.float32)
    return unit
