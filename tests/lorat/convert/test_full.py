"""Whole models: transformers' own answers at full rank, numpy's singular values below it."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from lorat import MultiLoRAT, read_adapter
from lorat.convert import convert
from lorat.errors import AdapterFileError, BaseMismatchError, ConfigError, UnsupportedAdapterError
from tests.lorat.convert.answers import IDS, assert_same, expected, served

NAMES = ("query", "key", "value", "output.dense", "intermediate.dense")
KINDS = [BertModel, BertForSequenceClassification, BertForTokenClassification]


def tuned(kind, base, directory, *, change=0.05, layers=(0, 1, 2), names=NAMES, biases=True, **options):
    """A fine-tune of `base` whose linear layers differ, saved as transformers saves it."""
    torch.manual_seed(1)
    model = kind.from_pretrained(base, **options).eval()
    with torch.no_grad():
        for path, module in getattr(model, "bert", model).encoder.named_modules():
            if (
                isinstance(module, torch.nn.Linear)
                and path.endswith(tuple(names))
                and int(path.split(".")[1]) in layers
            ):
                module.weight += change * torch.randn_like(module.weight)
                if biases:
                    module.bias += change * torch.randn_like(module.bias)
    model.save_pretrained(directory)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [32, 200])
def test_at_full_rank_it_answers_as_the_model_does(kind, rank, tiny_path, tmp_path):
    options = {} if kind is BertModel else {"num_labels": 3, "id2label": {0: "x", 1: "y", 2: "z"}}
    model = tuned(kind, tiny_path, tmp_path / "model", **options)
    report = convert(tmp_path / "model", tmp_path / "out", base=tiny_path, rank=rank)
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-4)
    assert (report.kind, report.rank, report.alpha, report.layers) == ("full", 32, 32, (0, 1, 2))
    assert report.labels == (() if kind is BertModel else ("x", "y", "z"))
    assert report.error <= 1e-7 and len(report.errors) == 18 and report.biases


@pytest.mark.parametrize("rank", [1, 4, 20])
def test_the_error_is_what_the_dropped_singular_values_come_to(rank, tiny_path, tmp_path):
    model = tuned(BertModel, tiny_path, tmp_path / "model", biases=False)
    report = convert(tmp_path / "model", tmp_path / "out", base=tiny_path, rank=rank)
    base = BertModel.from_pretrained(tiny_path)
    adapter = read_adapter(tmp_path / "out", MultiLoRAT.from_pretrained(tiny_path, device="cpu").base.shape)
    lost = whole = 0.0
    for site, lora in adapter.lora.items():
        delta = (model.get_submodule(site.module).weight - base.get_submodule(site.module).weight).detach().numpy()
        delta = delta.astype(np.float64)
        squares = np.linalg.svd(delta, compute_uv=False) ** 2
        away = np.linalg.norm(delta - lora.scaling * (lora.b @ lora.a).numpy())
        assert report.errors[site.module] == pytest.approx(np.sqrt(squares[rank:].sum() / squares.sum()), rel=1e-6)
        assert report.errors[site.module] == pytest.approx(away / np.linalg.norm(delta), rel=1e-5)
        lost, whole = lost + squares[rank:].sum(), whole + squares.sum()
    assert report.error == pytest.approx(np.sqrt(lost / whole), rel=1e-6)
    assert not report.biases and f"together: {report.error:.3g}" in str(report)


def test_the_factors_share_the_singular_values(tiny_path, tmp_path):
    tuned(BertModel, tiny_path, tmp_path / "model", names=("query",), layers=(1,), biases=False)
    convert(tmp_path / "model", tmp_path / "out", base=tiny_path, rank=3)
    shape = MultiLoRAT.from_pretrained(tiny_path, device="cpu").base.shape
    [lora] = read_adapter(tmp_path / "out", shape).lora.values()
    assert (lora.rank, lora.scaling) == (3, 1)
    torch.testing.assert_close(lora.a.norm(dim=1), lora.b.norm(dim=0))


@pytest.mark.parametrize("options", [{"layers": (1,)}, {"layers": (0, 2), "names": ("query", "value")}])
def test_what_did_not_change_is_left_out(options, tiny_path, tmp_path):
    model = tuned(BertModel, tiny_path, tmp_path / "model", **options)
    report = convert(tmp_path / "model", tmp_path / "out", base=tiny_path)
    assert report.layers == options["layers"] and len(report.targets) == (2 if "names" in options else 6)
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-4)


def test_a_changed_bias_alone_and_layers_of_different_targets(tiny_path, tmp_path):
    model = tuned(BertModel, tiny_path, tmp_path / "model", names=("query",), layers=(0,))
    with torch.no_grad():
        model.encoder.layer[2].output.dense.bias += 1
    model.save_pretrained(tmp_path / "model")
    report = convert(tmp_path / "model", tmp_path / "out", base=tiny_path, rank=32)
    assert report.layers == (0, 2) and report.targets == ("query", "ffn_output")
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-4)


def test_a_trained_pooler_comes_along_and_a_head_alone_is_an_adapter(tiny_path, tmp_path):
    model = tuned(
        BertForSequenceClassification,
        tiny_path,
        tmp_path / "model",
        layers=(),
        problem_type="multi_label_classification",
    )
    with torch.no_grad():
        model.bert.pooler.dense.bias += 1
    model.save_pretrained(tmp_path / "model")
    report = convert(tmp_path / "model", tmp_path / "out", base=tiny_path, labels=["no", "yes"])
    assert report.labels == ("no", "yes") and len(report.head) == 4
    assert json.loads((tmp_path / "out/lorat.json").read_text())["multi_label"] is True
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-4)


@pytest.mark.parametrize(
    "name", ["embeddings.word_embeddings.weight", "encoder.layer.1.output.LayerNorm.weight", "pooler.dense.weight"]
)
def test_what_no_adapter_carries_is_refused_by_name_or_dropped_and_measured(name, tiny_path, tmp_path):
    model = tuned(BertModel, tiny_path, tmp_path / "model")
    wanted = expected(model)
    with torch.no_grad():
        model.get_parameter(name).mul_(1.25)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(UnsupportedAdapterError, match=f"{name}': changed by 0.25 of its norm.*--drop"):
        convert(tmp_path / "model", tmp_path / "out", base=tiny_path)
    assert not (tmp_path / "out").exists()
    report = convert(tmp_path / "model", tmp_path / "out", base=tiny_path, rank=32, drop=True)
    assert report.dropped == {name: pytest.approx(0.25, rel=1e-3)}
    assert_same(served(tmp_path / "out", tiny_path), wanted, atol=1e-4)


def test_a_changed_vocabulary_is_refused(tiny_path, tmp_path):
    tuned(BertModel, tiny_path, tmp_path / "model")
    shutil.copy(tiny_path / "vocab.txt", tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "same", base=tiny_path)
    words = (tmp_path / "model/vocab.txt").read_text(encoding="utf-8").split("\n")
    words[5000], words[5001] = words[5001], words[5000]
    (tmp_path / "model/vocab.txt").write_text("\n".join(words), encoding="utf-8")
    with pytest.raises(UnsupportedAdapterError, match="the vocabulary"):
        convert(tmp_path / "model", tmp_path / "out", base=tiny_path)
    (tmp_path / "model/vocab.txt").unlink()
    text = (tiny_path / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "model/tokenizer.json").write_text(
        text.replace('"lowercase":true', '"lowercase":false').replace('"lowercase": true', '"lowercase": false'),
        encoding="utf-8",
    )
    with pytest.raises(UnsupportedAdapterError, match="the tokenizer's normalizer"):
        convert(tmp_path / "model", tmp_path / "out", base=tiny_path)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [("num_hidden_layers", 4, BaseMismatchError), ("hidden_act", "relu", BaseMismatchError), ("model_type", "roberta", BaseMismatchError),
     ("layer_norm_eps", 1e-5, BaseMismatchError), ("architectures", ["BertForMaskedLM"], UnsupportedAdapterError),
     ("architectures", None, UnsupportedAdapterError), ("problem_type", "regression", UnsupportedAdapterError)],
)  # fmt: skip
def test_another_architecture_is_refused_by_field(field, value, error, tiny_path, tmp_path):
    tuned(BertModel, tiny_path, tmp_path / "model")
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(error, match=f"config.json: {field} is"):
        convert(tmp_path / "model", tmp_path / "out", base=tiny_path)


@pytest.mark.parametrize(
    ("names", "says"),
    [({"0": None, "1": "b"}, "id2label must map numbers to names"), ({"1": "a", "2": "b"}, "id2label must map '0'"),
     ({"0": "a" * 300, "1": "b"}, "at most 256"), ({"0": "a", "1": "b", "2": "c"}, "3 labels are given"), ({"0": "a", "1": "a"}, "name each once")],
)  # fmt: skip
def test_labels_that_could_not_be_served_are_refused(names, says, tiny_path, tmp_path):
    tuned(BertForSequenceClassification, tiny_path, tmp_path / "model")
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": names}))
    with pytest.raises((AdapterFileError, ConfigError), match=says):
        convert(tmp_path / "model", tmp_path / "out", base=tiny_path)


def test_other_sources_are_refused(tiny_path, tmp_path):
    BertForMaskedLM.from_pretrained(tiny_path).save_pretrained(tmp_path / "mlm")
    with pytest.raises(UnsupportedAdapterError, match="BertForMaskedLM"):
        convert(tmp_path / "mlm", tmp_path / "out", base=tiny_path)
    with pytest.raises(ConfigError, match="no linear layer differs"):
        convert(tiny_path, tmp_path / "out", base=tiny_path)
    with pytest.raises(ConfigError, match="leave it out"):
        convert(tiny_path, tmp_path / "out", base=tiny_path, alpha=3)
    for task in ("token_classification", "embedding"):
        with pytest.raises(ConfigError, match=r"config\.json says it, leave it out"):
            convert(tiny_path, tmp_path / "out", base=tiny_path, task=task)
    with pytest.raises(AdapterFileError, match="from its directory"):
        convert(tiny_path / "model.safetensors", tmp_path / "out", base=tiny_path)
    larger = BertConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, vocab_size=99)
    BertModel(larger).save_pretrained(tmp_path / "larger")
    with pytest.raises(BaseMismatchError, match="hidden_size is 64, the base has 32"):
        convert(tmp_path / "larger", tmp_path / "out", base=tiny_path)


@pytest.mark.parametrize("folder", ["", "0_Transformer"])
def test_sentence_transformers_keep_their_recipe(folder, tiny_path, tmp_path):
    source = tmp_path / "model"
    model = tuned(BertModel, tiny_path, source / folder)
    with torch.no_grad():  # which vectors do not read
        model.pooler.dense.weight += 1
    model.save_pretrained(source / folder)
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling/config.json").write_text('{"word_embedding_dimension": 32, "pooling_mode_cls_token": true}')
    (source / folder / "sentence_bert_config.json").write_text('{"max_seq_length": 77}')
    (source / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: "}}')
    kinds = [("Transformer", folder), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(kinds)
    ]
    (source / "modules.json").write_text(json.dumps(entries))

    report = convert(source, tmp_path / "out", base=tiny_path, rank=32)
    assert report.recipe and any("pooler" in note for note in report.notes)
    recipe = read_adapter(tmp_path / "out", MultiLoRAT.from_pretrained(tiny_path, device="cpu").base.shape).recipe
    assert (recipe.pooling, recipe.normalize, recipe.max_length, recipe.prompts) == (
        ("cls",),
        True,
        77,
        {"query": "q: "},
    )
    with torch.no_grad():
        wanted = [model(torch.tensor([ids])).last_hidden_state[0, 0] for ids in IDS]
    assert_same(served(tmp_path / "out", tiny_path), wanted, atol=1e-4)
