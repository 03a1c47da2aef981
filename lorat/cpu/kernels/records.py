"""What a pass takes, as records that compiled code reads. Numbers called after a tensor are its address."""

import numpy as np


def _record(**kinds: object) -> np.dtype[np.void]:
    return np.dtype(list(kinds.items()))


_INT = np.int64

LINEAR = _record(weight=_INT, bias=_INT)
"""weight: panels of bfloat16, or a norm's float32; bias: float32."""

LAYER = _record(
    qkv=LINEAR, output=LINEAR, attention_norm=LINEAR, intermediate=LINEAR, ffn_output=LINEAR, output_norm=LINEAR
)

MODEL = _record(
    word=_INT, position=_INT, token_type=_INT, norm=LINEAR, hidden=_INT, inner=_INT, heads=_INT, epsilon=np.float32
)
"""word, position, token_type: tables of (entries, hidden) bfloat16."""

BLOCK = _record(start=_INT, stop=_INT, first=_INT, last=_INT, merged=_INT)
"""Rows start to stop - 1 of a batch, pieces first to last - 1; merged: the row of the batch's merged weights."""

PIECE = _record(start=_INT, stop=_INT, table=_INT)
"""Rows of one block and one adapter, and the address of its table (`lorat.ops.table`)."""

ROOM = _record(
    rounded=_INT,
    qkv=_INT,
    context=_INT,
    inner=_INT,
    tile=_INT,
    sums=_INT,
    shrunk=_INT,
    ranks=_INT,
    zeros=_INT,
    attention=_INT,
)
"""Memory that a pass writes to. tile, sums: a panel's, and others for a moment. ranks: what a row of `shrunk` holds."""
