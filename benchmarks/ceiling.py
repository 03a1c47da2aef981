"""What the processor can do: products alone, as many as the encoder's linear layers ask for, a thread a core."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from transformers import AutoConfig

from lorat.layout import lay_out, linear

_ROWS, _OUT, _IN = 1024, 1536, 384  # of a product: the encoder's own shape that is quickest


def multiply_adds(base: Path) -> int:
    """Multiply-adds of the encoder's linear layers for one token."""
    config = AutoConfig.from_pretrained(base)
    hidden, inner = config.hidden_size, config.intermediate_size
    return int(config.num_hidden_layers * (4 * hidden * hidden + 2 * hidden * inner))


class Products:
    """So many multiply-adds, to half a product of each core, and nothing else."""

    def __init__(self, dtype: torch.dtype, multiply_adds: int) -> None:
        self._cores = len(os.sched_getaffinity(0))
        self._count = round(multiply_adds / (self._cores * _ROWS * _OUT * _IN))
        self._x, self._weight = torch.randn(_ROWS, _IN).to(dtype), lay_out(torch.randn(_OUT, _IN).to(dtype))
        self._bias = torch.zeros(_OUT, dtype=dtype)
        self._threads = ThreadPoolExecutor(self._cores, initializer=torch.set_num_threads, initargs=(1,))

    def __call__(self) -> None:
        list(self._threads.map(self._multiply, range(self._cores)))

    def _multiply(self, _: int) -> None:
        x = self._x.clone()
        with torch.inference_mode():
            for _ in range(self._count):
                linear(x, self._weight, self._bias)
