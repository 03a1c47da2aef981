"""Packed batches: sequences laid end to end, without padding."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorat.layout import round_rows

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class PackedBatch:
    """What a BERT takes for sequences laid end to end, and tokens of no sequence behind them.

    ids, positions, types: (tokens,) int64; positions restart with each sequence.
    lengths: tokens of each sequence. offsets: where each starts, and the end (sequences + 1).
    """

    ids: Tensor
    positions: Tensor
    types: Tensor
    lengths: tuple[int, ...]
    offsets: tuple[int, ...]


def pack(
    ids: Sequence[Sequence[int]], types: Sequence[Sequence[int] | None], device: torch.device | str = "cpu"
) -> PackedBatch:
    """Lay sequences end to end, in the order given, filled up to a round number of tokens (see `round_rows`).

    `types` may hold None for all zeros.
    """
    lengths = tuple(len(sequence) for sequence in ids)
    offsets = [0, *accumulate(lengths)]
    size = offsets[-1]
    filled = round_rows(size)

    def row(values: Integers) -> Tensor:
        row = np.zeros(filled, dtype=np.int64)
        row[:size] = values
        return torch.from_numpy(row).to(device)

    return PackedBatch(
        ids=row(joined(ids, size)),
        positions=row(positions(np.array(lengths, dtype=np.int64))),
        types=row(token_types(types, lengths)),
        lengths=lengths,
        offsets=tuple(offsets),
    )


def positions(lengths: Integers) -> Integers:
    """(tokens,): where each token of packed sequences stands in its own."""
    return np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)


def token_types(types: Sequence[Sequence[int] | None], lengths: Sequence[int]) -> Integers:
    """(tokens,): of packed sequences, None for one of zeros."""
    if not any(types):
        return np.zeros(sum(lengths), dtype=np.int64)
    rows = (own or (0,) * length for own, length in zip(types, lengths, strict=True))
    return joined(rows, sum(lengths))


def joined(sequences: Iterable[Sequence[int]], size: int) -> Integers:
    """(size,): numbers of sequences, one behind another."""
    return np.fromiter(chain.from_iterable(sequences), np.int64, size)
