"""Changes of the adapters, by processes that share a store."""

import threading
from pathlib import Path

import pytest

from app.adapters.preconditions import Conditions
from app.errors import ConflictError, DamagedError, PreconditionFailedError
from app.store.gc import collect
from tests.app.adapters.process import Process, files

REPLACE = Conditions(replace=True)


def test_while_a_content_is_written_nobody_waits(tmp_path: Path) -> None:
    ours, theirs = Process(tmp_path / "store"), Process(tmp_path / "store")
    put, writing, go = ours.log.store.put_content, threading.Event(), threading.Event()

    def slow(digest: str, path: Path) -> int:
        writing.set()
        assert go.wait(60)
        return put(digest, path)

    ours.log.store.put_content = slow  # type: ignore[method-assign]
    large = threading.Thread(target=ours.changes.upload, args=("large", files(tmp_path, "large")))
    large.start()
    assert writing.wait(30)
    ours.log.store.put_content = put  # type: ignore[method-assign]
    theirs.changes.upload("x", files(tmp_path, "x"))
    assert ours.log.look().result(30) == 1
    second = threading.Thread(target=ours.changes.upload, args=("y", files(tmp_path, "y")))
    second.start()
    second.join(30)
    assert [version.name for version in ours.log.catalog.list()] == ["x", "y"]
    go.set()
    large.join()
    assert ours.registry.verify(ours.log.catalog.resolve("large")) is None


def test_who_is_refused_leaves_nothing(tmp_path: Path) -> None:
    ours, theirs = Process(tmp_path / "store"), Process(tmp_path / "store")
    ours.changes.upload("x", files(tmp_path, "a"))
    with pytest.raises(ConflictError):
        theirs.changes.upload("x", files(tmp_path, "b"))
    assert len([*theirs.log.store.contents()]) == 1


def test_a_content_that_is_collected_before_its_commit_is_put_again(tmp_path: Path) -> None:
    ours, theirs = Process(tmp_path / "store"), Process(tmp_path / "store")
    put, collected = ours.log.store.put_content, list[int]()

    def collected_at_once(digest: str, path: Path) -> int:
        generation = put(digest, path)
        if not collected:
            collected.append(collect(theirs.log, older_than_seconds=0).contents_removed)
        return generation

    ours.log.store.put_content = collected_at_once  # type: ignore[method-assign]
    done = ours.changes.upload("x", files(tmp_path, "a"))
    assert collected == [1]
    assert done.version is not None
    theirs.log.refresh()
    theirs.registry.verify(done.version)


def test_retention_holds_for_rollbacks_as_well(tmp_path: Path) -> None:
    ours = Process(tmp_path / "store", keep_versions=2)
    for tag in "ab":
        ours.changes.upload("x", files(tmp_path, tag), REPLACE)
    digests = [version.digest for version in ours.log.catalog.versions("x")]
    for number in range(1, 6):
        version, new = ours.changes.rollback("x", number)
        assert (version.version, new) == (number + 2, True)
        assert [version.version for version in ours.log.catalog.versions("x")] == [number + 2, number + 1]
        assert {version.digest for version in ours.log.catalog.versions("x")} == {*digests}


@pytest.mark.parametrize("conditions", [Conditions(), Conditions(if_none_match="*"), Conditions(if_match='"x"')])
def test_a_damaged_older_version_is_mended_by_its_upload_and_nothing_else_changes(
    conditions: Conditions, tmp_path: Path
) -> None:
    ours = Process(tmp_path / "store")
    for tag in "ab":
        ours.changes.upload("x", files(tmp_path, tag), REPLACE)
    old = ours.log.catalog.resolve("x@1")
    path = tmp_path / "store" / "content" / f"{old.digest}.zip"
    for damage in (lambda: path.write_bytes(path.read_bytes()[:50]), path.unlink):
        damage()
        with pytest.raises(DamagedError):
            ours.registry.bind("x@1")
        with pytest.raises((ConflictError, PreconditionFailedError), match="x@1 was damaged and is whole again"):
            ours.changes.upload("x", files(tmp_path, "a"), conditions)
        assert ours.registry.damaged == {}
        ours.registry.verify(old)
    with pytest.raises((ConflictError, PreconditionFailedError)) as refused:
        ours.changes.upload("x", files(tmp_path, "a"), conditions)
    assert "damaged" not in str(refused.value)
    assert ours.log.sequence == 2
