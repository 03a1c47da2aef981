"""The store: contents, the log, and who is refused."""

import hashlib
import os
import stat
import tempfile
import time
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import StoreError
from app.store.adapter_log import AdapterLog
from app.store.content import digest_of, pack
from app.store.store import MissingContentError, SequenceTakenError, Store, StoreGoneError
from tests.app.stores import FILES, FakeS3, packed, read_back, upload


def test_the_digest_is_what_is_documented() -> None:
    def sha(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    expected = sha(f"a\0{sha(b'1')}\nb/c\0{sha(b'2')}\n".encode())
    assert digest_of({"b/c": b"2", "a": b"1"}) == expected


def test_the_digest_of_files_on_disk_is_that_of_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    assert digest_of({"x": tmp_path / "x"}) == digest_of({"x": b"content"})


def test_packing_knows_neither_order_nor_time(tmp_path: Path) -> None:
    _, first = packed(tmp_path / "1")
    (tmp_path / "1" / "source" / "adapter_config.json").touch()
    os.utime(tmp_path / "1" / "source" / "adapter_config.json", (0, 0))
    pack(tmp_path / "1" / "source", list(reversed(FILES)), tmp_path / "again.zip")
    assert first.read_bytes() == (tmp_path / "again.zip").read_bytes()


path_parts = st.text("abcXYZ019._-ä", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
paths = st.lists(path_parts, min_size=1, max_size=3).map("/".join)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(paths, st.binary(max_size=300), min_size=1, max_size=5))
def test_what_is_packed_comes_out_again(files: dict[str, bytes]) -> None:
    if any(other.startswith(f"{path}/") for path in files for other in files):
        return  # a file cannot be a folder as well
    with tempfile.TemporaryDirectory() as directory:
        digest, archive = packed(Path(directory), files)
        store = Store.open(f"{directory}/store")
        store.put_content(digest, archive)
        assert read_back(store.get_content(digest, Path(directory) / "out")) == files


def test_a_content_is_kept_and_downloaded(location: str, tmp_path: Path) -> None:
    digest, archive = packed(tmp_path)
    store = Store.open(location)
    store.put_content(digest, archive)
    store.put_content(digest, archive)
    assert [content.size for content in Store.open(location).contents()] == [archive.stat().st_size]
    out = store.get_content(digest, tmp_path / "out")
    assert out == tmp_path / "out"
    assert read_back(out) == FILES


@pytest.mark.parametrize("location", ["directory", "moto", "rclone"], indirect=True)  # those that take parts
def test_a_content_that_is_sent_in_parts_is_kept_whole(location: str, tmp_path: Path) -> None:
    files = {"adapter_model.safetensors": bytes(range(256)) * 50_000}  # 12.8 MB; a part has 5
    digest, archive = packed(tmp_path, files)
    Store.open(location).put_content(digest, archive)
    assert read_back(Store.open(location).get_content(digest, tmp_path / "out")) == files


def test_a_content_has_more_time_than_an_answer(
    s3: type[FakeS3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sending one takes as long as the uplink does, and the time to wait for an answer runs meanwhile."""
    monkeypatch.setattr("app.store.objects._READ", timedelta(seconds=0.2))
    digest, archive = packed(tmp_path)
    s3.takes = 0.6
    store = Store.open("s3://bucket/prefix")
    store.put_content(digest, archive)
    assert read_back(store.get_content(digest, tmp_path / "out")) == FILES
    monkeypatch.setattr("app.store.objects._SENT", timedelta(seconds=0.1))
    with pytest.raises(StoreError, match=r"cannot write the content .*\(it took too long\)"):
        Store.open("s3://bucket/prefix").put_content(*packed(tmp_path / "other", {"adapter_config.json": b"[]"}))


def test_a_missing_content_is_named(location: str, tmp_path: Path) -> None:
    store = Store.open(location)
    with pytest.raises(MissingContentError, match="c" * 64):
        store.get_content("c" * 64, tmp_path / "out")
    with pytest.raises(StoreError, match="not a digest"):
        store.get_content("../../etc/passwd", tmp_path / "out")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other", "text"])
def test_a_damaged_content_is_named_and_nothing_is_written(damage: str, tmp_path: Path) -> None:
    digest, archive = packed(tmp_path)
    content = bytearray(archive.read_bytes())
    if damage == "flip":
        content[content.index(b"\0" * 100) + 50] ^= 1
    elif damage == "other":
        content = bytearray(packed(tmp_path / "other", {"adapter_config.json": b"[]"})[1].read_bytes())
    else:
        content = {"cut": content[: len(content) // 2], "empty": bytearray(), "text": bytearray(b"hello")}[damage]
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "store" / "content" / f"{digest}.zip").write_bytes(content)
    with pytest.raises(StoreError, match=digest):
        store.get_content(digest, tmp_path / "out")
    assert read_back(tmp_path / "out") == {}
    store.put_content(digest, archive)
    assert read_back(store.get_content(digest, tmp_path / "out")) == FILES


def test_a_content_whose_paths_lead_out_is_not_extracted(tmp_path: Path) -> None:
    digest = digest_of({"../evil": b"x"})
    store = Store.open(str(tmp_path / "store"))
    with zipfile.ZipFile(tmp_path / "store" / "content" / f"{digest}.zip", "w") as archive:
        archive.writestr("../evil", b"x")
    with pytest.raises(StoreError, match=digest):
        store.get_content(digest, tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_the_log_is_read_in_order_from_any_place(location: str) -> None:
    store = Store.open(location)
    assert store.read(0) == []
    for i in range(30):
        assert store.append(i, upload(f"n{i}")) == i + 1
    entries = Store.open(location).read(0)
    assert [sequence for sequence, _ in entries] == [*range(1, 31)]
    assert [entry["name"] for _, entry in entries] == [f"n{i}" for i in range(30)]
    assert all(entry["format"] == 1 for _, entry in entries)
    assert [sequence for sequence, _ in store.read(27)] == [28, 29, 30]
    assert store.read(30) == []


def test_a_sequence_is_given_once(shared_location: str) -> None:
    first, second = Store.open(shared_location), Store.open(shared_location)
    first.append(0, upload("x"))
    with pytest.raises(SequenceTakenError):
        second.append(0, upload("x"))
    assert len(first.read(0)) == 1


def test_an_append_whose_answer_was_lost_counts_once(s3: type[FakeS3]) -> None:
    store = Store.open("s3://bucket/prefix")
    s3.lose_answer_to = "log/"
    assert store.append(0, upload("x")) == 1
    assert [entry["name"] for _, entry in store.read(0)] == ["x"]


def test_nothing_is_appended_to_a_store_that_is_gone(tmp_path: Path) -> None:
    """As when a disk is unmounted: its directory is there, and empty."""
    log = AdapterLog(Store.open(str(tmp_path / "store")))
    log.commit(lambda catalog: upload("x"))
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"log entry 1 of .* is gone"):
            log.commit(lambda catalog: upload("y"))
    assert list((tmp_path / "store").rglob("*.json")) == []
    (tmp_path / "store").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "store")
    log.commit(lambda catalog: upload("y"))
    assert len(AdapterLog(Store.open(str(tmp_path / "store"))).catalog) == 2


@pytest.mark.parametrize("entries", [0, 2])
@pytest.mark.parametrize("below", [True, False])
def test_a_log_that_is_gone_is_not_read_as_nothing_new(entries: int, below: bool, tmp_path: Path) -> None:
    """below: whether there is another, empty directory under its name."""
    store = Store.open(str(tmp_path / "store"))
    for i in range(entries):
        store.append(i, upload(f"n{i}"))
    assert store.read(entries) == []
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    if below:
        (tmp_path / "store").mkdir()
    with pytest.raises(StoreGoneError, match=f"{f'log entry {entries}' if entries else 'the log'} of .* is gone"):
        store.read(entries)


@pytest.mark.parametrize(
    ("sequence", "payload", "fault"),
    [
        (2, None, "log entry 2 .* missing"),
        (1, None, "log entry 1 .* missing"),
        (3, b"", "log entry 3 .* damaged"),
        (3, b"{", "log entry 3 .* damaged"),
        (3, b"[1]", "log entry 3 .* newer"),
        (3, b'{"format": 2}', "log entry 3 .* newer"),
        (3, b'{"format": 1, "op": "paint"}', "'paint'.*newer"),
    ],
)
def test_a_log_that_cannot_be_trusted_is_refused(
    sequence: int, payload: bytes | None, fault: str, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path))
    for i in range(3):
        store.append(i, upload("x"))
    path = tmp_path / "log" / f"{sequence:012d}.json"
    if payload is None:
        path.unlink()
    else:
        path.write_bytes(payload)
    with pytest.raises(StoreError, match=fault):
        AdapterLog(store)


def test_opening_leaves_no_probe(shared_location: str) -> None:
    assert list(Store.open(shared_location)._objects.list("")) == []


def test_a_server_that_ignores_conditions_is_refused_by_name(s3: type[FakeS3]) -> None:
    s3.conditional = False
    with pytest.raises(StoreError, match=r"s3://bucket/prefix ignores conditional writes.*If-None-Match"):
        Store.open("s3://bucket/prefix")
    assert s3.objects == {}


def test_a_probe_whose_answer_was_lost_is_no_fault(s3: type[FakeS3]) -> None:
    s3.lose_answer_to = "probe"
    Store.open("s3://bucket/prefix")
    assert s3.lose_answer_to == "nothing"
    s3.conditional, s3.lose_answer_to = False, "probe"
    with pytest.raises(StoreError, match="ignores conditional writes"):
        Store.open("s3://bucket/prefix")


def test_a_probe_that_cannot_be_removed_hides_no_fault(s3: type[FakeS3]) -> None:
    s3.deletes = False
    Store.open("s3://bucket/prefix")
    s3.conditional = False
    with pytest.raises(StoreError, match="ignores conditional writes"):
        Store.open("s3://bucket/prefix")


def test_rclone_is_refused_by_name(rclone: str) -> None:
    with pytest.raises(StoreError, match=rf"{rclone} ignores conditional writes"):
        Store.open(rclone)


@pytest.mark.parametrize("location", ["nope://somewhere", "{tmp}/file/below", "{tmp}/file"])
def test_a_location_that_cannot_be_opened_is_named(location: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    location = location.format(tmp=tmp_path)
    with pytest.raises(StoreError, match=location):
        Store.open(location)


def test_what_a_listing_does_not_show_yet_is_read(s3: type[FakeS3]) -> None:
    ours, theirs = (AdapterLog(Store.open("s3://bucket/prefix")) for _ in range(2))
    ours.commit(lambda catalog: upload("x"))
    ours.commit(lambda catalog: upload("y"))
    s3.lists = False
    assert AdapterLog(Store.open("s3://bucket/prefix")).sequence == 2
    theirs.commit(lambda catalog: upload("z"))
    assert ours.refresh() == 1
    assert len(ours.catalog) == len(theirs.catalog) == 3


def test_what_another_process_sweeps_meanwhile_stops_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(str(tmp_path))
    leftover = tmp_path / "log" / "000000000002.json#1"
    leftover.write_bytes(b"half")
    is_file = Path.is_file

    def swept(path: Path) -> bool:
        found = is_file(path)
        if path == leftover:
            path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", swept)
    Store.open(str(tmp_path))
    assert not leftover.exists()


def test_leftover_temporaries_are_swept_when_old(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.append(0, upload("x"))
    old, young = tmp_path / "log" / "000000000002.json#1", tmp_path / "content" / f"{'a' * 64}.zip#12"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert AdapterLog(Store.open(str(tmp_path))).sequence == 1
    assert not old.exists()
    assert young.exists()


def test_what_counts_is_synced_with_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, archive = packed(tmp_path)
    store = Store.open(str(tmp_path / "store"))
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    store.put_content(digest, archive)
    assert synced == [f"{digest}.zip", "content"]
    store.put_content(digest, archive)
    assert len(synced) == 4  # also when it was there: who wrote it may not have come to it
    synced.clear()
    store.append(0, upload("x"))
    assert synced == ["000000000001.json", "log"]
    synced.clear()
    store.append(1, upload("x"))
    assert synced == ["000000000001.json", "log", "000000000002.json", "log"]


def test_what_is_written_can_be_read_by_who_may_read_the_directory(tmp_path: Path) -> None:
    digest, archive = packed(tmp_path)
    store = Store.open(str(tmp_path / "store"))
    open_to_all, open_to_us = tmp_path / "store" / "log", tmp_path / "store" / "content"
    open_to_all.chmod(0o755)
    open_to_us.chmod(0o700)
    before = os.umask(0o077)
    try:
        store.append(0, upload("x"))
        store.put_content(digest, archive)
        store.snapshots.put(1, {})
    finally:
        os.umask(before)
    files = {path.parent.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "store").glob("*/*")}
    assert files == {"log": 0o644, "content": 0o600, "snapshot": 0o644}
