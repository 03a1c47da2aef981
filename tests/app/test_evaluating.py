"""A service gives the answers that its adapter's directory gives, whatever it was set to."""

import numpy as np
import pytest
from transformers import BertForSequenceClassification, BertForTokenClassification, BertModel

from app.client import Client
from app.evaluating import Remote
from lorat import LoRAT, MultiLoRAT
from lorat.training.answers import Served
from tests.app.conftest import upload

TEXTS = [*(f"text number {number}" for number in range(70)), "long " * 700]
KINDS = {"classify": BertForSequenceClassification, "tag": BertForTokenClassification, "embed": BertModel}


@pytest.fixture(scope="module")
def adapters(tiny_path, tmp_path_factory):
    """An adapter of each kind, by what it is asked."""
    made = {asked: tmp_path_factory.mktemp(asked) for asked in KINDS}
    for asked, kind in KINDS.items():
        LoRAT(kind.from_pretrained(tiny_path), rank=2, alpha=4).save(made[asked])
    return made


@pytest.fixture(
    scope="module",
    params=[
        {"max_client_batch_size": 3},
        {"max_body_bytes": 300_000},
        {"auto_truncate": False},
        {"requests_per_second_per_key": 1},
    ],
    ids=str,
)
def url(request, serve, adapters):
    client = serve(**request.param)
    for name, directory in adapters.items():
        assert upload(client, name, directory).status_code == 201
    return str(client.base_url)


@pytest.mark.parametrize("asked", KINDS)
def test_a_service_with_limits_answers_as_its_adapter_does_here(asked, url, adapters, tiny_path):
    model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", slots=1)
    slot = model.load(adapters[asked])
    texts = [text.split() for text in TEXTS] if asked == "tag" else TEXTS
    with Client(url) as client:
        remote = Remote(client, asked, slot.adapter.head.labels if slot.adapter.head else ())
        here, there = (getattr(who, asked)(texts) for who in (Served(model, slot), remote))
    if asked == "tag":
        assert here == there
    else:
        np.testing.assert_allclose(here, there, atol=1e-5)


def test_long_texts_are_sent_a_few_at_a_time(url, adapters, tiny_path):
    texts = [f"{number} " + "long " * 40_000 for number in range(4)]
    model = MultiLoRAT.from_pretrained(tiny_path, device="cpu", slots=1)
    with Client(url) as client:
        there = Remote(client, "embed", ()).embed(texts)
    np.testing.assert_allclose(there, Served(model, model.load(adapters["embed"])).embed(texts), atol=1e-5)
