"""Row: one input of a batch, and which rows can be finished together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lorat.adapter import Task
from lorat.recipe import Recipe
from lorat.slots import Slot
from lorat.tokenizer import Tokens

Asked = Task | Literal["hidden_states"]
"""What may be asked of a row: a task, or the hidden states of its tokens."""
HEADLESS = frozenset[Asked]({"embedding", "hidden_states"})
"""What any adapter answers, and the base alone."""


@dataclass(frozen=True)
class Row:
    """One input of a batch: its tokens, its adapter (None: the base alone) and what is asked of it."""

    tokens: Tokens
    slot: Slot | None = None
    task: Asked = "embedding"


def by_kind(rows: Sequence[Row], recipes: Sequence[Recipe]) -> list[list[int]]:
    """Places of rows that are finished alike: of one task, and of embeddings those of one pooling and dense layers."""
    kinds: dict[Any, list[int]] = {}
    for place, (row, recipe) in enumerate(zip(rows, recipes, strict=True)):
        embeds = row.task == "embedding"
        kinds.setdefault((recipe.pooling, recipe.dense and id(recipe)) if embeds else row.task, []).append(place)
    return list(kinds.values())
