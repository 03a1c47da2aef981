"""A run that is killed again and again comes to the weights of one that was not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lorat.train import main
from tests.lorat.training.conftest import base, directory_of, rows, scored, tagged
from tests.lorat.training.killed import kill_while_training

pytestmark = pytest.mark.prove
__all__ = ["base"]
KILLS, EPOCHS = 10, 60
QUICK = ["--rank", "4", "--epochs", f"{EPOCHS}", "--patience", f"{EPOCHS}", "--dropout", "0.1", "--batch-size", "8"]


def test_training_killed_at_random_moments(base: Path, tmp_path: Path, keep: Callable[[str], None]) -> None:
    for kind, make in (("labels", rows), ("tags", tagged), ("pairs", scored)):
        directory = tmp_path / kind
        directory.mkdir()
        data = directory_of(directory / "data", make)
        arguments = ["--data", str(data), "--base", str(base), *QUICK]
        whole, killed = directory / "whole", directory / "killed"
        assert main([*arguments, "--out", str(whole)]) == 0
        for _ in range(KILLS):
            kill_while_training([*arguments, "--out", str(killed)], killed, within=0.5)
            assert not killed.exists()
        assert main([*arguments, "--out", str(killed)]) == 0
        first, again = (load_file(path / "adapter_model.safetensors") for path in (whole, killed))
        assert first.keys() == again.keys() and all(first[name].equal(again[name]) for name in first)
    keep(
        f"Training on labels, on tags and on scored pairs, each killed with SIGKILL {KILLS} times at random moments\n"
        "after a checkpoint was begun, and started again: the weights are, to the bit, those of a run that was not killed."
    )
