"""Attention on a GPU: flash attention over the packed batch where it runs, blocks elsewhere."""

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from lorat.attention import BlockAttention
from lorat.packed import Attention

_LARGEST_HEAD, _HEAD_STEP, _LEAST_CAPABILITY = 256, 8, (8, 0)  # of the flash kernel


class VarlenAttention:
    """`varlen_attn` over all sequences at once, without padding; bfloat16 and float16 only."""

    def __init__(self, offsets: Tensor, longest: int, heads: int) -> None:
        """offsets: (sequences + 1,) int32 on the device. longest: no sequence has more tokens."""
        self._offsets = offsets
        self._longest = longest
        self._heads = heads

    def __call__(self, qkv: Tensor) -> Tensor:
        """qkv (tokens, 3 * hidden): queries, values and keys side by side. Returns (tokens, hidden).

        Each row must be in a sequence: the kernel writes no other.
        """
        tokens, hidden = qkv.shape[0], qkv.shape[1] // 3
        query, value, key = qkv.view(tokens, 3, self._heads, hidden // self._heads).unbind(1)
        offsets, longest = self._offsets, self._longest
        context = varlen_attn(query, key, value, offsets, offsets, longest, longest)
        assert isinstance(context, Tensor)
        return context.reshape(tokens, hidden)


def runs_flash(device: torch.device, dtype: torch.dtype, head: int) -> bool:
    """Whether the flash kernel takes this dtype and size of a head on this device."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    fits = head <= _LARGEST_HEAD and head % _HEAD_STEP == 0
    return fits and torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


def choose_attention(flash: bool, offsets: Tensor, longest: int, heads: int, dtype: torch.dtype) -> Attention:
    """The attention of one batch. flash: whether it runs here, by `runs_flash`; the other way reads the offsets."""
    if flash:
        return VarlenAttention(offsets, longest, heads)
    return BlockAttention([length for length in offsets.diff().tolist() if length], heads, offsets.device, dtype)
