"""Training end to end on a tiny random base: what it writes, that it repeats, that it goes on, and what it refuses."""

import ast
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel, Trainer

import lorat
import lorat.train
from lorat.base import load_base
from lorat.files.adapter_file import read_adapter
from lorat.multi import MultiLoRAT
from lorat.train import main
from lorat.training.answers import Served
from lorat.training.start import END_C
from tests.lorat.training.conftest import base, directory_of, positive, rows, scored, several, tagged, write
from tests.lorat.training.killed import kill_while_training

QUICK = ["--rank", "4", "--tune", "qv", "--epochs", "2", "--batch-size", "8", "--learning-rate", "0.03"]
FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "lorat.json", "curves.png"}
__all__ = ["base"]


@pytest.fixture
def data(tmp_path):
    return directory_of(tmp_path / "things", rows)


def arguments(data, base, out, *more):
    return ["--data", str(data), "--base", str(base), "--out", str(out), *QUICK, *more]


def run(data, base, out, *more):
    return main(arguments(data, base, out, *more))


def names_in(directory):
    return {path.name for path in directory.iterdir()}


def test_classify_writes_what_is_read_and_served(data, base, tmp_path, capsys):
    out = tmp_path / "kinds"
    assert run(data, base, out, "--description", "Tells things apart.", "--epochs", "8") == 0
    assert names_in(out) == FILES | {"confusion.png", "length.png"}
    loaded = load_base(base, dtype="float32")
    adapter = read_adapter(out, loaded.shape)
    assert (adapter.task, adapter.rank, adapter.alpha) == ("sequence_classification", 4, 16.0)
    assert adapter.targets == ("query", "value")
    assert adapter.head is not None and adapter.head.labels == ("animal", "colour")
    assert (adapter.description, adapter.tags) == ("Tells things apart.", ("text-classification",))
    assert adapter.base_id == loaded.shape.base_id
    assert any(lora.b.any() for lora in adapter.lora.values())
    model = lorat.MultiLoRAT(loaded, slots=1)
    scores = model.classify([row["text"] for row in rows(60, 12)], model.load(out))
    right = [max(score, key=score.__getitem__) == row["label"] for score, row in zip(scores, rows(60, 12), strict=True)]
    assert sum(right) >= 10
    assert f"kinds: accuracy {sum(right) / 12:.4f}" in capsys.readouterr().out


def test_a_head_of_texts_ends_as_a_logistic_regression_on_the_trained_adapter(data, base, tmp_path):
    assert run(data, base, tmp_path / "kinds") == 0
    wrapped = BertForSequenceClassification.from_pretrained(base, num_labels=2)
    model = lorat.LoRAT.from_pretrained(wrapped, tmp_path / "kinds").eval()
    made = [json.loads(line) for line in (data / "train.jsonl").read_text("utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        pooled = torch.cat([model.bert(**tokenizer(row["text"], return_tensors="pt")).pooler_output for row in made])
        logits = model.model.classifier(pooled)
    linear_model = pytest.importorskip("sklearn.linear_model")
    fitted = linear_model.LogisticRegression(C=END_C, max_iter=300).fit(pooled, [row["label"] for row in made])
    assert list(fitted.classes_) == ["animal", "colour"]
    odds = logits[:, 1] - logits[:, 0]
    assert np.allclose(odds, fitted.decision_function(pooled), atol=0.05)  # it is solved to so much
    assert "the head starts and ends as a logistic regression" in (tmp_path / "kinds/README.md").read_text("utf-8")


def test_several_labels_a_text_train_independent_labels(base, tmp_path, capsys):
    data, out = directory_of(tmp_path / "several", several), tmp_path / "out"
    assert run(data, base, out, "--epochs", "20", "--patience", "20") == 0
    head = read_adapter(out, load_base(base, dtype="float32").shape).head
    assert head is not None and head.multi_label and head.labels == ("animal", "colour")
    assert names_in(out) == FILES | {"length.png"}
    shown = capsys.readouterr().out
    assert "out: micro F1 " in shown and "frozen base: micro F1 " in shown
    assert float(shown.partition("out: micro F1 ")[2][:6]) > 0.8


def test_tags_train_a_head_over_tokens(base, tmp_path, capsys):
    data, out = directory_of(tmp_path / "tags", tagged), tmp_path / "out"
    assert run(data, base, out, "--epochs", "4") == 0
    adapter = read_adapter(out, load_base(base, dtype="float32").shape)
    assert adapter.task == "token_classification"
    assert adapter.head is not None and adapter.head.labels == ("O", "B-animal", "B-colour", "I-animal")
    assert names_in(out) == FILES | {"length.png"}
    assert "the head starts at random" in (out / "README.md").read_text("utf-8")
    assert float(capsys.readouterr().out.partition("out: F1 ")[2][:6]) > 0.8


@pytest.mark.parametrize(
    ("make", "task", "measure", "pictures"),
    [
        (scored, "auto", "Spearman", {"similarity.png", "scatter.png", "length.png"}),
        (positive, "auto", "MRR", {"similarity.png", "length.png"}),
        (rows, "pairs", "MAP", {"similarity.png", "length.png"}),
    ],
    ids=["scored", "positive", "labelled"],
)
def test_pairs_and_labelled_texts_train_an_embedding_adapter(make, task, measure, pictures, base, tmp_path, capsys):
    data, out = directory_of(tmp_path / "near", make), tmp_path / "out"
    assert run(data, base, out, "--task", task, "--learning-rate", "0.003") == 0
    assert names_in(out) == FILES | pictures
    adapter = read_adapter(out, load_base(base, dtype="float32").shape)
    assert adapter.task == "embedding" and adapter.head is None and adapter.recipe is None
    assert any(lora.b.any() for lora in adapter.lora.values())
    shown = capsys.readouterr().out
    assert f"out: {measure} " in shown and f"frozen base: {measure} " in shown


def test_a_table_is_read_as_lines_are(data, base, tmp_path):
    lines = [json.loads(line) for line in (data / "train.jsonl").read_text("utf-8").splitlines()]
    table = tmp_path / "things.csv"
    table.write_text("review,kind\n" + "".join(f"{row['text']},{row['label']}\n" for row in lines), "utf-8")
    columns = ["--column", "text=review", "--column", "label=kind"]
    assert run(table, base, tmp_path / "out", *columns) == 0
    assert "dev (there is no test split" in (tmp_path / "out" / "README.md").read_text("utf-8")


def weights(data, base, out, *more):
    assert run(data, base, out, *more) == 0
    return load_file(out / "adapter_model.safetensors")


def same(first, other):
    return first.keys() == other.keys() and all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("task", ["classify", "pairs"])
def test_the_same_seed_gives_the_same_weights_and_another_others(task, data, base, tmp_path):
    seeds = [("first", "5"), ("again", "5"), ("other", "6")]
    first, again, other = (
        weights(data, base, tmp_path / name, "--task", task, "--epochs", "1", "--seed", seed) for name, seed in seeds
    )
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize("task", ["classify", "pairs"])
def test_of_several_gpus_one_trains(task, data, base, tmp_path, monkeypatch):
    more = ["--task", task, "--epochs", "1"]
    alone = weights(data, base, tmp_path / "alone", *more)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # a trainer believes it, even on a CPU
    assert same(alone, weights(data, base, tmp_path / "several", *more))


@pytest.mark.parametrize("task", ["classify", "pairs"])
def test_killed_at_a_random_step_it_goes_on_to_the_same_weights(task, data, base, tmp_path, capfd):
    more = ["--task", task, "--epochs", "12", "--patience", "12", "--dropout", "0.1"]
    whole = weights(data, base, tmp_path / "whole", *more)
    out = tmp_path / "killed"
    kill_while_training(arguments(data, base, out, *more), out)
    assert not out.exists()
    assert same(whole, weights(data, base, out, *more))
    assert "going on after step " in capfd.readouterr().out
    assert not out.with_name("killed.training").exists()


class Stopped(BaseException):
    """What a kill is, in this process."""


@pytest.mark.parametrize("task", ["classify", "pairs"])
def test_stopped_after_every_epoch_it_ends_with_the_same_epoch(task, base, tmp_path, monkeypatch):
    def by_chance(first, count):  # so that the dev score goes up and down
        return [row | {"label": random.Random(row["text"]).choice(("animal", "colour"))} for row in rows(first, count)]

    data, histories = directory_of(tmp_path / "chance", by_chance), []
    publish, save = lorat.train._publish, Trainer._save_checkpoint
    monkeypatch.setattr(lorat.train, "_publish", lambda *got: histories.append(got[2]) or publish(*got))
    more = ["--task", task, "--epochs", "12", "--patience", "3", "--dropout", "0.1"]
    whole = weights(data, base, tmp_path / "whole", *more)

    def save_and_stop(*given):
        save(*given)
        raise Stopped

    monkeypatch.setattr(Trainer, "_save_checkpoint", save_and_stop)
    for _ in histories[0].scores:
        with pytest.raises(Stopped):
            run(data, base, tmp_path / "stopped", *more)
    assert same(whole, weights(data, base, tmp_path / "stopped", *more))
    assert histories[0] == histories[1] and len(histories[0].scores) < 12


def test_a_run_is_not_gone_on_with_by_another(data, base, tmp_path, capsys):
    out = tmp_path / "out"
    work = out.with_name("out.training")
    (work / "checkpoints" / "checkpoint-9").mkdir(parents=True)
    (work / "checkpoints" / "checkpoint-9" / "trainer_state.json").write_text("{}", "utf-8")
    (work / "run.json").write_text(json.dumps({"rank": 2}), "utf-8")
    assert run(data, base, out) == 2
    assert "begun with another" in capsys.readouterr().err
    shutil.rmtree(work)
    assert run(data, base, out) == 0


@pytest.mark.parametrize("room", [3_000, 12_000, 30_000])
def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(room, data, base, tmp_path):
    """What is the first that is too large: safetensors' file, torch's (the optimiser), a picture."""
    out = tmp_path / "out"

    def small_files():  # what a full disk does, as far as a process sees it
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    command = [sys.executable, "-m", "lorat.train", *arguments(data, base, out)]
    done = subprocess.run(command, preexec_fn=small_files, capture_output=True)
    assert done.returncode == 2, done.stderr.decode()[-2000:]
    assert "could not be written" in done.stderr.decode() and "free some space" in done.stderr.decode()
    assert not out.exists()
    assert run(data, base, out) == 0


def test_a_run_does_not_go_on_with_another_tokenizer(data, base, tmp_path, capsys):
    out, other = tmp_path / "out", tmp_path / "other"
    kill_while_training(arguments(data, base, out, "--epochs", "12", "--patience", "12"), out)
    shutil.copytree(base, other)
    file = other / "tokenizer.json"
    definition = json.loads(file.read_text("utf-8"))
    words = definition["model"]["vocab"]
    words["red"], words["dog"] = words["dog"], words["red"]
    file.write_text(json.dumps(definition), "utf-8")
    assert run(data, other, out, "--epochs", "12", "--patience", "12") == 2
    assert "begun with another base" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OverflowError("too wide"), MemoryError("too many")])
def test_a_picture_that_cannot_be_drawn_costs_no_adapter(error, data, base, tmp_path, monkeypatch, capsys):
    def draw(*_):
        raise error

    monkeypatch.setattr(lorat.train, "draw", draw)
    assert run(data, base, tmp_path / "out") == 0
    assert f"the pictures could not be drawn: {error}" in capsys.readouterr().out
    assert "accuracy" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_label_of_all_rows_and_one_of_none_are_learned_as_that(base, tmp_path):
    def both(first, count):
        made = rows(first, count)
        return [{"text": row["text"], "labels": ["always", row["label"]]} for row in made]

    data = directory_of(tmp_path / "data", both)
    labels = ["always", "animal", "colour", "never"]
    (data / "labels.json").write_text(json.dumps(labels), "utf-8")
    assert run(data, base, tmp_path / "out") == 0
    model = MultiLoRAT(load_base(base, device="cpu", dtype="float32"), slots=1)
    scores = Served(model, model.load(tmp_path / "out")).classify([row["text"] for row in rows(60, 12)])
    assert scores[:, 0].min() > 0.9 and scores[:, 3].max() < 0.1


def test_a_dev_score_that_is_undefined_is_an_error(base, tmp_path, capsys):
    data = directory_of(tmp_path / "data", scored)
    same = [{"text_a": "red dog", "text_b": "red dog", "score": n} for n in (0, 1)]
    (data / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in same), "utf-8")
    assert run(data, base, tmp_path / "out") == 2
    assert "the dev score is undefined" in capsys.readouterr().err


def test_a_base_without_a_pooler_gets_one_trained_and_saved(data, base, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    BertModel.from_pretrained(base, add_pooling_layer=False).save_pretrained(bare)
    assert run(data, bare, tmp_path / "kinds") == 0
    adapter = read_adapter(tmp_path / "kinds", load_base(bare, dtype="float32").shape)
    assert adapter.head is not None and adapter.head.pooler is not None


def test_the_card_names_data_recipe_and_scores_and_no_path_of_the_machine(data, base, tmp_path):
    out = tmp_path / "secret" / "kinds"
    assert run(data, base, out, "--data-name", "Things", "--data-licence", "CC0 1.0", "--name", "K 1") == 0
    card = (out / "README.md").read_text("utf-8")
    assert "Things (licence: CC0 1.0), 2 labels: 36 rows to train, 12 to choose the epoch" in card
    assert "lorat train --data DATA --task classify --out OUT --name 'K 1'" in card
    assert "--rank 4 --alpha 16 --tune qv" in card and "--seed 1 --base BASE" in card
    assert "| K 1 |" in card and "| frozen base |" in card
    assert all(f"]({path.name})" in card for path in out.glob("*.png"))
    config = json.loads((out / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "tiny-bert"
    assert not [path.name for path in out.iterdir() if str(tmp_path.parent.parent).encode() in path.read_bytes()]


def test_a_name_is_one_cell_of_the_card_s_table(data, base, tmp_path, capsys):
    out = tmp_path / "kinds"
    assert run(data, base, out, "--epochs", "1", "--name", "two\nlines | a bar") == 0
    card = (out / "README.md").read_text("utf-8")
    assert "\n# two lines | a bar\n" in card and "\n| two lines \\| a bar | " in card
    assert "two lines | a bar: accuracy " in capsys.readouterr().out
    assert f"\n| lorat | {lorat.__version__} |\n" in card


def test_texts_that_are_too_long_to_be_read_are_counted(data, base, tmp_path, capsys):
    write(data / "train.jsonl", [*rows(0, 36), {"text": "cat " * 600, "label": "animal"}])
    write(data / "dev.jsonl", [{"text": "cat " * 2600, "label": "animal"}, *rows(40, 12)])  # too long for a probe
    assert run(data, base, tmp_path / "kinds", "--epochs", "1") == 0
    adapter = read_adapter(tmp_path / "kinds", load_base(base, dtype="float32").shape)
    assert [probe.text for probe in adapter.probes] == [row["text"] for row in rows(40, 12)[:2]]
    says = "1 of 37 texts to train on are longer than 512 tokens: what comes after is not read."
    assert says in capsys.readouterr().out
    assert says in (tmp_path / "kinds" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--tune", "x"], "tune"),
        (["--rank", "0"], "rank"),
        (["--rank", "257"], "from 1 to 256"),
        (["--description", "x" * 10_001], "description has 10,001 characters"),
        (["--seed", "-1"], "seed"),
        (["--seed", "99999999999"], "seed"),
        (["--epochs", "0"], "epochs"),
        (["--warmup", "1"], "warmup"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--learning-rate", "1e30"], "lower the learning rate"),
        (["--leave-out", "number"], "no label of the data"),
        (["--task", "tokens"], "cannot learn from rows of labels"),
        (["--task", "similar"], "use auto, classify, tokens, pairs"),
        (["--column", "text"], "NAME=FIELD"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_refused(more, says, data, base, tmp_path, capsys):
    assert run(data, base, tmp_path / "out", *more) == 2
    assert says in capsys.readouterr().err
    assert names_in(tmp_path) == {"things"}


def test_a_directory_with_files_is_not_written_over(data, base, capsys):
    assert run(data, base, data) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_bad_row_is_refused_before_anything_is_written(data, base, tmp_path, capsys):
    lines = (data / "train.jsonl").read_text("utf-8").splitlines()
    write(data / "train.jsonl", [*lines[:4], '{"text": "a"}', *lines[4:]])
    assert run(data, base, tmp_path / "out") == 2
    assert "train.jsonl, line 5" in capsys.readouterr().err
    assert names_in(tmp_path) == {"things"}


def test_no_module_of_lorat_imports_at_its_top_what_only_training_needs():
    needed = {"accelerate", "datasets", "sentence_transformers", "sklearn", "scipy", "matplotlib"}
    for path in Path(lorat.__file__).parent.rglob("*.py"):
        top = ast.parse(path.read_text("utf-8")).body
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
        assert not {name.partition(".")[0] for name in names} & needed, path
