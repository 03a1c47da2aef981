"""Damage to adapters: bits flipped, bytes cut, moved and repeated, JSON changed by its structure.

All of it follows from one `random.Random`, so that a seed is a reproduction.
"""

import gzip
import io
import json
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save

from app.adapters.upload import UploadLimits, unpack
from lorat.errors import LoratError
from lorat.files.adapter_file import read_adapter
from lorat.targets import MODULES, BaseShape

Files = dict[str, bytes]
BASE = BaseShape(layers=2, hidden=8, intermediate=16, has_pooler=True, base_id="a" * 64)
LIMITS = UploadLimits(max_bytes=1 << 20, max_files=32, max_json_bytes=1 << 16)
PREFIX = "base_model.model."


def good_adapters() -> list[Files]:
    """An embedding adapter with a recipe, and a classifier, both whole."""
    generator = torch.Generator().manual_seed(0)

    def lora(prefix: str) -> dict[str, torch.Tensor]:
        modules = [f"encoder.layer.{layer}.{MODULES[kind]}" for layer in range(2) for kind in ("query", "value")]
        names = [f"{PREFIX}{prefix}{module}" for module in modules]
        a = {f"{name}.lora_A.weight": torch.randn(2, 8, generator=generator) for name in names}
        return a | {f"{name}.lora_B.weight": torch.randn(8, 2, generator=generator) for name in names}

    config = {
        "peft_type": "LORA", "task_type": "FEATURE_EXTRACTION", "r": 2, "lora_alpha": 4, "bias": "none",
        "target_modules": r".*layer\.[01]\..*(query|value)", "rank_pattern": {"query": 2}, "alpha_pattern": {"layer.0": 8},
        "layers_to_transform": None, "layers_pattern": None, "exclude_modules": None, "use_dora": False,
        "modules_to_save": None, "init_lora_weights": True, "inference_mode": True,
    }  # fmt: skip
    facts = {"format": 1, "task": "embedding", "base_id": "a" * 64, "description": "d", "tags": ["t"], "mode": "all"}
    probes = [{"text": "a", "expected": [0.5, -0.25]}]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in (
        ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize"))]  # fmt: skip
    embedding = {
        "adapter_config.json": config,
        "lorat.json": facts | {"probes": probes},
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
        "tokenizer_config.json": {"model_max_length": 10**30},
        "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "default_prompt_name": "query"},
        "1_Pooling/config.json": {"embedding_dimension": 8, "pooling_mode": ["mean", "cls"], "include_prompt": True},
        "2_Dense/config.json": {"in_features": 16, "out_features": 4, "activation_function": "torch.nn.Tanh"},
    }
    head = {f"{PREFIX}classifier.weight": torch.ones(3, 8), f"{PREFIX}classifier.bias": torch.ones(3)}
    targets = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"], "layers_to_transform": [0, 1],
               "layers_pattern": ["layer"], "modules_to_save": ["classifier"]}  # fmt: skip
    classifier = {
        "adapter_config.json": config | targets,
        "lorat.json": {"format": 1, "task": "sequence_classification", "labels": ["a", "b", "c"], "multi_label": False},
        "config.json": {"id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": None},
    }
    dense = {"linear.weight": torch.ones(4, 16), "linear.bias": torch.ones(4)}
    return [
        _encoded(embedding) | {"adapter_model.safetensors": save(lora("")), "2_Dense/model.safetensors": save(dense)},
        _encoded(classifier) | {"adapter_model.safetensors": save(lora("bert.") | head)},
    ]


def _encoded(files: dict[str, Any]) -> Files:
    return {name: json.dumps(value).encode() for name, value in files.items()}


# ---- damage ----------------------------------------------------------------------------------------------------------

PATTERNS = ["(", "[", "]", ")", "*", "+", "?", ".", "|", "\\", "^", "$", "{2}", "{1,50}", "{900}", "{,3}", "(?:", "(?P<index>",
            "(?<=", "[^]", "[[:alpha:]", "query", "a", "\\d", "\\1", "\\N{DIGIT ONE}", "\\p{L}", "(?i)", "(?R)", "{e<=1}", "#"]  # fmt: skip
TEXTS = [
    "",
    "a",
    "0",
    "base",
    "../../x",
    "/etc/passwd",
    "a\0b",
    "\ud800",
    "\u202e",
    "x" * 5000,
    "é" * 300,
    "__metadata__",
]
NUMBERS = [0, 1, -1, 2, 3, 2**31, 2**63, 2**64, 10**30, -(10**30), 10**39, 0.0, 1.5, 2.0, -0.0, 1e308, 1e-320]
RAW = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "1" * 5000,
    "[" * 2000,
    '{"a":' * 2000,
    "nul",
    "",
    "'a'",
    '"\\x"',
    '"\t"',
]


def any_value(random: Random, depth: int = 0) -> Any:
    """Some JSON value, likely one that fits nowhere."""
    kind = random.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return random.choice([None, True, False])
    if kind == 1:
        return random.choice(NUMBERS)
    if kind == 2:
        return random.choice(TEXTS)
    if kind == 3:
        return "".join(random.choices(PATTERNS, k=random.randrange(1, 30)))
    if kind == 4:
        return random.randrange(-5, 1000)
    if kind == 5:
        return random.choice(
            ["LORA", "SEQ_CLS", "all-linear", "classifier", "pooler", "lora_only", "F32", "I8", "F8_E4M3"]
        )
    if kind == 6:
        return [any_value(random, depth + 1) for _ in range(random.randrange(5))]
    if kind == 7:
        return [any_value(random, 3)] * random.choice([10, 300, 3000])
    return {str(any_value(random, 3)): any_value(random, depth + 1) for _ in range(random.randrange(5))}


def change_json(value: Any, random: Random) -> Any:
    """The value with one place in it replaced, taken away, doubled or moved."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice([*value])
        kind = random.randrange(8)
        if kind == 0:
            return {name: item for name, item in value.items() if name != key}
        if kind == 1:
            return value | {str(any_value(random, 3)): value[key]}
        if kind == 2:
            return value | {key: value[random.choice([*value])]}
        return value | {key: change_json(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        place = random.randrange(len(value))
        new = random.choice([[], [value[place]] * 2, [change_json(value[place], random)]])
        return [*value[:place], *new, *value[place + 1 :]]
    return any_value(random)


def change_bytes(content: bytes, random: Random) -> bytes:
    """Bits flipped, bytes overwritten, cut out, cut off, moved, repeated."""
    data = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 5])):
        start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
        end = min(end, start + random.choice([1, 2, 8, 64, 5000]))
        kind = random.randrange(7)
        if kind == 0 and data:
            data[start % len(data)] ^= 1 << random.randrange(8)
        elif kind == 1:
            data[start:end] = random.randbytes(end - start)
        elif kind == 2:
            del data[start:end]
        elif kind == 3:
            del data[start:]
        elif kind == 4:
            data[start:start] = data[end : end + 64]
        elif kind == 5:
            data[start:end] = random.choice([b"\0", b"\xff", b"\x7f", b"["]) * (end - start)
        else:
            data[start : start + 8] = struct.pack(
                random.choice("<>") + "Q", random.choice([0, 1, 2**31, 2**63, len(data)])
            )
    return bytes(data)


def change_pattern(content: bytes, random: Random) -> bytes:
    """A config with a made-up regular expression where one is read."""
    config, pattern = json.loads(content), "".join(random.choices(PATTERNS, k=random.randrange(1, 60)))
    key = random.choice(["target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"])
    return json.dumps(config | {key: {pattern: 2} if key.endswith("k_pattern") or key[0] == "a" else pattern}).encode()


def change_header(content: bytes, random: Random) -> bytes:
    """A safetensors file with its header changed by structure, the length made right again (mostly)."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    for _ in range(random.choice([1, 1, 3])):
        header = change_json(header, random)
    text = dumped(header, random)
    return (
        struct.pack("<Q", len(text) + (random.randrange(-9, 9) if random.random() < 0.1 else 0) & 2**64 - 1)
        + text
        + content[8 + size :]
    )


def dumped(value: Any, random: Random) -> bytes:
    """JSON, now and then with something raw in it that is none."""
    text = json.dumps(value)
    if random.random() < 0.1:
        place = random.randrange(len(text) + 1)
        text = text[:place] + random.choice(RAW) + text[place:]
    return text.encode()


def damaged(files: Files, random: Random) -> Files:
    """An adapter with some of its files damaged."""
    files = dict(files)
    for name in random.sample([*files], random.choice([1, 1, 2])):
        content = files[name]
        kind = random.random()
        if name == "adapter_config.json" and kind < 0.3:
            files[name] = change_pattern(content, random)
        elif name.endswith(".json") and kind < 0.75:
            value = json.loads(content)
            for _ in range(random.choice([1, 1, 2, 4])):
                value = change_json(value, random)
            files[name] = dumped(value, random)
        elif name.endswith(".safetensors") and kind < 0.6:
            files[name] = change_header(content, random)
        elif kind < 0.95:
            files[name] = change_bytes(content, random)
        else:
            del files[name]
    return files


# ---- the readers -----------------------------------------------------------------------------------------------------


def archived(files: Files, random: Random) -> tuple[str, bytes]:
    """The files as an archive of some kind."""
    out, kind = io.BytesIO(), random.randrange(4)
    if kind < 2:
        with zipfile.ZipFile(out, "w", random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as target:
            for name, content in files.items():
                target.writestr(zipfile.ZipInfo(name), content)
        return "a.zip", out.getvalue()
    with tarfile.open(fileobj=out, mode="w", format=random.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])) as target:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))
    return ("a.tar", out.getvalue()) if kind == 2 else ("a.tgz", gzip.compress(out.getvalue(), 1, mtime=0))


def example(seed: int, good: list[Files]) -> Callable[[Path], list[tuple[str, Path]]]:
    """An upload that follows from the seed; written into a directory, it is what `unpack` receives."""
    random = Random(seed)
    files = random.choice(good)
    if random.random() < 0.3:
        name, content = archived(files if random.random() < 0.8 else damaged(files, random), random)
        sent = {name: change_bytes(content, random)}
    else:
        sent = damaged(files, random)

    def write(directory: Path) -> list[tuple[str, Path]]:
        received = []
        for place, (name, content) in enumerate(sent.items()):
            (directory / str(place)).write_bytes(content)
            received.append((name, directory / str(place)))
        return received

    return write


def run(seed: int, good: list[Files], directory: str | None = None) -> str:
    """Receive, unpack and read one example. Returns what came of it; any error but a LoratError goes through."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        place = Path(name)
        (place / "received").mkdir()
        received = example(seed, good)(place / "received")
        try:
            unpacked = unpack(received, place / "files", LIMITS)
            adapter = read_adapter(unpacked.directory, BASE, max_rank=64)
            json.dumps(adapter.recipe and adapter.recipe.to_json(), allow_nan=False).encode()
            json.dumps([adapter.head and adapter.head.labels, adapter.tags], ensure_ascii=False).encode()
        except LoratError as error:
            refusal = error
        else:
            return "accepted"
    assert 10 < len(str(refusal).encode()) < 2000, str(refusal)[:200]
    return type(refusal).__name__
