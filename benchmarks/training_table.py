"""The table of docs/training.md: what its cells hold, in words and as a picture."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.rounds import RESULTS

SETS = (
    "trec6", "sst2", "banking77", "clinc150", "snips", "goemotions_ekman", "uci_sentiment", "wnut17_ner", "stsb_en",
)  # fmt: skip
SYSTEMS = {"lorat": "LoRAT", "peft": "PEFT", "full": "all weights", "frozen": "frozen base"}
"""What is compared, with its name for people."""
COLOURS = {"lorat": "#2b6cb0", "peft": "#c05621", "full": "#2f855a", "frozen": "#718096"}
CELLS = RESULTS / "training"
Scores = Mapping[tuple[str, str], Sequence[float]]


def path_of(name: str, system: str, seed: int) -> Path:
    """The file of one cell."""
    return CELLS / f"{name}-{system}-{seed}.json"


def scores() -> Scores:
    """The main score of each cell there is, in points, by set and system."""
    found: dict[tuple[str, str], list[float]] = {}
    for path in sorted(CELLS.glob("*.json")):
        name, system, _ = path.stem.rsplit("-", 2)
        score = next(iter(json.loads(path.read_text())["scores"].values()))
        found.setdefault((name, system), []).append(100 * float(score))
    return found


def table(found: Scores) -> str:
    """The mean of the seeds, ± their standard deviation, and how many they are."""
    lines = [f"| | {' | '.join(SYSTEMS.values())} |", "|---" * (len(SYSTEMS) + 1) + "|"]
    for name in SETS:
        cells = [_cell(found.get((name, system), [])) for system in SYSTEMS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} ({len(values)})"


def picture(found: Scores) -> Figure:
    """A panel a set: each seed a dot, their mean a line, each system in its colour."""
    figure, panels = plt.subplots(3, 3, figsize=(10, 5.4), sharey=True, layout="constrained")
    for axes, name in zip(panels.flat, SETS, strict=True):
        for row, system in enumerate(SYSTEMS):
            _dots(axes, row, found.get((name, system), []), COLOURS[system])
        axes.set_yticks(range(len(SYSTEMS)), SYSTEMS.values())
        axes.set_title(name, loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].invert_yaxis()
    return figure


def _dots(axes: Axes, row: int, values: Sequence[float], colour: str) -> None:
    axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.5)
    if values:
        axes.vlines(statistics.mean(values), row - 0.35, row + 0.35, color=colour)
