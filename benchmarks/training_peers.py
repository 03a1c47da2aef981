"""Who LoRAT's adapters are held against: PEFT with the same recipe, full fine-tuning, the frozen base.

Each takes a plan and returns the scores of its test split. PEFT and full fine-tuning train with the same trainer,
arguments, batches and choice of the epoch; their heads start as transformers draws them.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from lorat.base import Base, load_base, locate_base
from lorat.multi import MultiLoRAT
from lorat.targets import MODULES, parse_tune
from lorat.training import pairs
from lorat.training.answers import Frozen
from lorat.training.data import read_training_data
from lorat.training.heads import dev_score, items_of
from lorat.training.inputs import IGNORED, collate
from lorat.training.loop import METRIC, arguments, quiet, run
from lorat.training.measure import measure
from lorat.training.plan import Hyperparameters, Plan
from lorat.training.scores import Scores, entity_scores, label_scores
from lorat.training.splits import TrainingData
from lorat.training.work import Work

FULL_RATE, FULL_RATE_OF_MANY = 5e-5, 2e-4
"""Learning rates of full fine-tuning: the highest that BERT's authors chose from (arXiv 1810.04805); and with more than
50 labels, whose head starts at random: at 5e-5 banking77's dev still rose when the run ended, at 2e-4 it came to 90.9.
With few labels that is too fast: trec6 lost two points by it."""
_MANY = 50


def frozen(plan: Plan) -> Scores:
    """The frozen base: a probe on its vectors or hidden states; its raw vectors for pairs."""
    data = read_training_data(plan.data, seed=plan.seed)
    model = MultiLoRAT(load_base(plan.base, dtype="float32"), slots=1)
    assert data.test is not None
    return measure(plan.task_for(data.kind), Frozen(model, data), data.test, data.labels, data.multi_label).scores


def full(plan: Plan) -> Scores:
    """Every weight trains."""
    return _train(plan, lambda model, _: (model, {"learning_rate": _full_rate(model)}))


def peft(plan: Plan) -> Scores:
    """PEFT's LoRA with the plan's rank, alpha, targets and rate."""
    return _train(plan, lambda model, how: (_with_lora(model, how), {}))


PEERS: dict[str, Callable[[Plan], Scores]] = {"peft": peft, "full": full, "frozen": frozen}
_HEADS = {"BertForSequenceClassification": "SEQ_CLS", "BertForTokenClassification": "TOKEN_CLS"}  # PEFT's names
Adapt = Callable[[Any, Hyperparameters], tuple[Any, dict[str, Any]]]


def _full_rate(model: Any) -> float:
    many = type(model).__name__ in _HEADS and model.config.num_labels > _MANY
    return FULL_RATE_OF_MANY if many else FULL_RATE


def _with_lora(model: Any, how: Hyperparameters) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=how.rank,
        lora_alpha=how.alpha,
        lora_dropout=how.dropout,
        target_modules=_pattern(how),
        task_type=_HEADS.get(type(model).__name__, "FEATURE_EXTRACTION"),
    )
    return get_peft_model(model, config)


def _pattern(how: Hyperparameters) -> str:
    modules = "|".join(MODULES[target].replace(".", r"\.") for target in parse_tune(how.tune))
    return rf".*encoder\.layer\.\d+\.({modules})"


def _train(plan: Plan, adapt: Adapt) -> Scores:
    data = read_training_data(plan.data, seed=plan.seed)
    task = plan.task_for(data.kind)
    how, base = plan.hyperparameters(task), load_base(plan.base, dtype="float32")
    transformers.set_seed(plan.seed)
    with tempfile.TemporaryDirectory() as directory:
        work = Work(Plan(plan.data, Path(directory) / "out"), task, data, "")
        fit = _fit_pairs if task == "pairs" else _fit_head
        return fit(plan, data, base, how, work, adapt)


def _fit_head(plan: Plan, data: TrainingData, base: Base, how: Hyperparameters, work: Work, adapt: Adapt) -> Scores:
    from transformers import BertForSequenceClassification, BertForTokenClassification, Trainer, TrainingArguments

    kind = BertForTokenClassification if data.kind == "tags" else BertForSequenceClassification
    with quiet():
        model = kind.from_pretrained(locate_base(plan.base), num_labels=len(data.labels), dtype=torch.float32)
    model, changed = adapt(model, how)
    train, dev, test = (items_of(base, data, rows) for rows in (data.train, data.dev, data.test))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            **arguments(how, len(train), work, plan.seed) | changed,
            train_sampling_strategy="group_by_length",
            label_names=["labels"],
        ),
        train_dataset=train,
        eval_dataset=dev,
        data_collator=collate,
        compute_metrics=dev_score(data),
    )
    run(trainer, how, work)
    prediction = trainer.predict(test)
    best, truth = prediction.predictions.argmax(-1), prediction.label_ids
    if data.kind != "tags":
        return label_scores(best, truth)
    kept = truth != IGNORED
    tags = [[row[mask].tolist() for row, mask in zip(rows, kept, strict=True)] for rows in (best, truth)]
    return entity_scores(*tags, data.labels)


def _fit_pairs(plan: Plan, data: TrainingData, base: Base, how: Hyperparameters, work: Work, adapt: Adapt) -> Scores:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )

    encoder = SentenceTransformer(str(locate_base(plan.base)))
    encoder[0].auto_model, changed = adapt(encoder[0].auto_model, how)
    columns = pairs.columns_of(data, plan.seed)
    best = _Best(encoder, pairs.evaluator(data.dev))
    trainer = SentenceTransformerTrainer(
        model=encoder,
        args=SentenceTransformerTrainingArguments(
            **arguments(how, len(data.train), work, plan.seed, texts_a_row=2)
            | pairs.sampling(data, columns, how)
            | {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
            | changed
        ),
        train_dataset=Dataset.from_dict(columns),
        loss=pairs.loss_of(data, encoder),
        callbacks=[best.callback()],
    )
    trainer.train()
    best.restore()
    return measure("pairs", _Encoder(encoder), data.test, (), False).scores


class _Encoder:
    """A SentenceTransformer, as `measure` asks."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def embed(self, texts: Any) -> np.ndarray:
        return self._encoder.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


class _Best:
    """The trained values of the epoch with the highest dev score."""

    def __init__(self, encoder: Any, evaluator: Any) -> None:
        self._encoder, self._evaluator = encoder, evaluator
        self._trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        self._score, self._kept = float("-inf"), [parameter.detach().clone() for parameter in self._trained]

    def callback(self) -> Any:
        class OnEpoch(transformers.TrainerCallback):
            def on_epoch_end(_, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                score = self._evaluator(self._encoder)[METRIC]
                if score > self._score:
                    self._score = score
                    self._kept = [parameter.detach().clone() for parameter in self._trained]

        return OnEpoch()

    @torch.no_grad()
    def restore(self) -> None:
        for parameter, kept in zip(self._trained, self._kept, strict=True):
            parameter.copy_(kept)
