"""A linear layer for a block of rows: W x + b, what each row's adapter adds, and what comes next, panel by panel.

A panel is 64 columns of W. Its sums for the block stay in the cache until they are final, so what an adapter adds costs
its products alone.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from numba import njit

from lorat.cpu.kernels.adapters import COLUMNS, TILE_ROW, add_bias, ask_for_a, ask_for_b, expand, shrink
from lorat.cpu.kernels.llvm import LANES
from lorat.cpu.kernels.passes import gelu
from lorat.cpu.kernels.products import WIDEST, multiply
from lorat.cpu.kernels.vectors import OPTIONS, load, store, store_bfloat16
from lorat.ops.table import FIELDS

ROWS = 96
"""Of a block, at most: what they have between a layer's products fits into a core's own cache."""
TILE_SIZE = ROWS * TILE_ROW
"""Bytes of a panel's sums."""


@njit(**OPTIONS)
def linear(y, x, depth, width, layer, group, block, pieces, merged, room, finish):
    """Rows of a block through one linear. x: (rows, depth) bfloat16. y: (rows, width), written by `finish`.

    layer: the LINEAR. group: its number among the model's. merged: addresses of (blocks' choices, groups) panels, 0
    where the base's own are to be taken.
    """
    rows, own, field = block.stop - block.start, merged[block.merged, group], 8 * FIELDS * group
    weight = own if own else layer.weight
    if not own:
        ask_for_a(block, pieces, field, depth)
    for column in range(0, width, COLUMNS):
        if not own:
            ask_for_b(block, pieces, field, column)
        bias, panel = layer.bias + 4 * column, weight + 2 * depth * column
        multiply(room.tile, TILE_ROW, bias, 0, x, 2 * depth, panel, TILE_ROW, depth // 2, rows, WIDEST)
        if not own:
            if not column:  # A has come meanwhile
                shrink(block, pieces, field, x, depth, room)
            expand(block, pieces, field, column, room)
        add_bias(block, pieces, field, column, room)
        finish(y, width, column, room.tile, rows)


@njit(**OPTIONS)
def rounded(y, width, column, tile, rows):
    """A panel's sums in bfloat16."""
    for row in range(rows):
        for lane in range(0, COLUMNS, LANES):
            store_bfloat16(y + 2 * (row * width + column + lane), load(tile + row * TILE_ROW + 4 * lane))


@njit(**OPTIONS)
def activated(y, width, column, tile, rows):
    """gelu of a panel's sums in bfloat16."""
    for row in range(rows):
        for lane in range(0, COLUMNS, LANES):
            store_bfloat16(y + 2 * (row * width + column + lane), gelu(load(tile + row * TILE_ROW + 4 * lane)))


@njit(**OPTIONS)
def summed(y, width, column, tile, rows):
    """A panel's sums added to y, in float32."""
    for row in range(rows):
        for lane in range(0, COLUMNS, LANES):
            place = y + 4 * (row * width + column + lane)
            store(place, load(place) + load(tile + row * TILE_ROW + 4 * lane))
