"""Interleaved rounds: every contender once a round, in turn; medians, and ratios within the run."""

import gc
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm import tqdm

RESULTS = Path(__file__).parent / "results"


def measure(
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    check: Callable[[str, Any], None] = lambda *_: None,
    rest: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds of each pass by contender; one pass each beforehand is not counted.

    As in a server the garbage collector leaves alone what was there before: to look through it takes 0.25 s.

    check: looks at what each pass answered, after its time is taken. rest: seconds of idleness before each pass, for
    a device whose clock depends on what it did last.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.freeze()
    for turn in tqdm(range(rounds + 1), unit="round", file=sys.stderr):
        for name, run in contenders.items():
            time.sleep(rest)
            started = time.perf_counter()
            answers = run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
            check(name, answers)
    gc.unfreeze()
    return seconds


def median(seconds: list[float]) -> float:
    """The middle of several passes."""
    return statistics.median(seconds)


def machine() -> dict[str, Any]:
    """What it ran on."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    flags = re.search(r"flags\s*: (.*)", cpuinfo)
    wanted = {"avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16"}
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "flags": sorted(wanted & set(flags[1].split())) if flags else [],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def save(name: str, result: Mapping[str, Any], out: Path | None) -> Path:
    """Write a run's raw numbers, with the machine and the command (of paths, the last part)."""
    path = (out or RESULTS) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = [Path(flag).name if "/" in flag else flag for flag in sys.argv[1:]]
    command = " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *flags])
    head = {"command": command, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}
    path.write_text(json.dumps(head | dict(result), indent=1) + "\n")
    return path
