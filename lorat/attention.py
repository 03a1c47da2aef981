"""Attention over a packed batch: each sequence attends to itself alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_WIDTHS = np.array([16, 32, 48, 64, 96, 128, 192, 256, 384, 512])


@dataclass(frozen=True)
class _Group:
    """Sequences of like length, each padded to `width` tokens.

    rows: (count * width,) the packed row behind each place, some row of the same sequence where it is padding.
    bias: (count, 1, 1, width), 0 for a token and -inf for padding; None where nothing is padded.
    places, kept: the places that are no padding, and the packed rows they come from.
    """

    count: int
    width: int
    rows: Tensor
    bias: Tensor | None
    places: Tensor
    kept: Tensor


class PaddedAttention:
    """Batched products over sequences of like length, padded to a few widths.

    Many short sequences make a few large products, however the batch is ordered; a sequence's width depends on
    its own length only, so its result does not depend on the others.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device, dtype: torch.dtype) -> None:
        sizes = np.asarray(lengths)
        offsets = sizes.cumsum() - sizes
        widths = _WIDTHS[np.searchsorted(_WIDTHS, sizes.clip(max=_WIDTHS[-1]))].clip(sizes)
        self._groups = [
            _group(int(width), offsets[widths == width], sizes[widths == width], device, dtype)
            for width in np.unique(widths)
        ]

    def __call__(self, qkv: Tensor, heads: int) -> Tensor:
        """qkv (tokens, 3 * hidden): queries, values and keys side by side. Returns (tokens, hidden)."""
        context = qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
        for group in self._groups:
            attended = _attend(qkv.index_select(0, group.rows), group, heads)
            context.index_copy_(0, group.kept, attended.index_select(0, group.places))
        return context


def _group(width: int, starts: np.ndarray, sizes: np.ndarray, device: torch.device, dtype: torch.dtype) -> _Group:
    place = np.arange(width)
    real = place < sizes[:, None]
    rows = np.where(real, starts[:, None] + place, starts[:, None])
    bias = torch.zeros(real.shape, dtype=dtype).masked_fill_(torch.from_numpy(~real), float("-inf"))
    return _Group(
        count=len(sizes),
        width=width,
        rows=torch.from_numpy(rows.reshape(-1)).to(device),
        bias=None if real.all() else bias.view(len(sizes), 1, 1, width).to(device),
        places=torch.from_numpy(np.flatnonzero(real)).to(device),
        kept=torch.from_numpy(rows[real]).to(device),
    )


def _attend(qkv: Tensor, group: _Group, heads: int) -> Tensor:
    """(count * width, 3 * hidden) to (count * width, hidden)."""
    hidden = qkv.shape[1] // 3
    shape = (group.count, group.width, 3, heads, hidden // heads)
    query, value, key = qkv.view(shape).permute(2, 0, 3, 1, 4)
    if qkv.dtype == torch.float32:
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=group.bias)
    else:
        attended = _half_attention(query, key, value, group.bias)
    return attended.transpose(1, 2).reshape(-1, hidden)


def _half_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """As `scaled_dot_product_attention`, (count, heads, width, head), with scores in the tensors' own dtype.

    On a CPU in bfloat16 two batched products take half the time of PyTorch's fused kernel.
    """
    count, heads, width, size = query.shape
    query, key, value = (tensor.reshape(-1, width, size) for tensor in (query, key, value))
    if bias is None:
        scores = torch.bmm(query, key.transpose(1, 2)).mul_(size**-0.5)
    else:
        rows = bias.expand(-1, heads, -1, -1).reshape(-1, 1, width)
        scores = torch.baddbmm(rows, query, key.transpose(1, 2), alpha=size**-0.5)
    return torch.bmm(scores.softmax(-1), value).view(count, heads, width, size)
