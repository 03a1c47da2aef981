"""Training a head beside the LoRA matrices, through transformers' Trainer: one label or several, or a tag a word."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lorat.base import Base
from lorat.files.model_labels import MULTI_LABEL
from lorat.model import LoRAT
from lorat.training.inputs import IGNORED, Item, collate, labelled_items, tagged_items
from lorat.training.loop import METRIC, History, arguments, on_one_gpu, optimizer, quiet, run
from lorat.training.plan import Hyperparameters
from lorat.training.scores import entity_scores, label_scores, multi_label_scores
from lorat.training.splits import LabelledTexts, Split, TaggedWords, TrainingData
from lorat.training.start import finish, start
from lorat.training.work import Work

Compute = Callable[[Any], dict[str, float]]


def train_head(
    how: Hyperparameters, data: TrainingData, directory: Path, base: Base, work: Work, seed: int
) -> tuple[LoRAT, History]:
    """Train on texts with labels or words with tags. `base`: the one in `directory`, loaded; it tokenises.

    The base's pooler is used, or trained where it has none. Raises ConfigError where training diverges.
    """
    from transformers import Trainer, TrainingArguments

    model = _wrap(how, data, directory, base).to(base.device)
    train, dev = items_of(base, data, data.train), items_of(base, data, data.dev)
    texts = data.kind != "tags"
    if texts and work.last() is None:
        start(model, train, len(data.labels), base, how, seed)
    options = {"train_sampling_strategy": "group_by_length", "label_names": ["labels"]}
    trainer = Trainer(
        model=model,
        args=on_one_gpu(TrainingArguments(**arguments(how, len(train), work, seed) | options)),
        train_dataset=train,
        eval_dataset=sorted(dev, key=lambda item: len(item["input_ids"])),  # less padding
        data_collator=collate,
        compute_metrics=dev_score(data),
        optimizers=(optimizer(model, how), None),
    )
    history = run(trainer, how, work)
    if texts:
        finish(model, train, len(data.labels))
    return model, history


def _wrap(how: Hyperparameters, data: TrainingData, directory: Path, base: Base) -> LoRAT:
    from transformers import BertForSequenceClassification, BertForTokenClassification

    kind = BertForTokenClassification if data.kind == "tags" else BertForSequenceClassification
    options: dict[str, Any] = {"problem_type": MULTI_LABEL} if data.multi_label else {}
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
