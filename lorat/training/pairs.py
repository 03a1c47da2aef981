"""Training embeddings, through sentence-transformers' trainer and losses.

scored pairs      CoSENTLoss: pairs in the order of their scores (https://kexue.fm/archives/8847)
positive pairs    MultipleNegativesRankingLoss: each text's partner against all others of the batch (arXiv 1705.00652)
labelled texts    the same, of pairs that share a label, one pair of a label in a batch
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lorat.model import LoRAT
from lorat.training.loop import EVAL_BATCH, METRIC, History, arguments, on_one_gpu, optimizer, quiet, run
from lorat.training.plan import Hyperparameters
from lorat.training.scores import Scores, match_scores, pair_scores, retrieval_scores
from lorat.training.similar import similar_pairs
from lorat.training.splits import LabelledTexts, Split, TextPairs, TrainingData
from lorat.training.work import Work


def train_embedding(
    how: Hyperparameters, data: TrainingData, directory: Path, work: Work, seed: int
) -> tuple[LoRAT, History]:
    """Train on pairs or labelled texts; pooling, prompt and length are the base's own.

    Raises ConfigError where training diverges, or no label has two texts.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

    from lorat.training.adapter_trainer import AdapterTrainer

    with quiet():
        encoder = SentenceTransformer(str(directory))
    adapter = LoRAT(
        encoder[0].auto_model, how.rank, how.alpha, how.tune, dropout=how.dropout, use_rslora=how.use_rslora
    )
    columns = columns_of(data, seed)
    options = sampling(data, columns, how) | {"prompts": encoder.prompts.get(encoder.default_prompt_name) or None}
    told = arguments(how, len(next(iter(columns.values()))), work, seed, texts_a_row=2) | options
    trainer = AdapterTrainer(
        adapter,
        model=encoder,
        args=on_one_gpu(SentenceTransformerTrainingArguments(**told)),
        train_dataset=Dataset.from_dict(columns),
        loss=loss_of(data, encoder),
        evaluator=evaluator(data.dev),
        optimizers=(optimizer(adapter, how), None),
    )
    return adapter, run(trainer, how, work)


def columns_of(data: TrainingData, seed: int) -> dict[str, list[Any]]:
    """What the trainer reads, by column; scores from 0 to 1."""
    if isinstance(data.train, LabelledTexts):
        anchors, positives, labels = zip(*similar_pairs(data.train, seed), strict=True)
        return {"anchor": list(anchors), "positive": list(positives), "label": list(labels)}
    assert isinstance(data.train, TextPairs)
    pairs = {"first": list(data.train.first), "second": list(data.train.second)}
    if data.train.scores is None:
        return pairs
    low, high = min(data.train.scores), max(data.train.scores)
    return pairs | {"score": [(score - low) / (high - low) for score in data.train.scores]}


def sampling(data: TrainingData, columns: dict[str, list[Any]], how: Hyperparameters) -> dict[str, Any]:
    """How batches are made.

    Where the others of a batch are what a text is told from, no text is in it twice; scored pairs are of like length.
    """
    if "score" in columns:
        return {"batch_sampler": _of_like_length}
    if "label" in columns:
        most = min(how.batch_size, len(set(columns["label"])))
        return {"batch_sampler": _one_pair_a_label, "per_device_train_batch_size": most}
    return {"batch_sampler": "no_duplicates"}


def _one_pair_a_label(dataset: Any, **settings: Any) -> Any:
    """Batches without duplicates, the label counted as a value: every other pair is a true negative."""
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    return NoDuplicatesBatchSampler(dataset, **settings | {"valid_label_columns": None})


def _of_like_length(dataset: Any, **settings: Any) -> Any:
    """Batches with little padding: transformers' `group_by_length`, drawn anew in each epoch."""
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from transformers.trainer_pt_utils import get_length_grouped_indices

    lengths = [len(first) + len(second) for first, second in zip(dataset["first"], dataset["second"], strict=True)]

    class LikeLength(DefaultBatchSampler):  # type: ignore[misc]
        def __iter__(self) -> Iterator[list[int]]:
            self.generator.manual_seed(self.seed + self.epoch)
            self.sampler = get_length_grouped_indices(lengths, self.batch_size, generator=self.generator)
            return iter(super().__iter__())

    return LikeLength(dataset, **settings)


def loss_of(data: TrainingData, encoder: Any) -> Any:
    """The loss for a kind of data."""
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MultipleNegativesRankingLoss

    scored = isinstance(data.train, TextPairs) and data.train.scores is not None
    return CoSENTLoss(encoder) if scored else MultipleNegativesRankingLoss(encoder)


def evaluator(dev: Split) -> Any:
    """The dev score: Spearman's correlation, mean reciprocal rank, or MAP."""
    from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

    class Evaluator(SentenceEvaluator):  # type: ignore[misc]
        def __call__(self, model: Any, **_: Any) -> dict[str, float]:
            values = _dev_scores(dev, lambda texts: _embed(model, texts))
            return {METRIC: next(iter(values.values()))}

    return Evaluator()


def _dev_scores(dev: Split, embed: Callable[[Sequence[str]], NDArray[Any]]) -> Scores:
    if isinstance(dev, LabelledTexts):
        return retrieval_scores(embed(dev.texts), [own[0] for own in dev.labels])
    assert isinstance(dev, TextPairs)
    if dev.scores is None:
        return match_scores(embed(dev.first), embed(dev.second))
    return pair_scores(embed(dev.first), embed(dev.second), dev.scores)


def _embed(encoder: Any, texts: Sequence[str]) -> NDArray[Any]:
    vectors: NDArray[Any] = encoder.encode(
        list(texts), batch_size=EVAL_BATCH, normalize_embeddings=True, show_progress_bar=False
    )
    return vectors
