"""What adapters add to a panel's sums, for the pieces of a block: rows of one adapter each.

`field`: where the linear's entry is in every adapter's table (`lorat.ops.table`), in bytes. The matrices of many
adapters fit into no cache, so they are fetched while the base's product is computed.
"""

from numba import njit

from lorat.cpu.kernels.products import LINE, TILE_ROW, WIDEST, multiply
from lorat.cpu.kernels.vectors import OPTIONS, load, load_bfloat16, load_int, prefetch, store, store_bfloat16
from lorat.layout import LANES, PANEL
from lorat.ops.table import (
    BIAS,
    FIRST_COLUMN,
    FIRST_RANK,
    PART,
    PART_COLUMNS,
    PART_FIELDS,
    PART_RANKS,
    PARTS,
    RANKS,
    A,
    B,
)


@njit(**OPTIONS)
def prefetch_a(block, pieces, field, depth):
    """Have each A fetched from memory."""
    for number in range(block.first_piece, block.stop_piece):
        entry = pieces[number].table + field
        a, size = _field(entry, A), 2 * depth * _field(entry, RANKS)
        for place in range(0, size, LINE):
            prefetch(a + place)


@njit(**OPTIONS)
def prefetch_b(block, pieces, field, column):
    """Have each B's columns of a panel fetched from memory."""
    for number in range(block.first_piece, block.stop_piece):
        for place in range(PARTS):
            part = _part(pieces[number].table + field, place)
            if _meets(part, column):
                b, stride = _columns_of_b(part, column)
                for pair in range(_field(part, PART_RANKS) // 2):
                    for line in range(0, TILE_ROW, LINE):
                        prefetch(b + stride * pair + line)


@njit(**OPTIONS)
def shrink(block, pieces, field, x, depth, room):
    """A x of each piece's rows, in bfloat16, to their place in room.shrunk. x: (rows of the block, depth) bfloat16."""
    for number in range(block.first_piece, block.stop_piece):
        piece = pieces[number]
        first, rows, entry = piece.start - block.start, piece.stop - piece.start, piece.table + field
        ranks, a, row_of_x = _field(entry, RANKS), _field(entry, A), x + 2 * depth * first
        for rank in range(0, ranks, PANEL):
            lanes, b = min(PANEL, ranks - rank), a + 4 * rank
            multiply(
                room.sums, TILE_ROW, room.zeros, 0, row_of_x, 2 * depth, b, 4 * ranks, depth // 2, rows, lanes // LANES
            )
            for row in range(rows):
                for lane in range(0, lanes, LANES):
                    place = room.shrunk + 2 * ((first + row) * room.ranks + rank + lane)
                    store_bfloat16(place, load(room.sums + TILE_ROW * row + 4 * lane))


@njit(**OPTIONS)
def expand(block, pieces, field, column, room):
    """B of what `shrink` left, added to the pieces' sums in a panel."""
    for number in range(block.first_piece, block.stop_piece):
        piece = pieces[number]
        first, rows = piece.start - block.start, piece.stop - piece.start
        for place in range(PARTS):
            part = _part(piece.table + field, place)
            if _meets(part, column):
                y, x = room.tile + TILE_ROW * first, room.shrunk + 2 * (room.ranks * first + _field(part, FIRST_RANK))
                b, stride = _columns_of_b(part, column)
                pairs = _field(part, PART_RANKS) // 2
                multiply(y, TILE_ROW, y, TILE_ROW, x, 2 * room.ranks, b, stride, pairs, rows, WIDEST)


@njit(**OPTIONS)
def add_bias(block, pieces, field, column, room):
    """The bias that an adapter gives, in bfloat16, added to the pieces' sums in a panel."""
    for number in range(block.first_piece, block.stop_piece):
        piece = pieces[number]
        bias = _field(piece.table + field, BIAS)
        if bias:
            for row in range(piece.start - block.start, piece.stop - block.start):
                for lane in range(0, PANEL, LANES):
                    place = room.tile + TILE_ROW * row + 4 * lane
                    store(place, load(place) + load_bfloat16(bias + 2 * (column + lane)))


@njit(**OPTIONS)
def _field(start, number):
    """A field of an entry, or of a part."""
    return load_int(start + 8 * number)


@njit(**OPTIONS)
def _part(entry, place):
    """Where a part of an entry starts."""
    return entry + 8 * (PART + place * PART_FIELDS)


@njit(**OPTIONS)
def _meets(part, column):
    """Whether a part adds to a panel; parts begin and end with panels."""
    first = _field(part, FIRST_COLUMN)
    return _field(part, PART_RANKS) > 0 and first <= column and column < first + _field(part, PART_COLUMNS)


@njit(**OPTIONS)
def _columns_of_b(part, column):
    """The address of B's columns of a panel, and the bytes from a pair of ranks to the next."""
    return _field(part, B) + 4 * (column - _field(part, FIRST_COLUMN)), 4 * _field(part, PART_COLUMNS)
