"""Packed batches: sequences laid end to end, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from lorat.layout import round_rows


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
    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    kinds = (kind or (0,) * length for kind, length in zip(types, lengths, strict=True))
    filling = (0,) * (round_rows(offsets[-1]) - offsets[-1])

    def row(values: chain[int]) -> Tensor:
        return torch.tensor([*values, *filling], dtype=torch.int64).to(device)

    return PackedBatch(
        ids=row(chain.from_iterable(ids)),
        positions=row(chain.from_iterable(map(range, lengths))),
        types=row(chain.from_iterable(kinds)),
        lengths=lengths,
        offsets=tuple(offsets),
    )
