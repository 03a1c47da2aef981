"""Triton kernels of `lorat.ops.triton` between a layer's products and behind the last: one pass over memory each."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def _plus(a, b):
    """For sums: the interpreter knows `tl.sum` only where it was on when Triton was imported."""
    return a + b


@triton.jit
def _larger(a, b):
    """For maxima, as `_plus` for sums."""
    return tl.maximum(a, b)


@triton.jit(do_not_specialize=["epsilon"])
def add_norm(y, residual, weight, bias, rows, width, epsilon, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """y = the layer norm of y + residual, in place; sums in float32. y, residual: (rows, width), contiguous.

    Program (block of ROWS rows). COLUMNS: at least width.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = column < width
    mask = (row < rows) & inside
    at = row * width + column
    total = tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
    centred = tl.where(inside, total - tl.reduce(total, 1, _plus, keep_dims=True) / width, 0.0)
    variance = tl.reduce(centred * centred, 1, _plus, keep_dims=True) / width
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    normed = centred / tl.sqrt(variance + epsilon) * scale + shift
    tl.store(y + at, normed.to(y.dtype.element_ty), mask=mask)


@triton.jit
def gelu(y, count, SIZE: tl.constexpr):
    """y = gelu(y) = x times the normal distribution's share below x (arXiv 1606.08415), in place.

    The share by Abramowitz and Stegun's formula 7.1.26, to 8e-8: erf itself takes longer than the memory does.
    """
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    x = tl.load(y + at, mask=at < count, other=0.0).to(tl.float32)
    z = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * series * tl.exp(-z * z)  # beyond |x|
    tl.store(y + at, (x * tl.where(x < 0, tail, 1.0 - tail)).to(y.dtype.element_ty), mask=at < count)


@triton.jit
def pool(vectors, hidden, bags, stride, width, MODE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """One mode of `lorat.ops.reference.pool`, summed in float32: vectors[bag] of the rows in it.

    Program (bag, block of COLUMNS columns): it goes through the bag's rows, ROWS at a time. vectors: float32, stride
    apart. hidden: (rows, width), contiguous.
    """
    bag = bags + tl.program_id(0) * 3
    first, count, before = tl.load(bag), tl.load(bag + 1), tl.load(bag + 2)
    if MODE == "lasttoken":
        first += tl.maximum(count - 1, 0)
    rows = tl.minimum(count, 1) if MODE == "cls" or MODE == "lasttoken" else count
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    lowest: tl.constexpr = float("-inf") if MODE == "max" else 0.0
    total = tl.full((ROWS, COLUMNS), lowest, tl.float32)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)[:, None]
        values = tl.load(
            hidden + (first + row) * width + column, mask=(row < rows) & (column < width), other=lowest
        ).to(tl.float32)
        if MODE == "max":
            total = tl.maximum(total, values)
        elif MODE == "weightedmean":
            total += values * (before + row + 1).to(tl.float32)
        else:
            total += values
    size = tl.maximum(count, 1).to(tl.float32)
    if MODE == "max":
        vector = tl.reduce(total, 0, _larger, keep_dims=True)
    else:
        vector = tl.reduce(total, 0, _plus, keep_dims=True)
    if MODE == "mean":
        vector /= size
    elif MODE == "mean_sqrt_len_tokens":
        vector /= tl.sqrt(size)
    elif MODE == "weightedmean":
        vector /= size * before.to(tl.float32) + size * (size + 1) / 2
    at = vectors + tl.program_id(0) * stride + column
    tl.store(at, tl.where(count > 0, vector, 0.0), mask=column < width)
