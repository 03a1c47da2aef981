"""What a process does by itself: it follows the log, reads what is pinned, and finds damage and its end."""

import threading
from pathlib import Path

import pytest

from app.adapters import reading
from app.adapters.preconditions import Conditions
from app.errors import StoreError
from app.store.catalog import Version
from app.store.gc import collect
from lorat import Adapter
from tests.app.adapters.process import Process, content, files

REPLACE = Conditions(replace=True)


def spoil(store: Path, version: Version) -> Path:
    path = store / "content" / f"{version.digest}.zip"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    return path


def begun(process: Process) -> Process:
    process.follower.tick()
    process.follower.reading.begin()
    return process


def pass_turns(process: Process, count: int = 3 * reading.AGAIN) -> None:
    for _ in range(count):
        process.follower.tick()
        process.follower.reading.turn()


def test_the_log_is_followed_while_a_content_is_read(tmp_path: Path) -> None:
    ours, theirs = Process(tmp_path / "store"), Process(tmp_path / "store")
    ours.changes.upload("large", files(tmp_path, "large"))
    begun(theirs)
    began, go = threading.Event(), threading.Event()

    def slow(directory: Path) -> Adapter:
        began.set()
        assert go.wait(60)
        return content()

    theirs.registry.check = slow
    reader = threading.Thread(target=theirs.follower.reading.turn)
    reader.start()
    assert began.wait(30)
    ours.changes.upload("x", files(tmp_path, "x"))
    theirs.follower.tick()
    assert theirs.log.catalog.find("x") is not None
    go.set()
    reader.join()


def test_what_is_started_follows_and_reads(tmp_path: Path) -> None:
    ours, theirs = Process(tmp_path / "store"), Process(tmp_path / "store")
    theirs.follower.start()
    ours.changes.upload("x", files(tmp_path, "x"))
    ours.changes.configure("x", {"pinned": True})
    loaded, preload = threading.Event(), theirs.slots.preload
    theirs.slots.preload = lambda digest, content: (preload(digest, content), loaded.set())[0]  # type: ignore[assignment,func-returns-value]
    theirs.follower.wake()
    assert loaded.wait(30)
    theirs.follower.close()
    assert len(theirs.slots.pinned) == 1


def test_pinned_that_have_no_place_are_not_read(tmp_path: Path) -> None:
    ours, theirs = Process(tmp_path / "store"), Process(tmp_path / "store", slots=2)
    for number in range(5):
        ours.changes.upload(f"x{number}", files(tmp_path, str(number)))
        ours.changes.configure(f"x{number}", {"pinned": True})
    begun(theirs)
    assert len(theirs.read) == 2
    pass_turns(theirs)
    theirs.read.clear()
    ours.changes.configure("x4", {"merge": "never"})
    pass_turns(theirs, 3)
    assert theirs.read == []
    ours.changes.delete("x0")
    pass_turns(theirs, 3)
    assert len(theirs.read) == 1
    assert theirs.slots.content(theirs.log.catalog.resolve("x2").digest)


def test_pinned_are_loaded_once_the_store_answers(tmp_path: Path) -> None:
    ours, theirs = Process(tmp_path / "store"), begun(Process(tmp_path / "store"))
    version = ours.changes.upload("x", files(tmp_path, "x")).version
    assert version is not None
    ours.changes.configure("x", {"pinned": True})
    get = theirs.log.store.get_content

    def away(digest: str, directory: Path) -> Path:
        raise StoreError("no answer") from OSError("no answer")

    theirs.log.store.get_content = away  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(StoreError, match="no answer"):
            pass_turns(theirs, 1)
    theirs.log.store.get_content = get  # type: ignore[method-assign]
    pass_turns(theirs, 1)
    assert theirs.slots.content(version.digest)


def test_each_version_is_read_once_and_again_after_an_outage(tmp_path: Path) -> None:
    ours = Process(tmp_path / "store")
    for name in "ab":
        ours.changes.upload(name, files(tmp_path, name))
    theirs = begun(Process(tmp_path / "store"))
    get, failures = theirs.log.store.get_content, [StoreError("no answer")]

    def away_once(digest: str, directory: Path) -> Path:
        if failures:
            raise failures.pop() from OSError("no answer")
        return get(digest, directory)

    theirs.log.store.get_content = away_once  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="no answer"):
        pass_turns(theirs, 1)
    pass_turns(theirs)
    assert sorted(theirs.read) == sorted(theirs.log.catalog.digests())


def test_a_damaged_content_whose_name_was_deleted_stops_nothing(tmp_path: Path) -> None:
    ours = Process(tmp_path / "store")
    for name in "abc":
        ours.changes.upload(name, files(tmp_path, "other" if name == "b" else "same"))
    version = ours.log.catalog.resolve("c")
    spoil(tmp_path / "store", version)
    theirs = begun(Process(tmp_path / "store"))  # c is read first
    ours.changes.delete("c")
    theirs.read.clear()
    real = theirs.registry.catalog.find
    known = [version]

    def find(reference: str) -> Version | None:
        """It is deleted between the look at the catalog and the reading."""
        return known.pop() if reference == "c@1" and known else real(reference)

    theirs.registry.catalog.find = find  # type: ignore[method-assign]
    pass_turns(theirs, 4)
    assert {*theirs.read} == theirs.log.catalog.digests()
    assert {*theirs.registry.damaged} == {version.digest}


def test_what_was_mended_through_another_process_is_damaged_no_more(tmp_path: Path) -> None:
    ours = Process(tmp_path / "store")
    spoilt = []
    for name in "ab":
        ours.changes.upload(name, files(tmp_path, name))
        spoilt.append(spoil(tmp_path / "store", ours.log.catalog.resolve(name)))
    spoilt[1].unlink()
    theirs = begun(Process(tmp_path / "store"))
    pass_turns(theirs)
    assert len(theirs.registry.damaged) == 2
    for name in "ab":
        assert not ours.changes.upload(name, files(tmp_path, name)).new
    pass_turns(theirs)
    assert theirs.registry.damaged == {}


def anew(ours: Process, directory: Path) -> None:
    """Have a content collected, and kept anew."""
    ours.changes.delete("x")
    assert collect(ours.log, older_than_seconds=0).contents_removed == 1
    ours.changes.upload("x", files(directory, "a"))


@pytest.mark.parametrize("read", ["get_content", "contents before", "contents after"])
def test_what_is_collected_and_kept_anew_during_a_reading_is_not_damaged(read: str, tmp_path: Path) -> None:
    """Also where the follower has read of that before the reading ends."""
    ours, theirs = Process(tmp_path / "store"), Process(tmp_path / "store")
    ours.changes.upload("x", files(tmp_path, "a"))
    theirs.follower.tick()
    old = theirs.log.catalog.resolve("x")
    read, _, when = read.partition(" ")
    real, late = getattr(theirs.log.store, read), [True]

    def stale(*arguments: object) -> object:
        if not late:
            return real(*arguments)
        late.clear()
        theirs.log.store.generation_of = lambda digest: 0  # the key was made, or all was listed ...
        listed = [*real()] if when == "before" else None
        anew(ours, tmp_path)
        theirs.log.refresh()
        try:
            return listed or real(*arguments)
        finally:
            theirs.log.store.generation_of = theirs.log.catalog.generation

    setattr(theirs.log.store, read, stale)
    if read == "contents":
        theirs.registry.audit()
    else:
        theirs.registry.verify(Version("x", 2, old.digest, old.created, old.record))
    assert theirs.registry.damaged == {}
