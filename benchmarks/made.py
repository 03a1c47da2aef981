"""Random adapters, in PEFT's format or in memory, as large in effect as trained ones; random bases."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, PretrainedConfig

from lorat.adapter import Adapter, Head, Linear, LoRA
from lorat.base import Base
from lorat.recipe import Recipe
from lorat.targets import BaseShape, Site

QV = ("query", "value")
ALL = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")


def make_adapter(directory: Path, config: PretrainedConfig, seed: int, rank: int, targets: tuple[str, ...]) -> Path:
    """An adapter on each layer of a BERT of this shape."""
    directory.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config.num_hidden_layers):
        for target in targets:
            wide, tall = _shape(config, target)
            place = target if target.count(".") or target in ALL[3:] else f"attention.self.{target}"
            prefix = f"base_model.model.encoder.layer.{layer}.{place}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, wide, generator=generator) * 0.05
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(tall, rank, generator=generator) * 0.05
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    facts = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(targets)}
    (directory / "adapter_config.json").write_text(json.dumps(facts | {"bias": "none", "fan_in_fan_out": False}))
    return directory


def _shape(config: PretrainedConfig, target: str) -> tuple[int, int]:
    hidden, inner = config.hidden_size, config.intermediate_size
    return {"intermediate.dense": (hidden, inner), "output.dense": (inner, hidden)}.get(target, (hidden, hidden))


def random_base(config: BertConfig, device: str, dtype: torch.dtype, seed: int = 0) -> Base:
    """A BERT of this shape with random weights, and no tokenizer: it takes token ids."""
    torch.manual_seed(seed)
    model = BertModel(config).to(device, dtype).eval().requires_grad_(False)
    shape = BaseShape.of(config, has_pooler=True)
    tokenizer: Any = None
    return Base("random", model, shape, tokenizer, Recipe(normalize=False))


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
