"""Checkpoints of the original LoRAT and of loralib; their arithmetic, written out here, is the oracle."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import BertForSequenceClassification, BertForTokenClassification, BertModel

from lorat.convert import convert
from lorat.errors import AdapterFileError, BaseMismatchError, ConfigError, UnsupportedAdapterError
from tests.lorat.convert.answers import assert_same, expected, served

MODULES = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "o": "attention.output.dense", "i": "intermediate.dense", "d": "output.dense",
}  # fmt: skip
ALPHA, RANK = 12, 3


class Original(nn.Module):
    """y = Wx + b + (alpha / rank) B A x around a layer that is kept whole."""

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.original_module = linear
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(0.3 * torch.randn(rank, linear.in_features))
        self.lora_B = nn.Parameter(0.3 * torch.randn(linear.out_features, rank))

    def forward(self, x):
        return self.original_module(x) + self.scale * (x @ self.lora_A.T @ self.lora_B.T)


class Low(nn.Linear):
    """The same in a layer that is itself the linear one, as loralib names it."""

    def __init__(self, linear, rank, alpha):
        super().__init__(linear.in_features, linear.out_features)
        self.load_state_dict(linear.state_dict())
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(0.3 * torch.randn(rank, linear.in_features))
        self.lora_B = nn.Parameter(0.3 * torch.randn(linear.out_features, rank))

    def forward(self, x):
        return x @ (self.weight + self.scale * self.lora_B @ self.lora_A).T + self.bias


class Wrapped(nn.Module):
    """Whatever holds the model under `bert`."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert


def wrap(bert, layer, tune="qkov", rank=RANK, alpha=ALPHA, layers=(0, 1, 2), seed=0):
    torch.manual_seed(seed)
    encoder = getattr(bert, "bert", bert).encoder
    for index in layers:
        for letter in tune:
            parent, _, name = MODULES[letter].rpartition(".")
            owner = encoder.layer[index].get_submodule(parent)
            setattr(owner, name, layer(getattr(owner, name), rank, alpha))
    return bert.eval()


def saved(model, path, prefix="bert."):
    """Its state dict in a file; the same for every kind of file."""
    state = {prefix + name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("tune", ["qkov", "q", "qkovid"])
@pytest.mark.parametrize("file", ["model.pt", "model.safetensors"])
def test_an_original_checkpoint_computes_what_it_computed(tune, file, tiny_path, tmp_path):
    model = wrap(BertModel.from_pretrained(tiny_path), Original, tune)
    report = convert(saved(model, tmp_path / file), tmp_path / "out", base=tiny_path, alpha=ALPHA)
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-5)
    assert (report.kind, report.task, report.rank, report.alpha) == ("lorat", "embedding", RANK, ALPHA)
    assert report.layers == (0, 1, 2) and len(report.targets) == len(tune)
    assert not report.dropped and not report.errors and not report.biases
    assert "the base's weights inside are this base's" in report.notes


@pytest.mark.parametrize("options", [{"tune": "qv"}, {"tune": "vd", "layers": (0, 2)}, {"tune": "qkovid", "rank": 5}])
@pytest.mark.parametrize("whole", [True, False])
def test_a_loralib_checkpoint_computes_what_it_computed(options, whole, tiny_path, tmp_path):
    model = wrap(BertModel.from_pretrained(tiny_path), Low, **options)
    state = {name: tensor for name, tensor in model.state_dict().items() if whole or "lora_" in name}
    torch.save(state, tmp_path / "lora.pt")
    report = convert(tmp_path / "lora.pt", tmp_path / "out", base=tiny_path, alpha=ALPHA)
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-5)
    assert report.kind == "loralib" and report.layers == options.get("layers", (0, 1, 2))
    assert whole or any("nothing shows" in note for note in report.notes)


@pytest.mark.parametrize("layer", [Original, Low])
def test_ranks_and_sites_may_differ(layer, tiny_path, tmp_path):
    model = wrap(BertModel.from_pretrained(tiny_path), layer, "q", layers=(0,))
    model = wrap(model, layer, "kd", rank=7, layers=(2,))
    report = convert(saved(model, tmp_path / "a.pt"), tmp_path / "out", base=tiny_path, alpha=ALPHA)
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-5)
    assert report.rank == 7 and report.layers == (0, 2)


def test_a_classifier_and_a_trained_pooler_come_along(tiny_path, tmp_path):
    model = wrap(BertForSequenceClassification.from_pretrained(tiny_path, num_labels=3), Original)
    path = saved(model, tmp_path / "a.pt", prefix="")
    report = convert(path, tmp_path / "out", base=tiny_path, alpha=ALPHA, labels=["a", "b", "c"])
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-5)
    assert report.labels == ("a", "b", "c") and report.head == ("classifier.weight", "classifier.bias")
    with torch.no_grad():
        model.bert.pooler.dense.weight += 0.2 * torch.randn(32, 32)
    path = saved(model, tmp_path / "b.pt")  # `bert.bert.…`, as the original wraps a model with a head
    report = convert(path, tmp_path / "pooler", base=tiny_path, alpha=ALPHA)
    assert_same(served(tmp_path / "pooler", tiny_path), expected(model), atol=1e-5)
    assert "pooler.dense.weight" in report.head and report.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize("layer", [Original, Low])
def test_a_classifier_of_words_is_known_by_the_pooler_that_it_lacks(layer, tiny_path, tmp_path):
    model = wrap(BertForTokenClassification.from_pretrained(tiny_path, num_labels=3), layer)
    report = convert(saved(model, tmp_path / "a.pt", ""), tmp_path / "out", base=tiny_path, alpha=ALPHA)
    assert report.task == "token_classification"
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-5)


@pytest.mark.parametrize("kind", [BertForTokenClassification, BertForSequenceClassification])
def test_what_a_classifier_without_its_base_is_for_must_be_told(kind, tiny_path, tmp_path):
    model = wrap(kind.from_pretrained(tiny_path, num_labels=3), Low)
    state = {name: t for name, t in model.state_dict().items() if "lora_" in name or name.startswith("classifier")}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=r"what its classifier is for: give task= \(--task\)"):
        convert(tmp_path / "a.pt", tmp_path / "out", base=tiny_path, alpha=ALPHA)
    task = "token_classification" if kind is BertForTokenClassification else "sequence_classification"
    assert convert(tmp_path / "a.pt", tmp_path / "out", base=tiny_path, alpha=ALPHA, task=task).task == task
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-5)


@pytest.mark.parametrize("task", ["token_classification", "regression"])
def test_a_task_that_the_source_has_no_head_for_is_refused(task, tiny_path, tmp_path):
    path = saved(wrap(BertModel.from_pretrained(tiny_path), Low), tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=f"task='{task}'"):
        convert(path, tmp_path / "out", base=tiny_path, alpha=ALPHA, task=task)
    assert not (tmp_path / "out").exists()


def test_peft_opens_the_result(tiny_path, tmp_path):
    from peft import PeftModel

    model = wrap(BertForSequenceClassification.from_pretrained(tiny_path, num_labels=3), Original, "qd")
    model = wrap(model, Original, "v", rank=2, layers=(1,))
    convert(saved(model, tmp_path / "a.pt"), tmp_path / "out", base=tiny_path, alpha=ALPHA)
    plain = BertForSequenceClassification.from_pretrained(tiny_path, num_labels=3)
    peft = PeftModel.from_pretrained(plain, tmp_path / "out")
    assert_same(expected(peft.eval()), expected(model), atol=1e-5)


def test_biases_of_adapted_layers_come_along_and_others_are_refused(tiny_path, tmp_path):
    model = wrap(BertModel.from_pretrained(tiny_path), Low, "qv")
    with torch.no_grad():
        for layer in model.encoder.layer[:2]:
            layer.attention.self.query.bias += torch.randn(32)
    report = convert(saved(model, tmp_path / "a.pt"), tmp_path / "out", base=tiny_path, alpha=ALPHA)
    assert report.biases and json.loads((tmp_path / "out/adapter_config.json").read_text())["bias"] == "lora_only"
    assert_same(served(tmp_path / "out", tiny_path), expected(model), atol=1e-5)

    wanted = expected(model)
    with torch.no_grad():
        model.encoder.layer[1].output.LayerNorm.bias += 1
        model.encoder.layer[0].attention.self.key.bias += 1
    path = saved(model, tmp_path / "b.pt")
    with pytest.raises(UnsupportedAdapterError, match=r"layer\.0\.attention\.self\.key\.bias.*layer\.1\.output\.Layer"):
        convert(path, tmp_path / "refused", base=tiny_path, alpha=ALPHA)
    report = convert(path, tmp_path / "dropped", base=tiny_path, alpha=ALPHA, drop=True)
    assert len(report.dropped) == 2 and "dropped encoder.layer.0.attention.self.key.bias" in str(report)
    assert_same(served(tmp_path / "dropped", tiny_path), wanted, atol=1e-5)


def test_a_half_precision_checkpoint_of_the_same_base_is_recognised(tiny_path, tmp_path):
    model = wrap(BertModel.from_pretrained(tiny_path), Original, "qv")
    state = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    torch.save(state, tmp_path / "a.pt")
    report = convert(tmp_path / "a.pt", tmp_path / "out", base=tiny_path, alpha=ALPHA)
    assert not report.dropped


def test_what_was_saved_merged_is_refused(tiny_path, tmp_path):
    model = wrap(BertModel.from_pretrained(tiny_path), Original, "qv")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Original):
                module.original_module.weight += module.scale * module.lora_B @ module.lora_A
    path = saved(model, tmp_path / "a.pt")
    for alpha in (ALPHA, 1):  # whatever alpha is
        with pytest.raises(AdapterFileError, match=r"query\.weight.*eval mode.*train\(\)"):
            convert(path, tmp_path / "out", base=tiny_path, alpha=alpha, drop=True)


def test_another_base_is_refused_and_named(tiny_path, tmp_path):
    other = BertModel(BertModel.from_pretrained(tiny_path).config)
    path = saved(wrap(other, Original, "qv"), tmp_path / "a.pt")
    with pytest.raises(BaseMismatchError, match=r"layer\.0\.attention\.self\.query\.weight.*another base"):
        convert(path, tmp_path / "out", base=tiny_path, alpha=ALPHA, drop=True)


def test_mode_part_is_refused_and_named(tiny_path, tmp_path):
    model = wrap(BertModel.from_pretrained(tiny_path), Original, "qv")
    with torch.no_grad():
        model.embeddings.word_embeddings.weight *= 1.01
    path = saved(model, tmp_path / "a.pt")
    with pytest.raises(UnsupportedAdapterError, match=r"mode='part'.*word_embeddings\.weight': changed by 0\.01 of"):
        convert(path, tmp_path / "out", base=tiny_path, alpha=ALPHA)


def change_one(state, old, new, tensor=None):
    state[new] = state.pop(old) if tensor is None else tensor


@pytest.mark.parametrize(
    ("name", "shape", "error", "match"),
    [
        ("bert.pooler.dense.lora_A", (3, 32), UnsupportedAdapterError, "pooler.dense' has LoRA"),
        ("bert.embeddings.word_embeddings.lora_A", (3, 9), UnsupportedAdapterError, "word_embeddings' has LoRA"),
        ("transformer.h.0.attn.c_attn.lora_A", (6, 32), UnsupportedAdapterError, "MergedLinear"),
        ("bert.encoder.layer.0.attention.self.query.lora_A", (6, 32), UnsupportedAdapterError, "MergedLinear"),
        ("bert.encoder.layer.3.attention.self.query.lora_A", (3, 32), BaseMismatchError, "the base has 3 layers"),
        ("bert.encoder.layer.0.attention.self.query.lora_A", (3, 31), BaseMismatchError, r"needs \[rank, 32\]"),
        ("bert.encoder.layer.0.attention.self.query.lora_A", (3, 32, 1), BaseMismatchError, r"needs \[rank, 32\]"),
        ("bert.encoder.layer.0.intermediate.dense.lora_A", (3, 32), AdapterFileError, "has no lora_B"),
        ("bert.encoder.layer.0.strange.weight", (3, 32), UnsupportedAdapterError, "strange.weight': new"),
        ("classifier.bias", (3,), UnsupportedAdapterError, "classifier.bias': new"),
        ("score.weight", (3, 32), UnsupportedAdapterError, "score.weight': new"),
        ("bert.embeddings.position_ids", (1, 3), UnsupportedAdapterError, "position_ids"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(name, shape, error, match, tiny_path, tmp_path):
    state = {
        "bert." + key: tensor
        for key, tensor in wrap(BertModel.from_pretrained(tiny_path), Low, "qv").state_dict().items()
    }
    torch.save(state | {name: torch.ones(shape)}, tmp_path / "a.pt")
    with pytest.raises(error, match=match):
        convert(tmp_path / "a.pt", tmp_path / "out", base=tiny_path, alpha=ALPHA)
    assert not (tmp_path / "out").exists()


def test_what_the_file_does_not_hold_must_be_said(tiny_path, tmp_path):
    path = saved(wrap(BertModel.from_pretrained(tiny_path), Original, "q"), tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=r"alpha is not in such a checkpoint.*32"):
        convert(path, tmp_path / "out", base=tiny_path)
    for wrong, match in [
        ({"rank": 4}, "rank=4"), ({"labels": ["a"]}, "1 labels are given"), ({"alpha": 0}, "alpha=0"),
        ({"alpha": float("nan")}, "alpha=nan"), ({"kind": "peft"}, "kind='peft'"), ({"rank": True}, "rank=True"),
        ({"rank": 1000}, "rank=1000"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=match):
            convert(path, tmp_path / "out", base=tiny_path, **{"alpha": ALPHA, **wrong})
    with pytest.raises(ConfigError, match="alpha is not"):
        convert(path, tmp_path / "out", base=tiny_path, kind="loralib")
