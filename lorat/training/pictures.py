"""The pictures of a training report. Each function takes plain data and writes one PNG or SVG file.

matplotlib is imported when a picture is drawn. Colours are those of Okabe and Ito, apart for every kind of colour
vision. The same data give the same bytes.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorat.training import statistics
from lorat.training.statistics import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Points = Sequence[tuple[float, float]]
RIGHT, WRONG, QUIET = "#0072B2", "#D55E00", "#6b7280"
WIDTH = 8.0
"""Inches: at 100 dots each, what a README shows; the files have twice as many."""

_STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left", "axes.labelsize": 10,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": QUIET, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#e5e7eb", "xtick.color": QUIET, "ytick.color": QUIET,
    "xtick.labelcolor": "black", "ytick.labelcolor": "black", "text.parse_math": False, "svg.hashsalt": "lorat",
}  # fmt: skip
_METADATA: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
_COUNTED, _NAMED, _TICKS = 20, 200, (0.01, 0.1, 0.25, 0.5, 1)
_BLUES, _ORANGES = ("#cfe5f3", RIGHT, "#003a5c"), ("#ffd9b0", "#ee8434", "#8c3500")
_WIDE = {"Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Arial Unicode MS", "Microsoft YaHei"}
"""Fonts of more scripts than DejaVu Sans, which comes with matplotlib; used where the machine has them."""


@contextmanager
def picture(path: Path, height: float, width: float = WIDTH, dpi: int = 200) -> Iterator["Figure"]:
    """A figure of some inches in the one style, written when the block ends. matplotlib's settings stay as they were.

    A character that no font has is drawn as a box. Raises KeyError unless `path` ends in `.png` or `.svg`.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metadata = _METADATA[path.suffix]
    with matplotlib.rc_context(_STYLE | {"font.family": _families()}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not support")
        figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, metadata=metadata)


def draw_curves(path: Path, losses: Points, scores: Points, score_name: str, kept: float) -> None:
    """Training loss (left axis) and dev score (right axis) by epoch, and which epoch was `kept`.

    losses, scores: (epoch, value) of each step or evaluation. Many losses are drawn pale, with their running mean.
    """
    with picture(path, 3.6) as figure:
        left = figure.subplots()
        right = left.twinx()
        _line(left, losses, RIGHT, "training loss")
        right.plot(*_columns(scores), color=WRONG, marker="o", markersize=4, label=f"dev {score_name}")
        best = [score for score in scores if score[0] == kept]
        found = "".join(f", {score_name} {value:.4f}" for _, value in best)
        left.axvline(kept, color=QUIET, linestyle="--", linewidth=1, label=f"kept: epoch {kept:g}{found}")
        right.plot(*_columns(best), "o", color=WRONG, markersize=9)
        right.grid(visible=False)
        left.locator_params(axis="x", integer=True)
        left.set_xlabel("epoch")
        left.set_ylabel("training loss", color=RIGHT)
        right.set_ylabel(f"dev {score_name}", color=WRONG)
        figure.legend(loc="outside upper left", ncols=3)


def _columns(points: Points) -> tuple[NDArray[Any], NDArray[Any]]:
    first, second = np.asarray(points, dtype=np.float64).reshape(-1, 2).T
    return first, second


def _line(axes: "Axes", points: Points, colour: str, label: str) -> None:
    epochs, values = _columns(points)
    window = max(len(values) // 20, 1)
    axes.plot(epochs, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(epochs, statistics.running_mean(values, window if window > 2 else 1), color=colour, label=label)


def draw_confusion(path: Path, matrix: NDArray[Any], labels: Sequence[str]) -> None:
    """Which label was taken for which, and a list of the ten commonest mistakes.

    matrix: (labels, labels) counts; its rows are the truth. Right is blue, wrong is orange, the darker the greater its
    share of the row; white is none. A name that no font here can draw is `label` and its index. Picture and list grow
    with the labels; above 200 only some are named.
    """
    counts = np.asarray(matrix, dtype=np.int64).reshape(len(labels), len(labels))
    side = float(np.clip(0.12 * len(labels), min(0.8 * len(labels), 4.2), 18))
    font = min(52 * side / max(len(labels), 1), 9.0) if len(labels) <= _NAMED else 14.0
    with picture(path, 1, dpi=120 if len(labels) > _COUNTED else 200) as figure:
        names = _drawable([statistics.short(label) for label in labels])
        margin = _inches(figure, names, font)
        scale = max((side + margin) / (WIDTH - 2.4), 1)
        worst = statistics.most_confused(counts, names)
        width, bottom = WIDTH * scale, margin + scale * (0.75 + 0.17 * (worst.count("\n") + 1))
        height = bottom + max(side, 1.4 * scale - margin) + 0.35 * scale
        figure.set_layout_engine("none")
        figure.set_size_inches(width, height)
        left = margin + 0.55 * scale
        axes = _place(figure, left, height - 0.35 * scale - side, side, side)
        _name(axes, names, font, 10 * scale)
        for place, (kind, image) in enumerate(_shade(axes, counts)):
            bar = left + side + scale * (0.15 + 0.8 * place)
            _explain(_place(figure, bar, height - 1.75 * scale, 0.13 * scale, 1.4 * scale), image, kind, 8 * scale)
        figure.text(0.15 / WIDTH, 0.1 * scale / height, worst, va="bottom", fontsize=9 * scale, linespacing=1.3)


def _place(figure: "Figure", left: float, bottom: float, width: float, height: float) -> "Axes":
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _inches(figure: "Figure", names: Sequence[str], font: float) -> float:
    texts = [figure.text(0, 0, name, fontsize=font) for name in names]
    widths = [text.get_window_extent().width for text in texts]
    for text in texts:
        text.remove()
    return max(widths, default=0.0) / figure.dpi


def _shade(axes: "Axes", counts: NDArray[Any]) -> Iterator[tuple[str, "AxesImage"]]:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    shares, right = statistics.row_shares(counts), np.eye(len(counts), dtype=bool)
    for kind, colours, hidden in (("right", _BLUES, ~right), ("wrong", _ORANGES, right)) if len(counts) else ():
        drawn = np.ma.masked_where(hidden | (counts == 0), shares)
        shades = LinearSegmentedColormap.from_list(kind, colours)
        yield kind, axes.imshow(drawn, shades, norm=PowerNorm(0.5, 0, 1), interpolation="nearest", zorder=2)
    if len(counts) <= _COUNTED:
        _count(axes, counts)


def _explain(axes: "Axes", image: "AxesImage", kind: str, font: float) -> None:
    axes.figure.colorbar(image, cax=axes, ticks=_TICKS, format="{x:.0%}")
    axes.set_title(kind, fontsize=font, pad=font * 0.8)
    axes.set_xlabel("of the row", fontsize=font, loc="left")
    axes.tick_params(labelsize=font)
    axes.grid(visible=False)


def _name(axes: "Axes", names: Sequence[str], font: float, title_font: float) -> None:
    places = range(0, len(names), 1 if len(names) <= _NAMED else len(names) // 50)
    axes.set_xticks(places, [names[place] for place in places], fontsize=font, rotation=90)
    axes.set_yticks(places, [names[place] for place in places], fontsize=font)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted", fontsize=title_font)
    axes.set_ylabel("truth", fontsize=title_font)
    axes.grid(visible=len(names) > _COUNTED)
    axes.spines[:].set_visible(True)


def _count(axes: "Axes", counts: NDArray[Any]) -> None:
    font = min(8, 460 / max(len(counts) * len(f"{counts.max(initial=0)}"), 1))
    for (truth, predicted), share in np.ndenumerate(statistics.row_shares(counts)):
        if count := counts[truth, predicted]:
            colour = "white" if share > 0.3 else "black"
            axes.text(predicted, truth, f"{count}", ha="center", va="center", fontsize=font, color=colour, zorder=3)


def _families() -> list[str]:
    from matplotlib.font_manager import fontManager

    return ["DejaVu Sans", *sorted(_WIDE.intersection(fontManager.get_font_names()))]


def _drawable(names: Sequence[str]) -> list[str]:
    from matplotlib import font_manager, rcParams

    families = [font_manager.FontProperties(family=[family]) for family in rcParams["font.family"]]
    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in families]
    known = {character for font in fonts for character in font.get_charmap()}
    return [name if {*map(ord, name)} <= known else f"label {place}" for place, name in enumerate(names)]


def draw_score_by_length(
    path: Path, lengths: Sequence[int], scores: Sequence[Any], score_name: str, measure: Measure | None = None
) -> None:
    """Score with its 95% interval, in buckets of about as many rows each, by length of text.

    lengths: tokens of each row; scores: of each row, 1 or 0 for right or wrong, or any other measure. measure: what the
    scores of some rows come to; None for their mean.
    """
    measure = measure or statistics.mean_measure(scores)
    buckets = statistics.length_buckets(lengths, scores, measure=measure)
    with picture(path, 3.4) as figure:
        axes = figure.subplots()
        for place, bucket in enumerate(buckets):
            axes.plot([place, place], [bucket.score.low, bucket.score.high], color=RIGHT, linewidth=2)
            axes.plot(place, bucket.score.value, "o", color=RIGHT)
        if buckets:
            overall = measure(np.asarray(scores, dtype=np.float64)).value
            axes.axhline(overall, color=QUIET, linestyle="--", linewidth=1, label=f"all rows: {overall:.4g}")
            figure.legend(loc="outside upper right")
        axes.set_xticks(range(len(buckets)), [f"{bucket.name}\n{bucket.score.rows} rows" for bucket in buckets])
        axes.set_xlim(-0.6, max(len(buckets), 1) - 0.4)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("tokens" if buckets else "no rows")
        axes.set_ylabel(f"{score_name}, 95% interval")


def draw_similarities(
    path: Path,
    before: tuple[NDArray[Any], NDArray[Any]],
    after: tuple[NDArray[Any], NDArray[Any]],
    names: tuple[str, str] = ("belong together", "do not"),
) -> None:
    """Histograms of cosines: pairs that belong together against pairs that do not, frozen base above adapter.

    before, after: (cosines of pairs that belong together (pairs,), of pairs that do not (pairs,)). names: of the two
    kinds. Each histogram gives shares of its own pairs. The AUC is how often a pair of the first kind is above one of
    the second.
    """
    kinds = list(zip(names, (RIGHT, WRONG), strict=True))
    bins = np.linspace(*statistics.span(np.concatenate([*before, *after])), 61)
    with picture(path, 4.8) as figure:
        panels = figure.subplots(2, 1, sharex=True, sharey=True)
        for axes, pairs, model in zip(panels, (before, after), ("frozen base", "adapter"), strict=True):
            for cosines, (kind, colour) in zip(pairs, kinds, strict=True):
                drawn = {"bins": bins, "weights": np.full(len(cosines), 1 / max(len(cosines), 1)), "color": colour}
                axes.hist(cosines, histtype="stepfilled", alpha=0.35, label=f"{kind}: {len(cosines)} pairs", **drawn)
                axes.hist(cosines, histtype="step", linewidth=1.2, **drawn)
            axes.set_title(f"{model}: AUC {_number(statistics.auc(*pairs))}")
            axes.set_ylabel("share of pairs")
            axes.legend(loc="best")
        panels[1].set_xlabel("cosine similarity")


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.3f}"


def draw_scatter(path: Path, truth: NDArray[Any], before: NDArray[Any], after: NDArray[Any]) -> None:
    """Gold score against cosine for scored pairs, frozen base beside adapter, with Spearman's correlation of each.

    truth, before, after: (pairs,), the gold scores and the cosines of the frozen base and of the adapter.
    """
    size = float(np.clip(6000 / max(len(truth), 1), 3, 25))
    with picture(path, 3.9) as figure:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, cosines, model in zip(panels, (before, after), ("frozen base", "adapter"), strict=True):
            axes.scatter(truth, cosines, s=size, color=RIGHT, alpha=0.4, linewidths=0, rasterized=True)
            axes.set_title(f"{model}: Spearman {_number(statistics.spearman(truth, cosines))}")
            axes.set_xlabel("gold score")
        panels[0].set_ylabel("cosine similarity")
