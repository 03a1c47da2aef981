"""Promise 1 on the real base: nothing that adapters do changes a bit of it."""

import time

import pytest

from app.engine.residency import Residency
from lorat import MultiLoRAT, read_adapter
from tests.oracle import ALL_LINEAR, make_peft

pytestmark = pytest.mark.prove
MERGES, LOADS = 10_000, 1_000


def test_10000_merges_and_1000_evictions_leave_the_base_as_it_was(minilm_path, tmp_path, keep):
    made = [make_peft(minilm_path, tmp_path / str(i), seed=i, r=8).directory for i in range(3)]
    made.append(make_peft(minilm_path, tmp_path / "all", r=16, target_modules=ALL_LINEAR).directory)
    keep("| dtype | merges and unmerges | loads and evictions | seconds | fingerprint before | after |")
    keep("|---|---|---|---|---|---|")
    for dtype in ("float32", "bfloat16", "float16"):
        model = MultiLoRAT.from_pretrained(device="cpu", dtype=dtype, slots=2)
        before, started = model.fingerprint(), time.perf_counter()
        slot = model.load(made[0])
        for _ in range(MERGES):
            model.merge(slot)
            model.unmerge(slot)
        model.unload(slot)
        residency = Residency(model)
        contents = [read_adapter(directory, model.base.shape) for directory in made]
        for index in range(LOADS):
            with residency.lease({str(index % 4): contents[index % 4]}):
                pass
        assert residency.evictions >= LOADS - 2
        after, seconds = model.fingerprint(), time.perf_counter() - started
        keep(f"| {dtype} | {MERGES:,} | {residency.loads:,} | {seconds:.0f} | `{before[:16]}…` | `{after[:16]}…` |")
        assert after == before
