"""Reading a base's weights, against transformers' own loading."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

from lorat import MultiLoRAT, Row, Tokens
from lorat.errors import BaseError
from lorat.files.base_weights import read_base_weights
from lorat.fingerprint import base_id

WEIGHTS = "model.safetensors"
DISTANCES = "encoder.layer.0.attention.self.distance_embedding.weight"
QUERY = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def copy(tiny_path, tmp_path):
    return shutil.copytree(tiny_path, tmp_path / "copy")


def rewrite(directory, change):
    save_file(change(load_file(directory / WEIGHTS)), directory / WEIGHTS, metadata={"format": "pt"})


def hidden(directory, ids):
    """Last hidden states by MultiLoRAT and by transformers."""
    model = MultiLoRAT.from_pretrained(directory, device="cpu")
    (got,) = model.forward([Row(Tokens(ids), task="hidden_states")])
    with torch.no_grad():
        expected = BertModel.from_pretrained(directory).eval()(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return got, expected


def test_every_tensor_is_what_transformers_loads(tiny_path):
    model = BertModel.from_pretrained(tiny_path)
    got = read_base_weights(tiny_path, model.config, torch.device("cpu"), torch.float32)
    expected = model.state_dict()
    assert got.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in got.items())


def older(weights):
    return {f"bert.{name}".replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensor.clone()
            for name, tensor in weights.items()}  # fmt: skip


def test_the_names_of_the_first_berts_are_read(copy):
    rewrite(copy, older)
    got, expected = hidden(copy, [101, 2000, 3000, 102])
    assert (got - expected).abs().max() <= 1e-5


def test_shards_are_read(copy, tiny_path):
    BertModel.from_pretrained(tiny_path).save_pretrained(copy, max_shard_size="200KB")
    (copy / WEIGHTS).unlink(missing_ok=True)
    assert len(list(copy.glob("model-*.safetensors"))) > 1
    got, expected = hidden(copy, [101, 2000, 102])
    assert (got - expected).abs().max() <= 1e-5
    assert base_id(copy) == base_id(tiny_path)


@pytest.mark.parametrize("name", ["relu", "gelu_new", "silu"])
def test_other_activations_are_transformers_own(name, copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_act": name}))
    got, expected = hidden(copy, [101, 2000, 3000, 4000, 102])
    assert (got - expected).abs().max() <= 1e-5


def test_an_activation_that_nobody_knows_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_act": "wavy"}))
    with pytest.raises(BaseError, match="hidden_act 'wavy' is unknown"):
        MultiLoRAT.from_pretrained(copy, device="cpu")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: {name: t for name, t in w.items() if name != QUERY}, f"lack '{QUERY}' .1 tensors"),
        (lambda w: w | {QUERY: w[QUERY][:-1].clone()}, rf"'{QUERY}' is \[31, 32\], its config.json says \[32, 32\]"),
        (lambda w: w | {QUERY: w[QUERY].to(torch.int8)}, f"'{QUERY}' is torch.int8"),
        (lambda w: w | {QUERY: w[QUERY].to(torch.float8_e4m3fn)}, f"'{QUERY}' is torch.float8_e4m3fn"),
        (lambda w: w | {QUERY: w[QUERY] * torch.nan}, f"'{QUERY}' holds NaN"),
        (lambda w: w | {f"{QUERY}_scale_inv": torch.ones(1)}, f"hold '{QUERY}_scale_inv', which BERT's encoder"),
        (lambda w: w | {DISTANCES: torch.ones(1)}, f"hold '{DISTANCES}'"),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused(change, says, copy):
    rewrite(copy, change)
    with pytest.raises(BaseError, match=says):
        MultiLoRAT.from_pretrained(copy, device="cpu")


def test_other_positions_are_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"position_embedding_type": "relative_key"}))
    with pytest.raises(BaseError, match="position_embedding_type is 'relative_key'"):
        MultiLoRAT.from_pretrained(copy, device="cpu")


def test_layers_that_the_config_cuts_are_left_out_as_in_transformers(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    got, expected = hidden(copy, [101, 2000, 3000, 102])
    assert (got - expected).abs().max() <= 1e-5


def test_a_damaged_file_is_refused(copy):
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(BaseError, match="cannot be read"):
        MultiLoRAT.from_pretrained(copy, device="cpu")


def test_what_was_read_does_not_follow_its_file(copy):
    model = MultiLoRAT.from_pretrained(copy, device="cpu")
    before = model.fingerprint()
    with (copy / WEIGHTS).open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\1" * 4096)
    assert model.fingerprint() == before
