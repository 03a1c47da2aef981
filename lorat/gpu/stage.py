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


class Stage:
    """Arrays put one after another; arrays of the same shapes and types lie at the same places each time."""

    def __init__(self) -> None:
        self._arrays: list[tuple[int, np.ndarray[Any, Any]]] = []
        self.bytes = 0

    def put(self, array: np.ndarray[Any, Any]) -> int:
        """Take an array (int64, int32 or float32) along. Returns its place in what `send` gives."""
        self._arrays.append((self.bytes, np.ascontiguousarray(array)))
        self.bytes += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        return len(self._arrays) - 1

    def send(self, device: torch.device) -> list[Tensor]:
        """The arrays on the device, as views of `copy`."""
        return self.views(self.copy(device))

    def copy(self, device: torch.device) -> Tensor:
        """All of it on the device: (bytes,) uint8.

        The copy is queued on the current stream and not waited for: the allocator of pinned memory does not hand
        the source out again before it is done.
        """
        source = torch.empty(self.bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        target = source.numpy()
        for start, array in self._arrays:
            target[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        return source.to(device, non_blocking=True)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """The arrays' places in a uint8 tensor of `bytes` bytes, each with its type and shape."""
        return [
            buffer[start : start + array.nbytes].view(_TYPES[array.dtype]).view(array.shape)
            for start, array in self._arrays
        ]
