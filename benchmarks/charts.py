"""The pictures of docs/performance.md and docs/training.md, from the numbers in benchmarks/results.

python -m benchmarks.charts
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.rounds import RESULTS
from benchmarks.serve import medians
from benchmarks.training_table import picture, scores

DOCS = Path(__file__).parents[1] / "docs"
plt.rcParams["svg.fonttype"] = "none"  # words stay words
plt.rcParams["svg.hashsalt"] = "lorat"  # the same numbers make the same file
OURS, OTHERS = "#2b6cb0", "#a0aec0"


def main() -> None:
    engine, adapters, serve = (_read(name) for name in ("engine", "adapters", "serve"))
    _bars("engine", "The engine without HTTP: texts/s", engine["texts_per_second"])
    _bars("adapters", "Texts/s by which texts have which adapter (64 slots)", adapters["texts_per_second"])
    by_load = medians(serve["closed"])
    _bars("serve", "Over HTTP: texts/s", {load: row["texts_per_second"] for load, row in by_load.items()})
    one = {load: row["p50_ms"] for load, row in by_load.items() if load.endswith(" 1 texts")}
    _bars("latency", "Over HTTP, one text a request: median latency in ms", one)
    if _there("overload"):
        _overload(_read("overload"))
    if _there("soak"):
        _soak(_read("soak")["samples"])
    _save(picture(scores()), "training-scores")


def _there(name: str) -> bool:
    return (RESULTS / f"{name}.json").exists()


def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return read


def _overload(result: Mapping[str, Any]) -> None:
    """What is served, how long it takes and how quickly the rest is refused, by the load."""
    sizes = {size: row for size, row in result.items() if size.endswith(" texts")}
    figure, panels = plt.subplots(len(sizes), 3, figsize=(10, 2.6 * len(sizes)), squeeze=False, layout="constrained")
    for axes, (size, row) in zip(panels, sizes.items(), strict=True):
        shares = [load["share"] for load in row["loads"]]
        shown = {
            "texts/s answered": [load["goodput"] for load in row["loads"]],
            "p99 of the answered, ms": [load["p99_ms"] for load in row["loads"]],
            "slowest refusal, ms": [load["refused_p100_ms"] for load in row["loads"]],
        }
        for panel, (title, values) in zip(axes, shown.items(), strict=True):
            panel.plot(shares, values, marker="o", color=OURS)
            panel.set_ylim(bottom=0)
            panel.set_title(f"{size} a request: {title}", loc="left", fontsize=9)
            panel.set_xlabel("load, times the capacity")
            panel.spines[["top", "right"]].set_visible(False)
        axes[0].axhline(row["capacity"], color=OTHERS, linestyle=":")
    _save(figure, "performance-overload")


def _soak(samples: Sequence[Mapping[str, float]]) -> None:
    """The process as time goes."""
    figure, panels = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
    for panel, name in zip(panels, ("rss_mb", "descriptors", "threads"), strict=True):
        panel.plot([one["seconds"] / 60 for one in samples], [one[name] for one in samples], color=OURS)
        panel.set_ylim(bottom=0)
        panel.set_title(name.replace("rss_mb", "resident memory, MB"), loc="left", fontsize=9)
        panel.set_xlabel("minutes")
        panel.spines[["top", "right"]].set_visible(False)
    _save(figure, "performance-soak")


def _save(figure: Figure, name: str) -> None:
    figure.savefig(DOCS / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def _bars(name: str, title: str, values: Mapping[str, float]) -> None:
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.28 * len(values)))
    peers = ("torch", "peft", "openvino", "onnx", "infinity")
    bars = axes.barh(list(values), list(values.values()))
    for bar, label in zip(bars, values, strict=True):
        bar.set_color(OTHERS if label.startswith(peers) else OURS)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left")
    _save(figure, f"performance-{name}")


if __name__ == "__main__":
    main()
