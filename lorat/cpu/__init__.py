"""The forward pass on a CPU: `compiled` by Numba where that is quicker, else `scripted` by torch."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lorat.cpu import scripted
from lorat.layout import KERNELS, LIBRARY, PANEL, Layout
from lorat.packed import PackedBert
from lorat.packing import PackedBatch
from lorat.routing import Routing

Encoder = Callable[[PackedBatch, Routing], Tensor]
"""The last hidden states of a packed batch, (tokens, hidden) float32; perhaps of tokens of no sequence as well."""

_HEAD = 32  # what a head's size must be a multiple of for the kernels


def layout_for(config: Any, device: torch.device, dtype: torch.dtype) -> Layout:
    """How a base is laid out: for kernels of our own in bfloat16 on a CPU that multiplies it by AVX-512, with Numba.

    Where the CPU has AMX the matrix library is quicker. config: transformers' BertConfig, whose widths must suit.
    """
    suits = (
        device.type == "cpu"
        and dtype == torch.bfloat16
        and config.hidden_act == "gelu"
        and not (config.hidden_size % PANEL or config.intermediate_size % PANEL)
        and not (config.hidden_size // config.num_attention_heads) % _HEAD
    )
    return KERNELS if suits and _compiles() and _multiplies_by_avx512() else LIBRARY


def _compiles() -> bool:
    """Whether Numba is here, and takes this Python and this NumPy."""
    try:
        import numba  # noqa: F401
    except ModuleNotFoundError:
        return False
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
