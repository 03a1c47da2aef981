"""Training end to end on a tiny random base: what it writes, that it repeats, and what it refuses."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

import lorat
from lorat.base import load_base, locate_base
from lorat.errors import ConfigError
from lorat.files.adapter_file import read_adapter
from lorat.train import main
from lorat.training.data import Rows, read_training_data, similar_pairs
from lorat.training.report import Probe, label_scores, retrieval_scores

ANIMALS = ("cat", "dog", "horse", "sheep", "wolf", "mouse")
COLOURS = ("red", "blue", "green", "black", "white", "yellow")
QUICK = ["--rank", "4", "--epochs", "2", "--batch-size", "8", "--learning-rate", "0.03"]
FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "lorat.json"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("private") / "tiny-bert"
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.2,  # so that a random base tells words apart
        hidden_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(locate_base(None) / name, directory)
    return directory


def rows(first=0, count=24):
    words = {"animal": ANIMALS, "colour": COLOURS}
    return [
        {"text": f"this {words[label][n % 6]} is number {first + n}", "label": label}
        for n in range(count // 2)
        for label in words
    ]


def write(path, lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")


@pytest.fixture
def data(tmp_path):
    directory = tmp_path / "things"
    directory.mkdir()
    write(directory / "train.jsonl", rows(count=36))
    write(directory / "dev.jsonl", rows(40, 12))
    write(directory / "test.jsonl", rows(60, 12))
    return directory


def run(data, base, out, task, *more):
    return main(["--data", str(data), "--base", str(base), "--out", str(out), "--task", task, *QUICK, *more])


def test_classify_writes_what_is_read_and_served(data, base, tmp_path, capsys):
    out = tmp_path / "kinds"
    assert run(data, base, out, "classify", "--description", "Tells things apart.", "--epochs", "8") == 0
    assert {path.name for path in out.iterdir()} == FILES
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


def test_similar_writes_an_embedding_adapter(data, base, tmp_path):
    out = tmp_path / "near"
    assert run(data, base, out, "similar") == 0
    assert {path.name for path in out.iterdir()} == FILES
    loaded = load_base(base, dtype="float32")
    adapter = read_adapter(out, loaded.shape)
    assert adapter.task == "embedding" and adapter.head is None and adapter.recipe is None
    assert any(lora.b.any() for lora in adapter.lora.values())
    assert "MAP" in (out / "README.md").read_text("utf-8")


def weights(data, base, out, task, seed):
    assert run(data, base, out, task, "--epochs", "1", "--seed", seed) == 0
    return load_file(out / "adapter_model.safetensors")


@pytest.mark.parametrize("task", ["classify", "similar"])
def test_the_same_seed_gives_the_same_weights(task, data, base, tmp_path):
    first, again = (weights(data, base, tmp_path / name, task, "5") for name in ("first", "again"))
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_another_seed_gives_other_weights(data, base, tmp_path):
    first, other = (weights(data, base, tmp_path / seed, "classify", seed) for seed in ("5", "6"))
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_base_without_a_pooler_gets_one_trained_and_saved(data, base, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    BertModel.from_pretrained(base, add_pooling_layer=False).save_pretrained(bare)
    assert run(data, bare, tmp_path / "kinds", "classify") == 0
    adapter = read_adapter(tmp_path / "kinds", load_base(bare, dtype="float32").shape)
    assert adapter.head is not None and adapter.head.pooler is not None


def test_the_card_names_data_recipe_and_scores_and_no_path_of_the_machine(data, base, tmp_path):
    out = tmp_path / "secret" / "kinds"
    assert run(data, base, out, "classify", "--data-name", "Things", "--data-licence", "CC0 1.0", "--name", "K 1") == 0
    card = (out / "README.md").read_text("utf-8")
    assert "Things (licence: CC0 1.0), 2 labels: 36 texts to train, 12 to choose the epoch" in card
    assert "python -m lorat.train --data DATA --task classify --out OUT --name 'K 1'" in card
    assert "--rank 4 --alpha 16 --tune qv --epochs 2 --batch-size 8 --learning-rate 0.03 --seed 1 --base BASE" in card
    assert "| K 1 |" in card and "| frozen base |" in card
    config = json.loads((out / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "tiny-bert"
    assert not [path.name for path in out.iterdir() if str(tmp_path.parent.parent).encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{'text': 1}", "not a line of JSON"),
        ("", "not a line of JSON"),
        ('["a", "b"]', "use an object"),
        ('{"text": "a"}', "'label' must be a text"),
        ('{"text": 3, "label": "animal"}', "'text' must be a text"),
        ('{"text": " ", "label": "animal"}', "'text' must be a text"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_number(line, says, data, base, tmp_path, capsys):
    lines = (data / "train.jsonl").read_text("utf-8").splitlines()
    write(data / "train.jsonl", [*lines[:4], line, *lines[4:]])
    assert run(data, base, tmp_path / "out", "classify") == 2
    error = capsys.readouterr().err
    assert "train.jsonl, line 5" in error and says in error
    assert not (tmp_path / "out").exists()


def test_a_label_that_train_lacks_is_refused_with_its_line_number(data):
    write(data / "test.jsonl", [*rows(count=4), {"text": "four", "label": "number"}])
    with pytest.raises(ConfigError, match=r"test.jsonl, line 5: the label 'number'"):
        read_training_data(data, seed=1)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("{", "not JSON"),
        ('{"animal": 0}', "must be a list"),
        ('["animal", "animal"]', "twice"),
        ('["animal"]', "at least 2"),
        ('["animal", "colour", "number"]', "no row with the label 'number'"),
    ],
)
def test_labels_that_cannot_be_honoured_are_refused(labels, says, data):
    (data / "labels.json").write_text(labels, "utf-8")
    with pytest.raises(ConfigError, match=says):
        read_training_data(data, seed=1)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--tune", "x"], "tune"),
        (["--rank", "0"], "rank"),
        (["--epochs", "0"], "epochs"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--learning-rate", "1e30"], "lower the learning rate"),
        (["--leave-out", "number"], "no label of the data"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_refused(more, says, data, base, tmp_path, capsys):
    assert run(data, base, tmp_path / "out", "classify", *more) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_directory_with_files_is_not_written_over(data, base, capsys):
    assert run(data, base, data, "classify") == 2
    assert "is there already" in capsys.readouterr().err


def test_no_data_is_refused(base, tmp_path, capsys):
    assert run(tmp_path, base, tmp_path / "out", "classify") == 2
    assert "has no train.jsonl" in capsys.readouterr().err


def test_labels_json_gives_the_order_of_labels(data):
    (data / "labels.json").write_text('["colour", "animal"]', "utf-8")
    read = read_training_data(data, seed=1)
    assert read.labels == ("colour", "animal")
    assert read.train.labels[:2] == (1, 0)


def test_without_a_dev_split_a_seeded_tenth_is_held_out(data):
    (data / "dev.jsonl").unlink()
    first, again, other = (read_training_data(data, seed=seed) for seed in (1, 1, 2))
    assert first.held_out and (len(first.train), len(first.dev)) == (32, 4)
    assert first == again
    assert first.dev != other.dev
    assert not set(first.dev.texts) & set(first.train.texts)


def test_labels_left_out_leave_every_split(data):
    write(data / "train.jsonl", [*rows(), {"text": "four", "label": "number"}])
    write(data / "test.jsonl", [{"text": "five", "label": "number"}, *rows(count=4)])
    read = read_training_data(data, seed=1, leave_out=["number"])
    assert read.labels == ("animal", "colour")
    assert read.test is not None
    assert (len(read.train), len(read.test)) == (24, 4)


def test_pairs_share_a_label_and_use_each_text():
    some = Rows(("a", "b", "c", "d", "e", "f"), (0, 0, 0, 1, 1, 2))
    pairs = similar_pairs(some, seed=3)
    labels = dict(zip(some.texts, some.labels, strict=True))
    assert all(labels[anchor] == labels[positive] == label and anchor != positive for anchor, positive, label in pairs)
    assert {text for anchor, positive, _ in pairs for text in (anchor, positive)} == set("abcde")
    with pytest.raises(ConfigError, match="two texts"):
        similar_pairs(Rows(("a", "b"), (0, 1)), seed=3)


def test_retrieval_scores_are_those_of_a_small_case_worked_by_hand():
    angles = torch.tensor([0.0, 0.1, 0.25, 1.5])
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1).numpy()
    # 0 ranks 1, 2, 3; 1 ranks 0, 2, 3; 2 ranks 1, 0, 3; 3 ranks 2, 1, 0
    scores = retrieval_scores(vectors, [0, 1, 0, 1])
    assert scores["accuracy@1"] == 0.0
    assert scores["MAP"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4)
    with pytest.raises(ConfigError, match="no two texts"):
        retrieval_scores(vectors, [0, 1, 2, 3])


def test_label_scores_and_the_probe():
    vectors = torch.eye(4).repeat(5, 1).numpy()
    labels = [0, 0, 1, 1] * 5
    assert Probe(vectors, labels, vectors, labels).predict(vectors) == labels
    scores = label_scores([0, 0, 0, 1], [0, 0, 1, 1])
    assert scores["accuracy"] == 0.75
    assert scores["macro F1"] == pytest.approx((0.8 + 2 / 3) / 2)


def test_no_module_of_lorat_imports_at_its_top_what_only_training_needs():
    needed = {"accelerate", "datasets", "sentence_transformers", "sklearn"}
    for path in Path(lorat.__file__).parent.rglob("*.py"):
        top = ast.parse(path.read_text("utf-8")).body
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
        assert not {name.partition(".")[0] for name in names} & needed, path
