"""From hidden states to answers: which rows count is settled on the host, before the copy."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lorat.gpu.buckets import Bucket
from lorat.gpu.plan import Plan
from lorat.gpu.stage import Stage
from lorat.heads import LoadedHead, sequence_logits, token_logits
from lorat.packing import Integers, positions
from lorat.recipe import Dense, Recipe, activation
from lorat.rows import Asked, Row, by_kind

Compute = Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor] | Tensor]
"""Hidden states (tokens, hidden) and what was staged, to one float32 answer for each row asked."""
Pool = Callable[[Tensor, Tensor, Sequence[str]], Tensor]
"""As `lorat.ops.reference.pool`."""


class Answers:
    """What a batch's rows are asked: rows of one kind are computed together, each with its own head.

    pooling: the modes, where that is all that any row is asked, and a bucket is given: arrays are then filled up to it
    too, so that a graph of the bucket can go on to the vectors.
    """

    def __init__(
        self,
        plan: Plan,
        rows: Sequence[Row],
        heads: Sequence[LoadedHead | None],
        recipes: Sequence[Recipe],
        pool: Pool,
        loaded: Callable[[Dense], Dense],
        bucket: Bucket | None = None,
    ) -> None:
        """rows, heads, recipes: in the plan's order. loaded: a dense layer of a recipe, on the device."""
        self.stage = Stage()
        kinds = by_kind(rows, recipes)
        plain = len(kinds) == 1 and rows[0].task == "embedding" and not recipes[0].dense
        filled = bucket if plain else None
        self.pooling = recipes[0].pooling if filled else None
        self._count = len(rows)
        self._shapes: list[tuple[int, torch.Size]] = []
        self._kinds: list[tuple[list[int], Compute]] = []
        for places in kinds:
            starts, lengths = plan.starts[places], plan.lengths[places]
            task, recipe = rows[places[0]].task, recipes[places[0]]
            if task == "embedding":
                before = np.minimum([rows[place].tokens.skip for place in places], lengths - 1)
                bags = np.array([starts + before, lengths - before, before]).T
                staged = self.stage.put(bags, filled.sequences if filled else None)
                compute = _embedding(staged, recipe.pooling, pool, [*map(loaded, recipe.dense)])
            else:
                chosen = [head for place in places if (head := heads[place])]
                compute = self._by_head(starts, lengths, task, chosen)
            self._kinds.append((places, compute))

    def _by_head(self, starts: Integers, lengths: Integers, task: Asked, heads: Sequence[LoadedHead]) -> Compute:
        if task == "sequence_classification":
            first = self.stage.put(starts)
            return lambda hidden, staged: sequence_logits(hidden.index_select(0, staged[first]), heads)
        kept = self.stage.put(_runs(starts, lengths))
        sizes: list[int] = lengths.tolist()
        if task == "hidden_states":
            return lambda hidden, staged: hidden.index_select(0, staged[kept]).float().split_with_sizes(sizes)
        return lambda hidden, staged: token_logits(hidden.index_select(0, staged[kept]), sizes, heads)

    def compute(self, hidden: Tensor, staged: Sequence[Tensor]) -> Tensor:
        """All answers as float32: with `pooling` (bucket.sequences, dimensions), otherwise end to end."""
        if self.pooling:
            vectors = self._kinds[0][1](hidden, staged)
            assert isinstance(vectors, Tensor)
            return vectors
        flat: list[Tensor] = []
        for places, compute in self._kinds:
            answers = compute(hidden, staged)
            flat += [answers.reshape(-1)] if isinstance(answers, Tensor) else [one.reshape(-1) for one in answers]
            self._shapes += [(place, answer.shape) for place, answer in zip(places, answers, strict=True)]
        return torch.cat(flat)

    def asked(self, values: Tensor) -> Tensor:
        """What of `compute` is of the batch's own rows."""
        return values[: self._count] if self.pooling else values

    def split(self, values: Tensor) -> Sequence[Tensor]:
        """What was `asked`, by row."""
        if self.pooling:
            return values.unbind()
        parts = values.split_with_sizes([shape.numel() for _, shape in self._shapes])
        answers = {place: part.view(shape) for part, (place, shape) in zip(parts, self._shapes, strict=True)}
        return [answers[place] for place in range(self._count)]


def _embedding(bags: int, modes: Sequence[str], pool: Pool, dense: Sequence[Dense]) -> Compute:
    """bags: where they are staged."""

    def compute(hidden: Tensor, staged: Sequence[Tensor]) -> Tensor:
        vectors = pool(hidden, staged[bags], modes)
        for one in dense:
            vectors = activation(one.activation)(F.linear(vectors, one.weight, one.bias))
        return vectors

    return compute


def _runs(starts: Integers, counts: Integers) -> Integers:
    """Numbers counting up from each start."""
    return positions(counts) + starts.repeat(counts)
