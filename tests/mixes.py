"""Which rows of a batch have which of some adapters, by a named mix."""

import torch

MIXES = ["identical", "distinct", "uniform", "zipf", "skewed"]


def runs(mix, rows, adapters, generator):
    """(start, stop, number of an adapter), in order; rows in no run are the base's."""
    if mix == "identical":
        return [(0, rows, 0)]
    if mix == "distinct":
        return [(row, row + 1, row % adapters) for row in range(rows)]
    if mix == "skewed":
        edge = max(1, rows * 9 // 10)
        return [(0, edge, 1)] + [(row, row + 1, 2) for row in range(edge, rows)]
    chosen = torch.randint(adapters + 1, (rows,), generator=generator)
    if mix == "zipf":
        chosen = (chosen.float() ** 2 / (adapters + 1)).long()
    chosen = chosen.sort().values.tolist()
    return [(chosen.index(k), chosen.index(k) + chosen.count(k), k - 1) for k in sorted(set(chosen)) if k]
