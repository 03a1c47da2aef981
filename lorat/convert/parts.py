"""What a source came to, before it is written; and what the two ways to it share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lorat.adapter import LoRA, Task
from lorat.base import Base
from lorat.convert.report import describe
from lorat.errors import AdapterFileError, ConfigError, UnsupportedAdapterError
from lorat.files.facts import MAX_LABELS
from lorat.targets import MODULES, POOLER, Site

CLASSIFIER = ("classifier.weight", "classifier.bias")
POOLER_TENSORS = (f"{POOLER}.weight", f"{POOLER}.bias")
_NAMED = 6  # of the tensors that are refused, so many by name


@dataclass(frozen=True)
class Options:
    """What the caller chose: see `lorat.convert.convert`."""

    kind: str
    rank: int | None
    alpha: float | None
    labels: tuple[str, ...]
    drop: bool
    task: Task | None = None


@dataclass(frozen=True)
class Parts:
    """An adapter's parts. `head`: tensors carried whole, by name in the model. errors, dropped: as in `Report`."""

    kind: str
    task: Task
    lora: Mapping[Site, LoRA]
    head: Mapping[str, Tensor]
    labels: tuple[str, ...]
    dropped: Mapping[str, float]
    multi_label: bool = False
    errors: Mapping[str, float] = field(default_factory=dict)
    error: float = 0.0
    notes: tuple[str, ...] = ()


def change(tensor: Tensor, base: Tensor | None) -> float:
    """|tensor - base| / |base| (Frobenius). 0 where they are equal in the tensor's dtype, inf without a counterpart."""
    if base is None or tensor.shape != base.shape:
        return math.inf
    if torch.equal(tensor, base.to(tensor.dtype)):
        return 0.0
    size = norm(base)
    return norm(tensor.float() - base) / size if size else math.inf


def norm(tensor: Tensor) -> float:
    """Frobenius norm, summed in float64."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def is_fixed(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is a buffer of older checkpoints that holds what every model's holds."""
    if name == "embeddings.position_ids":
        return torch.equal(tensor.flatten(), torch.arange(tensor.numel()))
    return name == "embeddings.token_type_ids" and not tensor.any()


def settle(leftovers: Mapping[str, float], drop: bool, hint: str) -> dict[str, float]:
    """What is left out, with how much each changed. Raises UnsupportedAdapterError, naming it, unless `drop`."""
    changed = {name: found for name, found in leftovers.items() if found}
    if changed and not drop:
        named = "; ".join(f"{name!r}: {describe(found)}" for name, found in list(changed.items())[:_NAMED])
        more = f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise UnsupportedAdapterError(
            f"the source holds what no adapter can carry ({hint}): {named}{more}. drop=True (--drop) leaves it out"
        )
    return changed


def take_classifier(tensors: dict[str, Tensor], hidden: int) -> dict[str, Tensor]:
    """Take a whole classifier, (labels, hidden) and (labels,), out of `tensors`; nothing where there is none."""
    if not all(name in tensors for name in CLASSIFIER):
        return {}
    weight, bias = (tensors.pop(name) for name in CLASSIFIER)
    if weight.dim() != 2 or weight.shape[1] != hidden or bias.shape != weight.shape[:1]:
        raise AdapterFileError(
            f"classifier.weight has the shape {list(weight.shape)}, classifier.bias {list(bias.shape)}: "
            f"the base needs [labels, {hidden}] and [labels]"
        )
    if not 1 <= len(weight) <= MAX_LABELS:
        raise AdapterFileError(f"the classifier has {len(weight)} labels: 1 to {MAX_LABELS} are served")
    return dict(zip(CLASSIFIER, (weight.float(), bias.float()), strict=True))


def take_pooler(tensors: dict[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take BERT's pooler out of `tensors`, where it is whole, fits the base, and is not the base's own."""
    found = [tensors.get(name) for name in POOLER_TENSORS]
    hidden = base["encoder.layer.0.output.dense.bias"].shape[0]
    if [tensor is not None and list(tensor.shape) for tensor in found] != [[hidden, hidden], [hidden]]:
        return {}
    taken = {name: tensors.pop(name) for name in POOLER_TENSORS}
    same = not any(change(tensor, base.get(name)) for name, tensor in taken.items())
    return {} if same else {name: tensor.float() for name, tensor in taken.items()}


def check_labels(labels: Sequence[str], head: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Labels that fit the head, each once; none are fine. Raises ConfigError."""
    count = len(head["classifier.bias"]) if head else 0
    if labels and (len(labels) != count or len(set(labels)) != count):
        raise ConfigError(f"{len(labels)} labels are given and the classifier has {count}: name each once")
    return tuple(labels)


def fill(parts: Parts, base: Base) -> Parts:
    """Parts whose layers all carry the same targets: LoRAT wraps no other. What is added changes nothing."""
    lora = dict(parts.lora) or {Site(0, "query"): nothing(Site(0, "query"), base)}  # a head alone
    used = {site.target for site in lora}
    for layer in sorted({site.layer for site in lora}):
        for target in MODULES:
            if target in used:
                lora.setdefault(Site(layer, target), nothing(Site(layer, target), base))
    if any(matrices.bias is not None for matrices in lora.values()):
        weights = base.weights()
        lora = {site: _with_bias(matrices, weights[f"{site.module}.bias"]) for site, matrices in lora.items()}
    return replace(parts, lora=dict(sorted(lora.items())))


def nothing(site: Site, base: Base) -> LoRA:
    """Matrices of rank 1 that add nothing."""
    width, height = base.shape.linear_shape(site.target)
    return LoRA(torch.zeros(1, width), torch.zeros(height, 1), 1.0)


def _with_bias(matrices: LoRA, own: Tensor) -> LoRA:
    return matrices if matrices.bias is not None else replace(matrices, bias=own)
