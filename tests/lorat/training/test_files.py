"""Files of rows with the fields of some kind of data: which file it is, and which fields."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorat.errors import ConfigError
from lorat.training.files import find_file, read_fields
from lorat.training.rows import ENDINGS, read_rows
from tests.lorat.training.test_rows import SAME_PATH, write


def test_the_one_file_with_a_name_is_found(tmp_path):
    for name in ("dev.csv", "test", "devs.csv", ".dev.csv.swp", "train.csv", "train.jsonl"):
        write(tmp_path / name, "")
    assert find_file(tmp_path, ("dev", "valid")) == tmp_path / "dev.csv"
    assert find_file(tmp_path, ("test",)) is None
    with pytest.raises(ConfigError, match=r"has train\.csv and train\.jsonl: keep one"):
        find_file(tmp_path, ("train",))
    with pytest.raises(ConfigError, match="cannot be read"):
        find_file(tmp_path / "missing", ("train",))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("text;label,size\na;b,1\n", "line 2: its fields are 'text;label', size: no row; read are text + label"),
        ("text;label,size\na;b,1\n", "separate columns by commas or by semicolons alone"),
        (
            "text_a;text_b;score\na;b;4,5\n",
            "line 2: 'score' must be a finite number, it is '4,5': write it with a point",
        ),
    ],
)
def test_a_table_of_excel_s_that_is_not_clear_is_refused_with_what_to_do(content, says, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(says)):
        read_fields(write(tmp_path / "x.csv", content), {})


def test_a_table_of_excel_s_has_the_fields_of_its_header(tmp_path):
    rows = read_fields(write(tmp_path / "x.csv", "\ufefftext;label\r\nred, blue;good\r\n"), {})
    assert (rows.fields, rows.values) == (("text", "label"), (("red, blue", ("good",)),))


def read_labelled(path):
    rows = read_fields(path, {})
    return [*zip(rows.lines, rows.values, strict=True)]


PIECES = [b'{"text": "a", "label": "b"}', b'{"tokens": ["a"], "tags": ["O"]}', b"text,label", b"a,b", b'"', b"\n", b"\r",
          b",", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"[" * 3000, b"1e999", b"1" * 5000, b"text_a,text_b,score"]  # fmt: skip


@SAME_PATH
@given(
    content=st.binary(max_size=200) | st.lists(st.sampled_from(PIECES) | st.binary(max_size=3)).map(b"".join),
    ending=st.sampled_from(ENDINGS),
)
def test_any_bytes_are_read_or_refused(content, ending, tmp_path):
    path = write(tmp_path / f"x{ending}", content)
    for read in (read_rows, read_labelled):
        try:
            rows = read(path)
        except ConfigError as error:
            rows, says = None, str(error)
        if rows is None:
            assert path.name in says and len(says) < 1000
        else:
            assert rows and all(1 <= line <= content.count(b"\n") + 1 for line, _ in rows)
