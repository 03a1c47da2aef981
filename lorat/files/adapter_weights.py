"""`adapter_model.safetensors`: its tensors by name, each checked and taken once."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import deserialize as _deserialize
from torch import Tensor

from lorat.errors import AdapterFileError
from lorat.files.json_file import short
from lorat.files.safetensors_header import check_header

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
deserialize: Any = _deserialize
_HEADS = ("classifier.", "score.")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


class AdapterWeights:
    """The tensors of a safetensors file by module name, each taken once.

    Names are those of a BertModel: without PEFT's prefix and without the `bert.` of a model with a head.
    The file is read whole: each `get_tensor` of safetensors 0.8 leaves 56 bytes behind, and a server reads adapters for
    as long as it runs.
    """

    def __init__(self, path: Path) -> None:
        check_header(path, WEIGHTS)
        try:
            self._tensors: dict[str, dict[str, Any]] = dict(deserialize(path.read_bytes()))
        except (SafetensorError, OSError, ValueError) as error:
            raise AdapterFileError(f"{WEIGHTS} is not a whole safetensors file: {str(error)[:300]}") from error
        keys = list(self._tensors)
        self._left = {self._short(key): key for key in keys}
        inside = [key for key in keys if not self._short(key).startswith(_HEADS)]
        self.wrapped = any(key.startswith(PREFIX + "bert.") for key in inside)
        if len(self._left) != len(keys) or not all(key.startswith(PREFIX + "bert.") == self.wrapped for key in inside):
            raise AdapterFileError(f"{WEIGHTS} names some tensors with and some without 'bert.'")

    @staticmethod
    def _short(key: str) -> str:
        if not key.startswith(PREFIX):
            raise AdapterFileError(f"{WEIGHTS} has the tensor {short(key, 200)}: names must begin with {PREFIX!r}")
        return key.removeprefix(PREFIX).removeprefix("bert.")

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def shape(self, name: str) -> list[int]:
        """Shape of a tensor as the header says it; one size at least."""
        return list(self._tensors[self._left[name]]["shape"]) or [0]

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor, in float32, in memory of its own."""
        if name not in self._left:
            raise AdapterFileError(f"{WEIGHTS} lacks the tensor {name!r}")
        key = self._left.pop(name)
        found = self._tensors.pop(key)
        if found["dtype"] not in _DTYPES:
            raise AdapterFileError(f"{WEIGHTS}: {key!r} is {found['dtype']}: use one of {sorted(_DTYPES)}")
        if tuple(found["shape"]) != shape:
            raise AdapterFileError(
                f"{WEIGHTS}: {key!r} has the shape {short(list(found['shape']))}, the base needs {list(shape)}"
            )
        stored = torch.frombuffer(found["data"], dtype=_DTYPES[found["dtype"]]).view(shape)
        tensor = stored.to(torch.float32, copy=True)
        if not torch.isfinite(tensor).all():
            raise AdapterFileError(f"{WEIGHTS}: {key!r} holds NaN or infinite values")
        return tensor

    def refuse_leftovers(self) -> None:
        """Raise for tensors that nothing has taken."""
        if self._left:
            key = sorted(self._left.values())[0]
            raise AdapterFileError(
                f"{WEIGHTS}: {short(key, 200)} fits no layer that adapter_config.json names "
                f"({len(self._left)} such tensors)"
            )
