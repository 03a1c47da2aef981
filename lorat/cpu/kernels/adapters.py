"""What adapters add to a panel's sums, for the pieces of a block: rows of one adapter each.

`field`: where the linear's entry is in every adapter's table (`lorat.ops.table`), in bytes. The matrices of many
adapters fit into no cache, so they are asked for while the base's product is computed.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from numba import njit

from lorat.cpu.kernels.llvm import LANES
from lorat.cpu.kernels.products import LINE, WIDEST, multiply
from lorat.cpu.kernels.vectors import OPTIONS, load, load_bfloat16, load_int, prefetch, store, store_bfloat16
from lorat.ops.table import PART, PART_FIELDS, PARTS

COLUMNS, TILE_ROW = WIDEST * LANES, WIDEST * LINE
"""Of a panel, and bytes of a row of its sums."""
_RANKS, _A, _BIAS = 0, 8, 16  # bytes from an entry's start
_B, _FIRST_RANK, _PART_RANKS, _LEFT, _PART_COLUMNS = (8 * place for place in range(5))  # from a part's


@njit(**OPTIONS)
def ask_for_a(block, pieces, field, depth):
    """Have each A fetched from memory."""
    for number in range(block.first, block.last):
        entry = pieces[number].table + field
        a, size = load_int(entry + _A), 2 * depth * load_int(entry + _RANKS)
        for place in range(0, size, LINE):
            prefetch(a + place)


@njit(**OPTIONS)
def ask_for_b(block, pieces, field, column):
    """Have each B's columns of a panel fetched from memory."""
    for number in range(block.first, block.last):
        for part in range(PARTS):
            fields = _part(pieces[number].table + field, part)
            if _meets(fields, column):
                stride = 4 * load_int(fields + _PART_COLUMNS)
                b = load_int(fields + _B) + 4 * (column - load_int(fields + _LEFT))
                for pair in range(load_int(fields + _PART_RANKS) // 2):
                    for place in range(0, TILE_ROW, LINE):
                        prefetch(b + stride * pair + place)


@njit(**OPTIONS)
def shrink(block, pieces, field, x, depth, room):
    """A x of each piece's rows, in bfloat16, to their place in room.shrunk."""
    for number in range(block.first, block.last):
        piece = pieces[number]
        first, rows, entry = piece.start - block.start, piece.stop - piece.start, piece.table + field
        ranks, a, given = load_int(entry + _RANKS), load_int(entry + _A), x + 2 * depth * first
        for rank in range(0, ranks, COLUMNS):
            lanes, part = min(COLUMNS, ranks - rank), a + 4 * rank
            multiply(
                room.sums, TILE_ROW, room.zeros, 0, given, 2 * depth, part, 4 * ranks, depth // 2, rows, lanes // LANES
            )
            for row in range(rows):
                for lane in range(0, lanes, LANES):
                    place = room.shrunk + 2 * ((first + row) * room.ranks + rank + lane)
                    store_bfloat16(place, load(room.sums + row * TILE_ROW + 4 * lane))


@njit(**OPTIONS)
def expand(block, pieces, field, column, room):
    """B of what `shrink` left, added to the pieces' sums in a panel."""
    for number in range(block.first, block.last):
        piece = pieces[number]
        first, rows = piece.start - block.start, piece.stop - piece.start
        for part in range(PARTS):
            fields = _part(piece.table + field, part)
            if _meets(fields, column):
                y = room.tile + TILE_ROW * first
                x = room.shrunk + 2 * (room.ranks * first + load_int(fields + _FIRST_RANK))
                b = load_int(fields + _B) + 4 * (column - load_int(fields + _LEFT))
                pairs, stride = load_int(fields + _PART_RANKS) // 2, 4 * load_int(fields + _PART_COLUMNS)
                multiply(y, TILE_ROW, y, TILE_ROW, x, 2 * room.ranks, b, stride, pairs, rows, WIDEST)


@njit(**OPTIONS)
def add_bias(block, pieces, field, column, room):
    """The bias that an adapter gives, in bfloat16, added to the pieces' sums in a panel."""
    for number in range(block.first, block.last):
        piece = pieces[number]
        bias = load_int(piece.table + field + _BIAS)
        if bias:
            for row in range(piece.start - block.start, piece.stop - block.start):
                for lane in range(0, COLUMNS, LANES):
                    place = room.tile + TILE_ROW * row + 4 * lane
                    store(place, load(place) + load_bfloat16(bias + 2 * (column + lane)))


@njit(**OPTIONS)
def _part(entry, part):
    """Where a part of an entry starts."""
    return entry + 8 * (PART + part * PART_FIELDS)


@njit(**OPTIONS)
def _meets(fields, column):
    """Whether a part adds to a panel; parts begin and end with panels."""
    left = load_int(fields + _LEFT)
    return load_int(fields + _PART_RANKS) > 0 and left <= column and column < left + load_int(fields + _PART_COLUMNS)
