"""Where training starts, against transformers' own model, a mean by hand and scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel

from lorat import LoRAT, load_base
from lorat.training.plan import Hyperparameters
from lorat.training.start import START_C, start
from tests.lorat.training.conftest import WORDS, base, rows

HOW = Hyperparameters(rank=8, tune="qkovid", epochs=40, batch_size=8, learning_rate=0.01)
linear_model = pytest.importorskip("sklearn.linear_model")  # of lorat[train]
__all__ = ["base"]


def loaded(directory, pooling=("mean",)):
    found = load_base(directory, device="cpu", dtype="float32")
    return replace(found, recipe=replace(found.recipe, pooling=pooling))


def wrapped(directory):
    torch.manual_seed(1)
    model = BertForSequenceClassification.from_pretrained(directory, num_labels=2)
    return LoRAT(model, HOW.rank, HOW.alpha, HOW.tune)


def labelled(directory, made):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    labels = list(WORDS)
    return [{"input_ids": tokenizer(row["text"])["input_ids"], "labels": labels.index(row["label"])} for row in made]


def started(directory, items, pooling=("mean",), seed=1):
    model = wrapped(directory)
    start(model, items, 2, loaded(directory, pooling), HOW, seed)
    return model.eval()


@torch.no_grad()
def first_tokens(bert, items):
    return torch.stack([bert(torch.tensor([item["input_ids"]])).last_hidden_state[0, 0] for item in items])


@torch.no_grad()
def means(directory, items):
    bert = BertModel.from_pretrained(directory).eval()
    return torch.stack([bert(torch.tensor([item["input_ids"]])).last_hidden_state[0].mean(0) for item in items])


def test_the_first_token_learns_the_mean_of_texts_it_has_not_seen(base):
    model, other = started(base, labelled(base, rows(0, 36))), labelled(base, rows(60, 12))
    wanted, before = means(base, other), first_tokens(BertModel.from_pretrained(base).eval(), other)
    after = first_tokens(model.bert, other)
    assert (after - wanted).square().mean() < 0.5 * (before - wanted).square().mean()


def test_the_base_stays_what_it_was(base):
    model = started(base, labelled(base, rows(0, 36)))
    pristine = BertModel.from_pretrained(base).state_dict()
    values = {name.replace(".linear.", "."): value for name, value in model.bert.state_dict().items()}
    assert all(torch.equal(values[name], value) for name, value in pristine.items())


@pytest.mark.parametrize("pooling", [("mean",), ("cls",)])
def test_the_head_starts_as_a_logistic_regression_on_what_the_pooler_says(pooling, base):
    items = labelled(base, rows(0, 36))
    model = started(base, items, pooling)
    with torch.no_grad():
        pooled = [model.bert(torch.tensor([item["input_ids"]])).pooler_output[0] for item in items]
    fitted = linear_model.LogisticRegression(C=START_C, max_iter=300).fit(
        torch.stack(pooled), [item["labels"] for item in items]
    )
    odds = (model.model.classifier(torch.stack(pooled)) @ torch.tensor([-1.0, 1.0])).detach().numpy()
    assert np.allclose(odds, fitted.decision_function(torch.stack(pooled)), atol=0.05)  # it is solved to so much


def test_where_the_base_pools_by_its_first_token_the_adapter_starts_at_nothing(base):
    model = started(base, labelled(base, rows(0, 36)), ("cls",))
    assert not any(layer.lora_B.any() for _, layer in model.adapted())


def test_the_same_seed_starts_at_the_same_values(base):
    items = labelled(base, rows(0, 36))
    first, again, other = (started(base, items, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
