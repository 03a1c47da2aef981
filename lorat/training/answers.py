"""Who can be measured here: an adapter as it is served, and the frozen base beside it."""

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lorat.adapter import OUTSIDE, Adapter, Head, Linear, Task
from lorat.multi import MultiLoRAT
from lorat.pooling import finish
from lorat.rows import Row
from lorat.slots import Slot
from lorat.tokenizer import Tokens
from lorat.training.inputs import encode_words
from lorat.training.measure import multi_hot
from lorat.training.splits import LabelledTexts, Split, TaggedWords, TrainingData

_BATCH = 64  # texts in one forward pass
_REGULARISATION = (1.0, 10.0, 100.0)


class Served:
    """An adapter computed as the service computes it (None: the base's own vectors)."""

    def __init__(self, model: MultiLoRAT, slot: Slot | None = None) -> None:
        self._model, self._slot = model, slot

    def classify(self, texts: Sequence[str]) -> NDArray[Any]:
        """As `Answers.classify`."""
        base, recipe = self._model.base, self._model.recipe(self._slot)
        head = self._slot.adapter.head if self._slot else None
        assert head is not None
        tokens = base.encode(texts, recipe, default_prompt=False)
        return np.stack([head.scores(row).numpy() for row in self._run(tokens, "sequence_classification")])

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[int]]:
        """As `Answers.tag`; a word without a token (cut off) is outside of all entities."""
        head = self._slot.adapter.head if self._slot else None
        assert head is not None
        outside = head.labels.index(OUTSIDE) if OUTSIDE in head.labels else 0
        return [[outside if row is None else int(row.argmax()) for row in rows] for rows in self.word_rows(sentences)]

    def word_rows(self, sentences: Sequence[Sequence[str]]) -> Iterator[list[Any]]:
        """What the head says at each word's first token: (labels,) each, None for a word without one."""
        tokens, places = encode_words(self._model.base, sentences)
        for row, own in zip(self._run(tokens, "token_classification"), places, strict=True):
            yield [None if place is None else row[place] for place in own]

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """As `Answers.embed`."""
        tokens = self._model.base.encode(texts, self._model.recipe(self._slot))
        return finish(torch.stack(self._run(tokens, "embedding")).numpy(), None, normalize=True)

    def _run(self, tokens: Sequence[Tokens], task: Task) -> list[Any]:
        """Answers in the order of the texts; texts of like length run together."""
        order = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))
        found: dict[int, Any] = {}
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            rows = self._model.forward([Row(tokens[place], self._slot, task) for place in places])
            found.update(zip(places, (row.cpu() for row in rows), strict=True))
        return [found[place] for place in range(len(tokens))]


class Frozen:
    """The base as it is: its vectors, and for labels and tags a logistic regression on what it gives.

    The regression is fitted to the train rows; how strongly it is regularised is chosen on dev.
    """

    def __init__(self, model: MultiLoRAT, data: TrainingData | None) -> None:
        """`data`: None where only vectors are asked for."""
        self._model, self._data = model, data
        self._vectors = Served(model)

    def classify(self, texts: Sequence[str]) -> NDArray[Any]:
        """As `Answers.classify`."""
        scores: NDArray[Any] = self._probe.predict_proba(self.embed(texts))
        return scores

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[int]]:
        """As `Answers.tag`."""
        return [self._tags(rows) for rows in self._hidden.word_rows(sentences)]

    def _tags(self, rows: Sequence[Any]) -> list[int]:
        blank = torch.zeros(self._model.base.shape.hidden)
        return [int(tag) for tag in self._probe.predict(np.stack([blank if row is None else row for row in rows]))]

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """As `Answers.embed`."""
        return self._vectors.embed(texts)

    @cached_property
    def _hidden(self) -> Served:
        return Served(self._model, self._model.prepare(_transparent(self._model)))

    @cached_property
    def _probe(self) -> Any:
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier

        assert self._data is not None
        (x, y), (dev_x, dev_y) = self._features(self._data.train), self._features(self._data.dev)
        models = [LogisticRegression(C=c, max_iter=2000) for c in _REGULARISATION]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Label .* is present in")  # in all rows, or in none
            fitted = [(OneVsRestClassifier(model) if y.ndim == 2 else model).fit(x, y) for model in models]
        return max(fitted, key=lambda model: model.score(dev_x, dev_y))

    def _features(self, split: Split) -> tuple[NDArray[Any], NDArray[Any]]:
        """Vectors, and the labels: (rows,), or 0 and 1 by label where rows may have several."""
        if isinstance(split, TaggedWords):
            words = [row for rows in self._hidden.word_rows(split.words) for row in rows]
            tags = [tag for own in split.tags for tag in own]
            kept = [place for place, row in enumerate(words) if row is not None]
            return np.stack([words[place] for place in kept]), np.array([tags[place] for place in kept])
        assert isinstance(split, LabelledTexts)
        assert self._data is not None
        y = (
            multi_hot(split, len(self._data.labels))
            if self._data.multi_label
            else np.array([own[0] for own in split.labels])
        )
        return self.embed(split.texts), y


def _transparent(model: MultiLoRAT) -> Adapter:
    """An adapter without matrices, whose head lets hidden states through."""
    size = model.base.shape.hidden
    head = Head(Linear(torch.eye(size), torch.zeros(size)), tuple(map(str, range(size))))
    return Adapter("token_classification", {}, rank=1, alpha=1.0, head=head)
