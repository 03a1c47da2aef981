"""What `LoRAT` takes from an adapter's directory: how to wrap a model for it, and its values."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorat.adapter import Adapter, Head, Linear, LoRA
from lorat.config import scaling
from lorat.errors import ConfigError
from lorat.files.adapter_file import CONFIG
from lorat.files.json_file import read_json
from lorat.files.peft_config import parse_peft_config
from lorat.layers import LoRALinear
from lorat.targets import Site


def wrapping(adapter: Adapter, directory: Path) -> dict[str, Any]:
    """The arguments of `LoRAT` that fit the adapter read from `directory`, as it was trained.

    Its rank, alpha and `use_rslora` are those its config states, unless patterns in it say otherwise for the layers:
    then alpha is scaling * rank of the first.
    """
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


def _dropout(value: Any) -> float:
    """A probability of the file; 0 for anything else, as it changes no answer."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    return float(value) if fits else 0.0


@torch.no_grad()
def fill(adapted: Iterable[tuple[Site, LoRALinear]], modules: Mapping[str, nn.Linear], adapter: Adapter) -> None:
    """Copy an adapter's values into a wrapped model's layers and into its modules that train whole.

    Raises ConfigError, before anything is written, where ranks or shapes are not the model's.
    """
    layers = list(adapted)
    parts = _parts(adapter.head, modules)
    for site, layer in layers:
        _check(layer, adapter.lora[site], site)
    for site, layer in layers:
        lora = adapter.lora[site]
        layer.lora_A.copy_(lora.a)
        layer.lora_B.copy_(lora.b * (lora.scaling / layer.scaling))
    for module, part in parts:
        module.weight.copy_(part.weight)
        module.bias.copy_(part.bias)


def _check(layer: LoRALinear, lora: LoRA, site: Site) -> None:
    if layer.lora_A.shape != lora.a.shape or lora.bias is not None:
        raise ConfigError(f"{site.module}: the adapter's rank or bias is not this model's")


def _parts(head: Head | None, modules: Mapping[str, nn.Linear]) -> list[tuple[nn.Linear, Linear]]:
    """Each part of the head with the module it goes to."""
    parts = {"classifier": head.classifier, "pooler.dense": head.pooler} if head else {}
    pairs = []
    for name, part in parts.items():
        if part is None:
            continue
        module = modules.get(name)
        if module is None or module.weight.shape != part.weight.shape:
            raise ConfigError(f"the adapter's {name} does not fit the model: give the model the adapter's labels")
        pairs.append((module, part))
    return pairs
