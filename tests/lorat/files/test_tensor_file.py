import gc
import itertools
import json
import struct
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file

from lorat.errors import AdapterFileError
from lorat.files.tensor_file import TensorFile

NAME = "some.safetensors"


def written(path, **tensors):
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_are_those_that_were_written_in_float32(dtype, tmp_path):
    one, other = torch.randn(3, 5).to(dtype), torch.randn(2, 1, 4).to(dtype)
    scalar, empty = torch.tensor(2.5, dtype=dtype), torch.empty(0, 7, dtype=dtype)
    file = TensorFile(written(tmp_path / "x", one=one, other=other, scalar=scalar, empty=empty), NAME)
    assert sorted(file.keys()) == ["empty", "one", "other", "scalar"]
    for key, tensor in {"one": one, "other": other, "scalar": scalar, "empty": empty}.items():
        read = file.read(key)
        assert file.shape(key) == tensor.shape == read.shape and read.dtype == torch.float32
        assert torch.equal(read, tensor.float())


@pytest.mark.parametrize(
    ("tensor", "fault"),
    [
        (torch.ones(2, dtype=torch.int32), "is I32: use one of"),
        (torch.ones(2, dtype=torch.bool), "is BOOL"),
        (torch.tensor([1.0, float("nan")]), "holds NaN or infinite"),
        (torch.tensor([1.0, float("-inf")]), "holds NaN or infinite"),
        (torch.tensor([1e300], dtype=torch.float64), "holds NaN or infinite"),
    ],
)
def test_what_is_no_finite_float_is_refused_by_name(tensor, fault, tmp_path):
    file = TensorFile(written(tmp_path / "x", t=tensor), NAME)
    with pytest.raises(AdapterFileError, match=f"{NAME}: 't' {fault}"):
        file.read("t")


def entry(start, stop, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(0, 8), "b": entry(4, 12)},
        {"a": entry(0, 8), "b": entry(12, 20)},
        {"a": entry(0, 8, shape=(3,))},
        {"a": entry(0, 16, shape=(4,))},
        {"a": entry(8, 0)},
        {"a": entry(-8, 0)},
        {"a": entry(0, 8, shape=(2**63, 2))},
        {"a": entry(0, 8, shape=(-2,))},
        {"a": entry(0, 8, dtype="F99")},
        {"a": entry("0", 8)},
        {"a": entry(0, 8, shape=(2.0,))},
    ],
    ids=["overlap", "hole", "size", "end", "order", "before", "overflow", "negative", "type", "text", "fraction"],
)
def test_entries_that_do_not_fit_the_data_are_refused_when_it_is_opened(header, tmp_path):
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(AdapterFileError, match=NAME):
        TensorFile(tmp_path / "x", NAME)


def test_reading_leaves_no_memory_behind(tmp_path):
    """A server that runs for months reads many; safetensors' reader of one tensor leaves 56 bytes each time."""
    tensors, rounds, held = 20, 40, []
    path = written(tmp_path / "x", **{f"t{place}": torch.ones(4) for place in range(tensors)})
    tracemalloc.start()
    for _ in range(4):
        for _ in range(rounds):
            file = TensorFile(path, NAME)
            for place in range(tensors):
                file.read(f"t{place}")
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    grown = min(after - before for before, after in itertools.pairwise(held))  # Python's own free lists fill once
    assert grown < 56 * tensors * rounds / 4
