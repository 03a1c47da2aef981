"""LoRA matrices out of a checkpoint of the original LoRAT class or of loralib.

Both compute y = Wx + b + (alpha / rank) B A x (arXiv 2106.09685, section 4.1) with A (rank, in) and B (out, rank)
under `….lora_A` and `….lora_B`; neither keeps alpha in the file. The original's keys hold the wrapped layer as
`….original_module.{weight,bias}`, loralib's as `….{weight,bias}`. Both may also hold the weights of the base, which
must be this base's: then A and B mean here what they meant there.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from torch import Tensor

from lorat.adapter import LoRA, Task
from lorat.base import Base
from lorat.config import MAX_RANK, scaling
from lorat.convert.checkpoint import Checkpoint
from lorat.convert.parts import (
    POOLER_TENSORS,
    Options,
    Parts,
    change,
    check_labels,
    is_fixed,
    norm,
    settle,
    take_classifier,
    take_pooler,
)
from lorat.errors import AdapterFileError, BaseMismatchError, ConfigError, UnsupportedAdapterError
from lorat.files.json_file import short
from lorat.targets import BaseShape, Site

DRIFT = 1e-4
"""Largest relative difference of a frozen weight that passes: the original's merging and unmerging leaves rounding."""
_MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<which>[AB])")
_LAYER = re.compile(r"encoder\.layer\.(\d{1,6})\.")
_MERGED = ("c_attn", "in_proj", "qkv")


@dataclass(frozen=True)
class _Split:
    """Matrices by site, the other tensors by their names in the base, and which of these the original froze."""

    matrices: Mapping[Site, tuple[Tensor, Tensor]]
    rest: dict[str, Tensor]
    frozen: frozenset[str]


def from_lora(source: Checkpoint, base: Base, options: Options) -> Parts:
    """The parts of an adapter that computes what the checkpoint's model computes.

    Raises ConfigError for a missing alpha or a rank that is not the file's, BaseMismatchError for another base,
    AdapterFileError for damaged or merged weights, UnsupportedAdapterError for what cannot be carried.
    """
    alpha = _alpha(options)
    split = _split(source.tensors, base.shape)
    lora = {site: LoRA(a, b, scaling(alpha, len(a), False)) for site, (a, b) in split.matrices.items()}
    _check_rank(lora, options.rank)
    weights = base.weights()
    notes = [*source.notes(), _check_frozen(split, weights)]
    rest = {name: tensor for name, tensor in split.rest.items() if name not in split.frozen}
    head = take_classifier(rest, base.shape.hidden)
    head |= take_pooler(rest, weights) if head else {}
    lora = {site: _take_bias(site, matrices, rest, weights) for site, matrices in lora.items()}
    left = {name: change(tensor, weights.get(name)) for name, tensor in rest.items() if not is_fixed(name, tensor)}
    left |= dict.fromkeys(source.unknown(), math.inf)
    return Parts(
        kind=options.kind,
        task=_task(source.tensors, head, options.task),
        lora=lora,
        head=head,
        labels=check_labels(options.labels, head),
        dropped=settle(left, options.drop, "mode='part' trains it, or the base is another"),
        notes=tuple(notes),
    )


def _task(tensors: Mapping[str, Tensor], head: Mapping[str, Tensor], stated: Task | None) -> Task:
    """What a head is for: that of texts stands on the pooler, which a whole model for tokens does not have."""
    if (stated == "embedding") if head else (stated not in (None, "embedding")):
        raise ConfigError(f"task={stated!r}, and the source has {'a' if head else 'no'} classifier")
    if not head:
        return "embedding"
    if stated:
        return stated
    if POOLER_TENSORS[0] in tensors:
        return "sequence_classification"
    if any(name.startswith("embeddings.") for name in tensors):
        return "token_classification"
    raise ConfigError(
        "the source does not say what its classifier is for: give task= (--task), sequence_classification (texts) or "
        "token_classification (words)"
    )


def _alpha(options: Options) -> float:
    if options.alpha is None:
        raise ConfigError(
            "alpha is not in such a checkpoint: give alpha= (--alpha) as it was in training; "
            "the original LoRAT's default is 32, loralib's is 1"
        )
    return options.alpha


def _split(tensors: Mapping[str, Tensor], shape: BaseShape) -> _Split:
    found: dict[Site, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    frozen = set()
    for name, tensor in tensors.items():
        if matrix := _MATRIX.fullmatch(name):
            found.setdefault(_site(matrix["module"], shape), {})[matrix["which"]] = tensor.float()
            continue
        plain = name.replace(".original_module.", ".")
        if plain in rest:
            raise AdapterFileError(f"{short(plain, 200)} is there twice, with and without 'original_module'")
        rest[plain] = tensor
        frozen |= {plain} if plain != name else set()
    if not found:
        raise AdapterFileError("the source has no lora_A and lora_B: for a whole model use kind='full'")
    matrices = {site: _pair(site, pair, shape) for site, pair in sorted(found.items())}
    weights = {f"{site.module}.weight" for site in matrices} & set(rest)
    return _Split(matrices, rest, frozenset(frozen | weights))


def _site(module: str, shape: BaseShape) -> Site:
    if module in shape.module_names()[:-1]:
        return Site.parse(module)
    layer = _LAYER.match(module)
    if layer and int(layer[1]) >= shape.layers:
        raise BaseMismatchError(f"{short(module, 200)} has LoRA, and the base has {shape.layers} layers: name its base")
    if module.rpartition(".")[2] in _MERGED:
        _refuse_merged_linear(module)
    raise UnsupportedAdapterError(
        f"{short(module, 200)} has LoRA: only the query, key, value, output, intermediate and ffn_output layers of a "
        "BERT's encoder can carry it (lorat/targets.py)"
    )


def _refuse_merged_linear(module: str) -> NoReturn:
    raise UnsupportedAdapterError(
        f"{short(module, 200)} is loralib's MergedLinear (several projections in one, as GPT-2 has them): "
        "a BERT has query, key and value apart, train it with loralib.Linear"
    )


def _pair(site: Site, pair: Mapping[str, Tensor], shape: BaseShape) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank) of a site, checked."""
    if missing := [which for which in "AB" if which not in pair]:
        raise AdapterFileError(f"{site.module} has no lora_{missing[0]}: save the state dict whole")
    a, b = pair["A"], pair["B"]
    width, height = shape.linear_shape(site.target)
    sizes = list(a.shape), list(b.shape)
    if a.dim() == b.dim() == 2 and len(a) > b.shape[1] > 0 == len(a) % b.shape[1]:
        _refuse_merged_linear(site.module)
    if not len(sizes[0]) == len(sizes[1]) == 2 or (a.shape[1], b.shape[0], len(a)) != (width, height, b.shape[1]):
        raise BaseMismatchError(
            f"{site.module}: lora_A has the shape {sizes[0]}, lora_B {sizes[1]}: "
            f"the base needs [rank, {width}] and [{height}, rank]"
        )
    if not 1 <= len(a) <= MAX_RANK:
        raise ConfigError(f"{site.module} has rank {len(a)}: 1 to {MAX_RANK} are served")
    return a, b


def _check_rank(lora: Mapping[Site, LoRA], rank: int | None) -> None:
    ranks = sorted({matrices.rank for matrices in lora.values()})
    if rank is not None and ranks != [rank]:
        raise ConfigError(f"rank={rank}, and the file's matrices have {', '.join(map(str, ranks))}: leave rank out")


def _check_frozen(split: _Split, weights: Mapping[str, Tensor]) -> str:
    """Hold the wrapped layers against the base. Returns what that showed."""
    changes = {name: change(split.rest[name], weights.get(name)) for name in sorted(split.frozen)}
    for name, found in changes.items():
        if found > DRIFT:
            _refuse_weight(name, found, split, weights)
    if not changes:
        return "the file holds none of the base's adapted weights: nothing shows that it was trained on this base"
    worst = max(changes.values())
    return "the base's weights inside are this base's" + (f", but for {worst:.1e} of rounding" if worst else "")


def _refuse_weight(name: str, found: float, split: _Split, weights: Mapping[str, Tensor]) -> NoReturn:
    site = next((site for site in split.matrices if name == f"{site.module}.weight"), None)
    difference = f"{short(name, 200)} inside differs from the base's by {found:.2g} of its norm"
    if site and math.isfinite(found) and _is_merged(split.rest[name].float() - weights[name], *split.matrices[site]):
        raise AdapterFileError(
            f"{difference}, which is B A: it was saved in eval mode, with the matrices merged in. "
            "Call model.train() before state_dict(), and save it again"
        )
    raise BaseMismatchError(
        f"{difference}: it was trained on another base (name that one: base=, --base), its layers were trained "
        "as well, or it drifted by merging in a 16-bit type"
    )


def _is_merged(difference: Tensor, a: Tensor, b: Tensor) -> bool:
    """Whether a difference is a multiple of B A: its distance from that line is small."""
    delta = b @ a
    size = norm(delta)
    if not size:
        return False
    along = float((difference.double() * delta.double()).sum()) / size**2
    return norm(difference - along * delta) <= 0.05 * norm(difference)


def _take_bias(site: Site, matrices: LoRA, rest: dict[str, Tensor], weights: Mapping[str, Tensor]) -> LoRA:
    """With the layer's bias where it was trained (loralib's bias="lora_only" and "all")."""
    name = f"{site.module}.bias"
    bias = rest.get(name)
    if bias is None or bias.shape != weights[name].shape or not change(bias, weights[name]):
        return matrices
    return replace(matrices, bias=rest.pop(name).float())
