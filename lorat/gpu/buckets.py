"""Buckets: the few sizes that batches are filled up to, so that a captured graph fits many of them. Pure."""

from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

_SMALL = (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_LARGE = (3072, 4096, 6144, 8192, 12288, 16384)  # the sizes that budgets of tokens have
_FULL = 7 / 8
_SEQUENCES = (1, 4, 16, 64, 256, 1024)
_STEPS = (
    _SMALL + _LARGE,  # tokens
    (128, 512, 2048),  # longest: flash attention works on blocks of 128
    (0, 8, 32, 128, 256, 512, 768, 1024),  # tiles
    (0, 16, 64, 256, 768),  # ranks
)


class Bucket(NamedTuple):
    """What a captured graph fixes: a batch in it has at most as much of each.

    tokens: rows of the packed batch. sequences: those of the tokens that fill up included; empty ones fill up.
    longest: tokens of one sequence. tiles: of the segments with an adapter; empty ones fill up. ranks: of one
    adapter's linear layer in all. groups: the linear layers that any adapter changes.
    """

    tokens: int
    sequences: int
    longest: int
    tiles: int
    ranks: int
    groups: frozenset[str]


@lru_cache(4096)
def bucket_of(
    tokens: int, sequences: int, longest: int, tiles: int, ranks: int, groups: frozenset[str]
) -> Bucket | None:
    """The least bucket that holds a batch; None for one that is larger than all of them.

    None as well for a large batch that leaves an eighth of its tokens empty: filling up would cost it more than
    launching its kernels one by one, which a small batch waits for, and a full one gains from doing without.
    """
    most = [_at_least(steps, size) for steps, size in zip(_STEPS, (tokens, longest, tiles, ranks), strict=True)]
    sizes = [step for step in most if step is not None]
    if len(sizes) < len(most) or (tokens > _SMALL[-1] and tokens < _FULL * sizes[0]):
        return None
    size, longest, tiles, ranks = sizes
    room = _at_least(_SEQUENCES, sequences + -(-(size - tokens) // longest))
    return None if room is None else Bucket(size, room, longest, tiles, ranks, groups)


def _at_least(steps: tuple[int, ...], size: int) -> int | None:
    place = bisect_left(steps, size)
    return steps[place] if place < len(steps) else None
