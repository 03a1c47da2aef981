"""Attention of one sequence to itself, a head at a time: nothing of it leaves the cache."""

import numpy as np
from numba import njit

from lorat.cpu.kernels.passes import exponential
from lorat.cpu.kernels.products import LINE, multiply
from lorat.cpu.kernels.vectors import (
    OPTIONS,
    interleave,
    keep_first,
    larger,
    largest,
    load,
    splat,
    store,
    store_bfloat16,
    total,
    transpose,
)
from lorat.layout import LANES

_QUERIES = 48  # that are computed together: their scores for 512 keys fit into the second cache
_NONE, _ZERO, _ONE = np.float32(-np.inf), np.float32(0), np.float32(1)


def room_for(longest: int, size: int) -> int:
    """Bytes that `attend` writes to, for sequences of so many tokens and heads of so many values."""
    width = -(-longest // LANES) * LANES
    return 2 * size * width * 2 + _QUERIES * (4 * width + 2 * width + 4 * size + LINE)


@njit(**OPTIONS)
def attend(out, out_stride, query, key, value, stride, length, size, scale, zeros, room):
    """softmax(scale Q K^T) V for a head of `size` values: addresses of bfloat16, rows `stride` bytes apart.

    Behind the last key there may be anything, fifteen rows of it. zeros: float32, as many as there are keys (up to the
    next sixteen, `width`) or values. room, one behind another: keys (size / 2, width) and values (width / 2, size) in
    pairs; for _QUERIES rows each scores (width) float32, weights (width) bfloat16, sums (size) float32, and one by a
    row's sum in a vector, for there is no store of a number.
    """
    width = (length + LANES - 1) // LANES * LANES
    keys, values = room, room + 2 * size * width
    scores, weights = room + 4 * size * width, room + 4 * (size + _QUERIES) * width
    sums = weights + 2 * _QUERIES * width
    shares = sums + 4 * _QUERIES * size
    _transpose_keys(keys, key, stride, width, size)
    _pair_values(values, value, stride, length, size)
    pairs, vectors = (length + 1) // 2, width // LANES
    for start in range(0, length, _QUERIES):
        rows, given = min(_QUERIES, length - start), query + stride * start
        multiply(scores, 4 * width, zeros, 0, given, stride, keys, 4 * width, size // 2, rows, vectors)
        for row in range(rows):
            share = _softmax(weights + 2 * width * row, scores + 4 * width * row, length, scale)
            store(shares + LINE * row, splat(share))
        multiply(sums, 4 * size, zeros, 0, weights, 2 * width, values, 4 * size, pairs, rows, size // LANES)
        for row in range(rows):
            share = load(shares + LINE * row)
            for column in range(0, size, LANES):
                y = load(sums + 4 * (size * row + column)) * share
                store_bfloat16(out + out_stride * (start + row) + 2 * column, y)


@njit(**OPTIONS)
def _transpose_keys(keys, key, stride, width, size):
    """(size / 2, width) pairs, of (width, size) values."""
    for place in range(0, width, LANES):
        for pair in range(0, size // 2, LANES):
            transpose(keys + 4 * (pair * width + place), 4 * width, key + place * stride + 4 * pair, stride)


@njit(**OPTIONS)
def _pair_values(values, value, stride, length, size):
    """(length / 2, size) pairs, of (length, size) values; an odd one's fellow has no weight."""
    for place in range(0, length, 2):
        after = min(place + 1, length - 1)
        for column in range(0, size, LANES):
            pairs = values + 2 * place * size + 4 * column
            interleave(pairs, value + place * stride + 2 * column, value + after * stride + 2 * column)


@njit(**OPTIONS)
def _softmax(weights, scores, length, scale):
    """A row's weights in bfloat16, to be divided by their sum; and one by that sum."""
    top = splat(_NONE)  # NaN may be passed over here; its own exponential brings it into the sum
    for place in range(0, length, LANES):
        top = larger(keep_first(load(scores + 4 * place), length - place, _NONE), top)
    most = splat(largest(top))
    sums = splat(_ZERO)
    for place in range(0, length, LANES):
        weight = exponential((load(scores + 4 * place) - most) * splat(scale))
        weight = keep_first(weight, length - place, _ZERO)
        sums = sums + weight
        store_bfloat16(weights + 2 * place, weight)
    return _ONE / total(sums)
