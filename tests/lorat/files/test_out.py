"""Where a result may go, and what becomes of one that cannot be written."""

import os

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from lorat.errors import AdapterFileError, ConfigError
from lorat.files.out import check_out, writing
from tests.full_disk import room_for

_NOBODY = 65534


@pytest.mark.parametrize("name", ["new", "empty", "new/below/new", "../new", "link/new"])
def test_a_place_that_is_new_or_empty_is_taken(name, tmp_path, monkeypatch):
    place = tmp_path / "here"
    (place / "empty").mkdir(parents=True)
    (place / "link").symlink_to(place / "empty")
    monkeypatch.chdir(place)
    check_out(place / name)
    check_out(type(place)(name))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("full", "there already"),
        ("file", "there already"),
        ("link", "there already"),
        ("dangling", "there already"),
        ("file/below", "cannot be written"),
        ("dangling/below", "cannot be written"),
        (".", "the directory you are in"),
        ("x" * 300, "cannot be written"),
    ],
)
def test_another_is_refused(name, says, tmp_path, monkeypatch):
    place, empty = tmp_path / "here", tmp_path / "empty"
    for directory in (place, empty, tmp_path / "full", tmp_path / "full" / "x"):
        directory.mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(empty)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    monkeypatch.chdir(place)
    out = type(place)(name) if name == "." else tmp_path / name
    with pytest.raises(ConfigError, match=says):
        check_out(out)


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    user = os.getuid()
    if user == 0:  # who may write anywhere: let somebody else ask
        os.setreuid(_NOBODY, -1)
    try:
        with pytest.raises(ConfigError, match="cannot be written"):
            check_out(tmp_path / "out")
    finally:
        os.setreuid(user, -1)


def try_to(write, out):
    out.mkdir(exist_ok=True)
    try:
        with room_for(2048):
            write(out / "x")
    finally:
        (out / "x").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "write",
    [lambda path: path.write_bytes(b"x" * 4096), lambda path: save_file({"x": np.ones(1024)}, path)],
    ids=["a file", "tensors"],
)
@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_is_one_error_and_leaves_no_new_directory(write, there, tmp_path):
    out = tmp_path / "out"
    if there:
        out.mkdir()
    with pytest.raises(ConfigError, match="out cannot be written: File too large: free some space"), writing(out):
        try_to(write, out)
    assert out.exists() == there


@pytest.mark.parametrize("error", [SafetensorError("InvalidHeader"), AdapterFileError("damaged")])
def test_an_error_of_another_kind_stays_what_it_is(error, tmp_path):
    with pytest.raises(type(error), match=str(error)), writing(tmp_path):
        raise error
