"""Probes catch a wrong base and changed files before the first answer."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import BertForSequenceClassification, BertModel

from lorat import LoRAT, MultiLoRAT, read_adapter
from lorat.errors import AdapterFileError, ProbeError
from lorat.probes import make_probes, verify_probes, write_probes
from tests.oracle import make_peft

TEXTS = ["What is LoRA?", "one frozen base and many adapters"]
KINDS = [{}, {"task": "SEQ_CLS", "num_labels": 3}, {"task": "TOKEN_CLS", "num_labels": 5}]


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_answers_its_probes_in_every_dtype(kind, tiny, tiny_path, tmp_path):
    slot = tiny.load(make_peft(tiny_path, tmp_path / "a", r=4, **kind).directory)
    adapter = replace(slot.adapter, probes=make_probes(tiny, slot, TEXTS))
    for dtype in ("float32", "bfloat16", "float16"):
        model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", dtype=dtype, slots=1)
        verify_probes(model, adapter)
        assert model.slots.free == 1


def test_probes_are_what_peft_answers(tiny, tiny_path, tmp_path):
    made = make_peft(tiny_path, tmp_path / "a", r=4)
    for probe, expected in zip(make_probes(tiny, tiny.load(made.directory), TEXTS), made.answers(TEXTS), strict=True):
        assert (torch.tensor(probe.expected) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_another_base_and_other_weights_are_caught(kind, tiny, tiny_path, tmp_path):
    slot = tiny.load(make_peft(tiny_path, tmp_path / "a", r=4, **kind).directory)
    other = tiny.load(make_peft(tiny_path, tmp_path / "b", r=4, seed=1, size=0.5, **kind).directory)
    changed = replace(other.adapter, probes=make_probes(tiny, slot, TEXTS))
    with pytest.raises(ProbeError, match="not the one it was trained on"):
        verify_probes(tiny, changed)
    with torch.no_grad():
        wrong = MultiLoRAT.from_pretrained(tiny_path, device="cpu")
        wrong._model.word += 0.2 * torch.randn_like(wrong._model.word)
    with pytest.raises(ProbeError):
        verify_probes(wrong, replace(slot.adapter, probes=make_probes(tiny, slot, TEXTS)))


def test_a_probe_of_another_width_is_named(tiny, tiny_path, tmp_path):
    slot = tiny.load(make_peft(tiny_path, tmp_path / "a", r=4).directory)
    [probe] = make_probes(tiny, slot, TEXTS[:1])
    with pytest.raises(ProbeError, match="expects 3 values"):
        verify_probes(tiny, replace(slot.adapter, probes=(replace(probe, expected=probe.expected[:3]),)))


def test_probes_are_kept_beside_the_weights(tiny, tiny_path, tmp_path):
    LoRAT(BertModel.from_pretrained(tiny_path), rank=2).save(tmp_path)
    write_probes(tmp_path, tiny, TEXTS)
    adapter = read_adapter(tmp_path, tiny.base.shape)
    assert [probe.text for probe in adapter.probes] == TEXTS
    verify_probes(tiny, adapter)


def test_adding_probes_changes_no_text(tiny, tiny_path, tmp_path):
    labels = ["age 10, 20", "[ 1, 2 ]", "3,\n  4"]
    model = BertForSequenceClassification.from_pretrained(tiny_path, num_labels=3, id2label=dict(enumerate(labels)))
    LoRAT(model, rank=2).save(tmp_path, description="of [ 7, 8 ],\n 9", tags=["1,  2"])
    write_probes(tmp_path, tiny, ["between 10, 20", "[ 5,\u2028 6 ]"])
    adapter = read_adapter(tmp_path, tiny.base.shape)
    assert adapter.head is not None and list(adapter.head.labels) == labels
    assert (adapter.description, adapter.tags) == ("of [ 7, 8 ],\n 9", ("1,  2",))
    assert [probe.text for probe in adapter.probes] == ["between 10, 20", "[ 5,\u2028 6 ]"]
    assert len((tmp_path / "lorat.json").read_text("utf-8").split("\n")) < 40  # a vector on one line


def test_without_texts_there_are_no_probes(tiny, tiny_path, tmp_path):
    LoRAT(BertModel.from_pretrained(tiny_path), rank=2).save(tmp_path)
    write_probes(tmp_path, tiny, [])
    assert read_adapter(tmp_path, tiny.base.shape).probes == ()


@pytest.mark.parametrize(
    "probes",
    ["x", [1], [{"text": "a"}], [{"text": 1, "expected": []}], [{"text": "a", "expected": ["b"]}],
     [{"text": "a", "expected": [True]}], [{"text": "a", "expected": [1e12]}], [{"text": "a", "expected": []}] * 17],
)  # fmt: skip
def test_probes_of_another_form_are_refused(probes, tiny, tiny_path, tmp_path):
    LoRAT(BertModel.from_pretrained(tiny_path), rank=2).save(tmp_path)
    facts = json.loads((tmp_path / "lorat.json").read_text())
    (tmp_path / "lorat.json").write_text(json.dumps(facts | {"probes": probes}))
    with pytest.raises(AdapterFileError, match="probes must be"):
        read_adapter(tmp_path, tiny.base.shape)
