"""What `LoRAT.save` writes: PEFT's config and tensors, and the facts for `lorat.json`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lorat.adapter import Task
from lorat.config import LoRATConfig
from lorat.errors import AdapterFileError, ConfigError
from lorat.files.adapter_weights import PREFIX
from lorat.files.facts import FORMAT, MAX_LABELS, check_facts
from lorat.files.json_file import short
from lorat.files.model_labels import MULTI_LABEL, ModelLabels
from lorat.files.peft_config import TASK_TYPES
from lorat.layers import LoRALinear
from lorat.targets import MODULES, Site

_TASK_TYPES = {task: name for name, task in TASK_TYPES.items()}


def tensors(
    adapted: Iterable[tuple[Site, LoRALinear]], saved: Mapping[str, nn.Linear], *, headless: bool
) -> dict[str, Tensor]:
    """The trained tensors, named as PEFT names them. `headless`: the model is the bare BertModel."""
    prefix = PREFIX if headless else PREFIX + "bert."
    named: dict[str, Tensor] = {}
    for site, layer in adapted:
        named[f"{prefix}{site.module}.lora_A.weight"] = layer.lora_A
        named[f"{prefix}{site.module}.lora_B.weight"] = layer.lora_B
    for name, module in saved.items():
        owner = PREFIX if name == "classifier" else prefix
        named |= {f"{owner}{name}.{kind}": getattr(module, kind) for kind in ("weight", "bias")}
    return named


def peft_config(settings: LoRATConfig, task: Task, modules_to_save: Sequence[str], base_name: str) -> dict[str, Any]:
    """The fields of `adapter_config.json`."""
    modules = _target_modules(settings)
    return {
        "peft_type": "LORA",
        "task_type": _TASK_TYPES[task],
        "base_model_name_or_path": base_name or None,
        "r": settings.rank,
        "lora_alpha": settings.alpha if isinstance(settings.alpha, int) else float(settings.alpha),
        "lora_dropout": float(settings.dropout),
        "use_rslora": settings.use_rslora,
        "target_modules": modules,
        "layers_to_transform": None if isinstance(modules, str) else list(settings.layers),
        "modules_to_save": list(modules_to_save) or None,
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


def facts(task: Task, config: Any, base_id: str | None) -> dict[str, Any]:
    """The fields of `lorat.json`, but for what a person adds. `config`: the model's transformers config.

    Raises ConfigError for a regression.
    """
    if task != "embedding":
        _refuse_regression(task, config)
    return {
        "format": FORMAT,
        "task": task,
        "labels": None if task == "embedding" else list(ModelLabels.of(config).names),
        "multi_label": config.problem_type == MULTI_LABEL,
        "base_id": base_id,
    }


def _refuse_regression(task: Task, config: Any) -> None:
    if config.problem_type == "regression":
        raise ConfigError("the config's problem_type is 'regression': served heads score labels")
    if task == "sequence_classification" and config.num_labels == 1 and config.problem_type is None:
        raise ConfigError(
            "the config has one label and no problem_type, of which transformers makes a regression: "
            f"served heads score labels, set problem_type={MULTI_LABEL!r}"
        )


def check(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise ConfigError for what would be written and then not be read."""
    try:
        check_facts(facts)
    except AdapterFileError as error:
        raise ConfigError(f"{error}: it could not be served") from error
    labels = facts["labels"] or ()
    if len(labels) > MAX_LABELS:
        raise ConfigError(f"the model has {len(labels)} labels: at most {MAX_LABELS} are served")
    if twice := next((label for label, count in Counter(labels).items() if count > 1), None):
        raise ConfigError(f"two labels are named {short(twice)}: give each a name of its own in the config's id2label")
    if wrong := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise ConfigError(f"{wrong} is not finite: training diverged, lower the learning rate")
