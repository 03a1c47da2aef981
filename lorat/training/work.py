"""Work: the directory of a run under way, beside the one it will become.

OUT.training/
  lock           held while a run is under way
  run.json       what is trained, on what: a run goes on only where it stopped
  checkpoints/   the trainer's own, one an epoch: adapter, optimiser, random states
  adapter/       the result while it is written; renamed to OUT when it is whole
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lorat.errors import ConfigError
from lorat.files.out import DISK_FULL, errno_of
from lorat.training.plan import Plan
from lorat.training.splits import TrainingData

STATE = "trainer_state.json"
"""The trainer's file that a checkpoint is finished with."""
_NOT_THE_RUN = ("out", "name", "description", "data_name", "data_licence", "data", "base")
_DIRECTORIES, _FILES = ("adapter", "checkpoints"), ("run.json.new", "run.json", "lock")
_TORCH_WRITER = ("PytorchStreamWriter failed", "iostream error", "unexpected pos")
"""What torch says where a write failed; it does not say why."""


class Work:
    """One run's directory. Whatever happens before `publish`, there is nothing at OUT."""

    def __init__(self, plan: Plan, task: str, data: TrainingData, base: str) -> None:
        """Begin, or go on where the same run stopped. base: the hash of what a run reads of its base.

        Raises ConfigError where another run has a checkpoint or is under way, the directory is somebody else's, or
        nothing can be written.
        """
        self._out = Path(os.path.abspath(plan.out))
        self.directory = self._out.with_name(f"{self._out.name}.training")
        identity = _identity(plan, task, data, base)
        try:
            self._claim()
            self._begin(identity)
        except OSError as error:
            raise ConfigError(f"{self.directory} cannot be written: {error.strerror}: give another --out") from error

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its checkpoints."""
        return self.directory / "checkpoints"

    def last(self) -> Path | None:
        """The last whole checkpoint. One that a kill left unfinished is removed."""
        found = sorted(self.checkpoints.glob("checkpoint-*"), key=_step)
        while found and not _is_whole(found[-1]):
            shutil.rmtree(found.pop())
        return found[-1] if found else None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What fails in here leaves nothing, unless there is a checkpoint. A full disk is a ConfigError."""
        try:
            yield
        except BaseException as error:
            last = self.last()
            if last is None:
                self._remove()
            elif isinstance(error, KeyboardInterrupt):
                print(f"the same command goes on after step {_step(last)}", flush=True)
            if not isinstance(error, OSError | RuntimeError | SafetensorError) or not _is_full(error):
                raise
            raise ConfigError(
                f"{self.directory} could not be written: {error}: free some space, then run the same again"
            ) from error

    @contextmanager
    def publish(self) -> Iterator[Path]:
        """An empty directory to write the result to; it becomes OUT, and what led to it is removed."""
        result = self.directory / "adapter"
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir()
        yield result
        try:
            os.rename(result, self._out)  # an empty directory gives way
        except OSError as error:
            raise ConfigError(
                f"{self._out} cannot be written: {error.strerror}: make room there, then run the same again"
            ) from error
        self._remove()

    def _claim(self) -> None:
        """Make the directory, or take it where it is a run's, until this process ends or the object is gone."""
        there = {path.name for path in self.directory.iterdir()} if self.directory.exists() else set()
        if there - {"lock"} and not there & {"run.json", "run.json.new"}:
            raise ConfigError(f"{self.directory} is no run's directory, and not empty: move it, or give another --out")
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT)
        weakref.finalize(self, os.close, lock)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):  # others: a file system without locks
                raise ConfigError(f"{self.directory}: a run is under way there: wait for it, or stop it") from error

    def _remove(self) -> None:
        """Remove what a run writes, and nothing else."""
        for name in _DIRECTORIES:
            shutil.rmtree(self.directory / name, ignore_errors=True)
        with suppress(OSError):
            for name in _FILES:
                (self.directory / name).unlink(missing_ok=True)
            self.directory.rmdir()

    def _begin(self, identity: dict[str, Any]) -> None:
        record, started = self.directory / "run.json", self.directory / "run.json.new"
        if record.exists() and self.last():
            begun = json.loads(record.read_text("utf-8"))
            changed = sorted(name for name in identity if begun.get(name) != identity[name])
            if changed:
                raise ConfigError(
                    f"{self.directory} holds a run that was begun with another {changed[0]}: "
                    "give what it was begun with to go on, or remove it"
                )
            return
        started.write_text(json.dumps(identity, indent=1) + "\n", "utf-8")
        started.replace(record)
        shutil.rmtree(self.checkpoints, ignore_errors=True)  # none of them is whole, or known
        self.checkpoints.mkdir()


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def _identity(plan: Plan, task: str, data: TrainingData, base: str) -> dict[str, Any]:
    """Whatever decides the weights that come out."""
    settings = {name: value for name, value in asdict(plan).items() if name not in _NOT_THE_RUN}
    rows = hashlib.sha256(repr((data.labels, data.train, data.dev)).encode("utf-8", "surrogatepass")).hexdigest()
    identity = settings | asdict(plan.hyperparameters(task)) | {"task": task, "data": rows, "base": base}
    del identity["given"]
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _is_full(error: Exception) -> bool:
    """Whether a write failed for want of space."""
    full = errno_of(error) in DISK_FULL
    return full or any(said in str(error) for said in _TORCH_WRITER)


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True
