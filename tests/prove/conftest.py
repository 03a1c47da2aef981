"""The longer proofs. Each keeps its last result in docs/proofs/."""

import platform
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
import torch

from app.engine.cores import cores

RESULTS = Path(__file__).parents[2] / "docs" / "proofs"


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """Collects lines; written to docs/proofs/<test>.md when the proof has held."""
    lines: list[str] = []
    failed = request.session.testsfailed
    yield lines.append
    if request.session.testsfailed == failed and lines:
        name = request.node.name.removeprefix("test_")
        head = f"# {name.replace('_', ' ')}\n\n`make prove`, {date.today()}, torch {torch.__version__}, {platform.machine()}, "
        text = f"{head}{cores()} cores.\n\n" + "\n".join(lines) + "\n"
        (RESULTS / f"{name}.md").write_text(text)
