"""PEFT's `adapter_config.json`: which fields are honoured, and which layers they mean.

Matching follows peft 0.21 (`peft.tuners.tuners_utils.check_target_module_exists`, `peft.utils.other.
get_pattern_key`): a string is a full regular-expression match, a list matches a whole name or its last
parts, and the first fitting key of `rank_pattern` and `alpha_pattern` wins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lorat.adapter import Task
from lorat.config import MAX_ALPHA, scaling
from lorat.errors import AdapterFileError, UnsupportedAdapterError
from lorat.files.json_file import short
from lorat.files.patterns import Patterns

# Fields whose value changes nothing in the forward pass of a loaded adapter.
_INERT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "megatron_config",
    "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config",
    "fan_in_fan_out",  # PEFT itself resets it for a linear layer
    "ensure_weight_tying",  # a BERT encoder ties none of the layers that LoRA can change
    "eva_config", "corda_config", "loftq_config", "lora_ga_config",  # they only choose initial values
}  # fmt: skip
_HONOURED = {
    "r", "lora_alpha", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "use_rslora", "bias", "modules_to_save", "task_type", "peft_type",
    "init_lora_weights",
}  # fmt: skip
TASK_TYPES: dict[str, Task] = {
    "FEATURE_EXTRACTION": "embedding",
    "SEQ_CLS": "sequence_classification",
    "TOKEN_CLS": "token_classification",
}
"""PEFT's names of tasks."""
_INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal")
_SAVED_WHOLE = {"classifier", "score", "pooler"}


@dataclass(frozen=True)
class PeftConfig:
    """The fields of an `adapter_config.json` that decide the arithmetic."""

    r: int
    lora_alpha: float
    target_modules: str | tuple[str, ...]
    exclude_modules: str | tuple[str, ...] = ()
    layers_to_transform: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False
    bias: Literal["none", "lora_only"] = "none"
    modules_to_save: tuple[str, ...] = ()
    task_type: str | None = None
    patterns: Patterns = field(default_factory=Patterns, repr=False, compare=False)

    def adapts(self, module: str) -> bool:
        """Whether PEFT would put LoRA on the linear layer of this name."""
        if self._matches(self.exclude_modules, module):
            return False
        if any(self.patterns.match(saved, module, r"(^|.*\.){}($|\..*)") for saved in self.modules_to_save):
            return False
        targets = self.target_modules
        if isinstance(targets, str):
            return targets == "all-linear" or self._matches(targets, module)
        return module in targets or (self._matches(targets, module) and self._in_chosen_layer(module))

    def _matches(self, wanted: str | Sequence[str], module: str) -> bool:
        if isinstance(wanted, str):
            return bool(self.patterns.match(wanted, module, r"(?:{})\Z"))
        return any(module == name or module.endswith(f".{name}") for name in wanted)

    def _in_chosen_layer(self, module: str) -> bool:
        if self.layers_to_transform is None:
            return True
        forms = [(name, r"(?:^|.*?\.){}\.(?P<index>\d+)\.") for name in self.layers_pattern]
        for name, form in forms or [("", r".*?\.[^.]*\.(?P<index>\d+)\.")]:
            match = self.patterns.match(name, module, form)
            if match:
                index = match["index"]  # a pattern may hold a group of this name as well
                return index is not None and index.isdecimal() and int(index) in self.layers_to_transform
        return False

    def _first_fitting(self, by_pattern: Mapping[str, float], module: str, default: float) -> float:
        fitting = (value for key, value in by_pattern.items() if self.patterns.match(key, module, r"(.*\.)?({})$"))
        return next(fitting, default)

    def rank_of(self, module: str) -> int:
        """Rank at a linear layer."""
        return int(self._first_fitting(self.rank_pattern, module, self.r))

    def scaling_of(self, module: str) -> float:
        """Scaling at a linear layer: alpha / rank, or alpha / sqrt(rank)."""
        alpha = float(self._first_fitting(self.alpha_pattern, module, self.lora_alpha))
        return scaling(alpha, self.rank_of(module), self.use_rslora)


def parse_peft_config(config: Mapping[str, Any]) -> PeftConfig:
    """A checked `PeftConfig` from the JSON object of an `adapter_config.json`.

    Raises UnsupportedAdapterError, naming the field, for anything that changes the arithmetic and is not
    implemented; AdapterFileError for a missing field or one of a wrong type.
    """
    _refuse_unsupported(config)
    read = _Reader(config)
    targets = read.patterns("target_modules")
    if not targets:
        raise AdapterFileError("adapter_config.json: target_modules is missing or empty")
    return PeftConfig(
        r=read.value("r", "a whole number of at least 1", _is_rank, required=True),
        lora_alpha=read.value("lora_alpha", "a number", _is_number, required=True),
        target_modules=targets,
        exclude_modules=read.patterns("exclude_modules"),
        layers_to_transform=read.indices("layers_to_transform"),
        layers_pattern=read.names("layers_pattern"),
        rank_pattern=read.mapping("rank_pattern", _is_rank),
        alpha_pattern=read.mapping("alpha_pattern", _is_number),
        use_rslora=read.value("use_rslora", "true or false", lambda v: isinstance(v, bool)) or False,
        bias=config.get("bias") or "none",
        modules_to_save=read.names("modules_to_save"),
        task_type=read.value("task_type", "a text", lambda v: isinstance(v, str)),
    )


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise UnsupportedAdapterError(
            f"adapter_config.json: peft_type is {short(config.get('peft_type'))}: only 'LORA' is served"
        )
    for name, value in config.items():
        if name not in _INERT | _HONOURED and value not in (None, False, "", [], {}):
            raise UnsupportedAdapterError(
                f"adapter_config.json: {name[:80]}={short(value)} is not implemented: train without it"
            )
    start = config.get("init_lora_weights")
    if not any(start is known or (isinstance(start, str) and start == known) for known in _INITIALISATIONS):
        raise UnsupportedAdapterError(
            f"adapter_config.json: init_lora_weights={short(start)} rewrites the base: convert the adapter "
            "with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...), and add its head, which PEFT "
            "leaves out there"
        )
    if config.get("bias") not in (None, "none", "lora_only"):
        raise UnsupportedAdapterError(
            f"adapter_config.json: bias={short(config['bias'])} changes the base: use 'none' or 'lora_only'"
        )
    unknown = [name for name in _Reader(config).names("modules_to_save") if name not in _SAVED_WHOLE]
    if unknown:
        raise UnsupportedAdapterError(
            f"adapter_config.json: modules_to_save has {short(unknown[0])}: only classifier, score and pooler "
            "may be saved whole"
        )


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_ALPHA


class _Reader:
    """Typed access to the fields of a config, with an error that names the field."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def value(self, name: str, kind: str, fits: Callable[[Any], bool], *, required: bool = False) -> Any:
        value = self.config.get(name)
        if (value is None and not required) or fits(value):
            return value
        raise AdapterFileError(f"adapter_config.json: {name} is {short(value)}: it must be {kind}")

    def names(self, name: str) -> tuple[str, ...]:
        """A text or a list of texts, as a tuple."""
        value = self.config.get(name) or []
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise AdapterFileError(f"adapter_config.json: {name} must be a text or a list of texts")
        return tuple(value)

    def patterns(self, name: str) -> str | tuple[str, ...]:
        """A text stays a text (a regular expression); a list becomes a tuple."""
        value = self.config.get(name)
        return value if isinstance(value, str) else self.names(name)

    def indices(self, name: str) -> tuple[int, ...] | None:
        """A whole number or a list of them, as a tuple; None for nothing."""
        value = self.config.get(name)
        value = [value] if _is_index(value) else value or None
        if value is not None and not (isinstance(value, list) and all(map(_is_index, value))):
            raise AdapterFileError(f"adapter_config.json: {name} must be a list of layer indices")
        return tuple(value) if value else None

    def mapping(self, name: str, fits: Callable[[Any], bool]) -> dict[str, Any]:
        value = self.config.get(name) or {}
        if not isinstance(value, dict) or not all(map(fits, value.values())):
            raise AdapterFileError(f"adapter_config.json: {name} must map names to numbers")
        return value
