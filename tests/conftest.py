"""Bases that tests share: the embedded MiniLM, and a tiny random BERT with the same tokenizer."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve whatever runs beside them

import shutil
from pathlib import Path

import hypothesis
import pytest
import torch
import transformers
from transformers import BertConfig, BertModel

from lorat import MultiLoRAT
from lorat.base import locate_base

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("untimed")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
# Files that take a minute: first, or in the end one worker has two of them and the others nothing.
LONG = ("test_training_page", "test_process", "test_train", "test_replicas", "test_inference", "test_engine", "test_readme",
        "test_traces", "test_connections", "test_logs", "test_hostile", "test_model_loop", "test_multi")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    return locate_base(None)


@pytest.fixture(scope="session")
def minilm(minilm_path: Path) -> MultiLoRAT:
    return MultiLoRAT.from_pretrained(device="cpu", slots=64)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory, minilm_path: Path) -> Path:
    """A random BERT of 3 layers, hidden 32, with a pooler."""
    directory = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, vocab_size=30522
    )
    BertModel(config).save_pretrained(directory)
    for name in TOKENIZER_FILES:
        shutil.copy(minilm_path / name, directory)
    return directory


@pytest.fixture
def tiny(tiny_path: Path) -> MultiLoRAT:
    return MultiLoRAT.from_pretrained(tiny_path, device="cpu", slots=8)
