"""What LoRAT refuses to wrap, or to save, before a person trains for nothing; and what it leaves as it was."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertForSequenceClassification, BertForTokenClassification, BertModel

from lorat import LoRAT, load_base
from lorat.errors import BaseError, BaseMismatchError, ConfigError
from lorat.files.adapter_file import read_adapter
from lorat.fingerprint import base_id
from tests.oracle import make_peft


def classifier(path, **options):
    torch.manual_seed(3)
    return BertForSequenceClassification.from_pretrained(path, **{"num_labels": 2} | options)


def state(model):
    """Everything of a model: its modules, its values, and which of them train."""
    values = {name: (p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()}
    return [type(module).__name__ for module in model.modules()], values, model.training, copy.deepcopy(model.config)


def unchanged(model, before):
    after = state(model)
    assert after[0] == before[0] and after[1].keys() == before[1].keys() and after[2] == before[2]
    assert after[3].to_dict() == before[3].to_dict()
    for name, (trains, value) in before[1].items():
        assert after[1][name][0] == trains and torch.equal(after[1][name][1], value), name


@pytest.fixture
def without_pooler(tiny_path, tmp_path):
    directory = tmp_path / "without"
    BertModel.from_pretrained(tiny_path, add_pooling_layer=False).save_pretrained(directory)
    return directory


def test_a_wrapped_model_is_not_wrapped_again(tiny_path):
    model = classifier(tiny_path)
    LoRAT(model, tune="q", layers=[2])
    before = state(model)
    for how in ({"tune": "v"}, {"tune": "q"}, {"tune": "q", "layers": [0]}):
        with pytest.raises(BaseError, match="LoRALinear"):
            LoRAT(model, **how)
        unchanged(model, before)


def mlp(model):
    model.classifier = nn.Sequential(nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, 2))


def without_bias(model):
    model.classifier = nn.Linear(32, 2, bias=False)


def more_outputs(model):
    model.classifier = nn.Linear(32, 5)


@pytest.mark.parametrize(
    ("change", "says"), [(mlp, "is a Sequential"), (without_bias, "with a bias"), (more_outputs, "5 outputs")]
)
def test_a_head_that_no_adapter_carries_is_refused_before_training(change, says, tiny_path):
    model = classifier(tiny_path)
    change(model)
    before = state(model)
    with pytest.raises(ConfigError, match=says):
        LoRAT(model)
    unchanged(model, before)


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertForTokenClassification])
@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"num_labels": 1, "problem_type": "regression"}, "problem_type is 'regression'"),
        ({"id2label": {0: "a", 1: "a"}}, "two labels are named 'a'"),
        ({"id2label": {0: "no", 1: "y" * 257}}, "labels must be a list of texts of at most 256 characters"),
        ({"id2label": {0: "no", 1: ""}}, "labels must be a list of texts"),
        ({"num_labels": 10_001}, "10001 labels: at most 10000"),
    ],
    ids=str,
)
def test_labels_that_could_not_be_served_are_refused_before_training(kind, config, says, tiny_path):
    model = kind.from_pretrained(tiny_path, **config)
    before = state(model)
    with pytest.raises(ConfigError, match=says):
        LoRAT(model)
    unchanged(model, before)


def test_one_label_of_which_transformers_makes_a_regression_is_refused(tiny_path, tmp_path):
    model = classifier(tiny_path, num_labels=1)
    before = state(model)
    with pytest.raises(ConfigError, match=r"one label and no problem_type.*'multi_label_classification'"):
        LoRAT(model)
    unchanged(model, before)
    LoRAT(classifier(tiny_path, num_labels=1, problem_type="multi_label_classification")).save(tmp_path)
    assert read_adapter(tmp_path, load_shape(tiny_path)).head.multi_label
    LoRAT(BertForTokenClassification.from_pretrained(tiny_path, num_labels=1))


def test_a_pooler_drawn_at_random_must_be_trained_and_saved(without_pooler, tmp_path):
    with pytest.raises(ConfigError, match=r"has no pooler.*modules_to_save=\['classifier', 'pooler'\]"):
        LoRAT(classifier(without_pooler))
    LoRAT(BertForTokenClassification.from_pretrained(without_pooler))
    LoRAT(classifier(without_pooler), modules_to_save=("classifier", "pooler")).save(tmp_path / "with")
    assert read_adapter(tmp_path / "with", load_shape(without_pooler)).head.pooler is not None


def load_shape(directory):
    from lorat.files.base_weights import has_pooler
    from lorat.targets import BaseShape

    config = BertModel.from_pretrained(directory).config
    return BaseShape.of(config, has_pooler=has_pooler(directory), base_id=base_id(directory))


def test_a_decoder_is_refused(tiny_path):
    with pytest.raises(BaseError, match="is_decoder"):
        LoRAT(BertModel.from_pretrained(tiny_path, is_decoder=True))


def test_layers_that_are_one_object_are_refused(tiny_path):
    model = BertModel.from_pretrained(tiny_path)
    model.encoder.layer[1] = model.encoder.layer[0]
    before = state(model)
    with pytest.raises(BaseError, match=r"encoder\.layer\.1\..* of two layers at once"):
        LoRAT(model)
    unchanged(model, before)


@pytest.mark.parametrize("changed", [{"num_attention_heads": 2}, {"hidden_act": "relu"}, {"layer_norm_eps": 1e-2}])
def test_a_model_that_computes_otherwise_than_its_checkpoint_is_not_saved(changed, tiny_path, tmp_path):
    (name,) = changed
    with pytest.raises(ConfigError, match=f"config.json: {name} is"):
        LoRAT(BertModel.from_pretrained(tiny_path, **changed)).save(tmp_path / "adapter")
    LoRAT(BertModel.from_pretrained(tiny_path)).save(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=f"config.json: {name} is"):
        LoRAT.from_pretrained(BertModel.from_pretrained(tiny_path, **changed), tmp_path / "adapter")


def test_trainers_find_the_embeddings(tiny_path):
    model = LoRAT(classifier(tiny_path))
    assert model.get_input_embeddings() is model.bert.embeddings.word_embeddings


def test_an_embedding_has_no_pooler_to_save(tiny_path):
    with pytest.raises(ConfigError, match="'pooler', and a BertModel uses none"):
        LoRAT(BertModel.from_pretrained(tiny_path), modules_to_save=("pooler",))


@pytest.mark.parametrize(
    "how", [{"alpha": "16"}, {"alpha": 1e9}, {"alpha": float("nan")}, {"tune": None}, {"layers": True}], ids=str
)
def test_values_of_another_type_or_size_are_refused(how, tiny_path):
    with pytest.raises(ConfigError, match=next(iter(how))):
        LoRAT(BertModel.from_pretrained(tiny_path), **how)


def test_numbers_of_numpy_are_saved_as_numbers(tiny_path, tmp_path):
    LoRAT(BertModel.from_pretrained(tiny_path), alpha=np.float32(16), dropout=np.float64(0.5)).save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["lora_alpha"], config["lora_dropout"]) == (16.0, 0.5)


def test_the_adapter_trains_where_the_model_does(tiny_path):
    model = BertModel.from_pretrained(tiny_path)
    assert not model.training
    assert not any(module.training for module in LoRAT(model, dropout=0.5).modules())
    model = BertModel.from_pretrained(tiny_path).train()
    assert all(module.training for module in LoRAT(model, dropout=0.5).modules())


def test_what_would_not_learn_is_not_merged(tiny_path):
    model = LoRAT(BertModel.from_pretrained(tiny_path)).train()
    with pytest.raises(ConfigError, match="call eval"):
        model.merge()
    model.eval().merge()
    model.model.train()  # as whatever holds the model, and not LoRAT, does
    assert all(layer.merged is None for _, layer in model.adapted())


def test_a_head_that_does_not_train_is_saved_all_the_same(tiny_path, tmp_path):
    model = classifier(tiny_path)
    weight = model.classifier.weight.clone()
    wrapped = LoRAT(model, modules_to_save=())
    assert not model.classifier.weight.requires_grad
    wrapped.save(tmp_path)
    assert torch.equal(read_adapter(tmp_path, load_shape(tiny_path)).head.classifier.weight, weight)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == ["classifier"]


def test_what_an_adapter_cannot_hold_is_not_left_out_silently(tiny_path, tmp_path):
    model = LoRAT(classifier(tiny_path))
    model.bert.pooler.requires_grad_(True)
    for refused in (lambda: model.save(tmp_path / "no"), model.reset):
        with pytest.raises(ConfigError, match=r"bert\.pooler\.dense\.weight trains as well"):
            refused()
    assert not (tmp_path / "no").exists()


def test_the_recipe_of_another_adapter_is_not_taken_over(tiny_path, tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"modules\.json"):
        LoRAT(BertModel.from_pretrained(tiny_path)).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["modules.json"]


def test_a_base_that_is_no_longer_its_checkpoint_has_an_id_of_its_own(tiny_path, tmp_path):
    model = BertModel.from_pretrained(tiny_path)
    model.resize_token_embeddings(len(model.embeddings.word_embeddings.weight) + 3)
    LoRAT(model).save(tmp_path / "adapter")
    with pytest.raises(BaseMismatchError, match="made for the base"):
        read_adapter(tmp_path / "adapter", load_shape(tiny_path))
    wrapped = LoRAT(BertModel.from_pretrained(tiny_path))
    wrapped.save(tmp_path / "same")
    assert read_adapter(tmp_path / "same", load_shape(tiny_path)).base_id == base_id(tiny_path)
    BertModel.from_pretrained(tiny_path).save_pretrained(tmp_path / "copy")
    changed = load_file(tmp_path / "copy" / "model.safetensors")
    changed["encoder.layer.0.output.dense.bias"] += 1
    save_file(changed, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    other = BertModel.from_pretrained(tmp_path / "copy")
    other.name_or_path = str(tiny_path)  # as one whose weights were changed after loading
    LoRAT(other).save(tmp_path / "other")
    assert json.loads((tmp_path / "other" / "lorat.json").read_text())["base_id"] == base_id(tmp_path / "copy")


def test_a_checkpoint_of_a_variant_is_not_taken_for_none(tiny_path, tmp_path):
    BertModel.from_pretrained(tiny_path).save_pretrained(tmp_path / "base", variant="fp16")
    LoRAT(BertModel.from_pretrained(tmp_path / "base", variant="fp16")).save(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "lorat.json").read_text())["base_id"] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_base_in_another_precision_is_the_same_base(dtype, tiny_path, tmp_path):
    LoRAT(BertModel.from_pretrained(tiny_path, dtype=dtype)).save(tmp_path)
    assert read_adapter(tmp_path, load_base(tiny_path).shape).base_id == base_id(tiny_path)


# ---- loading into a model


def test_labels_and_their_kind_come_back_with_the_adapter(tiny_path, tmp_path):
    names = {0: "bad", 1: "good"}
    LoRAT(classifier(tiny_path, id2label=names, problem_type="multi_label_classification")).save(tmp_path / "one")
    again = LoRAT.from_pretrained(classifier(tiny_path), tmp_path / "one")
    again.save(tmp_path / "two")
    facts = [json.loads((tmp_path / name / "lorat.json").read_text()) for name in ("one", "two")]
    assert facts[0] == facts[1] and facts[1]["labels"] == ["bad", "good"] and facts[1]["multi_label"]
    again.reset()
    assert again.config.id2label == {0: "LABEL_0", 1: "LABEL_1"} and again.config.problem_type is None


def test_one_label_of_several_is_not_taken_for_several(tiny_path, tmp_path):
    LoRAT(classifier(tiny_path)).save(tmp_path)
    with pytest.raises(ConfigError, match="problem_type"):
        LoRAT.from_pretrained(classifier(tiny_path, problem_type="multi_label_classification"), tmp_path)


def test_labels_that_say_otherwise_are_refused(tiny_path, tmp_path):
    LoRAT(classifier(tiny_path, id2label={0: "bad", 1: "good"})).save(tmp_path)
    model = classifier(tiny_path, id2label={0: "good", 1: "bad"})
    before = state(model)
    with pytest.raises(ConfigError, match=r"labels are \('bad', 'good'\), the model's \('good', 'bad'\)"):
        LoRAT.from_pretrained(model, tmp_path)
    unchanged(model, before)


def test_one_model_takes_adapters_of_other_names_one_after_another(tiny_path, tmp_path):
    for name in ("x", "y"):
        LoRAT(classifier(tiny_path, id2label={0: f"no {name}", 1: name})).save(tmp_path / name)
    model = LoRAT(classifier(tiny_path))
    for name in ("x", "y"):
        model.load(tmp_path / name)
        assert model.config.id2label == {0: f"no {name}", 1: name}


def test_a_pooler_that_an_adapter_does_not_bring_is_the_bases_again(tiny_path, tmp_path):
    LoRAT(classifier(tiny_path)).save(tmp_path)
    model = LoRAT(classifier(tiny_path), modules_to_save=("classifier", "pooler"))
    first = model.bert.pooler.dense.weight.clone()
    nn.init.normal_(model.bert.pooler.dense.weight)
    model.load(tmp_path)
    assert torch.equal(model.bert.pooler.dense.weight, first)


def test_a_pooler_that_does_not_train_is_told_how(tiny_path, tmp_path):
    LoRAT(classifier(tiny_path), modules_to_save=("classifier", "pooler")).save(tmp_path)
    with pytest.raises(ConfigError, match=r"brings pooler\.dense: wrap with modules_to_save"):
        LoRAT(classifier(tiny_path)).load(tmp_path)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"target_modules": ["query", "pooler.dense"]}, "LoRA on the pooler"),
        ({"target_modules": ["pooler.dense"]}, "LoRA on the pooler"),
        ({"target_modules": ["query"], "bias": "lora_only"}, "biases of its own"),
        ({"target_modules": ["query"], "rank_pattern": {"layer.1.attention.self.query": 2}}, "differ by layer"),
        ({"target_modules": "bert.encoder.layer.(0.attention.self.query|1.attention.self.value)"}, "differ by layer"),
        ({"num_labels": 3}, "3 labels, the model's 2"),
        ({"task": "TOKEN_CLS"}, "for token_classification"),
    ],
    ids=str,
)
def test_an_adapter_that_cannot_be_trained_on_leaves_the_model_alone(how, says, tiny_path, tmp_path):
    make_peft(tiny_path, tmp_path, **{"task": "SEQ_CLS", "r": 4} | how)
    model = classifier(tiny_path)
    before = state(model)
    with pytest.raises(ConfigError, match=says):
        LoRAT.from_pretrained(model, tmp_path)
    unchanged(model, before)


def test_an_adapter_of_another_base_leaves_the_model_alone(tiny_path, tmp_path):
    LoRAT(classifier(tiny_path)).save(tmp_path)
    facts = json.loads((tmp_path / "lorat.json").read_text()) | {"base_id": "0" * 64}
    (tmp_path / "lorat.json").write_text(json.dumps(facts))
    model = classifier(tiny_path)
    before = state(model)
    with pytest.raises(BaseMismatchError):
        LoRAT.from_pretrained(model, tmp_path)
    unchanged(model, before)
