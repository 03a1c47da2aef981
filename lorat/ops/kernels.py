"""The Triton kernels of `lorat.ops.triton`: x A^T for many adapters in one launch, then B of that in another.

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
    WIDE: tl.constexpr,
):  # fmt: skip
    """h[split, row, rank] = sum of x[row, k] * a[k, rank] over the split's SPAN of k, in float32.

    Program (tile, block of RANKS ranks, split). x: (rows, width), rows x_stride apart. h: (splits, h_rows, h_stride)
    float32, written only where the tile has a row and its adapter a rank. tiles: (tiles, 3) int64: the address of
    an adapter's table (0: an empty tile), first row, row to stop at. field: where the layer's entry starts in a
    table. ALIGNED: what the columns of each A are a multiple of. WIDE: multiply float32 copies, which is the same: the
    interpreter would multiply the bits of bfloat16.
    """
    tile = tiles + tl.program_id(0) * 3
    table = tl.load(tile)
    if table == 0:
        return
    entry = table.to(tiles.dtype) + field
    ranks = tl.multiple_of(tl.load(entry).to(tl.int32), ALIGNED)
    start = tl.program_id(1) * RANKS
    if start >= ranks:
        return
    first = tl.load(tile + 1)
    row = tl.arange(0, ROWS)
    live = row[:, None] < tl.load(tile + 2) - first
    rank = start + tl.arange(0, RANKS)[None, :]
    used = rank < ranks
    a = tl.multiple_of(tl.load(entry + 1).to(x.dtype), 16)
    x += first * x_stride
    begin = tl.program_id(2) * SPAN
    total = tl.full((ROWS, RANKS), 0.0, tl.float32)
    for depth in range(begin, tl.minimum(begin + SPAN, width), DEPTH):
        k = depth + tl.arange(0, DEPTH)
        inside = k < width
        left = tl.load(x + row[:, None] * x_stride + k[None, :], mask=live & inside[None, :], other=0.0)
        right = tl.load(a + k[:, None] * ranks + rank, mask=inside[:, None] & used, other=0.0)
        if WIDE:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision="ieee")
    h += (tl.program_id(2) * h_rows + first) * h_stride
    tl.store(h + row[:, None] * h_stride + rank, total, mask=live & used)


@triton.jit(do_not_specialize=["field"])
def expand(
    y, h, tiles, field, y_stride, width, h_rows, h_stride,
    ROWS: tl.constexpr, RANKS: tl.constexpr, COLUMNS: tl.constexpr, SPLITS: tl.constexpr,
    PARTS: tl.constexpr, PART: tl.constexpr, ALIGNED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """y[row, column] += sum of h[split, row, rank] * b[rank, column] over splits and ranks, + bias; rounded once.

    Program (tile, block of COLUMNS columns); one that finds nothing to add writes nothing. y: (rows, width), rows
    y_stride apart, changed in place. h, tiles, field: as `shrink` takes and leaves them. PARTS: how many parts an
    entry has; PART: its fields before the first. ALIGNED: what ranks and columns of each B are a multiple of.
    """
    tile = tiles + tl.program_id(0) * 3
    table = tl.load(tile)
    if table == 0:
        return
    entry = table.to(tiles.dtype) + field
    if tl.load(entry) == 0:
        return
    start = tl.program_id(1) * COLUMNS
    column = start + tl.arange(0, COLUMNS)[None, :]
    first = tl.load(tile + 1)
    row = tl.arange(0, ROWS)[:, None]
    live = row < tl.load(tile + 2) - first
    h += first * h_stride
    bias = tl.load(entry + 2)
    changed = bias != 0
    total = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for part in tl.static_range(PARTS):
        place = entry + PART + 5 * part
        left_column = tl.multiple_of(tl.load(place + 3).to(tl.int32), ALIGNED)
        columns = tl.multiple_of(tl.load(place + 4).to(tl.int32), ALIGNED)
        here = (start < left_column + columns) & (left_column < start + COLUMNS)
        changed = changed | here
        if here:
            b = tl.multiple_of(tl.load(place).to(y.dtype), 16)
            left_rank = tl.multiple_of(tl.load(place + 1).to(tl.int32), ALIGNED)
            ranks = tl.load(place + 2).to(tl.int32)
            reached = (column >= left_column) & (column < left_column + columns)
            for rank in range(0, ranks, RANKS):
                k = rank + tl.arange(0, RANKS)
                h_at = h + row * h_stride + left_rank + k[None, :]
                used = live & (k < ranks)[None, :]
                shrunk = tl.full((ROWS, RANKS), 0.0, tl.float32)
                for split in tl.static_range(SPLITS):
                    shrunk += tl.load(h_at + split * h_rows * h_stride, mask=used, other=0.0)
                b_at = b + k[:, None] * columns + (column - left_column)
                right = tl.load(b_at, mask=(k < ranks)[:, None] & reached, other=0.0)
                left = shrunk.to(right.dtype)
                if WIDE:
                    left, right = left.to(tl.float32), right.to(tl.float32)
                total = tl.dot(left, right, total, input_precision="ieee")
    if changed:
        y_at = y + first * y_stride + row * y_stride + column
        mask = live & (column < width)
        total += tl.load(y_at, mask=mask, other=0.0).to(tl.float32)
        if bias != 0:
            total += tl.load(bias.to(y.dtype) + column, mask=column < width, other=0.0).to(tl.float32)
        tl.store(y_at, total.to(y.dtype.element_ty), mask=mask)
