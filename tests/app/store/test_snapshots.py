"""Snapshots: a start reads the newest that can be trusted, and the log from there."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import app.store.adapter_log
from app.store.adapter_log import AdapterLog
from app.store.catalog import Catalog
from app.store.snapshots import Snapshots
from app.store.store import Store
from tests.app.stores import NOW, upload

EVERY = 20


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.store.adapter_log, "SNAPSHOT_EVERY", EVERY)


def fill(store: Store, after: int, count: int) -> None:
    for number in range(after, after + count):
        store.append(number, upload(f"n{number % 7}", f"{number:064x}"))


def reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequences of the entries that are read from now on."""
    read, entry = list[int](), store._entry

    def noted(sequence: int) -> tuple[int, dict[str, object]]:
        read.append(sequence)
        return entry(sequence)

    monkeypatch.setattr(store, "_entry", noted)
    return read


def test_a_start_reads_only_what_came_after_the_snapshot(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(location)
    fill(store, 0, EVERY)
    assert AdapterLog(store).sequence == EVERY
    fill(store, EVERY, 3)
    fresh = Store.open(location)
    read = reads(fresh, monkeypatch)
    log = AdapterLog(fresh)
    assert read == [EVERY + 1, EVERY + 2, EVERY + 3]
    assert log.sequence == EVERY + 3
    monkeypatch.setattr(Snapshots, "newest", lambda snapshots: None)
    assert log.catalog.state() == AdapterLog(Store.open(location)).catalog.state()


def test_one_process_of_several_keeps_the_snapshot(shared_location: str) -> None:
    store = Store.open(shared_location)
    logs = [AdapterLog(Store.open(shared_location)) for _ in range(3)]
    for turn in range(1, 4):
        fill(store, (turn - 1) * EVERY, EVERY)
        for log in logs:
            log.refresh()
        assert store.snapshots.last_sequence() == turn * EVERY
    assert [found.sequence for found in store.snapshots._all()] == [2 * EVERY, 3 * EVERY]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "ahead of the log", "newer format"])
def test_a_snapshot_that_cannot_be_trusted_is_passed_over(damage: str, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    fill(store, 0, EVERY)
    AdapterLog(store)
    fill(store, EVERY, EVERY)
    AdapterLog(store)
    newest = max((tmp_path / "snapshot").iterdir())
    payload = newest.read_bytes()
    if damage == "ahead of the log":
        newest.rename(newest.with_name(newest.name.replace(f"{2 * EVERY:012d}", f"{3 * EVERY:012d}")))
    elif damage == "newer format":
        newest.unlink()
        state = Catalog().state()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("app.store.snapshots.FORMAT", 3)
            store.snapshots.put(2 * EVERY, state)
    else:
        damaged = {"flip": payload.replace(b"n3", b"n9", 1), "cut": payload[:99], "empty": b""}
        newest.write_bytes(damaged[damage])
    log = AdapterLog(Store.open(str(tmp_path)))
    assert log.sequence == 2 * EVERY
    assert [version.name for version in log.catalog.list()] == [f"n{i}" for i in range(7)]


def copy(source: Path, target: Path, *folders: str) -> None:
    for folder in folders:
        shutil.copytree(source / folder, target / folder)


def test_a_snapshot_of_another_history_is_not_trusted(tmp_path: Path) -> None:
    """A copy made file by file may have a snapshot that is ahead of its log, and the log goes on otherwise."""
    live, restored = tmp_path / "live", tmp_path / "restored"
    store = Store.open(str(live))
    fill(store, 0, EVERY - 1)
    copy(live, restored, "log")
    fill(store, EVERY - 1, 1)
    AdapterLog(store)
    copy(live, restored, "snapshot")
    AdapterLog(Store.open(str(restored))).commit(lambda catalog: upload("mine"))
    log = AdapterLog(Store.open(str(restored)))
    assert log.sequence == EVERY
    assert log.catalog.find("mine") is not None
    assert log.store.snapshots.last_sequence() == EVERY  # one of its own took the other's place
    assert AdapterLog(Store.open(str(restored))).catalog.state() == log.catalog.state()
    assert len(list((restored / "snapshot").iterdir())) == 1


def test_a_snapshot_that_says_nothing_of_its_log_is_replaced(tmp_path: Path) -> None:
    """The first ones did not."""
    store = Store.open(str(tmp_path))
    fill(store, 0, EVERY)
    AdapterLog(store)
    (path,) = (tmp_path / "snapshot").iterdir()
    sequence, _, sha256 = path.name.split("-")
    path.rename(path.with_name(f"{sequence}-{sha256}"))
    assert store.snapshots.newest() is None
    assert AdapterLog(Store.open(str(tmp_path))).sequence == EVERY
    assert [each.name for each in (tmp_path / "snapshot").iterdir()] == [path.name]


def test_a_snapshot_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store.open(str(tmp_path))
    (tmp_path / "snapshot").rmdir()
    (tmp_path / "snapshot").write_text("in the way")
    fill(store, 0, EVERY)
    log = AdapterLog(store)
    assert len(log.catalog) == 7
    assert "no snapshot was kept" in caplog.text
    fill(store, EVERY, 1)
    assert log.refresh() == 1


names = st.sampled_from("abc")
digests = st.sampled_from([f"{number:064x}" for number in range(4)])
entries = st.one_of(
    st.builds(
        lambda name, digest, rank: {**upload(name, digest), "record": {"rank": rank}}, names, digests, st.integers(1, 9)
    ),
    st.builds(
        lambda name, version: {"op": "delete", "name": name, "version": version, "created": NOW},
        names,
        st.one_of(st.none(), st.integers(1, 3)),
    ),
    st.builds(
        lambda name, pinned: {"op": "settings", "name": name, "settings": {"pinned": pinned}, "created": NOW},
        names,
        st.booleans(),
    ),
    st.builds(lambda digests: {"op": "collect", "digests": digests, "created": NOW}, st.lists(digests, max_size=2)),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(entries, max_size=12), st.lists(entries, max_size=6))
def test_what_is_restored_goes_on_like_what_was_folded(before: list[dict], after: list[dict]) -> None:  # type: ignore[type-arg]
    folded = Catalog()
    for entry in before:
        folded.apply(entry)
    restored = Catalog.restore(json.loads(json.dumps(folded.state())))
    for entry in after:
        folded.apply(entry)
        restored.apply(entry)
    assert restored.state() == folded.state()
    for name in "abc":
        assert restored.versions(name) == folded.versions(name)
        assert restored.next_version(name) == folded.next_version(name)
        assert restored.settings(name) == folded.settings(name)
