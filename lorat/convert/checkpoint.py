"""The tensors of a checkpoint, read without running anything that is in it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lorat.errors import AdapterFileError, ConfigError
from lorat.files.base_weights import modern, weight_files
from lorat.files.json_file import read_json, short
from lorat.files.recipe_file import module_kind, read_recipe
from lorat.files.safetensors_header import read_header

_TORCH = (".pt", ".pth", ".bin", ".ckpt")
_CONTAINERS = ("state_dict", "model_state_dict", "model")
_WRAPPERS = re.compile(r"\A(?:module\.|model\.|_orig_mod\.|bert\.)+")
_TRAINING = {
    "args", "best_metric", "callbacks", "config", "epoch", "global_step", "hyper_parameters", "iteration", "loops",
    "loss", "lr_scheduler", "lr_schedulers", "optimizer", "optimizer_state_dict", "optimizer_states",
    "pytorch-lightning_version", "rng_state", "scaler", "scheduler", "scheduler_state_dict", "step",
}  # fmt: skip
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """A source's tensors, named as a BertModel names them, in the file's dtype.

    directory: the one of transformers that they came from, None for a single file. recipe: the directory of
    sentence-transformers around it. beside: what a container held besides the tensors.
    """

    tensors: Mapping[str, Tensor]
    directory: Path | None = None
    recipe: Path | None = None
    beside: tuple[str, ...] = ()

    def unknown(self) -> list[str]:
        """Of what stood beside the tensors, what is not a trainer's own state."""
        return [name for name in self.beside if name not in _TRAINING]

    def notes(self) -> list[str]:
        """A sentence about the trainer's state, where there is any."""
        known = [name for name in self.beside if name in _TRAINING]
        return [f"left out what is the training's own: {', '.join(known)}"] if known else []


def read_checkpoint(source: Path) -> Checkpoint:
    """Read a file or a directory. Raises ConfigError for what it cannot be, AdapterFileError for a damaged file.

    safetensors are read as they are, torch's files with `weights_only=True`: tensors and plain values, no code.
    """
    if not source.exists():
        raise ConfigError(f"{source} does not exist: name a checkpoint's file or directory")
    if source.is_file():
        tensors, beside = _read([source])
        return Checkpoint(tensors, beside=beside)
    if (source / "adapter_config.json").exists():
        raise ConfigError(f"{source} is an adapter as PEFT saves it: it is served as it is (lorat push)")
    recipe = source if (source / "modules.json").exists() else None
    directory = _transformer(source) if recipe else source
    tensors, beside = _read(_weights_in(directory))
    return Checkpoint(tensors, directory, recipe, beside)


def _transformer(root: Path) -> Path:
    """The directory of the transformer in one of sentence-transformers."""
    read_recipe(root)
    for entry in read_json(root / "modules.json", list):
        if module_kind(entry) == "Transformer":
            return root / str(entry["path"])
    raise AdapterFileError("modules.json names no Transformer: name the transformer's own directory")


def _weights_in(directory: Path) -> list[Path]:
    if files := weight_files(directory) or sorted(directory.glob("pytorch_model*.bin")):
        return files
    raise ConfigError(f"{directory} has no model.safetensors: name the directory of a model, or a checkpoint's file")


def _read(files: Iterable[Path]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    tensors: dict[str, Tensor] = {}
    beside: list[str] = []
    for file in files:
        named, others = _contents(file)
        beside += others
        for key, tensor in named.items():
            name = plain_name(key)
            if name in tensors:
                raise AdapterFileError(f"{file.name}: {short(key, 200)} is there twice, as {name!r}")
            tensors[name] = _checked(tensor, f"{file.name}: {short(key, 200)}")
    return tensors, tuple(beside)


def _contents(file: Path) -> tuple[dict[str, Any], list[str]]:
    return (_read_safetensors(file), []) if file.suffix == ".safetensors" else _unwrap(_read_torch(file), file.name)


def plain_name(key: str) -> str:
    """A tensor's name without what wrappers put before it, and without the `bert.` of a model with a head."""
    return modern(_WRAPPERS.sub("", key))


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    read_header(file, file.name)
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise AdapterFileError(f"{file.name} is not a whole safetensors file: {short(str(error), 200)}") from error
    return tensors


def _read_torch(file: Path) -> Any:
    if file.suffix not in _TORCH:
        raise ConfigError(f"{file.name}: a checkpoint ends in .safetensors or one of {', '.join(_TORCH)}")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises, the way out is the same
        raise AdapterFileError(
            f"{file.name} cannot be read as tensors alone, and no code in it is run: save its state dict with "
            f"safetensors.torch.save_file ({short(str(error).splitlines()[0] if str(error) else type(error).__name__)})"
        ) from error


def _unwrap(value: Any, file: str) -> tuple[dict[str, Any], list[str]]:
    """The state dict in a container of trainers, and the names of what stood beside it."""
    beside: list[str] = []
    while isinstance(value, dict) and not any(isinstance(item, Tensor) for item in value.values()):
        inner = next((name for name in _CONTAINERS if isinstance(value.get(name), dict)), None)
        if inner is None:
            break
        beside += [str(name) for name in value if name != inner]
        value = value[inner]
    if not isinstance(value, dict) or not value or not all(isinstance(key, str) for key in value):
        raise AdapterFileError(f"{file} holds no state dict (names to tensors): save model.state_dict()")
    return value, beside


def _checked(tensor: Any, name: str) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise AdapterFileError(f"{name} is no tensor: save model.state_dict()")
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise AdapterFileError(f"{name} is sparse, quantized or without data: save it as a plain tensor")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise AdapterFileError(f"{name} is larger than its data: save a contiguous tensor")
    if not tensor.is_floating_point():
        return tensor.detach()
    if tensor.dtype not in _FLOATS:
        raise AdapterFileError(f"{name} is {tensor.dtype}: use a floating point type of 16 bits or more")
    if not torch.isfinite(tensor).all():
        raise AdapterFileError(f"{name} holds NaN or infinite values")
    return tensor.detach()
