"""The kernels' tests once more, compiled as for a processor that has no AVX-512 and multiplies no bfloat16."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")


def test_the_kernels_compute_the_same_on_any_processor():
    here = Path(__file__)
    tests = [str(file) for file in here.parent.glob("test_*.py") if file != here]
    none = "from lorat.cpu.kernels import llvm; assert not llvm.multiplies_bfloat16()"
    for arguments in (["-c", none], ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]):
        generic = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, env=generic, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
