"""The pictures of docs/performance.md, from the numbers in benchmarks/results.

python -m benchmarks.charts
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.rounds import RESULTS
from benchmarks.serve import medians

DOCS = Path(__file__).parents[1] / "docs"
plt.rcParams["svg.fonttype"] = "none"  # words stay words
OURS, OTHERS = "#2b6cb0", "#a0aec0"


def main() -> None:
    engine, adapters, serve = (_read(name) for name in ("engine", "adapters", "serve"))
    _bars("engine", "The engine without HTTP: texts/s", engine["texts_per_second"])
    _bars("adapters", "Texts/s by which texts have which adapter (64 slots)", adapters["texts_per_second"])
    by_load = medians(serve["closed"])
    _bars("serve", "Over HTTP: texts/s", {load: row["texts_per_second"] for load, row in by_load.items()})
    one = {load: row["p50_ms"] for load, row in by_load.items() if load.endswith(" 1 texts")}
    _bars("latency", "Over HTTP, one text a request: median latency in ms", one)


def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return read


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
    figure.savefig(DOCS / f"performance-{name}.svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
