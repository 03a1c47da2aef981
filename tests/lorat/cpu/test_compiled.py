"""The pass of our own kernels: against PEFT in float32, each sequence as alone, and where it is chosen."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel

import lorat.cpu
from lorat import MultiLoRAT
from lorat.layout import KERNELS, LIBRARY
from lorat.packing import pack
from lorat.routing import Routing
from tests.oracle import ALL_LINEAR, make_peft

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="Numba is not installed")
SPECS = [
    {"r": 8},
    {"r": 1, "target_modules": ["key", "value"]},
    {"r": 40, "target_modules": ALL_LINEAR},
    {"r": 16, "bias": "lora_only", "target_modules": ALL_LINEAR},
]
rows_of = st.lists(st.tuples(st.integers(1, 140), st.integers(0, 2 * len(SPECS))), min_size=1, max_size=10)


def choose(patch, *, kernels):
    """Have kernels of our own taken, or not, whatever the processor: where it has no AVX-512-bf16 they compute slowly."""
    patch.setattr(lorat.cpu, "_multiplies_by_avx512", lambda: kernels)
    patch.setattr(lorat.cpu, "_numba_compiles", lambda: kernels)


@pytest.fixture(scope="module")
def path(tmp_path_factory, tiny_path):
    """A base of a shape that the kernels take, with the tokenizer of the usual one."""
    directory = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    widths = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 192, "vocab_size": 30522}
    model = BertModel(BertConfig(**widths, num_hidden_layers=2, initializer_range=0.1))
    for name, bias in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(bias, std=0.1)
    model.save_pretrained(directory)
    for file in tiny_path.iterdir():
        if "token" in file.name or file.name == "vocab.txt":
            (directory / file.name).write_bytes(file.read_bytes())
    return directory


@pytest.fixture(scope="module")
def model(path):
    with pytest.MonkeyPatch.context() as patch:
        choose(patch, kernels=True)
        return MultiLoRAT.from_pretrained(path, device="cpu", dtype="bfloat16")


@pytest.fixture(scope="module")
def peft(path, tmp_path_factory):
    return [make_peft(path, tmp_path_factory.mktemp("a"), seed=n, **spec) for n, spec in enumerate(SPECS)]


@pytest.fixture(scope="module")
def slots(model, peft):
    """Each adapter twice: as low-rank products, and merged."""
    loaded = [model.load(one.directory) for one in (*peft, *peft)]
    for slot in loaded[len(peft) :]:
        model.merge(slot)
    return loaded


def ids_of(length):
    return [(1000 + 37 * place * length) % 30000 for place in range(length)]


def run(model, slots, rows):
    """Hidden states by row: (length, place among the slots or 0)."""
    rows = sorted(rows, key=lambda row: row[1])
    batch = pack([ids_of(length) for length, _ in rows], [None] * len(rows))
    routing = Routing.of([slots[place - 1] if place else None for _, place in rows], batch.offsets)
    with torch.inference_mode():
        hidden = model._encode(batch, routing)
    assert hidden.dtype == torch.float32
    return dict(zip(rows, hidden[: batch.offsets[-1]].split_with_sizes(list(batch.lengths)), strict=True))


@needs_numba
def test_it_is_what_peft_computes_in_float32(model, slots, peft, path):
    base = BertModel.from_pretrained(path).eval()

    @settings(max_examples=25, deadline=None)
    @given(rows_of)
    def check(rows):
        for (length, place), hidden in run(model, slots, rows).items():
            ids = torch.tensor([ids_of(length)])
            with torch.no_grad():
                without = base(ids).last_hidden_state[0]
                oracle = peft[(place - 1) % len(peft)].model if place else base
                expected = oracle(ids).last_hidden_state[0]
            assert torch.cosine_similarity(hidden, expected).min() >= 0.9995
            assert (hidden - expected).norm() <= 0.02 * expected.norm()
            if place:
                assert (hidden - expected).norm() <= 0.2 * (expected - without).norm()

    check()


@needs_numba
def test_each_sequence_is_the_same_to_the_bit_alone_and_in_any_company(model, slots):
    @settings(max_examples=25, deadline=None)
    @given(rows_of)
    def check(rows):
        for row, hidden in run(model, slots, rows).items():
            assert torch.equal(run(model, slots, [row])[row], hidden)

    check()


@needs_numba
def test_threads_do_not_meet(model, slots):
    batches = [[(length, place) for length in (3, 90)] for place in range(len(slots) + 1)] * 3
    expected = [run(model, slots, rows) for rows in batches]
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(lambda rows: run(model, slots, rows), batches))
    for one, other in zip(got, expected, strict=True):
        assert all(torch.equal(one[row], other[row]) for row in other)


@needs_numba
def test_an_adapter_that_gives_no_numbers_spoils_no_neighbour(model, path, tmp_path):
    spoiled = make_peft(path, tmp_path, seed=9, **SPECS[2])
    slot = model.load(spoiled.directory)
    try:
        for delta in slot.deltas.values():
            delta.a.fill_(torch.inf)
        slots = [slot]
        got = run(model, slots, [(5, 0), (30, 0), (31, 1), (95, 0)])
        assert not got[31, 1].isfinite().any()
        for row in ((5, 0), (30, 0), (95, 0)):
            assert torch.equal(got[row], run(model, slots, [row])[row])
    finally:
        model.unload(slot)


@needs_numba
def test_its_weights_are_the_checkpoints_whatever_was_merged(model, slots, path):
    assert model._model.layout is KERNELS
    with pytest.MonkeyPatch.context() as patch:
        choose(patch, kernels=False)
        scripted = MultiLoRAT.from_pretrained(path, device="cpu", dtype="bfloat16")
    assert scripted._model.layout is LIBRARY
    for one, other in zip(model._model.groups(), scripted._model.groups(), strict=True):
        assert torch.equal(one.weight, other.weight) and torch.equal(one.laid_out_bias, other.bias.float())


@needs_numba
def test_the_fingerprint_is_of_every_tensor_that_the_pass_reads(path):
    with pytest.MonkeyPatch.context() as patch:
        choose(patch, kernels=True)
        model = MultiLoRAT.from_pretrained(path, device="cpu", dtype="bfloat16")
    given = {tensor.data_ptr(): tensor for tensor in (*model._model.buffers(), *model._model.parameters())}
    word, position, token_type, norm, *_ = model._encode._base[0]
    addresses = [word, position, token_type, *norm, *model._encode._layers.view(np.int64)]
    assert len(set(addresses)) == 5 + 12 * len(model._model.layers)
    before = model.fingerprint()
    for address in addresses:
        tensor = given[int(address)].view(-1)
        kept = tensor[7].clone()
        tensor[7] += 1
        assert model.fingerprint() != before
        tensor[7] = kept
    assert model.fingerprint() == before


CHANGES = [{"hidden_act": "relu"}, {"hidden_size": 312, "num_attention_heads": 12}, {"intermediate_size": 1200},
           {"num_attention_heads": 24}, {"hidden_size": 448, "num_attention_heads": 13}]  # fmt: skip


def chosen(device="cpu", dtype=torch.bfloat16, **changes):
    config = {"hidden_act": "gelu", "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12}
    return lorat.cpu.layout_for(SimpleNamespace(**(config | changes)), torch.device(device), dtype)


def test_it_is_chosen_where_the_processor_the_type_and_the_shape_suit(monkeypatch):
    for quicker in (True, False):
        choose(monkeypatch, kernels=quicker)
        assert chosen() is (KERNELS if quicker and find_spec("numba") else LIBRARY)
        assert {chosen(**change) for change in CHANGES} == {LIBRARY}
        assert chosen(dtype=torch.float32) is chosen(dtype=torch.float16) is chosen(device="cuda") is LIBRARY


@pytest.mark.parametrize(
    ("known", "multiplies"),
    [({"avx512_bf16": True}, True), ({"avx512_bf16": True, "amx_bf16": True}, False), ({"avx2": True}, False)],
)
def test_a_processor_with_amx_or_without_avx_512_has_the_librarys(known, multiplies, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    monkeypatch.setattr(lorat.cpu, "_numba_compiles", lambda: True)
    assert (chosen() is KERNELS) == (multiplies and find_spec("numba") is not None)


ASK = """
import types, torch, lorat.cpu
lorat.cpu._multiplies_by_avx512 = lambda: True
config = types.SimpleNamespace(hidden_act="gelu", hidden_size=64, intermediate_size=64, num_attention_heads=2)
print(lorat.cpu.layout_for(config, torch.device("cpu"), torch.bfloat16) is lorat.cpu.LIBRARY)
"""


def asked(**environment):
    """What a process of its own says of whether the library computes, and its warnings."""
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("error", ["ImportError", "AttributeError"])
def test_a_numba_that_does_not_load_is_said_and_the_librarys_are_taken(error, tmp_path):
    (tmp_path / "numba.py").write_text(f"raise {error}('needs NumPy 2.3 or less')")
    librarys, said = asked(PYTHONPATH=f"{tmp_path}{os.pathsep}{os.getcwd()}")
    assert librarys and "needs NumPy 2.3 or less" in said


@needs_numba
@pytest.mark.parametrize(
    "settings", [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_ENABLE_AVX": "0"}, {"NUMBA_CPU_NAME": "haswell"}]
)
def test_a_numba_that_is_told_not_to_compile_for_the_processor_has_the_librarys(settings):
    assert asked(**settings) == (True, "")


@needs_numba
def test_torchs_defaults_change_nothing(model, slots):
    rows = [(5, 0), (30, 3)]
    expected = run(model, slots, rows)
    for dtype in (torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            got = run(model, slots, rows)
        finally:
            torch.set_default_dtype(torch.float32)
        assert all(torch.equal(got[row], expected[row]) for row in rows)


@pytest.mark.parametrize("quicker", [True, False])
def test_a_base_without_layers_answers(quicker, tmp_path, path, monkeypatch):
    if quicker:
        pytest.importorskip("numba")
    choose(monkeypatch, kernels=quicker)
    shutil.copytree(path, tmp_path / "base")
    base = BertModel.from_pretrained(path, num_hidden_layers=0).eval()
    base.save_pretrained(tmp_path / "base")
    model = MultiLoRAT.from_pretrained(tmp_path / "base", device="cpu", dtype="bfloat16")
    with torch.no_grad():
        expected = base(torch.tensor([ids_of(7)])).last_hidden_state[0]
    assert (run(model, [], [(7, 0)])[7, 0] - expected).abs().max() <= 2e-2
