"""Fine-tuning on a labelled file: `lorat train --data FILE|DIR --out DIR`, from code `train(Plan(data, out))`.

classify   one label or several a text: a classification head beside the LoRA matrices
tokens     a tag a word: a head over tokens
pairs      an embedding adapter: scored pairs, positive pairs, or texts that share a label

The epoch that does best on dev is kept. The adapter is then loaded as it is served and measured once on the test
split, beside the frozen base. What only training needs is imported when it is used.

    training/plan.py      what a run is told, and its defaults; command.py: its command line
    training/data.py      the rows, checked; rows.py reads them, files.py their fields
    training/work.py      the run's directory: going on after a kill, nothing half-written
    training/heads.py     the training of heads; start.py where they start and end
    training/pairs.py     that of embeddings, of texts that share a label by similar.py; loop.py what both share
    training/measure.py   answers and scores; answers.py who is asked
    training/report.py    the pictures; card.py the model card
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lorat.base import Base, load_base, locate_base
from lorat.errors import ConfigError, LoratError
from lorat.files.facts import MAX_PROBE
from lorat.model import LoRAT
from lorat.multi import MultiLoRAT
from lorat.probes import write_probes
from lorat.training.answers import Frozen, Served
from lorat.training.card import HUB_TAGS, Card, data_name
from lorat.training.command import add_arguments, read_plan, show
from lorat.training.data import read_training_data
from lorat.training.heads import train_head
from lorat.training.inputs import check_words, cut_texts, lengths_of, texts_of
from lorat.training.loop import History
from lorat.training.measure import Answers, measure
from lorat.training.pairs import train_embedding
from lorat.training.plan import Plan
from lorat.training.report import draw
from lorat.training.scores import Scores
from lorat.training.similar import check_similar
from lorat.training.splits import TrainingData
from lorat.training.work import Work

PROBES = 2
"""Texts whose answers go into `lorat.json`, to be asked again when the adapter is loaded."""
_ONLY_DEV = "dev (there is no test split; dev also chose the epoch)"
_NEEDED = ("accelerate", "datasets", "sentence_transformers", "sklearn", "scipy", "matplotlib")


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the arguments say; 2 and a line on stderr for what cannot be honoured."""
    parser = argparse.ArgumentParser("python -m lorat.train", description="Fine-tune an adapter on a labelled file.")
    add_arguments(parser)
    try:
        show(train(read_plan(parser.parse_args(argv))))
    except LoratError as error:
        print(f"lorat.train: error: {error}", file=sys.stderr)
        return 2
    return 0


def train(plan: Plan) -> dict[str, Scores]:
    """Train, write the adapter with its report, and return its scores beside the frozen base's.

    A run that was killed goes on where it stopped. Raises ConfigError for data or settings that cannot be honoured,
    BaseError for the base.
    """
    import transformers

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"training needs {missing[0]}, which is not installed: pip install -e '.[train]'")
    data = read_training_data(
        plan.data,
        seed=plan.seed,
        leave_out=plan.leave_out,
        columns=dict(plan.columns),
        for_head=plan.task != "pairs",
    )
    task = plan.task_for(data.kind)
    if task == "pairs":
        check_similar(data)
    base = load_base(plan.base, dtype="float32")
    check_words(base, data)
    run = _Run(plan, task, data, base, Work(plan, task, data, base.read_hash()), cut_texts(base, data.train))
    if run.cut:
        print(run.cut, flush=True)
    with run.work.writing():
        transformers.set_seed(plan.seed)
        return _publish(run, *_fit(run))


@dataclass(frozen=True)
class _Run:
    """What is trained, on what and where. cut: a sentence where texts are."""

    plan: Plan
    task: str
    data: TrainingData
    base: Base
    work: Work
    cut: str


def _fit(run: _Run) -> tuple[LoRAT, History]:
    how, directory = run.plan.hyperparameters(run.task), locate_base(run.plan.base)
    if run.task == "pairs":
        return train_embedding(how, run.data, directory, run.work, run.plan.seed)
    return train_head(how, run.data, directory, run.base, run.work, run.plan.seed)


def _publish(run: _Run, model: LoRAT, history: History) -> dict[str, Scores]:
    with run.work.publish() as directory:
        model.save(
            directory,
            description=run.plan.description or f"Trained on {data_name(run.plan, run.data)}.",
            tags=[HUB_TAGS[run.task]],
            base_name=run.plan.base_name,
        )
        server = MultiLoRAT(run.base, slots=1)
        probes = [text for text in texts_of(run.data.dev) if len(text) <= MAX_PROBE]
        write_probes(directory, server, probes[:PROBES])
        return _report(run, directory, server, history)


def _report(run: _Run, directory: Path, server: MultiLoRAT, history: History) -> dict[str, Scores]:
    """Measure what was written, as it is served, and the frozen base; write the card and its pictures."""
    plan, task, data = run.plan, run.task, run.data
    name, split = ("test", data.test) if data.test else (_ONLY_DEV, data.dev)
    slot = server.load(directory)
    answers: dict[str, Answers] = {plan.title: Served(server, slot), "frozen base": Frozen(server, data)}
    adapted, frozen = (measure(task, who, split, data.labels, data.multi_label) for who in answers.values())
    lengths = lengths_of(server.base, split)
    try:
        drawn = draw(directory, task, data, split, history, adapted, frozen, lengths)
    except (ArithmeticError, MemoryError, ValueError) as error:  # no picture is worth the adapter
        print(f"the pictures could not be drawn: {error}", flush=True)
        drawn = {}
    scores = dict(zip(answers, (adapted.scores, frozen.scores), strict=True))
    Card(plan, task, data, run.cut, history, scores, name, drawn).write(directory)
    return scores


if __name__ == "__main__":
    sys.exit(main())
