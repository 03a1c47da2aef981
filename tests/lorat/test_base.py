"""Finding, verifying and loading bases."""

import json
import shutil

import pytest
import torch
from transformers import BertForSequenceClassification, BertModel

from lorat import MultiLoRAT, load_base
from lorat.base import EMBEDDED_NAME, choose_device, choose_dtype
from lorat.errors import AdapterFileError, BaseError
from lorat.fingerprint import base_id, fingerprint
from tests.conftest import TOKENIZER_FILES
from tests.oracle import make_peft


def test_the_embedded_base_is_the_published_one(minilm):
    assert minilm.base.name == EMBEDDED_NAME
    assert minilm.base.shape.has_pooler
    assert minilm.base.recipe.max_length == 256
    assert minilm.base.recipe.normalize


def test_a_tampered_embedded_base_is_refused(monkeypatch):
    monkeypatch.setattr("lorat.base.EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(BaseError, match="install it again"):
        load_base()


def test_the_base_id_is_that_of_the_encoder_under_any_head(tiny_path, tmp_path):
    BertForSequenceClassification.from_pretrained(tiny_path).save_pretrained(tmp_path)
    assert base_id(tmp_path) == base_id(tiny_path)
    other = BertModel.from_pretrained(tiny_path)
    with torch.no_grad():
        other.encoder.layer[0].attention.self.query.weight[0, 0] += 1e-6
    other.save_pretrained(tmp_path)
    assert base_id(tmp_path) != base_id(tiny_path)


def test_the_fingerprint_sees_every_bit_of_every_tensor(tiny_path):
    model = BertModel.from_pretrained(tiny_path)
    before = fingerprint(model)
    assert fingerprint(BertModel.from_pretrained(tiny_path)) == before
    with torch.no_grad():
        bias = model.encoder.layer[2].output.LayerNorm.bias
        bias[5] = torch.nextafter(bias[5], torch.tensor(1.0))
    assert fingerprint(model) != before


def test_a_base_that_is_no_embedding_model_is_pooled_by_the_mean(tiny):
    assert tiny.base.recipe.pooling == ("mean",)
    assert not tiny.base.recipe.normalize


def test_a_classifier_s_checkpoint_serves_as_a_base(tiny_path, tmp_path, tiny):
    BertForSequenceClassification.from_pretrained(tiny_path).save_pretrained(tmp_path)
    for name in TOKENIZER_FILES:
        shutil.copy(tiny_path / name, tmp_path)
    assert (MultiLoRAT.from_pretrained(tmp_path, device="cpu").embed(["a"]) == tiny.embed(["a"])).all()


def test_a_base_without_pooler_refuses_a_classifier_that_brings_none(tiny_path, tmp_path):
    bare = tmp_path / "bare"
    BertModel.from_pretrained(tiny_path, add_pooling_layer=False).save_pretrained(bare)
    for name in TOKENIZER_FILES:
        shutil.copy(tiny_path / name, bare)
    model = MultiLoRAT.from_pretrained(bare, device="cpu")
    assert not model.base.shape.has_pooler
    without = make_peft(tiny_path, tmp_path / "without", task="SEQ_CLS", r=2)
    with pytest.raises(AdapterFileError, match="no pooler"):
        model.load(without.directory)
    brings = make_peft(tiny_path, tmp_path / "with", task="SEQ_CLS", r=2, modules_to_save=["classifier", "pooler"])
    scores = model.classify(["hello"], model.load(brings.directory))
    expected = brings.answers(["hello"])[0].softmax(-1)
    assert torch.allclose(torch.tensor(list(scores[0].values())), expected, atol=1e-5)


def test_a_hub_id_is_loaded_from_the_hub_s_cache(tiny_path, tmp_path, monkeypatch, tiny):
    snapshot = tmp_path / "models--some-org--some-bert" / "snapshots" / "abc"
    shutil.copytree(tiny_path, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = MultiLoRAT.from_pretrained("some-org/some-bert", device="cpu")
    assert model.base.name == "some-org/some-bert"
    assert model.fingerprint() == tiny.fingerprint()


@pytest.mark.parametrize(
    ("source", "says"), [("/not/there", "not a directory"), ("./nor/here", "not a directory"), ("no-such-org/x", "hub")]
)
def test_bases_that_are_not_there_are_named(source, says):
    with pytest.raises(BaseError, match=says):
        load_base(source)


def test_other_families_and_pickled_weights_are_refused(tiny_path, tmp_path):
    shutil.copytree(tiny_path, tmp_path / "family")
    config = json.loads((tiny_path / "config.json").read_text())
    (tmp_path / "family" / "config.json").write_text(json.dumps(config | {"model_type": "roberta"}))
    with pytest.raises(BaseError, match="roberta"):
        load_base(tmp_path / "family")
    shutil.copytree(tiny_path, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(BaseError, match="pickles are not read"):
        load_base(tmp_path / "pickled")
    (tmp_path / "pickled" / "config.json").write_text("{")
    with pytest.raises(BaseError, match=r"config\.json"):
        load_base(tmp_path / "pickled")


def test_devices_and_dtypes():
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) is torch.float32
    assert choose_dtype("auto", torch.device("cuda")) is torch.bfloat16
    for call in (lambda: choose_dtype("int8", cpu), lambda: choose_device("tpu")):
        with pytest.raises(BaseError):
            call()
