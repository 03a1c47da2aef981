"""How many tokens a forward pass should hold: measured on this machine with this base."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from lorat import MultiLoRAT, Row, Tokens

_LEAST, _MOST = 256, 16384  # tokens
_LENGTH = 32  # of a sequence: short texts are the rule
_ENOUGH = 0.95  # of the best pace; more tokens only make everyone wait longer
_LONGEST_SECONDS = 0.3  # of a pass: on slow cores the start must not wait for more
_PASSES = 3


class Pace(NamedTuple):
    """What a batch of so many tokens came to, in tokens a second."""

    tokens: int
    rate: float


def measure_pace(model: MultiLoRAT, workers: int, most: int | None = None) -> Iterator[Pace]:
    """The pace of larger and larger batches of the base alone, on one worker's share of the cores.

    It ends where a batch gains nothing over the one of half its size, where one of twice its size would take too long,
    or would hold more than `most` tokens; whatever that is, there is one batch.
    """
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_share_cores, workers).result()
        last, tokens, most = 0.0, _LEAST, max(most or _MOST, _LEAST)
        while tokens <= most:
            seconds = thread.submit(_best_pass, model, tokens).result()
            rate = tokens / seconds
            yield Pace(tokens, rate)
            if rate < last or 2 * seconds > _LONGEST_SECONDS:
                return
            last, tokens = rate, 2 * tokens


def choose_budget(paces: Sequence[Pace]) -> int:
    """The fewest tokens that nearly reach the best pace."""
    best = max(pace.rate for pace in paces)
    return min(pace.tokens for pace in paces if pace.rate >= _ENOUGH * best)


def _share_cores(workers: int) -> None:
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // workers))


def _best_pass(model: MultiLoRAT, tokens: int) -> float:
    """Seconds of the fastest of several passes; one beforehand is not counted."""
    rows = [Row(Tokens([1] * _LENGTH)) for _ in range(tokens // _LENGTH)]
    seconds = []
    for _ in range(_PASSES + 1):
        started = time.perf_counter()
        model.forward(rows)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
