"""Training data of three kinds: what is read as what, what is held out, and what is refused."""

import csv
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorat.errors import ConfigError
from lorat.training.data import read_split, read_training_data
from lorat.training.splits import LabelledTexts, TaggedWords, TextPairs

SAME_PATH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
TEXTS = st.text(LETTERS).map("t{}".format)  # so that it is neither blank nor a number


def jsonl(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")
    return path


def table(path, header, rows):
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def labelled(count=20, first=0):
    return [{"text": f"text {first + n}", "label": ("animal", "colour")[n % 2]} for n in range(count)]


def several(count=20):
    return [{"text": f"text {n}", "labels": [[], ["b"], ["c", "a", "c"]][n % 3]} for n in range(count)]


def tagged(count=20):
    return [{"tokens": ["Ada", f"{n}"], "tags": ["B-person", "O"]} for n in range(count)]


def scored(count=20, names=("text_a", "text_b")):
    return [{names[0]: f"a {n}", names[1]: f"b {n}", "score": n % 6} for n in range(count)]


def paired(count=20):
    return [{"anchor": f"a {n}", "positive": f"b {n}"} for n in range(count)]


def refused(path, says, **how):
    with pytest.raises(ConfigError, match=re.escape(says)) as error:
        read_training_data(path, seed=1, **how)
    assert len(str(error.value)) < 600


def read_or_refusal(path, **how):
    """The data, or what the refusal says; any other error goes through."""
    try:
        return read_training_data(path, **how)
    except ConfigError as error:
        return str(error)


# ---- the three kinds -------------------------------------------------------------------------------------------------


def test_texts_with_one_label(tmp_path):
    data = tmp_path / "things"
    jsonl(data / "train.jsonl", labelled(4))
    jsonl(data / "dev.jsonl", labelled(2, 10))
    table(data / "test.csv", ["id", "label", "text"], [[1, "colour", "red"]])
    read = read_training_data(data, seed=1)
    assert (read.kind, read.labels, read.multi_label, read.name) == ("labels", ("animal", "colour"), False, "things")
    assert read.train == LabelledTexts(tuple(f"text {n}" for n in range(4)), ((0,), (1,), (0,), (1,)))
    assert (read.dev, read.held_out) == (LabelledTexts(("text 10", "text 11"), ((0,), (1,))), False)
    assert read.test == LabelledTexts(("red",), ((1,),))


def test_texts_with_any_number_of_labels(tmp_path):
    rows = [{"text": f"t {n}", "labels": labels} for n, labels in enumerate([["b", "a", "b"], [], ["c"]] * 4)]
    from_json = read_training_data(jsonl(tmp_path / "x.jsonl", rows), seed=1)
    cells = [[row["text"], " | ".join(row["labels"])] for row in rows]
    from_table = read_training_data(table(tmp_path / "x.csv", ["text", "labels"], cells), seed=1)
    assert from_json == from_table
    assert (from_json.kind, from_json.labels, from_json.multi_label) == ("labels", ("a", "b", "c"), True)
    assert set(from_json.train.labels) == {(0, 1), (), (2,)}


def test_words_with_tags(tmp_path):
    jsonl(tmp_path / "train.jsonl", tagged(3))
    jsonl(tmp_path / "valid.json", [{"tokens": ["x"], "tags": ["B-person"]}])
    read = read_training_data(tmp_path, seed=1)
    assert (read.kind, read.labels, read.multi_label, read.test) == ("tags", ("O", "B-person"), False, None)
    assert read.train == TaggedWords((("Ada", "0"), ("Ada", "1"), ("Ada", "2")), ((1, 0),) * 3)
    assert read.dev == TaggedWords((("x",),), ((1,),))


@pytest.mark.parametrize(
    "names", [("text_a", "text_b"), ("sentence1", "sentence2"), ("anchor", "positive"), ("query", "positive")]
)
def test_pairs_with_a_score(names, tmp_path):
    rows = scored(20, names)
    from_json = read_training_data(jsonl(tmp_path / "x.jsonl", rows), seed=1)
    cells = [[*row.values()] for row in rows]
    assert read_training_data(table(tmp_path / "x.csv", [*names, "score"], cells), seed=1) == from_json
    assert (from_json.kind, from_json.labels, len(from_json.train)) == ("pairs", (), 18)
    assert all(
        first[2:] == second[2:] for first, second in zip(from_json.train.first, from_json.train.second, strict=True)
    )
    assert set(from_json.train.scores) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}


def test_pairs_without_a_score_are_alike(tmp_path):
    jsonl(tmp_path / "train.jsonl", paired(2))
    jsonl(tmp_path / "validation.jsonl", [{"text_a": "x", "text_b": "y"}])
    read = read_training_data(tmp_path, seed=1)
    assert read.train == TextPairs(("a 0", "a 1"), ("b 0", "b 1"), None)
    assert read.dev == TextPairs(("x",), ("y",))


def test_fields_with_other_names(tmp_path):
    rows = [{"review": row["text"], "text": 3, "stars": row["label"]} for row in labelled()]
    path = jsonl(tmp_path / "x.jsonl", rows)
    read = read_training_data(path, seed=1, columns={"text": "review", "label": "stars"})
    assert read == read_training_data(jsonl(tmp_path / "y" / "x.jsonl", labelled()), seed=1)
    split = read_split(path, kind="labels", labels=read.labels, multi_label=False, columns={"text": "review", "label": "stars"})  # fmt: skip
    assert len(split) == 20


def test_labels_of_a_table_are_stripped(tmp_path):
    rows = [[row["text"], f" {row['label']} "] for row in labelled()]
    assert read_training_data(table(tmp_path / "x.csv", ["text", "label"], rows), seed=1).labels == ("animal", "colour")


def test_columns_choose_between_two_kinds_of_row(tmp_path):
    rows = [row | {"labels": ["x"], "sentence1": "s", "sentence2": "t"} for row in labelled()]
    refused(jsonl(tmp_path / "x.jsonl", rows), "two kinds of row")
    assert not read_training_data(tmp_path / "x.jsonl", seed=1, columns={"label": "label"}).multi_label


# ---- rows that are refused -------------------------------------------------------------------------------------------

SETS = "read are text + label | text + labels | tokens + tags | text_a + text_b"
ROWS = [
    (labelled, {"text": "a"}, f"its fields are text: no row; {SETS}"),
    (labelled, {}, "its fields are none"),
    (labelled, {"label": "a", "a b": 1}, "its fields are label, 'a b': no row"),
    (labelled, {"text": "a", "labels": ["animal"]}, "text, labels after rows of text, label: give rows of one kind"),
    (labelled, {"text": 3, "label": "animal"}, "'text' must be a text, it is 3: put it in quotes"),
    (labelled, {"text": "a", "label": 3}, "'label' must be a text, it is 3: put it in quotes"),
    (labelled, {"text": "a", "label": True}, "'label' must be a text, it is true"),
    (labelled, {"text": " \n", "label": "animal"}, "'text' must be a text that is not blank"),
    (labelled, {"text": "a", "label": ""}, "'label' must be a text that is not blank"),
    (labelled, {"text": None, "label": "animal"}, "'text' must be a text that is not blank, it is None"),
    (labelled, {"text": ["a"], "label": "animal"}, "'text' must be a text"),
    (several, {"text": "a", "labels": "b|c"}, "'labels' must be a list of texts, it is 'b|c'"),
    (several, {"text": "a", "labels": ["b", 1]}, "'labels': each must be a text, it is 1"),
    (several, {"text": "a", "labels": [""]}, "'labels': each must be a text that is not blank"),
    (tagged, {"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens and 1 tags"),
    (tagged, {"tokens": [], "tags": []}, "0 tokens and 0 tags"),
    (tagged, {"tokens": "a", "tags": ["O"]}, "'tokens' must be a list of texts"),
    (tagged, {"tokens": [" "], "tags": ["O"]}, "'tokens': each must be a text that is not blank"),
    (tagged, {"tokens": ["a"], "tags": [0]}, "'tags': each must be a text, it is 0"),
    (scored, {"text_a": "a", "text_b": "b"}, "text_a, text_b after rows of text_a, text_b, score"),
    (scored, {"text_a": "a", "text_b": "b", "score": "3"}, "'score' must be a finite number, it is '3'"),
    (scored, {"text_a": "a", "text_b": "b", "score": True}, "'score' must be a finite number, it is True"),
    (scored, {"text_a": "a", "text_b": "b", "score": None}, "'score' must be a finite number"),
    (scored, {"text_a": "a", "text_b": 3, "score": 1}, "'text_b' must be a text, it is 3"),
    (paired, {"anchor": "a", "positive": "b", "score": 1}, "anchor, positive, score after rows of anchor, positive"),
    (paired, {"anchor": "a", "positive": "b", "label": "1"}, "a pair with a label"),
    (
        paired,
        {"anchor": "a", "positive": "b", "query": "c"},
        "its fields are anchor, positive, query: two kinds of row",
    ),
]


@pytest.mark.parametrize(("rows", "row", "says"), ROWS)
def test_a_bad_row_is_refused_with_its_line(rows, row, says, tmp_path):
    refused(jsonl(tmp_path / "train.jsonl", [*rows(4), row, *rows(4)]), f"train.jsonl, line 5: {says}")


@pytest.mark.parametrize("score", ["", "x", "nan", "1e999", "1_0", "٣", "4,5"])
def test_a_score_in_a_table_must_be_a_number(score, tmp_path):
    path = table(tmp_path / "x.csv", ["text_a", "text_b", "score"], [["a", "b", "1"], ["c", "d", score]])
    refused(path, "x.csv, line 3: 'score' must be a finite number")


def test_an_empty_part_of_the_labels_of_a_table_is_refused(tmp_path):
    path = table(tmp_path / "x.csv", ["text", "labels"], [["a", "b|c"], ["d", "b||c"]])
    refused(path, "x.csv, line 3: 'labels': each must be a text that is not blank")


def test_tags_in_a_table_are_told_to_use_json_lines(tmp_path):
    path = table(tmp_path / "x.csv", ["tokens", "tags"], [["Ada", "B"]])
    refused(path, "x.csv, line 2: tokens and tags are read from JSON lines only")


@pytest.mark.parametrize("name", ["text", "review"])
def test_a_column_of_numbers_is_no_text(name, tmp_path):
    path = table(tmp_path / "x.csv", [name, "label"], [["1", "a"], [" -2.5e3", "b"]])
    refused(path, f"every row of the column '{name}' is a number", columns={"text": name})


def test_a_column_of_fractions_is_no_label(tmp_path):
    path = table(tmp_path / "x.csv", ["text", "label"], [["a", "1"], ["b", "2.5"]])
    refused(path, "it looks like a score, not like a label")


def test_whole_numbers_in_a_table_are_labels(tmp_path):
    path = table(tmp_path / "x.csv", ["text", "label"], [["a", "0"], ["3", "1"], ["c", "1"]])
    assert read_training_data(path, seed=1).labels == ("0", "1")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"txt": "text"}, "columns has 'txt', which is not read"),
        ({"text": "review"}, "line 1: its fields are text, label: no row"),
        ({"score": "label"}, "line 1: its fields are text, label: no row"),
    ],
)
def test_columns_that_cannot_be_honoured_are_refused(columns, says, tmp_path):
    refused(jsonl(tmp_path / "x.jsonl", labelled()), says, columns=columns)


# ---- files and labels that are refused -------------------------------------------------------------------------------


def test_no_train_rows_are_refused(tmp_path):
    refused(tmp_path, "has no train.jsonl")
    refused(tmp_path / "train.csv", "train.csv is missing")
    refused(tmp_path / ("x" * 300), "cannot be read")
    table(tmp_path / "train.csv", ["text", "label"], [])
    refused(tmp_path, "train.csv has no rows")


@pytest.mark.parametrize(
    ("one", "other"), [("train.csv", "train.jsonl"), ("dev.csv", "valid.csv"), ("test.csv", "test.txt")]
)
def test_two_files_of_one_split_are_refused(one, other, tmp_path):
    jsonl(tmp_path / "train.jsonl", labelled())
    for name in (one, other):
        (tmp_path / name).touch()
    refused(tmp_path, f"has {one} and {other}: keep one of them")


def test_a_split_that_is_not_read_is_not_passed_over(tmp_path):
    jsonl(tmp_path / "train.jsonl", labelled())
    (tmp_path / "dev.parquet").touch()
    refused(tmp_path, "dev.parquet is not read")


@pytest.mark.parametrize("other", [several, tagged, paired])
def test_a_split_of_another_kind_is_refused(other, tmp_path):
    jsonl(tmp_path / "train.jsonl", labelled())
    jsonl(tmp_path / "dev.jsonl", other())
    refused(tmp_path, "train.jsonl of text, label: give rows of one kind")


def test_scores_in_one_split_only_are_refused(tmp_path):
    jsonl(tmp_path / "train.jsonl", paired())
    jsonl(tmp_path / "test.jsonl", scored())
    refused(tmp_path, "test.jsonl has rows of text_a, text_b, score, train.jsonl of anchor, positive")


@pytest.mark.parametrize(("rows", "new"), [(labelled, {"text": "a", "label": "new"}), (several, {"text": "a", "labels": ["b", "new"]}),
                                           (tagged, {"tokens": ["a", "b"], "tags": ["O", "new"]})])  # fmt: skip
def test_a_label_that_train_lacks_is_refused_with_its_line(rows, new, tmp_path):
    jsonl(tmp_path / "train.jsonl", rows())
    jsonl(tmp_path / "test.jsonl", [*rows(4), new])
    refused(tmp_path, "test.jsonl, line 5: the label 'new' is not in train.jsonl")


def test_a_label_that_labels_json_lacks_is_refused_with_its_line(tmp_path):
    jsonl(tmp_path / "train.jsonl", [*labelled(4), {"text": "a", "label": "new"}])
    jsonl(tmp_path / "labels.json", [["animal", "colour"]])
    refused(tmp_path, "train.jsonl, line 5: the label 'new' is not in labels.json")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("{", "labels.json is not valid JSON"),
        ('{"animal": 0}', "must hold a JSON list"),
        ('["animal", 1]', "must be a list of texts that are not blank"),
        ('["animal", " "]', "must be a list of texts that are not blank"),
        ('["animal", "animal"]', "names a label twice"),
        ('["animal"]', "labels.json has 1 label(s): at least 2 are needed"),
        ("[]", "labels.json has 0 label(s): at least 2 are needed"),
        ('["animal", "colour", "number"]', "train.jsonl has no row with the label 'number': add some, or leave it out"),
    ],
)
def test_labels_that_cannot_be_honoured_are_refused(labels, says, tmp_path):
    jsonl(tmp_path / "train.jsonl", labelled())
    (tmp_path / "labels.json").write_text(labels, "utf-8")
    refused(tmp_path, says)


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "a", "label": "x"}] * 9,
        [{"text": "a", "labels": ["x"]}] * 9,
        [{"tokens": ["a"], "tags": ["O"]}] * 9,
    ],
)
def test_one_label_is_refused(rows, tmp_path):
    refused(jsonl(tmp_path / "x.jsonl", rows), "x.jsonl has 1 label(s): at least 2 are needed")


def test_labels_json_gives_the_order_of_labels(tmp_path):
    jsonl(tmp_path / "train.jsonl", labelled())
    (tmp_path / "labels.json").write_text('["colour", "animal"]', "utf-8")
    read = read_training_data(tmp_path, seed=1)
    assert read.labels == ("colour", "animal")
    assert read.train.labels[:2] == ((1,), (0,))


@pytest.mark.parametrize(
    ("rows", "labels"), [(several, ["a", "b", "c", "new"]), (tagged, ["B-person", "I-person", "O"])]
)
def test_labels_json_may_have_more_than_train_where_a_row_has_many(rows, labels, tmp_path):
    jsonl(tmp_path / "train.jsonl", rows())
    (tmp_path / "labels.json").write_text(json.dumps(labels), "utf-8")
    assert read_training_data(tmp_path, seed=1).labels == tuple(labels)


def test_scores_that_are_all_equal_are_refused(tmp_path):
    same = [row | {"score": 2} for row in scored()]
    refused(jsonl(tmp_path / "train.jsonl", same), "all rows of train.jsonl have the score 2")
    wide = [pair | {"score": score} for pair, score in zip(same, (1.7e308, -1.7e308), strict=False)]
    refused(jsonl(tmp_path / "train.jsonl", wide), "have scores from -1.7e+308 to 1.7e+308: scale them down")
    jsonl(tmp_path / "train.jsonl", scored())
    jsonl(tmp_path / "dev.jsonl", same)
    refused(tmp_path, "all rows of dev.jsonl have the score 2")


def test_one_scored_pair_held_out_is_refused_because_it_orders_nothing(tmp_path):
    refused(jsonl(tmp_path / "x.jsonl", scored(6)), "x.jsonl has too few rows, those held out or left have one")


# ---- what is left out and held out -----------------------------------------------------------------------------------


def test_labels_left_out_leave_every_split(tmp_path):
    jsonl(tmp_path / "train.jsonl", [*labelled(), {"text": "four", "label": "number"}])
    jsonl(tmp_path / "test.jsonl", [{"text": "five", "label": "number"}, *labelled(4)])
    read = read_training_data(tmp_path, seed=1, leave_out=["number"])
    assert read.labels == ("animal", "colour")
    assert (len(read.train), len(read.dev), len(read.test)) == (18, 2, 4)


@pytest.mark.parametrize(
    ("rows", "leave_out", "says"),
    [
        (labelled, "number", "leave_out has 'number', which is no label of the data"),
        (labelled, "animal", "has 1 label(s)"),
        (several, "a", "leave_out is for texts with one label each"),
        (tagged, "O", "leave_out is for texts with one label each"),
        (paired, "a", "leave_out is for texts with one label each"),
    ],
)
def test_labels_that_cannot_be_left_out_are_refused(rows, leave_out, says, tmp_path):
    refused(jsonl(tmp_path / "x.jsonl", rows()), says, leave_out=[leave_out])


def test_a_split_that_is_left_out_altogether_is_refused(tmp_path):
    jsonl(tmp_path / "train.jsonl", [*labelled(), {"text": "four", "label": "number"}])
    jsonl(tmp_path / "dev.jsonl", [{"text": "five", "label": "number"}])
    refused(tmp_path, "dev.jsonl has only rows that are left out", leave_out=["number"])


@pytest.mark.parametrize("rows", [labelled, several, tagged, scored, paired])
def test_without_a_dev_split_a_seeded_tenth_is_held_out(rows, tmp_path):
    path = jsonl(tmp_path / "x.jsonl", rows(40))
    first, again, other = (read_training_data(path, seed=seed) for seed in (1, 1, 2))
    assert first.held_out and (len(first.train), len(first.dev)) == (36, 4)
    assert first == again
    assert first.dev != other.dev
    assert len(read_training_data(path, seed=1, held_out_share=0.5).dev) == 20
    name = next(iter(vars(first.dev)))
    both = getattr(first.train, name) + getattr(first.dev, name)
    assert len(both) == 40 and len(set(both)) == len(set(both[:36])) + len(set(both[36:]))


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_that_cannot_be_held_out_is_refused(share, tmp_path):
    refused(jsonl(tmp_path / "x.jsonl", labelled()), "held_out_share must be between 0 and 1", held_out_share=share)


@pytest.mark.parametrize("rows", [labelled(2), paired(1), [{"tokens": ["a", "b"], "tags": ["x", "y"]}]])
def test_too_few_rows_to_hold_any_out_are_refused(rows, tmp_path):
    refused(jsonl(tmp_path / "x.jsonl", rows), "x.jsonl has too few rows to hold any out: add rows, or a dev file")


@SAME_PATH
@given(
    labels=st.lists(st.sets(st.sampled_from("abcd")), min_size=2, max_size=20),
    one=st.booleans(),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.1, 0.5, 0.9]),
)
def test_what_is_held_out_never_takes_the_last_row_of_a_label(labels, one, seed, share, tmp_path):
    rows = [{"text": f"t {n}"} | ({"label": min(own | {"e"})} if one else {"labels": sorted(own)}) for n, own in enumerate(labels)]  # fmt: skip
    read = read_or_refusal(jsonl(tmp_path / "x.jsonl", rows), seed=seed, held_out_share=share)
    if isinstance(read, str):
        assert "too few" in read or "at least 2" in read
        return
    assert {label for row in read.train.labels for label in row} == set(range(len(read.labels)))
    assert 1 <= len(read.dev) <= max(1, round(len(rows) * share))
    assert len(read.train) >= 1 and len(read.train) + len(read.dev) == len(rows)
    order = {row["text"]: place for place, row in enumerate(rows)}
    assert all(
        [*map(order.get, split.texts)] == sorted(map(order.get, split.texts)) for split in (read.train, read.dev)
    )


# ---- one split against known labels ----------------------------------------------------------------------------------


def test_a_split_is_read_against_known_labels(tmp_path):
    split = read_split(jsonl(tmp_path / "x.jsonl", labelled(2)), kind="labels", labels=["x", "colour", "animal"], multi_label=False)  # fmt: skip
    assert split == LabelledTexts(("text 0", "text 1"), ((2,), (1,)))
    split = read_split(jsonl(tmp_path / "x.jsonl", several(3)), kind="labels", labels=["c", "b", "a"], multi_label=True)
    assert split.labels == ((), (1,), (0, 2))
    split = read_split(jsonl(tmp_path / "x.jsonl", tagged(1)), kind="tags", labels=["B-person", "O"], multi_label=False)
    assert split == TaggedWords((("Ada", "0"),), ((0, 1),))
    split = read_split(jsonl(tmp_path / "x.jsonl", scored(2)), kind="pairs", labels=[], multi_label=False)
    assert split == TextPairs(("a 0", "a 1"), ("b 0", "b 1"), (0.0, 1.0))


def test_an_unknown_label_of_a_split_is_refused_with_its_line(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", labelled(2))
    with pytest.raises(ConfigError, match=r"x\.jsonl, line 2: the label 'colour' is not in the adapter's labels"):
        read_split(path, kind="labels", labels=["animal"], multi_label=False)


@pytest.mark.parametrize(
    ("rows", "kind", "multi_label", "wanted"),
    [
        (labelled, "labels", True, "text + labels"),
        (several, "labels", False, "text + label"),
        (labelled, "tags", False, "tokens + tags"),
        (tagged, "pairs", False, "text_a + text_b | sentence1 + sentence2"),
    ],
)
def test_a_split_of_another_kind_than_asked_is_refused(rows, kind, multi_label, wanted, tmp_path):
    path = jsonl(tmp_path / "x.jsonl", rows())
    with pytest.raises(ConfigError, match=re.escape(f"give rows of {wanted}")):
        read_split(path, kind=kind, labels=["a", "b"], multi_label=multi_label)


# ---- properties ------------------------------------------------------------------------------------------------------


@SAME_PATH
@given(rows=st.lists(st.tuples(TEXTS, st.sampled_from(["a", "b", '"c",\n|'])), min_size=2, max_size=8))
def test_json_lines_and_a_table_of_labelled_texts_read_alike(rows, tmp_path):
    labels = sorted({label for _, label in rows} | {"x"})
    ways = [
        jsonl(tmp_path / "x.jsonl", [{"text": text, "label": label} for text, label in rows]),
        table(tmp_path / "x.csv", ["text", "label"], rows),
    ]
    expected = LabelledTexts(tuple(text for text, _ in rows), tuple((labels.index(label),) for _, label in rows))
    assert [read_split(path, kind="labels", labels=labels, multi_label=False) for path in ways] == [expected] * 2


@SAME_PATH
@given(rows=st.lists(st.tuples(TEXTS, TEXTS, st.floats(-1e300, 1e300)), min_size=2, max_size=8))
def test_json_lines_and_a_table_of_pairs_read_alike(rows, tmp_path):
    rows[0], rows[1] = (*rows[0][:2], 1.0), (*rows[1][:2], 2.0)
    names = ["sentence1", "sentence2", "score"]
    ways = [
        jsonl(tmp_path / "x.jsonl", [dict(zip(names, row, strict=True)) for row in rows]),
        table(tmp_path / "x.csv", names, rows),
    ]
    expected = TextPairs(*zip(*rows, strict=True))
    assert [read_split(path, kind="pairs", labels=[], multi_label=False) for path in ways] == [expected] * 2


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(LETTERS, max_size=3)
    | st.lists(st.text(max_size=2))
)
ROW = st.dictionaries(
    st.sampled_from(["text", "label", "labels", "tokens", "tags", "anchor", "positive", "score"]), VALUES
)


@SAME_PATH
@given(rows=st.lists(ROW, min_size=1, max_size=4), good=st.sampled_from([labelled, several, tagged, scored, paired]))
def test_any_rows_are_read_or_refused(rows, good, tmp_path):
    text = "".join(json.dumps(row) + "\n" for row in [*good(20), *rows])
    (tmp_path / "x.jsonl").write_text(text, "utf-8")
    read = read_or_refusal(tmp_path / "x.jsonl", seed=1)
    assert "x.jsonl" in read if isinstance(read, str) else len(read.train) >= 18


# ---- what no head can have -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["label", "labels", "tags"])
def test_a_label_that_is_too_long_is_refused_with_its_line(kind, tmp_path):
    long = "x" * 257
    rows = {"label": labelled(), "labels": several(), "tags": tagged()}[kind]
    rows[4] = rows[4] | {kind: {"label": long, "labels": ["b", long], "tags": [long, "O"]}[kind]}
    refused(jsonl(tmp_path / "x.jsonl", rows), "x.jsonl, line 5: the label 'xxx")


def test_more_labels_than_are_served_are_for_pairs_alone(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"text": f"t {n}", "label": f"{n // 2}"} for n in range(20_002)])
    refused(path, "x.jsonl has 10,001 labels: at most 10,000 are served")
    assert len(read_training_data(path, seed=1, for_head=False).labels) == 10_001


def test_a_long_label_of_labels_json_is_refused(tmp_path):
    jsonl(tmp_path / "train.jsonl", labelled())
    (tmp_path / "labels.json").write_text(json.dumps(["animal", "colour", "x" * 257]), "utf-8")
    refused(tmp_path, "labels.json: the label")
