"""The GPU's forward pass: on a CPU its planning, filling up and kernels; on a GPU all of it, graphs included."""

import gc
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig

from benchmarks.made import random_adapter, random_base
from lorat import MultiLoRAT, Row, Tokens
from lorat.gpu.buckets import bucket_of
from lorat.gpu.forward import GpuForward
from lorat.gpu.lanes import Lane
from lorat.gpu.plan import Plan
from lorat.recipe import POOLING_MODES, Recipe
from lorat.targets import MODULES
from tests.kernels import GPU, use_kernels
from tests.oracle import ALL_LINEAR, make_peft

SPECS = [
    {"r": 8},
    {"r": 3, "target_modules": ALL_LINEAR},
    {"r": 20, "task": "SEQ_CLS", "num_labels": 3},
    {"r": 4, "task": "TOKEN_CLS", "num_labels": 5},
    {"r": 4, "bias": "lora_only", "target_modules": ["key", "intermediate.dense"]},
    {"r": 2, "task": "SEQ_CLS", "num_labels": 7},
]


@pytest.fixture(scope="module")
def directories(tiny_path, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return [make_peft(tiny_path, root / str(i), seed=i, **spec).directory for i, spec in enumerate(SPECS)]


def rows_of(slots, lengths, seed=0):
    """Rows of every slot and of the base, some with a prompt that is left out of the pooling."""
    rng = np.random.default_rng(seed)
    rows = []
    for place, length in enumerate(lengths):
        slot = slots[place % len(slots)]
        tokens = Tokens(rng.integers(0, 30522, length).tolist(), [place % 2] * length if place % 3 else None)
        tokens = Tokens(tokens.ids, tokens.types, skip=min(place % 4, length))
        headless = "hidden_states" if place % 3 == 1 else "embedding"
        rows.append(Row(tokens, slot, slot.adapter.task if slot and place % 5 else headless))
    return rows


def run(forward, model, rows):
    order = sorted(range(len(rows)), key=lambda place: rows[place].slot.index if rows[place].slot else 0)
    with torch.inference_mode():
        ordered = [rows[place] for place in order]
        answers = forward(ordered, [model._check(row) for row in ordered])
    return [answers[order.index(place)] for place in range(len(rows))]


def close(got, expected, tolerance=1e-5):
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert (one - other).abs().max() <= tolerance


@pytest.mark.parametrize("filled", [False, True])
def test_equals_the_plain_forward(tiny, directories, filled):
    slots = [None, *map(tiny.load, directories)]
    tiny.merge(slots[2])
    forward = GpuForward(tiny._model, tiny.recipe, tiled=False, filled=filled)
    for seed, lengths in enumerate([[1], [5, 17, 130, 2, 64, 33, 9], [3] * 40, [100] * 30]):
        rows = rows_of(slots if seed % 2 else [slot for slot in slots if not (slot and slot.merged)], lengths, seed)
        close(run(forward, tiny, rows), tiny.forward(rows))


@pytest.mark.parametrize("filled", [False, True])
def test_equals_the_plain_forward_with_the_kernels(tiny, directories, filled, monkeypatch):
    use_kernels("cpu", monkeypatch)
    slots = [None, *map(tiny.load, directories)]
    forward = GpuForward(tiny._model, tiny.recipe, filled=filled)
    rows = rows_of(slots, [5, 17, 40, 2, 64, 33, 9])
    close(run(forward, tiny, rows), tiny.forward(rows))
    tiny.merge(slots[2])
    close(run(forward, tiny, rows), tiny.forward(rows))


def test_a_plan_holds_its_adapters_until_it_is_done(tiny, directories):
    """Addresses do not: an adapter that is unloaded meanwhile must stay where the plan says it is."""
    slot = tiny.load(directories[0])
    tensors = [weakref.ref(delta.a) for delta in slot.deltas.values()]
    plan = Plan.of([[1, 2]], [None], [slot])
    tiny.unload(slot)
    del slot
    gc.collect()
    assert all(tensor() is not None for tensor in tensors)
    del plan
    gc.collect()
    assert all(tensor() is None for tensor in tensors)


def test_no_rows_are_no_answers(tiny):
    assert GpuForward(tiny._model, tiny.recipe, tiled=False)([], []) == []


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_every_pooling_equals_the_plain_one(tiny, mode, filled, tiled, monkeypatch):
    use_kernels("cpu", monkeypatch)
    recipe = Recipe(pooling=(mode, "mean"))
    tiny.recipe = lambda slot: recipe
    forward = GpuForward(tiny._model, tiny.recipe, tiled=tiled, filled=filled)
    for lengths in ([5, 1, 40, 2], [32] * 4, [32] * 3 + [31]):  # a bucket with and without empty bags, one all but full
        rows = [Row(row.tokens) for row in rows_of([None], lengths)]
        close(run(forward, tiny, rows), tiny.forward(rows))


@given(st.tuples(st.integers(1, 20000), *[st.integers(0, 1100)] * 4))
def test_a_bucket_holds_what_it_was_chosen_for_and_is_the_least(wanted):
    groups = frozenset({"qkv"})
    bucket = bucket_of(*wanted, groups)
    if bucket is None:
        filling = 4  # sequences of 128 tokens fill up the largest gap there is, 512
        most = (2048, 1024 - filling, 2048, 1024, 768)
        assert any(size > limit for size, limit in zip(wanted, most, strict=True))
        return
    chosen = (bucket.tokens, bucket.sequences, bucket.longest, bucket.tiles, bucket.ranks)
    assert all(size <= step for size, step in zip(wanted, chosen, strict=True)) and bucket.groups == groups
    assert wanted[1] + (bucket.tokens - wanted[0]) / bucket.longest <= bucket.sequences
    assert bucket_of(*chosen, groups) == bucket
    assert bucket.tokens <= 2048 or wanted[0] >= 7 / 8 * bucket.tokens


@pytest.mark.parametrize(("tokens", "filled"), [(2048, 2048), (2049, None), (3000, 3072), (8192, 8192), (16385, None)])
def test_large_batches_have_a_bucket_only_if_they_nearly_fill_it(tokens, filled):
    bucket = bucket_of(tokens, 64, 128, 0, 0, frozenset())
    assert (bucket and bucket.tokens) == filled


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_a_plan_filled_up_keeps_the_batch_and_adds_nothing(lengths):
    ids = [[place + 1] * length for place, length in enumerate(lengths)]
    plan = Plan.of(ids, [None] * len(ids), [None] * len(ids))
    bucket = plan.bucket()
    exact, filled = (
        stage.views(Lane(torch.device("cpu")).write(stage)) for stage in (plan.stage(), plan.stage(bucket))
    )
    for one, other, size in zip(exact[:3], filled[:3], [bucket.tokens] * 3, strict=True):
        assert other.shape == (size,)
        assert torch.equal(other[: len(one)], one) and not other[len(one) :].any()
    assert exact[0].tolist() == [token for row in ids for token in row]
    assert exact[1].tolist() == [token for row in ids for token in range(len(row))]
    offsets = filled[3].tolist()
    assert offsets[: len(lengths) + 1] == exact[3].tolist() == [0, *np.cumsum(lengths)]
    assert offsets[-1] == bucket.tokens and len(offsets) == bucket.sequences + 1
    assert all(0 <= stop - start <= bucket.longest for start, stop in pairwise(offsets))
    assert filled[4].shape == (bucket.tiles, 3)


CONFIG = BertConfig(hidden_size=128, num_hidden_layers=3, num_attention_heads=2, intermediate_size=256)
BOUNDS = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}  # of one value; values are about 1


def model_on(device, dtype="float32"):
    """A random BERT: a machine with a GPU may have no other."""
    return MultiLoRAT(random_base(CONFIG, device, getattr(torch, dtype)))


def adapters():
    everything = list(MODULES)
    return [
        random_adapter(CONFIG, 0, 8, ["query", "value"]),
        random_adapter(CONFIG, 1, 3, everything),
        random_adapter(CONFIG, 2, 20, ["query", "value"], labels=3),
        random_adapter(CONFIG, 3, 128, ["output", "intermediate"]),
        random_adapter(CONFIG, 4, 1, everything, labels=5),
    ]


@pytest.mark.parametrize("dtype", [pytest.param(dtype, marks=GPU) for dtype in BOUNDS])
def test_a_gpu_equals_a_cpu_eagerly_and_by_graphs(dtype):
    model, plain = model_on("cuda", dtype), model_on("cpu")
    slots, others = ([None, *map(one.load, adapters())] for one in (model, plain))
    for _ in ("unmerged", "one merged"):
        for lengths in ([1], [5, 17, 130, 2, 64, 33, 9], [3] * 40, [100] * 40):
            expected = plain.forward(rows_of(others, lengths))
            for _ in range(3):  # eager, captured, replayed
                close(model.forward(rows_of(slots, lengths)), expected, BOUNDS[dtype])
        model.merge(slots[2])


@pytest.mark.parametrize("dtype", [pytest.param(dtype, marks=GPU) for dtype in BOUNDS])
@pytest.mark.parametrize("lengths", [[7, 20, 3], [100] * 40])
def test_together_equals_alone_on_a_gpu(lengths, dtype):
    model = model_on("cuda", dtype)
    rows = rows_of([None, *map(model.load, adapters())], lengths)
    close(model.forward(rows), [model.forward([row])[0] for row in rows], BOUNDS[dtype])


@pytest.mark.parametrize("dtype", [pytest.param(dtype, marks=GPU) for dtype in ("bfloat16", "float16")])
def test_a_gpu_never_changes_the_base(dtype):
    model = model_on("cuda", dtype)
    before = model.fingerprint()
    for made in adapters():
        slot = model.load(made)
        model.forward(rows_of([None, slot], [9, 30]))
        model.merge(slot)
        model.forward(rows_of([None, slot], [9, 30]))
        model.unload(slot)
    assert model.fingerprint() == before


@pytest.mark.parametrize("count", [pytest.param(1, marks=GPU), pytest.param(60, marks=GPU)])
def test_nothing_is_waited_for_within_a_batch(count):
    model = model_on("cuda", "bfloat16")
    rows = rows_of([None, *map(model.load, adapters())], [60] * count)
    for _ in range(3):
        model.forward(rows)
    try:
        with warnings.catch_warnings(action="ignore"):  # that the mode may miss some
            torch.cuda.set_sync_debug_mode("error")
        model.forward(rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("threads", [pytest.param(4, marks=GPU)])
def test_threads_share_a_gpu_while_adapters_come_and_go(threads):
    model = model_on("cuda", "bfloat16")
    made = [random_adapter(CONFIG, seed, 8, ["query", "value", "ffn_output"]) for seed in range(threads)]

    def ask(index):
        answers = []
        for turn in range(40):
            slot = model.load(made[index])
            if turn % 4 == 3:
                model.merge(slot)
            answers.append(model.forward([Row(Tokens([101 + index] * size), slot) for size in (4, 40, 90)]))
            model.unload(slot)
        return answers

    alone = [ask(index)[0] for index in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        for expected, answers in zip(alone, pool.map(ask, range(threads)), strict=True):
            for answer in answers:
                close(answer, expected, BOUNDS["bfloat16"])


def test_the_random_bert_is_what_the_gpu_is_held_against_and_holds_here_too(monkeypatch):
    use_kernels("cpu", monkeypatch)
    model = model_on("cpu")
    rows = rows_of([None, *map(model.load, adapters())], [5, 17, 2, 64])
    close(run(GpuForward(model._model, model.recipe, filled=True), model, rows), model.forward(rows), 1e-4)
