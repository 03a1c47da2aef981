"""Host arrays that go to the device in one copy from pinned memory."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT = 16  # bytes: what kernels may take for granted of every pointer
_TYPES = {np.dtype(np.int64): torch.int64, np.dtype(np.int32): torch.int32}
Shape = tuple[int, ...]


class Stage:
    """Arrays put one after another; arrays of the same shapes and types lie at the same places each time."""

    def __init__(self) -> None:
        self._arrays: list[tuple[int, Shape, NDArray[Any], int]] = []
        self.bytes = 0

    def put(self, array: NDArray[Any], rows: int | None = None, value: int = 0) -> int:
        """Take an array (int64 or int32) along, filled up to so many rows with `value`.

        Returns its place among `views`.
        """
        shape = (len(array) if rows is None else rows, *array.shape[1:])
        self._arrays.append((self.bytes, shape, array, value))
        self.bytes += -(-math.prod(shape) * array.itemsize // _ALIGNMENT) * _ALIGNMENT
        return len(self._arrays) - 1

    def write(self, target: NDArray[np.uint8], first: int = 0) -> None:
        """Write all of it into `bytes` bytes from the first on."""
        for start, shape, array, value in self._arrays:
            there, rows = np.ndarray(shape, array.dtype, target, first + start), len(array)
            there[:rows] = array
            if rows < shape[0]:
                there[rows:] = value

    def views(self, buffer: Tensor) -> list[Tensor]:
        """The arrays' places in a uint8 tensor of `bytes` bytes, each with its type and shape."""
        return [
            buffer[start : start + math.prod(shape) * array.itemsize].view(_TYPES[array.dtype]).view(shape)
            for start, shape, array, _ in self._arrays
        ]
