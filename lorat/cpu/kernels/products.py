"""Matrix products of bfloat16, summed in float32: C = C0 + A B.

A row of A has pairs of neighbours, and of B two rows are interleaved, so that a lane multiplies and adds two at once
(`lorat.layout.pairs`). A block of C stays in registers while its sums are made.
"""

from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic

from lorat.cpu.kernels.llvm import ADDRESS, FLOATS, INT, INTS, at, dot, repeated, strided
from lorat.cpu.kernels.vectors import OPTIONS
from lorat.layout import LANES, PANEL

LINE = 4 * LANES
"""Bytes of a vector."""
TILE_ROW = 4 * PANEL
"""Bytes of a row of a panel's sums, and of a pair of rows of a panel."""
WIDEST = PANEL // LANES
"""Vectors that are multiplied together, at most."""
_MICRO_ROWS = {1: 16, 2: 12, 3: 8, 4: 6}  # by vectors: their sums, with B's vectors, fill 32 registers at most


def _micro_kernel(rows, vectors):
    """The product of so many rows of A and vectors of B: a function of addresses and strides in bytes."""

    @intrinsic
    def block(typing, c, c_stride, initial, initial_stride, a, a_stride, b, b_stride, pairs):
        return types.void(*[types.int64] * 9), lambda context, builder, signature, args: _generate(
            context, builder, args, rows, vectors
        )

    return block


def _generate(context, builder, args, rows, vectors):
    """The loop, written out for a compiler: rows * vectors sums stay in registers.

    sums[r][v] = initial[r, v]
    for pair in range(pairs):  # two neighbours of a row of A, two rows of B
        right[v] = b[pair, v]
        sums[r][v] += dot(a[r, pair] in all lanes, right[v])
    c[r, v] = sums[r][v]

    A phi is a variable of the loop: `add_incoming` gives its first value, and its next.
    """
    c, c_stride, initial, initial_stride, a, a_stride, b, b_stride, pairs = args

    def vector(row, number, kind):
        return at(builder, builder.add(row, ir.Constant(ADDRESS, LINE * number)), kind)

    outs, lefts = strided(builder, c, c_stride, rows), strided(builder, a, a_stride, rows)
    initials = strided(builder, initial, initial_stride, rows)
    starts = [[builder.load(vector(row, v, FLOATS), align=4) for v in range(vectors)] for row in initials]
    before, loop, after = builder.block, builder.append_basic_block("pair"), builder.append_basic_block("sums")
    builder.branch(loop)
    builder.position_at_end(loop)
    pair, right = builder.phi(ADDRESS), builder.phi(ADDRESS)
    totals = [[builder.phi(FLOATS) for _ in range(vectors)] for _ in range(rows)]
    rights = [builder.load(vector(right, v, INTS), align=4) for v in range(vectors)]
    offset = builder.shl(pair, ir.Constant(ADDRESS, 2))
    sums = []
    for left, row in zip(lefts, totals, strict=True):
        factor = repeated(builder, builder.load(at(builder, builder.add(left, offset), INT), align=4))
        sums.append([dot(builder, one, factor, two) for one, two in zip(row, rights, strict=True)])
    following = builder.add(pair, ir.Constant(ADDRESS, 1))
    of_rows = (turn for row in zip(totals, starts, sums, strict=True) for turn in zip(*row, strict=True))
    of_loop = (pair, ir.Constant(ADDRESS, 0), following), (right, b, builder.add(right, b_stride))
    for value, start, next_ in (*of_loop, *of_rows):
        value.add_incoming(start, before)
        value.add_incoming(next_, loop)
    builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)
    builder.position_at_end(after)
    for out, row in zip(outs, sums, strict=True):
        for v, one in enumerate(row):
            builder.store(one, vector(out, v, FLOATS), align=4)
    return context.get_dummy_value()


def _strip(vectors):
    """C of so many vectors, for any rows: blocks of as many as fit, then of 8, 4, 2 and 1.

    Eight are for one and two vectors: more have no more rows than that.
    """
    most = _MICRO_ROWS[vectors]
    full, eight, four, two, one = (_micro_kernel(rows, vectors) for rows in (most, min(8, most), 4, 2, 1))

    @njit(**OPTIONS)
    def strip(c, c_stride, initial, initial_stride, a, a_stride, b, b_stride, pairs, rows):
        row = 0
        while row < rows:
            left = rows - row
            y, i, x = c + row * c_stride, initial + row * initial_stride, a + row * a_stride
            if left >= most:
                full(y, c_stride, i, initial_stride, x, a_stride, b, b_stride, pairs)
                row += most
            elif left >= 8:
                eight(y, c_stride, i, initial_stride, x, a_stride, b, b_stride, pairs)
                row += 8
            elif left >= 4:
                four(y, c_stride, i, initial_stride, x, a_stride, b, b_stride, pairs)
                row += 4
            elif left >= 2:
                two(y, c_stride, i, initial_stride, x, a_stride, b, b_stride, pairs)
                row += 2
            else:
                one(y, c_stride, i, initial_stride, x, a_stride, b, b_stride, pairs)
                row += 1

    return strip


_one, _two, _three, _four = (_strip(vectors) for vectors in _MICRO_ROWS)


@cfunc(types.void(*[types.int64] * 11))
def _multiply(c, c_stride, initial, initial_stride, a, a_stride, b, b_stride, pairs, rows, vectors):
    done = 0
    while done < vectors:
        left, ahead = vectors - done, LINE * done
        y, i, w = c + ahead, initial + ahead, b + ahead
        if left >= 4:
            _four(y, c_stride, i, initial_stride, a, a_stride, w, b_stride, pairs, rows)
            done += 4
        elif left == 3:
            _three(y, c_stride, i, initial_stride, a, a_stride, w, b_stride, pairs, rows)
            done += 3
        elif left == 2:
            _two(y, c_stride, i, initial_stride, a, a_stride, w, b_stride, pairs, rows)
            done += 2
        else:
            _one(y, c_stride, i, initial_stride, a, a_stride, w, b_stride, pairs, rows)
            done += 1


multiply = _multiply.ctypes
"""C = C0 + A B, of any rows and any vectors of columns: addresses, and strides in bytes.

c, initial: (rows, 16 * vectors) float32, the second perhaps the first, or one row for all (stride 0). a: (rows, 2 *
pairs) bfloat16, one pair at least. b: (pairs, 16 * vectors) of two bfloat16. Compiled once and called by its address:
compiled into each function that calls it, it would take five times as long.
"""
