"""An adapter out of a whole fine-tuned model: the change of each linear layer, at a lower rank.

With the singular value decomposition of a change, W' - W = U S V^T, the closest matrix of rank r is U_r S_r V_r^T, and
its distance in the Frobenius norm is the root of the sum of the squared singular values that were dropped (Eckart and
Young 1936). B = U_r sqrt(S_r) and A = sqrt(S_r) V_r^T; alpha is the rank, so that the scaling is 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorat.adapter import LoRA, Task
from lorat.base import Base
from lorat.convert.checkpoint import Checkpoint
from lorat.convert.model_files import read_config, task_of, vocabulary_changes
from lorat.convert.parts import (
    POOLER_TENSORS,
    Options,
    Parts,
    change,
    check_labels,
    is_fixed,
    settle,
    take_classifier,
    take_pooler,
)
from lorat.errors import AdapterFileError, ConfigError
from lorat.files.model_labels import MULTI_LABEL, labels_of
from lorat.targets import Site

RANK = 32
_HINT = "embeddings, LayerNorm, or what the model's class does not have"


@dataclass(frozen=True)
class Factors:
    """A change of rank r: A (r, in), B (out, r). kept, lost: sums of the squared singular values.

    bias (out,): the layer's own, where it changed as well.
    """

    a: Tensor
    b: Tensor
    kept: float
    lost: float
    bias: Tensor | None = None

    @property
    def error(self) -> float:
        """|delta - BA| / |delta|, 0 where there is no change."""
        return relative(self.lost, self.kept + self.lost)


def relative(lost: float, total: float) -> float:
    """sqrt(lost / total), 0 where there is nothing to lose."""
    return math.sqrt(lost / total) if total else 0.0


def factorise(delta: Tensor, rank: int) -> Factors:
    """The best factors of at most this rank of a change (out, in), computed in float64, given in float32."""
    u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    root = s[:rank].sqrt()
    kept, lost = (float(part.square().sum()) for part in (s[:rank], s[rank:]))
    return Factors((root[:, None] * vh[:rank]).float(), (u[:, :rank] * root).float(), kept, lost)


def from_full(source: Checkpoint, base: Base, base_directory: Path, options: Options) -> Parts:
    """The parts of an adapter that is as close to a fine-tuned model as its rank allows.

    Raises BaseMismatchError for another architecture, UnsupportedAdapterError, naming it, for a change that no
    adapter can carry (unless `options.drop`), AdapterFileError for files that are damaged or incomplete, ConfigError
    for options of the other kinds.
    """
    if options.alpha is not None:
        raise ConfigError("alpha belongs to LoRA checkpoints: for a whole model it follows from the rank, leave it out")
    if options.task is not None:
        raise ConfigError("task belongs to LoRA checkpoints: a whole model's config.json says it, leave it out")
    config = read_config(source.directory, base.config)
    task = task_of(config)
    weights = base.weights()
    _require(source.tensors, weights, task)
    rest = dict(source.tensors)
    head = _take_head(rest, task, weights, base)
    notes = [*source.notes(), *_leave_unread_pooler(rest, weights, task, source)]
    changes = _take_changes(rest, weights, base, options.rank or RANK)
    left = {name: change(tensor, weights.get(name)) for name, tensor in rest.items() if not is_fixed(name, tensor)}
    left |= vocabulary_changes(source.directory, base_directory) if source.directory else {}
    left |= dict.fromkeys(source.unknown(), math.inf)
    lost, kept = (sum(getattr(found, name) for found in changes.values()) for name in ("lost", "kept"))
    parts = Parts(
        kind="full",
        task=task,
        lora={site: LoRA(found.a, found.b, 1.0, found.bias) for site, found in changes.items()},
        head=head,
        labels=_labels(options, config, head),
        dropped=settle(left, options.drop, _HINT),
        multi_label=config.get("problem_type") == MULTI_LABEL,
        errors={site.module: found.error for site, found in changes.items()},
        error=relative(lost, kept + lost),
        notes=tuple(notes),
    )
    if not parts.lora and not head:
        raise ConfigError("no linear layer differs from the base: there is nothing to convert, or base= is another")
    return parts


def _labels(options: Options, config: Mapping[str, Any], head: Mapping[str, Tensor]) -> tuple[str, ...]:
    return check_labels(options.labels or (labels_of(config) if head else None) or (), head)


def _take_head(rest: dict[str, Tensor], task: Task, weights: Mapping[str, Tensor], base: Base) -> dict[str, Tensor]:
    if task == "embedding":
        return {}
    head = take_classifier(rest, base.shape.hidden)
    if not head:
        raise AdapterFileError("the model has no whole classifier (weight and bias), and config.json says it has")
    return head | (take_pooler(rest, weights) if task == "sequence_classification" else {})


def _leave_unread_pooler(
    rest: dict[str, Tensor], weights: Mapping[str, Tensor], task: Task, source: Checkpoint
) -> list[str]:
    """Take out a pooler that the model never reads: tokens' classes and sentence-transformers' vectors need none."""
    if task != "token_classification" and not source.recipe:
        return []
    found = {name: rest.pop(name) for name in POOLER_TENSORS if name in rest}
    changed = any(change(tensor, weights.get(name)) for name, tensor in found.items())
    return ["left out the pooler, which the model does not read"] if changed else []


def _require(tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor], task: Task) -> None:
    needed = [name for name in weights if not name.startswith("pooler.")]
    needed += POOLER_TENSORS if task == "sequence_classification" else ()
    if missing := [name for name in needed if name not in tensors]:
        raise AdapterFileError(f"the model lacks {missing[0]!r} ({len(missing)} such tensors): save it whole")


def _take_changes(rest: dict[str, Tensor], weights: Mapping[str, Tensor], base: Base, rank: int) -> dict[Site, Factors]:
    """What the linear layers that changed come to; the weights and biases of all of them are taken out of `rest`."""
    changes: dict[Site, Factors] = {}
    for module in base.shape.module_names()[:-1]:
        weight, bias = (_take(f"{module}.{kind}", rest, weights) for kind in ("weight", "bias"))
        trained = bias.float() if change(bias, weights[f"{module}.bias"]) else None
        if trained is not None or change(weight, weights[f"{module}.weight"]):
            found = factorise(weight.float() - weights[f"{module}.weight"], rank)
            changes[Site.parse(module)] = replace(found, bias=trained)
    return changes


def _take(name: str, rest: dict[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    tensor, needed = rest.pop(name), list(weights[name].shape)
    if list(tensor.shape) != needed:
        raise AdapterFileError(f"{name} has the shape {list(tensor.shape)}, config.json says {needed}")
    return tensor
