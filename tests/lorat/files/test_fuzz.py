"""Damaged adapters through the readers: accepted, or a LoratError. `tests/prove/test_fuzz.py` does it for longer."""

import time
import tracemalloc

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzzing import good_adapters, run

GOOD = good_adapters()


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
@example(0)
def test_a_damaged_adapter_is_read_or_refused(seed):
    started = time.thread_time()
    run(seed, GOOD)
    assert time.thread_time() - started < 1


def test_damage_costs_little_memory():
    tracemalloc.start()
    for seed in range(100):
        run(seed, GOOD)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
