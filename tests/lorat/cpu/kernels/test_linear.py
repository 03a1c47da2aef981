"""A linear with adapters against the fp32 loop, on a grid of mixes."""

import numpy as np
import pytest
import torch

from lorat.adapter import Linear, LoRA
from lorat.cpu.kernels.records import BLOCK, LINEAR, PIECE, ROOM, ROWS
from lorat.deltas import Part, stack
from lorat.layout import KERNELS, PANEL, plain
from lorat.linear import FrozenLinear
from lorat.ops import reference
from lorat.ops.table import Table
from tests.mixes import MIXES, runs

kernel = pytest.importorskip("lorat.cpu.kernels.linear", reason="Numba is not installed")

DEPTH, WIDTH, TARGETS = 128, 64, 3
RANKS = [(8, 0, 8), (1, 1, 1), (128, 3, 0), (0, 0, 33), (16, 64, 4)]
KEY = (0, "qkv")


def frozen(generator):
    linears = [
        Linear(*(torch.randn(*size, generator=generator).bfloat16() / 8 for size in ((WIDTH, DEPTH), (WIDTH,))))
        for _ in range(TARGETS)
    ]
    return FrozenLinear(KEY, linears, layout=KERNELS)


def adapter(ranks, linear, bias, generator):
    loras = [
        LoRA(
            torch.randn(rank, DEPTH, generator=generator) / 4,
            torch.randn(WIDTH, rank, generator=generator) / rank,
            1.5,
            torch.randn(WIDTH, generator=generator) if bias else None,
        )
        if rank
        else None
        for rank in ranks
    ]
    return stack(loras, linear)


def in_float32(delta):
    parts = [Part(part.ranks, part.columns, plain(part.b).float()) for part in delta.parts]
    return delta._replace(a=plain(delta.a).float(), parts=parts)


@pytest.mark.parametrize("rows", [1, 7, 33, ROWS])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("finish", "tolerance"), [("rounded", 8e-3), ("activated", 8e-3), ("summed", 4e-3)])
@pytest.mark.parametrize("bias", [False, True])
def test_it_equals_the_reference(mix, rows, finish, tolerance, bias):
    generator = torch.Generator().manual_seed(rows)
    linear = frozen(generator)
    pool = [adapter(ranks, linear, bias, generator) for ranks in RANKS]
    tables = [Table.of({KEY: delta}, 1, torch.device("cpu")) for delta in pool]
    owners = runs(mix, rows, len(pool), generator)
    x = torch.randn(rows, DEPTH, generator=generator).bfloat16()
    width = TARGETS * WIDTH
    before = torch.randn(rows, width, generator=generator)

    got = before.clone() if finish == "summed" else torch.empty(rows, width, dtype=torch.bfloat16)
    memory = {
        "tile": torch.empty(ROWS, PANEL),
        "sums": torch.empty(ROWS, PANEL),
        "shrunk": torch.empty(ROWS, max(table.ranks for table in tables), dtype=torch.bfloat16),
        "zeros": torch.zeros(PANEL),
    }
    room = np.zeros(1, ROOM)
    room["ranks"] = memory["shrunk"].shape[1]
    for name, tensor in memory.items():
        room[name] = tensor.data_ptr()
    weights = np.array([(linear.laid_out.data_ptr(), linear.laid_out_bias.data_ptr())], LINEAR)
    pieces = np.array([(start, stop, tables[k].fields.data_ptr()) for start, stop, k in owners], PIECE)
    block = np.array([(0, rows, 0, len(pieces), 0)], BLOCK)
    merged = np.zeros((1, 4), np.int64)
    kernel.linear(
        got.data_ptr(), x.data_ptr(), DEPTH, width, weights[0], 0, block[0], pieces, merged, room[0],
        getattr(kernel, finish),
    )  # fmt: skip

    expected = x.float() @ linear.weight.float().T + linear.bias.float()
    reference.lora_delta(expected, x.float(), [(start, stop, in_float32(pool[k])) for start, stop, k in owners])
    largest = expected.abs().max()
    if finish == "activated":
        expected = torch.nn.functional.gelu(expected)
    if finish == "summed":
        expected += before
    assert (got.float() - expected).abs().max() <= tolerance * largest
