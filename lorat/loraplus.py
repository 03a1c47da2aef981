"""An optimizer's parameter groups for LoRA+: B learns faster than A."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from lorat.errors import ConfigError
from lorat.layers import LoRALinear


def loraplus_groups(
    adapted: Iterable[LoRALinear],
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    ratio: float,
    head_learning_rate: float | None,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Groups of the parameters that train: A of the adapted layers at `learning_rate`, B at `ratio` times it.

    The rest learns at the head's rate (None: as A). lr_B = ratio * lr_A, as in LoRA+ (arXiv 2402.12354, section 4).
    Vectors (biases, LayerNorm) do not decay.
    """
    head_rate = learning_rate if head_learning_rate is None else head_learning_rate
    for name, value in (("learning_rate", learning_rate), ("ratio", ratio), ("head_learning_rate", head_rate)):
        if not 0 < value < float("inf"):
            raise ConfigError(f"{name}={value!r}: use a number above 0")
    layers = list(adapted)
    a, b = [layer.lora_A for layer in layers], [layer.lora_B for layer in layers]
    lora = {id(parameter) for parameter in (*a, *b)}
    rest = [parameter for parameter in parameters if id(parameter) not in lora]
    groups = [
        _group("lora_A", a, learning_rate, weight_decay),
        _group("lora_B", b, learning_rate * ratio, weight_decay),
        _group("head", (p for p in rest if p.ndim > 1), head_rate, weight_decay),
        _group("head, no decay", (p for p in rest if p.ndim <= 1), head_rate, 0.0),
    ]
    return [group for group in groups if group["params"]]


def _group(name: str, parameters: Iterable[nn.Parameter], rate: float, weight_decay: float) -> dict[str, Any]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return {"name": name, "params": trained, "lr": rate, "weight_decay": weight_decay}
