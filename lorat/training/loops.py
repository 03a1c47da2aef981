"""The two trainings: a classifier through transformers' Trainer, similar texts through sentence-transformers'.

Both wrap the base's module in place with LoRAT, score each epoch on dev and put the best one back.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorat.base import Base
from lorat.errors import ConfigError
from lorat.model import LoRAT
from lorat.training.data import Rows, TrainingData, similar_pairs
from lorat.training.plan import BATCH, HEAD_C, WARMUP, WEIGHT_DECAY, Plan
from lorat.training.report import retrieval_scores


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report that a new head is new."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _arguments(plan: Plan, scratch: str) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        "output_dir": scratch,
        "num_train_epochs": plan.epochs,
        "per_device_train_batch_size": plan.batch_size,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": WARMUP,
        "weight_decay": WEIGHT_DECAY,
        "seed": plan.seed,
        "data_seed": plan.seed,
        "save_strategy": "no",
        "logging_strategy": "epoch",
        "report_to": "none",
        "dataloader_pin_memory": False,
    }


def train_classifier(plan: Plan, data: TrainingData, directory: Path, base: Base, scratch: str) -> LoRAT:
    """Train a classification head and LoRA matrices on a base in `directory`, through transformers' Trainer.

    `base` is the same base, loaded: it tokenises. The base's pooler is used, or trained where it has none.
    """
    from transformers import BertForSequenceClassification, Trainer, TrainingArguments

    with _quiet():
        model = BertForSequenceClassification.from_pretrained(
            directory, num_labels=len(data.labels), id2label=dict(enumerate(data.labels)), dtype=torch.float32
        )
    saved = ("classifier",) if base.shape.has_pooler else ("classifier", "pooler")
    adapter = LoRAT(model, plan.rank, plan.alpha, plan.tune, modules_to_save=saved)
    ids, dev = _ids(base, data.train), _ids(base, data.dev)
    _start_head(adapter, ids, data.train.labels)
    rows = [{"input_ids": row, "labels": label} for row, label in zip(ids, data.train.labels, strict=True)]
    best = Best(adapter, lambda: float((_forward(adapter, dev).argmax(-1).numpy() == data.dev.labels).mean()))
    best.look(0)
    Trainer(
        model=adapter,
        args=TrainingArguments(**_arguments(plan, scratch), train_sampling_strategy="group_by_length"),
        train_dataset=rows,
        data_collator=_collate,
        callbacks=[best.callback()],
    ).train()
    best.restore()
    return adapter


def _ids(base: Base, rows: Rows) -> list[list[int]]:
    return [token.ids for token in base.tokenizer.encode(rows.texts, max_length=base.recipe.max_length)]


def _collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Pad to the longest of the batch. Padding is masked, so its id does not matter."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    batch = {
        "input_ids": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
        "attention_mask": torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
    }
    return batch | ({"labels": torch.tensor([row["labels"] for row in rows])} if "labels" in rows[0] else {})


@torch.no_grad()
def _forward(model: LoRAT, ids: Sequence[list[int]], *, pooled: bool = False) -> Tensor:
    """Logits of texts, (texts, labels), or what the head reads, (texts, hidden). On the CPU."""
    model.eval()
    run = model.bert if pooled else model
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    answers = []
    for start in range(0, len(order), BATCH):
        batch = _collate([{"input_ids": ids[place]} for place in order[start : start + BATCH]])
        output = run(**{name: tensor.to(model.bert.device) for name, tensor in batch.items()})
        answers.append((output.pooler_output if pooled else output.logits).cpu())
    return torch.cat(answers)[torch.tensor(order).argsort()]


def _start_head(model: LoRAT, ids: Sequence[list[int]], labels: Sequence[int]) -> None:
    """Let the head start as a logistic regression on what it reads of the frozen base.

    A pooler's values can be small, and a head that starts at random then takes epochs to grow into them
    while LoRA learns to please it (linear probing first: arXiv 2202.10054).
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=HEAD_C, max_iter=300).fit(_forward(model, ids, pooled=True).numpy(), labels)
    weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(weight) == 1:  # two labels: one row, the second label's odds
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    with torch.no_grad():
        model.model.classifier.weight.copy_(weight)
        model.model.classifier.bias.copy_(bias)


def train_similar(plan: Plan, data: TrainingData, directory: Path, base: Base, scratch: str) -> LoRAT:
    """Train LoRA matrices that bring texts of one label together, through sentence-transformers' trainer."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(str(directory))
    adapter = LoRAT(model[0].auto_model, plan.rank, plan.alpha, plan.tune)
    anchors, positives, labels = zip(*similar_pairs(data.train, plan.seed), strict=True)
    prompt = model.prompts.get(model.default_prompt_name)
    arguments = _arguments(plan, scratch) | {
        "per_device_train_batch_size": min(plan.batch_size, len(set(labels))),
        "batch_sampler": _one_pair_a_label,
        "prompts": prompt or None,
    }

    def score() -> float:
        vectors = model.encode(list(data.dev.texts), normalize_embeddings=True, show_progress_bar=False)
        return retrieval_scores(vectors, data.dev.labels)["MAP"]

    best = Best(adapter, score)
    best.look(0)
    SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**arguments),
        train_dataset=Dataset.from_dict({"anchor": anchors, "positive": positives, "label": labels}),
        loss=MultipleNegativesRankingLoss(model),
        callbacks=[best.callback()],
    ).train()
    best.restore()
    return adapter


def _one_pair_a_label(dataset: Any, **settings: Any) -> Any:
    """Batches without duplicates, the label counted as a value: every other pair is a true negative."""
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    return NoDuplicatesBatchSampler(dataset, **settings | {"valid_label_columns": None})


class Best:
    """The trained values of the epoch with the highest score."""

    def __init__(self, model: LoRAT, score: Callable[[], float]) -> None:
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._score = score
        self._best = float("-inf")
        self.epoch = 0
        self._kept: list[Tensor] = []

    def callback(self) -> Any:
        """The trainer's hook that scores each epoch."""
        from transformers import TrainerCallback

        class OnEpoch(TrainerCallback):  # type: ignore[misc]
            def on_epoch_end(_, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                self.look(round(state.epoch))

        return OnEpoch()

    def look(self, epoch: int) -> None:
        """Score now, and keep the values if they are the best so far; epoch 0 is before training.

        Raises ConfigError for NaN or infinite values.
        """
        if not all(parameter.isfinite().all() for parameter in self._trained):
            raise ConfigError(f"training diverged in epoch {epoch}: lower the learning rate")
        score = self._score()
        print(f"epoch {epoch}: dev {score:.4f}", flush=True)
        if score > self._best:
            self._best, self.epoch = score, epoch
            self._kept = [parameter.detach().clone() for parameter in self._trained]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best values back."""
        print(f"epoch {self.epoch} is kept")
        for parameter, kept in zip(self._trained, self._kept, strict=True):
            parameter.copy_(kept)
