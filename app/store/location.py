"""Where a store is: a directory, or the URL of a bucket."""

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from app.errors import StoreError

_BUCKETS = frozenset({"s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"})
_ONE_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
_CREDENTIALS = re.compile(r"(://)[^/\s]*@")
_AT_ACCOUNT = frozenset({"abfs", "abfss"})  # whose URLs are abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX
_FORMS = "write a directory, file:///DIRECTORY or s3://BUCKET/PREFIX"


def local_root(location: str) -> Path | None:
    """The directory that a location names; None where it is a bucket's URL.

    Raises `StoreError` for what is neither. URLs that hold credentials are refused, without showing them: nobody would
    read them there, and every error that names the store would show them.
    """
    if "\0" in location or _ONE_SLASH.match(location):
        raise StoreError(f"{location!r} is no place for a store: {_FORMS}")
    if "://" not in location:
        return _directory(location)
    url = _split(location)
    if url.query or (url.scheme not in _AT_ACCOUNT and ("@" in url.netloc or ":" in url.netloc)):
        raise StoreError(
            f"the store's URL, {url.scheme}://…, has more than a bucket and a prefix: set what opens it as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, its server as AWS_ENDPOINT_URL"
        )
    if url.scheme == "file":
        if url.netloc not in ("", "localhost"):
            raise StoreError(
                f"{location} names a host, {url.netloc!r}, and no directory of it: write file:///DIRECTORY"
            )
        return Path(unquote(url.path))
    if url.scheme not in _BUCKETS:
        raise StoreError(f"{location} is no bucket: {_FORMS}, and another server than Amazon's as AWS_ENDPOINT_URL")
    if not url.netloc:
        raise StoreError(f"{location} names no bucket: {_FORMS}")
    return None


def without_credentials(text: str) -> str:
    """A text whose URLs hold no user and no password."""
    return _CREDENTIALS.sub(r"\1", text)


def _directory(location: str) -> Path:
    try:
        return Path(location).expanduser().resolve()
    except RuntimeError as error:
        raise StoreError(f"cannot open the store {location}: there is no such user") from error


def _split(location: str) -> SplitResult:
    try:
        return urlsplit(location)
    except ValueError as error:
        raise StoreError(f"the store's location is no URL ({error}): {_FORMS}") from error
