"""`lorat gc` as it is typed."""

import pytest

from app.cli import main
from app.store.adapter_log import AdapterLog
from app.store.store import Store
from tests.app.stores import upload


@pytest.mark.parametrize("hours", ["nan", "inf", "1e10", "-1", "day"])
def test_hours_are_a_number_that_a_clock_can_go_back(hours, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["gc", "--store", str(tmp_path), f"--older-than-hours={hours}"])
    assert ended.value.code == 2
    assert "is not a number of hours" in capsys.readouterr().err


def test_a_store_that_is_not_there_is_not_made(tmp_path, capsys):
    for location in (tmp_path / "stroe", tmp_path):
        assert main(["gc", "--store", str(location)]) == 1
        assert "there is no store" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_never_held_anything_is_no_success(s3, capsys):
    command = ["gc", "--store", "s3://bucket/some/prefix"]
    assert main(command) == 1
    assert "nothing was ever uploaded" in capsys.readouterr().err
    AdapterLog(Store.open(command[-1])).commit(lambda _: upload("x"))
    assert main(command) == 0


def test_a_directory_that_is_a_store_may_be_empty(tmp_path):
    Store.open(str(tmp_path))
    assert main(["gc", "--store", tmp_path.as_uri(), "--older-than-hours", "876000"]) == 0
