"""The checkpoint that a transformers model was loaded from, as far as it is at hand."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorat.errors import ConfigError
from lorat.files.architecture import difference
from lorat.files.base_weights import has_pooler, names, opened, weight_files
from lorat.files.json_file import read_json
from lorat.fingerprint import base_id, is_encoder, tensors_id

_ADAPTER = (".lora_A", ".lora_B", ".merged")


def find_checkpoint(name_or_path: str | None) -> Path | None:
    """The directory of safetensors that a model's `name_or_path` is, None where it is none."""
    directory = Path(name_or_path or "/nowhere")
    return directory if weight_files(directory) else None


def brings_pooler(encoder: Any, name_or_path: str | None) -> bool:
    """Whether a BertModel's pooler is of its checkpoint, not drawn at random; so is any whose checkpoint is away."""
    checkpoint = find_checkpoint(name_or_path)
    return encoder.pooler is not None and (checkpoint is None or has_pooler(checkpoint))


def model_id(encoder: Any, name_or_path: str | None) -> str | None:
    """The base id of a BertModel, wrapped or not: its checkpoint's, or where it differs from that, its own.

    None where its checkpoint is not at hand. Its own is what `lorat.fingerprint.base_id` gives once it is saved.
    Raises ConfigError where its config makes something else of the checkpoint's tensors than `config.json` there.
    """
    checkpoint = find_checkpoint(name_or_path)
    if checkpoint is None:
        return None
    own = {name: tensor for name, tensor in _tensors(encoder).items() if is_encoder(name)}
    if not _are_of(checkpoint, own):
        return tensors_id(own)
    if wrong := difference(read_json(checkpoint / "config.json", dict), encoder.config, "the model"):
        raise ConfigError(f"{checkpoint}/config.json: {wrong}: load it unchanged")
    return base_id(checkpoint)


def _tensors(encoder: Any) -> dict[str, Tensor]:
    """By the names that they have in a BertModel that is not wrapped."""
    state = encoder.state_dict().items()
    return {name.replace(".linear.", "."): tensor for name, tensor in state if not name.endswith(_ADAPTER)}


def _are_of(checkpoint: Path, own: dict[str, Tensor]) -> bool:
    found = {name: (file, key) for name, file, key in names(checkpoint, renamed=True) if is_encoder(name)}
    return found.keys() == own.keys() and all(_same(own[name], *place) for name, place in found.items())


def _same(tensor: Tensor, file: Path, key: str) -> bool:
    with opened(file) as tensors:
        return torch.equal(tensor.cpu(), tensors.get_tensor(key).to(tensor.dtype))
