"""The members of an upload, whether it came as loose files, a zip or a tar: what each is called and its bytes.

Archives come from strangers. Nothing here believes a declared size: bytes are counted as they come out, and the
archive modules read through `_Metered`, so that a header cannot make them read or keep more than an adapter needs.
"""

import gzip
import re
import stat
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from app.errors import TooLargeError, UploadError

ARCHIVE = re.compile(r"\.(zip|tar|tar\.gz|tgz)$", re.IGNORECASE)

_CHUNK_BYTES = 1 << 18
_ZIP_DIRECTORY_BYTES = 1 << 18  # the central directory of an archive of any adapter is far smaller
_TAR_HEADER_BYTES = 1 << 13  # one member's headers, pax and long names included
_TAR_OVERHEAD_BYTES = 1 << 20  # headers and padding of a whole tar
_BLOCK_BYTES = 512
_ZIP_HEADER_BYTES = 30  # before a member's name
# What Python's modules raise on archives that are damaged or lie.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    ValueError,
)


Received = Sequence[tuple[str, Path | IO[bytes]]]
"""The client's name of each file (folders in it count), and where the server put it: a path, or an open file."""


class _Limits(Protocol):
    @property
    def max_bytes(self) -> int: ...
    @property
    def max_files(self) -> int: ...


@dataclass(frozen=True)
class Member:
    """A file in an upload: the name it was given, the size it is said to have, and its bytes, in pieces."""

    name: str
    size: int
    chunks: Callable[[], Iterator[bytes]]
    folder: bool = False


def show(name: str) -> str:
    """A client's file name, fit for a message."""
    return repr(name if len(name) <= 100 else name[:100] + "…")


@contextmanager
def members_of(received: Received, scratch: Path, limits: _Limits) -> Iterator[list[Member]]:
    """The members of the loose files, or of the one archive, that were received; readable inside the `with`.

    `scratch` is a directory with room for one uncompressed archive. Raises `UploadError` for an archive that is
    damaged or holds anything but files and folders (also while its members are read), `TooLargeError` for more
    members or bytes than the limits.
    """
    if len(received) == 1 and (found := ARCHIVE.search(received[0][0])):
        name, source = received[0]
        try:
            with _opened(source) as file:
                if found[1].lower() == "zip":
                    metered = _Metered(file, name, _ZIP_DIRECTORY_BYTES)
                    with zipfile.ZipFile(metered) as archive:
                        metered.left = sys.maxsize  # from here on it is read in pieces
                        yield _zip_members(archive, limits)
                else:
                    with tempfile.TemporaryFile(dir=scratch) as plain:
                        tar = file if found[1].lower() == "tar" else _gunzip(file, plain, name, limits)
                        yield _tar_members(tar, name, limits)
        except _DAMAGE as error:
            reason = str(error)[:200]  # `zipfile` quotes what it found instead of a name, 64 kB at most
            raise UploadError(f"{show(name)} is damaged, or not the archive its name says: {reason}") from error
    else:
        _check_count(len(received), limits)
        yield [Member(name, _size(source), _reader(source)) for name, source in received]


@contextmanager
def _opened(source: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """A received file from its beginning."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        source.seek(0)
        yield source


def _size(source: Path | IO[bytes]) -> int:
    with _opened(source) as file:
        return file.seek(0, 2)


def _reader(source: Path | IO[bytes]) -> Callable[[], Iterator[bytes]]:
    def chunks() -> Iterator[bytes]:
        with _opened(source) as file:
            yield from _pieces(file)

    return chunks


def _zip_members(archive: zipfile.ZipFile, limits: _Limits) -> list[Member]:
    infos = archive.infolist()
    _check_count(len(infos), limits)
    _check_apart(infos, archive.start_dir)
    return [_zip_member(archive, info) for info in infos]


def _check_apart(infos: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Members that share bytes are a bomb, or two readings of one archive; `zipfile` lets some of them pass."""
    places = sorted(infos, key=lambda info: info.header_offset)
    starts = [*(info.header_offset for info in places), end]
    for info, after in zip(places, starts[1:], strict=True):
        if info.header_offset + _ZIP_HEADER_BYTES + len(info.orig_filename) + info.compress_size > after:
            raise UploadError(f"{show(info.orig_filename)} overlaps what comes after it in the zip: pack it again")


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    name = info.orig_filename  # `filename` ends at a NUL
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise UploadError(f"{show(name)} is a symbolic link: send the file itself")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UploadError(f"{show(name)} is a device or another special file, not a plain file: leave it out")
    if info.flag_bits & 0x41:
        raise UploadError(f"{show(name)} is encrypted: send the archive without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UploadError(f"{show(name)} is compressed by zip's method {info.compress_type}: only deflate is read")

    def chunks() -> Iterator[bytes]:
        with archive.open(info) as source:
            yield from _pieces(source)

    return Member(name, info.file_size, chunks, folder=name.endswith("/"))


def _gunzip(source: IO[bytes], plain: IO[bytes], name: str, limits: _Limits) -> IO[bytes]:
    """Tar goes back and forth, which a gzip stream can only do by starting over: so it is unpacked once, counted."""
    with gzip.GzipFile(fileobj=source, mode="rb") as stream:
        for chunk in _pieces(stream):
            if plain.tell() + len(chunk) > limits.max_bytes + _TAR_OVERHEAD_BYTES:
                raise TooLargeError(f"{show(name)} unpacks to more than the limit of {limits.max_bytes} bytes")
            plain.write(chunk)
    plain.seek(0)
    return plain


def _tar_members(file: IO[bytes], name: str, limits: _Limits) -> list[Member]:
    metered = _Metered(file, name, _TAR_HEADER_BYTES)
    members: list[Member] = []
    with tarfile.open(fileobj=metered, mode="r:") as tar:  # type: ignore[call-overload]  # it reads, seeks and tells
        while info := tar.next():
            members.append(_tar_member(file, info))
            _check_count(len(members), limits)
            tar.members.clear()  # each keeps its headers
            if tar.pax_headers.keys() - {"comment"}:
                raise UploadError(f"{show(name)} has global tar headers: pack it again with plain tar")
            metered.left = _TAR_HEADER_BYTES
        metered.seek(tar.offset)
    # tarfile takes a damaged header for the end, and would leave out everything after it.
    if file.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
        raise UploadError(f"{show(name)} is damaged: it does not end as a tar does")
    return members


def _tar_member(file: IO[bytes], info: tarfile.TarInfo) -> Member:
    if info.issym() or info.islnk():
        kind = "symbolic" if info.issym() else "hard"
        raise UploadError(f"{show(info.name)} is a {kind} link: send the file itself")
    if info.issparse():
        raise UploadError(f"{show(info.name)} is a sparse file: pack it without --sparse")
    if not (info.isreg() or info.isdir()) or info.size < 0:
        raise UploadError(f"{show(info.name)} is a device or another special file, not a plain file: leave it out")
    start, size, name = info.offset_data, info.size, info.name

    def chunks() -> Iterator[bytes]:
        file.seek(start)
        left = size
        while left > 0:
            chunk = file.read(min(_CHUNK_BYTES, left))
            if not chunk:
                raise UploadError(f"the archive is damaged: it ends inside {show(name)}")
            left -= len(chunk)
            yield chunk

    return Member(name, size, chunks, folder=info.isdir())


def _pieces(source: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk


def _check_count(count: int, limits: _Limits) -> None:
    if count > limits.max_files:
        raise TooLargeError(f"the upload has more than {limits.max_files} files: send an adapter's own files only")


class _Metered:
    """A file that refuses to be read in larger gulps than `left` bytes in all; whoever reads on sets `left` anew.

    A zip's directory or a tar's header may claim any size, and Python's modules read what it claims into memory.
    """

    def __init__(self, file: IO[bytes], name: str, left: int) -> None:
        self.left = left
        self._file = file
        self._name = name
        self._end = file.seek(0, 2)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Read as a file does. Raises `UploadError` when that is more than is left."""
        if size < 0:
            size = max(0, self._end - self.tell())
        self.left -= size
        if self.left < 0:
            raise UploadError(f"{show(self._name)} has larger headers than an adapter's archive needs: pack it again")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek as a file does; outside the file is a ValueError."""
        if whence == 0 and not 0 <= offset <= self._end:
            raise ValueError("an offset in it points outside it")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position in bytes."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Always."""
        return True
