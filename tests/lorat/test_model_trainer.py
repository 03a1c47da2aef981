"""LoRAT in transformers' Trainer and in sentence-transformers': losses, checkpoints, resuming, the best epoch."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from lorat import LoRAT, MultiLoRAT
from lorat.training.adapter_trainer import AdapterTrainer

GOOD, BAD = "good fine great food", "bad awful poor"
HIDDEN, LAYERS, RANK = 32, 3, 4
TRAINED = LAYERS * 2 * RANK * (HIDDEN + HIDDEN) + 2 * HIDDEN + 2  # query and value; the head
NAMES = LAYERS * 2 * 2 + 2


class Interrupted(Exception):
    pass


class StopsAfter(TrainerCallback):
    """Dies in the middle, as a machine does."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Interrupted


@pytest.fixture(scope="module")
def tokenizer(tiny_path):
    return AutoTokenizer.from_pretrained(tiny_path)


@pytest.fixture(scope="module")
def rows(tokenizer):
    texts = [GOOD, BAD, f"{GOOD} {GOOD}", f"{BAD} {BAD} thing"] * 6
    return Dataset.from_list([{**tokenizer(text), "labels": 1 - place % 2} for place, text in enumerate(texts)])


def wrapped(tiny_path, **options):
    torch.manual_seed(7)
    model = BertForSequenceClassification.from_pretrained(tiny_path, num_labels=2)
    return LoRAT(model, **{"rank": RANK, "tune": "qv", "dropout": 0.1} | options)


def trainer(model, tmp_path, rows, tokenizer, callbacks=(), optimizers=(None, None), **options):
    settings = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "report_to": [],
        "logging_strategy": "no",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return Trainer(
        model,
        TrainingArguments(tmp_path, **settings | options),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
        compute_metrics=lambda out: {"accuracy": float((np.argmax(out.predictions, -1) == out.label_ids).mean())},
        callbacks=list(callbacks),
        optimizers=optimizers,
    )


def values(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def data_bytes(path):
    """Of a safetensors file, without its header."""
    content = path.read_bytes()
    return len(content) - 8 - int.from_bytes(content[:8], "little")


def test_it_trains_and_is_evaluated(tiny_path, tmp_path, rows, tokenizer):
    model = wrapped(tiny_path)
    base = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    run = trainer(model, tmp_path, rows, tokenizer, num_train_epochs=10)
    before = run.evaluate()
    run.train()
    after = run.evaluate()
    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_accuracy"] == 1.0
    assert run.predict(rows).predictions.shape == (24, 2)
    assert same(base, {name: p for name, p in model.named_parameters() if not p.requires_grad})


def test_tokens_are_labelled_too(tiny_path, tmp_path, tokenizer):
    model = LoRAT(BertForTokenClassification.from_pretrained(tiny_path, num_labels=3), rank=2, tune="qv")
    encoded = [tokenizer(text) for text in (GOOD, BAD) * 8]
    rows = Dataset.from_list([{**row, "labels": [-100, *[i % 3 for i in row["input_ids"][1:]]]} for row in encoded])
    run = trainer(model, tmp_path, rows, tokenizer, num_train_epochs=15)
    run.data_collator, run.compute_metrics = DataCollatorForTokenClassification(tokenizer), None
    before = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < 0.7 * before


def test_a_checkpoint_holds_only_what_trains(tiny_path, tmp_path, rows, tokenizer):
    model = wrapped(tiny_path)
    run = trainer(model, tmp_path, rows, tokenizer, num_train_epochs=1, save_strategy="epoch")
    run.train()
    path = tmp_path / "checkpoint-3" / "model.safetensors"
    assert data_bytes(path) == 4 * TRAINED
    assert same(load_file(path), values(model))
    assert len(load_file(path)) == NAMES
    run.save_model(tmp_path / "final")
    assert same(load_file(tmp_path / "final" / "model.safetensors"), values(model))


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(tiny_path, tmp_path, rows, tokenizer):
    whole = wrapped(tiny_path)
    trainer(whole, tmp_path / "whole", rows, tokenizer).train()
    options = {"save_strategy": "steps", "save_steps": 2}
    broken = trainer(wrapped(tiny_path), tmp_path / "broken", rows, tokenizer, [StopsAfter(5)], **options)
    with pytest.raises(Interrupted):
        broken.train()
    torch.manual_seed(99)  # another process
    resumed = LoRAT(whole.model.from_pretrained(tiny_path, num_labels=2), rank=RANK, tune="qv", dropout=0.1)
    assert not same(values(resumed), values(whole))
    trainer(resumed, tmp_path / "broken", rows, tokenizer, **options).train(resume_from_checkpoint=True)
    assert same(values(resumed), values(whole))


def test_accumulated_batches_are_one_batch(tiny_path, tmp_path, rows, tokenizer):
    trained = []
    for size, steps in ((8, 1), (2, 4)):
        model = wrapped(tiny_path, dropout=0.0)
        for dropout in filter(lambda module: isinstance(module, torch.nn.Dropout), model.modules()):
            dropout.p = 0.0
        trainer(
            model, tmp_path / str(size), rows.select(range(8)), tokenizer, per_device_train_batch_size=size,
            gradient_accumulation_steps=steps, max_steps=1, optim="sgd", max_grad_norm=0, learning_rate=0.5,
        ).train()  # fmt: skip
        trained.append(values(model))
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, atol=1e-6, rtol=1e-4)


def test_the_best_epoch_comes_back(tiny_path, tmp_path, rows, tokenizer):
    model = wrapped(tiny_path)
    run = trainer(
        model, tmp_path, rows, tokenizer, num_train_epochs=4, learning_rate=0.3, lr_scheduler_type="constant",
        eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="loss",
    )  # fmt: skip
    run.train()
    losses = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    best = 3 * (1 + int(np.argmin(losses)))
    assert run.state.best_model_checkpoint.endswith(f"checkpoint-{best}") and losses[-1] > min(losses)
    assert same(load_file(tmp_path / f"checkpoint-{best}" / "model.safetensors"), values(model))
    assert run.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-6)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_activations_give_the_same_weights(reentrant, tiny_path, tmp_path, rows, tokenizer):
    plain, spared = wrapped(tiny_path, tune="qkovid"), wrapped(tiny_path, tune="qkovid")
    trainer(plain, tmp_path, rows, tokenizer).train()
    kept, handle = count_calls(spared.bert.encoder.layer[0].output.dense)
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    with pytest.warns(FutureWarning, match="activation_checkpointing"):  # transformers' new name for it
        run = trainer(spared, tmp_path, rows, tokenizer, **options)
    run.train()
    handle.remove()
    assert len(kept) == 2 * run.state.global_step  # forward, and again in backward
    for name, expected in values(plain).items():
        torch.testing.assert_close(values(spared)[name], expected, atol=1e-6, rtol=1e-5)


def test_activations_by_the_new_name_and_off_again(tiny_path, tmp_path, rows, tokenizer):
    model = wrapped(tiny_path)
    trainer(model, tmp_path, rows, tokenizer, activation_checkpointing=True, max_steps=1).train()
    assert model.model.is_gradient_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.model.is_gradient_checkpointing


def count_calls(layer):
    calls = []
    return calls, layer.register_forward_hook(lambda *_: calls.append(1))


def test_lora_plus_groups_train_and_resume_in_the_trainer(tiny_path, tmp_path, rows, tokenizer):
    def run(model, directory, callbacks=()):
        groups = model.parameter_groups(1e-3, ratio=16, head_learning_rate=5e-3)
        optimizers = (torch.optim.AdamW(groups), None)
        return trainer(model, directory, rows, tokenizer, callbacks, optimizers, save_strategy="steps", save_steps=2)

    whole, resumed = wrapped(tiny_path), wrapped(tiny_path)
    done = run(whole, tmp_path / "whole")
    done.train()
    assert [group["initial_lr"] for group in done.optimizer.param_groups] == [1e-3, 16e-3, 5e-3, 5e-3]
    with pytest.raises(Interrupted):
        run(wrapped(tiny_path), tmp_path / "broken", [StopsAfter(5)]).train()
    run(resumed, tmp_path / "broken").train(resume_from_checkpoint=True)
    assert same(values(resumed), values(whole))


def test_what_the_trainer_trained_opens_in_peft_and_serves(tiny_path, tmp_path, rows, tokenizer):
    model = wrapped(tiny_path, use_rslora=True)
    trainer(model, tmp_path / "runs", rows, tokenizer).train()
    model.eval().save_pretrained(tmp_path / "adapter")
    batch = tokenizer([GOOD, BAD], padding=True, return_tensors="pt")
    logits = model(**batch).logits
    peft = PeftModel.from_pretrained(model.model.from_pretrained(tiny_path, num_labels=2), tmp_path / "adapter").eval()
    torch.testing.assert_close(peft(**batch).logits, logits, atol=1e-5, rtol=0)
    server = MultiLoRAT.from_pretrained(tiny_path, device="cpu")
    scores = server.classify([GOOD, BAD], server.load(tmp_path / "adapter"))
    for row, expected in zip(scores, logits.softmax(-1).tolist(), strict=True):
        assert row == pytest.approx({"LABEL_0": expected[0], "LABEL_1": expected[1]}, abs=1e-5)


def test_training_goes_on_from_an_adapter_as_it_was_trained(tiny_path, tmp_path):
    model = wrapped(tiny_path, alpha=12, use_rslora=True, layers=[0, 2])
    torch.nn.init.normal_(model.bert.encoder.layer[2].attention.self.value.lora_B)
    model.save(tmp_path)
    again = LoRAT.from_pretrained(BertForSequenceClassification.from_pretrained(tiny_path, num_labels=2), tmp_path)
    assert again.settings == model.settings
    assert same(values(again), values(model))
    again.save(tmp_path / "again")
    read = lambda path: json.loads((path / "adapter_config.json").read_text())  # noqa: E731
    assert read(tmp_path / "again") == read(tmp_path)
    with pytest.raises(TypeError, match="push_to_hub"):
        model.save_pretrained(tmp_path / "pushed", push_to_hub=True)
    model.save_pretrained(tmp_path / "other-process", is_main_process=False)
    assert not (tmp_path / "other-process").exists()


def test_sentence_transformers_trains_what_multilorat_serves(tiny_path, tmp_path):
    torch.manual_seed(0)
    model = SentenceTransformer(str(tiny_path), device="cpu")
    adapter = LoRAT(model[0].auto_model, rank=RANK, tune="qkov")
    texts = ["What is LoRA?", GOOD, BAD]
    before, base = model.encode(texts), {n: p.clone() for n, p in adapter.named_parameters() if not p.requires_grad}
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "runs"), max_steps=1, learning_rate=0.05, per_device_train_batch_size=4, report_to="none",
        save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    pairs = {"anchor": ["a cat", "a train", "the sun", "my bank"], "positive": ["cats", "rails", "light", "money"]}
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(pairs), loss=MultipleNegativesRankingLoss(model)
    ).train()
    adapter.save(tmp_path / "adapter")
    expected = model.encode(texts)  # neither normalises: the base has no recipe
    assert np.abs(expected - before).max() > 1e-3
    assert same(base, {n: p for n, p in adapter.named_parameters() if not p.requires_grad})
    server = MultiLoRAT.from_pretrained(tiny_path, device="cpu")
    got = server.embed(texts, server.load(tmp_path / "adapter"))
    np.testing.assert_allclose(np.asarray(got), expected, atol=1e-5)


def embedder(tiny_path):
    torch.manual_seed(0)
    model = SentenceTransformer(str(tiny_path), device="cpu")
    return model, LoRAT(model[0].auto_model, rank=RANK, tune="qkov")


def embedding_trainer(tiny_path, directory, *, callbacks=(), **options):
    model, adapter = embedder(tiny_path)
    settings = {
        "max_steps": 4, "learning_rate": 0.05, "per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True,
        "disable_tqdm": True, "save_strategy": "steps", "save_steps": 2, "logging_strategy": "no",
    }  # fmt: skip
    pairs = Dataset.from_dict({"anchor": ["a cat", "a train", "the sun"], "positive": ["cats", "rails", "light"]})
    arguments = SentenceTransformerTrainingArguments(str(directory), **settings | options)
    return adapter, AdapterTrainer(
        adapter, model=model, args=arguments, train_dataset=pairs, eval_dataset=pairs,
        loss=MultipleNegativesRankingLoss(model), callbacks=list(callbacks),
    )  # fmt: skip


def test_an_embedding_run_that_was_interrupted_ends_as_one_that_was_not(tiny_path, tmp_path):
    whole, training = embedding_trainer(tiny_path, tmp_path / "whole")
    training.train()
    with pytest.raises(Interrupted):
        embedding_trainer(tiny_path, tmp_path / "cut", callbacks=[StopsAfter(3)])[1].train()
    resumed, training = embedding_trainer(tiny_path, tmp_path / "cut")
    training.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-2"))
    assert same(values(resumed), values(whole))
    saved = load_file(tmp_path / "cut" / "checkpoint-2" / "model.safetensors")
    assert saved.keys() == whole.state_dict().keys()


def test_the_best_step_of_an_embedding_run_comes_back(tiny_path, tmp_path):
    adapter, training = embedding_trainer(
        tiny_path, tmp_path, load_best_model_at_end=True, eval_strategy="steps", eval_steps=2,
        metric_for_best_model="loss", greater_is_better=True,
    )  # fmt: skip
    training.train()
    best = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert training.state.best_model_checkpoint.endswith("checkpoint-2")
    assert same(values(adapter), best)
