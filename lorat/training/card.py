"""The model card: a `README.md` beside the adapter, for people and for the hub."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lorat import __version__
from lorat.training.data import DEV_SHARE
from lorat.training.loop import History
from lorat.training.plan import Plan
from lorat.training.scores import Scores
from lorat.training.splits import TrainingData

CARD = "README.md"
HUB_TAGS = {"classify": "text-classification", "tokens": "token-classification", "pairs": "feature-extraction"}
"""The hub's name of each task."""


@dataclass(frozen=True)
class Card:
    """What a card is written from. cut: of `cut_texts`. scores: by model, on `split`. pictures: files, titles."""

    plan: Plan
    task: str
    data: TrainingData
    cut: str
    history: History
    scores: Mapping[str, Scores]
    split: str
    pictures: Mapping[str, str]

    def write(self, directory: Path) -> None:
        """Write it beside the adapter."""
        parts = [self._head(), self._scores(), self._pictures(), self._data(), self._recipe()]
        (directory / CARD).write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")

    def _head(self) -> str:
        plan = self.plan
        front = {"base_model": plan.base_name, "library_name": "peft", "tags": ["lorat", "lora", HUB_TAGS[self.task]]}
        lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in front.items()]
        head = "\n".join(["---", *lines, "---"])
        about = plan.description or f"Trained on {data_name(plan, self.data)}."
        return f"{head}\n\n# {plan.title}\n\n{about}\n\nA LoRA adapter for {plan.base_name}, {_ABOUT[self.task]}."

    def _scores(self) -> str:
        names = list(next(iter(self.scores.values())))
        lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for model, scores in self.scores.items():
            lines.append(f"| {_cell(model)} | " + " | ".join(f"{scores[name]:.4f}" for name in names) + " |")
        return f"## Scores\n\nOn the {self.split} split. {_measure(self.task, self.data)}\n\n" + "\n".join(lines)

    def _pictures(self) -> str:
        return "\n\n".join(f"![{title}]({file})" for file, title in self.pictures.items())

    def _data(self) -> str:
        data = self.data
        dev = f"{DEV_SHARE:.0%} of train, held out by the seed" if data.held_out else "its own dev split"
        test = f", {len(data.test)} to test" if data.test else ""
        labels = f", {len(data.labels)} labels" if data.labels else ""
        rows = (
            f"{data_name(self.plan, data)} (licence: {self.plan.data_licence}){labels}: "
            f"{len(data.train)} rows to train, {len(data.dev)} to choose the epoch ({dev}){test}."
        )
        return f"## Data\n\n{rows} {self.cut}".rstrip()

    def _recipe(self) -> str:
        how = self.plan.hyperparameters(self.task)
        values: dict[str, Any] = {name.replace("_", " "): value for name, value in asdict(how).items()}
        values["epochs"] = f"at most {self.history.most:g}; {self.history.kept:g} is kept"
        values |= {"optimiser": "AdamW, linear decay", "loss": _loss(self.task, self.data), "seed": self.plan.seed}
        rows = "\n".join(f"| {name} | {value} |" for name, value in (values | _versions(self.task)).items())
        return (
            f"## Recipe\n\n| setting | value |\n|---|---|\n{rows}\n\nTo train it again, with the data as DATA and a "
            f"new directory as OUT:\n\n```\nlorat train {shlex.join(self.plan.command(self.task))}\n```"
        )


def _cell(text: str) -> str:
    """A text in a table."""
    return text.replace("|", r"\|")


def data_name(plan: Plan, data: TrainingData) -> str:
    """The data's name for people."""
    return plan.data_name or data.name


_ABOUT = {
    "classify": "with a classification head",
    "tokens": "with a head that tags words",
    "pairs": "which brings the vectors of similar texts together; pooling and length are the base's own",
}


def _measure(task: str, data: TrainingData) -> str:
    """What the scores mean, and what the frozen base is."""
    if task == "tokens":
        return (
            "F1 is of whole entities. The frozen base is a logistic regression on its hidden states at each word's "
            "first token, fitted to the same train rows."
        )
    if task == "classify":
        return (
            "The frozen base is a logistic regression on its normalised embeddings, fitted to the same train rows; "
            "how strongly it is regularised is chosen on dev."
        )
    return _SEARCHES[_pairs_kind(data)] + " The frozen base's vectors are used as they are."


_SEARCHES = {
    "labelled": "Each text searches all others of the split, by cosine; those of its own label are right.",
    "scored": "The correlation of the cosine of two texts with their score.",
    "positive": "Each first text searches all second ones of the split, by cosine; its own partner is right.",
}


def _pairs_kind(data: TrainingData) -> str:
    if data.kind == "labels":
        return "labelled"
    return "positive" if getattr(data.train, "scores", None) is None else "scored"


def _loss(task: str, data: TrainingData) -> str:
    if task == "pairs":
        return "CoSENTLoss" if _pairs_kind(data) == "scored" else "MultipleNegativesRankingLoss"
    if task == "tokens":
        return "cross entropy; the head starts at random"
    entropy = "binary cross entropy" if data.multi_label else "cross entropy"
    return f"{entropy}; the head starts and ends as a logistic regression"


def _versions(task: str) -> dict[str, str]:
    names = ["torch", "transformers", "accelerate", "sentence-transformers" if task == "pairs" else "scikit-learn"]
    return {"lorat": __version__} | {name: version(name).partition("+")[0] for name in names}
