"""The encoder that torch scripts: in one call as operation by operation; every activation as transformers computes it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.activations import ACT2FN

from lorat import MultiLoRAT
from lorat.activation import ACTIVATIONS, activate
from lorat.attention import BlockAttention
from lorat.cpu import scripted
from lorat.layout import OPERATORS
from lorat.packing import pack
from lorat.routing import Routing
from tests.oracle import ALL_LINEAR, make_peft

SPECS = [
    {"r": 8},
    {"r": 40, "target_modules": ALL_LINEAR},
    {"r": 4, "bias": "lora_only", "target_modules": ["query", "intermediate.dense"]},
]


@pytest.fixture(scope="module", params=["float32", "bfloat16", "float16"])
def model(tiny_path, request):
    return MultiLoRAT.from_pretrained(tiny_path, device="cpu", dtype=request.param)


@pytest.fixture(scope="module")
def slots(model, tiny_path, tmp_path_factory):
    """Each adapter twice: as low-rank products, and merged."""
    paths = [make_peft(tiny_path, tmp_path_factory.mktemp("a"), seed=n, **s).directory for n, s in enumerate(SPECS)]
    loaded = [model.load(path) for path in (*paths, *paths)]
    for slot in loaded[len(paths) :]:
        model.merge(slot)
    return loaded


def test_one_call_equals_operation_by_operation_to_the_bit(model, slots):
    packed = model._model

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 70), st.integers(0, len(slots))), min_size=1, max_size=12))
    def check(rows):
        rows = sorted(rows, key=lambda row: row[1])
        batch = pack([range(200, 200 + length) for length, _ in rows], [None] * len(rows))
        routing = Routing.of([slots[place - 1] if place else None for _, place in rows], batch.offsets)
        attention = BlockAttention(batch.lengths, packed.heads, packed.device, packed.dtype, len(batch.ids))
        with torch.inference_mode():
            expected = packed(batch.ids, batch.positions, batch.types, attention, routing)
            got = scripted.Encoder(packed)(batch, routing)
        assert got.dtype == torch.float32
        assert torch.equal(got, expected)

    check()


def test_it_is_one_call_where_torch_was_built_with_onednn():
    assert isinstance(scripted._encode, torch.jit.ScriptFunction) == OPERATORS


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_one_that_transformers_means(name):
    x = torch.linspace(-8, 8, 999)
    assert (activate(x.clone(), name) - ACT2FN[name](x)).abs().max() <= 1e-6
