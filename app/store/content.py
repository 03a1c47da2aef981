"""What an adapter's content is: its digest, and the zip in which it is kept.

**The digest.** For each kept file, in ascending order of its path, the bytes

    <path, UTF-8> 00 <SHA-256 of the file, 64 hex digits> 0A

and of all of these the SHA-256, written as 64 hex digits. Paths use `/` and are relative to the adapter's directory.
Times, modes and the archive a file came in do not count.
"""

import hashlib
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from app.errors import StoreError

_CHUNK_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time a zip can express


def digest_of(files: Mapping[str, bytes | Path]) -> str:
    """The digest (64 hex digits) of an adapter's kept files: path to content, or to where the content lies."""
    return _combine({path: _hash_of(content) for path, content in files.items()})


def pack(directory: Path, paths: Sequence[str], target: Path) -> None:
    """Write the files at these relative `paths` of a directory as a zip: the same bytes for the same content.

    Sorted, not compressed, all with the same time and mode.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(paths):
            info = zipfile.ZipInfo(path, _EPOCH)
            info.create_system = 3  # Unix, also when packed elsewhere
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            with (directory / path).open("rb") as source, archive.open(info, "w") as sink:
                for chunk in _chunks(source):
                    sink.write(chunk)


def extract(archive: zipfile.ZipFile, digest: str, directory: Path) -> None:
    """Write a packed adapter's files into a directory, after their digest was found to be `digest`.

    Raises `StoreError` that names the digest when they are other files, or could not have been packed here.
    """
    infos = archive.infolist()
    if len({info.filename for info in infos}) < len(infos) or not all(map(_is_packed, infos)):
        raise StoreError(f"content {digest} was not packed by LoRAT: upload it again")
    found = _combine({info.filename: _hash_member(archive, info) for info in infos})
    if found != digest:
        raise StoreError(f"content {digest} is damaged: its files have the digest {found}: upload it again")
    for info in infos:
        path = directory / info.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, path.open("xb") as sink:
            for chunk in _chunks(source):
                sink.write(chunk)


def _is_packed(info: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(info.filename).parts
    plain = bool(parts) and ".." not in parts and parts[0] != "/" and "/".join(parts) == info.filename
    return plain and info.compress_type == zipfile.ZIP_STORED


def _combine(hashes: Mapping[str, str]) -> str:
    lines = (path.encode() + b"\0" + hashes[path].encode() + b"\n" for path in sorted(hashes))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _hash_of(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    total = hashlib.sha256()
    with archive.open(info) as source:
        for chunk in _chunks(source):
            total.update(chunk)
    return total.hexdigest()


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk
