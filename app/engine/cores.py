"""How many processors there are to compute on: in a container its share of them, not all that the host has."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def cores(cgroups: Path = CGROUPS) -> int:
    """Processors that this process may use at a time: those it may run on, or what its cgroup grants, if less.

    cgroups: where they are mounted; a container sees its own group there. The formats are the kernel's:
    docs.kernel.org/admin-guide/cgroup-v2.html (`cpu.max`), and of version 1 docs.kernel.org/scheduler/sched-bwc.html.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _granted(cgroups))))


def _granted(cgroups: Path) -> float:
    """Processors' time in a second, as a cgroup limits it; without end where none does."""
    old = cgroups / "cpu"
    for files in ([cgroups / "cpu.max"], [old / "cpu.cfs_quota_us", old / "cpu.cfs_period_us"]):
        words = " ".join(map(_read, files)).split()
        if len(words) == 2 and all(word.isdigit() and int(word) for word in words):  # no limit is "max", or -1
            return int(words[0]) / int(words[1])
    return math.inf


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except (OSError, ValueError):
        return ""
