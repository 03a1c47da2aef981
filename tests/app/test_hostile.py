"""A hostile corpus over HTTP: each upload is refused by name, and after all of them nothing has changed."""

import gzip
import hashlib
import io
import json
import pickle
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load, save

from lorat.files.json_file import MAX_BYTES
from tests.app.conftest import process
from tests.oracle import make_peft

CONFIG, WEIGHTS, FACTS = "adapter_config.json", "adapter_model.safetensors", "lorat.json"
Files = dict[str, bytes]
Sent = list[tuple[str, bytes]]
HIDDEN = 32


@pytest.fixture(scope="module")
def good(tiny_path, tmp_path_factory) -> dict[str, Files]:
    """The files of good adapters, which the corpus damages."""
    directory = tmp_path_factory.mktemp("good")
    plain = read(make_peft(tiny_path, directory / "plain", r=2).directory)
    head = read(make_peft(tiny_path, directory / "head", r=2, task="SEQ_CLS", num_labels=3).directory)
    biased = read(make_peft(tiny_path, directory / "bias", r=2, bias="lora_only").directory)
    recipe = plain | RECIPE | dense(torch.eye(8, HIDDEN), torch.zeros(8))
    return {"plain": plain, "head": head, "biased": biased, "recipe": recipe}


def read(directory: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


# ---- building blocks -------------------------------------------------------------------------------------------------

Build = Callable[[dict[str, Files]], Sent]


def put(name: str, content: bytes | str, of: str = "plain") -> Build:
    """A good adapter with one file added or replaced."""
    data = content.encode() if isinstance(content, str) else content
    return lambda good: [*(good[of] | {name: data}).items()]


def config(of: str = "plain", **fields: Any) -> Build:
    return lambda good: [*edited(good[of], CONFIG, fields).items()]


def facts(of: str = "plain", **fields: Any) -> Build:
    return put(FACTS, json.dumps(fields), of)


def edited(files: Files, name: str, fields: Mapping[str, Any]) -> Files:
    return files | {name: json.dumps(json.loads(files[name]) | fields).encode()}


def tensors(change: Callable[[dict[str, torch.Tensor]], object], of: str = "plain") -> Build:
    """A good adapter whose tensors were changed."""

    def build(good: dict[str, Files]) -> Sent:
        weights = load(good[of][WEIGHTS])
        change(weights)
        return [*(good[of] | {WEIGHTS: save(weights)}).items()]

    return build


def name_of(weights: Mapping[str, Any], word: str) -> str:
    return next(name for name in sorted(weights) if word in name)


def fill(word: str, value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda weights: weights[name_of(weights, word)].view(-1)[:1].fill_(value)


def container(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def header(change: Callable[[dict[str, Any]], object], extra: bytes = b"") -> Build:
    """A good adapter whose weights have another header over the same data."""

    def build(good: dict[str, Files]) -> Sent:
        content = good["plain"][WEIGHTS]
        length = struct.unpack("<Q", content[:8])[0]
        entries = json.loads(content[8 : 8 + length])
        change(entries)
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)
        return [*(good["plain"] | {WEIGHTS: container(text, content[8 + length :] + extra)}).items()]

    return build


def entry(change: Callable[[dict[str, Any]], object]) -> Build:
    """As `header`, for its first tensor."""
    return header(lambda entries: change(entries[name_of(entries, "lora_A")]))


def weights(content: bytes) -> Build:
    return put(WEIGHTS, content)


def twice_in_header(good: dict[str, Files]) -> Sent:
    content = good["plain"][WEIGHTS]
    length = struct.unpack("<Q", content[:8])[0]
    text = content[8 : 8 + length].rstrip()
    first = text.index(b'"base_model')
    end = text.index(b"}", first) + 1
    text = text[:end] + b"," + text[first:end] + text[end:]
    return [*(good["plain"] | {WEIGHTS: container(text, content[8 + length :])}).items()]


def zipped(*more: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Build:
    """A zip of a good adapter and more."""
    return lambda good: [("a.zip", zip_of([*good["plain"].items(), *more], method))]


def zip_of(files: list[Any], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as target:
        warnings.simplefilter("ignore", UserWarning)  # a name twice
        for name, content in files:
            target.writestr(name, content)
    return out.getvalue()


def zip_info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def damaged_zip(change: Callable[[bytearray], object]) -> Build:
    def build(good: dict[str, Files]) -> Sent:
        content = bytearray(zip_of([*good["plain"].items()]))
        change(content)
        return [("a.zip", bytes(content))]

    return build


def encrypt(content: bytearray) -> None:
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1


def overlap(content: bytearray) -> None:
    """The second entry of the directory points to the first one's data."""
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]


def quoted(content: bytearray) -> None:
    """The first member claims to reach over the second: the same bytes are to be unpacked twice."""
    first = content.index(b"PK\x01\x02")
    for place in (18, first + 20):
        struct.pack_into("<I", content, place, struct.unpack_from("<I", content, place)[0] + 200)


def long_name(content: bytearray) -> None:
    """A member's own header has another name than the directory, of any length: `zipfile` quotes it."""
    content[26:28] = struct.pack("<H", 60_000)
    content[30:30] = b"[" * 60_000
    end = content.index(b"PK\x05\x06")
    struct.pack_into("<I", content, end + 16, struct.unpack_from("<I", content, end + 16)[0] + 60_000)
    entry = content.index(b"PK\x01\x02")
    while content[entry : entry + 4] == b"PK\x01\x02":
        offset, sizes = struct.unpack_from("<I", content, entry + 42)[0], struct.unpack_from("<3H", content, entry + 28)
        struct.pack_into("<I", content, entry + 42, offset + 60_000 if offset else 0)
        entry += 46 + sum(sizes)


def tarred(*more: tuple[str | tarfile.TarInfo, bytes], compressed: bool = False) -> Build:
    """A tar of a good adapter and more."""

    def build(good: dict[str, Files]) -> Sent:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as target:
            for name, content in [*good["plain"].items(), *more]:
                info = tarfile.TarInfo(name) if isinstance(name, str) else name
                info.size = len(content)
                target.addfile(info, io.BytesIO(content))
        return [("a.tgz", gzip.compress(out.getvalue(), 1))] if compressed else [("a.tar", out.getvalue())]

    return build


def special(kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo("special")
    info.type, info.linkname = kind, link
    return info, b""


def cut(build: Build, size: int) -> Build:
    return lambda good: [(name, content[:size]) for name, content in build(good)]


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code of a file has been run')",)


PICKLE = pickle.dumps(Exploit())
TORCH_ZIP = zip_of([("archive/data.pkl", PICKLE), ("archive/version", b"3")], zipfile.ZIP_STORED)
POOL, DENSE, NORM = (
    {"type": f"sentence_transformers.models.{kind}", "path": path}
    for kind, path in (("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize"))
)
TRANSFORMER = {"type": "sentence_transformers.models.Transformer", "path": ""}


def dense(weight: torch.Tensor, bias: torch.Tensor | None = None, folder: str = "2_Dense", **fields: Any) -> Files:
    found = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
    shape = {"in_features": weight.shape[-1], "out_features": weight.shape[0], "bias": bias is not None}
    return {
        f"{folder}/config.json": json.dumps(shape | fields).encode(),
        f"{folder}/model.safetensors": save({name: tensor.contiguous() for name, tensor in found.items()}),
    }


def modules(*entries: Any) -> bytes:
    return json.dumps(entries).encode()


RECIPE: Files = {
    "modules.json": modules(TRANSFORMER, POOL, DENSE, NORM),
    "sentence_bert_config.json": b'{"max_seq_length": 128}',
    "1_Pooling/config.json": b'{"pooling_mode": "mean", "embedding_dimension": 32}',
}


def recipe(changes: Mapping[str, bytes | None]) -> Build:
    """A good adapter with a recipe, some of whose files were changed or (None) taken away."""
    return lambda good: [(k, v) for k, v in (good["recipe"] | changes).items() if v is not None]


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], object]:
    def change(weights: dict[str, torch.Tensor]) -> None:
        name = name_of(weights, old)
        weights[name.replace(old, new)] = weights.pop(name)

    return change


def with_bert_twice(weights: dict[str, torch.Tensor]) -> None:
    for name in [*weights]:
        weights[name.replace("model.encoder", "model.bert.encoder")] = weights[name].clone()


def prefix_one(weights: dict[str, torch.Tensor]) -> None:
    name = name_of(weights, "encoder")
    weights[name.replace("model.encoder", "model.bert.encoder")] = weights.pop(name)


def offsets(start: int, end: int) -> Callable[[dict[str, Any]], object]:
    return lambda tensor: tensor.update(data_offsets=[start, end])


def shift(entries: dict[str, Any]) -> None:
    for tensor in entries.values():
        if "data_offsets" in tensor:
            tensor["data_offsets"] = [place + 16 for place in tensor["data_offsets"]]


MEGABYTE = 1 << 20
BIG_HEADER = container(b"{}".ljust(100_000_000), b"")
SAYS_BIAS: Files = {"2_Dense/config.json": b'{"in_features": 32, "out_features": 8, "bias": true}'}
FLAT = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}

# ---- the corpus: what is sent, and a word of the answer --------------------------------------------------------------

CORPUS: dict[str, tuple[Build, str]] = {
    # code
    "adapter_model.bin": (put("adapter_model.bin", PICKLE), "may be a pickle"),
    "a .pt": (put("optimizer.pt", PICKLE), "may be a pickle"),
    "a .ckpt in a folder": (put("deep/last.ckpt", PICKLE), "may be a pickle"),
    "renamed pickle": (weights(PICKLE), "is a pickle or a zip, not safetensors"),
    "renamed torch zip": (weights(TORCH_ZIP), "is a pickle or a zip, not safetensors"),
    "renamed old pickle": (weights(pickle.dumps({"a": 1}, 0)), "safetensors"),
    "pickled Dense": (recipe({"2_Dense/pytorch_model.bin": PICKLE}), "may be a pickle"),
    "renamed pickled Dense": (recipe({"2_Dense/model.safetensors": PICKLE}), "is a pickle or a zip"),
    "remote code": (put("modeling_lora.py", "import os"), "executable"),
    "a library": (put("libhook.so.1", b"\x7fELF"), "executable"),
    # names in archives
    "traversal in a zip": (zipped(("../../README.md", b"x")), "'..' part"),
    "traversal in a tar": (tarred(("a/../../README.md", b"x")), "'..' part"),
    "traversal in a form": (put("../README.md", b"x"), "'..' part"),
    "absolute in a zip": (zipped(("/etc/cron.d/x", b"x")), "absolute path"),
    "absolute in a tar": (tarred(("/etc/cron.d/x", b"x")), "absolute path"),
    "backslash": (zipped(("..\\README.md", b"x")), "backslash"),
    "drive letter": (zipped(("C:README.md", b"x")), "drive letter"),
    "control character": (tarred(("README.md\x1b[2J.png", b"x")), "control"),
    "long name": (tarred(("x" * 300 + ".png", b"x")), "longer than 255"),
    "symlink in a zip": (zipped((zip_info("link", stat.S_IFLNK | 0o777), b"/etc/passwd")), "symbolic link"),
    "fifo in a zip": (zipped((zip_info("pipe", stat.S_IFIFO | 0o666), b"")), "special file"),
    "symlink in a tar": (tarred(special(tarfile.SYMTYPE, "/etc/passwd")), "symbolic link"),
    "hard link": (tarred(special(tarfile.LNKTYPE, CONFIG)), "hard link"),
    "character device": (tarred(special(tarfile.CHRTYPE)), "device"),
    "block device": (tarred(special(tarfile.BLKTYPE)), "device"),
    "fifo in a tar": (tarred(special(tarfile.FIFOTYPE)), "device"),
    "twice in a zip": (zipped((CONFIG, b"{}")), "there twice"),
    "twice in a tar": (tarred((CONFIG, b"{}")), "there twice"),
    "twice by case in a zip": (zipped((CONFIG.upper(), b"{}")), "there twice"),
    "twice by case in a tar": (tarred(("Adapter_Model.Safetensors", b"{}")), "there twice"),
    # bombs and damage
    "zip bomb": (zipped(("vocab.txt", bytes(280 * MEGABYTE))), "over the limit"),
    "json bomb": (zipped((FACTS, bytes(20 * MEGABYTE))), "over the limit"),
    "tar bomb": (tarred(("vocab.txt", bytes(280 * MEGABYTE)), compressed=True), "limit"),
    "zip of very many": (zipped(*((f"{i}.png", b"") for i in range(6000))), "headers"),
    "many files": (zipped(*((f"{i}.png", b"") for i in range(70))), "more than 64 files"),
    "overlapping entries": (damaged_zip(overlap), "overlap"),
    "quoted entries": (damaged_zip(quoted), "overlap"),
    "a name of 60 kB in the zip's second list": (damaged_zip(long_name), "differ|overlap|damaged"),
    "zip in a zip": (zipped(("more.zip", TORCH_ZIP)), "archive inside"),
    "tar in a tar": (tarred(("more.tar.gz", b"x")), "archive inside"),
    "cut zip": (cut(zipped(), -40), "damaged"),
    "cut tar": (cut(tarred(), 2000), "damaged"),
    "cut tar.gz": (cut(tarred(compressed=True), -20), "damaged"),
    "damaged zip": (damaged_zip(lambda content: content.__setitem__(slice(80, 120), bytes(40))), "damaged"),
    "encrypted zip": (damaged_zip(encrypt), "encrypted"),
    "lzma zip": (zipped(method=zipfile.ZIP_LZMA), "only deflate"),
    "tar called zip": (lambda good: [("a.zip", tarred()(good)[0][1])], "damaged, or not"),
    "empty zip": (lambda good: [("a.zip", b"")], "damaged"),
    # headers that lie
    "empty weights": (weights(b""), "ends inside its header"),
    "four bytes": (weights(b"\x01\0\0\0"), "ends inside its header"),
    "cut weights": (lambda good: [*(good["plain"] | {WEIGHTS: good["plain"][WEIGHTS][:-1]}).items()], "safetensors"),
    "bytes after": (header(lambda entries: None, bytes(8)), "safetensors"),
    "header over the file": (weights(container({}, length=1 << 20)), "ends inside its header"),
    "huge header length": (weights(container({}, length=(1 << 64) - 1)), "ends inside its header"),
    "100 MB header": (lambda good: zipped_with(good, BIG_HEADER), "header of 100000000 bytes"),
    "header is no JSON": (weights(container(b"{nonsense")), "not valid JSON"),
    "header is not UTF-8": (weights(container(b'{"\xff\xfe": 1}')), "not UTF-8"),
    "header is a list": (weights(container([])), "JSON object"),
    "header is deep": (weights(container(b'{"a":' + b"[" * 50_000)), "deeper"),
    "header of nothing": (weights(container({})), "lacks the tensor"),
    "header with a name twice": (twice_in_header, "there twice"),
    "overlapping tensors": (entry(lambda tensor: tensor.update(data_offsets=[8, 264])), "safetensors"),
    "a hole": (header(shift, bytes(16)), "safetensors"),
    "beyond the file": (entry(lambda tensor: tensor.update(data_offsets=[1 << 40, (1 << 40) + 256])), "safetensors"),
    "backwards": (entry(offsets(256, 0)), "safetensors"),
    "negative offsets": (entry(offsets(-256, 0)), "safetensors"),
    "offsets of another kind": (entry(lambda tensor: tensor.update(data_offsets="all")), "safetensors"),
    "three offsets": (entry(lambda tensor: tensor.update(data_offsets=[0, 1, 2])), "safetensors"),
    "unknown dtype": (entry(lambda tensor: tensor.update(dtype="F33")), "safetensors"),
    "dtype is a number": (entry(lambda tensor: tensor.update(dtype=32)), "safetensors"),
    "dtype of another size": (entry(lambda tensor: tensor.update(dtype="F64")), "safetensors"),
    "integers of the same size": (entry(lambda tensor: tensor.update(dtype="I32")), "I32"),
    "shape that does not fit": (entry(lambda tensor: tensor.update(shape=[2, 33])), "safetensors"),
    "transposed": (entry(lambda tensor: tensor.update(shape=[HIDDEN, 2])), "has the shape [32, 2]"),
    "negative shape": (entry(lambda tensor: tensor.update(shape=[-2, -32])), "safetensors"),
    "huge shape": (entry(lambda tensor: tensor.update(shape=[1 << 62, 1 << 62])), "safetensors"),
    "huge numbers": (entry(lambda tensor: tensor.update(shape=[10**60])), "digits"),
    "shape of 10,000 ones": (entry(lambda tensor: tensor.update(shape=[1] * 10_000 + [2, 32])), "shape"),
    "missing offsets": (entry(lambda tensor: tensor.pop("data_offsets")), "data_offsets"),
    "a field too many": (entry(lambda tensor: tensor.update(strides=[1, 2])), "must have dtype"),
    "a tensor is a text": (header(lambda entries: entries.update(x="F32")), "must have dtype"),
    "a hole behind a name of 60 kB": (
        header(lambda entries: entries.update({"base_model.model." + "x" * 60_000: FLAT | {"data_offsets": [1, 5]}})),
        "safetensors",
    ),
    "metadata is a list": (header(lambda entries: entries.update(__metadata__=[1])), "__metadata__"),
    "metadata of numbers": (header(lambda entries: entries.update(__metadata__={"a": 1})), "__metadata__"),
    # values
    "NaN in A": (tensors(fill("lora_A", float("nan"))), "NaN or infinite"),
    "Inf in B": (tensors(fill("lora_B", float("inf"))), "NaN or infinite"),
    "-Inf in B": (tensors(fill("lora_B", float("-inf"))), "NaN or infinite"),
    "NaN in a bias": (tensors(fill("base_layer.bias", float("nan")), "biased"), "NaN or infinite"),
    "Inf in the head": (tensors(fill("classifier.weight", float("inf")), "head"), "NaN or infinite"),
    "NaN in the head's bias": (tensors(fill("classifier.bias", float("nan")), "head"), "NaN or infinite"),
    "over float32": (
        tensors(lambda w: w.update({name_of(w, "lora_A"): w[name_of(w, "lora_A")].double() * 1e300})),
        "NaN or infinite",
    ),
    # tensors
    "half a pair": (tensors(lambda w: w.pop(name_of(w, "lora_B"))), "lacks the tensor"),
    "a layer missing": (tensors(lambda w: [w.pop(n) for n in [*w] if "layer.1." in n]), "lacks the tensor"),
    "no head": (tensors(lambda w: [w.pop(n) for n in [*w] if "classifier" in n], "head"), "lacks 'classifier.weight'"),
    "head without bias": (tensors(lambda w: w.pop(name_of(w, "classifier.bias")), "head"), "classifier.bias"),
    "head of no dimension": (
        tensors(lambda w: w.update({name_of(w, "classifier.weight"): torch.tensor(1.0)}), "head"),
        "0 labels",
    ),
    "head of no labels": (
        tensors(lambda w: w.update({name_of(w, "classifier.weight"): torch.zeros(0, HIDDEN)}), "head"),
        "0 labels",
    ),
    "head of 10,001 labels": (
        tensors(lambda w: w.update({name_of(w, "classifier.weight"): torch.zeros(10_001, HIDDEN)}), "head"),
        "10001 labels",
    ),
    "an extra tensor": (tensors(lambda w: w.update({"base_model.model.embeddings.x": torch.ones(2)})), "fits no layer"),
    "an extra layer": (tensors(rename("layer.0.", "layer.77.")), "lacks the tensor"),
    "no prefix": (tensors(lambda w: w.update({"encoder.x": torch.ones(2)})), "must begin with"),
    "the adapter's name in it": (tensors(rename("lora_A.weight", "lora_A.default.weight")), "lacks the tensor"),
    "with and without bert.": (tensors(with_bert_twice), "'bert.'"),
    "one with bert.": (tensors(prefix_one), "'bert.'"),
    "another hidden size": (
        tensors(lambda w: w.update({n: torch.ones(2, 48) for n in w if "lora_A" in n})),
        "the base needs [2, 32]",
    ),
    "DoRA's magnitudes": (
        tensors(lambda w: w.update({name_of(w, "lora_A").replace("A.weight", "magnitude_vector"): torch.ones(HIDDEN)})),
        "magnitude",
    ),
    "the whole query": (
        tensors(lambda w: w.update({"base_model.model.encoder.layer.0.attention.self.query.weight": torch.ones(2)})),
        "fits no layer",
    ),
    # adapter_config.json
    "rank over the limit": (config(r=257), "rank 257"),
    "rank over the limit in a pattern": (config(rank_pattern={"layer.1.attention.self.query": 999}), "rank 999"),
    "a rank of 30 digits": (config(r=10**30), "over the limit"),
    "rank is a float": (config(r=2.0), "r is 2.0"),
    "rank is true": (config(r=True), "r is True"),
    "rank is negative": (config(r=-2), "r is -2"),
    "alpha is a text": (config(lora_alpha="16"), "lora_alpha"),
    "alpha over all measure": (config(lora_alpha=1e300), "lora_alpha"),
    "use_dora": (config(use_dora=True), "use_dora"),
    "lora_bias": (config(lora_bias=True), "lora_bias"),
    "trainable_token_indices": (config(trainable_token_indices=[1]), "trainable_token_indices"),
    "target_parameters": (config(target_parameters=["x"]), "target_parameters"),
    "layer_replication": (config(layer_replication=[[0, 2]]), "layer_replication"),
    "alora_invocation_tokens": (config(alora_invocation_tokens=[5]), "alora_invocation_tokens"),
    "use_bdlora": (config(use_bdlora={"a": 1}), "use_bdlora"),
    "use_qalora": (config(use_qalora=True), "use_qalora"),
    "a field of the future": (config(rotate=0.5), "rotate"),
    "pissa": (config(init_lora_weights="pissa_niter_16"), "init_lora_weights"),
    "bias of all": (config(bias="all"), "bias"),
    "another method": (config(peft_type="IA3"), "peft_type"),
    "another task": (config(task_type="CAUSAL_LM"), "task_type"),
    "whole embeddings": (config(modules_to_save=["embeddings"]), "modules_to_save"),
    "whole embeddings, as a text": (config(modules_to_save="embeddings"), "modules_to_save"),
    "modules to save are objects": (config(modules_to_save=[{"classifier": 1}]), "modules_to_save"),
    "no targets": (config(target_modules=[]), "target_modules"),
    "targets are numbers": (config(target_modules=[1, 2]), "target_modules"),
    "nobody's target": (config(target_modules="nothing"), "matches no linear"),
    "layers are texts": (config(layers_to_transform=["1"]), "layers_to_transform"),
    "broken pattern": (config(target_modules="("), "pattern"),
    "slow pattern": (config(target_modules="(((([a-z0-9._]{1,50}){1,50}){1,50}){1,50}){1,50}[^a-z0-9._]"), "too long"),
    "copying pattern": (config(target_modules="(?:(?:(?:a{60000}){60000}){60000})"), "shorter and flatter"),
    "copying with open counts": (config(target_modules="(?:(?:a{900,}){900,}){900,}"), "shorter and flatter"),
    "deep pattern": (config(target_modules="(" * 300 + "a" + ")+" * 300), "shorter and flatter"),
    "deep pattern behind a set": (config(target_modules="[))))))]" + "(" * 9 + "a" + ")+" * 9), "shorter and flatter"),
    "long pattern": (config(target_modules="query|" * 1000), "shorter and flatter"),
    "fuzzy pattern": (config(target_modules="(?:quary){e<=2}"), "braces"),
    "recursive pattern": (config(target_modules="(a|(?R))*"), "kind of group"),
    "pattern with flags": (config(target_modules="(?V1i).*QUERY"), "kind of group"),
    "many patterns": (config(rank_pattern={f"x{i}" * 20: 2 for i in range(9000)}), "take too long"),
    "layers by a group of its own": (
        config(layers_to_transform=[0], layers_pattern=["(?P<index>layer)|x"]),
        "matches no linear",
    ),
    # JSON
    "deep JSON": (put(FACTS, "[" * 100_000), "deeper"),
    "deep JSON that ends": (put(FACTS, '{"tags":' + "[" * 200 + "]" * 200 + "}"), "deeper"),
    "JSON over its limit": (put(FACTS, '{"description": "' + "x" * MAX_BYTES + '"}'), "limit"),
    "a number of 100,000 digits": (put(FACTS, '{"format": ' + "1" * 100_000 + "}"), "digits"),
    "a number too large": (put(FACTS, '{"format": 1e999}'), "too large"),
    "a name twice": (put(FACTS, '{"task": "embedding", "task": null}'), "there twice"),
    "NaN": (put(FACTS, '{"format": NaN}'), "NaN"),
    "-Infinity": (put(FACTS, '{"format": -Infinity}'), "Infinity"),
    "a list at the top": (put(CONFIG, "[]"), "JSON object"),
    "a text at the top": (put(FACTS, '"x"'), "JSON object"),
    "null at the top": (put("config.json", "null", "head"), "JSON object"),
    "not UTF-8": (put(FACTS, b'{"description": "\xff"}'), "not UTF-8"),
    "UTF-16": (put(FACTS, "{}".encode("utf-16")), "not UTF-8"),
    "half a surrogate pair": (put(FACTS, '{"description": "\\ud800"}'), "surrogate"),
    "half a pair in a name": (put("config.json", '{"id2label": {"0": "\\udfff"}}', "head"), "surrogate"),
    "no JSON": (put(CONFIG, "r: 8"), "not valid JSON"),
    # lorat.json and config.json
    "mode part": (facts(mode="part"), "mode='part'"),
    "a newer format": (facts(format=2), "format 2"),
    "format is true": (facts(format=True), "format True"),
    "an unknown fact": (facts(url="http://x"), "'url'"),
    "another task than the config's": (facts("head", task="embedding"), "task is embedding"),
    "no such task": (facts(task=["embedding"]), "task must be"),
    "another base": (facts(base_id="0" * 64), "another base|was made for"),
    "base id in capitals": (facts(base_id="A" * 64), "base_id must be"),
    "two labels for three": (facts("head", labels=["a", "b"]), "2 labels"),
    "labels twice": (facts("head", labels=["a", "b", "a"]), "name each once"),
    "no labels for three": (facts("head", labels=[]), "0 labels"),
    "labels without a classifier": (facts(labels=["a", "b"]), "no classifier"),
    "a label of 300 kB": (facts("head", labels=["a", "b", "c" * 300_000]), "labels must be"),
    "labels are numbers": (facts("head", labels=[0, 1, 2]), "labels must be"),
    "an empty label": (facts("head", labels=["a", "b", ""]), "labels must be"),
    "a long description": (facts(description="x" * 20_000), "description must be"),
    "100 tags": (facts(tags=[f"t{i}" for i in range(100)]), "tags must be"),
    "a probe of another kind": (facts(probes=[{"text": 1, "expected": []}]), "probes must be"),
    "probes of many numbers": (facts(probes=[{"text": "a", "expected": [1e308]}]), "probes must be"),
    "a regression": (put("config.json", '{"problem_type": "regression"}', "head"), "'regression'"),
    "id2label is a list": (put("config.json", '{"id2label": [7, 8, 9]}', "head"), "id2label"),
    "id2label with gaps": (put("config.json", '{"id2label": {"0": "a", "1": "b", "9": "c"}}', "head"), "id2label"),
    "id2label of words": (put("config.json", '{"id2label": {"a": "0"}}', "head"), "id2label"),
    "id2label of lists": (put("config.json", '{"id2label": {"0": [], "1": {}, "2": null}}', "head"), "id2label"),
    "id2label of too many": (
        put("config.json", json.dumps({"id2label": {str(i): str(i) for i in range(999)}}), "head"),
        "999 labels",
    ),
    # recipes
    "an unknown module": (recipe({"modules.json": modules(TRANSFORMER, {"type": "x.LSTM", "path": "1"})}), "LSTM"),
    "a module's path leads out": (
        recipe({"modules.json": modules(TRANSFORMER, POOL | {"path": "../../etc"})}),
        "outside its directory",
    ),
    "a module's path is absolute": (recipe({"modules.json": modules(POOL | {"path": "/etc"})}), "outside"),
    "a module's path has a NUL": (recipe({"modules.json": modules(POOL | {"path": "1\0"})}), "outside"),
    "a module's path is long": (recipe({"modules.json": modules(POOL | {"path": "x" * 5000})}), "outside"),
    "modules are texts": (recipe({"modules.json": modules("Pooling")}), "list of objects"),
    "no pooling": (recipe({"modules.json": modules(TRANSFORMER)}), "no Pooling"),
    "two poolings": (recipe({"modules.json": modules(TRANSFORMER, POOL, POOL)}), "order"),
    "normalise first": (recipe({"modules.json": modules(TRANSFORMER, NORM, POOL)}), "order"),
    "dense after normalise": (recipe({"modules.json": modules(TRANSFORMER, POOL, NORM, DENSE)}), "order"),
    "10,000 modules": (recipe({"modules.json": modules(*[POOL] * 10_000)}), "10000 modules"),
    "half a recipe": (recipe({"modules.json": None}), "without modules.json"),
    "unknown pooling": (recipe({"1_Pooling/config.json": b'{"pooling_mode": "median"}'}), "'median'"),
    "pooling is a number": (recipe({"1_Pooling/config.json": b'{"pooling_mode": 7}'}), "pooling_mode"),
    "pooling of objects": (recipe({"1_Pooling/config.json": b'{"pooling_mode": [{}]}'}), "pooling_mode"),
    "pooling 10,000 times": (
        recipe({"1_Pooling/config.json": json.dumps({"pooling_mode": ["mean"] * 10_000}).encode()}),
        "twice",
    ),
    "an unknown old pooling": (recipe({"1_Pooling/config.json": b'{"pooling_mode_median": true}'}), "median"),
    "pooling of another size": (
        recipe({"1_Pooling/config.json": b'{"pooling_mode": "mean", "word_embedding_dimension": 768}'}),
        "hidden size is 32",
    ),
    "prompts counted by a text": (
        recipe({"1_Pooling/config.json": b'{"pooling_mode": "mean", "include_prompt": "no"}'}),
        "include_prompt",
    ),
    "no Dense weights": (recipe({"2_Dense/model.safetensors": None}), "is missing"),
    "NaN in Dense": (recipe(dense(torch.full((8, HIDDEN), float("nan")), torch.zeros(8))), "NaN or infinite"),
    "Inf in Dense's bias": (recipe(dense(torch.ones(8, HIDDEN), torch.full((8,), float("inf")))), "NaN or infinite"),
    "Dense of integers": (recipe(dense(torch.ones(8, HIDDEN, dtype=torch.int32))), "'linear.weight' is I32"),
    "Dense of three dimensions": (recipe(dense(torch.ones(8, 2, HIDDEN))), "shape"),
    "Dense of another width": (recipe(dense(torch.ones(8, 31))), "takes 31 values"),
    "Dense with a bias of another size": (recipe(dense(torch.ones(8, HIDDEN), torch.ones(9))), "linear.bias"),
    "Dense that says another size": (recipe(dense(torch.ones(8, HIDDEN), in_features=99)), "in_features is 99"),
    "Dense that says it has a bias": (recipe(dense(torch.ones(8, HIDDEN), None) | SAYS_BIAS), "bias is True"),
    "Denses that do not fit together": (
        recipe(
            dense(torch.ones(8, HIDDEN))
            | dense(torch.ones(4, 9), folder="3_Dense")
            | {"modules.json": modules(TRANSFORMER, POOL, DENSE, DENSE | {"path": "3_Dense"})}
        ),
        "takes 9 values, what comes before it gives 8",
    ),
    "Dense with a tensor too many": (
        recipe({"2_Dense/model.safetensors": save({"linear.weight": torch.ones(8, HIDDEN), "x": torch.ones(1)})}),
        "only",
    ),
    "Dense with a lying header": (recipe({"2_Dense/model.safetensors": container({"linear.weight": FLAT})}), "2_Dense"),
    "an unknown activation": (recipe(dense(torch.ones(8, HIDDEN), activation_function="os.system")), "'system'"),
    "a residual Dense": (recipe(dense(torch.ones(8, HIDDEN), use_residual=True)), "use_residual"),
    "a Dense of other inputs": (recipe(dense(torch.ones(8, HIDDEN), module_input_name="tokens")), "module_input_name"),
    "no length at all": (recipe({"sentence_bert_config.json": b'{"max_seq_length": 0}'}), "max_seq_length"),
    "an absurd length": (recipe({"sentence_bert_config.json": b'{"max_seq_length": 99999999999}'}), "max_seq_length"),
    "a length of another kind": (recipe({"sentence_bert_config.json": b'{"max_seq_length": "128"}'}), "max_seq_length"),
    "lower case by a text": (recipe({"sentence_bert_config.json": b'{"do_lower_case": "no"}'}), "do_lower_case"),
    "prompts are a list": (recipe({"config_sentence_transformers.json": b'{"prompts": ["a"]}'}), "prompts"),
    "no such prompt": (
        recipe({"config_sentence_transformers.json": b'{"prompts": {"a": "b"}, "default_prompt_name": ["a"]}'}),
        "default_prompt_name",
    ),
}
NAMES = ["base", "Upper", "../up", "a..b", "-a", "a" * 65, "a/b", "a@2", "é", "a b", "a\u202eb", "%2e%2e"]


def zipped_with(good: dict[str, Files], content: bytes) -> Sent:
    return [("a.zip", zip_of([*(good["plain"] | {WEIGHTS: content}).items()]))]


def post(client: httpx.Client, sent: Sent, name: str = "hostile") -> httpx.Response:
    files = [("files", (path, content)) for path, content in sent]
    return client.post("/adapters", data={"name": name}, files=files, params={"replace": True})


def refused(response: httpx.Response, says: str) -> None:
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:500])
    error = response.json()["error"]
    assert any(word in error for word in says.split("|")), error
    assert len(error) < 1000


@pytest.mark.parametrize("case", CORPUS)
def test_a_hostile_upload_is_refused_by_name(server, good, case):
    build, says = CORPUS[case]
    refused(post(server, build(good)), says)


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_name_is_refused(server, good, name):
    refused(post(server, [*good["plain"].items()], name), "name")


def test_what_the_corpus_damages_is_good_before(serve, good):
    client = serve()
    for name, files in good.items():
        assert post(client, [*files.items()], name).status_code == 201
        for build in (zipped(), tarred(), tarred(compressed=True)):
            assert post(client, build({"plain": files}), name).status_code == 200


def test_there_are_enough_of_them():
    assert len(CORPUS) + len(NAMES) >= 60


def tree(directory: Path) -> str:
    """A hash of every path and byte in a directory."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        digest.update(f"{path.relative_to(directory)}\0".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def resident(pid: int) -> int:
    """Memory of a process that is in RAM, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_after_the_whole_corpus_nothing_has_changed(tiny_path, good, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    store = tmp_path / "store"
    with process(store, "--demo", "false", base=tiny_path) as (server, client):
        for name, files in good.items():
            assert post(client, [*files.items()], name).status_code == 201

        def state() -> list[Any]:
            answers = [
                client.post(f"/embed?adapter={name}", json={"inputs": "a"}).json() for name in ("plain", "recipe")
            ]
            return [client.get("/adapters").json(), client.get("/info").json()["fingerprint"], tree(store), answers]

        before, memory = state(), []
        for _ in range(2):
            for build, says in CORPUS.values():
                refused(post(client, build(good)), says)
            for name in NAMES:
                refused(post(client, [*good["plain"].items()], name), "name")
            memory.append(resident(server.pid))
            assert state() == before
        assert list((tmp_path / "temporary").glob("lorat-*")) == []
        assert client.get("/ready").is_success
        assert post(client, [*good["plain"].items()], "after").status_code == 201
        print(f"resident memory after each pass of {len(CORPUS) + len(NAMES)}: {memory} KiB")
        assert memory[1] <= memory[0] * 1.05
