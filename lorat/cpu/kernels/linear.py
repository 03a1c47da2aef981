"""A linear layer for a block of rows: W x + b, what each row's adapter adds, and what comes next, panel by panel.

A panel is PANEL columns of W. Its sums for the block stay in the cache until they are final, so what an adapter adds
costs its products alone.
"""

from numba import njit

from lorat.cpu.kernels.adapters import add_bias, expand, prefetch_a, prefetch_b, shrink
from lorat.cpu.kernels.passes import gelu
from lorat.cpu.kernels.products import TILE_ROW, WIDEST, multiply
from lorat.cpu.kernels.vectors import OPTIONS, load, store, store_bfloat16
from lorat.layout import LANES, PANEL
from lorat.ops.table import FIELDS


@njit(**OPTIONS)
def linear(y, x, depth, width, frozen, group, block, pieces, merged, room, finish):
    """Rows of a block through one linear. x: (rows, depth) bfloat16. y: (rows, width), written by `finish`.

    frozen: the base's LINEAR. group: its number among the model's. merged: (choices, groups) addresses of panels, 0
    where the base's own are to be taken.
    """
    rows, field = block.stop - block.start, 8 * FIELDS * group
    merged_weight = merged[block.merged, group]
    weight = merged_weight if merged_weight else frozen.weight
    if not merged_weight:
        prefetch_a(block, pieces, field, depth)
    for column in range(0, width, PANEL):
        if not merged_weight:
            prefetch_b(block, pieces, field, column)
        bias, panel = frozen.bias + 4 * column, weight + 2 * depth * column
        multiply(room.tile, TILE_ROW, bias, 0, x, 2 * depth, panel, TILE_ROW, depth // 2, rows, WIDEST)
        if not merged_weight:
            if not column:  # A has come meanwhile
                shrink(block, pieces, field, x, depth, room)
            expand(block, pieces, field, column, room)
        add_bias(block, pieces, field, column, room)
        finish(y, width, column, room.tile, rows)


@njit(**OPTIONS)
def rounded(y, width, column, tile, rows):
    """A panel's sums in bfloat16."""
    for row in range(rows):
        for lane in range(0, PANEL, LANES):
            store_bfloat16(y + 2 * (row * width + column + lane), load(tile + TILE_ROW * row + 4 * lane))


@njit(**OPTIONS)
def activated(y, width, column, tile, rows):
    """gelu of a panel's sums in bfloat16."""
    for row in range(rows):
        for lane in range(0, PANEL, LANES):
            store_bfloat16(y + 2 * (row * width + column + lane), gelu(load(tile + TILE_ROW * row + 4 * lane)))


@njit(**OPTIONS)
def summed(y, width, column, tile, rows):
    """A panel's sums added to y, in float32."""
    for row in range(rows):
        for lane in range(0, PANEL, LANES):
            place = y + 4 * (row * width + column + lane)
            store(place, load(place) + load(tile + TILE_ROW * row + 4 * lane))
