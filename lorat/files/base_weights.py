"""`model.safetensors` of a base: a BERT's tensors, by the names that transformers' BertModel gives them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorat.errors import BaseError
from lorat.targets import MODULES, POOLER

_WHOLE, _SHARDS = "model.safetensors", "model-*-of-*.safetensors"
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INSIDE = re.compile(r"embeddings\.(?!.*_ids\Z)|encoder\.layer\.(\d+)\.")
_OLDER = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # of the first BERTs


def weight_files(checkpoint: Path) -> list[Path]:
    """The safetensors of a model's directory: one file, or its shards. Empty where there are none."""
    whole = checkpoint / _WHOLE
    return [whole] if whole.is_file() else sorted(checkpoint.glob(_SHARDS))


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """safetensors' reader of a file. Raises BaseError where it cannot be read."""
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (OSError, SafetensorError) as error:
        raise BaseError(f"{file} cannot be read: {error}") from error


def names(checkpoint: Path, *, renamed: bool = False) -> Iterable[tuple[str, Path, str]]:
    """(name without a leading `bert.`, its file, its name there) of every tensor. Raises BaseError as `opened`.

    renamed: by the names that BertModel has now, where the file has older ones.
    """
    for file in weight_files(checkpoint):
        with opened(file) as tensors:
            for key in list(tensors.keys()):
                yield modern(_plain(key)) if renamed else _plain(key), file, key


def has_pooler(checkpoint: Path) -> bool:
    """Whether a checkpoint carries BERT's pooler."""
    return any(name == f"{POOLER}.weight" for name, _, _ in names(checkpoint))


def read_base_weights(checkpoint: Path, config: Any, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a base's embeddings and layers, and of its pooler if it has one; copies, nothing of the file.

    config: transformers' BertConfig. Raises BaseError for a file that cannot be read, and for tensors that are missing,
    of another shape or type, not finite, or of a kind of BERT that computes otherwise.
    """
    pooler = has_pooler(checkpoint)
    shapes = {name: shape for name, shape in _shapes(config).items() if pooler or not name.startswith(POOLER)}
    weights: dict[str, Tensor] = {}
    for file in weight_files(checkpoint):
        with opened(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118  # it is no mapping
                if (name := modern(_plain(key))) in shapes:
                    weights[name] = tensors.get_tensor(key)
                elif _is_computed(name, config.num_hidden_layers):
                    raise BaseError(f"{file}: its weights hold {key!r}, which BERT's encoder does not have")
    _check(checkpoint, weights, shapes)
    return {name: tensor.to(device, dtype, copy=True) for name, tensor in weights.items()}


def _plain(key: str) -> str:
    return key.removeprefix("bert.")


def modern(name: str) -> str:
    """The name that transformers gives a tensor now."""
    for old, new in _OLDER.items():
        name = name.replace(old, new)
    return name


def _is_computed(name: str, layers: int) -> bool:
    """Whether a model would compute with a tensor of this name: not a buffer, nor of a layer that its config cuts."""
    inside = _INSIDE.match(name)
    return inside is not None and (inside[1] is None or int(inside[1]) < layers)


def _check(checkpoint: Path, weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if missing := sorted(set(shapes) - set(weights)):
        raise BaseError(f"{checkpoint}: its weights lack {missing[0]!r} ({len(missing)} tensors in all)")
    for name, shape in shapes.items():
        tensor = weights[name]
        if tensor.shape != shape:
            raise BaseError(f"{checkpoint}: {name!r} is {list(tensor.shape)}, its config.json says {list(shape)}")
        if tensor.dtype not in _FLOATS:
            raise BaseError(
                f"{checkpoint}: {name!r} is {tensor.dtype}: convert it to a floating type of 16 bits or more"
            )
        if not tensor.isfinite().all():
            raise BaseError(f"{checkpoint}: {name!r} holds NaN or infinite values: download it again")


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
        **_pair("embeddings.LayerNorm", (hidden,)),
        **_pair(POOLER, (hidden, hidden)),
    }
    sizes = {MODULES["intermediate"]: (inner, hidden), MODULES["ffn_output"]: (hidden, inner)}
    norms = dict.fromkeys(("attention.output.LayerNorm", "output.LayerNorm"), (hidden,))
    for layer in range(config.num_hidden_layers):
        for module in MODULES.values():
            shapes |= _pair(f"encoder.layer.{layer}.{module}", sizes.get(module, (hidden, hidden)))
        for module, size in norms.items():
            shapes |= _pair(f"encoder.layer.{layer}.{module}", size)
    return shapes


def _pair(module: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Of a linear or a norm: the bias is as long as the weight's first side."""
    return {f"{module}.weight": shape, f"{module}.bias": shape[:1]}
