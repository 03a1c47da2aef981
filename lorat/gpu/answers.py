"""From hidden states to answers: which rows count and by how much is settled on the host, before the copy."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lorat.attention import Integers
from lorat.gpu.buckets import Bucket
from lorat.gpu.plan import Plan
from lorat.gpu.stage import Stage
from lorat.heads import LoadedHead, sequence_logits, token_logits
from lorat.recipe import Dense, Recipe, activation
from lorat.rows import Asked, Row, by_kind

Compute = Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor] | Tensor]
"""Hidden states (tokens, hidden) and what was staged, to one float32 answer for each row asked."""


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
        loaded: Callable[[Dense], Dense],
        bucket: Bucket | None = None,
    ) -> None:
        """rows, heads, recipes: in the plan's order. loaded: a dense layer of a recipe, on the device."""
        self.stage = Stage()
        kinds = by_kind(rows, recipes)
        plain = len(kinds) == 1 and rows[0].task == "embedding" and not recipes[0].dense
        self.pooling = tuple(recipes[0].pooling) if bucket and plain else None
        self._bucket = bucket if self.pooling else None
        self._count = len(rows)
        self._shapes: list[tuple[int, torch.Size]] = []
        self._kinds: list[tuple[list[int], Compute]] = []
        for places in kinds:
            chosen = [head for place in places if (head := heads[place])]
            skips = np.array([rows[place].tokens.skip for place in places])
            task, recipe = rows[places[0]].task, recipes[places[0]]
            self._kinds.append((places, self._plan(plan, np.array(places), task, chosen, skips, recipe, loaded)))

    def _plan(
        self,
        plan: Plan,
        places: Integers,
        task: Asked,
        heads: Sequence[LoadedHead],
        skips: Integers,
        recipe: Recipe,
        loaded: Callable[[Dense], Dense],
    ) -> Compute:
        starts, lengths = plan.starts[places], plan.lengths[places]
        if task == "embedding":
            dense = [loaded(one) for one in recipe.dense]
            return _pooling(self.stage, starts, lengths, skips, recipe.pooling, dense, self._bucket)
        if task == "sequence_classification":
            first = self.stage.put(starts)
            return lambda hidden, staged: sequence_logits(hidden.index_select(0, staged[first]), heads)
        tokens, _ = _runs(starts, lengths)
        kept = self.stage.put(tokens)
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


def _runs(starts: Integers, counts: Integers) -> tuple[Integers, Integers]:
    """Numbers counting up from each start, and where each run begins among them."""
    before: Integers = counts.cumsum() - counts
    shifts = (starts - before).repeat(counts)
    numbers: Integers = np.arange(len(shifts)) + shifts
    return numbers, before


def _pooling(
    stage: Stage,
    starts: Integers,
    lengths: Integers,
    skips: Integers,
    modes: Sequence[str],
    dense: Sequence[Dense],
    bucket: Bucket | None,
) -> Compute:
    """As `lorat.pooling.pool`: one bag of weighted rows for each sequence, summed in float32.

    Filled up to a bucket, what is left of the tokens is the last one again, of weight zero, in the first empty bag.
    """
    skips = np.minimum(skips, lengths - 1)
    first, counts = starts + skips, lengths - skips
    tokens, bags_at = _runs(first, counts)
    size, room = (bucket.tokens, bucket.sequences) if bucket else (len(tokens), len(starts))
    places = stage.put(tokens, size, tokens[-1]), stage.put(bags_at, room, len(tokens))
    bags = [(mode, _bag(stage, mode, places, skips, counts, size)) for mode in modes]
    ends = {"cls": first, "lasttoken": starts + lengths - 1}
    at = {mode: stage.put(ends[mode], room) for mode in modes if mode in ends}

    def compute(hidden: Tensor, staged: Sequence[Tensor]) -> Tensor:
        values = hidden.float()
        pooled = [
            values.index_select(0, staged[at[mode]]) if mode in at else _sum(values, mode, bag, staged)
            for mode, bag in bags
        ]
        vectors = torch.cat(pooled, dim=1)
        for one in dense:
            vectors = activation(one.activation)(F.linear(vectors, one.weight, one.bias))
        return vectors

    return compute


def _bag(
    stage: Stage, mode: str, places: tuple[int, int], skips: Integers, counts: Integers, size: int
) -> tuple[int, ...]:
    """Where rows, bags and weights are staged; no weights for a maximum."""
    if mode in ("cls", "lasttoken", "max"):
        return places
    if mode == "weightedmean":
        positions, _ = _runs(skips + 1, counts)
        weights = positions / np.add.reduceat(positions, counts.cumsum() - counts).repeat(counts)
    else:
        weights = (1 / (counts if mode == "mean" else np.sqrt(counts))).repeat(counts)
    return (*places, stage.put(weights.astype(np.float32), size))


def _sum(values: Tensor, mode: str, bag: Sequence[int], staged: Sequence[Tensor]) -> Tensor:
    rows, bags, *weights = (staged[place] for place in bag)
    if mode == "max":
        return F.embedding_bag(rows, values, bags, mode="max")
    return F.embedding_bag(rows, values, bags, mode="sum", per_sample_weights=weights[0])
