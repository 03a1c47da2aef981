"""JSON from strangers: what is read, and what is refused though Python's own parser takes it."""

import json

import pytest

from lorat.errors import AdapterFileError
from lorat.files.json_file import MAX_BYTES, MAX_DEPTH, parse_json, read_json, short


@pytest.mark.parametrize(
    "value",
    [
        {}, {"a": [1, -2.5, "é \U0001f600", None, True]}, {"model_max_length": 10**30}, {"": "\0"},
        json.loads('{"a":' * (MAX_DEPTH - 1) + "1" + "}" * (MAX_DEPTH - 1)),
    ],
)  # fmt: skip
def test_json_is_read_as_it_is(value, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "x.json", dict) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "'a' is there twice"),
        ('{"a": {"b": 1, "b": 1}}', "'b' is there twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": -1e400}', "too large"),
        ('{"a": ' + "1" * 41 + "}", "digits"),
        ('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH, "deeper"),
        ("[" * 1_000_000, "deeper"),
        ('{"a": "\\ud83d"}', "surrogate"),
        ('{"\\ude00": 1}', "surrogate"),
        ('["a"]', "object"),
        ("{} x", "not valid JSON"),
        ("", "not valid JSON"),
        ("\ufeff{}", "not valid JSON"),
    ],
)
def test_json_that_is_none_or_means_two_things_is_refused(text, says):
    with pytest.raises(AdapterFileError, match=rf"x\.json .*{says}") as refused:
        parse_json(text.encode(), dict, "x.json")
    assert len(str(refused.value)) < 300


def test_other_files_are_refused(tmp_path):
    with pytest.raises(AdapterFileError, match="missing"):
        read_json(tmp_path / "x.json", dict)
    with pytest.raises(AdapterFileError, match="cannot be read"):
        read_json(tmp_path, dict)
    (tmp_path / "large.json").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(AdapterFileError, match="limit"):
        read_json(tmp_path / "large.json", dict)
    with pytest.raises(AdapterFileError, match="UTF-8 at byte 2"):
        parse_json(b'{"\xff', dict, "x")


def test_values_are_shown_short():
    assert short("x" * 1000) == "'" + "x" * 56 + "..."
    assert short(["a", 1]) == "['a', 1]"
