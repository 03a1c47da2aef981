"""Ten minutes of damaged uploads through the readers: no crash, no hang over a second, no peak of memory.

A seed is an example: `python -m tests.prove.test_fuzz 123` runs it alone.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzzing import good_adapters, run

pytestmark = pytest.mark.prove
SECONDS = float(os.environ.get("FUZZ_SECONDS", "600"))
START = int(os.environ.get("FUZZ_START", "0"))
LONGEST = 1.0
SPARE = 512 << 20
"""Memory that all examples of a process together may take beyond what it has when it starts: address space."""


def test_damaged_uploads(keep, tmp_path):
    command = [sys.executable, "-m", "tests.prove.test_fuzz", str(START), str(SECONDS), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, timeout=SECONDS + 120
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    keep(done.stdout)
    print(done.stdout)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main(start: int, seconds: float, directory: str | None) -> None:
    """Run examples from this seed on; stops at the first that does not end as it should, with its seed."""
    good = good_adapters()
    for warm in range(50):
        run(warm, good, directory)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + SPARE, size + SPARE))
    before, outcomes, slowest, seed = resident(), Counter[str](), (0.0, 0), start
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"seed {seed} takes over {10 * LONGEST:.0f} s"))
    end = time.monotonic() + seconds
    while time.monotonic() < end or seed == start:
        signal.setitimer(signal.ITIMER_REAL, 10 * LONGEST)
        started = time.thread_time()  # of this thread: other processes on the machine do not count
        try:
            outcomes[run(seed, good, directory)] += 1
        except BaseException:
            print(f"seed {seed}", file=sys.stderr)
            raise
        slowest = max(slowest, (time.thread_time() - started, seed))
        if slowest[0] > LONGEST:
            sys.exit(f"seed {slowest[1]} took {slowest[0]:.2f} s")
        seed += 1
    print(
        f"{sum(outcomes.values()):,} damaged uploads in {seconds:.0f} s: no crash, no hang, no memory over the limit."
    )
    print(
        f"The slowest took {slowest[0]:.2f} s; resident memory {before >> 20} MiB before, {resident() >> 20} MiB after.\n"
    )
    print("| came to | uploads |\n|---|---|")
    print("\n".join(f"| {name} | {count:,} |" for name, count in outcomes.most_common()))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0, sys.argv[3] if len(sys.argv) > 3 else None)
