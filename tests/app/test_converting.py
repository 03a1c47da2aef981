"""`lorat convert`, as a command."""

import argparse
import subprocess
import sys

import torch
from transformers import BertModel

from app.cli import main
from app.commands.converting import add_parsers

SITE = "encoder.layer.0.attention.self.query"


def test_the_command(tiny_path, tmp_path, capsys):
    model = BertModel.from_pretrained(tiny_path)
    with torch.no_grad():
        model.get_submodule(SITE).weight += 0.1 * torch.randn(32, 32)
        model.embeddings.LayerNorm.bias += 1
    model.save_pretrained(tmp_path / "model")
    words = [
        "convert",
        str(tmp_path / "model"),
        "--out",
        str(tmp_path / "out"),
        "--base",
        str(tiny_path),
        "--rank",
        "4",
        "--drop",
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert (
        "a embedding" not in printed and "embedding adapter" in printed and "of kind full, rank 4, alpha 4" in printed
    )
    assert "relative error, layer 0: query 0." in printed
    assert "dropped embeddings.LayerNorm.bias: new, or zero in the base" in printed


def test_labels_stand_with_commas_between():
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers())
    assert parser.parse_args(["convert", "a", "--out", "b", "--labels", "a, b"]).labels == ("a", "b")


def test_the_command_line_does_not_bring_torch():
    code = "import sys, app.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
