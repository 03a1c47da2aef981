"""An upload becomes a clean directory of the files that make an adapter, or an error that says what is wrong with it.

What is kept is listed here by name; other harmless files are left out and named; what could be code, what hides
weights where LoRAT would not read them, and names that a file system could misread refuse the whole upload.
"""

import re
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.adapters.upload_archive import Member, Received, members_of, show
from app.errors import TooLargeError, UploadError
from lorat.files.json_file import MAX_BYTES

_REQUIRED = ("adapter_config.json", "adapter_model.safetensors")
_KEPT = re.compile(
    r"adapter_config\.json|adapter_model\.safetensors|lorat\.json|config\.json|README\.md|modules\.json"
    r"|sentence_bert_config\.json|tokenizer_config\.json|config_sentence_transformers\.json|[^/]+\.png"
    r"|[0-9]+_(Pooling|Normalize|Dense)/config\.json|[0-9]+_Dense/model\.safetensors"
)
_PICKLE = re.compile(r".*\.(bin|pt|pth|pkl|pickle|ckpt|joblib)")
_HARMLESS_PICKLE = "training_args.bin"  # of every checkpoint; says nothing that the adapter needs
_EXECUTABLE = re.compile(
    r".*\.(exe|dll|so(\.[0-9]+)*|dylib|elf|com|scr|msi|app|wasm|jar|class"
    r"|sh|bash|zsh|bat|cmd|ps1|vbs|js|mjs|py|pyc|pyo|pyd|pyw|pl|rb|php)"
)
_ARCHIVE = re.compile(r".*\.(zip|tar|gz|tgz|bz2|tbz2?|xz|txz|lzma|zst|7z|rar|whl|egg|cab|iso)")
_LITTER = re.compile(r"(.*/)?(__MACOSX/.*|\.DS_Store|\._[^/]*)")  # what macOS adds to archives
_MAX_NAME_BYTES = 255
_PICKLE_START = re.compile(rb"\x80[\x02-\x05]")
_ZIP_START = b"PK\x03\x04"


@dataclass(frozen=True)
class UploadLimits:
    """What one upload may hold: bytes of all its files uncompressed, files and folders, bytes of one JSON file."""

    max_bytes: int = 256 << 20
    max_files: int = 64
    max_json_bytes: int = MAX_BYTES


@dataclass(frozen=True)
class Unpacked:
    """A directory with an adapter's kept files.

    `files` are their paths in it and `ignored` those of what was left out, both sorted and without the folder that
    an archive wrapped around them.
    """

    directory: Path
    files: tuple[str, ...]
    ignored: tuple[str, ...]


def unpack(received: Received, target: Path, limits: UploadLimits = UploadLimits()) -> Unpacked:
    """Write the kept files of an upload into `target`, a directory that is empty or does not exist yet.

    received: an adapter directory's files, or one .zip, .tar, .tar.gz or .tgz of it. Raises `UploadError` that names
    the file and the fault, `TooLargeError` for what is over a limit; `target` is then empty.
    """
    target.mkdir(parents=True, exist_ok=True)
    assert not any(target.iterdir()), f"{target} is not empty"
    try:
        with members_of(received, target, limits) as members:
            kept, ignored = _sort_out(members)
            _write(kept, ignored, target, limits)
        for path in kept:
            if path.endswith(".safetensors"):
                _check_weights(path, target / path)
    except BaseException:
        _empty(target)
        raise
    return Unpacked(target, tuple(sorted(kept)), tuple(sorted(ignored)))


def _sort_out(members: Sequence[Member]) -> tuple[dict[str, Member], dict[str, Member]]:
    """The members to keep and those to leave out, by their paths. Raises UploadError for any other."""
    files = _without_common_folder(_by_path(members))
    kept: dict[str, Member] = {}
    ignored: dict[str, Member] = {}
    for path, member in files.items():
        if _LITTER.fullmatch(path):
            ignored[path] = member
        elif _KEPT.fullmatch(path):
            kept[path] = member
        else:
            _check_harmless(path)
            ignored[path] = member
    for path in _REQUIRED:
        if path not in kept:
            raise UploadError(f"{path} is missing: send it at the top, or everything in one folder")
    return kept, ignored


def _by_path(members: Sequence[Member]) -> dict[str, Member]:
    files: dict[str, Member] = {}
    seen: set[str] = set()
    for member in members:
        if member.folder and member.name in (".", "./"):
            continue
        path = _check_path(member.name)
        if member.folder:
            continue
        if path.casefold() in seen:
            raise UploadError(f"{show(path)} is there twice (capitals do not tell files apart): send it once")
        seen.add(path.casefold())
        files[path] = member
    return files


def _without_common_folder(files: dict[str, Member]) -> dict[str, Member]:
    parts = [path.partition("/") for path in files if not _LITTER.fullmatch(path)]
    folders = {folder for folder, _, _ in parts}
    if len(folders) != 1 or not all(rest for _, _, rest in parts):
        return files
    prefix = f"{folders.pop()}/"
    return {path.removeprefix(prefix): member for path, member in files.items()}


def _check_path(name: str) -> str:
    """A file name as a plain relative path, or UploadError."""
    if any(unicodedata.category(character).startswith("C") for character in name):
        raise UploadError(f"the file name {show(name)} has control or undefined characters: rename it")
    if "\\" in name:
        raise UploadError(f"the file name {show(name)} has a backslash: separate folders by '/'")
    if re.match(r"[A-Za-z]:", name):
        raise UploadError(f"the file name {show(name)} begins with a drive letter: send relative paths")
    if name.startswith("/"):
        raise UploadError(f"the file name {show(name)} is an absolute path: send relative paths")
    path = unicodedata.normalize("NFC", name)  # which may be longer
    if len(path.encode()) > _MAX_NAME_BYTES:
        raise UploadError(f"the file name {show(name)} is longer than {_MAX_NAME_BYTES} bytes: shorten it")
    path = path.removeprefix("./").removesuffix("/")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise UploadError(f"the file name {show(name)} has an empty, '.' or '..' part: send plain relative paths")
    return path


def _check_harmless(path: str) -> None:
    """Refuse a file that is neither kept nor safe to leave out without a word."""
    name = path.rpartition("/")[2].lower().rstrip(". ")  # some systems drop dots and spaces at the end
    if _PICKLE.fullmatch(name) and name != _HARMLESS_PICKLE:
        raise UploadError(f"{show(path)} may be a pickle, which can run code: send safetensors, leave it out")
    if _EXECUTABLE.fullmatch(name):
        raise UploadError(f"{show(path)} is executable: an adapter is data only, leave it out")
    if _ARCHIVE.fullmatch(name):
        raise UploadError(f"{show(path)} is an archive inside the upload: send its files themselves")
    if name.endswith(".safetensors"):
        raise UploadError(f"{show(path)} holds weights that LoRAT would not read: it reads adapter_model.safetensors")


def _write(kept: dict[str, Member], ignored: dict[str, Member], target: Path, limits: UploadLimits) -> None:
    left = limits.max_bytes - sum(member.size for member in ignored.values())
    if left < 0:
        raise _too_large(max(ignored, key=lambda path: ignored[path].size), False, limits)
    for path, member in kept.items():
        limit = min(left, limits.max_json_bytes) if path.endswith(".json") else left
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with (target / path).open("xb") as file:
            for chunk in member.chunks():
                written += len(chunk)
                if written > limit:
                    raise _too_large(path, limit < left, limits)
                file.write(chunk)
        left -= written


def _too_large(path: str, json: bool, limits: UploadLimits) -> TooLargeError:
    if json:
        return TooLargeError(f"{show(path)} is over the limit of {limits.max_json_bytes} bytes for a JSON file")
    return TooLargeError(f"{show(path)} takes the upload over the limit of {limits.max_bytes} bytes uncompressed")


def _check_weights(path: str, file: Path) -> None:
    with file.open("rb") as opened:
        start = opened.read(9)
    # The header's length comes first and may look like a pickle's first bytes (640 is 80 02); then `{` follows it.
    if start[8:9] == b"{":
        return
    if _PICKLE_START.match(start) or start.startswith(_ZIP_START):
        raise UploadError(f"{show(path)} is a pickle or a zip, not safetensors: save the weights as safetensors")


def _empty(directory: Path) -> None:
    for child in list(directory.iterdir()):
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
