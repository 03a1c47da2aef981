"""The store under kill -9 at every moment, and under two uploaders at once."""

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.store.adapter_log import AdapterLog
from app.store.store import Store
from tests.app import stores
from tests.app.stores import Moto, upload, use_s3
from tests.oracle import make_peft
from tests.prove import killed
from tests.prove.killed import PROCESSES

pytestmark = pytest.mark.prove
MOMENTS, RACES = 200, 40
moto = stores.moto


@pytest.fixture(scope="module")
def adapters(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four adapters whose records differ, so that a record tells which it is."""
    directory = tmp_path_factory.mktemp("adapters")
    return [make_peft(tiny_path, directory / str(i), seed=i, r=2 + i).directory for i in range(4)]


def run_and_kill(adapters: list[Path], directory: Path, kill_at: int = 0, kill_after: float | None = None) -> bool:
    """Run the operations in a process; kill it before a call, or after some seconds. Whether it was killed."""
    acknowledged = directory / "acknowledged"
    worker = PROCESSES.Process(
        target=killed.operate, args=(str(directory / "store"), adapters[:3], acknowledged, kill_at)
    )
    worker.start()
    if kill_after is not None:
        while not acknowledged.exists() and worker.is_alive():
            time.sleep(0.001)
        time.sleep(kill_after)
        worker.kill()
    worker.join()
    assert worker.exitcode in (0, -9)
    return worker.exitcode == -9


def what_is_left(adapters: list[Path], directory: Path) -> object:
    ours, theirs = PROCESSES.Pipe()
    looker = PROCESSES.Process(target=killed.look, args=(str(directory / "store"), adapters[:3], theirs))
    looker.start()
    theirs.close()
    found = ours.recv()
    looker.join()
    return found


def check(adapters: list[Path], directory: Path, states: list[killed.State]) -> str:
    """Hold what is left against what was acknowledged; how far the operation that was killed had come."""
    acknowledged = directory / "acknowledged"
    done = len(acknowledged.read_bytes()) if acknowledged.exists() else 0
    found = what_is_left(adapters, directory)
    assert found in states[done : done + 2], (directory.name, done, found, states[done : done + 2])
    shutil.rmtree(directory)
    changes = done + 1 < len(states) and states[done] != states[done + 1]
    return ("wholly there" if found == states[done + 1] else "not at all") if changes else "nothing was to change"


def test_kill_9_at_every_moment(adapters: list[Path], tmp_path: Path, keep: Callable[[str], None]) -> None:
    states, started = killed.states(), time.perf_counter()
    (tmp_path / "whole").mkdir()
    assert not run_and_kill(adapters, tmp_path / "whole")
    calls = int((tmp_path / "whole" / "acknowledged.calls").read_text())
    assert what_is_left(adapters, tmp_path / "whole") == states[-1]
    seconds = time_of_a_run(adapters, tmp_path)

    fates: Counter[str] = Counter()
    for call in range(1, calls + 1):
        (tmp_path / f"call-{call}").mkdir()
        assert run_and_kill(adapters, tmp_path / f"call-{call}", kill_at=call)
        fates[check(adapters, tmp_path / f"call-{call}", states)] += 1
    generator, hits = random.Random(0), 0
    for turn in range(4 * MOMENTS):
        if hits >= max(80, MOMENTS - calls):
            break
        (tmp_path / f"random-{turn}").mkdir()
        was_killed = run_and_kill(adapters, tmp_path / f"random-{turn}", kill_after=generator.uniform(0, seconds))
        seconds *= 1.02 if was_killed else 0.9  # the machine's pace changes: most moments are to fall within a run
        hits += was_killed
        fates[check(adapters, tmp_path / f"random-{turn}", states)] += was_killed

    assert calls + hits >= MOMENTS
    keep(
        f"{len(killed.OPERATIONS)} uploads, replaces, a rollback, deletes and collections, {calls} calls to the store."
    )
    keep(f"Killed with SIGKILL before each of the {calls} calls and at {hits} random moments, then read by a fresh")
    keep("process: every operation that had returned was there and its content whole; the one that was killed was:")
    keep("; ".join(f"{fate}: {count}" for fate, count in sorted(fates.items())) + ".")
    keep(f"{time.perf_counter() - started:.0f} s.")


def time_of_a_run(adapters: list[Path], directory: Path) -> float:
    """Seconds from a worker's first note to its end."""
    (directory / "timed").mkdir()
    acknowledged = directory / "timed" / "acknowledged"
    worker = PROCESSES.Process(
        target=killed.operate, args=(str(directory / "timed" / "store"), adapters[:3], acknowledged, 0)
    )
    worker.start()
    while not acknowledged.exists():
        time.sleep(0.001)
    started = time.perf_counter()
    worker.join()
    return time.perf_counter() - started


def test_two_uploaders_race(adapters: list[Path], tmp_path: Path, keep: Callable[[str], None]) -> None:
    pipes = [PROCESSES.Pipe() for _ in range(2)]
    start = time.time() + 4
    for (_, theirs), mine in zip(pipes, (adapters[:2], adapters[2:]), strict=True):
        PROCESSES.Process(target=killed.race, args=(str(tmp_path), mine, RACES, start, theirs)).start()
        theirs.close()
    (won_a, created_a), (won_b, created_b) = (ours.recv() for ours, _ in pipes)
    versions = AdapterLog(Store.open(str(tmp_path))).catalog.versions("x")
    assert sorted(won_a + won_b) == [(v.version, v.digest) for v in reversed(versions)]
    assert len(won_a) == len(won_b) == RACES
    assert sorted(created_a + created_b) == sorted(f"new-{index}" for index in range(RACES))
    turns = sum((v.version, v.digest) in won_a for v in versions[::2])
    keep(
        f"Two processes uploaded to one name {RACES} times each: {len(versions)} versions, each won by exactly one and"
    )
    keep(f"with its winner's content (of the even ones {turns} by the first). Of {RACES} names that both created, each")
    keep(f"was created by exactly one, {len(created_a)} by the first and {len(created_b)} by the other.")


def test_ten_thousand_adapters_open_quickly(tmp_path: Path, keep: Callable[[str], None]) -> None:
    Store.open(str(tmp_path))
    record = {"task": "embedding", "rank": 8, "targets": ["query", "value"], "layers": [*range(12)], "note": "x" * 500}
    for number in range(1, 10_001):
        entry = {
            "op": "upload",
            "name": f"adapter-{number}",
            "digest": f"{number:064x}",
            "created": "",
            "record": record,
        }
        (tmp_path / "log" / f"{number:012d}.json").write_text(json.dumps({**entry, "format": 1, "id": ""}))
    entry_by_entry, from_snapshot = (time_to_open(str(tmp_path)) for _ in range(2))
    keep(
        f"A log of 10,000 uploads, 800 bytes each, in a directory: opened in {entry_by_entry:.2f} s the first time, "
        f"the snapshot it leaves included, and in {from_snapshot:.2f} s from then on."
    )
    assert entry_by_entry < 5
    assert from_snapshot < 1


def test_a_store_of_ten_thousand_on_s3_opens_from_its_snapshot(
    moto: Moto, monkeypatch: pytest.MonkeyPatch, keep: Callable[[str], None]
) -> None:
    use_s3(monkeypatch, moto.endpoint)
    location = moto.new_location()
    with ThreadPoolExecutor(8) as writers:
        store = Store.open(location)
        put = store._objects.put
        entries = ({**upload(f"adapter-{number}", f"{number:064x}"), "format": 1} for number in range(1, 10_001))
        list(
            writers.map(
                lambda pair: put(f"log/{pair[0]:012d}.json", json.dumps(pair[1]).encode()), enumerate(entries, 1)
            )
        )
    entry_by_entry, from_snapshot = (time_to_open(location) for _ in range(2))
    keep(
        f"10,000 uploads on S3 (a moto server on the same machine): opened in {entry_by_entry:.1f} s the first time, one "
        f"request an entry, and in {from_snapshot:.2f} s from the snapshot that it left."
    )
    assert from_snapshot < entry_by_entry / 5


def time_to_open(location: str) -> float:
    started = time.perf_counter()
    log = AdapterLog(Store.open(location))
    assert len(log.catalog) == 10_000
    return time.perf_counter() - started
