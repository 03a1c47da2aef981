"""The Triton kernels where a test wants them: through Triton's interpreter on a CPU, compiled on a GPU."""

import importlib.util
from functools import cache

import pytest
import torch
from torch.nn import functional as F

NO_GPU = not torch.cuda.is_available()
GPU = [pytest.mark.gpu, pytest.mark.skipif(NO_GPU, reason="there is no CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


def use_kernels(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `lorat.ops.triton` run on a device for one test. Whether to interpret is settled when kernels are defined."""
    from lorat.ops import triton

    for name in ("kernels", "passes"):
        monkeypatch.setattr(triton, name, kernels_of(name, interpreted=device == "cpu"))
    if device == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@cache
def kernels_of(name: str, *, interpreted: bool):
    """A module of kernels below `lorat.ops`, defined anew one way or the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", str(int(interpreted)))
        spec = importlib.util.find_spec(f"lorat.ops.{name}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def varlen_here(query, key, value, offsets, others, longest, other_longest):
    """What `varlen_attn` computes, one sequence after the other; rows in no sequence are what they are."""
    assert torch.equal(offsets, others) and longest == other_longest >= offsets.diff().max()
    context = torch.full_like(query, torch.nan)
    for start, stop in zip(offsets.tolist(), offsets.tolist()[1:], strict=False):
        parts = (tensor[start:stop].transpose(0, 1) for tensor in (query, key, value))
        context[start:stop] = F.scaled_dot_product_attention(*parts).transpose(0, 1)
    return context
