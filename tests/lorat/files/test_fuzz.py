"""Damaged adapters through the readers: accepted, or a LoratError. `tests/prove/test_fuzz.py` does it for longer."""

import gc
import itertools
import time
import tracemalloc

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lorat.files.adapter_file import read_adapter
from tests.fuzzing import BASE, good_adapters, run

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


def test_reading_leaves_no_memory_behind(tmp_path):
    """A server that runs for months reads many; safetensors' reader of one tensor leaves 56 bytes each time."""
    for name, content in GOOD[0].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    rounds, held = 100, []
    tracemalloc.start()
    for _ in range(4):
        for _ in range(rounds):
            read_adapter(tmp_path, BASE)
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    grown = min(after - before for before, after in itertools.pairwise(held))  # caches fill once, a leak never ends
    assert grown < 200 * rounds  # 10 tensors would leave 560
