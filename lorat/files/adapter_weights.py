"""`adapter_model.safetensors`: its tensors by name, each checked and taken once."""

from pathlib import Path

from torch import Tensor

from lorat.errors import AdapterFileError
from lorat.files.json_file import short
from lorat.files.tensor_file import TensorFile

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
_HEADS = ("classifier.", "score.")


class AdapterWeights:
    """The tensors of a safetensors file by module name, each taken once.

    Names are those of a BertModel: without PEFT's prefix and without the `bert.` of a model with a head.
    """

    def __init__(self, path: Path) -> None:
        self._file = TensorFile(path, WEIGHTS)
        keys = self._file.keys()
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
        return list(self._file.shape(self._left[name])) or [0]

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor, in float32, in memory of its own."""
        if name not in self._left:
            raise AdapterFileError(f"{WEIGHTS} lacks the tensor {name!r}")
        key = self._left.pop(name)
        found = self._file.shape(key)
        if found != shape:
            raise AdapterFileError(
                f"{WEIGHTS}: {key!r} has the shape {short(list(found))}, the base needs {list(shape)}"
            )
        return self._file.read(key)

    def refuse_leftovers(self) -> None:
        """Raise for tensors that nothing has taken."""
        if self._left:
            key = sorted(self._left.values())[0]
            raise AdapterFileError(
                f"{WEIGHTS}: {short(key, 200)} fits no layer that adapter_config.json names "
                f"({len(self._left)} such tensors)"
            )
