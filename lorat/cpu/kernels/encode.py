"""The whole pass over a packed batch: one call without Python."""

import numpy as np
from numba import njit

from lorat.cpu.kernels.attention import attend
from lorat.cpu.kernels.linear import activated, linear, rounded, summed
from lorat.cpu.kernels.passes import embed, norm
from lorat.cpu.kernels.vectors import OPTIONS
from lorat.deltas import GROUPS

_GROUPS = len(GROUPS)
_QKV, _OUTPUT, _INTERMEDIATE, _FFN_OUTPUT = range(_GROUPS)


@njit(**OPTIONS)
def encode(x, ids, positions, types, offsets, models, layers, blocks, pieces, merged, rooms):
    """The last hidden states of a batch, (tokens, hidden) float32, to the address x.

    ids, positions, types: (tokens,). offsets: (sequences + 1,). models, rooms: one MODEL and one ROOM. blocks: of all
    rows. merged: (choices, groups of all layers), see `linear`; the first has zeros.
    """
    model, room = models[0], rooms[0]
    hidden = model.hidden
    for row in range(len(ids)):
        word, position = model.word + 2 * hidden * ids[row], model.position + 2 * hidden * positions[row]
        embed(x + 4 * hidden * row, word, position, model.token_type + 2 * hidden * types[row], hidden)
    _norm(x, room.rounded, len(ids), model.norm, model)
    for number in range(len(layers)):
        layer, group = layers[number], _GROUPS * number
        for block in blocks:
            y, given = room.qkv + 6 * hidden * block.start, room.rounded + 2 * hidden * block.start
            linear(y, given, hidden, 3 * hidden, layer.qkv, group + _QKV, block, pieces, merged, room, rounded)
        for sequence in range(len(offsets) - 1):
            _attend(offsets[sequence], offsets[sequence + 1], model, room)
        for block in blocks:
            _follow(x, layer, group, block, pieces, merged, model, room)


@njit(**OPTIONS)
def _attend(start, stop, model, room):
    """All heads of a sequence. qkv has queries, values and keys of a row side by side."""
    hidden, size = model.hidden, model.hidden // model.heads
    stride, scale = 6 * hidden, np.float32(1 / np.sqrt(size))
    for head in range(model.heads):
        query = room.qkv + stride * start + 2 * size * head
        value, key = query + 2 * hidden, query + 4 * hidden
        out = room.context + 2 * (hidden * start + size * head)
        attend(out, 2 * hidden, query, key, value, stride, stop - start, size, scale, room.zeros, room.attention)


@njit(**OPTIONS)
def _follow(x, layer, group, block, pieces, merged, model, room):
    """What follows on attention in a layer, for a block of rows: x is summed on and normed, twice."""
    hidden, inner, rows = model.hidden, model.inner, block.stop - block.start
    y, given = x + 4 * hidden * block.start, room.rounded + 2 * hidden * block.start
    context = room.context + 2 * hidden * block.start
    linear(y, context, hidden, hidden, layer.output, group + _OUTPUT, block, pieces, merged, room, summed)
    _norm(y, given, rows, layer.attention_norm, model)
    number = group + _INTERMEDIATE
    linear(room.inner, given, hidden, inner, layer.intermediate, number, block, pieces, merged, room, activated)
    linear(y, room.inner, inner, hidden, layer.ffn_output, group + _FFN_OUTPUT, block, pieces, merged, room, summed)
    _norm(y, given, rows, layer.output_norm, model)


@njit(**OPTIONS)
def _norm(x, given, rows, scale, model):
    """Rows of x (float32) normed in place, and in bfloat16 to `given`."""
    for row in range(rows):
        place = model.hidden * row
        norm(x + 4 * place, given + 2 * place, scale.weight, scale.bias, model.hidden, model.epsilon)
