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
    """How a base is laid out: for kernels of our own in bfloat16 on a CPU that multiplies it by AVX-512, with Numba.

    With AMX the matrix library's products are quicker than AVX-512's. config: transformers' BertConfig, whose widths
    must suit.
    """
    suits = (
        device.type == "cpu"
        and dtype == torch.bfloat16
        and config.hidden_act == "gelu"
        and not (config.hidden_size % PANEL or config.intermediate_size % PANEL)
        and not (config.hidden_size // config.num_attention_heads) % _HEAD
    )
    return KERNELS if suits and find_spec("numba") and _multiplies_by_avx512() and _numba_loads() else LIBRARY


def _numba_loads() -> bool:
    """Whether the Numba that is here takes this Python and this NumPy."""
    try:
        import numba  # noqa: F401
    except ImportError as error:
        warnings.warn(f"bfloat16 is slower without Numba, which does not load: {error}", stacklevel=2)
        return False
    return True


def _multiplies_by_avx512() -> bool:
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    return bool(features.get("avx512bf16") and not features.get("amx-bf16"))


def encoder_of(model: PackedBert) -> Encoder:
    """What runs a model by its layout."""
    if model.layout is LIBRARY:
        return scripted.Encoder(model)
    from lorat.cpu import compiled  # a second: Numba compiles the products

    return compiled.Encoder(model)
