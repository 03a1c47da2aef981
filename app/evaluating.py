"""`lorat eval`: an adapter's directory, or an adapter of a running service, measured on a labelled file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.client import Client
from lorat import MultiLoRAT, load_base
from lorat.adapter import OUTSIDE
from lorat.evaluate import Evaluation, Source, Subject, evaluate
from lorat.tokenizer import Span
from lorat.training.answers import Frozen, Served
from lorat.training.inputs import first_inside

_BATCH = 64  # inputs in a request, where the server takes as many
_BYTES = 256 * 1024  # of them, but for one that is longer: proxies often stop at 1 MB


def evaluate_directory(source: Source, directory: Path, base: str | None) -> Evaluation:
    """Scores of an adapter's directory and of the frozen base. Raises an AdapterError for files that are refused."""
    model = MultiLoRAT(load_base(base, dtype="float32"), slots=1)
    slot = model.load(directory)
    head = slot.adapter.head
    labels, multi_label = (head.labels, head.multi_label) if head else ((), False)
    subject = Subject(directory.resolve().name, Served(model, slot), slot.adapter.task, labels, multi_label)
    return evaluate(source, subject, partial(Frozen, model))


def evaluate_served(source: Source, name: str, client: Client, base: str | None) -> Evaluation:
    """Scores of an adapter as a service answers, and of the frozen base, which is loaded here.

    Raises ServerError for what the service refuses, and where its base is another one.
    """
    record = client.adapter(name)
    model = MultiLoRAT(load_base(base, dtype="float32"), slots=1)
    client.require_base(model.base.shape.base_id, base)
    labels = record["labels"] or ()
    multi_label = len(labels) > 1 and record["head"]["kind"] == "sigmoid"
    subject = Subject(name, Remote(client, name, labels), record["task"], labels, multi_label)
    return evaluate(source, subject, partial(Frozen, model))


class Remote:
    """An adapter behind a service."""

    def __init__(self, client: Client, name: str, labels: Sequence[str]) -> None:
        self._client, self._name = client, name
        self._places = {label: place for place, label in enumerate(labels)}
        self._most = min(_BATCH, client.info()["max_client_batch_size"])

    def classify(self, texts: Sequence[str]) -> NDArray[Any]:
        """As `Answers.classify`."""
        scores = np.zeros((len(texts), len(self._places)))
        for row, predictions in enumerate(self._ask("/classify", [[text] for text in texts])):
            for one in predictions:
                scores[row, self._places[one["label"]]] = one["score"]
        return scores

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[int]]:
        """As `Answers.tag`."""
        found = self._ask("/token_classify", [" ".join(words) for words in sentences], aggregate=False)
        return [self._tags(words, tokens) for words, tokens in zip(sentences, found, strict=True)]

    def _tags(self, words: Sequence[str], tokens: Sequence[Mapping[str, Any]]) -> list[int]:
        outside = self._places.get(OUTSIDE, 0)
        spans = [Span(token["start"], token["end"], token["word"]) for token in tokens]
        found = first_inside(words, spans)
        return [outside if place is None else self._places[tokens[place]["entity"]] for place in found]

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """As `Answers.embed`."""
        return np.array(self._ask("/embed", list(texts), normalize=True), dtype=np.float32)

    def _ask(self, path: str, inputs: Sequence[Any], **options: Any) -> list[Any]:
        """What is too long is cut, as it is where a directory is measured."""
        answers: list[Any] = []
        for batch in self._batches(inputs):
            answers += self._client.infer(path, self._name, batch, truncate=True, **options)
        return answers

    def _batches(self, inputs: Sequence[Any]) -> Iterator[list[Any]]:
        batch: list[Any] = []
        size = 0
        for one in inputs:
            length = len(json.dumps(one, ensure_ascii=False).encode())
            if batch and (len(batch) == self._most or size + length > _BYTES):
                yield batch
                batch, size = [], 0
            batch.append(one)
            size += length
        if batch:
            yield batch
