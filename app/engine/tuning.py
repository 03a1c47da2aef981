"""How many tokens a forward pass should hold, and how many are done a second: measured here, with this base."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from app.engine.cores import cores
from lorat import MultiLoRAT, Row, Tokens

_LEAST, _MOST = 256, 16384  # tokens
_LENGTH = 32  # of a sequence: short texts are the rule
_ENOUGH = 0.95  # of the best pace; more tokens only make everyone wait longer
_LONGEST_SECONDS = 0.3  # of a pass: on slow cores the start must not wait for more
_PASSES = 3


class Pace(NamedTuple):
    """What batches of so many tokens came to: tokens a second, of all workers together."""

    tokens: int
    rate: float


def measure_pace(model: MultiLoRAT, workers: int, most: int | None = None) -> Iterator[Pace]:
    """The pace of larger and larger batches of the base alone, while every worker computes one.

    It ends where a batch gains nothing over the one of half its size, where one of twice its size would take too long,
    or would hold more than `most` tokens; whatever that is, there is one batch.
    """
    with ThreadPoolExecutor(workers, initializer=share_cores, initargs=(workers,)) as threads:
        last, tokens, most = 0.0, _LEAST, max(most or _MOST, _LEAST)
        while tokens <= most:
            seconds = _best_seconds(model, tokens, threads, workers)
            rate = workers * tokens / seconds
            yield Pace(tokens, rate)
            if rate < last or 2 * seconds > _LONGEST_SECONDS:
                return
            last, tokens = rate, 2 * tokens


def choose_budget(paces: Sequence[Pace]) -> int:
    """The fewest tokens that nearly reach the best pace."""
    best = max(pace.rate for pace in paces)
    return min(pace.tokens for pace in paces if pace.rate >= _ENOUGH * best)


def share_cores(workers: int) -> None:
    """Give this thread its share of the cores, where so many compute."""
    torch.set_num_threads(max(1, cores() // workers))


def _best_seconds(model: MultiLoRAT, tokens: int, threads: ThreadPoolExecutor, workers: int) -> float:
    """Of the fastest of several times that every worker computes a batch; one beforehand is not counted."""
    rows = [Row(Tokens([1] * _LENGTH)) for _ in range(tokens // _LENGTH)]
    seconds = []
    for _ in range(_PASSES + 1):
        started = time.perf_counter()
        list(threads.map(model.forward, [rows] * workers))
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
