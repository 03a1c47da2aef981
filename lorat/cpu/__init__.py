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
    """How a base is laid out. config: transformers' BertConfig."""
    kernels = dtype == torch.bfloat16 and suits_kernels(config, device) and _numba_compiles()
    return KERNELS if kernels else LIBRARY


def suits_kernels(config: Any, device: torch.device) -> bool:
    """Whether kernels of our own are quicker for a base in bfloat16. It loads nothing: Numba takes 0.2 s and 48 MB."""
    return bool(
        device.type == "cpu"
        and config.hidden_act == "gelu"
        and not (config.hidden_size % PANEL or config.intermediate_size % PANEL)
        and not config.hidden_size % (config.num_attention_heads * _HEAD)
        and _multiplies_by_avx512()
        and find_spec("numba")
    )


def _multiplies_by_avx512() -> bool:
    """Whether the processor multiplies bfloat16 by AVX-512 alone: by AMX the matrix library's products are quicker."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch cannot tell
    return bool(known.get("avx512_bf16") and not known.get("amx_bf16"))


def _numba_compiles() -> bool:
    """Whether Numba loads, and compiles for this processor."""
    try:
        from lorat.cpu.kernels import llvm
    except Exception as error:  # whatever a Numba raises that does not know this Python or this NumPy
        warnings.warn(f"bfloat16 is slower without Numba, which does not load: {error}", stacklevel=2)
        return False
    return llvm.multiplies_bfloat16()


def encoder_of(model: PackedBert) -> Encoder:
    """What runs a model by its layout."""
    if model.layout is LIBRARY:
        return scripted.Encoder(model)
    from lorat.cpu import compiled  # seconds: Numba compiles

    return compiled.Encoder(model)
