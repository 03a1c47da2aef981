"""One stack for all tests, built from a clean clone, with adapters whose answers PEFT has given."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.app.conftest import upload
from tests.deploy.stack import Stack, clone, make_image
from tests.deploy.traffic import Question, Traffic
from tests.oracle import PeftAdapter, make_peft

WORDS = [
    "the",
    "card",
    "has",
    "not",
    "arrived",
    "and",
    "nobody",
    "answers",
    "so",
    "please",
    "send",
    "another",
    "one",
    "soon",
]
BODY_BYTES = {100: 60, 300: 25, 1_000: 7, 4_000: 4, 20_000: 2, 200_000: 2}  # and how many of a hundred are so large
RATE = float(os.environ.get("DEPLOY_RATE", "200"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/deploy" in item.path.as_posix():
            item.add_marker(pytest.mark.deploy)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas and the gateway, as `make image` and `docker compose up` start them."""
    made = Stack(clone(tmp_path_factory.mktemp("clone") / "lorat"))
    print(f"\nmake image: {make_image(made.directory):.0f} s")
    # While one replica is away the other has all of a traffic that was as much as both held: it waits, and is not refused.
    made.set(LORAT_MAX_QUEUE_SECONDS="60")
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory, minilm_path: Path) -> dict[str, PeftAdapter]:
    """Embedders and classifiers on the real base, of several ranks."""
    directory = tmp_path_factory.mktemp("adapters")
    embedders = {f"e{n}": make_peft(minilm_path, directory / f"e{n}", seed=n, r=2 + 2 * n) for n in range(5)}
    classifiers = {
        f"c{n}": make_peft(minilm_path, directory / f"c{n}", task="SEQ_CLS", num_labels=3, seed=9 + n, r=4)
        for n in range(3)
    }
    return embedders | classifiers


@pytest.fixture(scope="session")
def questions(stack: Stack, adapters: dict[str, PeftAdapter]) -> list[Question]:
    """Requests of 100 B to 200 KB by every way to name an adapter; the adapters are uploaded through the gateway."""
    with stack.client() as client:
        for name, adapter in adapters.items():
            assert upload(client, name, adapter.directory).status_code == 201
    asked = []
    for position, (name, adapter) in enumerate(adapters.items()):
        for number, size in enumerate(BODY_BYTES):
            question = _question(name, adapter, _text(size, position), position + number)
            asked.append(replace(question, weight=BODY_BYTES[size]))
    return asked


def _text(size: int, start: int) -> str:
    words = [WORDS[(start + number) % len(WORDS)] for number in range(size // 4)]
    return " ".join(words)[: max(size - 60, 20)]


def _question(name: str, adapter: PeftAdapter, text: str, way: int) -> Question:
    [answer] = adapter.answers([text])
    native = json.dumps({"inputs": text}).encode()
    if name.startswith("c"):
        return Question(f"/classify?adapter={name}", native, name, answer.softmax(0).numpy())
    if way % 3 == 1:
        return Question(f"/models/{name}", native, name, answer.numpy())
    if way % 3 == 2:
        return Question("/v1/embeddings", json.dumps({"input": text, "model": name}).encode(), name, answer.numpy())
    return Question(f"/embed?adapter={name}", native, name, np.asarray(answer.numpy()))


@pytest.fixture
def traffic(stack: Stack, questions: list[Question]) -> Callable[[], Traffic]:
    """Traffic through the gateway, to be entered."""
    return lambda: Traffic("127.0.0.1", stack.port, stack.setting("LORAT_API_KEY"), questions, RATE)
