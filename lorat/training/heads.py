"""Training a head beside the LoRA matrices, through transformers' Trainer: one label or several, or a tag a word."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorat.base import Base
from lorat.model import LoRAT
from lorat.training.data import LabelledTexts, Split, TaggedWords, TrainingData
from lorat.training.inputs import IGNORED, Item, collate, labelled_items, tagged_items
from lorat.training.loop import EVAL_BATCH, METRIC, History, arguments, optimizer, quiet, run
from lorat.training.plan import Hyperparameters
from lorat.training.scores import entity_scores, label_scores, multi_label_scores
from lorat.training.work import Work

HEAD_C = 10.0
"""Inverse regularisation of the logistic regression that a head starts as."""
Compute = Callable[[Any], dict[str, float]]


def train_head(
    how: Hyperparameters, data: TrainingData, directory: Any, base: Base, work: Work, seed: int
) -> tuple[LoRAT, History]:
    """Train on texts with labels or words with tags. `base`: the one in `directory`, loaded; it tokenises.

    The base's pooler is used, or trained where it has none. Raises ConfigError where training diverges.
    """
    from transformers import Trainer, TrainingArguments

    model = _wrap(how, data, directory, base)
    train, dev = items_of(base, data, data.train), items_of(base, data, data.dev)
    _start_head(model, train, data)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            **arguments(how, len(train), work, seed), train_sampling_strategy="group_by_length", label_names=["labels"]
        ),
        train_dataset=train,
        eval_dataset=sorted(dev, key=lambda item: len(item["input_ids"])),  # less padding
        data_collator=collate,
        compute_metrics=dev_score(data),
        optimizers=(optimizer(model, how), None),
    )
    return model, run(trainer, how, work)


def _wrap(how: Hyperparameters, data: TrainingData, directory: Any, base: Base) -> LoRAT:
    from transformers import BertForSequenceClassification, BertForTokenClassification

    kind = BertForTokenClassification if data.kind == "tags" else BertForSequenceClassification
    options: dict[str, Any] = {"problem_type": "multi_label_classification"} if data.multi_label else {}
    with quiet():
        model = kind.from_pretrained(
            directory,
            num_labels=len(data.labels),
            id2label=dict(enumerate(data.labels)),
            label2id={label: place for place, label in enumerate(data.labels)},
            dtype=torch.float32,
            **options,
        )
    saved = ("classifier",) if data.kind == "tags" or base.shape.has_pooler else ("classifier", "pooler")
    return LoRAT(
        model, how.rank, how.alpha, how.tune, dropout=how.dropout, use_rslora=how.use_rslora, modules_to_save=saved
    )


def items_of(base: Base, data: TrainingData, rows: Split) -> list[Item]:
    """What the model is trained on, of the rows of a split."""
    if isinstance(rows, TaggedWords):
        return tagged_items(base, rows)
    assert isinstance(rows, LabelledTexts)
    return labelled_items(base, rows, len(data.labels) if data.multi_label else None)


def dev_score(data: TrainingData) -> Compute:
    """The dev score: entity F1, micro F1 or accuracy."""

    def compute(prediction: Any) -> dict[str, float]:
        logits, truth = prediction.predictions, prediction.label_ids
        if data.kind == "tags":
            best = logits.argmax(-1)
            pairs = [
                (row[kept].tolist(), wanted[kept].tolist())
                for row, wanted in zip(best, truth, strict=True)
                for kept in [wanted != IGNORED]
            ]
            predicted, expected = zip(*pairs, strict=True)
            return {METRIC: entity_scores(predicted, expected, data.labels)["F1"]}
        if data.multi_label:
            return {METRIC: multi_label_scores(logits > 0, truth > 0)["micro F1"]}
        return {METRIC: label_scores(logits.argmax(-1), truth)["accuracy"]}

    return compute


@torch.no_grad()
def _features(model: LoRAT, items: Sequence[Item]) -> list[Tensor]:
    """What the head reads of each item: (hidden,) of a text, (tokens, hidden) of a sentence of words. On the CPU."""
    model.eval()
    found: list[Tensor] = [torch.empty(0)] * len(items)
    order = sorted(range(len(items)), key=lambda place: len(items[place]["input_ids"]))
    for start in range(0, len(order), EVAL_BATCH):
        places = order[start : start + EVAL_BATCH]
        batch = collate([{"input_ids": items[place]["input_ids"]} for place in places])
        output = model.bert(**{name: tensor.to(model.bert.device) for name, tensor in batch.items()})
        for row, place in enumerate(places):
            length = len(items[place]["input_ids"])
            whole = output.last_hidden_state[row, :length] if model.task == "token_classification" else None
            found[place] = (output.pooler_output[row] if whole is None else whole).cpu()
    return found


def _start_head(model: LoRAT, items: Sequence[Item], data: TrainingData) -> None:
    """Let the head start as a logistic regression on what it reads of the frozen base.

    A pooler's values can be small, and a head that starts at random then takes epochs to grow into them
    while LoRA learns to please it (linear probing first: arXiv 2202.10054).
    """
    features = _features(model, items)
    if data.kind == "tags":
        marks = [torch.tensor(item["labels"]) for item in items]
        x = torch.cat([row[mark != IGNORED] for row, mark in zip(features, marks, strict=True)]).numpy()
        y = torch.cat([mark[mark != IGNORED] for mark in marks]).numpy()
    else:
        x, y = torch.stack(features).numpy(), np.array([item["labels"] for item in items])
    weight, bias = fit_head(x, y, len(data.labels))
    with torch.no_grad():
        model.model.classifier.weight.copy_(torch.from_numpy(weight))
        model.model.classifier.bias.copy_(torch.from_numpy(bias))


def fit_head(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], labels: int) -> tuple[Any, Any]:
    """Weight (labels, hidden) and bias (labels,) of a logistic regression. y: (rows,), or (rows, labels) of 0 and 1."""
    from sklearn.linear_model import LogisticRegression

    def fit(target: Any) -> Any:
        return LogisticRegression(C=HEAD_C, max_iter=300).fit(x, target)

    weight, bias = np.zeros((labels, x.shape[1])), np.zeros(labels)
    if y.ndim == 2:
        for label in range(labels):
            if 0 < y[:, label].sum() < len(y):
                fitted = fit(y[:, label])
                weight[label], bias[label] = fitted.coef_[0], fitted.intercept_[0]
        return weight, bias
    fitted = fit(y)
    if len(fitted.classes_) == 2:  # one row, the second label's odds
        fitted.coef_, fitted.intercept_ = (np.concatenate([-v, v]) / 2 for v in (fitted.coef_, fitted.intercept_))
    weight[fitted.classes_], bias[fitted.classes_] = fitted.coef_, fitted.intercept_
    bias[[label for label in range(labels) if label not in fitted.classes_]] = fitted.intercept_.min()
    return weight, bias
