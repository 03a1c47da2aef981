"""What every training shares: the trainer's arguments, going on after a kill, the best epoch, what is shown."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lorat.errors import ConfigError
from lorat.model import LoRAT
from lorat.training.plan import Hyperparameters
from lorat.training.work import STATE, Work

METRIC = "score"
"""What those who measure on dev name the score that chooses the epoch."""
SCORE = f"eval_{METRIC}"
"""Its name in the trainer's log."""
_LOSSES_AN_EPOCH = 10
EVAL_BATCH = 64
"""Texts in one forward pass where nothing is trained."""


@dataclass(frozen=True)
class History:
    """What a run came to: (epoch, loss) and (epoch, dev score) pairs, the epoch that was kept, those it could have."""

    losses: tuple[tuple[float, float], ...]
    scores: tuple[tuple[float, float], ...]
    kept: float
    most: int

    @classmethod
    def of(cls, log: Sequence[Mapping[str, Any]], most: int) -> "History":
        """From the trainer's log. most: the epochs it was told to run."""
        scores = tuple((row["epoch"], row[SCORE]) for row in log if SCORE in row)
        losses = tuple((row["epoch"], row["loss"]) for row in log if "loss" in row)
        return cls(losses, scores, max(scores, key=lambda pair: pair[1])[0], most)


def arguments(how: Hyperparameters, rows: int, work: Work, seed: int, texts_a_row: int = 1) -> dict[str, Any]:
    """What every trainer is told."""
    steps = math.ceil(rows / how.batch_size)
    return {
        "output_dir": str(work.checkpoints),
        "num_train_epochs": how.epochs_for(rows * texts_a_row),
        "per_device_train_batch_size": how.batch_size,
        "per_device_eval_batch_size": EVAL_BATCH,
        "learning_rate": how.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": how.warmup,
        "weight_decay": how.weight_decay,
        "seed": seed,
        "data_seed": seed,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 1,  # and the best one
        "load_best_model_at_end": True,
        "metric_for_best_model": SCORE,
        "greater_is_better": True,
        "logging_steps": max(1, steps // _LOSSES_AN_EPOCH),
        "report_to": "none",
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def on_one_gpu(args: Any) -> Any:
    """The trainer's arguments, so that of several GPUs it takes one.

    With all of them its batches would grow by their number, and be computed without autocast.
    """
    args._n_gpu = min(args.n_gpu, 1)  # as Trainer itself does for a model that lies on several
    return args


def optimizer(model: LoRAT, how: Hyperparameters) -> torch.optim.Optimizer:
    """AdamW over what trains, B faster than A where the run says so."""
    groups = model.parameter_groups(how.learning_rate, how.b_ratio, weight_decay=how.weight_decay)
    return torch.optim.AdamW(groups, lr=how.learning_rate, fused=True)


def run(trainer: Any, how: Hyperparameters, work: Work) -> History:
    """Train to the end, from the last checkpoint if there is one, and put the best epoch back.

    Raises ConfigError where the loss or the weights are not finite.
    """
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for shown in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(shown)
    trainer.add_callback(_progress()())
    last, most = work.last(), trainer.args.num_train_epochs
    if last:
        print(f"going on after step {last.name.partition('-')[2]}", flush=True)
    _stop_early(trainer, how.patience, last)
    with quiet():
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    if not all(parameter.isfinite().all() for parameter in trainer.model.parameters() if parameter.requires_grad):
        raise ConfigError("training diverged: lower the learning rate")
    history = History.of(trainer.state.log_history, most)
    print(f"epoch {history.kept:g} is kept", flush=True)
    return history


def _stop_early(trainer: Any, patience: int, last: Path | None) -> None:
    """Stop after so many epochs without a better dev score, those before a checkpoint counted."""
    from transformers import EarlyStoppingCallback, TrainerState

    stopping = EarlyStoppingCallback(patience)
    if last:
        state = TrainerState.load_from_json(str(last / STATE))
        stopping = EarlyStoppingCallback.from_state(state.stateful_callbacks[EarlyStoppingCallback.__name__])
        if stopping.early_stopping_patience_counter >= patience:
            trainer.args.num_train_epochs = round(state.epoch)  # it had stopped: there is nothing left to train
    trainer.add_callback(stopping)


def _progress() -> Any:
    """The trainer's progress bar, with one line an epoch in place of its logs."""
    from transformers.trainer_callback import ProgressCallback

    class Progress(ProgressCallback):  # type: ignore[misc]
        def on_prediction_step(self, *_: Any, **__: Any) -> None:
            """No second bar."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not all(math.isfinite(logs.get(name, 0.0)) for name in ("loss", "grad_norm")):
                raise ConfigError(f"training diverged in epoch {state.epoch:.1f}: lower the learning rate")
            if not math.isfinite(logs.get(SCORE, 0.0)):
                raise ConfigError(
                    "the dev score is undefined, the model answers all its rows alike: give others for dev"
                )
            if SCORE in logs:
                loss = next((f"loss {row['loss']:.4f}, " for row in reversed(state.log_history) if "loss" in row), "")
                self.training_bar.write(f"epoch {state.epoch:g}: {loss}dev {logs[SCORE]:.4f}")

    return Progress


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' reports on what is as it should be (a head that is new)."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
