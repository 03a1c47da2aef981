"""Every way to compute per-row adapters against the fp32 loop, on a grid of mixes."""

import pytest
import torch

from lorat import ops
from lorat.ops import reference
from lorat.slots import Delta, Part

IN, WIDTH, TARGETS = 24, 16, 3


def delta(ranks, generator, bias=False):
    """A group of three targets, of which some (rank 0) carry nothing."""
    parts, start = [], 0
    for position, rank in enumerate(ranks):
        if rank:
            columns = slice(position * WIDTH, (position + 1) * WIDTH)
            parts.append(Part(slice(start, start + rank), columns, torch.randn(rank, WIDTH, generator=generator)))
            start += rank
    a = torch.randn(IN, start, generator=generator) / IN**0.5
    return Delta(a, tuple(parts), torch.randn(TARGETS * WIDTH, generator=generator) if bias else None)


def segments(mix, rows, generator):
    """(start, stop, delta) by a named mix of adapters over rows."""
    pool = [delta(ranks, generator, bias) for ranks, bias in RANKS]
    if mix == "identical":
        return [(0, rows, pool[0])]
    if mix == "distinct":
        return [(row, row + 1, pool[row % len(pool)]) for row in range(rows)]
    if mix == "skewed":
        edge = max(1, rows * 9 // 10)
        return [(0, edge, pool[1])] + [(row, row + 1, pool[2]) for row in range(edge, rows)]
    chosen = torch.randint(len(pool) + 1, (rows,), generator=generator)
    if mix == "zipf":
        chosen = (chosen.float() ** 2 / (len(pool) + 1)).long()
    chosen = chosen.sort().values.tolist()
    runs = [(chosen.index(k), chosen.index(k) + chosen.count(k), k) for k in sorted(set(chosen))]
    return [(start, stop, pool[k - 1]) for start, stop, k in runs if k]


RANKS = [((8, 0, 8), False), ((1, 1, 1), False), ((128, 3, 0), False), ((0, 0, 33), True), ((16, 64, 4), True)]


@pytest.mark.parametrize("rows", [1, 2, 7, 32, 133])
@pytest.mark.parametrize("mix", ["identical", "distinct", "uniform", "zipf", "skewed"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 4e-2), ("float16", 5e-3)])
def test_equals_the_reference(mix, rows, dtype, tolerance):
    generator = torch.Generator().manual_seed(rows)
    kind = getattr(torch, dtype)
    routed = [(start, stop, cast(d, kind)) for start, stop, d in segments(mix, rows, generator)]
    x = torch.randn(rows, IN, generator=generator).to(kind)
    y = torch.randn(rows, TARGETS * WIDTH, generator=generator).to(kind)
    got, expected = y.clone(), y.float()
    ops.lora_delta(got, x, routed)
    reference.lora_delta(expected, x, routed)
    scale = expected.abs().max()
    assert (got.float() - expected).abs().max() <= tolerance * scale
    untouched = torch.ones(rows, dtype=torch.bool)
    for start, stop, _ in routed:
        untouched[start:stop] = False
    assert torch.equal(got[untouched], y[untouched])


def cast(made, kind):
    parts = tuple(Part(part.ranks, part.columns, part.b.to(kind)) for part in made.parts)
    return Delta(made.a.to(kind), parts, None if made.bias is None else made.bias.to(kind))
