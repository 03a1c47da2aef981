"""The forward passes under way. Pure: it knows no threads and no clock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from app.engine.jobs import Job


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

    def __len__(self) -> int:
        return len(self._passes)

    def begin(self, worker: str, batch: Pass) -> None:
        """Note what a worker runs from now on."""
        self._passes[worker] = batch

    def end(self, worker: str) -> None:
        """A worker is free again."""
        del self._passes[worker]

    def jobs(self) -> list[Job]:
        """The inputs of all passes."""
        return [job for one in self._passes.values() for job in one.jobs]

    def tokens(self, workers: Iterable[str]) -> int:
        """Tokens of the passes that these workers run."""
        return sum(self._passes[name].tokens for name in workers if name in self._passes)

    def all_run(self, workers: Iterable[str]) -> bool:
        """Whether each of these workers runs a pass."""
        return all(name in self._passes for name in workers)

    def oldest(self) -> float | None:
        """When the longest running pass started, None where none runs."""
        return min((one.started for one in list(self._passes.values())), default=None)
