"""A training run that is killed."""

import random
import signal
import subprocess
import sys
import time


def kill_while_training(arguments, out, within=0.3):
    """Kill -9 at a random moment, at most so many seconds after another checkpoint was begun."""
    checkpoints = out.with_name(f"{out.name}.training") / "checkpoints"
    before = set(checkpoints.glob("*"))
    process = subprocess.Popen([sys.executable, "-m", "lorat.train", *arguments], stderr=subprocess.DEVNULL)
    while not set(checkpoints.glob("*")) - before:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    time.sleep(random.uniform(0, within))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
