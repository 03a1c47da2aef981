"""Adapters of one shape stacked, their rows in tiles: two batched products for all of them, on a CPU in bfloat16.

What a product of one adapter takes to begin is then paid once. A small batch is quicker segment by segment, in float32.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lorat.deltas import Delta, Key, gapless
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
    """What a part has in every adapter, and its B for each tile."""

    ranks: tuple[int, int]
    columns: tuple[int, int]
    b: list[Tensor]


class Stack(NamedTuple):
    """What adapters of one shape add to one group, for the rows of a tiling: its A for each tile, and its parts.

    gapless: whether the parts' columns are neighbours.
    """

    tiling: Tiling
    a: list[Tensor]
    parts: list[SamePart]
    gapless: bool


def shape(deltas: Mapping[Key, Delta]) -> Shape | None:
    """What the adapters of a stack have in common; None for one that is not to be stacked."""
    if any(d.bias is not None or d.a.is_cuda or d.a.dtype != torch.bfloat16 for d in deltas.values()):
        return None
    return _one(tuple((key, tuple(part[:2] for part in delta.parts)) for key, delta in deltas.items()))


@lru_cache(maxsize=1024)
def _one(shape: Shape) -> Shape:
    """The same object for equal shapes: every batch compares them."""
    return shape


def tiling(segments: Sequence[tuple[int, int]]) -> Tiling | None:
    """Segments (start, stop) one behind another, cut into tiles; None where they are too few to be stacked."""
    tiles = tile([(start, stop, owner) for owner, (start, stop) in enumerate(segments)])
    if len(tiles) < _FEWEST:
        return None
    place = np.arange(ROWS)
    _, first, stop = tiles.T
    targets = np.flatnonzero(place < (stop - first)[:, None])
    filled = tiles[np.minimum(np.arange(round_rows(len(tiles))), len(tiles) - 1)]  # up with the last one
    sources = np.minimum(filled[:, 1:2] + place, filled[:, 2:] - 1)
    return Tiling(
        int(first[0]),
        int(stop[-1]),
        torch.from_numpy(sources.reshape(-1)),
        torch.from_numpy(targets),
        filled[:, 0].tolist(),
    )


def stack(tiling: Tiling, deltas: Sequence[Delta]) -> Stack:
    """The deltas of a tiling's owners, which are of one shape."""
    owners = [deltas[owner] for owner in tiling.owners]
    parts = [
        SamePart(part.ranks, part.columns, [delta.parts[place].b for delta in owners])
        for place, part in enumerate(deltas[0].parts)
    ]
    return Stack(tiling, [delta.a for delta in owners], parts, gapless(deltas[0].parts))


def fills(stacks: list[Stack], rows: int, columns: int) -> bool:
    """Whether one stack adds something to all rows, from the first column to the last."""
    if len(stacks) != 1:
        return False
    tiling, parts = stacks[0].tiling, stacks[0].parts
    return tiling.start == 0 and tiling.stop == rows and parts[0].columns[0] == 0 and parts[-1].columns[1] == columns


def product(x: Tensor, stack: Stack) -> Tensor:
    """B (A x[row]) for each row of a stack, from its parts' first column to their last. x (rows, in)."""
    a = torch.stack(stack.a)
    rows = x.index_select(0, stack.tiling.sources).to(a.dtype).view(len(a), -1, x.shape[1])
    shrunk = torch.bmm(rows, a)
    first, last = stack.parts[0].columns[0], stack.parts[-1].columns[1]
    size = [len(a), rows.shape[1], last - first]
    grown = torch.empty(size, dtype=a.dtype) if stack.gapless else torch.zeros(size, dtype=a.dtype)
    for part in stack.parts:
        columns = grown[:, :, part.columns[0] - first : part.columns[1] - first]
        torch.bmm(shrunk[:, :, part.ranks[0] : part.ranks[1]], torch.stack(part.b), out=columns)
    return grown.flatten(0, 1).index_select(0, stack.tiling.targets)


def lora_delta(y: Tensor, x: Tensor, stacks: list[Stack]) -> None:
    """y[row, columns] += B (A x[row]) for each row of the stacks, in place. y (rows, out), x (rows, in)."""
    for stack in stacks:
        rows = y[stack.tiling.start : stack.tiling.stop]
        rows[:, stack.parts[0].columns[0] : stack.parts[-1].columns[1]].add_(product(x, stack))
