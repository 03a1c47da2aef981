"""One server with an embedding adapter, a classifier of three labels, one of pairs, and one of tokens."""

import pytest

from tests.app.conftest import upload
from tests.oracle import make_peft

SPECS = {
    "search": {"r": 4},
    "kinds": {"task": "SEQ_CLS", "num_labels": 3, "r": 4},
    "fits": {"task": "SEQ_CLS", "num_labels": 1, "r": 4},
    "names": {"task": "TOKEN_CLS", "num_labels": 5, "r": 4, "size": 0.3},
}


@pytest.fixture(scope="module")
def made(server, tiny_path, tmp_path_factory):
    """What PEFT made, by the name it is served under."""
    root = tmp_path_factory.mktemp("made")
    adapters = {
        name: make_peft(tiny_path, root / name, seed=seed, **spec) for seed, (name, spec) in enumerate(SPECS.items())
    }
    for name, adapter in adapters.items():
        assert upload(server, name, adapter.directory).status_code == 201
    return adapters


@pytest.fixture
def post(server):
    """Ask, and take the JSON of a 200."""

    def ask(path, body, **params):
        response = server.post(path, json=body, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    return ask
