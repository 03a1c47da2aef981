"""What `lorat eval` measures on, and what it says of that."""

import json

import numpy as np
import pytest

from lorat.errors import ConfigError
from lorat.evaluate import FROZEN, Source, Subject, evaluate
from tests.lorat.training.conftest import directory_of, rows, tagged, write


class First:
    """Who always takes the first label."""

    def classify(self, texts):
        return np.tile([1.0, 0.0], (len(texts), 1))

    def tag(self, sentences):
        return [[0] * len(words) for words in sentences]

    def embed(self, texts):
        return np.eye(len(texts))


SUBJECT = Subject("a", First(), "sequence_classification", ("animal", "colour"))
TAGGER = Subject("a", First(), "token_classification", ("O", "B-animal", "B-colour", "I-animal"))
EMBEDDER = Subject("a", First(), "embedding")


def measured(path, subject=SUBJECT, leave_out=()):
    return evaluate(Source(path, {}, leave_out), subject, lambda data: First())


@pytest.fixture
def data(tmp_path):
    return directory_of(tmp_path / "things", rows)


@pytest.mark.parametrize("subject", [SUBJECT, EMBEDDER])
def test_it_says_which_rows_it_is_measured_on(subject, data):
    assert measured(data, subject).about == ("on the test split: 12 rows",)
    assert set(measured(data, subject).scores) == {"a", FROZEN}
    (data / "test.jsonl").unlink()
    assert measured(data, subject).about == ("on the dev split (there is no test split): 12 rows",)
    (data / "dev.jsonl").unlink()
    [about] = measured(data, subject).about
    assert about == "on rows held out by seed 1, which the adapter may have been trained on: 4 rows"
    assert measured(data / "train.jsonl", subject).about == ("on the file train.jsonl: 36 rows",)


@pytest.mark.parametrize("subject", [SUBJECT, EMBEDDER])
@pytest.mark.parametrize("name", ["", "train.jsonl"])
def test_rows_of_a_label_that_the_adapter_has_not_are_left_out(name, subject, data):
    lines = rows(0, 36)
    write(data / "train.jsonl", [*lines, *({"text": f"{n}", "label": "number"} for n in range(3))])
    if subject is SUBJECT:
        with pytest.raises(ConfigError, match="'number' is not in the adapter's labels"):
            measured(data / name)
    about = measured(data / name, subject, ["number"]).about
    assert about == (f"on the file {name}: 36 rows" if name else "on the test split: 12 rows",)


@pytest.mark.parametrize("path", ["", "test.jsonl"])
def test_leaving_out_is_for_one_label_a_text(path, tmp_path):
    data = directory_of(tmp_path / "tags", tagged)
    with pytest.raises(ConfigError, match="leave_out is for texts with one label each"):
        measured(data / path, TAGGER, ["O"])


def test_without_a_label_in_train_the_frozen_base_is_not_measured(data):
    write(data / "train.jsonl", [row for row in rows(0, 36) if row["label"] == "animal"])
    found = measured(data)
    assert set(found.scores) == {"a"}
    assert found.about[1] == "frozen base: not measured, train has no row with the label 'colour'"


def test_with_one_tag_in_train_the_frozen_base_is_not_measured(tmp_path):
    data = directory_of(tmp_path / "tags", tagged)
    (data / "train.jsonl").write_text(json.dumps({"tokens": ["a"], "tags": ["O"]}) + "\n", "utf-8")
    assert measured(data, TAGGER).about[1] == "frozen base: not measured, train has a single tag"
