"""Batched matrix products over tiles: what runs wherever torch runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorat.ops.tiles import tile
from lorat.slots import Delta

Segment = tuple[int, int, Delta]
_TILES = (16, 32, 64, 128)  # rows of a tile
_LONG = 512  # rows of a segment that is worth products of its own


def lora_delta(y: Tensor, x: Tensor, segments: Sequence[Segment]) -> None:
    """y[start:stop, columns] += (x[start:stop] A^T)[:, ranks] B^T for each segment, in place.

    y: (rows, out), written. x: (rows, in), of y's dtype. segments: (start, stop, delta), not overlapping;
    rows outside them stay as they are. Segments of like shape are cut into tiles of a few rows, and one batched
    product shrinks all their tiles, one per target expands them: the number of products does not grow with the
    number of adapters.
    """
    for alike in _by_shape(segments):
        if len(alike) == 1 or all(stop - start >= _LONG for start, stop, _ in alike):
            for segment in alike:
                _add_one(y, x, *segment)
        else:
            _add_tiled(y, x, alike)
    for start, stop, delta in segments:
        if delta.bias is not None:
            y[start:stop] += delta.bias


def _by_shape(segments: Iterable[Segment]) -> list[list[Segment]]:
    ordered = sorted(segments, key=lambda segment: (segment[2].shape, segment[0]))
    return [list(alike) for _, alike in groupby(ordered, key=lambda segment: segment[2].shape)]


def _add_one(y: Tensor, x: Tensor, start: int, stop: int, delta: Delta) -> None:
    shrunk = x[start:stop] @ delta.a
    for part in delta.parts:
        y[start:stop, part.columns].addmm_(shrunk[:, part.ranks], part.b)


def _add_tiled(y: Tensor, x: Tensor, segments: list[Segment]) -> None:
    tiling = _tile(tuple((start, stop) for start, stop, _ in segments), segments[0][2].a.shape[1])
    deltas = [segments[owner][2] for owner in tiling.owners]
    tiles = x.index_select(0, tiling.rows).view(len(deltas), -1, x.shape[1])
    shrunk = torch.bmm(tiles, torch.stack([delta.a for delta in deltas]))
    for index, part in enumerate(deltas[0].parts):
        expanded = torch.bmm(shrunk[:, :, part.ranks], torch.stack([delta.parts[index].b for delta in deltas]))
        added = expanded.view(-1, expanded.shape[2]).index_select(0, tiling.places)
        for start, stop, first in tiling.spans:
            y[start:stop, part.columns] += added[first : first + stop - start]


@dataclass(frozen=True)
class _Tiling:
    """Segments cut into tiles of equal size.

    owners: the segment of each tile. rows: (tiles * size,) the packed row behind each place; the last tile of a
    segment is filled up with its last row. places: (rows of the segments,) the place of each. spans: (start,
    stop, first): packed rows without a gap, and where they begin among `places`.
    """

    owners: tuple[int, ...]
    rows: Tensor
    places: Tensor
    spans: tuple[tuple[int, int, int], ...]


@lru_cache(maxsize=64)  # a batch asks at every layer, and layers adapt the same segments
def _tile(segments: tuple[tuple[int, int], ...], rank: int) -> _Tiling:
    start, stop = np.array(segments).T
    size = _best_size(stop - start, rank)
    owner, first, end = tile([(*segment, place) for place, segment in enumerate(segments)], size).T
    rows = first[:, None] + np.arange(size)
    return _Tiling(
        owners=tuple(owner.tolist()),
        rows=torch.from_numpy(np.minimum(rows, end[:, None] - 1).reshape(-1)),
        places=torch.from_numpy(np.flatnonzero(rows < end[:, None])),
        spans=_spans(segments),
    )


def _best_size(lengths: np.ndarray[Any, np.dtype[np.int64]], rank: int) -> int:
    """Rows of a tile, so that little is moved: each tile brings its rows and a copy of its adapter, `rank` rows."""
    return min(_TILES, key=lambda size: int((-(-lengths // size)).sum()) * (size + rank))


def _spans(segments: Sequence[tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    spans: list[tuple[int, int, int]] = []
    done = 0
    for start, stop in segments:
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], stop, spans[-1][2])
        else:
            spans.append((start, stop, done))
        done += stop - start
    return tuple(spans)
