"""What the processor can do: products alone, as many as the encoder's linear layers ask for, a thread a core."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig

from lorat.cpu.kernels.records import ROWS
from lorat.layout import PANEL, lay_out, linear, panels

_ROWS, _OUT, _IN = 1024, 1536, 384  # of a product: the encoder's own shape that is quickest


def multiply_adds(base: Path) -> int:
    """Multiply-adds of the encoder's linear layers for one token."""
    config = AutoConfig.from_pretrained(base)
    hidden, inner = config.hidden_size, config.intermediate_size
    return int(config.num_hidden_layers * (4 * hidden * hidden + 2 * hidden * inner))


class Products:
    """So many multiply-adds, to half a product of each core, and nothing else. product: of x (rows, in)."""

    def __init__(self, dtype: torch.dtype, multiply_adds: int, product: Callable[[Tensor], object]) -> None:
        self._cores = len(os.sched_getaffinity(0))
        self._count = round(multiply_adds / (self._cores * _ROWS * _OUT * _IN))
        self._x, self._product = torch.randn(_ROWS, _IN).to(dtype), product
        self._threads = ThreadPoolExecutor(self._cores, initializer=torch.set_num_threads, initargs=(1,))

    def __call__(self) -> None:
        list(self._threads.map(self._run, range(self._cores)))

    def _run(self, _: int) -> None:
        x = self._x.clone()
        with torch.inference_mode():
            for _ in range(self._count):
                self._product(x)


def by_the_library(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A product by oneDNN, its weight laid out beforehand."""
    weight, bias = lay_out(torch.randn(_OUT, _IN).to(dtype)), torch.zeros(_OUT, dtype=dtype)
    return lambda x: linear(x, weight, bias)


def by_our_kernels() -> Callable[[Tensor], Tensor]:
    """The same by `lorat.cpu.kernels`, in bfloat16, with sums in float32."""
    from numba import njit

    from lorat.cpu.kernels.products import TILE_ROW, WIDEST, multiply

    @njit(nogil=True)
    def run(y: int, x: int, weight: int, bias: int) -> None:
        for start in range(0, _ROWS, ROWS):
            rows, a = min(ROWS, _ROWS - start), x + 2 * _IN * start
            for column in range(0, _OUT, PANEL):
                out, panel = y + 4 * (_OUT * start + column), weight + 2 * _IN * column
                multiply(out, 4 * _OUT, bias + 4 * column, 0, a, 2 * _IN, panel, TILE_ROW, _IN // 2, rows, WIDEST)

    weight, bias = panels(torch.randn(_OUT, _IN).bfloat16()), torch.zeros(_OUT)

    def product(x: Tensor) -> Tensor:
        y = torch.empty(_ROWS, _OUT)
        run(y.data_ptr(), x.data_ptr(), weight.data_ptr(), bias.data_ptr())
        return y

    return product
