"""What a conversion made, for people and for programs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lorat.adapter import Task
from lorat.targets import Site


@dataclass(frozen=True)
class Report:
    """What was written, and what was lost on the way.

    kind: "lorat", "loralib" or "full". rank: the largest of any layer. alpha: as `adapter_config.json` states it.
    errors: by module of the base, |delta - BA| / |delta| in the Frobenius norm; empty where A and B came as
        they are. error: the same over all of them together.
    head: names of the tensors carried whole. labels: empty where their names are not known.
    biases: whether biases of the adapted layers came along (PEFT's bias="lora_only").
    recipe: whether an embedding recipe was copied.
    dropped: by name, |tensor - base| / |base|; inf where the base has no such tensor or it is zero there.
    notes: sentences for people.
    """

    out: Path
    kind: str
    task: Task
    targets: tuple[str, ...]
    layers: tuple[int, ...]
    rank: int
    alpha: float
    errors: Mapping[str, float]
    error: float
    head: tuple[str, ...]
    labels: tuple[str, ...]
    biases: bool
    recipe: bool
    dropped: Mapping[str, float]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report, to print."""
        layers = ", ".join(map(str, self.layers))
        return [
            f"{self.out}: {self.task} adapter of kind {self.kind}, rank {self.rank}, alpha {self.alpha:g}",
            f"  {', '.join(self.targets)} of layers {layers}",
            *self._carried(),
            *self._errors(),
            *(f"  dropped {name}: {describe(change)}" for name, change in self.dropped.items()),
            *(f"  {note}" for note in self.notes),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _carried(self) -> list[str]:
        carried = [*self.head, *["the layers' biases"] * self.biases, *["the embedding recipe"] * self.recipe]
        labels = [f"  labels {', '.join(self.labels)}"] if self.labels else []
        return [f"  with {', '.join(carried)}", *labels] if carried else labels

    def _errors(self) -> list[str]:
        """One line a layer."""
        by_layer: dict[int, list[str]] = {}
        for module, error in self.errors.items():
            site = Site.parse(module)
            by_layer.setdefault(site.layer, []).append(f"{site.target} {error:.3g}")
        lines = [f"  relative error, layer {layer}: {', '.join(errors)}" for layer, errors in by_layer.items()]
        return [*lines, f"  relative error of all changes together: {self.error:.3g}"] if lines else []


def describe(change: float) -> str:
    """A relative change, in words."""
    return "new, or zero in the base" if math.isinf(change) else f"changed by {change:.2g} of its norm"
