"""A safetensors file: checked when it is opened, read one tensor at a time."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorat.errors import AdapterFileError
from lorat.files.json_file import short
from lorat.files.safetensors_header import read_header

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


class TensorFile:
    """The tensors of a file from a stranger.

    The bytes of a tensor are read here: `get_tensor` of safetensors 0.8 leaves 56 bytes behind each time, and a server
    reads adapters for as long as it runs.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Raises AdapterFileError, which calls the file `name`, for one that is not whole."""
        self._path, self._name = path, name
        self._entries, self._data = read_header(path, name)
        try:
            with safe_open(path, framework="pt"):  # types, offsets and sizes, as safetensors checks them
                pass
        except (SafetensorError, OSError, ValueError) as error:
            raise AdapterFileError(f"{name} is not a whole safetensors file: {short(str(error), 300)}") from error

    def keys(self) -> list[str]:
        """The tensors' names."""
        return list(self._entries)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor as the header says it; nothing is read."""
        return tuple(self._entries[key]["shape"])

    def read(self, key: str) -> Tensor:
        """The tensor, in float32, in memory of its own.

        Raises AdapterFileError for one of another type than floating point of 16 bits or more, and for one that holds
        NaN or infinite values.
        """
        dtype = self._entries[key]["dtype"]
        if dtype not in _DTYPES:
            raise AdapterFileError(f"{self._name}: {short(key, 200)} is {dtype}: use one of {sorted(_DTYPES)}")
        tensor = torch.empty(0) if 0 in self.shape(key) else torch.frombuffer(self._bytes(key), dtype=_DTYPES[dtype])
        tensor = tensor.view(self.shape(key)).to(torch.float32, copy=True)
        if not torch.isfinite(tensor).all():
            raise AdapterFileError(f"{self._name}: {short(key, 200)} holds NaN or infinite values")
        return tensor

    def _bytes(self, key: str) -> bytearray:
        start, stop = self._entries[key]["data_offsets"]
        with self._path.open("rb") as file:
            file.seek(self._data + start)
            return bytearray(file.read(stop - start))
