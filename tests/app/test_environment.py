"""A variable that is no setting stops the start; what others set is none of ours."""

import re
from pathlib import Path

import pytest

from app.cli import main
from app.commands.process import SettingsError, read_settings

ROOT = Path(__file__).parents[2]
KUBERNETES = {
    "LORAT_SERVICE_HOST": "10.0.0.1",
    "LORAT_SERVICE_PORT": "8000",
    "LORAT_SERVICE_PORT_HTTP": "8000",
    "LORAT_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "LORAT_PORT_8000_TCP_ADDR": "10.0.0.1",
    "LORAT_GATEWAY_SERVICE_HOST": "10.0.0.2",
    "LORAT_GATEWAY_PORT": "tcp://10.0.0.2:80",
}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("LORAT_API_KEYS", "LORAT_API_KEYS is no setting: did you mean LORAT_API_KEY?"),
        ("LORAT_APIKEY", "did you mean LORAT_API_KEY?"),
        ("lorat_stor", "LORAT_STOR is no setting: did you mean LORAT_STORE?"),
        ("LORAT_XYZZY", "LORAT_XYZZY is no setting: `lorat serve --help` lists them"),
    ],
)
def test_a_misspelled_variable_stops_the_start_in_one_line(monkeypatch, capsys, name, says):
    monkeypatch.setenv(name, "hidden")
    assert main(["serve", "--slots", "0"]) == 1  # it must not start, whatever becomes of the name
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1 and "hidden" not in said


def test_each_of_them_is_named(monkeypatch):
    monkeypatch.setenv("LORAT_API_KEYS", "a")
    monkeypatch.setenv("LORAT_APIKEY", "b")
    with pytest.raises(SettingsError, match=r"^LORAT_APIKEY is no .*; LORAT_API_KEYS is no "):
        read_settings()


def test_what_kubernetes_sets_for_a_service_is_passed_over(monkeypatch):
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    assert read_settings().port == 8000


def test_a_port_of_kubernetes_says_how_to_be_without_it(monkeypatch):
    monkeypatch.setenv("LORAT_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(SettingsError, match=r"^LORAT_PORT: .*enableServiceLinks: false"):
        read_settings()


def test_every_variable_that_the_project_speaks_of_is_known(monkeypatch):
    pages = [
        *ROOT.glob("*.yml"),
        *ROOT.glob("docs/*.md"),
        ROOT / "README.md",
        ROOT / "Dockerfile",
        *ROOT.glob("deploy/*"),
    ]
    spoken = {
        name for page in pages if page.is_file() for name in re.findall(r"\bLORAT_[A-Z0-9_]+\b", page.read_text())
    }
    assert {"LORAT_STORE", "LORAT_IMAGE", "LORAT_KEY"} <= spoken
    for name in spoken:
        monkeypatch.setenv(name, "")
    read_settings()
