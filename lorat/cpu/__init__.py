"""The forward pass on a CPU: `compiled` by Numba where that is quicker, else `scripted` by torch."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from lorat.cpu import scripted
from lorat.layout import KERNELS, LANES, LIBRARY, PANEL, Layout
from lorat.packed import PackedBert
from lorat.packing import PackedBatch
from lorat.routing import Routing

Encoder = Callable[[PackedBatch, Routing], Tensor]
"""The last hidden states of a packed batch, (tokens, hidden) float32; perhaps of tokens of no sequence as well."""

_HEAD = 2 * LANES  # what a head's size must be a multiple of: keys are transposed sixteen pairs at a time


def layout_for(config: Any, device: torch.device, dtype: torch.dtype) -> Layout:
    """How a base is laid out: for kernels of our own in bfloat16, where they are quicker and its widths suit.

    config: transformers' BertConfig.
    """
    suits = (
        device.type == "cpu"
        and dtype == torch.bfloat16
        and config.hidden_act == "gelu"
        and not (config.hidden_size % PANEL or config.intermediate_size % PANEL)
        and not config.hidden_size % (config.num_attention_heads * _HEAD)
    )
    return KERNELS if suits and _kernels_are_quicker() else LIBRARY


def _kernels_are_quicker() -> bool:
    """Whether Numba compiles for this processor's AVX-512-bf16. With AMX the matrix library's products are quicker."""
    if find_spec("numba") is None or not _has_avx512_alone():
        return False
    try:
        from lorat.cpu.kernels import llvm
    except Exception as error:  # whatever a Numba raises that does not know this Python or this NumPy
        warnings.warn(f"bfloat16 is slower without Numba, which does not load: {error}", stacklevel=2)
        return False
    return llvm.multiplies_bfloat16()


def _has_avx512_alone() -> bool:
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    return bool(features.get("avx512bf16") and not features.get("amx-bf16"))


def encoder_of(model: PackedBert) -> Encoder:
    """What runs a model by its layout."""
    if model.layout is LIBRARY:
        return scripted.Encoder(model)
    from lorat.cpu import compiled  # seconds: Numba compiles

    return compiled.Encoder(model)
