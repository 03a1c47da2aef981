"""The catalog kept in step with the log: commits, races, and processes that die."""

import json
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from app.errors import StoreError, UnknownAdapterError
from app.store.adapter_log import AdapterLog
from app.store.catalog import Catalog
from app.store.store import Store
from tests.app.stores import FILES, NOW, FakeS3, packed, python, read_back, upload


def test_a_commit_is_seen_by_the_others(location: str) -> None:
    ours, theirs = AdapterLog(Store.open(location)), AdapterLog(Store.open(location))
    entry = ours.commit(lambda catalog: upload("x"))
    assert entry == upload("x")
    assert ours.catalog.resolve("x").version == 1
    assert theirs.catalog.newest("x") is None
    assert theirs.refresh() == 1
    assert theirs.catalog.resolve("x@1").created == NOW
    assert theirs.refresh() == 0
    assert AdapterLog(Store.open(location)).catalog.ever_used


def test_a_decision_against_leaves_nothing(location: str) -> None:
    log = AdapterLog(Store.open(location))
    assert log.commit(lambda catalog: None) is None

    def refuse(catalog: Catalog) -> None:
        catalog.resolve("nobody")

    with pytest.raises(UnknownAdapterError):
        log.commit(refuse)
    for bad in ({"op": "paint"}, {**upload("x"), "record": {"f": float("nan")}}, {**upload("x"), "record": {"f": b""}}):
        with pytest.raises(StoreError):
            log.commit(lambda catalog, bad=bad: bad)  # type: ignore[misc]
    assert AdapterLog(Store.open(location)).sequence == 0
    log.commit(lambda catalog: upload("x"))  # and the lock is free
    assert log.sequence == 1


def test_decisions_are_taken_again_when_another_was_first(shared_location: str) -> None:
    ours, theirs = (AdapterLog(Store.open(shared_location)) for _ in range(2))
    seen: list[int] = []

    def decide(catalog: Catalog) -> dict[str, object]:
        seen.append(catalog.next_version("x"))
        if len(seen) == 1:
            theirs.commit(lambda catalog: upload("x", "b" * 64))
        return upload("x")

    ours.commit(decide)
    assert seen == [1, 2]
    assert [v.digest[0] for v in ours.catalog.versions("x")] == ["a", "b"]


def test_a_store_that_hides_its_writes_ends_the_commit(s3: type[FakeS3]) -> None:
    log = AdapterLog(Store.open("s3://bucket/prefix"))
    AdapterLog(Store.open("s3://bucket/prefix")).commit(lambda catalog: upload("y"))
    log.store.read = lambda after: []  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="neither be created nor read"):
        log.commit(lambda catalog: upload("x"))


def test_those_who_wait_for_a_silent_store_share_one_look(s3: type[FakeS3]) -> None:
    """One after another, the last of them would wait for all of the time-outs."""
    log, asked = AdapterLog(Store.open("s3://bucket/prefix")), list[int]()

    def silent(after: int) -> list[tuple[int, dict[str, object]]]:
        asked.append(after)
        assert everyone.wait(30)
        raise StoreError("no answer")

    everyone = threading.Event()
    log.store.read = silent  # type: ignore[method-assign]
    looks = [log.look() for _ in range(20)]
    everyone.set()
    for look in looks:
        with pytest.raises(StoreError, match="no answer"):
            look.result(30)
    assert len(asked) <= 2


def test_a_look_that_waits_for_the_store_holds_up_no_commit(tmp_path: Path) -> None:
    log = AdapterLog(Store.open(str(tmp_path)))
    read, reading, go = log.store.read, threading.Event(), threading.Event()

    def slow(after: int) -> list[tuple[int, dict[str, object]]]:
        found = read(after)
        reading.set()
        assert go.wait(30)
        return found

    def decide(catalog: Catalog) -> dict[str, object]:
        log.store.read = slow  # type: ignore[method-assign]
        look.append(log.look())
        assert reading.wait(30)
        return upload("x")

    look: list[Future[int]] = []
    log.commit(decide)
    assert log.sequence == 1
    AdapterLog(Store.open(str(tmp_path))).commit(lambda catalog: upload("y"))
    go.set()
    look[0].result(30)
    log.store.read = read  # type: ignore[method-assign]
    assert log.refresh() in (0, 1)
    assert [version.name for version in log.catalog.list()] == ["x", "y"]


COMMITS = """
import json, sys
from app.store.adapter_log import AdapterLog
from app.store.store import Store

log, won = AdapterLog(Store.open(sys.argv[1])), []
print("ready", flush=True)
sys.stdin.readline()
for i in range(25):
    digest = sys.argv[2] * 32 + f"{i:032x}"
    def decide(catalog):
        decide.number = catalog.next_version("x")
        return {"op": "upload", "name": "x", "digest": digest, "created": "now", "record": {}}
    log.commit(decide)
    won.append([decide.number, digest])
print(json.dumps(won))
"""


def test_of_two_processes_exactly_one_wins_each_version(shared_location: str) -> None:
    processes = [python(COMMITS, shared_location, letter) for letter in "ab"]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate()[0] for process in processes]
    won = sorted(pair for answer in answers for pair in json.loads(answer))
    assert [number for number, _ in won] == [*range(1, 51)]
    log = AdapterLog(Store.open(shared_location))
    assert [[v.version, v.digest] for v in reversed(log.catalog.versions("x"))] == won


def test_of_many_threads_exactly_one_wins_each_version(tmp_path: Path) -> None:
    logs = [AdapterLog(Store.open(str(tmp_path))) for _ in range(2)]
    won: list[int] = []

    def work(log: AdapterLog) -> None:
        for _ in range(15):
            entry = log.commit(lambda catalog: {**upload("x"), "record": {"number": catalog.next_version("x")}})
            assert entry is not None
            won.append(entry["record"]["number"])

    threads = [threading.Thread(target=work, args=(log,)) for log in logs for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [*range(1, 61)]
    logs[0].refresh()
    assert all(v.record["number"] == v.version for v in logs[0].catalog.versions("x"))


DIES = """
import os, sys
from pathlib import Path
from app.store.adapter_log import AdapterLog
from app.store.objects import Objects
from app.store.store import Store

Objects._probe = lambda objects, location: None  # whether conditional writes are honoured is nothing to who writes alone
log = AdapterLog(Store.open(sys.argv[1]))
log.store.put_content(sys.argv[2], Path(sys.argv[3]))
if sys.argv[4] == "after":
    entry = {"op": "upload", "name": "x", "digest": sys.argv[2], "created": "now", "record": {}}
    log.commit(lambda catalog: entry)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("killed", ["before", "after"])
def test_killed_before_the_append_nothing_is_there_and_after_it_all_is(
    killed: str, location: str, tmp_path: Path
) -> None:
    digest, archive = packed(tmp_path)
    with python(DIES, location, digest, str(archive), killed) as process:
        process.communicate()
    assert process.returncode == -9
    log = AdapterLog(Store.open(location))
    if killed == "before":
        assert not log.catalog.ever_used
        log.store.put_content(digest, archive)
        log.commit(lambda catalog: upload("x", digest))
    assert log.catalog.resolve("x@1").digest == digest
    assert read_back(log.store.get_content(digest, tmp_path / "out")) == FILES
