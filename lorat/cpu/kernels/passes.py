"""What stands between the products of a layer, row by row: exponentials, gelu, layer norm."""

import math

import numpy as np
from numba import njit

from lorat.cpu.kernels.vectors import (
    OPTIONS,
    fma,
    larger,
    load,
    load_bfloat16,
    power_of_two,
    root,
    splat,
    store,
    store_bfloat16,
    total,
)
from lorat.layout import LANES

_f = np.float32
# e**x = 2**whole * 2**rest. A float32 of 1.5 * 2**23 has no digits after the point: to add it rounds. 2**-126 is the
# least normal number. Taylor's series of 2**rest for a rest of 0.5 at most is cut where bfloat16 sees nothing more.
_LOG2_E, _LEAST, _ROUNDING = _f(math.log2(math.e)), _f(-126), _f(1.5 * 2**23)
_E1, _E2, _E3, _E4, _E5 = (_f(math.log(2) ** n / math.factorial(n)) for n in range(1, 6))
# erf by 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions, 1964: within 1.5e-7
_P = _f(0.3275911 / math.sqrt(2))
_A1, _A2, _A3, _A4, _A5 = _f(0.254829592), _f(-0.284496736), _f(1.421413741), _f(-1.453152027), _f(1.061405429)
_ZERO, _HALF, _ONE, _INFINITY, _NAN = _f(0), _f(0.5), _f(1), _f(math.inf), _f(math.nan)


@njit(**OPTIONS)
def exponential(x):
    """e to the power of x, for x of 0 at most, within 5e-6 of itself, or less than 2e-38; NaN stays."""
    power = larger(splat(_LEAST), x * splat(_LOG2_E))
    whole = power + splat(_ROUNDING)
    rest = power - (whole - splat(_ROUNDING))
    series = fma(rest, splat(_E5), splat(_E4))
    series = fma(rest, series, splat(_E3))
    series = fma(rest, series, splat(_E2))
    series = fma(rest, series, splat(_E1))
    series = fma(rest, series, splat(_ONE))
    return series * power_of_two(whole)


@njit(**OPTIONS)
def gelu(x):
    """The exact gelu, x (1 + erf(x / sqrt(2))) / 2, within 1e-6; NaN stays."""
    size = larger(splat(_ZERO) - x, x)
    t = splat(_ONE) / fma(size, splat(_P), splat(_ONE))
    series = fma(t, splat(_A5), splat(_A4))
    series = fma(t, series, splat(_A3))
    series = fma(t, series, splat(_A2))
    series = fma(t, series, splat(_A1))
    square = x * x * splat(-_HALF)
    return larger(splat(_ZERO), x) - size * splat(_HALF) * t * series * exponential(square)


@njit(**OPTIONS)
def norm(x, rounded, weight, bias, width, epsilon):
    """Layer norm of a row of `width` float32 in place, and the same in bfloat16."""
    sums = splat(_ZERO)
    for column in range(0, width, LANES):
        sums = sums + load(x + 4 * column)
    mean = splat(total(sums) / _f(width))
    squares = splat(_ZERO)
    for column in range(0, width, LANES):
        off = load(x + 4 * column) - mean
        squares = fma(off, off, squares)
    variance = total(squares) / _f(width) + epsilon
    scale = splat(_ONE / root(variance) if variance < _INFINITY else _NAN)  # too large is no number, not the bias
    for column in range(0, width, LANES):
        place = x + 4 * column
        y = fma((load(place) - mean) * scale, load(weight + 4 * column), load(bias + 4 * column))
        store(place, y)
        store_bfloat16(rounded + 2 * column, y)


@njit(**OPTIONS)
def embed(x, word, position, token_type, width):
    """A row of float32: the sum of three of bfloat16."""
    for column in range(0, width, LANES):
        place = 2 * column
        y = load_bfloat16(word + place) + load_bfloat16(token_type + place) + load_bfloat16(position + place)
        store(x + 4 * column, y)
