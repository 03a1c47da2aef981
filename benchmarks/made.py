"""Random adapters, in PEFT's format or in memory, as large in effect as trained ones; random bases."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, PretrainedConfig

from lorat.adapter import Adapter, Head, Linear, LoRA
from lorat.base import Base
from lorat.files.adapter_weights import PREFIX
from lorat.recipe import Recipe
from lorat.targets import MODULES, BaseShape, Site

QV = ("query", "value")
ALL = tuple(MODULES)


def make_adapter(
    directory: Path,
    config: PretrainedConfig,
    seed: int,
    rank: int,
    targets: Sequence[str],
    task_type: str = "FEATURE_EXTRACTION",
    labels: int = 0,
) -> Path:
    """`random_adapter` as PEFT's files. task_type: PEFT's; a classifier has `labels`."""
    adapter = random_adapter(config, seed, rank, targets, labels)
    tensors, owner = {}, f"{PREFIX}bert." if labels else PREFIX
    for site, lora in adapter.lora.items():
        tensors[f"{owner}{site.module}.lora_A.weight"] = lora.a
        tensors[f"{owner}{site.module}.lora_B.weight"] = lora.b
    if adapter.head:
        classifier = adapter.head.classifier
        tensors |= {f"{PREFIX}classifier.weight": classifier.weight, f"{PREFIX}classifier.bias": classifier.bias}
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    modules = [MODULES[target] for target in targets]
    facts = {"peft_type": "LORA", "task_type": task_type, "modules_to_save": ["classifier"] if labels else None}
    facts |= {"r": rank, "lora_alpha": adapter.alpha, "target_modules": modules}
    (directory / "adapter_config.json").write_text(json.dumps(facts | {"bias": "none", "fan_in_fan_out": False}))
    return directory


class RandomBase(Base):
    """A base that is in no file."""

    def weights(self) -> dict[str, torch.Tensor]:
        """Those of `random_bert`."""
        return dict(random_bert(self.config, str(self.device), self.dtype).state_dict())


def random_base(config: BertConfig, device: str, dtype: torch.dtype) -> Base:
    """A BERT of this shape with random weights, and no tokenizer: it takes token ids."""
    shape, recipe, tokenizer = BaseShape.of(config, has_pooler=True), Recipe(normalize=False), cast(Any, None)
    return RandomBase("random", Path(), config, shape, tokenizer, recipe, torch.device(device), dtype)


def random_bert(config: BertConfig, device: str, dtype: torch.dtype) -> BertModel:
    """transformers' model of these weights: the same at each call."""
    torch.manual_seed(0)
    return BertModel(config).to(device, dtype).eval().requires_grad_(False)


def random_adapter(config: PretrainedConfig, seed: int, rank: int, targets: Sequence[str], labels: int = 0) -> Adapter:
    """An adapter in memory, on every layer. targets: by LoRAT's names. With `labels` it classifies."""
    generator = torch.Generator().manual_seed(seed)
    shape = BaseShape.of(config, has_pooler=True)

    def drawn(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator) * 0.05

    lora = {}
    for layer in range(shape.layers):
        for target in targets:
            wide, tall = shape.linear_shape(target)
            lora[Site(layer, target)] = LoRA(drawn(rank, wide), drawn(tall, rank), scaling=2.0)
    head = Head(Linear(drawn(labels, shape.hidden), drawn(labels)), tuple(map(str, range(labels)))) if labels else None
    return Adapter("sequence_classification" if labels else "embedding", lora, rank, 2.0 * rank, head)
