"""The Triton kernels of `lorat.ops.triton` for what lies between a layer's products, each in one pass over memory."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def _plus(a, b):
    """For sums: the interpreter knows `tl.sum` only where it was on when Triton was imported."""
    return a + b


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
