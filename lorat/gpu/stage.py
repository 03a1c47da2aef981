"""Host arrays that go to the device in one copy from pinned memory."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 16  # bytes: what kernels may take for granted of every pointer
_TYPES = {
    np.dtype(np.int64): torch.int64,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.float32): torch.float32,
}
Array = np.ndarray[Any, Any]


class Stage:
    """Arrays put one after another; arrays of the same shapes and types lie at the same places each time."""

    def __init__(self) -> None:
        self._arrays: list[tuple[int, Array]] = []
        self.bytes = 0

    def put(self, array: Array) -> int:
        """Take an array (int64, int32 or float32) along. Returns its place among `views`."""
        self._arrays.append((self.bytes, np.ascontiguousarray(array)))
        self.bytes += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        return len(self._arrays) - 1

    def write(self, target: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Write all of it into `bytes` bytes."""
        for start, array in self._arrays:
            target[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """The arrays' places in a uint8 tensor of `bytes` bytes, each with its type and shape."""
        return [
            buffer[start : start + array.nbytes].view(_TYPES[array.dtype]).view(array.shape)
            for start, array in self._arrays
        ]


def filled(rows: Array, count: int, value: int = 0) -> Array:
    """An array with so many rows: its own, then `value`."""
    if len(rows) == count:
        return rows
    made = np.full((count, *rows.shape[1:]), value, dtype=rows.dtype)
    made[: len(rows)] = rows
    return made
