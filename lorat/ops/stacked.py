"""Adapters of one shape stacked, their rows in tiles: two batched products for all of them, on a CPU in bfloat16.

What a product of one adapter takes to begin is then paid once. A small batch is quicker segment by segment, in float32.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lorat.deltas import Delta, Key
from lorat.layout import round_rows
from lorat.ops.tiles import ROWS, tile

_FEWEST = 8  # tiles

Shape = tuple[tuple[Key, tuple[object, ...]], ...]


class Tiling(NamedTuple):
    """Rows start to stop - 1 of a batch, in tiles of one adapter each.

    sources: (tiles * ROWS,) int64, the row at each place of the tiles, some row where a tile is not full.
    targets: (stop - start,) int64, each row's place. owners: whose each tile is, by number.
    """

    start: int
    stop: int
    sources: Tensor
    targets: Tensor
    owners: list[int]


class SamePart(NamedTuple):
    """What a part has in every adapter, and its B in each."""

    ranks: tuple[int, int]
    columns: tuple[int, int]
    b: list[Tensor]


class Stack(NamedTuple):
    """What adapters of one shape add to one group, for the rows of a tiling: its A in each, and its parts."""

    tiling: Tiling
    a: list[Tensor]
    parts: list[SamePart]


def shape(deltas: Mapping[Key, Delta]) -> Shape | None:
    """What the adapters of a stack have in common; None for one that is not to be stacked."""
    if any(d.bias is not None or d.a.is_cuda or d.a.dtype != torch.bfloat16 for d in deltas.values()):
        return None
    return tuple((key, tuple(part[:2] for part in delta.parts)) for key, delta in deltas.items())


def tiling(segments: Sequence[tuple[int, int]]) -> Tiling | None:
    """Segments (start, stop) one behind another, cut into tiles; None where they are too few to be stacked."""
    tiles = tile([(start, stop, owner) for owner, (start, stop) in enumerate(segments)])
    if len(tiles) < _FEWEST:
        return None
    owner, first, stop = tiles.T
    taken = np.arange(ROWS) < (stop - first)[:, None]
    filling = round_rows(len(tiles)) - len(tiles)
    sources = np.pad(np.where(taken, first[:, None] + np.arange(ROWS), first[:, None]), ((0, filling), (0, 0)), "edge")
    return Tiling(
        int(first[0]),
        int(stop[-1]),
        torch.from_numpy(sources.reshape(-1)),
        torch.from_numpy(np.flatnonzero(taken)),
        np.pad(owner, (0, filling), "edge").tolist(),
    )


def stack(tiling: Tiling, deltas: Sequence[Delta]) -> Stack:
    """The deltas of a tiling's owners, which are of one shape."""
    parts = [
        SamePart(part.ranks, part.columns, [delta.parts[place].b for delta in deltas])
        for place, part in enumerate(deltas[0].parts)
    ]
    return Stack(tiling, [delta.a for delta in deltas], parts)


def lora_delta(y: Tensor, x: Tensor, stacks: list[Stack]) -> None:
    """y[row, columns] += B (A x[row]) for each row of the stacks, in place. y (rows, out), x (rows, in)."""
    for stack in stacks:
        tiling = stack.tiling
        a = torch.stack([stack.a[owner] for owner in tiling.owners])
        rows = x.index_select(0, tiling.sources).to(a.dtype).view(len(a), -1, x.shape[1])
        shrunk = torch.bmm(rows, a)
        for part in stack.parts:
            b = torch.stack([part.b[owner] for owner in tiling.owners])
            grown = torch.bmm(shrunk[:, :, part.ranks[0] : part.ranks[1]], b).flatten(0, 1)
            columns = y[tiling.start : tiling.stop, part.columns[0] : part.columns[1]]
            columns.add_(grown.index_select(0, tiling.targets))
