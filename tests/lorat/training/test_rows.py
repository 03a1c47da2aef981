"""Rows: what is read as which row at which line, and what is refused."""

import csv
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorat.errors import ConfigError
from lorat.training.rows import MAX_BYTES, read_rows

TEXTS = st.text(st.characters(codec="utf-8"))
CSV_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
SAME_PATH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as error:
        read_rows(path)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".json", ".JSONL"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n"])
def test_json_lines_are_read_with_their_numbers(ending, end, tmp_path):
    path = write(tmp_path / f"a{ending}", '{"a": "é\\n", "b": [1]}\n {"a": 2.5}' + end)
    assert read_rows(path) == [(1, {"a": "é\n", "b": [1]}), (2, {"a": 2.5})]


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".tsv", "\t"), (".CSV", ",")])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n"])
def test_a_table_is_read_with_the_line_where_each_record_starts(ending, separator, end, tmp_path):
    lines = ["a;b", '"one\r\nand ""two""";1', ";2"]
    path = write(tmp_path / f"a{ending}", "\n".join(lines).replace(";", separator) + end)
    assert read_rows(path) == [(2, {"a": 'one\r\nand "two"', "b": "1"}), (4, {"a": "", "b": "2"})]


@pytest.mark.parametrize("header", ["a;b", 'a;"b"', '"a";b', "\ufeffa;b"])
def test_a_table_of_excel_s_may_be_separated_by_semicolons(header, tmp_path):
    path = write(tmp_path / "a.csv", f'{header}\r\nred, blue;1\r\n"x;y";"2,5"\r\n')
    assert read_rows(path) == [(2, {"a": "red, blue", "b": "1"}), (3, {"a": "x;y", "b": "2,5"})]


@pytest.mark.parametrize(
    ("name", "header", "names"),
    [
        ("a.csv", "a,b;c", ["a", "b;c"]),
        ("a.csv", 'a,"b;c"', ["a", "b;c"]),
        ("a.csv", 'a;"b,c"', ["a", "b,c"]),
        ("a.csv", '"a;b"', ["a;b"]),
        ("a.tsv", "a;b\tc", ["a;b", "c"]),
    ],
)
def test_semicolons_separate_only_where_no_comma_does(name, header, names, tmp_path):
    separator = {"a,": ",", "a;": ";", '"a': ","}[header[:2]] if name == "a.csv" else "\t"
    path = write(tmp_path / name, f"{header}\n{separator.join('1' for _ in names)}\n")
    assert read_rows(path) == [(2, dict.fromkeys(names, "1"))]


@pytest.mark.parametrize(("name", "content"), [("a.csv", "a,b\n1,2"), ("a.jsonl", '{"a": "1", "b": "2"}')])
def test_a_byte_order_mark_is_no_part_of_the_first_name(name, content, tmp_path):
    assert read_rows(write(tmp_path / name, b"\xef\xbb\xbf" + content.encode()))[0][1] == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{'a': 1}", "x.jsonl, line 2: not JSON: Expecting property name"),
        ('{"a": 1,', "x.jsonl, line 2: not JSON"),
        ('{"a": 1} {"a": 2}', "x.jsonl, line 2: not JSON: Extra data, at character 10"),
        ('["a"]', "x.jsonl, line 2 must hold a JSON object"),
        ("3", "x.jsonl, line 2 must hold a JSON object"),
        ('{"a": 1, "b": 2, "a": 3}', "x.jsonl, line 2 is not valid JSON: the name 'a' is there twice"),
        ('{"a": NaN}', "x.jsonl, line 2 is not valid JSON: NaN"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"a":' * 40 + "1" + "}" * 40, "deeper"),
        ("", "x.jsonl, line 2: it is blank"),
        (" \t\r", "x.jsonl, line 2: it is blank"),
        (b'{"a": "\xff"}', "x.jsonl, line 2 is not valid JSON: it is not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": "\0"}', "x.jsonl, line 2: it has a NUL byte"),
        ('{"a": "' + "a" * MAX_BYTES + '"}', "x.jsonl, line 2: it is over the limit of 1000000 bytes"),
    ],
)
def test_a_line_that_is_no_row_is_refused_with_its_number(line, says, tmp_path):
    line = line if isinstance(line, bytes) else line.encode()
    refused(write(tmp_path / "x.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 1}\n'), says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n1\n", "x.csv, line 3: 1 values for the header's 2 names"),
        ('a,b\n"1\n\n",2\n1,2,3\n', "x.csv, line 5: 3 values"),
        ("a,b\n1,2\n\n1,2\n", "x.csv, line 3: it is blank"),
        ("\na,b\n1,2\n", "x.csv, line 1: it is blank"),
        ("a,b,a\n1,2,3\n", "x.csv, line 1: 2 columns have the name 'a'"),
        ("a,\n1,2\n", "x.csv, line 1: a column has no name"),
        ("a, \n1,2\n", "x.csv, line 1: a column has no name"),
        ('a,b\n1,2\n"1,2\n3,4\n', "x.csv, line 3: not a record of a table"),
        ('a,b\n"1"2,3\n', "x.csv, line 2: not a record of a table"),
        ("a,b\r1,2\r", "x.csv, line 1: not a record of a table"),
        (b"a,b\n1,2\n3,\xe9\n", "x.csv, line 3: not UTF-8 at byte 3"),
        (b"\xff\xfea\0,\0b\0", "x.csv, line 1: it has a NUL byte"),
        ("a,b\n1,2\0\n", "x.csv, line 2: it has a NUL byte"),
        ("a,b\n1," + "2" * MAX_BYTES, "x.csv, line 2: it is over the limit"),
        ('a,b\n1,"' + ("2" * 99 + "\n") * 10_000 + '"', "x.csv, line 2: its record is over the limit"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_the_line(content, says, tmp_path):
    refused(write(tmp_path / "x.csv", content), says)


@pytest.mark.parametrize("content", ["", "\n\n", "a,b", "a,b\n", "\ufeff"])
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_file_without_rows_is_refused(content, ending, tmp_path):
    if ending == ".csv" or "a" not in content:
        refused(write(tmp_path / f"x{ending}", content), f"x{ending} has no rows")


@pytest.mark.parametrize("name", ["x.parquet", "x", "x.csv.gz", "x.txt"])
def test_an_unknown_ending_is_refused_with_those_that_are_read(name, tmp_path):
    refused(write(tmp_path / name, "a,b\n1,2\n"), f"{name} is not read: its name must end in one of .jsonl, .ndjson")


def test_a_path_that_is_no_file_is_refused(tmp_path):
    refused(tmp_path / "x.csv", "x.csv is missing")
    (tmp_path / "y.csv").mkdir()
    refused(tmp_path / "y.csv", "y.csv is not a file")
    refused(tmp_path / ("x" * 300 + ".csv"), "cannot be read")


def test_a_row_as_long_as_the_limit_is_read(tmp_path):
    long = "a" * (MAX_BYTES - 9)
    assert read_rows(write(tmp_path / "x.jsonl", f'{{"a":"{long}"}}\n'))[0][1] == {"a": long}
    long = "a" * (MAX_BYTES - 2)
    assert read_rows(write(tmp_path / "x.csv", f"a,b\n,{long}\n"))[0][1] == {"a": "", "b": long}


def test_a_header_of_very_many_names_is_refused_in_time(tmp_path):
    names = ",".join(str(number) for number in range(100_000))
    refused(write(tmp_path / "x.csv", f"{names}\n1,2\n"), "2 values for the header's 100000 names")


@SAME_PATH
@given(rows=st.lists(st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS), max_size=3), min_size=1, max_size=5))
def test_json_lines_are_read_as_they_were_written(rows, tmp_path):
    path = write(tmp_path / "x.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert read_rows(path) == [*enumerate(rows, 1)]


@SAME_PATH
@given(rows=st.lists(st.tuples(CSV_TEXTS, CSV_TEXTS), min_size=1, max_size=5), tabs=st.booleans())
def test_a_table_is_read_as_it_was_written(rows, tabs, tmp_path):
    path = tmp_path / ("x.tsv" if tabs else "x.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t" if tabs else ",").writerows([("a", 'b "c",\n'), *rows])
    assert [(*row.values(),) for _, row in read_rows(path)] == rows
