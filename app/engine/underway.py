"""The forward passes under way. Pure: it knows no threads and no clock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from app.engine.jobs import Job

_SHORTEST = 1e-6  # seconds that a pass takes at least


@dataclass(frozen=True)
class Pass:
    """One batch that a worker runs. started: when, by the caller's clock, in seconds."""

    started: float
    jobs: Sequence[Job]

    @cached_property
    def tokens(self) -> int:
        """Of its inputs."""
        return sum(job.size for job in self.jobs)


class UnderWay:
    """Who runs what. `oldest` and `len` may be asked without a lock."""

    def __init__(self) -> None:
        self._passes: dict[str, Pass] = {}
        self._pace = 0.0  # of the pass that ended last, in tokens a second

    def __len__(self) -> int:
        return len(self._passes)

    def begin(self, worker: str, batch: Pass) -> None:
        """Note what a worker runs from now on."""
        self._passes[worker] = batch

    def end(self, worker: str, now: float) -> Pass:
        """A worker is free again. Returns what it ran."""
        ended = self._passes.pop(worker)
        self._pace = ended.tokens / max(now - ended.started, _SHORTEST)
        return ended

    def jobs(self) -> list[Job]:
        """The inputs of all passes."""
        return [job for one in self._passes.values() for job in one.jobs]

    def left(self, workers: Iterable[str], now: float) -> float:
        """Tokens of the passes of these workers that are not computed yet, by the pace of what ended last."""
        passes = [self._passes[name] for name in workers if name in self._passes]
        return sum(max(0.0, one.tokens - self._pace * (now - one.started)) for one in passes)

    def all_run(self, workers: Iterable[str]) -> bool:
        """Whether each of these workers runs a pass."""
        return all(name in self._passes for name in workers)

    def oldest(self) -> float | None:
        """When the longest running pass started, None where none runs."""
        return min((one.started for one in list(self._passes.values())), default=None)
