"""Many adapters in one model, against PEFT, sentence-transformers and each row alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from lorat import MultiLoRAT, Row, Tokens
from lorat.errors import (
    AdapterFileError,
    BaseMismatchError,
    InputError,
    InputTooLongError,
    NoHeadError,
    NotLoadedError,
    SlotsFullError,
)
from lorat.files.adapter_file import read_adapter
from lorat.layout import lay_out
from lorat.targets import Site
from tests.oracle import ALL_LINEAR, make_peft

TEXTS = ["a", "", "  spaced out  ", "What is LoRA?", "word " * 20, "naïve café 日本語 🙂", "long " * 600, "x" * 300]


def rows(model, texts, slot=None, task="embedding", max_length=256):
    return [Row(tokens, slot, task) for tokens in model.base.tokenizer.encode(texts, max_length=max_length)]


def normalized(tensor):
    return torch.nn.functional.normalize(tensor, dim=-1)


@pytest.mark.parametrize("size", [1, 3, len(TEXTS)])
def test_base_vectors_equal_sentence_transformers_in_any_batch(minilm, minilm_path, size):
    expected = SentenceTransformer(str(minilm_path), device="cpu").encode(TEXTS, normalize_embeddings=True)
    got = np.concatenate([minilm.embed(TEXTS[i : i + size]) for i in range(0, len(TEXTS), size)])
    assert np.abs(got - expected).max() <= 2e-5


def test_one_forward_holds_embeddings_and_heads_of_different_sizes_and_equals_peft(minilm, minilm_path, tmp_path):
    specs = [
        {"r": 8},
        {"r": 33, "target_modules": ALL_LINEAR, "use_rslora": True},
        {"r": 4, "task": "SEQ_CLS", "num_labels": 2},
        {"r": 1, "task": "SEQ_CLS", "num_labels": 77, "target_modules": ["query", "key", "value", "dense"]},
        {"r": 4, "task": "TOKEN_CLS", "num_labels": 5},
        {"r": 6, "rank_pattern": {"layer.0.attention.self.query": 2}, "alpha_pattern": {"value": 32}},
        {"r": 4, "bias": "lora_only", "target_modules": ["query", "intermediate.dense"]},
    ]
    made = [make_peft(minilm_path, tmp_path / str(i), seed=i, **spec) for i, spec in enumerate(specs)]
    slots = [minilm.load(adapter.directory) for adapter in made]
    try:
        mixed = [row for slot in slots for row in rows(minilm, TEXTS, slot, slot.adapter.task)]
        mixed = [row for pair in zip(mixed, rows(minilm, TEXTS * len(slots)), strict=True) for row in pair]
        got = minilm.forward(mixed)
        for index, (slot, adapter) in enumerate(zip(slots, made, strict=True)):
            mine = got[2 * index * len(TEXTS) : 2 * (index + 1) * len(TEXTS) : 2]
            for answer, expected in zip(mine, adapter.answers(TEXTS), strict=True):
                answer = normalized(answer) if slot.adapter.task == "embedding" else answer
                assert (answer - expected).abs().max() <= 5e-5
        plain = [minilm.forward([row])[0] for row in rows(minilm, TEXTS)]
        for answer, expected in zip(got[1::2], plain * len(slots), strict=True):
            assert (answer - expected).abs().max() <= 1e-5
    finally:
        for slot in slots:
            minilm.unload(slot)


@torch.no_grad()
def test_hidden_states_beside_other_rows_are_those_of_peft(minilm, minilm_path, tmp_path):
    adapter = make_peft(minilm_path, tmp_path, r=4, task="SEQ_CLS")
    slot = minilm.load(adapter.directory)
    try:
        asked = rows(minilm, TEXTS, slot, "hidden_states")
        mixed = [row for pair in zip(asked, rows(minilm, TEXTS, slot, slot.adapter.task), strict=True) for row in pair]
        encoder = adapter.model.base_model.model.bert
        for states, text in zip(minilm.forward(mixed)[::2], TEXTS, strict=True):
            tokens = adapter.tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
            assert (states - encoder(**tokens).last_hidden_state[0]).abs().max() <= 5e-5
    finally:
        minilm.unload(slot)


def test_together_equals_alone_with_some_merged(minilm, minilm_path, tmp_path):
    slots = [minilm.load(make_peft(minilm_path, tmp_path / str(i), seed=i, r=i + 1).directory) for i in range(4)]
    try:
        minilm.merge(slots[1])
        minilm.merge(slots[3])
        batch = [row for slot in [None, *slots] for row in rows(minilm, TEXTS, slot)]
        together = minilm.forward(batch)
        for slot in slots:
            minilm.unmerge(slot)
        for row, answer in zip(batch, together, strict=True):
            assert (answer - minilm.forward([row])[0]).abs().max() <= 1e-5
    finally:
        for slot in slots:
            minilm.unload(slot)


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.9995), ("float16", 0.99999)])
def test_half_precision_stays_close_and_merged_to_unmerged(minilm, minilm_path, tmp_path, dtype, bound):
    adapter = make_peft(minilm_path, tmp_path / "a", r=8)
    half = MultiLoRAT.from_pretrained(device="cpu", dtype=dtype)
    slot = half.load(adapter.directory)
    unmerged = torch.tensor(half.embed(TEXTS, slot))
    half.merge(slot)
    merged = torch.tensor(half.embed(TEXTS, slot))
    for answer, other, expected in zip(unmerged, merged, adapter.answers(TEXTS), strict=True):
        assert answer @ expected >= bound
        assert other @ answer >= bound


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.016), ("float16", 0.0025)])
def test_half_precision_keeps_what_an_adapter_changes(minilm, minilm_path, tmp_path, dtype, bound):
    adapter = make_peft(minilm_path, tmp_path / "a", r=8)
    half = MultiLoRAT.from_pretrained(device="cpu", dtype=dtype)
    slot = half.load(adapter.directory)
    effect = torch.tensor(half.embed(TEXTS, slot) - half.embed(TEXTS))
    expected = torch.stack(adapter.answers(TEXTS)) - torch.tensor(minilm.embed(TEXTS))
    assert ((effect - expected).norm(dim=1) / expected.norm(dim=1)).mean() <= bound


def test_threads_share_a_model_while_adapters_come_and_go(tiny, tiny_path, tmp_path):
    made = [make_peft(tiny_path, tmp_path / str(i), seed=i, r=4, size=0.3) for i in range(4)]
    expected = [adapter.answers(TEXTS, 512) for adapter in made]
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            tiny.unload(tiny.load(made[0].directory))

    def ask(index):
        slot = tiny.load(made[index].directory)
        for _ in range(30):
            for answer, wanted in zip(
                tiny.forward(rows(tiny, TEXTS, slot, max_length=512)), expected[index], strict=True
            ):
                assert (normalized(answer) - wanted).abs().max() <= 5e-5
        tiny.unload(slot)

    with ThreadPoolExecutor(5) as threads:
        churning = threads.submit(churn)
        asking = [threads.submit(ask, index) for index in range(4)]
        try:
            for future in asking:
                future.result()
        finally:
            stop.set()
        churning.result()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_merges_loads_and_evictions_never_change_the_base(tiny_path, tmp_path, dtype):
    model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", dtype=dtype, slots=2)
    before = model.fingerprint()
    adapter = make_peft(tiny_path, tmp_path / "a", r=4, target_modules=ALL_LINEAR).directory
    slot = model.load(adapter)
    plain = model.embed(TEXTS)
    for _ in range(1_000):
        model.merge(slot)
        model.unmerge(slot)
    content = slot.adapter
    for _ in range(200):
        model.unload(model.load(content))
    model.forward(rows(model, TEXTS, slot))
    assert model.fingerprint() == before
    assert np.array_equal(model.embed(TEXTS), plain)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_fingerprint_reads_the_weights_as_they_are_laid_out(tiny_path, dtype):
    model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", dtype=dtype)
    before = model.fingerprint()
    linear = model._model.layers[1].linears["output"]
    weight = linear.weight.clone()
    weight[3, 5] += 1
    linear.laid_out = lay_out(weight)
    assert model.fingerprint() != before


def test_a_failed_load_leaves_nothing(tiny, tiny_path, tmp_path):
    from safetensors.torch import load_file, save_file

    directory = make_peft(tiny_path, tmp_path / "a", r=4).directory
    weights = load_file(directory / "adapter_model.safetensors")
    weights[next(iter(weights))][0, 0] = float("nan")
    save_file(weights, directory / "adapter_model.safetensors")
    before, free = tiny.fingerprint(), tiny.slots.free
    with pytest.raises(Exception, match="NaN"):
        tiny.load(directory)
    assert (tiny.fingerprint(), tiny.slots.free) == (before, free)


def test_slots_are_limited_and_an_unloaded_one_is_refused(tiny, tiny_path, tmp_path):
    directory = make_peft(tiny_path, tmp_path / "a", r=2, task="SEQ_CLS").directory
    slots = [tiny.load(directory) for _ in range(tiny.slots.capacity)]
    with pytest.raises(SlotsFullError, match="unload one"):
        tiny.load(directory)
    tiny.unload(slots[0])
    for task in ("embedding", "sequence_classification"):
        with pytest.raises(NotLoadedError, match="load it again"):
            tiny.forward(rows(tiny, ["a"], slots[0], task))
    with pytest.raises(NotLoadedError):
        tiny.unload(slots[0])
    assert tiny.load(directory).index == slots[0].index


def test_rows_that_cannot_be_run_are_named(tiny, tiny_path, tmp_path):
    slot = tiny.load(make_peft(tiny_path, tmp_path / "a", r=2).directory)
    with pytest.raises(NoHeadError, match="sequence_classification"):
        tiny.forward(rows(tiny, ["a"], slot, "sequence_classification"))
    with pytest.raises(NoHeadError):
        tiny.forward(rows(tiny, ["a"], None, "token_classification"))
    with pytest.raises(InputError, match="no tokens"):
        tiny.forward([Row(Tokens([]))])
    with pytest.raises(InputTooLongError, match="512"):
        tiny.forward([Row(Tokens([101] * 513))])
    vocabulary = tiny.base.tokenizer.vocabulary
    for wrong in (-1, vocabulary):
        with pytest.raises(InputError, match=f"outside the vocabulary of {vocabulary}"):
            tiny.forward([Row(Tokens([101, 102])), Row(Tokens([101, wrong, 102]))])
    for types in ([0], [0, 0, 1], [0, 2], [0, -1]):
        with pytest.raises(InputError, match="types must be as many as its ids"):
            tiny.forward([Row(Tokens([101, 102], types))])
    tiny.unload(slot)


def test_nothing_is_answered_with_nothing_and_one_text_is_no_list(tiny, tiny_path, tmp_path):
    slot = tiny.load(make_peft(tiny_path, tmp_path / "a", r=2, task="SEQ_CLS").directory)
    assert tiny.forward([]) == []
    assert tiny.embed([]).shape == (0, tiny.embed(["a"]).shape[1])
    assert tiny.classify([], slot) == []
    for ask in (tiny.embed, lambda text: tiny.classify(text, slot)):
        with pytest.raises(InputError, match="give a list of texts"):
            ask("hello")
    for wrong in ("name", [slot, None]):
        with pytest.raises(InputError, match=r"give what load\(\) returned"):
            tiny.embed(["hello", "there"], wrong)
    with pytest.raises(InputError, match="slot is NoneType"):
        tiny.classify(["hello"], None)
    tiny.unload(slot)


def test_an_adapter_object_of_another_base_is_refused(tiny, tiny_path, minilm, minilm_path, tmp_path):
    ours = read_adapter(make_peft(tiny_path, tmp_path / "a", r=2).directory, tiny.base.shape)
    wide = read_adapter(make_peft(minilm_path, tmp_path / "b", r=2).directory, minilm.base.shape)
    deep = replace(ours, lora={Site(7, "query"): ours.lora[Site(0, "query")]})
    other = replace(ours, base_id="0" * 64)
    for wrong in (wide, deep, other):
        for take in (tiny.load, tiny.prepare):
            with pytest.raises(BaseMismatchError):
                take(wrong)
    narrow = MultiLoRAT(tiny.base, slots=1, max_rank=1)
    with pytest.raises(AdapterFileError, match="rank 2, over the limit of 1"):
        narrow.load(ours)
    assert narrow.slots.free == 1


def test_a_slot_of_another_model_is_refused(tiny, tiny_path, tmp_path):
    other = MultiLoRAT(tiny.base, slots=1)
    slot = other.load(make_peft(tiny_path, tmp_path / "a", r=2).directory)
    free = tiny.slots.free
    for take in (lambda slot: tiny.forward(rows(tiny, ["a"], slot)), tiny.merge, tiny.unmerge, tiny.unload):
        with pytest.raises(NotLoadedError, match="another MultiLoRAT"):
            take(slot)
    assert (tiny.slots.free, other.slots.free, slot.merged) == (free, 0, {})
    other.merge(slot)
    other.unload(slot)
    assert other.slots.free == 1


def test_a_slot_of_a_trial_can_be_merged_and_takes_no_place(tiny, tiny_path, tmp_path):
    adapter = read_adapter(make_peft(tiny_path, tmp_path / "a", r=2).directory, tiny.base.shape)
    trial, free = tiny.prepare(adapter), tiny.slots.free
    plain = tiny.embed(["a"], trial)
    tiny.merge(trial)
    assert abs(tiny.embed(["a"], trial) - plain).max() < 1e-5
    with pytest.raises(NotLoadedError, match="let go of it"):
        tiny.unload(trial)
    assert tiny.slots.free == free and tiny.load(adapter).index > 0


def test_of_many_who_unload_a_slot_one_does(tiny, tiny_path, tmp_path):
    other = MultiLoRAT(tiny.base, slots=1)
    directory = make_peft(tiny_path, tmp_path / "a", r=2).directory

    def unload(slot):
        try:
            other.unload(slot)
        except NotLoadedError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as threads:
        for _ in range(50):
            assert sum(threads.map(unload, [other.load(directory)] * 4)) == 1
            assert other.slots.free == 1


def test_a_classifier_answers_by_label_and_embeds_with_its_own_lora(minilm, minilm_path, tmp_path):
    adapter = make_peft(minilm_path, tmp_path / "a", task="SEQ_CLS", num_labels=3, r=4)
    slot = minilm.load(adapter.directory)
    scores = minilm.classify(["hello", ("a question", "its answer")], slot)
    expected = torch.stack(adapter.answers(["hello", ("a question", "its answer")])).softmax(-1)
    assert list(scores[0]) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert torch.allclose(torch.tensor([list(row.values()) for row in scores]), expected, atol=5e-5)
    assert np.abs(minilm.embed(["hello"], slot) - minilm.embed(["hello"])).max() > 1e-3
    minilm.unload(slot)
