"""Write a converted adapter: whole, read back and compared, or not at all."""

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorat.adapter import Adapter, LoRA
from lorat.base import Base
from lorat.config import LoRATConfig
from lorat.convert.parts import Parts
from lorat.convert.recipe import copy_recipe
from lorat.errors import AdapterFileError
from lorat.files import saving
from lorat.files.adapter_file import read_adapter, write_adapter
from lorat.files.adapter_weights import PREFIX
from lorat.files.facts import FORMAT
from lorat.files.out import writing
from lorat.targets import MODULES, Site


def write(parts: Parts, out: Path, base: Base, base_name: str, recipe: Path | None) -> Adapter:
    """Write into a directory beside `out`, read it back, then rename it. Returns what was read back.

    Raises ConfigError where `out` cannot be written, an AdapterError where the result cannot be served.
    """
    place = out.absolute()
    scratch = place.parent / f".{place.name}.{uuid.uuid4().hex}"
    try:
        with writing(out):
            scratch.mkdir(parents=True)
            write_adapter(scratch, config_of(parts, base_name), tensors_of(parts), _facts(parts, base))
            if recipe:
                copy_recipe(recipe, scratch)
            adapter = read_adapter(scratch, base.shape)
            _compare(adapter, parts)
            os.rename(scratch, place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return adapter


def config_of(parts: Parts, base_name: str) -> dict[str, Any]:
    """PEFT's config: one rank and alpha for most layers, patterns for the others."""
    rank = max(matrices.rank for matrices in parts.lora.values())
    alpha = next(alpha_of(matrices) for matrices in parts.lora.values() if matrices.rank == rank)
    targets = {site.target for site in parts.lora}
    settings = LoRATConfig(
        rank,
        alpha,
        tuple(name for name in MODULES if name in targets),
        tuple(sorted({site.layer for site in parts.lora})),
    )
    saved = sorted({name.split(".")[0] for name in parts.head})
    ranks = {_pattern(site): lora.rank for site, lora in parts.lora.items() if lora.rank != rank}
    alphas = {_pattern(site): alpha_of(lora) for site, lora in parts.lora.items() if alpha_of(lora) != alpha}
    config = saving.peft_config(settings, parts.task, saved, base_name)
    return config | {"bias": _bias(parts), "rank_pattern": ranks, "alpha_pattern": alphas}


def alpha_of(matrices: LoRA) -> float:
    """The alpha of a scaling alpha / rank, without the rounding of the division."""
    return round(matrices.scaling * matrices.rank, 9)


def _bias(parts: Parts) -> str:
    return "none" if next(iter(parts.lora.values())).bias is None else "lora_only"


def _pattern(site: Site) -> str:
    return site.module.replace(".", r"\.")


def tensors_of(parts: Parts) -> dict[str, Tensor]:
    """The tensors, named as PEFT names them."""
    prefix = PREFIX + ("bert." if parts.head else "")
    named: dict[str, Tensor] = {}
    for site, matrices in parts.lora.items():
        found = {"lora_A.weight": matrices.a, "lora_B.weight": matrices.b, "base_layer.bias": matrices.bias}
        named |= {f"{prefix}{site.module}.{name}": value for name, value in found.items() if value is not None}
    owners = {name: PREFIX if name.startswith("classifier.") else prefix for name in parts.head}
    return named | {f"{owners[name]}{name}": tensor for name, tensor in parts.head.items()}


def _facts(parts: Parts, base: Base) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "task": parts.task,
        "labels": list(parts.labels) or None,
        "multi_label": parts.multi_label,
        "base_id": base.shape.base_id,
        "description": None,
        "tags": [],
    }


def _compare(adapter: Adapter, parts: Parts) -> None:
    """Raise AdapterFileError unless what was read is what was meant."""
    same = set(adapter.lora) == set(parts.lora) and adapter.task == parts.task
    if not same or not all(_equal(adapter.lora[site], matrices) for site, matrices in parts.lora.items()):
        raise AdapterFileError("the adapter reads back otherwise than it was written: please report this source")
    if _head_tensors(adapter).keys() != parts.head.keys() or not _all_equal(_head_tensors(adapter), parts.head):
        raise AdapterFileError("the adapter's head reads back otherwise than it was written: please report this source")


def _equal(read: LoRA, meant: LoRA) -> bool:
    biases = [bias for bias in (read.bias, meant.bias) if bias is not None]
    return (
        torch.equal(read.a, meant.a)
        and torch.equal(read.b, meant.b)
        and abs(read.scaling - meant.scaling) <= 1e-6 * abs(meant.scaling)
        and (not biases or (len(biases) == 2 and torch.equal(*biases)))
    )


def _head_tensors(adapter: Adapter) -> dict[str, Tensor]:
    if adapter.head is None:
        return {}
    parts = adapter.head.parts.items()
    return {f"{name}.{kind}": getattr(part, kind) for name, part in parts for kind in ("weight", "bias")}


def _all_equal(read: Mapping[str, Tensor], meant: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(read[name], tensor) for name, tensor in meant.items())
