"""The Triton kernels of `lorat.ops.triton` for adapters: y += x A B for many of them in one launch, or in two.

Where an adapter's tensors are is data: a tile names its adapter by the address of its table (`lorat.ops.table`),
the table's entry for a linear layer holds the addresses of A, B and bias. So adapters stay where they were loaded,
and neither their number nor their ranks change the launch.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["field"])
def shrink(
    h, x, tiles, field, x_stride, width, h_rows, h_stride,
    ROWS: tl.constexpr, RANKS: tl.constexpr, DEPTH: tl.constexpr, SPAN: tl.constexpr, ALIGNED: tl.constexpr,
    LEAST: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """h[split, row, rank] = sum of x[row, k] * a[k, rank] over the split's SPAN of k, in float32.

    Program (tile, block of RANKS ranks, split). x: (rows, width), rows x_stride apart. h: (splits, h_rows, h_stride)
    float32, written only where the tile has a row and its adapter a rank. tiles: (tiles, 3) int64: the address of
    an adapter's table (0: an empty tile), first row, row to stop at. field: where the layer's entry starts in a
    table. ALIGNED: what the columns of each A are a multiple of. LEAST: adapters of fewer ranks are skipped. WIDE:
    multiply float32 copies, which is the same: the interpreter would multiply the bits of bfloat16.
    """
    tile = tiles + tl.program_id(0) * 3
    table = tl.load(tile)
    if table == 0:
        return
    entry = table.to(tiles.dtype) + field
    ranks = tl.multiple_of(tl.load(entry).to(tl.int32), ALIGNED)
    start = tl.program_id(1) * RANKS
    if (start >= ranks) | (ranks < LEAST):
        return
    first = tl.load(tile + 1)
    row = tl.arange(0, ROWS)[:, None]
    live = row < tl.load(tile + 2) - first
    rank = start + tl.arange(0, RANKS)[None, :]
    a = tl.multiple_of(tl.load(entry + 1).to(x.dtype), 16)
    x_at = x + first * x_stride + row * x_stride
    begin = tl.program_id(2) * SPAN
    end = tl.minimum(begin + SPAN, width)
    total = _times_a(x_at, live, a, ranks, rank, begin, end, width, ROWS, RANKS, DEPTH, WIDE)
    h += (tl.program_id(2) * h_rows + first) * h_stride
    tl.store(h + row * h_stride + rank, total, mask=live & (rank < ranks))


@triton.jit(do_not_specialize=["field"])
def expand(
    y, h, tiles, field, y_stride, width, h_rows, h_stride,
    ROWS: tl.constexpr, RANKS: tl.constexpr, COLUMNS: tl.constexpr, SPLITS: tl.constexpr,
    PART: tl.constexpr, PART_FIELDS: tl.constexpr, ALIGNED: tl.constexpr, LEAST: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """y[row, column] += sum of h[split, row, rank] * b[rank, column] over splits and ranks, + bias; rounded once.

    Program (tile, block of COLUMNS columns); one that finds nothing to add writes nothing. y: (rows, width), rows
    y_stride apart, changed in place. h, tiles, field, LEAST: as `shrink` takes and leaves them. PART: fields of an
    entry before the first of its three parts; PART_FIELDS: those of a part. ALIGNED: what ranks and columns of each B
    are a multiple of.
    """
    tile = tiles + tl.program_id(0) * 3
    table, first, stop = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    if table == 0:
        return
    entry = table.to(tiles.dtype) + field
    if tl.load(entry) < LEAST:
        return
    start = tl.program_id(1) * COLUMNS
    bias = tl.load(entry + 2)
    part_from, part_to = _meeting(entry + PART, start, COLUMNS, PART_FIELDS)
    if (part_from < part_to) | (bias != 0):
        column = start + tl.arange(0, COLUMNS)[None, :]
        row = tl.arange(0, ROWS)[:, None]
        live = row < stop - first
        y_at = y + first * y_stride + row * y_stride + column
        h_at = h + first * h_stride + row * h_stride
        mask = live & (column < width)
        before = tl.load(y_at, mask=mask, other=0.0)  # not needed yet: it comes while the rest is fetched
        total = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
        for part in range(part_from, part_to):
            b, left_rank, ranks, left_column, columns = _part(entry + PART + part * PART_FIELDS, y, ALIGNED)
            reached = (column >= left_column) & (column < left_column + columns)
            for rank in range(0, ranks, RANKS):
                k = rank + tl.arange(0, RANKS)
                shrunk_at = h_at + left_rank + k[None, :]
                used = live & (k < ranks)[None, :]
                shrunk = tl.load(shrunk_at, mask=used, other=0.0)
                for split in tl.static_range(1, SPLITS):
                    shrunk += tl.load(shrunk_at + split * h_rows * h_stride, mask=used, other=0.0)
                b_at = b + k[:, None] * columns + (column - left_column)
                right = tl.load(b_at, mask=(k < ranks)[:, None] & reached, other=0.0)
                total = _dot(shrunk.to(right.dtype), right, total, WIDE)
        _store(y, y_at, mask, before, total, bias, column, width)


@triton.jit(do_not_specialize=["field"])
def shrink_expand(
    y, x, tiles, field, y_stride, x_stride, width, depth,
    ROWS: tl.constexpr, RANKS: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
    PART: tl.constexpr, PART_FIELDS: tl.constexpr, ALIGNED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """What `shrink` and `expand` do to y, at once, for adapters of at most RANKS ranks at the layer; it skips others.

    Program (chunk of CHUNK columns, tile): it shrinks the tile's rows itself, and then goes through its chunk, COLUMNS
    at a time. depth: the width of x. The rest: as `shrink` and `expand` take it.
    """
    tile = tiles + tl.program_id(1) * 3
    table, first, stop = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    if table == 0:
        return
    entry = table.to(tiles.dtype) + field
    all_ranks = tl.multiple_of(tl.load(entry).to(tl.int32), ALIGNED)
    begin = tl.program_id(0) * CHUNK
    bias = tl.load(entry + 2)
    part_from, part_to = _meeting(entry + PART, begin, CHUNK, PART_FIELDS)
    if (all_ranks <= RANKS) & ((part_from < part_to) | (bias != 0)):
        row = tl.arange(0, ROWS)[:, None]
        live = row < stop - first
        a = tl.multiple_of(tl.load(entry + 1).to(x.dtype), 16)
        x_at = x + first * x_stride + row * x_stride
        rank = tl.arange(0, RANKS)
        h = _times_a(x_at, live, a, all_ranks, rank[None, :], 0, depth, depth, ROWS, RANKS, DEPTH, WIDE)
        shrunk = h.to(x.dtype.element_ty)
        y_row = y + first * y_stride + row * y_stride
        for start in tl.static_range(0, CHUNK, COLUMNS):
            column = begin + start + tl.arange(0, COLUMNS)[None, :]
            mask = live & (column < width)
            before = tl.load(y_row + column, mask=mask, other=0.0)
            total = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
            for part in range(0, 3):
                fields = entry + PART + part * PART_FIELDS
                if _meets(fields, begin + start, COLUMNS):
                    b, left_rank, ranks, left_column, columns = _part(fields, y, ALIGNED)
                    reached = (column >= left_column) & (column < left_column + columns)
                    own = (rank >= left_rank) & (rank < left_rank + ranks)
                    b_at = b + (rank - left_rank)[:, None] * columns + (column - left_column)
                    right = tl.load(b_at, mask=own[:, None] & reached, other=0.0)
                    total = _dot(shrunk, right, total, WIDE)
            _store(y, y_row + column, mask, before, total, bias, column, width)


@triton.jit
def _times_a(
    x_at, live, a, ranks, rank, begin, end, width,
    ROWS: tl.constexpr, RANKS: tl.constexpr, DEPTH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The sum of x[row, k] * a[k, rank] over k from begin to end, (ROWS, RANKS) in float32.

    x_at: where the rows start, (ROWS, 1), and `live` those that there are. rank: (1, RANKS), of `ranks` that A has.
    """
    total = tl.full((ROWS, RANKS), 0.0, tl.float32)
    for depth in range(begin, end, DEPTH):
        k = depth + tl.arange(0, DEPTH)
        inside = k < width
        left = tl.load(x_at + k[None, :], mask=live & inside[None, :], other=0.0)
        right = tl.load(a + k[:, None] * ranks + rank, mask=inside[:, None] & (rank < ranks), other=0.0)
        total = _dot(left, right, total, WIDE)
    return total


@triton.jit
def _part(fields, y, ALIGNED: tl.constexpr):
    """A part of an entry: address of B, first rank, ranks, first column, columns."""
    b = tl.multiple_of(tl.load(fields).to(y.dtype), 16)
    left_rank = tl.multiple_of(tl.load(fields + 1).to(tl.int32), ALIGNED)
    ranks = tl.multiple_of(tl.load(fields + 2).to(tl.int32), ALIGNED)
    left_column = tl.multiple_of(tl.load(fields + 3).to(tl.int32), ALIGNED)
    columns = tl.multiple_of(tl.load(fields + 4).to(tl.int32), ALIGNED)
    return b, left_rank, ranks, left_column, columns


@triton.jit
def _dot(left, right, total, WIDE: tl.constexpr):
    """total + left right, in float32."""
    if WIDE:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, total, input_precision="ieee")


@triton.jit
def _store(y, y_at, mask, before, total, bias, column, width):
    """y = before + total + bias, rounded once."""
    total += before.to(tl.float32)
    if bias != 0:
        total += tl.load(bias.to(y.dtype) + column, mask=column < width, other=0.0).to(tl.float32)
    tl.store(y_at, total.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _meeting(parts, start, COLUMNS: tl.constexpr, PART_FIELDS: tl.constexpr):
    """The first of an entry's parts that adds to any of COLUMNS columns from `start`, and the one after the last."""
    here0 = _meets(parts, start, COLUMNS)  # all asked before any is used: the loads wait together
    here1 = _meets(parts + PART_FIELDS, start, COLUMNS)
    here2 = _meets(parts + 2 * PART_FIELDS, start, COLUMNS)
    first = tl.where(here0, 0, tl.where(here1, 1, 2))
    return first, tl.where(here2, 3, tl.where(here1, 2, tl.where(here0, 1, 0)))


@triton.jit
def _meets(part, start, COLUMNS: tl.constexpr):
    """Whether a part adds to any of COLUMNS columns from `start`; one that is not there (zeros) does not."""
    left = tl.load(part + 3)
    return (start < left + tl.load(part + 4)) & (left < start + COLUMNS)
