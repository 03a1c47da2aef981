"""The one command for a GPU, where there is none."""

import pytest
import torch

from benchmarks import gpu, rounds


def test_without_a_gpu_it_says_so_and_writes_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(rounds, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert "no CUDA device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
