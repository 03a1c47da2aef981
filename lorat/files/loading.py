"""What `LoRAT` takes from an adapter's directory: how to wrap a model for it, and its values."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorat.adapter import Adapter, Head, Linear, LoRA, Task
from lorat.config import scaling
from lorat.errors import ConfigError
from lorat.files.adapter_file import CONFIG
from lorat.files.json_file import read_json, short
from lorat.files.model_labels import MULTI_LABEL, ModelLabels
from lorat.files.peft_config import parse_peft_config
from lorat.layers import LoRALinear
from lorat.targets import Site


def wrapping(adapter: Adapter, directory: Path) -> dict[str, Any]:
    """The arguments of `LoRAT` that fit the adapter read from `directory`, as it was trained.

    Its rank, alpha and `use_rslora` are those its config states, unless patterns in it say otherwise for the layers:
    then alpha is scaling * rank of the first. Raises ConfigError for one that `LoRAT` cannot wrap a model for.
    """
    _check_even(adapter)
    config = read_json(directory / CONFIG, dict)
    rslora = parse_peft_config(config).use_rslora
    first = next(iter(adapter.lora.values()))
    stated = (first.rank, first.scaling) == (adapter.rank, scaling(adapter.alpha, adapter.rank, rslora))
    return {
        "rank": first.rank,
        "alpha": adapter.alpha if stated else first.scaling * first.rank,
        "use_rslora": rslora and stated,
        "dropout": _dropout(config.get("lora_dropout")),
        "tune": adapter.targets,
        "layers": sorted({site.layer for site in adapter.lora}),
        "modules_to_save": ("classifier", "pooler") if adapter.head and adapter.head.pooler else ("classifier",),
    }


def _check_even(adapter: Adapter) -> None:
    layers = {site.layer for site in adapter.lora}
    whole = {Site(layer, target) for layer in layers for target in adapter.targets}
    if set(adapter.lora) != whole or len({lora.rank for lora in adapter.lora.values()}) > 1:
        raise ConfigError("the adapter's ranks or targets differ by layer: it is served by MultiLoRAT, trained by PEFT")
    if any(lora.bias is not None for lora in adapter.lora.values()):
        raise ConfigError("the adapter has biases of its own (bias='lora_only'): it is served by MultiLoRAT")


def _dropout(value: Any) -> float:
    """A probability of the file; 0 for anything else, as it changes no answer."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    return float(value) if fits else 0.0


def check(adapter: Adapter, task: Task, labels: ModelLabels) -> None:
    """Raise ConfigError where an adapter is not for a model of this task and these labels, or not for training."""
    if adapter.task != task:
        raise ConfigError(f"the adapter is for {adapter.task}, the model for {task}")
    if adapter.head is None:
        return
    if labels.problem_type == MULTI_LABEL and not adapter.head.multi_label:
        raise ConfigError("the adapter scores one label of several, the model's problem_type says several: change that")
    if adapter.head.pooler_lora is not None:
        raise ConfigError("the adapter has LoRA on the pooler: it is served by MultiLoRAT, and trained by PEFT")
    theirs = replace(labels, names=adapter.head.labels)
    if len(theirs.names) != len(labels.names):
        raise ConfigError(
            f"the adapter's classifier has {len(theirs.names)} labels, the model's {len(labels.names)}: "
            "give the model the adapter's labels"
        )
    if theirs.named and labels.named and theirs.names != labels.names:
        raise ConfigError(
            f"the adapter's labels are {short(theirs.names)}, the model's {short(labels.names)}: "
            "give the model's config the adapter's id2label"
        )


@torch.no_grad()
def fill(
    adapted: Iterable[tuple[Site, LoRALinear]],
    modules: Mapping[str, nn.Linear],
    adapter: Adapter,
    first: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Copy an adapter's values into a wrapped model's layers and into its modules that train whole.

    A module that it does not bring gets its `first` values. Raises ConfigError, before anything is written, where
    ranks or shapes are not the model's.
    """
    layers = list(adapted)
    parts = _parts(adapter.head, modules)
    for site, layer in layers:
        _check(layer, adapter.lora[site], site)
    for site, layer in layers:
        lora = adapter.lora[site]
        layer.lora_A.copy_(lora.a)
        layer.lora_B.copy_(lora.b * (lora.scaling / layer.scaling))
    for name, module in modules.items():
        module.load_state_dict(first[name] if name not in parts else vars(parts[name]))


def _check(layer: LoRALinear, lora: LoRA, site: Site) -> None:
    if layer.lora_A.shape != lora.a.shape or lora.bias is not None:
        raise ConfigError(f"{site.module}: the adapter's rank or bias is not this model's")


def _parts(head: Head | None, modules: Mapping[str, nn.Linear]) -> dict[str, Linear]:
    """Each part of the head, by the name of the module that it goes to."""
    parts = head.parts if head else {}
    for name, part in parts.items():
        if name not in modules:
            raise ConfigError(f"the adapter brings {name}: wrap with modules_to_save=['classifier', 'pooler']")
        if modules[name].weight.shape != part.weight.shape:
            raise ConfigError(f"the adapter's {name} does not fit the model: give the model the adapter's labels")
    return parts
