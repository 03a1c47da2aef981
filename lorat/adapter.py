"""Adapter: what an adapter's files say, as tensors and facts. It never changes once read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from lorat.errors import AdapterFileError, BaseMismatchError
from lorat.recipe import Recipe
from lorat.targets import MODULES, POOLER, BaseShape, Site

Task = Literal["embedding", "sequence_classification", "token_classification"]
TASKS: tuple[Task, ...] = ("embedding", "sequence_classification", "token_classification")


@dataclass(frozen=True)
class LoRA:
    """One layer's matrices: delta = scaling * B A. A is (rank, in), B is (out, rank).

    `bias` (out,) replaces the layer's own where the adapter was trained with `bias="lora_only"`.
    """

    a: Tensor
    b: Tensor
    scaling: float
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        """Inner size of the product."""
        return self.a.shape[0]


@dataclass(frozen=True)
class Linear:
    """Weight (out, in) and bias (out,) of a dense layer."""

    weight: Tensor
    bias: Tensor


OUTSIDE = "O"
"""The label of a word that is of no entity."""


@dataclass(frozen=True)
class Head:
    """A classification head: one score per label.

    `pooler` is the adapter's own BERT pooler, None where the base's is used; `pooler_lora` changes
    whichever of the two is used. `multi_label` scores labels independently (sigmoid).
    """

    classifier: Linear
    labels: tuple[str, ...]
    multi_label: bool = False
    pooler: Linear | None = None
    pooler_lora: LoRA | None = None

    @property
    def parts(self) -> dict[str, Linear]:
        """Its own linear layers, by their modules' names in a transformers model."""
        return {"classifier": self.classifier} | ({} if self.pooler is None else {POOLER: self.pooler})

    @property
    def independent(self) -> bool:
        """Whether each label is scored by itself (sigmoid): several may hold, or there is only one."""
        return self.multi_label or len(self.labels) == 1

    def scores(self, logits: Tensor) -> Tensor:
        """Probabilities of logits (..., labels): sigmoid for independent labels, else softmax over them."""
        return logits.sigmoid() if self.independent else logits.softmax(-1)


@dataclass(frozen=True)
class Probe:
    """A text, and what the adapter answered when it was saved: its normalised vector, or its scores by label."""

    text: str
    expected: tuple[float, ...]


@dataclass(frozen=True)
class Adapter:
    """LoRA matrices by site, with the task head and the embedding recipe that came with them.

    rank, alpha: as its config states them; single sites may differ. `base_id` is what `lorat.json`
    says it was made for, None where it does not say.
    """

    task: Task
    lora: Mapping[Site, LoRA]
    rank: int
    alpha: float
    head: Head | None = None
    recipe: Recipe | None = None
    base_id: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = field(default=())
    probes: tuple[Probe, ...] = field(default=())

    @property
    def targets(self) -> tuple[str, ...]:
        """Target names that carry LoRA in any layer."""
        used = {site.target for site in self.lora}
        return tuple(name for name in MODULES if name in used)

    @property
    def parameters(self) -> int:
        """Number of values in its tensors."""
        return sum(tensor.numel() for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        """Every tensor that came with the adapter."""
        loras = list(self.lora.values())
        linears = []
        if self.head:
            linears = [part for part in (self.head.classifier, self.head.pooler) if part]
            loras += [self.head.pooler_lora] if self.head.pooler_lora else []
        tensors = [t for lora in loras for t in (lora.a, lora.b, lora.bias) if t is not None]
        return tensors + [t for linear in linears for t in (linear.weight, linear.bias)]


def check_base(made_for: str | None, base: BaseShape) -> None:
    """Raise BaseMismatchError where an adapter was made for a base with another id."""
    if made_for and base.base_id and made_for != base.base_id:
        raise BaseMismatchError(
            f"the adapter was made for the base {made_for[:12]}…, this one is {base.base_id[:12]}…: "
            "serve it on its own base, or train it again on this one"
        )


def check_fits(adapter: Adapter, base: BaseShape, max_rank: int) -> None:
    """Raise BaseMismatchError for an adapter of another base, AdapterFileError for a rank over `max_rank`."""
    check_base(adapter.base_id, base)
    for site, lora in adapter.lora.items():
        width, height = base.linear_shape(site.target)
        if site.layer >= base.layers or (lora.a.shape[1], lora.b.shape[0]) != (width, height):
            raise BaseMismatchError(f"the base has no {site.module} of {width} inputs and {height} outputs")
        if lora.rank > max_rank:
            raise AdapterFileError(f"the adapter has rank {lora.rank}, over the limit of {max_rank}")
    if adapter.head and adapter.head.classifier.weight.shape[1] != base.hidden:
        raise BaseMismatchError(f"the adapter's classifier is not for a base of {base.hidden} hidden values")
