"""Processors to compute on, against what a cgroup's files say."""

import os
import subprocess
import sys

import pytest

from app.engine.cores import cores

ALLOWED = len(os.sched_getaffinity(0))


def group(tmp_path, files):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({}, None),
        ({"cpu.max": b"max 100000\n"}, None),
        ({"cpu.max": b"100000 100000\n"}, 1),
        ({"cpu.max": b"50000 100000\n"}, 1),
        ({"cpu.max": b"110000 100000\n"}, 2),
        ({"cpu.max": b"6400000 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": b"-1\n", "cpu/cpu.cfs_period_us": b"100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": b"100000\n", "cpu/cpu.cfs_period_us": b"100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": b"100000\n"}, None),
        ({"cpu.max": b""}, None),
        ({"cpu.max": b"0 0\n"}, None),
        ({"cpu.max": "²".encode()}, None),
        ({"cpu.max": b"a b\n"}, None),
    ],
)
def test_no_more_than_the_cgroup_grants(files, granted, tmp_path):
    assert cores(group(tmp_path, files)) == min(ALLOWED, granted or ALLOWED)


def test_no_more_than_the_process_may_run_on(tmp_path):
    script = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from app.engine.cores import cores; print(cores())"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"1\n"


def test_a_system_that_cannot_say_where_a_process_may_run(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores(tmp_path) == os.cpu_count()
