"""Metrics that one thread writes, the event loop: no locks, so a tenth of the time of prometheus_client's own.

Any thread may read them: what it reads are copies, each made in one step.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str | int, ...]


class LoopCounter(Collector):
    """A counter by labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._family = name, text, labels
        self._values: dict[Labels, int] = {} if labels else {(): 0}

    def add(self, labels: Labels = (), amount: int = 1) -> None:
        """Count."""
        self._values[labels] = self._values.get(labels, 0) + amount

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What a scrape reads."""
        name, text, labels = self._family
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in self._values.copy().items():
            family.add_metric([str(value) for value in values], count)
        yield family


class LoopHistogram(Collector):
    """A histogram by at most one label."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], label: str | None = None) -> None:
        """`bounds`: of the buckets, rising; one for what is larger is added."""
        self._family = name, text, [label] if label else []
        self._bounds = bounds
        self._counts: dict[str, list[float]] = {} if label else {"": self._empty()}

    def _empty(self) -> list[float]:
        return [0] * (len(self._bounds) + 2)  # the last one is the sum

    def observe(self, value: float, label: str = "") -> None:
        """Count a value."""
        counts = self._counts.get(label)
        if counts is None:
            counts = self._counts[label] = self._empty()
        counts[bisect_left(self._bounds, value)] += 1
        counts[-1] += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What a scrape reads."""
        name, text, labels = self._family
        family = HistogramMetricFamily(name, text, labels=labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for label, counts in self._counts.copy().items():
            *counts, total = counts.copy()
            buckets = list(zip(names, accumulate(counts), strict=True))
            family.add_metric([label] if labels else [], buckets, total)
        yield family


class Reading(Collector):
    """Counters that others keep, read when they are asked for."""

    def __init__(self, name: str, text: str, reads: dict[str, Callable[[], float]], label: str | None = None) -> None:
        """`reads`: by the label's value; with no label, one of any name."""
        self._family = name, text, [label] if label else []
        self._reads = reads

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What a scrape reads."""
        name, text, labels = self._family
        family = CounterMetricFamily(name, text, labels=labels)
        for value, read in self._reads.items():
            family.add_metric([value] if labels else [], read())
        yield family
