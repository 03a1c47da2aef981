"""What a training run says of itself: its scores beside the frozen base's, and the model card."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lorat.errors import ConfigError
from lorat.training.data import DEV_SHARE, Rows, TrainingData

CARD = "README.md"
_REGULARISATION = (1.0, 10.0, 100.0)
_BLOCK = 512

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Scores = dict[str, float]


def retrieval_scores(vectors: Vectors, labels: Sequence[int]) -> Scores:
    """Leave-one-out retrieval: each text searches all others; those of its own label are right.

    vectors: (texts, dimensions), normalised. Texts whose label has no other text are not counted.
    Raises ConfigError where no label has two texts.
    """
    truth = np.asarray(labels)
    first, average = [], []
    for start in range(0, len(vectors), _BLOCK):
        similarity = vectors[start : start + _BLOCK] @ vectors.T
        rows = np.arange(start, start + len(similarity))
        similarity[np.arange(len(rows)), rows] = -np.inf
        ranked = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
        right = truth[ranked] == truth[rows, None]
        right = right[right.any(axis=1)]
        precision = right.cumsum(axis=1) / np.arange(1, len(vectors))
        first += right[:, 0].tolist()
        average += ((precision * right).sum(axis=1) / right.sum(axis=1)).tolist()
    if not first:
        raise ConfigError("no two texts of the dev or test split share a label: give more, or a dev.jsonl of its own")
    return {"accuracy@1": float(np.mean(first)), "MAP": float(np.mean(average))}


def label_scores(predicted: Sequence[int], labels: Sequence[int]) -> Scores:
    """Accuracy, and the F1 of each label averaged over the labels."""
    from sklearn.metrics import f1_score

    accuracy = float(np.mean(np.asarray(predicted) == np.asarray(labels)))
    return {"accuracy": accuracy, "macro F1": float(f1_score(labels, predicted, average="macro"))}


class Probe:
    """Logistic regression on frozen vectors; its regularisation is the one that does best on dev."""

    def __init__(self, train: Vectors, train_labels: Sequence[int], dev: Vectors, dev_labels: Sequence[int]) -> None:
        from sklearn.linear_model import LogisticRegression

        fitted = [LogisticRegression(C=c, max_iter=2000).fit(train, train_labels) for c in _REGULARISATION]
        self._model: Any = max(fitted, key=lambda model: model.score(dev, dev_labels))

    def predict(self, vectors: Vectors) -> list[int]:
        """The label of each vector."""
        return [int(label) for label in self._model.predict(vectors)]


@dataclass(frozen=True)
class Card:
    """What a model card is written from.

    recipe: every hyperparameter by name. command: what trains it again, as arguments. scores: by model.
    split: the split the scores were measured on.
    """

    name: str
    description: str
    base: str
    task: str
    data_name: str
    data_licence: str
    data: TrainingData
    recipe: Mapping[str, Any]
    command: Sequence[str]
    scores: Mapping[str, Scores]
    split: str
    tags: Sequence[str]

    def write(self, directory: Path) -> None:
        """Write it as `README.md` beside the adapter."""
        parts = [self._head(), self._data(), self._recipe(), self._scores()]
        (directory / CARD).write_text("\n\n".join(parts) + "\n", encoding="utf-8")

    def _head(self) -> str:
        front = {"base_model": self.base, "library_name": "peft", "tags": ["lorat", "lora", *self.tags]}
        lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in front.items()]
        head = "\n".join(["---", *lines, "---"])
        return f"{head}\n\n# {self.name}\n\n{self.description}\n\nA LoRA adapter for {self.base}, {_KINDS[self.task]}."

    def _data(self) -> str:
        data = self.data
        dev = f"{DEV_SHARE:.0%} of train, held out by the seed" if data.held_out else "its own dev split"
        test = f", {len(data.test)} to test" if data.test else ""
        return (
            f"## Data\n\n{self.data_name} (licence: {self.data_licence}), {len(data.labels)} labels: "
            f"{len(data.train)} texts to train, {len(data.dev)} to choose the epoch ({dev}){test}."
        )

    def _recipe(self) -> str:
        rows = "\n".join(f"| {name} | {value} |" for name, value in self.recipe.items())
        table = f"| setting | value |\n|---|---|\n{rows}"
        return (
            f"## Recipe\n\n{table}\n\nTo train it again, with the data's directory as DATA and a new directory as OUT:"
            f"\n\n```\npython -m lorat.train {shlex.join(self.command)}\n```"
        )

    def _scores(self) -> str:
        names = list(next(iter(self.scores.values())))
        lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for model, scores in self.scores.items():
            lines.append(f"| {model} | " + " | ".join(f"{scores[name]:.4f}" for name in names) + " |")
        return f"## Scores\n\nOn the {self.split} split. {_MEASURES[self.task]}\n\n" + "\n".join(lines)


_KINDS = {
    "classify": "with a classification head",
    "similar": "which brings the vectors of similar texts together; pooling and length are the base's own",
}
_MEASURES = {
    "classify": "The frozen base is a logistic regression on its normalised embeddings, fitted to the same train rows, "
    f"its C chosen from {', '.join(f'{c:g}' for c in _REGULARISATION)} on dev.",
    "similar": "Each text searches all others of the split, by cosine; those of its own label are right. "
    "Train and test have the same labels. The frozen base's vectors are used as they are.",
}


def versions(task: str) -> dict[str, str]:
    """Versions of the packages that a task's result depends on."""
    names = ["torch", "transformers", "accelerate", "scikit-learn" if task == "classify" else "sentence-transformers"]
    return {name: version(name).partition("+")[0] for name in names}


def rows_of(data: TrainingData) -> tuple[str, Rows]:
    """The split that scores are measured on: test, or dev where there is no test."""
    return ("test", data.test) if data.test else ("dev (there is no test split; dev also chose the epoch)", data.dev)
