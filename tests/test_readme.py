"""The README, as written: its shell examples against a running server, its Python as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.conftest import process

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```sh\n(curl.*?)```\n```json\n(.*?)```", TEXT, re.DOTALL)
SESSION = re.search(r"```sh\n(\.venv.*?)```", TEXT, re.DOTALL)[1]
CLIENT, PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with process(tmp_path_factory.mktemp("store")) as (_, client):
        yield f"{client.base_url.host}:{client.base_url.port}"


def shell(command, address):
    command = command.replace("localhost:8000", address).replace(".venv/bin/lorat", f"{sys.executable} -m app")
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"LORAT_URL": f"http://{address}", "PATH": "/usr/bin:/bin"},
    ).stdout


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)]


def digits(text):
    return max(map(len, re.findall(r"\d+\.(\d+)", text)))


def words(text):
    return re.findall(r"[a-z_]{3,}", text)


@pytest.mark.parametrize("command", range(len(EXAMPLES)))
def test_curl_examples_print_what_the_readme_shows(command, address):
    asked, shown = EXAMPLES[command]
    got = shell(asked, address)
    assert words(got) == words(shown)
    assert numbers(got) == pytest.approx(numbers(shown), abs=1e-4)
    assert digits(shown) <= digits(got) + 1  # in another's float32 a number may have one more


def test_an_adapter_is_pushed_shown_and_deleted(address):
    push, show, delete = SESSION.strip().splitlines()
    assert "reviews@1: sequence_classification, 2 labels" in shell(push, address)
    assert json.loads(shell(show, address))["name"] == "reviews"
    assert "deleted" in shell(delete, address)
    assert json.loads(shell(show, address))["error_type"] == "NotFound"


def test_the_library_example_runs(tmp_path):
    (tmp_path / "app").symlink_to(ROOT / "app")
    done = subprocess.run([sys.executable, "-c", PYTHON], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "(1, 384)" in done.stdout
    assert "LABEL_0" in done.stdout


def test_the_client_example_is_one_that_tests_of_clients_run():
    clients = (ROOT / "docs" / "clients.md").read_text()
    begin = CLIENT[: CLIENT.index(")\n") + 1]
    assert begin in clients


def test_the_tree_names_only_what_is_there():
    tree = re.search(r"## The tree\n\n```\n(.*?)```", TEXT, re.DOTALL)[1]
    folder = ""
    for line in tree.splitlines():
        for name in re.findall(r"[a-z_]+(?:\.py|\.md|/)", line):
            if not line.startswith(" ") and name == line.split()[0]:
                folder = name
            inside = f"{folder}{line.split()[0]}" if line.startswith(" ") else folder
            assert any((ROOT / place / name).exists() for place in ("", folder, inside)), name
