"""A tiny base that tells words apart, and data of each kind."""

import json
import shutil

import pytest
import torch
from transformers import BertConfig, BertModel

from lorat.base import locate_base

WORDS = {
    "animal": ("cat", "dog", "horse", "sheep", "wolf", "mouse"),
    "colour": ("red", "blue", "green", "black", "white", "yellow"),
}


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("private") / "tiny-bert"
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.2,  # so that a random base tells words apart
        hidden_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(locate_base(None) / name, directory)
    return directory


def rows(first=0, count=24):
    """Texts with one label each."""
    return [
        {"text": f"this {WORDS[label][n % 6]} is number {first + n}", "label": label}
        for n in range(count // 2)
        for label in WORDS
    ]


def several(first=0, count=24):
    """Texts with any number of labels."""
    chosen = [[label for bit, label in enumerate(sorted(WORDS)) if n >> bit & 1] for n in range(count)]
    return [
        {"text": " ".join(["number", str(first + n), *(WORDS[label][n % 6] for label in own)]), "labels": own}
        for n, own in enumerate(chosen)
    ]


def tagged(first=0, count=24):
    """Words with tags."""
    return [
        {
            "tokens": ["a", WORDS["colour"][n % 6], "and", "old", WORDS["animal"][n % 6], f"{first + n}"],
            "tags": ["O", "B-colour", "O", "B-animal", "I-animal", "O"],
        }
        for n in range(count)
    ]


def scored(first=0, count=24):
    """Pairs with a score."""
    pick = list(WORDS)
    return [
        {
            "text_a": f"a {WORDS[pick[n % 2]][n % 6]} {first + n}",
            "text_b": f"the {WORDS[pick[n // 2 % 2]][(n + 1) % 6]}",
            "score": 5.0 if n % 2 == n // 2 % 2 else 0.5,
        }
        for n in range(count)
    ]


def positive(first=0, count=24):
    """Pairs that belong together."""
    every = [word for words in WORDS.values() for word in words]
    return [{"text_a": f"a {every[n % 12]} {first + n}", "text_b": f"{every[n % 12]} it is, {n}"} for n in range(count)]


def write(path, lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")


def directory_of(path, make):
    """Splits of rows that `make` makes."""
    path.mkdir()
    for name, first, count in (("train", 0, 36), ("dev", 40, 12), ("test", 60, 12)):
        write(path / f"{name}.jsonl", make(first, count))
    return path
