"""A linear layer for a block of rows: W x + b, what each row's adapter adds, and what comes next, panel by panel.

A panel is 64 columns of W. Its sums for the block stay in the cache until they are final, so what an adapter adds costs
its products alone.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from numba import njit

from lorat.cpu.kernels.llvm import LANES
from lorat.cpu.kernels.passes import gelu
from lorat.cpu.kernels.products import LINE, WIDEST, multiply
from lorat.cpu.kernels.vectors import OPTIONS, load, load_bfloat16, load_int, store, store_bfloat16
from lorat.ops.table import FIELDS, PART, PART_FIELDS, PARTS

ROWS = 96
"""Of a block, at most: what they have between a layer's products fits into a core's own cache."""
_COLUMNS, _TILE = WIDEST * LANES, WIDEST * LINE  # of a panel; bytes of a row of its sums
TILE_SIZE = ROWS * _TILE


@njit(**OPTIONS)
def linear(y, x, depth, width, layer, group, block, pieces, merged, room, finish):
    """Rows of a block through one linear. x: (rows, depth) bfloat16. y: (rows, width), written by `finish`.

    layer: the LINEAR. group: its number among the model's. merged: addresses of (blocks' choices, groups) panels, 0
    where the base's own are to be taken.
    """
    rows, own = block.stop - block.start, merged[block.merged, group]
    weight = own if own else layer.weight
    field = 8 * FIELDS * group
    if not own:
        for number in range(block.first, block.last):
            piece = pieces[number]
            _shrink(x, depth, piece.table + field, piece.start - block.start, piece.stop - piece.start, room)
    for column in range(0, width, _COLUMNS):
        bias, panel = layer.bias + 4 * column, weight + 2 * depth * column
        multiply(room.tile, _TILE, bias, 0, x, 2 * depth, panel, _TILE, depth // 2, rows, WIDEST)
        for number in range(block.first, block.last):
            piece = pieces[number]
            first, count = piece.start - block.start, piece.stop - piece.start
            if not own:
                _expand(piece.table + field, column, first, count, room)
            _add_bias(piece.table + field, column, first, count, room)
        finish(y, width, column, room.tile, rows)


@njit(**OPTIONS)
def rounded(y, width, column, tile, rows):
    """A panel's sums in bfloat16."""
    for row in range(rows):
        for lane in range(0, _COLUMNS, LANES):
            store_bfloat16(y + 2 * (row * width + column + lane), load(tile + row * _TILE + 4 * lane))


@njit(**OPTIONS)
def activated(y, width, column, tile, rows):
    """gelu of a panel's sums in bfloat16."""
    for row in range(rows):
        for lane in range(0, _COLUMNS, LANES):
            store_bfloat16(y + 2 * (row * width + column + lane), gelu(load(tile + row * _TILE + 4 * lane)))


@njit(**OPTIONS)
def summed(y, width, column, tile, rows):
    """A panel's sums added to y, in float32."""
    for row in range(rows):
        for lane in range(0, _COLUMNS, LANES):
            place = y + 4 * (row * width + column + lane)
            store(place, load(place) + load(tile + row * _TILE + 4 * lane))


@njit(**OPTIONS)
def _shrink(x, depth, entry, first, rows, room):
    """A x of a piece's rows, in bfloat16, to their place in room.shrunk."""
    ranks, a = load_int(entry), load_int(entry + 8)
    for rank in range(0, ranks, _COLUMNS):
        vectors = min(_COLUMNS, ranks - rank) // LANES
        row = x + 2 * depth * first
        multiply(room.tile, _TILE, room.zeros, 0, row, 2 * depth, a + 4 * rank, 4 * ranks, depth // 2, rows, vectors)
        for row in range(rows):
            for lane in range(0, vectors * LANES, LANES):
                place = room.shrunk + 2 * ((first + row) * room.ranks + rank + lane)
                store_bfloat16(place, load(room.tile + row * _TILE + 4 * lane))


@njit(**OPTIONS)
def _expand(entry, column, first, rows, room):
    """B of what `_shrink` left, added to a piece's sums in a panel."""
    for part in range(PARTS):
        fields = entry + 8 * (PART + part * PART_FIELDS)
        b, rank, ranks = load_int(fields), load_int(fields + 8), load_int(fields + 16)
        left, columns = load_int(fields + 24), load_int(fields + 32)
        if ranks and left <= column and column < left + columns:
            y, x = room.tile + first * _TILE, room.shrunk + 2 * (first * room.ranks + rank)
            right = b + 4 * (column - left)
            multiply(y, _TILE, y, _TILE, x, 2 * room.ranks, right, 4 * columns, ranks // 2, rows, WIDEST)


@njit(**OPTIONS)
def _add_bias(entry, column, first, rows, room):
    bias = load_int(entry + 16)
    if bias:
        for row in range(first, first + rows):
            for lane in range(0, _COLUMNS, LANES):
                place = room.tile + row * _TILE + 4 * lane
                store(place, load(place) + load_bfloat16(bias + 2 * (column + lane)))
