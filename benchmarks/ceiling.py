"""What the processor can do: the rate of matrix products at the encoder's own shapes, one thread a core."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from transformers import AutoConfig

from lorat.layout import lay_out, linear

_ROWS, _PASSES = 1024, 40


def multiply_adds(base: Path) -> int:
    """Multiply-adds of the encoder's linear layers for one token."""
    config = AutoConfig.from_pretrained(base)
    hidden, inner = config.hidden_size, config.intermediate_size
    return int(config.num_hidden_layers * (4 * hidden * hidden + 2 * hidden * inner))


def matrix_ceiling(dtype: torch.dtype, shape: tuple[int, int] = (1536, 384)) -> float:
    """The best GFLOP/s of all cores together, each with a product of its own; best of five."""
    cores = len(os.sched_getaffinity(0))
    return max(_rate(dtype, shape, cores) for _ in range(5))


def _rate(dtype: torch.dtype, shape: tuple[int, int], cores: int) -> float:
    out, width = shape
    weight, bias = lay_out(torch.randn(out, width).to(dtype)), torch.zeros(out, dtype=dtype)

    def work(_: int) -> None:
        torch.set_num_threads(1)
        x = torch.randn(_ROWS, width).to(dtype)
        with torch.inference_mode():
            for _ in range(_PASSES):
                linear(x, weight, bias)

    with ThreadPoolExecutor(cores) as threads:
        list(threads.map(work, range(cores)))
        started = time.perf_counter()
        list(threads.map(work, range(cores)))
    return cores * _PASSES * 2 * _ROWS * out * width / (time.perf_counter() - started) / 1e9
