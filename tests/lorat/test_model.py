"""LoRAT as a person uses it: wrap, infer, train, merge, save, load; PEFT as the oracle."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    RobertaConfig,
    RobertaModel,
    Trainer,
    TrainingArguments,
)

from lorat import LoRAT, MultiLoRAT, Row
from lorat.errors import BaseError, ConfigError, UnsupportedAdapterError
from tests.full_disk import room_for
from tests.oracle import ALL_LINEAR, make_peft

KINDS = [BertModel, BertForSequenceClassification, BertForTokenClassification]
TEXTS = ["What is LoRA?", "a", "one frozen base and many adapters"]


@pytest.fixture(scope="module")
def tokens(tiny_path):
    return AutoTokenizer.from_pretrained(tiny_path)(TEXTS, padding=True, return_tensors="pt")


def randomize(model, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def first(output):
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_returns_what_the_wrapped_model_returns(kind, tiny_path, tokens):
    torch.manual_seed(0)
    model = kind.from_pretrained(tiny_path).eval()
    expected = model(**tokens)
    wrapped = LoRAT(model).eval()
    got = wrapped(**tokens)
    assert type(got) is type(expected)
    assert torch.equal(first(got), first(expected))
    assert wrapped.bert.config.model_type == "bert"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"rank": 3, "alpha": 6, "tune": "qkovid"}, {"tune": "vd", "layers": [0, -1]}])
def test_what_it_saves_opens_in_peft_and_serves_the_same(kind, options, tiny_path, tokens, tmp_path):
    wrapped = randomize(LoRAT(kind.from_pretrained(tiny_path), **options))
    wrapped.save(tmp_path)
    expected = first(wrapped(**tokens))

    peft = PeftModel.from_pretrained(kind.from_pretrained(tiny_path), tmp_path).eval()
    torch.testing.assert_close(first(peft(**tokens)), expected, atol=1e-5, rtol=0)

    again = LoRAT.from_pretrained(kind.from_pretrained(tiny_path), tmp_path).eval()
    torch.testing.assert_close(first(again(**tokens)), expected, atol=1e-5, rtol=0)

    server = MultiLoRAT.from_pretrained(tiny_path, device="cpu")
    slot = server.load(tmp_path)
    rows = [Row(tokens, slot, slot.adapter.task) for tokens in server.base.tokenizer.encode(TEXTS)]
    for position, got in enumerate(server.forward(rows)):
        mask = tokens["attention_mask"][position].bool()
        wanted = expected[position] if kind is BertForSequenceClassification else expected[position][mask]
        wanted = wanted.mean(0) if kind is BertModel else wanted
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=0)


def test_it_loads_what_peft_saved(tiny_path, tokens, tmp_path):
    peft = make_peft(tiny_path, tmp_path, task="SEQ_CLS", num_labels=3, r=4, target_modules=ALL_LINEAR)
    model = BertForSequenceClassification.from_pretrained(tiny_path, num_labels=3)
    wrapped = LoRAT.from_pretrained(model, tmp_path).eval()
    torch.testing.assert_close(wrapped(**tokens).logits, peft.model(**tokens).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_merge_and_unmerge_restore_the_base_bit_for_bit(dtype, tiny_path, tokens):
    wrapped = randomize(LoRAT(BertModel.from_pretrained(tiny_path, dtype=dtype), tune="qkovid"))
    state = {name: tensor.clone() for name, tensor in wrapped.model.state_dict().items()}
    before = wrapped(**tokens).last_hidden_state
    for _ in range(100):
        wrapped.merge()
        wrapped.unmerge()
    wrapped.merge()
    merged = wrapped(**tokens).last_hidden_state
    wrapped.unmerge()
    assert all(torch.equal(state[name], tensor) for name, tensor in wrapped.model.state_dict().items())
    assert torch.equal(wrapped(**tokens).last_hidden_state, before)
    bound = {torch.float32: 1e-5, torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    assert (merged - before).abs().max() <= bound
    wrapped.merge()
    wrapped.train()
    assert all(layer.merged is None for _, layer in wrapped.adapted())


def test_eval_does_not_merge_so_a_saved_state_is_not_applied_twice(tiny_path, tokens):
    wrapped = randomize(LoRAT(BertModel.from_pretrained(tiny_path)))
    expected = wrapped(**tokens).last_hidden_state
    again = LoRAT(BertModel.from_pretrained(tiny_path))
    again.load_state_dict(wrapped.eval().state_dict())
    assert torch.equal(again.eval()(**tokens).last_hidden_state, expected)


def test_all_trains_the_adapter_and_part_freezes_only_what_is_wrapped(tiny_path):
    names = lambda model: {name for name, p in model.named_parameters() if p.requires_grad}  # noqa: E731
    everything = names(LoRAT(BertModel.from_pretrained(tiny_path), tune="q"))
    assert everything and all(name.endswith(("lora_A", "lora_B")) for name in everything)
    head = names(LoRAT(BertForSequenceClassification.from_pretrained(tiny_path)))
    assert {"model.classifier.weight", "model.classifier.bias"} < head
    part = names(LoRAT(BertModel.from_pretrained(tiny_path), tune="q", mode="part"))
    assert "model.encoder.layer.0.attention.self.key.weight" in part
    assert "model.encoder.layer.0.attention.self.query.linear.weight" not in part


def test_the_number_of_trainable_parameters_is_that_of_the_shapes(tiny_path, capsys):
    wrapped = LoRAT(BertModel.from_pretrained(tiny_path), rank=4, tune="qid", layers=[0, 2])
    assert wrapped.trainable_parameters()[0] == 2 * 4 * ((32 + 32) + (32 + 64) + (64 + 32))
    wrapped.print_trainable_parameters()
    assert "trainable: 2,048 of" in capsys.readouterr().out


def test_the_five_steps_of_the_original_readme(tiny_path, tmp_path):
    """Load, wrap, tokenise, infer, train with transformers' Trainer."""
    torch.manual_seed(0)
    model = LoRAT(
        BertForSequenceClassification.from_pretrained(tiny_path, num_labels=2), rank=4, tune=["query", "value"]
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_path)
    texts, labels = ["good fine great", "bad awful poor"] * 16, [1, 0] * 16
    assert model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.shape == (32, 2)
    data = [{**tokenizer(text), "labels": label, "text": text} for text, label in zip(texts, labels, strict=True)]
    arguments = TrainingArguments(
        tmp_path, num_train_epochs=15, learning_rate=2e-2, report_to=[], logging_strategy="no", use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    base = {name: t.clone() for name, t in model.model.state_dict().items() if name.endswith("linear.weight")}
    Trainer(model, arguments, train_dataset=data, processing_class=tokenizer).train()
    logits = model.eval()(**tokenizer(texts[:2], padding=True, return_tensors="pt")).logits
    assert logits.argmax(-1).tolist() == [1, 0]
    assert base and all(torch.equal(base[name], model.model.state_dict()[name]) for name in base)


def test_labels_and_their_kind_are_saved(tiny_path, tmp_path):
    model = BertForSequenceClassification.from_pretrained(
        tiny_path, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1}, problem_type="multi_label_classification"
    )
    LoRAT(model).save(tmp_path, description="yes or no", tags=["demo"])
    facts = json.loads((tmp_path / "lorat.json").read_text())
    assert (facts["labels"], facts["multi_label"], facts["tags"]) == (["no", "yes"], True, ["demo"])
    assert len(facts["base_id"]) == 64


@pytest.mark.parametrize(
    ("config", "how", "says"),
    [
        ({"id2label": {0: "yes", 1: "yes"}}, {}, "two labels are named 'yes'"),
        ({"id2label": {0: "no", 1: "y" * 257}}, {}, "labels must be a list of texts of at most 256 characters"),
        ({"id2label": {0: "no", 1: ""}}, {}, "labels must be a list of texts"),
        ({}, {"description": "x" * 10_001}, "description must be a text of at most 10000"),
        ({}, {"tags": ["x" * 65]}, "tags must be"),
        ({"problem_type": "regression"}, {}, "problem_type is 'regression'"),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(config, how, says, tiny_path, tmp_path):
    model = LoRAT(BertForSequenceClassification.from_pretrained(tiny_path))
    for name, value in config.items():
        setattr(model.config, name, value)  # after it was wrapped, which refuses it too
    with pytest.raises(ConfigError, match=says):
        model.save(tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", [True, False])
def test_on_a_full_disk_nothing_is_saved_and_what_was_there_stays(there, tiny_path, tmp_path):
    out = tmp_path / "out"
    if there:
        LoRAT(BertModel.from_pretrained(tiny_path), tune="q").save(out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    model = LoRAT(BertModel.from_pretrained(tiny_path), rank=8)
    with room_for(2048), pytest.raises(ConfigError, match="out cannot be written: File too large"):
        model.save(out)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert out.exists() == there


def test_weights_that_are_not_finite_are_not_saved(tiny_path, tmp_path):
    model = LoRAT(BertForSequenceClassification.from_pretrained(tiny_path))
    torch.nn.init.constant_(model.model.classifier.bias, torch.nan)
    with pytest.raises(ConfigError, match="bias is not finite: training diverged"):
        model.save(tmp_path / "out")


def test_models_that_cannot_be_wrapped_are_refused(tiny_path):
    tiny = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 10,
    }
    for model in (
        RobertaModel(RobertaConfig(**tiny)),
        BertForMaskedLM.from_pretrained(tiny_path),
        torch.nn.Linear(2, 2),
    ):
        with pytest.raises(BaseError, match="cannot wrap"):
            LoRAT(model)
    with pytest.raises(BaseError, match="LoRALinear"):
        LoRAT(LoRAT(BertModel.from_pretrained(tiny_path)).bert)
    with pytest.raises(ConfigError, match="modules_to_save"):
        LoRAT(BertModel.from_pretrained(tiny_path), modules_to_save=["encoder"])
    for wrong in ({"tune": "xyz"}, {"mode": "everything"}, {"layers": [7]}):
        with pytest.raises(ConfigError):
            LoRAT(BertModel.from_pretrained(tiny_path), **wrong)


def test_a_part_result_is_no_adapter(tiny_path, tmp_path):
    with pytest.raises(ConfigError, match="mode='part'"):
        LoRAT(BertModel.from_pretrained(tiny_path), mode="part").save(tmp_path)
    LoRAT(BertModel.from_pretrained(tiny_path)).save(tmp_path)
    facts = json.loads((tmp_path / "lorat.json").read_text())
    (tmp_path / "lorat.json").write_text(json.dumps(facts | {"mode": "part"}))
    with pytest.raises(UnsupportedAdapterError, match="mode='part'"):
        LoRAT(BertModel.from_pretrained(tiny_path)).load(tmp_path)


def test_an_adapter_that_does_not_fit_the_model_is_refused(tiny_path, tmp_path):
    LoRAT(BertForSequenceClassification.from_pretrained(tiny_path, num_labels=3), rank=2).save(tmp_path)
    with pytest.raises(ConfigError, match="for embedding"):
        LoRAT(BertModel.from_pretrained(tiny_path), rank=2).load(tmp_path)
    with pytest.raises(ConfigError, match="layers"):
        LoRAT(BertForSequenceClassification.from_pretrained(tiny_path, num_labels=3), rank=2, tune="q").load(tmp_path)
    with pytest.raises(ConfigError, match="rank"):
        LoRAT(BertForSequenceClassification.from_pretrained(tiny_path, num_labels=3), rank=4).load(tmp_path)
    with pytest.raises(ConfigError, match="classifier"):
        LoRAT(BertForSequenceClassification.from_pretrained(tiny_path, num_labels=2), rank=2).load(tmp_path)
