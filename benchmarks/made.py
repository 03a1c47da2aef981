"""Random adapters in PEFT's format, as large in effect as trained ones."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PretrainedConfig

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
