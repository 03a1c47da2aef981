from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from lorat.training import pictures, statistics
from lorat.training.statistics import Mistake

pytest.importorskip("matplotlib")
NONE = np.array([])
LONG = ["card_payment_wrong_exchange_rate", "наказание", "中文标签", "مرحبا", "cost $5_$6 ^{", "a\nb", "x" * 300]


def confusion(labels: int) -> np.ndarray:
    generator = np.random.default_rng(labels)
    return np.diag(generator.integers(5, 20, labels)) + generator.integers(0, 2, (labels, labels))


def curves(path: Path, steps: int = 200) -> None:
    losses = [(step / 50, 3.0 / (1 + step)) for step in range(steps)]
    pictures.draw_curves(path, losses, [(1.0, 0.5), (2.0, 0.8), (3.0, 0.7)], "accuracy", 2.0)


def lengths(path: Path) -> None:
    rows = np.arange(300) % 40
    pictures.draw_score_by_length(path, rows.tolist(), (rows < 30).astype(float).tolist(), "accuracy")


def similarities(path: Path) -> None:
    similar, other = np.linspace(0, 1, 100), np.linspace(-0.5, 0.5, 300)
    pictures.draw_similarities(path, (similar, other), (similar, other - 0.4))


def scatter(path: Path) -> None:
    truth = np.arange(50) / 10
    pictures.draw_scatter(path, truth, np.cos(truth), truth / 5)


def correlations(path: Path) -> None:
    pairs = [(row % 7, row % 11) for row in range(300)]
    measure = statistics.correlation_of
    pictures.draw_score_by_length(path, [row % 40 for row in range(300)], pairs, "Spearman", measure)


DRAWN: dict[str, Callable[[Path], None]] = {
    "curves": curves,
    "two labels": lambda path: pictures.draw_confusion(path, confusion(2), ["no", "yes"]),
    "long names": lambda path: pictures.draw_confusion(path, confusion(7), LONG),
    "lengths": lengths,
    "similarities": similarities,
    "scatter": scatter,
    "correlations": correlations,
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_a_picture_is_a_png_as_wide_as_a_readme_needs_and_the_same_each_time(tmp_path, draw):
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.format == "PNG" and not image.info.keys() - {"dpi"}
        assert 1600 <= image.width <= 2400 and 600 <= image.height <= 2600
        left, top, right, bottom = Image.eval(image.convert("L"), lambda value: 255 - value).getbbox()
        assert left > 0 and top > 0 and right < image.width and bottom < image.height  # nothing is cut
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_a_picture_is_an_svg_the_same_each_time(tmp_path, draw):
    for name in ("a.svg", "b.svg"):
        draw(tmp_path / name)
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()[:600]
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(KeyError):
        curves(tmp_path / "a.pdf")


def test_the_settings_of_matplotlib_stay_as_they_were(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    curves(tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("labels", [77, 210])
def test_a_confusion_of_many_labels_grows_and_shows_every_mistake(tmp_path, labels):
    matrix = np.diag(np.full(labels, 500))
    matrix[3, 20] = 1
    pictures.draw_confusion(tmp_path / "a.png", matrix, [f"label_of_some_length_{place}" for place in range(labels)])
    with Image.open(tmp_path / "a.png") as image:
        red, _, blue = (np.asarray(image.convert("RGB"), dtype=int)[..., channel] for channel in range(3))
    orange = (red - blue > 40)[:, : int(0.7 * red.shape[1])]  # left of the scales
    assert 1600 < red.shape[1] < 5000
    assert orange.sum() > 60  # one of 500, and still a square of its colour
    blues = (blue - red > 80)[:, : int(0.7 * red.shape[1])]
    assert blues.sum() > 60 * labels


def test_nothing_to_draw_is_drawn_as_nothing(tmp_path):
    path = tmp_path / "a.png"
    pictures.draw_curves(path, [], [], "accuracy", 1.0)
    pictures.draw_curves(path, [(1.0, float("nan"))], [(1.0, 0.5)], "accuracy", 2.0)
    pictures.draw_confusion(path, np.zeros((0, 0)), [])
    pictures.draw_confusion(path, np.array([[3]]), ["only"])
    pictures.draw_confusion(path, np.zeros((2, 2)), ["a", "b"])
    pictures.draw_score_by_length(path, [], [], "accuracy")
    pictures.draw_score_by_length(path, [4], [1.0], "accuracy")
    pictures.draw_score_by_length(path, [4], [0.3], "error")
    pictures.draw_similarities(path, (NONE, NONE), (np.array([0.5]), NONE))
    pictures.draw_scatter(path, NONE, NONE, NONE)
    pictures.draw_scatter(path, np.ones(1), np.ones(1), np.ones(1))
    assert path.stat().st_size


def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text of every figure that is written from now on."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    seen: list[str] = []
    write = Figure.savefig

    def spy(figure: Figure, *args: object, **options: object) -> None:
        write(figure, *args, **options)
        seen.extend(text.get_text() for text in figure.findobj(Text))

    monkeypatch.setattr(Figure, "savefig", spy)
    return seen


def test_the_numbers_are_written(tmp_path, monkeypatch):
    seen = texts(monkeypatch)
    for name, draw in DRAWN.items():
        draw(tmp_path / f"{name}.png")
    truth = np.arange(50) / 10
    assert "kept: epoch 2, accuracy 0.8000" in seen
    assert f"frozen base: Spearman {stats.spearmanr(truth, np.cos(truth)).statistic:.3f}" in seen
    assert "adapter: Spearman 1.000" in seen
    assert "belong together: 100 pairs" in seen and "do not: 300 pairs" in seen
    assert f"all rows: {np.mean(np.arange(300) % 40 < 30):.4g}" in seen
    assert "0-4\n40 rows" in seen


def test_names_that_no_font_can_draw_become_their_index(tmp_path, monkeypatch):
    seen = texts(monkeypatch)
    matrix = np.array([[3, 1], [0, 4]])
    pictures.draw_confusion(tmp_path / "a.png", matrix, ["наказание", "\U0001f9ff\ue000"])
    assert "наказание" in seen and "label 1" in seen
    assert "most confused (1 of 1 kinds of mistakes):\n1 of 4: наказание taken for label 1" in seen


def test_mistakes_are_ordered_by_their_rows_then_their_share():
    matrix = np.array([[7, 2, 1], [2, 2, 0], [0, 3, 9]])
    assert statistics.mistakes(matrix) == [
        Mistake(2, 1, 3, 12), Mistake(1, 0, 2, 4), Mistake(0, 1, 2, 10), Mistake(0, 2, 1, 10),
    ]  # fmt: skip
    assert statistics.most_confused(matrix, ["a", "b", "c"], most=2) == (
        "most confused (2 of 4 kinds of mistakes):\n3 of 12: c taken for b\n2 of 4: b taken for a"
    )
    assert statistics.most_confused(np.diag([1, 2]), ["a", "b"]) == "no mistakes"
    assert statistics.row_shares(np.array([[1, 3], [0, 0]])).tolist() == [[0.25, 0.75], [0.0, 0.0]]


def test_long_names_lose_their_middle():
    assert statistics.short("a \n b") == "a b"
    assert statistics.short("abcdefghij", 4) == "ab…ij"


@pytest.mark.parametrize(("right", "rows"), [(0, 5), (5, 5), (3, 10), (930, 1000)])
def test_wilson_is_scipys(right, rows):
    interval = stats.binomtest(right, rows).proportion_ci(method="wilson")
    assert statistics.wilson(right, rows) == pytest.approx((interval.low, interval.high))
    assert all(np.isnan(end) for end in statistics.wilson(0, 0))


def spans(buckets: Sequence[statistics.Bucket]) -> list[tuple[str, int, float]]:
    return [(bucket.name, bucket.score.rows, bucket.score.value) for bucket in buckets]


def test_buckets_have_as_many_rows_and_never_part_a_length():
    lengths = list(range(1, 81))[::-1]
    scores = [float(length <= 40) for length in lengths]
    buckets = statistics.length_buckets(lengths, scores)
    assert spans(buckets) == [("1-20", 20, 1.0), ("21-40", 20, 1.0), ("41-60", 20, 0.0), ("61-80", 20, 0.0)]
    assert (buckets[0].score.low, buckets[0].score.high) == statistics.wilson(20, 20)
    assert spans(statistics.length_buckets([5] * 70 + [9] * 10, [1.0] * 80)) == [("5", 70, 1.0), ("9", 10, 1.0)]
    assert len(statistics.length_buckets(range(10_000), [0.5] * 10_000)) == 8
    assert statistics.length_buckets([], []) == []


def test_a_mean_of_other_scores_has_the_normal_interval():
    mean = statistics.length_buckets([3, 3, 3, 3], [0.1, 0.2, 0.3, 0.8])[0].score
    half = 1.959963984540054 * np.std([0.1, 0.2, 0.3, 0.8], ddof=1) / 2
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.35, 0.35 - half, 0.35 + half))
    assert np.isnan(statistics.mean_of(np.array([0.5]), shares=False).low)
    assert np.isnan(statistics.mean_of(NONE, shares=True).value)


def test_a_correlation_by_length_has_the_interval_of_its_rank_correlation():
    generator = np.random.default_rng(0)
    pairs = generator.normal(size=(60, 2)) + generator.normal(size=(60, 1))
    rows = statistics.length_buckets([3] * 30 + [9] * 30, pairs.tolist(), measure=statistics.correlation_of)
    for bucket, inside in zip(rows, (pairs[:30], pairs[30:]), strict=True):
        rho = stats.spearmanr(inside).statistic
        half = 1.959963984540054 * np.sqrt((1 + rho**2 / 2) / 27)
        ends = np.tanh([np.arctanh(rho) - half, np.arctanh(rho) + half])
        assert (bucket.score.value, bucket.score.low, bucket.score.high) == pytest.approx((rho, *ends))
    same = statistics.correlation_of(np.repeat(np.arange(5.0), 2).reshape(5, 2))
    assert same.value == pytest.approx(1) and same.low < same.high <= 1
    few = statistics.correlation_of(np.eye(2))
    assert (few.value, few.rows) == (pytest.approx(-1), 2) and np.isnan([few.low, few.high]).all()


def test_spearman_and_auc_share_ranks_between_ties_and_are_nan_where_there_is_nothing_to_rank():
    first, second = np.array([1, 2, 2, 4]), np.array([1, 3, 2, 4])
    assert statistics.spearman(first, second) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)  # of ranks 1, 2.5, 2.5, 4
    assert statistics.auc(np.array([2.0, 1.0]), np.array([1.0, 0.0])) == 3.5 / 4
    first, second = np.random.default_rng(0).integers(0, 6, (2, 300))
    ranked = [
        [(np.sum(values < value) + np.sum(values <= value) + 1) / 2 for value in values] for values in (first, second)
    ]
    assert statistics.spearman(first, second) == pytest.approx(np.corrcoef(*ranked)[0, 1])
    similar, other = first[:100, None], first[None, 100:]
    assert statistics.auc(first[:100], first[100:]) == pytest.approx(
        np.mean((similar > other) + (similar == other) / 2)
    )
    assert np.isnan(statistics.auc(NONE, first)) and np.isnan(statistics.spearman(np.ones(3), np.arange(3)))
    assert np.isnan(statistics.spearman(NONE, NONE))


def test_a_running_mean_has_fewer_values_at_the_ends():
    assert statistics.running_mean(np.array([0.0, 3.0, 6.0, 3.0]), 3).tolist() == [1.5, 3.0, 4.0, 4.5]
    assert statistics.running_mean(np.array([1.0, 2.0]), 1).tolist() == [1.0, 2.0]
    assert np.isnan(statistics.running_mean(np.array([np.nan, 1.0, 1.0, 1.0]), 3)).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert statistics.running_mean(NONE, 1).tolist() == []
