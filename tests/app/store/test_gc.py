"""Garbage collection: what goes, what stays, and that no upload loses to it."""

import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.errors import InvalidRequestError
from app.store.adapter_log import AdapterLog
from app.store.catalog import Catalog
from app.store.gc import Collected, collect
from app.store.store import Store, StoredContent
from tests.app.stores import FILES, packed, read_back, upload

LONG_AGO = "2020-01-02T03:04:05.000+00:00"


def delete(name: str, created: str = LONG_AGO) -> dict[str, object]:
    return {"op": "delete", "name": name, "version": None, "created": created}


def put(log: AdapterLog, name: str, digest: str, archive: Path) -> None:
    def decide(catalog: Catalog) -> dict[str, object]:
        log.store.put_content(digest, archive)
        return upload(name, digest)

    log.commit(decide)


def whole(location: str, name: str, directory: Path) -> bool:
    log = AdapterLog(Store.open(location))
    return read_back(log.store.get_content(log.catalog.resolve(name).digest, directory)) == FILES


def test_what_no_version_means_is_removed_once(location: str, tmp_path: Path) -> None:
    log = AdapterLog(Store.open(location))
    digest, archive = packed(tmp_path)
    other, small = packed(tmp_path / "other", {"adapter_config.json": b"{}"})
    put(log, "x", digest, archive)
    put(log, "y", digest, archive)
    put(log, "z", other, small)
    log.commit(lambda catalog: delete("x"))
    assert collect(log, older_than_seconds=0) == Collected(0, 0, 0)
    log.commit(lambda catalog: delete("y"))
    assert collect(log, older_than_seconds=0) == Collected(1, archive.stat().st_size, 0)
    assert [content.digest for content in log.store.contents()] == [other]
    sequence = log.sequence
    assert collect(log, older_than_seconds=0) == Collected(0, 0, 0)
    assert log.sequence == sequence
    put(log, "x", digest, archive)
    assert whole(location, "x", tmp_path / "out")
    assert collect(log, older_than_seconds=0) == Collected(0, 0, 0)
    log.commit(lambda catalog: delete("x"))
    assert collect(log, older_than_seconds=0).contents_removed == 1


def test_what_is_younger_than_a_day_is_spared(tmp_path: Path) -> None:
    log = AdapterLog(Store.open(str(tmp_path / "store")))
    digest, archive = packed(tmp_path)
    log.store.put_content(digest, archive)
    assert collect(log).contents_removed == 0
    path = tmp_path / "store" / "content" / f"{digest}.zip"
    os.utime(path, (time.time() - 86500,) * 2)
    (path.parent / "notes.txt").write_text("not ours")
    assert collect(log).contents_removed == 1
    assert read_back(path.parent) == {"notes.txt": b"not ours"}
    assert not log.catalog.ever_used


@pytest.mark.parametrize(
    ("ended", "removed"),
    [(timedelta(hours=23), 0), (timedelta(hours=25), 1), (None, 1)],
)
def test_what_lost_its_last_version_within_a_day_is_spared(
    ended: timedelta | None, removed: int, tmp_path: Path
) -> None:
    """Another process may not have read of the delete yet."""
    log = AdapterLog(Store.open(str(tmp_path / "store")))
    digest, archive = packed(tmp_path)
    put(log, "x", digest, archive)
    os.utime(tmp_path / "store" / "content" / f"{digest}.zip", (0, 0))
    log.commit(lambda catalog: delete("x", (datetime.now(UTC) - ended).isoformat() if ended else "long ago"))
    assert collect(log).contents_removed == removed


def test_retention_keeps_the_newest_of_each_name(location: str, tmp_path: Path) -> None:
    log = AdapterLog(Store.open(location))
    digest, archive = packed(tmp_path)
    other, small = packed(tmp_path / "other", {"adapter_config.json": b"{}"})
    put(log, "x", other, small)
    for name in "xxxy":
        put(log, name, digest, archive)
    assert collect(log, older_than_seconds=0, keep_versions=2) == Collected(1, small.stat().st_size, 2)
    assert [v.version for v in log.catalog.versions("x")] == [4, 3]
    assert [v.version for v in log.catalog.versions("y")] == [1]
    assert collect(log, older_than_seconds=0, keep_versions=2) == Collected(0, 0, 0)
    with pytest.raises(InvalidRequestError, match="keep_versions is 0"):
        collect(log, keep_versions=0)


def leave(location: str, directory: Path) -> tuple[str, Path]:
    """A content in the store that no version means."""
    log = AdapterLog(Store.open(location))
    digest, archive = packed(directory)
    put(log, "old", digest, archive)
    log.commit(lambda catalog: delete("old"))
    return digest, archive


def test_an_upload_that_found_its_content_survives_a_collection(shared_location: str, tmp_path: Path) -> None:
    garbage = leave(shared_location, tmp_path)
    ours, theirs = (AdapterLog(Store.open(shared_location)) for _ in range(2))
    collected: list[Collected] = []

    def decide(catalog: Catalog) -> dict[str, object]:
        ours.store.put_content(*garbage)
        if not collected:
            collected.append(collect(theirs, older_than_seconds=0))
        return upload("x", garbage[0])

    ours.commit(decide)
    assert collected[0].contents_removed == 1
    assert whole(shared_location, "x", tmp_path / "out")


@pytest.mark.parametrize("late", ["contents", "remove_contents"])
def test_a_collection_that_comes_late_removes_nothing_that_is_needed(
    late: str, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload comes between the listing and the entry, or between the entry and the deletion."""
    garbage = leave(location, tmp_path)
    ours, theirs = (AdapterLog(Store.open(location)) for _ in range(2))
    real: Callable[..., object] = getattr(theirs.store, late)

    def delayed(*arguments: object) -> object:
        found = real() if late == "contents" else None
        found = [*found] if found is not None else None  # type: ignore[call-overload]
        put(ours, "x", *garbage)
        return found if late == "contents" else real(*arguments)

    monkeypatch.setattr(theirs.store, late, delayed)
    assert collect(theirs, older_than_seconds=0).contents_removed == (0 if late == "contents" else 1)
    assert whole(location, "x", tmp_path / "out")


def test_a_collection_killed_before_it_deleted_is_finished_by_the_next(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage = leave(location, tmp_path)
    log = AdapterLog(Store.open(location))

    def killed(contents: list[StoredContent]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log.store, "remove_contents", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(log, older_than_seconds=0)
    put(log, "x", *garbage)
    assert collect(log, older_than_seconds=0).contents_removed == 1
    assert [content.generation for content in log.store.contents()] == [1]


def test_uploads_deletes_and_collections_at_once(tmp_path: Path) -> None:
    location, done, errors = str(tmp_path / "store"), threading.Event(), list[BaseException]()
    digest, archive = packed(tmp_path)
    removed: list[int] = []

    def work(number: int) -> None:
        log, generator = AdapterLog(Store.open(location)), random.Random(number)
        for turn in range(500):
            if turn >= 25 and sum(removed) > 3:
                break
            put(log, f"n{number}", digest, archive)
            out = tmp_path / f"{number}-{turn}"
            assert read_back(log.store.get_content(digest, out)) == FILES
            time.sleep(generator.random() / 100)
            log.commit(lambda catalog: delete(f"n{number}"))

    def sweep() -> None:
        log = AdapterLog(Store.open(location))
        while not done.is_set():
            removed.append(collect(log, older_than_seconds=0).contents_removed)

    def guarded(work: Callable[..., None], *arguments: int) -> threading.Thread:
        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    workers, sweepers = [guarded(work, number) for number in range(2)], [guarded(sweep) for _ in range(2)]
    for worker in workers:
        worker.join()
    done.set()
    for sweeper in sweepers:
        sweeper.join()
    assert errors == []
    assert sum(removed) > 3
