"""Files from strangers: read without running them, or refused with what to do instead."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lorat.convert import convert
from lorat.convert.checkpoint import plain_name, read_checkpoint
from lorat.errors import AdapterFileError, ConfigError, UnsupportedAdapterError
from tests.full_disk import room_for

SITE = "encoder.layer.0.attention.self.query"


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def state(prefix="bert."):
    return {f"{prefix}{SITE}.lora_A": torch.ones(2, 32), f"{prefix}{SITE}.lora_B": torch.ones(32, 2)}


def test_no_code_in_a_file_is_run(tmp_path):
    mark = tmp_path / "run"
    with (tmp_path / "a.bin").open("wb") as file:
        pickle.dump({"x": Evil(mark)}, file)
    torch.save({"x": Evil(mark)}, tmp_path / "a.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.pt")
    for name in ("a.bin", "a.pt", "b.pt"):
        with pytest.raises(AdapterFileError, match="no code in it is run: save its state dict with safetensors"):
            read_checkpoint(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize(
    "prefix", ["", "bert.", "module.bert.", "model.", "_orig_mod.module.bert.", "model.bert.bert."]
)
def test_names_lose_their_wrappers(prefix, tmp_path):
    save_file(state(prefix), tmp_path / "a.safetensors")
    assert set(read_checkpoint(tmp_path / "a.safetensors").tensors) == set(state(""))


def test_names_of_old_checkpoints():
    assert plain_name("bert.embeddings.LayerNorm.gamma") == "embeddings.LayerNorm.weight"
    assert plain_name("x.model.bert.y") == "x.model.bert.y"


def test_containers_are_opened_and_what_is_beside_is_named(tiny_path, tmp_path):
    torch.save({"epoch": 3, "state_dict": {"model": state()}, "optimizer": {"a": 1}}, tmp_path / "a.pt")
    report = convert(tmp_path / "a.pt", tmp_path / "out", base=tiny_path, alpha=4)
    assert "left out what is the training's own: epoch, optimizer" in report.notes
    torch.save({"state_dict": state(), "ema": state()}, tmp_path / "b.pt")
    with pytest.raises(UnsupportedAdapterError, match="'ema'"):
        convert(tmp_path / "b.pt", tmp_path / "other", base=tiny_path, alpha=4)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ([1, 2], "holds no state dict"), ({}, "holds no state dict"), ({"epoch": 1}, "is no tensor"), ({1: torch.ones(2)}, "holds no state dict"),
        ({"a": torch.ones(2), "b": 3}, "'b' is no tensor"), ({"a": torch.full((2,), torch.nan)}, "NaN"),
        ({"a": torch.ones(2, 2).to_sparse()}, "sparse"), ({"a": torch.ones(1).expand(10**9, 10**9)}, "larger than its data"),
        ({"a": torch.ones(2, dtype=torch.float8_e4m3fn)}, "floating point"), ({"a": torch.ones(2), "bert.a": torch.ones(2)}, "twice"),
    ],
)  # fmt: skip
def test_what_is_no_state_dict_is_refused(value, match, tmp_path):
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(AdapterFileError, match=match):
        read_checkpoint(tmp_path / "a.pt")


def test_files_that_cannot_be_read_are_named(tiny_path, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"no")
    (tmp_path / "a.pt").write_bytes(b"no")
    (tmp_path / "a.txt").write_text("no")
    (tmp_path / "empty").mkdir()
    for name, error, match in [
        ("a.safetensors", AdapterFileError, "not a whole safetensors"), ("a.pt", AdapterFileError, "save its state dict"),
        ("a.txt", ConfigError, "ends in"), ("empty", ConfigError, "no model.safetensors"), ("none", ConfigError, "does not exist"),
    ]:  # fmt: skip
        with pytest.raises(error, match=match):
            read_checkpoint(tmp_path / name)
    torch.save(state(), tmp_path / "ok.pt")
    convert(tmp_path / "ok.pt", tmp_path / "out", base=tiny_path, alpha=4)
    with pytest.raises(ConfigError, match="served as it is"):
        read_checkpoint(tmp_path / "out")
    torch.save({"base_model.model.x.lora_A.weight": torch.ones(2)}, tmp_path / "peft.pt")
    torch.save({"resnet.weight": torch.ones(2)}, tmp_path / "other.pt")
    for name, match in [("peft.pt", "PEFT"), ("other.pt", r"resnet\.weight")]:
        with pytest.raises(ConfigError, match=match):
            convert(tmp_path / name, tmp_path / "new", base=tiny_path, alpha=4)


def test_nothing_is_written_over_and_nothing_half(tiny_path, tmp_path, monkeypatch):
    torch.save(state(), tmp_path / "a.pt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in ("full", "a.pt", "link"):
        with pytest.raises(ConfigError, match="is there already"):
            convert(tmp_path / "a.pt", tmp_path / taken, base=tiny_path, alpha=4)
    (tmp_path / "new").mkdir()  # an empty one is taken
    convert(tmp_path / "a.pt", tmp_path / "new", base=tiny_path, alpha=4)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "lorat.json",
    ]  # fmt: skip
    before = sorted(tmp_path.iterdir())
    head = {"classifier.weight": torch.ones(1, 32), "classifier.bias": torch.ones(1)}
    torch.save(state() | head, tmp_path / "a.pt")
    how = {"base": tiny_path, "alpha": 4, "task": "sequence_classification"}
    with pytest.raises(AdapterFileError, match="labels"):  # longer than lorat.json may hold: seen when it is read back
        convert(tmp_path / "a.pt", tmp_path / "bad", labels=["x" * 1000], **how)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        convert(tmp_path / "a.pt", tmp_path / "file/out", base=tiny_path, alpha=4)
    (tmp_path / "file").unlink()
    with room_for(300), pytest.raises(ConfigError, match="out cannot be written: File too large: free some space"):
        convert(tmp_path / "a.pt", tmp_path / "out", labels=["x"], **how)
    assert sorted(tmp_path.iterdir()) == before
