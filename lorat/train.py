"""Fine-tuning on labelled texts: `python -m lorat.train --data DIR --task classify|similar --out DIR`.

classify   a classification head beside the LoRA matrices, through transformers' Trainer
similar    an embedding adapter: texts of one label are similar; through sentence-transformers' trainer

The epoch that does best on dev is kept. The written adapter is then loaded as it is served and measured
once on the test split, beside the frozen base. accelerate, datasets, sentence-transformers and scikit-learn
are imported when they are used.

    training/plan.py     the arguments
    training/data.py     the rows, checked
    training/loops.py    the two trainings
    training/report.py   scores and the model card
"""

import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

import lorat.training.report as report
from lorat.base import load_base, locate_base
from lorat.errors import ConfigError, LoratError
from lorat.multi import MultiLoRAT
from lorat.probes import write_probes
from lorat.slots import Slot
from lorat.training.data import Rows, TrainingData, read_training_data
from lorat.training.loops import train_classifier, train_similar
from lorat.training.plan import BATCH, HEAD_C, WARMUP, WEIGHT_DECAY, Plan, parse_plan

PROBES = 2
"""Texts whose answers go into `lorat.json`, to be asked again when the adapter is loaded."""
_NEEDED = ("accelerate", "datasets", "sentence_transformers", "sklearn")


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the arguments say; 2 and a line on stderr for what cannot be honoured."""
    try:
        scores = train(parse_plan(argv))
    except LoratError as error:
        print(f"lorat.train: error: {error}", file=sys.stderr)
        return 2
    for model, values in scores.items():
        print(f"{model}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
    return 0


def train(plan: Plan) -> dict[str, report.Scores]:
    """Train, write the adapter and its card, and return its scores beside the frozen base's.

    Raises ConfigError for data or settings that cannot be honoured, BaseError for the base.
    """
    import transformers

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"training needs {missing[0]}, which is not installed: pip install 'lorat[train]'")
    data = read_training_data(plan.data, seed=plan.seed, leave_out=plan.leave_out)
    directory = locate_base(plan.base)
    base = load_base(plan.base, dtype="float32")
    transformers.set_seed(plan.seed)
    run = train_classifier if plan.task == "classify" else train_similar
    with tempfile.TemporaryDirectory() as scratch:
        model = run(plan, data, directory, base, scratch)
    kind = "text-classification" if plan.task == "classify" else "feature-extraction"
    model.save(plan.out, description=plan.description, tags=[kind], base_name=plan.base_name)
    server = MultiLoRAT(base, slots=1)
    write_probes(plan.out, server, data.dev.texts[:PROBES])
    scores = _measure(plan, data, server)
    _card(plan, data, scores, kind).write(plan.out)
    return scores


def _measure(plan: Plan, data: TrainingData, server: MultiLoRAT) -> dict[str, report.Scores]:
    """Scores of the written adapter, served as it will be, and of the frozen base."""
    _, rows = report.rows_of(data)
    slot = server.load(plan.out)
    if plan.task == "similar":
        adapted = report.retrieval_scores(_embed(server, rows, slot), rows.labels)
        frozen = report.retrieval_scores(_embed(server, rows), rows.labels)
        return {plan.name: adapted, "frozen base": frozen}
    scores = [row for texts in _batches(rows) for row in server.classify(texts, slot)]
    predicted = [data.labels.index(max(row, key=row.__getitem__)) for row in scores]
    probe = report.Probe(
        _embed(server, data.train), data.train.labels, _embed(server, data.dev), data.dev.labels
    ).predict(_embed(server, rows))
    adapted, frozen = report.label_scores(predicted, rows.labels), report.label_scores(probe, rows.labels)
    return {plan.name: adapted, "frozen base": frozen}


def _batches(rows: Rows) -> list[Sequence[str]]:
    return [rows.texts[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def _embed(server: MultiLoRAT, rows: Rows, slot: Slot | None = None) -> report.Vectors:
    vectors = np.concatenate([server.embed(texts, slot) for texts in _batches(rows)])
    normalised: report.Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised


def _card(plan: Plan, data: TrainingData, scores: dict[str, report.Scores], kind: str) -> report.Card:
    losses = {
        "classify": f"cross entropy; the head starts as a logistic regression (C={HEAD_C:g}) on the frozen base",
        "similar": "MultipleNegativesRankingLoss, one pair of a label in a batch",
    }
    recipe = {
        "rank": plan.rank,
        "alpha": plan.alpha,
        "tune": plan.tune,
        "epochs": f"at most {plan.epochs}, the best on dev kept",
        "batch size": plan.batch_size,
        "learning rate": f"{plan.learning_rate}, linear decay after {WARMUP:.0%} warm-up",
        "optimiser": f"AdamW, weight decay {WEIGHT_DECAY}",
        "loss": losses[plan.task],
        "seed": plan.seed,
    }
    return report.Card(
        name=plan.name,
        description=plan.description,
        base=plan.base_name,
        task=plan.task,
        data_name=plan.data_name,
        data_licence=plan.data_licence,
        data=data,
        recipe=recipe | report.versions(plan.task),
        command=plan.command(),
        scores=scores,
        split=report.rows_of(data)[0],
        tags=[kind],
    )


if __name__ == "__main__":
    sys.exit(main())
