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


NO_ROWS = "frozen base: not measured, it needs train rows: give a directory, or --train FILE"


def measured(path, subject=SUBJECT, leave_out=(), train=None):
    return evaluate(Source(path, {}, leave_out, train), subject, lambda data: First())


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
    alone = (NO_ROWS,) if subject.labels else ()
    assert measured(data / "train.jsonl", subject).about == ("on the file train.jsonl: 36 rows", *alone)


@pytest.mark.parametrize("subject", [SUBJECT, EMBEDDER])
@pytest.mark.parametrize("name", ["", "train.jsonl"])
def test_rows_of_a_label_that_the_adapter_has_not_are_left_out(name, subject, data):
    lines = rows(0, 36)
    write(data / "train.jsonl", [*lines, *({"text": f"{n}", "label": "number"} for n in range(3))])
    if subject is SUBJECT:
        with pytest.raises(ConfigError, match="'number' is not in the adapter's labels"):
            measured(data / name)
    about = measured(data / name, subject, ["number"]).about
    alone = (NO_ROWS,) if name and subject.labels else ()
    assert about == (f"on the file {name}: 36 rows" if name else "on the test split: 12 rows", *alone)


@pytest.mark.parametrize(("subject", "make"), [(SUBJECT, rows), (TAGGER, tagged)], ids=["texts", "words"])
def test_on_a_file_the_frozen_base_is_fitted_to_the_train_rows_that_are_named(subject, make, tmp_path):
    data = directory_of(tmp_path / "data", make)
    fitted = []
    for train in (data, data / "train.jsonl"):
        source = Source(data / "test.jsonl", {}, (), train)
        found = evaluate(source, subject, lambda rows: fitted.append(rows) or First())
        assert set(found.scores) == {"a", FROZEN} and found.about == ("on the file test.jsonl: 12 rows",)
    assert [len(rows.train) for rows in fitted] == [36, 32] and [len(rows.dev) for rows in fitted] == [12, 4]


def test_train_rows_that_nothing_is_fitted_to_are_refused(data):
    with pytest.raises(ConfigError, match="whose own train rows count: leave --train out"):
        measured(data, train=data / "train.jsonl")
    with pytest.raises(ConfigError, match="raw vectors: leave --train out"):
        measured(data / "test.jsonl", EMBEDDER, train=data / "train.jsonl")


@pytest.mark.parametrize("subject", [SUBJECT, EMBEDDER])
@pytest.mark.parametrize("name", ["", "test.jsonl"])
def test_a_label_to_leave_out_that_is_none_is_refused(name, subject, data):
    with pytest.raises(ConfigError, match="leave_out has 'typo', which is no label of the data"):
        measured(data / name, subject, ["typo"])


def test_a_label_is_left_out_of_the_train_rows_too(data):
    write(data / "test.jsonl", [*rows(60, 12), {"text": "7", "label": "number"}])
    found = measured(data / "test.jsonl", leave_out=["number"], train=data / "train.jsonl")
    assert set(found.scores) == {"a", FROZEN}


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
