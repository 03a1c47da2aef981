"""Probes: texts with the answers that an adapter gave when it was saved.

They are kept in `lorat.json` and asked again when the adapter is loaded: on a wrong base, or with a broken
engine, the answers differ, and the adapter is refused before its first real one.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from lorat.adapter import Adapter, Probe
from lorat.errors import ProbeError
from lorat.files.adapter_file import read_adapter
from lorat.files.facts import FACTS
from lorat.files.json_file import read_json
from lorat.multi import MultiLoRAT
from lorat.rows import Row
from lorat.slots import Slot

TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""Largest difference of one value that passes, by the dtype that computes. Another base differs by 0.1 and more."""


def make_probes(model: MultiLoRAT, slot: Slot, texts: Sequence[str]) -> tuple[Probe, ...]:
    """Ask a loaded adapter, and keep what it says."""
    rows = _ask(model, slot, texts)
    return tuple(
        Probe(text, tuple(round(value, 6) for value in row.tolist())) for text, row in zip(texts, rows, strict=True)
    )


def write_probes(directory: Path, model: MultiLoRAT, texts: Sequence[str]) -> None:
    """Ask the adapter in a directory, and add what it says to its `lorat.json`; without texts nothing."""
    if not texts:
        return
    slot = model.prepare(read_adapter(directory, model.base.shape, max_rank=model.max_rank))
    facts = read_json(directory / FACTS, dict)
    facts["probes"] = [asdict(probe) for probe in make_probes(model, slot, texts)]
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    flat = re.sub(r"(?<=[\[,])\n\s+(?=-?\d)|(?<=\d)\n\s+(?=\])", "", text)  # a vector on one line; no text has a raw \n
    (directory / FACTS).write_text(flat + "\n", encoding="utf-8")


def verify_probes(model: MultiLoRAT, adapter: Adapter) -> None:
    """Ask an adapter its probes, if it has any, without taking a slot. Raises ProbeError where an answer differs."""
    if not adapter.probes:
        return
    rows = _ask(model, model.prepare(adapter), [probe.text for probe in adapter.probes])
    for probe, row in zip(adapter.probes, rows, strict=True):
        name = f"lorat.json: the probe {probe.text[:40]!r}"
        if len(row) != len(probe.expected):
            raise ProbeError(f"{name} expects {len(probe.expected)} values, the answer has {len(row)}")
        difference = (row - torch.tensor(probe.expected)).abs().max().item()
        if not difference <= TOLERANCE[model.dtype]:
            raise ProbeError(
                f"{name} is answered {difference:.2g} off what it was when the adapter was saved: "
                "this base is not the one it was trained on, or the files were changed"
            )


def _ask(model: MultiLoRAT, slot: Slot, texts: Sequence[str]) -> Tensor:
    """(texts, values) float32: normalised vectors, or scores by label (the mean over a text's tokens)."""
    adapter = slot.adapter
    tokens = model.base.encode(texts, model.recipe(slot))
    outputs = model.forward([Row(token, slot, adapter.task) for token in tokens])
    if adapter.head is None:
        return F.normalize(torch.stack(outputs), dim=1).cpu()
    scores = [adapter.head.scores(output) for output in outputs]
    return torch.stack([row.mean(0) if row.dim() == 2 else row for row in scores]).cpu()
