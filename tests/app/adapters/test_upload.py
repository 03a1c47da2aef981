"""Uploads: what is kept, what is left out, and the many ways in which one can lie."""

import gzip
import io
import json
import stat
import struct
import tarfile
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.adapters.upload import Unpacked, UploadLimits, unpack
from app.errors import TooLargeError, UploadError
from app.store.content import digest_of, pack
from lorat.files.json_file import parse_json

WEIGHTS = struct.pack("<Q", 2) + b"{}"
ADAPTER = {"adapter_config.json": b'{"r": 8}', "adapter_model.safetensors": WEIGHTS}
WHOLE = {
    **ADAPTER,
    "lorat.json": b"{}",
    "config.json": b"{}",
    "README.md": b"# An adapter",
    "modules.json": b"[]",
    "sentence_bert_config.json": b"{}",
    "config_sentence_transformers.json": b"{}",
    "1_Pooling/config.json": b"{}",
    "2_Dense/config.json": b"{}",
    "2_Dense/model.safetensors": WEIGHTS,
    "3_Normalize/config.json": b"{}",
    "picture.png": b"\x89PNG",
}
HARMLESS = {
    "training_args.bin": b"\x80\x04never opened",
    ".gitattributes": b"",
    "tokenizer.json": b"{}",
    "vocab.txt": b"",
    "drawing.svg": b"",
    "logs/picture.png": b"",
    "trainer_state.json": b"{",
}
USUAL = UploadLimits()
SMALL = UploadLimits(max_bytes=50_000, max_files=20, max_json_bytes=1000)
Build = Callable[[Path], list[tuple[str, Path]]]


def loose(files: Mapping[str, bytes]) -> Build:
    return entries([*files.items()])


def entries(files: list[tuple[str, bytes]]) -> Build:
    def build(directory: Path) -> list[tuple[str, Path]]:
        received = []
        for i, (name, content) in enumerate(files):
            path = directory / f"received-{i}"
            path.write_bytes(content)
            received.append((name, path))
        return received

    return build


def archive(name: str, content: bytes) -> Build:
    return entries([(name, content)])


def zip_bytes(files: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as opened:
        for name, content in files:
            opened.writestr(name, content)
    return out.getvalue()


def tar_bytes(files: list[tuple[str | tarfile.TarInfo, bytes]], **options: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as opened:  # type: ignore[call-overload]
        for name, content in files:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg() and info.size == 0:
                info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return out.getvalue()


FORMS: dict[str, Callable[[Mapping[str, bytes]], Build]] = {
    "loose": loose,
    "zip": lambda files: archive("adapter.zip", zip_bytes([*files.items()])),
    "stored zip": lambda files: archive("adapter.ZIP", zip_bytes([*files.items()], zipfile.ZIP_STORED)),
    "tar": lambda files: archive("adapter.tar", tar_bytes([*files.items()])),
    "tar.gz": lambda files: archive("adapter.tar.gz", gzip.compress(tar_bytes([*files.items()]))),
    "tgz": lambda files: archive("a.tgz", gzip.compress(tar_bytes([*files.items()], format=tarfile.GNU_FORMAT))),
}


def unpacked(build: Build, limits: UploadLimits = USUAL) -> tuple[Unpacked, dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as directory:
        result = unpack(build(Path(directory)), Path(directory) / "target", limits)
        found = {
            path.relative_to(result.directory).as_posix(): path.read_bytes()
            for path in result.directory.rglob("*")
            if path.is_file()
        }
        assert sorted(found) == [*result.files]
        assert digest_of(found) == digest_of({path: result.directory / path for path in result.files})
        return result, found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("folder", ["", "my adapter/", "./", "./x/"])
def test_every_form_gives_the_same_files(form: str, folder: str) -> None:
    files = {folder + path: content for path, content in {**WHOLE, **HARMLESS}.items()}
    result, found = unpacked(FORMS[form](files))
    assert found == WHOLE
    assert result.ignored == tuple(sorted(HARMLESS))


contents = st.binary(max_size=2000)
uploads = st.fixed_dictionaries(
    {"adapter_config.json": contents, "adapter_model.safetensors": contents.map(lambda rest: WEIGHTS + rest)},
    optional={path: contents for path in [*WHOLE][2:] if not path.endswith(".safetensors")},
)


@settings(max_examples=25, deadline=None)
@given(uploads, st.randoms(), st.sampled_from(["", "folder/"]))
def test_the_digest_does_not_know_the_form(files: dict[str, bytes], random: object, folder: str) -> None:
    order = [*files.items()]
    digests = set()
    for form in FORMS.values():
        random.shuffle(order)  # type: ignore[attr-defined]
        digests.add(digest_of(unpacked(form({folder + path: content for path, content in order}))[1]))
    assert digests == {digest_of(files)}


def test_what_is_downloaded_can_be_uploaded_again(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    first = unpack(loose(WHOLE)(tmp_path / "in"), tmp_path / "first")
    pack(first.directory, first.files, tmp_path / "download.zip")
    again = unpack([("download.zip", tmp_path / "download.zip")], tmp_path / "again")
    assert digest_of({path: again.directory / path for path in again.files}) == digest_of(WHOLE)


def test_what_macos_and_folders_add_is_left_out() -> None:
    litter = {"__MACOSX/a/._adapter_model.safetensors": b"x", "a/.DS_Store": b"x", "a/._lorat.json": b"x"}
    files = {"a/": b"", **{f"a/{path}": content for path, content in WHOLE.items()}, **litter}
    result, found = unpacked(FORMS["zip"](files))
    assert found == WHOLE
    assert len(result.ignored) == 3
    tar = tar_bytes([(directory(), b""), *((f"./{path}", content) for path, content in ADAPTER.items())])
    assert unpacked(archive("x.tar", tar))[1] == ADAPTER


def directory() -> tarfile.TarInfo:
    info = tarfile.TarInfo("./")
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_length_that_looks_like_a_pickle_is_none(length: int) -> None:
    weights = struct.pack("<Q", length) + b"{}".ljust(length)
    assert weights[:1] == b"\x80"
    assert unpacked(loose({**ADAPTER, "adapter_model.safetensors": weights}))[1]["adapter_model.safetensors"] == weights


def test_what_the_reader_takes_can_be_uploaded() -> None:
    facts = json.dumps({"labels": [f"{number:0200}" for number in range(10_000)]}).encode()
    assert len(parse_json(facts, dict, "lorat.json")["labels"]) == 10_000
    assert unpacked(loose({**ADAPTER, "lorat.json": facts}))[1]["lorat.json"] == facts


def test_exactly_the_limits_are_allowed() -> None:
    files = {**ADAPTER, "README.md": b"x" * 100, "vocab.txt": b"y" * 50}
    limits = UploadLimits(sum(map(len, files.values())), 4, len(files["adapter_config.json"]))
    for form in FORMS.values():
        assert len(unpacked(form(files), limits)[1]) == 3


# ---- what is refused -------------------------------------------------------------------------------------------------

MORE = [*ADAPTER.items()]


def with_file(path: str, content: bytes = b"x") -> Build:
    return entries([*MORE, (path, content)])


def zipped(info: zipfile.ZipInfo | str, content: bytes = b"x") -> Build:
    return archive("a.zip", zip_bytes([*MORE, (info, content)]))


def zip_mode(mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("special")
    info.create_system, info.external_attr = 3, mode << 16
    return info


def tarred(info: tarfile.TarInfo | str, content: bytes = b"") -> Build:
    return archive("a.tar", tar_bytes([*MORE, (info, content)]))


def tar_info(kind: bytes, name: str = "special", link: str = "", **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) >= 1
    assert len(old) == len(new)
    return content.replace(old, new)


def encrypted() -> Build:
    content = bytearray(zip_bytes([*MORE]))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return archive("a.zip", bytes(content))


def zip_claiming(field: int, value: int) -> Build:
    """A zip whose end record (the field at this offset) claims `value`."""
    content = bytearray(zip_bytes([*MORE]))
    struct.pack_into("<I", content, content.rindex(b"PK\x05\x06") + field, value)
    return archive("a.zip", bytes(content))


def zip_bomb_that_lies() -> Build:
    """100 MB of zeros in a README that claims one byte."""
    content = bytearray(zip_bytes([*MORE, ("README.md", bytes(100_000_000))]))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.rindex(signature) + offset, 1)
    return archive("a.zip", bytes(content))


def tar_header(size: bytes, kind: bytes = b"0", name: bytes = b"README.md") -> bytes:
    """A ustar header with any size field, its checksum right."""
    fields = [name.ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", size.ljust(12, b"\0"), b"00000000000\0"]
    block = b"".join(fields) + b" " * 8 + kind
    block = (block.ljust(257, b"\0") + b"ustar\x0000").ljust(512, b"\0")
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]


def raw_tar(*blocks: bytes) -> Build:
    return archive("a.tar", b"".join(blocks) + bytes(1024))


def broken_middle() -> Build:
    """The header of the third of four files is damaged: tarfile takes that for the end."""
    content = bytearray(tar_bytes([*MORE, ("lorat.json", b"{}"), ("README.md", b"x")]))
    content[content.index(b"lorat.json") + 3] ^= 1
    return archive("a.tar", bytes(content))


def sparse_map() -> Build:
    """GNU sparse 1.0: a map of as many entries as it likes, read one by one."""
    pax = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    numbers = b"99999999\n" + b"1\n" * 100_000
    return raw_tar(
        tar_header(b"%011o" % len(pax), b"x"),
        pax.ljust(512, b"\0"),
        tar_header(b"%011o" % len(numbers)),
        numbers.ljust(-(-len(numbers) // 512) * 512, b"\0"),
    )


WHOLE_ZIP = zip_bytes([*MORE])
WHOLE_TAR = tar_bytes([*MORE])
DUPLICATE_TAR = tar_bytes([*MORE, MORE[0]])
NOISE = bytes(i * 89 % 251 for i in range(600))

REFUSED: dict[str, tuple[Build, str]] = {
    "nothing": (entries([]), "adapter_config.json is missing"),
    "no config": (loose({"adapter_model.safetensors": WEIGHTS}), "adapter_config.json is missing"),
    "no weights": (loose({"adapter_config.json": b"{}"}), "adapter_model.safetensors is missing"),
    "config in capitals": (entries([("Adapter_Config.json", b"{}"), MORE[1]]), "adapter_config.json is missing"),
    "two folders": (entries([("a/" + MORE[0][0], b""), ("b/" + MORE[1][0], b"")]), "b/adapter_model.safetensors"),
    "too deep": (entries([(f"a/b/{name}", content) for name, content in MORE]), "a?b?/?adapter_model.safetensors"),
    "pickled weights": (with_file("adapter_model.bin"), "'adapter_model.bin' may be a pickle"),
    "pickled model": (with_file("1_Dense/pytorch_model.bin"), "'1_Dense/pytorch_model.bin' may be a pickle"),
    "pickled shard": (with_file("pytorch_model-00001-of-00002.bin"), "00001-of-00002.bin' may be a pickle"),
    "optimizer": (with_file("optimizer.pt"), "'optimizer.pt' may be a pickle"),
    "random state": (with_file("rng_state.pth"), "'rng_state.pth' may be a pickle"),
    "pickle": (with_file("labels.PKL"), "'labels.PKL' may be a pickle"),
    "checkpoint": (with_file("last.ckpt"), "'last.ckpt' may be a pickle"),
    "pickle in disguise": (
        entries([MORE[0], (MORE[1][0], b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j")]),
        "model.safetensors' is a",
    ),
    "zip in disguise": (entries([MORE[0], (MORE[1][0], b"PK\x03\x04" + b"\0" * 30)]), "model.safetensors' is a"),
    "dense in disguise": (with_file("1_Dense/model.safetensors", b"\x80\x04\x95" + b"\0" * 9), "'1_Dense/model"),
    "other weights": (with_file("model.safetensors", WEIGHTS), "'model.safetensors' holds weights"),
    "script": (with_file("run.sh"), "'run.sh' is executable"),
    "module": (with_file("modeling_bert.py"), "'modeling_bert.py' is executable"),
    "library": (with_file("lib/liblora.so.1.2"), "'lib/liblora.so.1.2' is executable"),
    "windows program": (with_file("Setup.EXE"), "'Setup.EXE' is executable"),
    "hidden suffix": (with_file("setup.exe. "), "'setup.exe. ' is executable"),
    "archive inside": (with_file("more.tar.gz"), "'more.tar.gz' is an archive inside"),
    "zip in zip": (zipped("inner.zip"), "'inner.zip' is an archive inside"),
    "two archives": (entries([("a.zip", WHOLE_ZIP), ("b.zip", WHOLE_ZIP)]), "'a.zip' is an archive inside"),
    "absolute": (with_file("/etc/passwd"), "'/etc/passwd' is an absolute path"),
    "absolute in a zip": (zipped("/README.md"), "'/README.md' is an absolute path"),
    "absolute in a tar": (tarred("/README.md"), "'/README.md' is an absolute path"),
    "up": (with_file("../README.md"), r"'\.\./README.md' has an empty, '.' or '..' part"),
    "up in a zip": (zipped("a/../../README.md"), "README.md' has an empty, '.' or '..' part"),
    "up in a tar": (tarred("a/../../README.md"), "README.md' has an empty, '.' or '..' part"),
    "up, a folder": (tarred(tar_info(tarfile.DIRTYPE, "../x")), r"'\.\./x' has an empty, '.' or '..' part"),
    "nothing between": (with_file("1_Pooling//config.json"), "has an empty, '.' or '..' part"),
    "no name": (with_file(""), "the file name '' has an empty"),
    "backslash": (with_file("..\\README.md"), "has a backslash"),
    "backslash in a zip": (zipped("1_Pooling\\config.json"), "has a backslash"),
    "drive": (with_file("C:README.md"), "'C:README.md' begins with a drive letter"),
    "NUL": (with_file("README.md\0.png"), r"'README.md\\x00.png' has control"),
    "NUL in a zip": (
        archive("a.zip", patched(zip_bytes([*MORE, ("README.md#x", b"x")]), b"README.md#x", b"README.md\0x")),
        r"'README.md\\x00x' has control",
    ),
    "newline": (with_file("README\n.png"), r"'README\\n.png' has control"),
    "reversed text": (with_file("a\u202egnp.png"), "has control"),
    "not UTF-8": (archive("a.tar", tar_bytes([*MORE, ("a\udcff.png", b"")], format=tarfile.GNU_FORMAT)), "has control"),
    "long name": (with_file("x" * 252 + ".png"), "is longer than 255 bytes"),
    "long once it is normalised": (with_file("\u0958" * 80 + ".png"), "is longer than 255 bytes"),
    "long in bytes": (with_file("ü" * 130 + ".png"), "is longer than 255 bytes"),
    "twice": (entries([*MORE, MORE[0]]), "'adapter_config.json' is there twice"),
    "twice in capitals": (with_file("ADAPTER_config.json"), "'ADAPTER_config.json' is there twice"),
    "twice but for ./": (with_file("./adapter_config.json"), "'adapter_config.json' is there twice"),
    "twice in Unicode": (entries([*MORE, ("é.png", b""), ("e\u0301.png", b"")]), "'é.png' is there twice"),
    "twice in a tar": (archive("a.tar", DUPLICATE_TAR), "'adapter_config.json' is there twice"),
    "symlink in a zip": (zipped(zip_mode(stat.S_IFLNK | 0o777), b"/etc/passwd"), "'special' is a symbolic link"),
    "device in a zip": (zipped(zip_mode(stat.S_IFCHR | 0o666)), "'special' is a device"),
    "encrypted zip": (encrypted(), "'adapter_config.json' is encrypted"),
    "zip by lzma": (archive("a.zip", zip_bytes([*MORE], zipfile.ZIP_LZMA)), "by zip's method 14"),
    "symlink in a tar": (tarred(tar_info(tarfile.SYMTYPE, link="/etc/passwd")), "'special' is a symbolic link"),
    "hard link": (tarred(tar_info(tarfile.LNKTYPE, link="adapter_config.json")), "'special' is a hard link"),
    "device in a tar": (tarred(tar_info(tarfile.CHRTYPE)), "'special' is a device"),
    "pipe": (tarred(tar_info(tarfile.FIFOTYPE)), "'special' is a device"),
    "unknown tar type": (tarred(tar_info(b"Z")), "'special' is a device"),
    "sparse": (raw_tar(tar_header(b"00000000000", b"S")), "'README.md' is a sparse file"),
    "global headers": (
        archive("a.tar", tar_bytes([*MORE], pax_headers={"path": "x"})),
        "'a.tar' has global tar headers",
    ),
    "empty zip": (archive("a.zip", b""), "'a.zip' is damaged, or not"),
    "zip of nothing": (archive("a.zip", zip_bytes([])), "adapter_config.json is missing"),
    "tar of nothing": (archive("a.tar", tar_bytes([])), "adapter_config.json is missing"),
    "empty tar": (archive("a.tar", b""), "'a.tar' is damaged, or not"),
    "empty tar.gz": (archive("a.tgz", b""), "'a.tgz' is damaged, or not"),
    "noise as zip": (archive("a.zip", NOISE), "'a.zip' is damaged, or not"),
    "noise as tar": (archive("a.tar", NOISE), "'a.tar' is damaged, or not"),
    "noise as tar.gz": (archive("a.tar.gz", NOISE), "'a.tar.gz' is damaged, or not"),
    "tar called zip": (archive("a.zip", WHOLE_TAR), "'a.zip' is damaged, or not"),
    "zip called tgz": (archive("a.tgz", WHOLE_ZIP), "'a.tgz' is damaged, or not"),
    "cut zip": (archive("a.zip", WHOLE_ZIP[:-30]), "'a.zip' is damaged, or not"),
    "cut tar": (archive("a.tar", WHOLE_TAR[:1200]), "damaged"),
    "cut tar at a member": (archive("a.tar", WHOLE_TAR[:1024]), "'a.tar' is damaged: it does not end"),
    "cut tar.gz": (archive("a.tgz", gzip.compress(WHOLE_TAR)[:-9]), "'a.tgz' is damaged, or not"),
    "damaged middle of a tar": (broken_middle(), "'a.tar' is damaged: it does not end"),
    "damaged zip content": (
        archive("a.zip", patched(zip_bytes([*MORE], zipfile.ZIP_STORED), b'{"r": 8}', b'{"r": 9}')),
        "'a.zip' is damaged, or not.*CRC",
    ),
    "zip names that differ": (
        archive("a.zip", WHOLE_ZIP[:60].replace(b"adapter_config", b"adapter_confix") + WHOLE_ZIP[60:]),
        "'a.zip' is damaged, or not.*differ",
    ),
    "zip directory over its start": (zip_claiming(12, 4_000_000_000), "'a.zip' is damaged|larger headers"),
    "zip directory past its end": (zip_claiming(16, 4_000_000_000), "'a.zip' is damaged"),
    "zip bomb that claims one byte": (zip_bomb_that_lies(), "damaged|over the limit"),
    "tar with a giant size": (raw_tar(tar_header(b"77777777777")), "'a.tar' is damaged"),
    "tar with a 95-bit size": (raw_tar(tar_header(b"\x80" + b"\x7f" * 11)), "damaged"),
    "tar with a negative size": (raw_tar(tar_header(b"\xff" * 11 + b"\x00")), "damaged|not a plain file"),
    "tar with a giant pax header": (raw_tar(tar_header(b"%011o" % (1 << 30), b"x")), "larger headers"),
    "tar with a giant long name": (raw_tar(tar_header(b"%011o" % (1 << 30), b"L")), "larger headers"),
    "tar of headers only": (raw_tar(*[tar_header(b"00000000000", b"x")] * 2000), "larger headers|damaged"),
    "tar with a sparse map": (sparse_map(), "larger headers|sparse"),
}

TOO_LARGE: dict[str, tuple[Build, str]] = {
    "a large file": (with_file("README.md", b"x" * 60_000), "'README.md' takes the upload over the limit of 50000"),
    "together": (entries([*MORE, ("a.png", b"x" * 30_000), ("b.png", b"x" * 30_000)]), "'b.png' takes the upload over"),
    "what is left out": (with_file("vocab.txt", b"x" * 60_000), "'vocab.txt' takes the upload over"),
    "json": (with_file("lorat.json", b" " * 1001), "'lorat.json' is over the limit of 1000 bytes for a JSON"),
    "json in a folder": (with_file("1_Pooling/config.json", b" " * 1001), "'1_Pooling/config.json' is over"),
    "zip bomb": (zipped("README.md", bytes(20_000_000)), "'README.md' takes the upload over"),
    "json bomb": (zipped("lorat.json", bytes(20_000_000)), "'lorat.json' is over the limit"),
    "tar bomb": (archive("a.tgz", gzip.compress(bytes(30_000_000))), "'a.tgz' unpacks to more than the limit"),
    "gzip bomb of a tar": (
        archive("a.tgz", gzip.compress(tar_bytes([*MORE, ("vocab.txt", bytes(5_000_000))]))),
        "'a.tgz' unpacks to more",
    ),
    "large tar": (tarred("vocab.txt", bytes(60_000)), "'vocab.txt' takes the upload over"),
    "many files": (entries([*MORE, *((f"{i}.png", b"") for i in range(19))]), "more than 20 files"),
    "many in a zip": (archive("a.zip", zip_bytes([(f"{i}/", b"") for i in range(21)])), "more than 20 files"),
    "many in a tar": (archive("a.tar", tar_bytes([(f"{i}", b"") for i in range(21)])), "more than 20 files"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_upload_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    build, fault = REFUSED[case]
    (tmp_path / "received").mkdir()
    with pytest.raises(UploadError, match=fault):
        unpack(build(tmp_path / "received"), tmp_path / "target", UploadLimits())
    assert [*(tmp_path / "target").iterdir()] == []
    assert {path.name for path in tmp_path.iterdir()} == {"received", "target"}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_an_upload_over_a_limit_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    build, fault = TOO_LARGE[case]
    (tmp_path / "received").mkdir()
    received = build(tmp_path / "received")
    with pytest.raises(TooLargeError, match=fault):
        unpack(received, tmp_path / "target", SMALL)
    assert [*(tmp_path / "target").iterdir()] == []


def quadratic_pax() -> bytes:
    """Pax records that each claim two bytes and name a key that reaches to the end of the header."""
    pax = b"2 " * 3500 + b"="
    return tar_header(b"%011o" % len(pax), b"x") + pax.ljust(-(-len(pax) // 512) * 512, b"\0") + tar_header(b"0" * 11)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zip_bytes([(f"{i}.txt", b"") for i in range(20_000)])),
        ("a.tar", b"".join(quadratic_pax() for _ in range(20)) + bytes(1024)),
        ("a.tar", tar_bytes([("digits", b"1" * 7000)], pax_headers={"comment": "1" * 7000})),
        ("a.tgz", gzip.compress(bytes(300_000_000), 1)),
    ],
    ids=["zip of very many", "pax records", "digits", "gzip bomb"],
)
def test_a_small_archive_costs_little(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    del content
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises((UploadError, TooLargeError)):
        unpack([(name, tmp_path / name)], tmp_path / "target")
    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
    assert seconds < 20


FUZZED = {
    name: form({"a/" + path: content for path, content in WHOLE.items()})
    for name, form in FORMS.items()
    if name != "loose"
}


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from([*FUZZED]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_a_damaged_archive_is_unpacked_or_refused(form: str, edits: list[tuple[float, int]], cut: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory, target = Path(name), Path(name) / "target"
        [(called, path)] = FUZZED[form](directory)
        content = bytearray(path.read_bytes())
        for where, value in edits:
            content[int(where * len(content))] = value
        path.write_bytes(content[: int(cut * 2 * len(content))])
        try:
            result = unpack([(called, path)], target, SMALL)
        except (UploadError, TooLargeError):
            assert [*target.iterdir()] == []
        else:
            assert set(result.files) >= set(ADAPTER)
            assert {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()} == {*result.files}
