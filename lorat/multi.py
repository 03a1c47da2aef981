"""MultiLoRAT: one frozen base, many adapters, each row computed with its own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorat.adapter import Adapter, check_fits
from lorat.base import Base, load_base
from lorat.config import MAX_RANK
from lorat.cpu import encoder_of, layout_for
from lorat.errors import InputError, InputTooLongError, NoHeadError
from lorat.files.adapter_file import read_adapter
from lorat.fingerprint import fingerprint
from lorat.gpu.lanes import settle
from lorat.heads import LoadedHead, sequence_logits, token_logits
from lorat.packed import PackedBert
from lorat.packing import PackedBatch, pack
from lorat.pooling import finish, pool
from lorat.recipe import Recipe
from lorat.routing import Routing
from lorat.rows import HEADLESS, Row, by_kind
from lorat.slots import Slot, Slots
from lorat.tokenizer import Text, Tokens


class MultiLoRAT:
    """A frozen BERT that serves many adapters at once.

    Which adapter a row gets is an argument (`Row.slot`), never a state, so threads may share one model
    and load, unload and run at the same time. The base's weights are not written after construction.
    """

    def __init__(self, base: Base, *, slots: int = 64, max_rank: int = MAX_RANK) -> None:
        """Read the base's weights. Raises BaseError where they are not what its config says."""
        self.base, self.device, self.dtype = base, base.device, base.dtype
        self.max_rank = max_rank
        self._model = PackedBert(base.weights(), base.config, layout_for(base.config, base.device, base.dtype))
        self._base_pooler = self._model.pooler
        self._longest = self._model.longest
        self._vocabulary = base.config.vocab_size
        self._types = set(range(base.config.type_vocab_size))
        self.slots = Slots({linear.key: linear for linear in self._model.groups()}, slots)
        self._gpu = self._on_gpu() if self.device.type == "cuda" else None
        self._encode = encoder_of(self._model)
        settle(self.device)

    def _on_gpu(self) -> Callable[[Sequence[Row], Sequence[LoadedHead | None]], Sequence[Tensor]]:
        from lorat.gpu.forward import GpuForward  # seconds to import: torch's compiler comes along

        return GpuForward(self._model, self.recipe)

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, *, device: str = "auto", dtype: str = "auto", slots: int = 64
    ) -> "MultiLoRAT":
        """Load a base (see `lorat.load_base`; None: the embedded one) and make room for `slots` adapters."""
        return cls(load_base(source, device=device, dtype=dtype), slots=slots)

    def fingerprint(self) -> str:
        """SHA-256 of every base tensor that a forward pass reads."""
        return fingerprint(self._model)

    def load(self, adapter: Adapter | str | Path) -> Slot:
        """Load an adapter, or the adapter in a directory, into a free slot.

        Raises an AdapterError for one that is refused, SlotsFullError when no slot is free.
        """
        if not isinstance(adapter, Adapter):
            adapter = read_adapter(adapter, self.base.shape, max_rank=self.max_rank)
        check_fits(adapter, self.base.shape, self.max_rank)
        slot = self.slots.load(adapter)
        try:
            return self._with_head(slot)
        except BaseException:
            self.slots.unload(slot)
            raise

    def prepare(self, adapter: Adapter) -> Slot:
        """A slot that takes no place among the loaded ones: for a trial. Let go of it when done. Raises as `load`."""
        check_fits(adapter, self.base.shape, self.max_rank)
        return self._with_head(self.slots.prepare(adapter))

    def _with_head(self, slot: Slot) -> Slot:
        if slot.adapter.head:
            slot.head = LoadedHead(slot.adapter.head, self._base_pooler, self.device)
        settle(self.device)
        return slot

    def unload(self, slot: Slot) -> None:
        """Free a slot. Batches that already run finish with its adapter. Raises NotLoadedError for another's slot."""
        self.slots.unload(slot)

    def merge(self, slot: Slot) -> None:
        """Compute this slot's rows with merged weights: no cost per row, one more copy in memory.

        Raises NotLoadedError for a slot that was unloaded or is of another model.
        """
        self.slots.merge(slot)

    def unmerge(self, slot: Slot) -> None:
        """Drop a slot's merged weights. Raises as `merge`."""
        self.slots.unmerge(slot)

    def merge_size(self, slot: Slot) -> tuple[float, int]:
        """A slot's low-rank products as a share of the base's arithmetic, and the bytes of its merged weights."""
        return self.slots.merge_size(slot)

    def recipe(self, slot: Slot | None) -> Recipe:
        """The embedding recipe of a slot: the adapter's own where it has one, else the base's."""
        return (slot.adapter.recipe if slot else None) or self.base.recipe

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> list[Tensor]:
        """Run rows of any adapters and tasks in one pass. Returns float32, in the order of `rows`:

        embedding: (dimensions,), pooled, not normalised; sequence_classification: logits (labels,);
        token_classification: logits (tokens, labels); hidden_states: the last ones (tokens, hidden). Of special
        tokens as well. They are on the host, made in inference mode: clone what is to be trained on. Raises InputError
        for a row that cannot be run, NotLoadedError or NoHeadError for one whose adapter cannot answer it.
        """
        if not rows:
            return []
        heads = [self._check(row) for row in rows]
        order = sorted(range(len(rows)), key=lambda index: _place(rows[index]))
        run = self._gpu or self._run
        results = run([rows[index] for index in order], [heads[index] for index in order])
        answers = dict(zip(order, results, strict=True))
        return [answers[index] for index in range(len(rows))]

    def _run(self, rows: Sequence[Row], heads: Sequence[LoadedHead | None]) -> Sequence[Tensor]:
        """Answers of rows in the order of a batch."""
        batch = pack([row.tokens.ids for row in rows], [row.tokens.types for row in rows], self.device)
        ends = [*batch.offsets[:-1], len(batch.ids)]  # the last one's weights also take the rows of no sequence
        hidden = self._encode(batch, Routing.of([row.slot for row in rows], ends))[: batch.offsets[-1]]
        return self._finish(hidden, batch, rows, heads)

    def _check(self, row: Row) -> LoadedHead | None:
        """The head a row needs, None for an embedding."""
        self._check_tokens(row.tokens)
        if row.slot is not None:
            row.slot.require_loaded(self.slots)
        if row.task in HEADLESS:
            return None
        if row.slot is None or row.task != row.slot.adapter.task:
            raise NoHeadError(f"no head for {row.task}: choose an adapter that was trained for it")
        return row.slot.head

    def _check_tokens(self, tokens: Tokens) -> None:
        if not tokens.ids:
            raise InputError("a row has no tokens: give at least one token id")
        if len(tokens) > self._longest:
            raise InputTooLongError(f"a row has {len(tokens)} tokens, the model takes {self._longest}: truncate it")
        if min(tokens.ids) < 0 or max(tokens.ids) >= self._vocabulary:
            raise InputError(f"a row has a token id outside the vocabulary of {self._vocabulary}")
        if tokens.types is not None and (len(tokens.types) != len(tokens) or not set(tokens.types) <= self._types):
            raise InputError(f"a row's types must be as many as its ids, each of {sorted(self._types)}")

    def _finish(
        self, hidden: Tensor, batch: PackedBatch, rows: Sequence[Row], heads: Sequence[LoadedHead | None]
    ) -> list[Tensor]:
        """Answers by row: rows of one kind are computed together, each with its own head."""
        results: dict[int, Tensor] = {}
        for places in by_kind(rows, [self.recipe(row.slot) for row in rows]):
            task = rows[places[0]].task
            chosen = [head for place in places if (head := heads[place])]
            answers: Sequence[Tensor] | Tensor
            if task == "embedding":
                answers = self._pool(hidden, batch, rows, places)
            elif task == "sequence_classification":
                answers = sequence_logits(hidden[[batch.offsets[place] for place in places]], chosen)
            else:
                lengths = [batch.lengths[place] for place in places]
                tokens = _select(hidden, batch, places)
                answers = token_logits(tokens, lengths, chosen) if chosen else tokens.float().split_with_sizes(lengths)
            results.update(zip(places, answers, strict=True))
        return [results[place] for place in range(len(rows))]

    def _pool(self, hidden: Tensor, batch: PackedBatch, rows: Sequence[Row], places: list[int]) -> Tensor:
        return pool(
            _select(hidden, batch, places),
            [batch.lengths[place] for place in places],
            [rows[place].tokens.skip for place in places],
            self.recipe(rows[places[0]].slot),
        )

    def embed(
        self,
        texts: Sequence[str],
        slot: Slot | None = None,
        *,
        prompt_name: str | None = None,
        truncate: bool = True,
    ) -> NDArray[np.float32]:
        """Vectors of texts, (texts, dimensions) float32, by the slot's recipe (normalised if it says so).

        Raises InputError for one text that is not in a list and for what is no slot, and what `Base.encode` raises.
        """
        _check(texts, slot)
        recipe = self.recipe(slot)
        if not texts:
            return np.empty((0, recipe.dimensions(self.base.shape.hidden)), np.float32)
        tokens = self.base.encode(texts, recipe, prompt_name=prompt_name, truncate=truncate)
        vectors = torch.stack(self.forward([Row(token, slot) for token in tokens]))
        return finish(vectors.cpu().numpy(), None, recipe.normalize)

    def classify(self, texts: Sequence[Text], slot: Slot, *, truncate: bool = True) -> list[dict[str, float]]:
        """Scores by label for each text (or pair): softmax, or sigmoid for one or several labels at once.

        Raises as `embed`, and NoHeadError for an adapter of another task.
        """
        _check(texts, slot, alone=False)
        if not texts:
            return []
        tokens = self.base.tokenizer.encode(texts, max_length=self.recipe(slot).max_length, truncate=truncate)
        logits = torch.stack(self.forward([Row(token, slot, "sequence_classification") for token in tokens]))
        head = slot.adapter.head
        assert head is not None
        return [dict(zip(head.labels, row, strict=True)) for row in head.scores(logits).tolist()]


def _check(texts: Sequence[Text], slot: Slot | None, alone: bool = True) -> None:
    """alone: whether the base answers by itself."""
    if isinstance(texts, str):
        raise InputError("texts is one text: give a list of texts")
    if not isinstance(slot, Slot) and not (alone and slot is None):
        raise InputError(
            f"slot is {type(slot).__name__}: give what load() returned, one for all texts; "
            "rows of several adapters go to forward()"
        )


def _place(row: Row) -> tuple[int, int]:
    """Rows of one slot stand together, ordered by length; the base's own come first."""
    return row.slot.index if row.slot else 0, len(row.tokens)


def _select(hidden: Tensor, batch: PackedBatch, places: list[int]) -> Tensor:
    """The tokens of some sequences, end to end."""
    if len(places) == len(batch.lengths):
        return hidden
    return torch.cat([hidden[batch.offsets[place] : batch.offsets[place + 1]] for place in places])
