import pytest
import torch

from lorat.training.pairs import columns_of, sampling
from lorat.training.plan import Hyperparameters
from lorat.training.splits import TextPairs, TrainingData

datasets = pytest.importorskip("datasets")  # of lorat[train]
pytest.importorskip("sentence_transformers")
BATCH = 8


@pytest.fixture
def batches():
    """Of an epoch: scored pairs of 1 to 60 words, in no order."""
    lengths = [1 + 37 * place % 60 for place in range(403)]
    pairs = TextPairs(tuple("a " * length for length in lengths), ("b",) * 403, tuple(map(float, lengths)))
    data = TrainingData("pairs", (), False, pairs, pairs, None, False, "pairs")
    columns = columns_of(data, seed=1)
    make = sampling(data, columns, Hyperparameters())["batch_sampler"]

    def of(epoch, seed=1):
        sampler = make(
            datasets.Dataset.from_dict(columns),
            batch_size=BATCH,
            drop_last=False,
            generator=torch.Generator(),
            seed=seed,
        )
        sampler.set_epoch(epoch)
        found = list(sampler)
        assert len(found) == len(sampler)
        return found, [[lengths[place] for place in batch] for batch in found]

    return of


def test_scored_pairs_are_all_read_once_an_epoch_in_an_order_of_its_own(batches):
    first, _ = batches(0)
    assert sorted(place for batch in first for place in batch) == list(range(403))
    assert first == batches(0)[0]  # also after a kill
    assert first != batches(1)[0] and first != batches(0, seed=2)[0]


def test_scored_pairs_of_a_batch_are_of_like_length(batches):
    _, lengths = batches(3)
    padded = sum(max(batch) * len(batch) for batch in lengths)
    assert padded < 1.2 * sum(map(sum, lengths))
