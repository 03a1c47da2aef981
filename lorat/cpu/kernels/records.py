"""What a pass takes, as records that compiled code reads. Numbers called after a tensor are its address."""

import numpy as np


def _record(**kinds: object) -> np.dtype[np.void]:
    return np.dtype(list(kinds.items()))


_INT = np.int64

ROWS = 96
"""Of a BLOCK, at most: what they have between a layer's products fits into a core's own cache."""

LINEAR = _record(weight=_INT, bias=_INT)
"""weight: `lorat.layout.panels` of bfloat16. bias: (out,) float32."""

NORM = _record(weight=_INT, bias=_INT)
"""(hidden,) float32 each."""

LAYER = _record(
    qkv=LINEAR, output=LINEAR, attention_norm=NORM, intermediate=LINEAR, ffn_output=LINEAR, output_norm=NORM
)

MODEL = _record(
    word=_INT, position=_INT, token_type=_INT, norm=NORM, hidden=_INT, inner=_INT, heads=_INT, epsilon=np.float32
)
"""word, position, token_type: tables of (entries, hidden) bfloat16."""

BLOCK = _record(start=_INT, stop=_INT, first_piece=_INT, stop_piece=_INT, merged=_INT)
"""Rows start to stop - 1 of a batch, and their pieces; merged: the row of the batch's merged weights."""

PIECE = _record(start=_INT, stop=_INT, table=_INT)
"""Rows of one block and one adapter, and the address of its table (`lorat.ops.table`)."""

ROOM = _record(
    rounded=_INT, qkv=_INT, context=_INT, inner=_INT, tile=_INT, sums=_INT, shrunk=_INT, ranks=_INT, zeros=_INT,
    attention=_INT,
)  # fmt: skip
"""Memory that a pass writes to.

rounded, context: (rows, hidden) bfloat16, the next product's input and what attention gives. qkv: (rows, 3 * hidden),
and fifteen rows that are read and let go. inner: (ROWS, inner). tile: (ROWS, PANEL) float32, a panel's sums; sums: as
large, what `shrink` has for a moment. shrunk: (ROWS, ranks) bfloat16. zeros: float32. attention: see
`attention.room_for`.
"""
