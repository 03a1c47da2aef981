"""What an adapter adds to the base's linears: its matrices, stacked as the forward pass multiplies them."""

from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lorat.adapter import LoRA
from lorat.layers import merged_weight
from lorat.layout import Layout, plain

# The linear layers of an encoder layer that share an input are one matrix product: a group.
GROUPS: dict[str, tuple[str, ...]] = {
    "qkv": ("query", "value", "key"),  # query and value, the usual targets, lie side by side
    "output": ("output",),
    "intermediate": ("intermediate",),
    "ffn_output": ("ffn_output",),
}

Key = tuple[int, str]
"""Of a group's linear in the base: its layer, and the group's name."""

_MOST_POWER = 64  # of two: more would take zeros and float32 to infinity


class Part(NamedTuple):
    """The share of a group's neighbouring targets: rows of the stacked A, columns of the group's output, and B.

    ranks, columns: the first, and the one after the last. b: (rank, out of the target): scaling * B, transposed.
    """

    ranks: tuple[int, int]
    columns: tuple[int, int]
    b: Tensor


class Delta(NamedTuple):
    """What an adapter adds to one group: y[:, columns] += (x A^T)[:, ranks] b, then `bias` on all of y.

    a: (in, sum of ranks): the A of the group's targets, stacked and transposed. It and b are laid out by the base's
    layout (`lorat.layout.plain` undoes it), whose `pairs` give a zeros up to the next 16 ranks. Beside a base in
    float16 each rank's is of a length near 1, and b has what it was longer: x A^T is then no larger than x, and a GPU
    rounds it to float16. bias: (out of the group,) or None.
    """

    a: Tensor
    parts: list[Part]
    bias: Tensor | None


class GroupLinear(Protocol):
    """A group's frozen linear: weight (out, in) and bias (out,), the targets' outputs side by side."""

    @property
    def weight(self) -> Tensor:
        """(out, in)."""

    @property
    def laid_out(self) -> Tensor:
        """The weight as it is multiplied."""

    @property
    def layout(self) -> Layout:
        """How that, and what adapters add, is laid out."""

    @property
    def bias(self) -> Tensor:
        """(out,)."""


def stack(chosen: list[LoRA | None], linear: GroupLinear) -> Delta:
    """The delta of a group's linear. chosen: what adapts each target of the group, in its order; one at least.

    Ranks are filled up with zeros to a multiple of 8: a GPU's kernels read A and B 16 bytes at a time.
    """
    width = linear.bias.shape[0] // len(chosen)
    parts: list[Part] = []
    stacked, rank = [], 0
    bias: Tensor | None = None
    for position, lora in enumerate(chosen):
        if lora is None:
            continue
        columns = position * width, (position + 1) * width
        matrices = _levelled(lora) if linear.bias.dtype == torch.float16 else (lora.a, (lora.b * lora.scaling).T)
        a, b = map(_filled_up, matrices)
        parts.append(Part((rank, rank + len(b)), columns, b))
        stacked.append(a)
        rank += len(b)
        if lora.bias is not None:
            bias = torch.zeros_like(linear.bias, dtype=torch.float32) if bias is None else bias
            bias[slice(*columns)] = lora.bias.to(bias) - linear.bias[slice(*columns)].float()
    layout, kept = linear.layout, (linear.bias.device, linear.layout.factor_dtype(linear.bias))
    a = layout.factor(torch.cat(stacked).T.to(*kept))
    parts = [
        Part(part.ranks, part.columns, layout.factor(part.b.to(*kept))) for part in _joined(parts, layout.joined_rank)
    ]
    return Delta(a, parts, bias.to(linear.bias) if bias is not None and bias.any() else None)


def _levelled(lora: LoRA) -> tuple[Tensor, Tensor]:
    """A, and scaling * B transposed; each row of A divided by a power of two near its length: no digit changes."""
    lengths = torch.linalg.vector_norm(lora.a, dim=1, keepdim=True, dtype=torch.float64)
    powers = torch.frexp(lengths).exponent.clamp(-_MOST_POWER, _MOST_POWER)
    return torch.ldexp(lora.a, -powers), torch.ldexp((lora.b * lora.scaling).T, powers)


def _joined(parts: list[Part], most: int) -> list[Part]:
    """Neighbours of `most` ranks together as one part with a block-diagonal B."""
    first, last = parts[0], parts[-1]
    if last.ranks[1] > most or any(before.columns[1] != after.columns[0] for before, after in pairwise(parts)):
        return parts
    b: Tensor = torch.block_diag(*(part.b for part in parts))  # type: ignore[no-untyped-call]
    return [Part((0, last.ranks[1]), (first.columns[0], last.columns[1]), b)]


def _filled_up(matrix: Tensor) -> Tensor:
    missing = -len(matrix) % 8
    return F.pad(matrix, (0, 0, 0, missing)) if missing else matrix


def merge(linear: GroupLinear, delta: Delta) -> Tensor:
    """A linear's weight with its delta, laid out as it is: a new tensor."""
    weight, a = linear.weight, plain(delta.a)
    merged = weight.clone()
    for part in delta.parts:
        columns = slice(*part.columns)
        merged[columns] = merged_weight(weight[columns], a[:, slice(*part.ranks)].T, plain(part.b).T)
    return linear.layout.weight(merged)
