"""Classification heads on the device: from hidden states to logits, for rows of many heads at once."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lorat.adapter import Head, Linear
from lorat.layers import merged_weight

_LARGE = 1 << 16  # values of a weight that is worth a product of its own


class LoadedHead:
    """A classification head on the device, in float32.

    The pooler is the adapter's own or the base's, with the adapter's LoRA on it folded in.
    """

    def __init__(self, head: Head, base_pooler: Linear | None, device: torch.device) -> None:
        """`base_pooler`: on the device, in float32; heads that use it as it is share it."""
        self.classifier = _on(head.classifier, device)
        pooler = head.pooler or base_pooler
        if pooler is None or (pooler is base_pooler and head.pooler_lora is None):
            self.pooler = pooler
        else:
            self.pooler = _on(_adapted(pooler, head), device)


def sequence_logits(first: Tensor, heads: Sequence[LoadedHead]) -> list[Tensor]:
    """Logits (labels,) float32 of each sequence by its own head. first: (sequences, hidden), their first tokens."""
    poolers = [head.pooler for head in heads if head.pooler is not None]
    assert len(poolers) == len(heads)
    pooled = torch.tanh(torch.stack(_each(first.float(), poolers)))
    return _each(pooled, [head.classifier for head in heads])


def token_logits(hidden: Tensor, lengths: Sequence[int], heads: Sequence[LoadedHead]) -> list[Tensor]:
    """Logits (tokens, labels) float32 of each sequence by its own head. hidden: (all tokens, hidden)."""
    parts = hidden.split_with_sizes(list(lengths))
    logits: dict[int, Tensor] = {}
    for places in _alike([id(head) for head in heads]):
        joined = torch.cat([parts[place] for place in places]).float()
        classifier = heads[places[0]].classifier
        answers = F.linear(joined, classifier.weight, classifier.bias)
        logits.update(zip(places, answers.split_with_sizes([lengths[place] for place in places]), strict=True))
    return [logits[place] for place in range(len(heads))]


def _each(x: Tensor, linears: Sequence[Linear]) -> list[Tensor]:
    """Each row through a linear of its own: one batched product for small ones of a size, one a large one."""
    sizes = [linear.weight.shape if linear.weight.numel() < _LARGE else id(linear) for linear in linears]
    results: dict[int, Tensor] = {}
    for places in _alike(sizes):
        rows, first = _rows(x, places), linears[places[0]]
        if all(linears[place] is first for place in places):
            answers = F.linear(rows, first.weight, first.bias)
        else:
            weights = torch.stack([linears[place].weight for place in places])
            biases = torch.stack([linears[place].bias for place in places])
            answers = torch.baddbmm(biases.unsqueeze(2), weights, rows.unsqueeze(2)).squeeze(2)
        results.update(zip(places, answers, strict=True))
    return [results[place] for place in range(len(linears))]


def _rows(x: Tensor, places: Sequence[int]) -> Tensor:
    """Rows of x. On a GPU without an index: copying one there would wait for all that runs."""
    if len(places) == len(x):
        return x
    return torch.stack([x[place] for place in places]) if x.is_cuda else x[places]


def _alike(keys: Sequence[object]) -> list[list[int]]:
    """The places of each key."""
    places: dict[object, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return list(places.values())


def _adapted(pooler: Linear, head: Head) -> Linear:
    lora = head.pooler_lora
    if lora is None:
        return pooler
    weight = merged_weight(pooler.weight.float().cpu(), lora.a, lora.b * lora.scaling)
    return Linear(weight, pooler.bias if lora.bias is None else lora.bias)


def _on(linear: Linear, device: torch.device) -> Linear:
    return Linear(linear.weight.to(device, torch.float32), linear.bias.to(device, torch.float32))
