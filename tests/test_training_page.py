"""The page on training, as written: its commands against a running server, its Python, its table of defaults."""

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from lorat.training.plan import DEFAULTS
from tests.app.conftest import process

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "training.md").read_text()
COMMANDS = re.search(r"```sh\n(.*?)```", TEXT, re.DOTALL)[1]
PYTHON = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return tmp_path


def test_the_three_commands_train_measure_and_serve(place):
    with process(place / "store") as (_, client):
        command = COMMANDS.replace(".venv/bin/lorat ", f"{sys.executable} -m app ")
        env = {"LORAT_URL": str(client.base_url), "PATH": "/usr/bin:/bin", "OMP_WAIT_POLICY": "PASSIVE"}
        shown = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, cwd=place, env=env
        )
        assert shown.returncode == 0, shown.stderr
        assert "frozen base: accuracy " in shown.stdout
        assert "is served as reviews@1: sequence_classification, 2 labels" in shown.stdout
        answer = client.post("/classify", params={"adapter": "reviews"}, json={"inputs": "Great, I love it."}).json()
        assert answer[0]["label"] == "positive"


def test_the_python_runs(place):
    done = subprocess.run([sys.executable, "-c", PYTHON], capture_output=True, text=True, cwd=place, check=True)
    assert "trainable: " in done.stdout
    assert (place / "build" / "loop" / "adapter_config.json").exists()


def test_the_table_of_defaults_is_the_codes():
    rows = re.findall(r"^\| (\w[^|]*) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)
    table = {name.replace(" ", "_"): values for name, *values in rows}
    for place, task in enumerate(("classify", "tokens", "pairs")):
        for name, value in asdict(DEFAULTS[task]).items():
            if name in table:
                assert table[name][place] == (f"{value:g}" if isinstance(value, float) else str(value)), name
    assert {"rank", "alpha", "tune", "learning_rate", "batch_size", "b_ratio"} <= set(table)


def test_the_readmes_commands_are_among_them():
    readme = re.search(r"```sh\n(\.venv/bin/lorat train.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    assert "`lorat` is `.venv/bin/lorat`" in TEXT
    assert set(readme.splitlines()) <= set(COMMANDS.splitlines())


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_no_command_needs_lorat_on_the_path(page):
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    assert not [line for block in blocks for line in block.splitlines() if line.startswith("lorat ")]
