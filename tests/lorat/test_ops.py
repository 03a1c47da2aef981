"""Every way to compute per-row adapters against the fp32 loop, on a grid of mixes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorat import pooling
from lorat.adapter import Linear, LoRA
from lorat.deltas import Delta, Part, stack
from lorat.linear import FrozenLinear
from lorat.ops import reference, triton
from lorat.ops.table import PART, PART_FIELDS, PARTS
from lorat.ops.tiles import ROWS, tile
from lorat.ops.torch import lora_delta
from lorat.recipe import POOLING_MODES, Recipe
from tests.kernels import DEVICES, kernels_of, use_kernels
from tests.mixes import MIXES, runs

IN, WIDTH, TARGETS = 24, 16, 3


def delta(ranks, generator, bias=False):
    """A group of three targets, of which some (rank 0) carry nothing."""
    parts, start = [], 0
    for position, rank in enumerate(ranks):
        if rank:
            columns = position * WIDTH, (position + 1) * WIDTH
            parts.append(Part((start, start + rank), columns, torch.randn(rank, WIDTH, generator=generator)))
            start += rank
    a = torch.randn(IN, start, generator=generator) / IN**0.5
    return Delta(a, parts, torch.randn(TARGETS * WIDTH, generator=generator) if bias else None)


def segments(mix, rows, generator):
    """(start, stop, delta) by a named mix of adapters over rows."""
    pool = [delta(ranks, generator, bias) for ranks, bias in RANKS]
    return [(start, stop, pool[number]) for start, stop, number in runs(mix, rows, len(pool), generator)]


RANKS = [((8, 0, 8), False), ((1, 1, 1), False), ((128, 3, 0), False), ((0, 0, 33), True), ((16, 64, 4), True)]


TOLERANCES = [("float32", 1e-5), ("bfloat16", 4e-2), ("float16", 5e-3)]


@pytest.mark.parametrize("rows", [1, 2, 7, 32, 133])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_equals_the_reference(mix, rows, dtype, tolerance):
    check(lora_delta, mix, rows, dtype, tolerance, "cpu")


@pytest.mark.parametrize("rows", [1, 7, 133])
@pytest.mark.parametrize("mix", ["identical", "uniform", "skewed"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 6e-3), ("float16", 8e-4)])
def test_adapters_in_float32_equal_the_reference(mix, rows, dtype, tolerance):
    check(lora_delta, mix, rows, dtype, tolerance, "cpu", kept="float32")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [1, 7, 33, 133])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_the_kernels_equal_the_reference(mix, rows, dtype, tolerance, device, monkeypatch):
    use_kernels(device, monkeypatch)
    check(triton.lora_delta, mix, rows, dtype, tolerance, device)


def check(way, mix, rows, dtype, tolerance, device, kept=None):
    """kept: the adapters' dtype, where it is another."""
    generator = torch.Generator().manual_seed(rows)
    kind, kept = getattr(torch, dtype), getattr(torch, kept or dtype)
    routed = [(start, stop, cast(d, kept)) for start, stop, d in segments(mix, rows, generator)]
    x = torch.randn(rows, IN, generator=generator).to(kind)
    y = torch.randn(rows, TARGETS * WIDTH, generator=generator).to(kind)
    got, expected = y.to(device, copy=True), y.float()
    way(got, x.to(device), [(start, stop, cast(d, kept, device)) for start, stop, d in routed])
    reference.lora_delta(expected, x, routed)
    scale = expected.abs().max()
    assert (got.cpu().float() - expected).abs().max() <= tolerance * scale
    untouched = torch.ones(rows, dtype=torch.bool)
    for start, stop, _ in routed:
        untouched[start:stop] = False
    assert torch.equal(got.cpu()[untouched], y[untouched])


@pytest.mark.parametrize("device", DEVICES)
def test_the_kernels_sum_up_wide_inputs_and_high_ranks_in_parts(device, monkeypatch):
    use_kernels(device, monkeypatch)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2100, 256, generator=generator) / 50, torch.randn(256, 200, generator=generator)
    made = Delta(a, [Part((0, 256), (40, 240), b)], torch.randn(300, generator=generator))
    x, y = torch.randn(37, 2100, generator=generator), torch.randn(37, 300, generator=generator)
    got, expected = y.to(device, copy=True), y.clone()
    triton.lora_delta(got, x.to(device), [(3, 36, cast(made, torch.float32, device))])
    reference.lora_delta(expected, x, [(3, 36, made)])
    assert (got.cpu() - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(got.cpu()[[0, 1, 2, 36]], y[[0, 1, 2, 36]])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("width", [384, 1536])  # in one launch, and in two
@pytest.mark.parametrize(("large", "small"), [(400, 1e-6), (1e-6, 400)])
def test_the_kernels_take_matrices_of_very_different_sizes_in_float16(width, large, small, device, monkeypatch):
    use_kernels(device, monkeypatch)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, width, generator=generator) * large, torch.randn(384, 8, generator=generator) * small
    base = Linear(torch.zeros(384, width, dtype=torch.float16), torch.zeros(384, dtype=torch.float16))
    made = stack([LoRA(a, b, 1.0)], FrozenLinear((0, "output"), [base]))
    x = (torch.randn(40, width, generator=generator) * 8).half()
    got = torch.zeros(40, 384, dtype=torch.float16, device=device)
    triton.lora_delta(got, x.to(device), [(0, 40, cast(made, torch.float16, device))])
    expected = x.double() @ a.double().T @ b.double().T
    assert (got.cpu() - expected).abs().max() <= 2e-3 * expected.abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 8e-3), ("float16", 1e-3)])
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (6, 384), (5, 768), (3, 1000)])
def test_passes_between_products_equal_torch_in_float32(rows, width, dtype, tolerance, device, monkeypatch):
    use_kernels(device, monkeypatch)
    generator = torch.Generator().manual_seed(rows)
    kind = getattr(torch, dtype)
    y, residual = (torch.randn(rows, width, generator=generator).mul(3).to(kind) for _ in range(2))
    weight, bias = (torch.randn(width, generator=generator).to(kind) for _ in range(2))
    normed = torch.layer_norm(y.float() + residual.float(), (width,), weight.float(), bias.float(), 1e-12)
    pairs = [
        (triton.gelu(y.to(device, copy=True)), torch.nn.functional.gelu(y.float())),
        (triton.add_norm(*(one.to(device, copy=True) for one in (y, residual, weight, bias)), 1e-12), normed),
    ]
    for got, expected in pairs:
        assert got.dtype == kind
        assert (got.cpu().float() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_texts_are_pooled_as_on_a_cpu_and_alone_as_together(mode, dtype, device, monkeypatch):
    use_kernels(device, monkeypatch)
    lengths, skips = torch.tensor([5, 1, 40, 2, 70, 3]), torch.tensor([0, 3, 7, 1, 69, 99])
    hidden = torch.randn(int(lengths.sum()), 100, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    expected = pooling.pool(hidden, lengths.tolist(), skips.tolist(), Recipe(pooling=(mode, "mean")))
    before = torch.minimum(skips, lengths - 1)
    bags = torch.stack([lengths.cumsum(0) - lengths + before, lengths - before, before], dim=1)
    bags = torch.cat([bags, torch.zeros(2, 3, dtype=torch.int64)]).to(device)  # as filled up to a bucket
    for pool in (reference.pool, triton.pool):
        got = pool(hidden.to(device), bags, (mode, "mean"))
        assert got.dtype == torch.float32 and not got[len(lengths) :].any()
        assert (got[: len(lengths)].cpu() - expected).abs().max() <= 1e-5
        alone = [pool(hidden.to(device), bag.unsqueeze(0), (mode, "mean")) for bag in bags]
        assert torch.equal(torch.cat(alone), got)


def test_an_entry_has_as_many_parts_as_the_kernels_ask():
    assert PARTS == 3


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_the_kernels_compile_for_a_gpu_where_there_is_none(dtype, tmp_path, monkeypatch):
    """With what a model's launches give them: 16 byte reads of x, A and B, and the matrix units for half types."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    common = {"ROWS": ROWS, "RANKS": 16, "ALIGNED": 8, "WIDE": False}
    depth, parts = {"DEPTH": 32 if dtype == "fp32" else 128}, {"PART": PART, "PART_FIELDS": PART_FIELDS}
    both = compiled("shrink_expand", dtype, common | depth | parts | {"CHUNK": 768, "COLUMNS": 128})
    shrink = compiled("shrink", dtype, common | depth | {"SPAN": 1024, "LEAST": 0})
    expand = compiled("expand", dtype, common | parts | {"COLUMNS": 256, "SPLITS": 1, "LEAST": 0})
    for assembly in (both, shrink, expand):
        assert "cp.async.cg" in assembly
        assert ("mma.sync" in assembly) == (dtype != "fp32")
    norm = compiled("add_norm", dtype, {"ROWS": 4, "COLUMNS": 1024}, "passes")
    for assembly in (norm, compiled("gelu", dtype, {"SIZE": 2048}, "passes")):
        assert "ld.global.v4" in assembly and "st.global.v4" in assembly
    for mode in POOLING_MODES:
        assert "ld.global.v4" in compiled("pool", dtype, {"MODE": mode, "ROWS": 32, "COLUMNS": 64}, "passes")


def compiled(name, dtype, constants, module="kernels"):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    kernel = getattr(kernels_of(module, interpreted=False), name)
    types = {"h": "*fp32", "tiles": "*i64", "epsilon": "fp32", "vectors": "*fp32", "bags": "*i64"}
    types |= dict.fromkeys(("x", "y", "residual", "weight", "bias", "hidden"), f"*{dtype}")
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    aligned = [
        place
        for place, name in enumerate(kernel.arg_names)
        if name not in constants and name not in ("field", "epsilon")
    ]
    source = ASTSource(kernel, signature, constants, {(place,): [["tt.divisibility", 16]] for place in aligned})
    return compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 200)), max_size=20))
def test_tiles_cover_each_segment_once(gaps):
    routed, row = [], 0
    for what, (gap, length) in enumerate(gaps, start=1):
        routed.append((row + gap, row + gap + length, what))
        row += gap + length
    cut = tile(routed)
    covered = [(owner, place) for owner, first, stop in cut.tolist() for place in range(first, stop)]
    assert covered == [(what, place) for start, stop, what in routed for place in range(start, stop)]
    assert all(0 < stop - first <= ROWS for _, first, stop in cut.tolist())


def cast(made, kind, device="cpu"):
    parts = [Part(part.ranks, part.columns, part.b.to(device, kind)) for part in made.parts]
    return Delta(made.a.to(device, kind), parts, None if made.bias is None else made.bias.to(device, kind))
