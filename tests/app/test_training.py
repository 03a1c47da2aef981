"""From a labelled file to a served adapter, by the command line against a real server."""

import json

import numpy as np
import pytest

from app.cli import main
from app.client import Client
from app.evaluating import Remote
from lorat import MultiLoRAT
from lorat.training.answers import Served
from lorat.training.data import read_training_data
from lorat.training.measure import measure
from tests.app.conftest import running
from tests.lorat.training.conftest import base, directory_of, positive, rows, scored, several, tagged

__all__ = ["base"]
KINDS = {
    "label": (rows, "classify", "accuracy"),
    "labels": (several, "classify", "micro F1"),
    "tags": (tagged, "tokens", "F1"),
    "scored": (scored, "pairs", "Spearman"),
    "positive": (positive, "pairs", "MRR"),
}
QUICK = ["--rank", "4", "--tune", "qv", "--epochs", "2", "--batch-size", "8", "--learning-rate", "0.01"]


@pytest.fixture(scope="module")
def server(base, tmp_path_factory):
    from app.settings import Settings

    settings = Settings(base=str(base), store=str(tmp_path_factory.mktemp("store")), demo=False, slots=4)
    with running(settings) as client:
        yield str(client.base_url)


def line_of(shown, model):
    return next(line.partition(": ")[2] for line in shown.splitlines() if line.startswith(f"{model}: "))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_that_is_trained_and_pushed_gives_the_scores_that_training_reported(
    kind, base, server, tmp_path, capsys
):
    make, task, main_score = KINDS[kind]
    data, out = directory_of(tmp_path / "data", make), tmp_path / "adapter"
    train = ["train", "--data", str(data), "--base", str(base), "--out", str(out), *QUICK]
    assert main([*train, "--push", server, "--name", kind]) == 0
    shown = capsys.readouterr().out
    assert f"is served as {kind}@1" in shown
    reported = line_of(shown, kind)
    assert reported.startswith(f"{main_score} ")
    for who in (["--adapter", str(out)], ["--name", kind, "--url", server]):
        assert main(["eval", "--data", str(data), "--base", str(base), *who]) == 0
        again = capsys.readouterr().out
        assert line_of(again, who[1] if who[0] == "--name" else "adapter") == reported
        assert line_of(again, "frozen base") == line_of(shown, "frozen base")
        assert "on the test split: 12 rows" in again
        train = [] if task == "pairs" else ["--train", str(data)]
        assert main(["eval", "--data", str(data / "test.jsonl"), *train, "--base", str(base), *who]) == 0
        assert line_of(capsys.readouterr().out, "frozen base") == line_of(shown, "frozen base")
    rows_are_the_same(task, out, base, server, kind, data)


def rows_are_the_same(task, out, base, server, name, data):
    """Row for row: what the service answers, and what the adapter answers here."""
    model = MultiLoRAT.from_pretrained(base, device="cpu", slots=1)
    slot = model.load(out)
    split = read_training_data(data, seed=1).test
    labels, multi_label = (
        (slot.adapter.head.labels, slot.adapter.head.multi_label) if slot.adapter.head else ((), False)
    )
    with Client(server) as client:
        answers = [Served(model, slot), Remote(client, name, labels)]
        here, there = (measure(task, who, split, labels, multi_label).rows for who in answers)
        if task == "classify":
            scores = [who.classify(split.texts) for who in answers]
            np.testing.assert_allclose(*scores, atol=1e-5)
    if task == "pairs":
        np.testing.assert_allclose(np.array(here), np.array(there), atol=1e-5)
    else:
        assert np.array_equal(np.array(here), np.array(there))


def test_a_key_of_the_environment_opens_a_server_that_asks_for_one(base, tmp_path, capsys, monkeypatch):
    from app.settings import Settings

    data, out = directory_of(tmp_path / "data", rows), tmp_path / "out"
    train = ["train", "--data", str(data), "--base", str(base), "--out", str(out), *QUICK, "--epochs", "1"]
    settings = Settings(base=str(base), store=str(tmp_path / "store"), demo=False, slots=4, admin_key="open-sesame")
    with running(settings) as client:
        monkeypatch.setenv("LORAT_KEY", "open-sesame")
        push = ["--name", "x", "--push", str(client.base_url)]
        assert main([*train, *push]) == 0
        assert "is served as x@1" in capsys.readouterr().out
        (tmp_path / "again").mkdir()
        refused(push, "'x' is served already", base, tmp_path / "again", capsys)
        assert (
            main(["eval", "--data", str(data), "--base", str(base), "--name", "x", "--url", str(client.base_url)]) == 0
        )


def test_push_needs_a_name_before_it_trains(base, tmp_path, capsys):
    data = directory_of(tmp_path / "data", rows)
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "out"), "--push", "http://127.0.0.1:1"]) == 1
    assert "--push needs --name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a/b", "base", "x@2", "é é", "n" * 300])
def test_a_name_that_cannot_be_served_is_refused_before_it_trains(name, base, server, tmp_path, capsys):
    refused(
        ["--name", name, "--push", server],
        "call the adapter something else" if name == "base" else "name: use 1 to 64",
        base,
        tmp_path,
        capsys,
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("notaurl", "'notaurl' is no server's URL (LORAT_URL, --url or --push): write http://HOST:PORT"),
        ("http://a:b", "or --url, is no server's URL: Invalid port: 'b'"),
        ("http://127.0.0.1:1", "Is the server running?"),
    ],
)
def test_a_server_that_is_not_there_is_missed_before_it_trains(url, says, base, tmp_path, capsys):
    refused(["--name", "x", "--push", url], says, base, tmp_path, capsys)


def test_a_server_with_another_base_is_refused_before_it_trains(server, tiny_path, tmp_path, capsys):
    says = f"another base than {tiny_path}: name its base with --base"
    refused(["--name", "x", "--push", server], says, tiny_path, tmp_path, capsys)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("wrong", "401: send a key that this server knows"),
        ("read", "403: this key does not open writes"),
        ("write", "403: this key opens only team-a-*"),
        ("two\nlines", "look at LORAT_KEY"),
    ],
)
def test_a_key_that_does_not_open_the_upload_is_refused_before_it_trains(key, says, base, tmp_path, capsys):
    from app.settings import Settings

    keys = {"api_key": "read", "admin_key": "write:team-a-*"}
    with running(Settings(base=str(base), store=str(tmp_path / "store"), demo=False, slots=4, **keys)) as client:
        refused(["--name", "x", "--push", str(client.base_url), "--key", key], says, base, tmp_path, capsys)


def refused(push, says, base, tmp_path, capsys):
    data = directory_of(tmp_path / "data", rows)
    assert main(["train", "--data", str(data), "--base", str(base), "--out", str(tmp_path / "out"), *push]) == 1
    assert says in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_a_push_that_fails_keeps_the_adapter_and_says_how_to_go_on(base, tmp_path, capsys):
    from app.settings import Settings

    data, out = directory_of(tmp_path / "data", rows), tmp_path / "my out"
    train = ["train", "--data", str(data), "--base", str(base), "--out", str(out), *QUICK, "--epochs", "1"]
    settings = Settings(base=str(base), store=str(tmp_path / "store"), demo=False, slots=4, max_rank=2)
    with running(settings) as client:
        assert main([*train, "--name", "x", "--push", str(client.base_url)]) == 1
        said = capsys.readouterr().err
        assert "422: " in said and "over the limit of 2" in said and f"The adapter is whole in {out}, " in said
        assert f"lorat push '{out}' --name x --replace --url {client.base_url}" in said
    assert (out / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([{"text": "a", "label": "number"}], "line 1: the label 'number' is not in the adapter's labels"),
        ([{"tokens": ["a"], "tags": ["O"]}], "rows of tokens, tags"),
        (["{"], "line 1"),
    ],
)
def test_data_that_does_not_fit_the_adapter_is_refused(lines, says, base, tmp_path, capsys):
    data, out = directory_of(tmp_path / "data", rows), tmp_path / "out"
    train = ["train", "--data", str(data), "--base", str(base), "--out", str(out), *QUICK, "--epochs", "1"]
    assert main(train) == 0
    file = tmp_path / "other.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    assert main(["eval", "--data", str(file), "--base", str(base), "--adapter", str(out)]) == 1
    assert says in capsys.readouterr().err


def test_eval_refuses_what_it_cannot_measure(base, server, tmp_path, capsys):
    data = directory_of(tmp_path / "data", rows)
    assert main(["eval", "--data", str(data)]) == 1
    assert "give --adapter DIRECTORY, or --name NAME" in capsys.readouterr().err
    assert main(["eval", "--data", str(data), "--name", "nobody", "--url", server, "--base", str(base)]) == 1
    assert "404" in capsys.readouterr().err
