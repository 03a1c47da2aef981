"""Attention over a packed batch: each sequence attends to itself alone.

Sequences are laid into blocks of a few widths; blocks of one width are one batched product. So the number of
operations does not grow with the number of sequences, and little is computed for padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lorat.blocks import Booleans, lay_into_blocks
from lorat.packing import Integers, positions


class Group(NamedTuple):
    """Blocks of one width.

    start: of their places among all of the batch, a place being a head's share of a token.
    blocks: times heads. bias: keys by queries, broadcast to (blocks, width, width): 0 where a query sees a key,
    else -inf; None where every query sees all keys.
    """

    start: int
    blocks: int
    width: int
    bias: Tensor | None


class Blocks(NamedTuple):
    """Where the sequences of a batch lie. sources: rows of qkv for each place; targets: places of each row."""

    heads: int
    sources: Tensor
    targets: Tensor
    groups: list[Group]


class BlockAttention:
    """The blocks of one batch, made once for all layers."""

    def __init__(
        self, lengths: Sequence[int], heads: int, device: torch.device, dtype: torch.dtype, tokens: int | None = None
    ) -> None:
        """lengths: tokens of each sequence. tokens: of the batch, where some of no sequence follow."""
        sizes = np.asarray(lengths)
        groups: list[Group] = []
        sources: list[Integers] = []
        target, step = np.empty_like(sizes), np.empty_like(sizes)  # a sequence's place by its first head; to the next
        start = 0
        for laid in lay_into_blocks(sizes):
            blocks, width = laid.rows.shape
            bias = None if laid.hidden is None else _bias(laid.hidden, heads, dtype, device)
            groups.append(Group(start, blocks * heads, width, bias))
            sources.append(_sources(laid.rows, heads))
            block, place = np.divmod(laid.first, width)
            target[laid.members], step[laid.members] = start + block * heads * width + place, width
            start += blocks * heads * width
        within = positions(sizes)
        targets = np.zeros((tokens or len(within), heads), dtype=np.int64)
        targets[: len(within)] = (np.repeat(target, sizes) + within)[:, None]
        targets[: len(within)] += np.repeat(step, sizes)[:, None] * np.arange(heads)
        self.blocks = Blocks(
            heads,
            torch.from_numpy(np.concatenate(sources)).to(device),
            torch.from_numpy(targets.reshape(-1)).to(device),
            groups,
        )

    def __call__(self, qkv: Tensor) -> Tensor:
        """qkv (tokens, 3 * hidden): queries, values and keys side by side. Returns (tokens, hidden).

        A token of no sequence gets what stands first: a number, but no answer.
        """
        return attend(qkv, self.blocks)


def attend(qkv: Tensor, blocks: Blocks) -> Tensor:
    """`BlockAttention`'s call, as a function that TorchScript takes."""
    size = qkv.shape[1] // (3 * blocks.heads)
    gathered = qkv.view(-1, size).index_select(0, blocks.sources)
    attended = torch.empty([len(gathered) // 3, size], dtype=qkv.dtype, device=qkv.device)
    for group in blocks.groups:
        start, stop = group.start, group.start + group.blocks * group.width
        parts = gathered[3 * start : 3 * stop].view(3, group.blocks, group.width, size)
        out = attended[start:stop].view(group.blocks, group.width, size)
        _attend_in_group(parts[0], parts[2], parts[1], group.bias, out)
    return attended.index_select(0, blocks.targets).view(len(qkv), -1)


def _sources(rows: Integers, heads: int) -> Integers:
    """Rows of qkv as (tokens * 3 * heads, size of a head) that the blocks are gathered from: 3, block, head, place."""
    part = np.arange(3)[:, None, None, None] * heads + np.arange(heads)[:, None]
    return (rows[:, None] * 3 * heads + part).reshape(-1)


def _bias(hidden: Booleans, heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    bias = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(torch.from_numpy(hidden), float("-inf"))
    return bias.repeat_interleave(heads, 0).to(device)


def _attend_in_group(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """(batch, width, size) each, `out` written. Scores stand keys by queries and have the tensors' own dtype.

    On a CPU two batched products take half the time of PyTorch's fused kernel. In this order of the scores the
    softmax runs down the columns, many at once.
    """
    given = torch.zeros([1, 1, 1], dtype=query.dtype, device=query.device) if bias is None else bias
    beta = 0 if bias is None else 1
    scores = torch.baddbmm(given, key, query.transpose(1, 2), beta=beta, alpha=query.shape[2] ** -0.5)
    torch.bmm(scores.softmax(1).transpose(1, 2), value, out=out)
