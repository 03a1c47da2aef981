"""`AdapterTrainer`: sentence-transformers' trainer for a model that LoRAT has wrapped.

It is made when it is first imported from here: lorat itself does without sentence-transformers.
"""

from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from lorat.model import LoRAT

_WEIGHTS = "model.safetensors"


def __getattr__(name: str) -> Any:
    if name != "AdapterTrainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _trainer()


@cache
def _trainer() -> type[Any]:
    from sentence_transformers import SentenceTransformerTrainer

    class AdapterTrainer(SentenceTransformerTrainer):  # type: ignore[misc]
        """`SentenceTransformerTrainer` whose checkpoints hold the adapter alone.

        sentence-transformers' own saves the wrapped model in a way that nothing reads again, so neither resuming nor
        `load_best_model_at_end` would work.
        """

        def __init__(self, adapter: LoRAT, **options: Any) -> None:
            """adapter: what wraps the transformer of `model`. options: SentenceTransformerTrainer's."""
            self._adapter = adapter
            super().__init__(**options)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            directory = Path(output_dir or self.args.output_dir)
            directory.mkdir(parents=True, exist_ok=True)
            save_file(self._adapter.state_dict(), directory / _WEIGHTS)

        def _load_from_checkpoint(self, checkpoint_path: str) -> None:
            self._adapter.load_state_dict(load_file(Path(checkpoint_path) / _WEIGHTS))

        def _load_best_model(self) -> None:
            self._load_from_checkpoint(self.state.best_model_checkpoint)

    return AdapterTrainer
