"""From another library's checkpoint, or a whole fine-tuned model, to an adapter's directory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lorat.adapter import TASKS, Adapter, Task
from lorat.base import EMBEDDED_NAME, load_base, locate_base
from lorat.config import MAX_RANK
from lorat.convert.checkpoint import Checkpoint, read_checkpoint
from lorat.convert.full import from_full
from lorat.convert.kinds import KINDS
from lorat.convert.lora import from_lora
from lorat.convert.parts import Options, Parts, fill
from lorat.convert.report import Report
from lorat.convert.writing import alpha_of, write
from lorat.errors import ConfigError
from lorat.files.out import check_out


def convert(
    source: str | Path,
    out: str | Path,
    *,
    base: str | Path | None = None,
    kind: str = "auto",
    rank: int | None = None,
    alpha: float | None = None,
    labels: Sequence[str] = (),
    drop: bool = False,
    task: Task | None = None,
) -> Report:
    """Write the adapter that a fine-tune comes to into `out`, a directory that is new or empty.

    source: a file (.safetensors, or .pt, .pth, .bin and .ckpt of tensors alone) or a model's directory.
    base: what it was trained on, as `lorat.load_base` takes it.
    kind: "lorat" (a state dict of the original LoRAT class), "loralib", "full" (the directory of a transformers
        BertModel, BertForSequenceClassification or BertForTokenClassification, or of sentence-transformers), or
        "auto", told by the names of the tensors.
    rank: for "full", values kept of each layer's change (default 32); else what the file must have.
    alpha: needed for "lorat" and "loralib", whose files do not hold it; scaling is alpha / rank.
    labels: names of the classifier's outputs, in order, instead of the source's own.
    task: for "lorat" and "loralib", what the classifier is for, where the file does not show it.
    drop: leave out what an adapter cannot carry, and report it, instead of refusing it.

    Nothing in the source is run. Raises ConfigError, BaseError or an AdapterError, naming what to change; then
    nothing has been written.
    """
    options = Options(kind, rank, alpha, tuple(labels), drop, task)
    _check_options(options)
    source, out = Path(source), Path(out)
    check_out(out)
    checkpoint = read_checkpoint(source)
    options = replace(options, kind=kind if kind != "auto" else recognise(checkpoint.tensors))
    parts, adapter = _convert(checkpoint, out, base, options)
    return _report(out, parts, adapter)


def _convert(checkpoint: Checkpoint, out: Path, base: str | Path | None, options: Options) -> tuple[Parts, Adapter]:
    directory = locate_base(base)
    loaded = load_base(directory, device="cpu", dtype="float32")
    if options.kind == "full":
        parts = from_full(checkpoint, loaded, directory, options)
    else:
        parts = from_lora(checkpoint, loaded, options)
    parts = fill(parts, loaded)
    name = EMBEDDED_NAME if base is None else str(base) if not Path(base).is_dir() else directory.name
    return parts, write(parts, out, loaded, name, checkpoint.recipe)


def _check_options(options: Options) -> None:
    if options.kind not in ("auto", *KINDS):
        raise ConfigError(f"kind={options.kind!r}: use auto, {', '.join(KINDS)}")
    if options.task not in (None, *TASKS):
        raise ConfigError(f"task={options.task!r}: use {', '.join(TASKS)}")
    if options.rank is not None and not (type(options.rank) is int and 1 <= options.rank <= MAX_RANK):
        raise ConfigError(f"rank={options.rank!r}: use a whole number from 1 to {MAX_RANK}")
    if options.alpha is not None and not (math.isfinite(options.alpha) and options.alpha > 0):
        raise ConfigError(f"alpha={options.alpha!r}: use a number above 0")


def recognise(tensors: Mapping[str, Any]) -> str:
    """The kind that the names of a source's tensors tell. Raises ConfigError where they tell none."""
    if any(name.endswith((".lora_A.weight", ".lora_A.default.weight")) for name in tensors):
        raise ConfigError(
            "the source holds PEFT's tensors: save them with PEFT's save_pretrained, that is served as is"
        )
    if any(".original_module." in name for name in tensors):
        return "lorat"
    if any(name.endswith((".lora_A", ".lora_B")) for name in tensors):
        return "loralib"
    if any(name.startswith("encoder.layer.") for name in tensors):
        return "full"
    first = next(iter(sorted(tensors)), "nothing")
    raise ConfigError(f"the source is of no known kind (it holds {first[:100]!r}): use {', '.join(KINDS)}")


def _report(out: Path, parts: Parts, adapter: Adapter) -> Report:
    first = next(matrices for matrices in parts.lora.values() if matrices.rank == adapter.rank)
    return Report(
        out=out,
        kind=parts.kind,
        task=parts.task,
        targets=adapter.targets,
        layers=tuple(sorted({site.layer for site in adapter.lora})),
        rank=adapter.rank,
        alpha=alpha_of(first),
        errors=parts.errors,
        error=parts.error,
        head=tuple(parts.head),
        labels=adapter.head.labels if adapter.head else (),
        biases=first.bias is not None,
        recipe=adapter.recipe is not None,
        dropped=parts.dropped,
        notes=(*parts.notes, *_notes(adapter)),
    )


def _notes(adapter: Adapter) -> list[str]:
    bare = adapter.task == "embedding" and adapter.recipe is None
    return ["texts become vectors by the base's recipe: the source has none"] if bare else []
