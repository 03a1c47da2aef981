"""Who is measured, against transformers, sentence-transformers and scikit-learn."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification, BertForTokenClassification, BertModel

from lorat import LoRAT, MultiLoRAT
from lorat.training.answers import Frozen, Served
from lorat.training.data import read_training_data
from tests.lorat.training.conftest import base, directory_of, rows, several, tagged

linear_model = pytest.importorskip("sklearn.linear_model")  # of lorat[train]
multiclass = pytest.importorskip("sklearn.multiclass")
sentence_transformers = pytest.importorskip("sentence_transformers")
__all__ = ["base"]
CUT = "a word and another " * 300


@pytest.fixture
def model(base):
    return MultiLoRAT.from_pretrained(base, device="cpu", dtype="float32", slots=2)


@pytest.fixture(scope="module")
def tokenizer(base):
    return AutoTokenizer.from_pretrained(base, model_max_length=512)


def data_of(tmp_path, make):
    return read_training_data(directory_of(tmp_path / "data", make), seed=1)


def adapted(base, kind, tmp_path, model, **config):
    """A model of transformers with an adapter that is not nothing, and the slot that serves the adapter."""
    torch.manual_seed(0)
    wrapped = LoRAT(kind.from_pretrained(base, **config), 4, 8, "qkovid").eval()
    with torch.no_grad():
        for _, layer in wrapped.adapted():
            layer.lora_B.normal_(std=0.1)
    wrapped.save(tmp_path / "adapter")
    return wrapped, model.load(tmp_path / "adapter")


@torch.no_grad()
def hidden(bert, tokenizer, text):
    return bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]


def mean_vectors(base, texts):
    """sentence-transformers' vectors, normalised: of a directory without a recipe it takes the mean."""
    return sentence_transformers.SentenceTransformer(str(base)).encode(list(texts), normalize_embeddings=True)


@torch.no_grad()
def test_a_served_classifier_answers_as_transformers_does(base, tokenizer, model, tmp_path):
    labels = ["animal", "colour", "none"]
    wrapped, slot = adapted(base, BertForSequenceClassification, tmp_path, model, id2label=dict(enumerate(labels)))
    texts = ["a cat", "it is a red one", CUT, "x"]
    logits = [wrapped(**tokenizer(text, truncation=True, return_tensors="pt")).logits for text in texts]
    found = Served(model, slot).classify(texts)
    np.testing.assert_allclose(found, torch.cat(logits).softmax(-1), atol=1e-5)


@torch.no_grad()
def test_a_served_tagger_answers_as_transformers_does(base, tokenizer, model, tmp_path):
    labels = ["B-animal", "O", "I-animal"]
    wrapped, slot = adapted(base, BertForTokenClassification, tmp_path, model, id2label=dict(enumerate(labels)))
    sentences = [("an", "unbelievably", "old", "wolf"), ("red",), ("word",) * 600]
    wanted = []
    for words in sentences:
        encoded = tokenizer(list(words), is_split_into_words=True, truncation=True, return_tensors="pt")
        places = [encoded.word_ids().index(n) if n in encoded.word_ids() else None for n in range(len(words))]
        best = wrapped(**encoded).logits[0].argmax(-1)
        wanted.append([1 if place is None else int(best[place]) for place in places])
    assert Served(model, slot).tag(sentences) == wanted


def test_a_frozen_base_embeds_as_sentence_transformers_does(base, model):
    texts = ["a cat", "it is a red one", "x"]
    found = Frozen(model, None).embed(texts)
    np.testing.assert_allclose(found, mean_vectors(base, texts), atol=1e-5)


def best_on_dev(make, train, dev):
    """The regression that does best on dev, weakest regularisation last."""
    fitted = [make(linear_model.LogisticRegression(C=c, max_iter=2000)).fit(*train) for c in (1, 10, 100)]
    return max(fitted, key=lambda one: one.score(*dev))


def test_a_frozen_base_classifies_by_a_regression_on_its_vectors(base, model, tmp_path):
    data = data_of(tmp_path, rows)
    train, dev = (
        (mean_vectors(base, split.texts), [own[0] for own in split.labels]) for split in (data.train, data.dev)
    )
    wanted = best_on_dev(lambda one: one, train, dev).predict_proba(mean_vectors(base, data.test.texts))
    np.testing.assert_allclose(Frozen(model, data).classify(data.test.texts), wanted, atol=1e-3)


def test_several_labels_are_a_regression_each(base, model, tmp_path):
    data = data_of(tmp_path, several)
    train, dev = (
        (mean_vectors(base, split.texts), np.array([[label in own for label in (0, 1)] for own in split.labels]))
        for split in (data.train, data.dev)
    )
    wanted = best_on_dev(multiclass.OneVsRestClassifier, train, dev).predict_proba(mean_vectors(base, data.test.texts))
    np.testing.assert_allclose(Frozen(model, data).classify(data.test.texts), wanted, atol=1e-3)


def test_a_frozen_base_tags_by_a_regression_on_hidden_states(base, tokenizer, model, tmp_path):
    data, bert = data_of(tmp_path, tagged), BertModel.from_pretrained(base).eval()

    def words_of(split):
        states = []
        for words in split.words:
            ids = tokenizer(list(words), is_split_into_words=True).word_ids()
            states += [hidden(bert, tokenizer, " ".join(words))[ids.index(n)].numpy() for n in range(len(words))]
        return np.stack(states), [tag for own in split.tags for tag in own]

    fitted = best_on_dev(lambda one: one, words_of(data.train), words_of(data.dev))
    assert len(Frozen(model, data).tag([("\u200d",)])[0]) == 1  # a sentence without a token has a tag as well
    found = Frozen(model, data).tag(data.test.words)
    assert [tag for own in found for tag in own] == fitted.predict(words_of(data.test)[0]).tolist()
