"""Which places may be a store's, and what is shown of them."""

from pathlib import Path

import pytest

from app.errors import StoreError
from app.store.location import local_root, without_credentials
from app.store.objects import naming
from app.store.store import Store


def test_directories_and_buckets_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/us")
    assert local_root("some/store") == tmp_path / "some" / "store"
    assert local_root("~/store") == Path("/home/us/store")
    assert local_root("file:///a%20b/c") == local_root("file://localhost/a%20b/c") == Path("/a b/c")
    assert local_root("s3://bucket/prefix") is local_root("gs://bucket") is None
    assert local_root("abfss://container@account.dfs.core.windows.net/x") is None


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        ("s3:/bucket/x", r"'s3:/bucket/x' is no place for a store: .*s3://BUCKET"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("file://some/store", "names a host, 'some'.*file:///DIRECTORY"),
        ("http://127.0.0.1:1/x", "http://….*AWS_ENDPOINT_URL"),
        ("https://host/x", "https://host/x is no bucket.*AWS_ENDPOINT_URL"),
        ("memory://", "is no bucket"),
        ("foo://bar", "foo://bar is no bucket"),
        ("s3://[x", "no URL"),
        ("~nobody-here/x", "~nobody-here/x: there is no such user"),
        ("a\0b", "no place for a store"),
    ],
)
def test_what_is_neither_is_refused(location: str, fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=fault):
        Store.open(location)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("userinfo", ["me:hunter2@", "hunter2@", "me:hun@ter2@", "me:hunter2/@"])
@pytest.mark.parametrize("scheme", ["s3", "gs", "https"])
def test_credentials_are_refused_and_not_shown(scheme: str, userinfo: str) -> None:
    for location in (f"{scheme}://{userinfo}bucket/x", f"{scheme}://bucket/x?sig={userinfo}"):
        with pytest.raises(StoreError, match=f"{scheme}://….*set what opens it as AWS_ACCESS_KEY_ID") as refused:
            Store.open(location)
        assert "ter2" not in str(refused.value)


def test_errors_show_no_credentials_of_an_endpoint() -> None:
    def fail() -> None:
        with naming("read the log"):
            raise OSError("Error performing GET http://KEY:SECRET@host:1/bucket/log/1.json\n\nDebug source: SECRET")

    with pytest.raises(
        StoreError, match=r"cannot read the log: Error performing GET http://host:1/bucket/log/1\.json$"
    ):
        fail()
    assert without_credentials("https://a@b/c and s3://k:s@t@d/e@f") == "https://b/c and s3://d/e@f"
