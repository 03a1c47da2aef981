"""What `LoRAT.save` writes: PEFT's config and tensors, and the facts for `lorat.json`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lorat.adapter import Task
from lorat.adapter_weights import PREFIX
from lorat.config import LoRATConfig
from lorat.facts import FORMAT
from lorat.fingerprint import base_id
from lorat.targets import MODULES

if TYPE_CHECKING:
    from lorat.model import LoRAT

_TASK_TYPES: dict[Task, str] = {
    "embedding": "FEATURE_EXTRACTION",
    "sequence_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
}


def tensors(lorat: "LoRAT") -> dict[str, Tensor]:
    """The trained tensors, named as PEFT names them."""
    prefix = PREFIX if lorat.model is lorat.bert else PREFIX + "bert."
    named: dict[str, Tensor] = {}
    for site, layer in lorat.adapted():
        named[f"{prefix}{site.module}.lora_A.weight"] = layer.lora_A
        named[f"{prefix}{site.module}.lora_B.weight"] = layer.lora_B
    for name, module in lorat.saved_modules().items():
        owner = PREFIX if name == "classifier" else prefix
        named |= {f"{owner}{name}.{kind}": getattr(module, kind) for kind in ("weight", "bias")}
    return named


def peft_config(lorat: "LoRAT") -> dict[str, Any]:
    """The fields of `adapter_config.json`."""
    settings = lorat.settings
    modules = _target_modules(settings)
    every = len(settings.layers) == lorat.bert.config.num_hidden_layers
    return {
        "peft_type": "LORA",
        "task_type": _TASK_TYPES[lorat.task],
        "base_model_name_or_path": Path(lorat.model.name_or_path).name or None,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.use_rslora,
        "target_modules": modules,
        "layers_to_transform": None if every or isinstance(modules, str) else list(settings.layers),
        "modules_to_save": list(lorat.modules_to_save) or None,
        "bias": "none",
        "inference_mode": True,
    }


def _target_modules(settings: LoRATConfig) -> list[str] | str:
    """PEFT's `target_modules` for exactly these layers: a list, or a pattern where a list cannot tell.

    In a list "output.dense" would also match `attention.output.dense`.
    """
    if "ffn_output" not in settings.targets:
        return [MODULES[target] for target in settings.targets]
    layers = "|".join(str(layer) for layer in settings.layers)
    modules = "|".join(MODULES[target].replace(".", r"\.") for target in settings.targets)
    return rf"(?:.*\.)?encoder\.layer\.(?:{layers})\.(?:{modules})"


def facts(lorat: "LoRAT") -> dict[str, Any]:
    """The fields of `lorat.json`, but for what a person adds."""
    return {
        "format": FORMAT,
        "task": lorat.task,
        "labels": _labels(lorat),
        "multi_label": lorat.config.problem_type == "multi_label_classification",
        "base_id": checkpoint_id(lorat.model),
    }


def _labels(lorat: "LoRAT") -> list[str] | None:
    if lorat.task == "embedding":
        return None
    names = lorat.config.id2label
    return [names[index] for index in sorted(names)]


def checkpoint_id(model: Any) -> str | None:
    """The base id of the checkpoint that a transformers model was loaded from, None where it is not at hand."""
    directory = Path(model.name_or_path or "/nowhere")
    return base_id(directory) if list(directory.glob("model*.safetensors")) else None
