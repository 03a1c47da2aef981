"""Where the training of a head of texts starts and ends: as a logistic regression on what it reads.

A head that starts at random takes epochs to grow, while the adapter learns to please it: so it starts as a logistic
regression (linear probing first: arXiv 2202.10054). What it reads is the vector of [CLS], while what a sentence encoder
knows of a text is the mean over its tokens: so LoRA first learns, without labels, to say there what the base says by
its mean. A head of words starts at random: from a regression it comes to less in the end (docs/training.md).
"""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from lorat.base import Base
from lorat.errors import ConfigError
from lorat.model import LoRAT
from lorat.multi import MultiLoRAT
from lorat.rows import Row
from lorat.tokenizer import Tokens
from lorat.training.inputs import Item, collate
from lorat.training.loop import EVAL_BATCH, optimizer
from lorat.training.plan import Hyperparameters

START_C, END_C = 10.0, 3.0
"""Inverse regularisation of the logistic regressions that a head starts as, and ends as."""
TAUGHT = 0.2
"""Steps for [CLS], as a share of the run's."""


def start(model: LoRAT, items: Sequence[Item], labels: int, base: Base, how: Hyperparameters, seed: int) -> None:
    """Give LoRA and the head the values that training starts from. base: the model's, for what it says by its mean.

    Raises ConfigError where the learning rate is too high for that.
    """
    if base.recipe.pooling == ("mean",) and not base.recipe.dense:
        teach_first_token(model, items, MultiLoRAT(base, slots=1), how, seed)
    _fit(model, items, labels, START_C)


def finish(model: LoRAT, items: Sequence[Item], labels: int) -> None:
    """Fit the head once more: one that was trained all along is too sure of texts that belong to no label."""
    _fit(model, items, labels, END_C)


def teach_first_token(
    model: LoRAT, items: Sequence[Item], teacher: MultiLoRAT, how: Hyperparameters, seed: int
) -> None:
    """Bring the last hidden state of [CLS] near the teacher's vectors, by their mean squared difference."""
    from transformers import get_linear_schedule_with_warmup

    steps = math.ceil(TAUGHT * how.epochs_for(len(items)) * len(items) / how.batch_size)
    learner = optimizer(model, how)
    schedule = get_linear_schedule_with_warmup(learner, math.ceil(how.warmup * steps), steps)
    model.eval()  # what dropout does to [CLS] is nothing to learn
    for batch in tqdm(_batches(items, how.batch_size, steps, seed), "[CLS]", steps, unit="step", file=sys.stderr):
        wanted = torch.stack(teacher.forward([Row(Tokens(item["input_ids"]), None) for item in batch]))
        said = _encoded(model, batch).last_hidden_state[:, 0]
        torch.autograd.backward(F.mse_loss(said, wanted.to(said.device)))
        learner.step()
        schedule.step()
        learner.zero_grad()


def _batches(items: Sequence[Item], size: int, count: int, seed: int) -> Iterator[list[Item]]:
    """So many batches of texts of like length, by chance, all before one comes again."""
    random = torch.Generator().manual_seed(seed)
    order = sorted(items, key=lambda item: len(item["input_ids"]))
    starts = range(0, len(order), size)
    while count > 0:
        for place in torch.randperm(len(starts), generator=random).tolist()[:count]:
            yield order[starts[place] : starts[place] + size]
        count -= len(starts)


def _encoded(model: LoRAT, items: Sequence[Item]) -> Any:
    batch = collate([{"input_ids": item["input_ids"]} for item in items])
    return model.bert(**{name: tensor.to(model.bert.device) for name, tensor in batch.items()})


@torch.no_grad()
def _features(model: LoRAT, items: Sequence[Item]) -> Tensor:
    """What the head reads of each text, (texts, hidden), on the CPU."""
    model.eval()
    order = sorted(range(len(items)), key=lambda place: len(items[place]["input_ids"]))
    batches = [[items[place] for place in order[at : at + EVAL_BATCH]] for at in range(0, len(order), EVAL_BATCH)]
    found = torch.cat([_encoded(model, batch).pooler_output.cpu() for batch in batches])
    return found[torch.tensor(order).argsort()]


def _fit(model: LoRAT, items: Sequence[Item], labels: int, c: float) -> None:
    """Let the head be a logistic regression on what it reads. Raises ConfigError where that is not finite."""
    x, y = _features(model, items), np.array([item["labels"] for item in items])
    if not x.isfinite().all():
        raise ConfigError("training diverged: lower the learning rate")
    weight, bias = _regression(x.numpy(), y, labels, c)
    with torch.no_grad():
        model.model.classifier.weight.copy_(torch.from_numpy(weight))
        model.model.classifier.bias.copy_(torch.from_numpy(bias))


def _regression(
    x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], labels: int, c: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Weight (labels, hidden) and bias (labels,). x: (rows, hidden). y: (rows,), or (rows, labels) of 0 and 1.

    Of several labels a row, one that all rows have, or none, gets its odds, half a row added to either side.
    """
    from sklearn.linear_model import LogisticRegression

    def fit(target: Any) -> Any:
        return LogisticRegression(C=c, max_iter=300).fit(x, target)

    weight, bias = np.zeros((labels, x.shape[1])), np.zeros(labels)
    if y.ndim == 2:
        for label, count in enumerate(y.sum(0)):
            if 0 < count < len(y):
                fitted = fit(y[:, label])
                weight[label], bias[label] = fitted.coef_[0], fitted.intercept_[0]
            else:
                bias[label] = math.log((count + 0.5) / (len(y) - count + 0.5))
        return weight, bias
    fitted = fit(y)
    if len(fitted.classes_) == 2:  # one row, the second label's odds
        fitted.coef_, fitted.intercept_ = (np.concatenate([-v, v]) / 2 for v in (fitted.coef_, fitted.intercept_))
    weight[fitted.classes_], bias[fitted.classes_] = fitted.coef_, fitted.intercept_
    bias[[label for label in range(labels) if label not in fitted.classes_]] = fitted.intercept_.min()
    return weight, bias
