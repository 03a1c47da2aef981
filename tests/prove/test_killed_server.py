"""Promise 4 over HTTP: a server killed with SIGKILL at every moment has kept what it answered, and nothing else."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.app.conftest import upload
from tests.oracle import make_peft
from tests.prove.killed import State, states
from tests.prove.killed_server import (
    AFTERWARDS,
    LOWEST_RANK,
    ONCE_DONE,
    OPERATIONS,
    TEXT,
    Made,
    answered,
    is_ready,
    look,
    run_and_kill,
    running,
    send,
    served,
)

pytestmark = pytest.mark.prove
MOMENTS, RANDOM_MOMENTS = 200, 100
STATES = states([operation[:3] for operation in OPERATIONS])
AT_START, AT_END = "killed before it was ready", "killed after the last answer"


@pytest.fixture(scope="module")
def adapters(tiny_path: Path, minilm_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    """Three adapters, one cut short, one of another hidden size, and one for the end, each with a rank of its own."""
    directory = tmp_path_factory.mktemp("adapters")
    good = [made(tiny_path, directory, seed) for seed in (0, 1, 2, AFTERWARDS)]
    assert all(np.abs(one.vector - other.vector).max() > 0.01 for one, other in combinations(good, 2))
    misfit = make_peft(minilm_path, directory / "misfit", r=LOWEST_RANK)
    return [*good[:3], cut_short(good[0].directory, directory / "cut"), Made(misfit.directory), good[3]]


def made(base: Path, directory: Path, seed: int) -> Made:
    adapter = make_peft(base, directory / str(seed), seed=seed, r=LOWEST_RANK + seed)
    return Made(adapter.directory, adapter.answers([TEXT])[0].numpy())


def cut_short(whole: Path, directory: Path) -> Made:
    shutil.copytree(whole, directory)
    weights = directory / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return Made(directory)


class Proof:
    """Kills servers and looks at what is left; counts what became of the operations under way."""

    def __init__(self, base: Path, directory: Path, adapters: list[Made]) -> None:
        self._base, self._directory, self._adapters = base, directory, adapters
        self.fates: Counter[str] = Counter()
        self.compared = 0

    @property
    def moments(self) -> int:
        """How many kills came while operations were sent."""
        return self.fates.total() - self.fates[AT_START] - self.fates[AT_END]

    def run_whole(self) -> tuple[int, float]:
        """Run every operation, nothing killed: how many calls to the store that takes, and seconds."""
        directory = self._new_directory("whole")
        with running(self._base, directory) as server:
            assert is_ready(server.client)
            started = time.perf_counter()
            assert answered(server.client, directory, self._adapters) == len(OPERATIONS)
            seconds = time.perf_counter() - started
            server.process.terminate()
            calls = server.sent.recv()
        self._check(directory, len(OPERATIONS))
        return calls, seconds

    def kill(self, name: str, *, at: int = 0, after: float = 0) -> None:
        """Kill one server and check what a fresh one has."""
        directory = self._new_directory(name)
        done = run_and_kill(self._base, directory, self._adapters, at, after)
        fate = self._check(directory, done or 0)
        self.fates[AT_START if done is None else fate] += 1
        shutil.rmtree(directory)

    def _new_directory(self, name: str) -> Path:
        directory = self._directory / name
        directory.mkdir()
        return directory

    def _check(self, directory: Path, done: int) -> str:
        """Hold a fresh server against what was answered; how far the operation under way had come."""
        with running(self._base, directory) as server:
            assert is_ready(server.client)
            found = look(server.client)
            assert found in STATES[done : done + 2], (directory.name, done, found, STATES[done : done + 2])
            self.compared += served(server.client, found, self._adapters)
            fate = fate_of(done, found)
            if done < len(OPERATIONS):
                found = self._send_again(server.client, directory, done, fate)
            assert upload(server.client, "afterwards", self._adapters[AFTERWARDS].directory).status_code == 201
            self.compared += served(server.client, {**found, "afterwards": [(1, AFTERWARDS)]}, self._adapters)
        return fate

    def _send_again(self, client: httpx.Client, directory: Path, done: int, fate: str) -> State:
        """The state after the operation that was under way, which is sent once more as a client would."""
        operation = OPERATIONS[done]
        status = ONCE_DONE[operation.kind] if fate == "wholly there" else operation.status
        assert send(client, directory, self._adapters, operation) == status, (directory.name, operation)
        found = look(client)
        assert found == STATES[done + 1], (directory.name, operation, found)
        return found


def fate_of(done: int, found: State) -> str:
    if done == len(OPERATIONS):
        return AT_END
    if STATES[done] == STATES[done + 1]:
        return "nothing was to change"
    return "wholly there" if found == STATES[done + 1] else "not at all"


def test_kill_9_of_the_server_at_every_moment(
    adapters: list[Made], tiny_path: Path, tmp_path: Path, keep: Callable[[str], None]
) -> None:
    started, proof = time.perf_counter(), Proof(tiny_path, tmp_path, adapters)
    calls, seconds = proof.run_whole()
    for call in range(1, calls + 1):
        proof.kill(f"call-{call}", at=call)
    assert proof.fates.total() == calls
    wanted, generator = max(MOMENTS, proof.moments + RANDOM_MOMENTS), random.Random(0)
    for turn in range(2 * wanted):
        if proof.moments >= wanted:
            break
        proof.kill(f"random-{turn}", after=generator.uniform(0, seconds))
    assert proof.moments >= wanted

    kinds = Counter(operation.kind for operation in OPERATIONS)
    at_random = proof.fates.total() - calls
    keep(f"{len(OPERATIONS)} operations: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}. All but the")
    keep(f"collections go over HTTP to one server, which makes {calls} calls to its store. A server was killed with")
    keep(f"SIGKILL before each of these calls and at {at_random} random moments. A fresh server on the same store")
    keep("listed exactly what had been answered, with or without the whole of what was under way:")
    keep("; ".join(f"{fate}: {count}" for fate, count in sorted(proof.fates.items())) + ".")
    keep(f"{proof.compared} versions were asked for and answered as PEFT does (5e-5), all others were a 404. What was")
    keep("under way was sent again and was then there once; one more upload was a 201.")
    keep(f"{time.perf_counter() - started:.0f} s.")
