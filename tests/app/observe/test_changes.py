"""A log line for each change of an adapter that succeeded, and none for what changed nothing."""

import logging

import pytest

from tests.app.conftest import upload
from tests.oracle import make_peft


@pytest.fixture(scope="module")
def made(tiny_path, tmp_path_factory):
    directory = tmp_path_factory.mktemp("made")
    return [make_peft(tiny_path, directory / str(seed), seed=seed, r=2).directory for seed in range(2)]


def test_each_change_says_what_whose_and_which(serve, made, caplog):
    client = serve(admin_key="first,hidden-word", api_key="reader")
    client.headers["Authorization"] = "Bearer hidden-word"
    first = upload(client, "x", made[0]).json()["digest"]
    second = upload(client, "x", made[1], params={"replace": True}).json()["digest"]
    caplog.clear()

    def line(answer):
        """The one that a request wrote."""
        assert answer.is_success, answer.text
        written = [(record.getMessage(), record.fields) for record in caplog.records if record.name == "lorat"]
        caplog.clear()
        assert len(written) == 1
        return written[0]

    with caplog.at_level(logging.INFO):
        for answer, message, version, digest, more in [
            (lambda: upload(client, "y", made[0]), "uploaded", "y@1", first, {}),
            (lambda: upload(client, "y", made[1], params={"replace": True}), "replaced", "y@2", second, {}),
            (
                lambda: client.post("/adapters/x/rollback", json={"version": 1}),
                "rolled back",
                "x@3",
                first,
                {"to": "x@1"},
            ),
            (lambda: client.patch("/adapters/x", json={"pinned": True}), "configured", "x@3", first, {"pinned": True}),
            (lambda: client.post("/v1/unload_lora_adapter", json={"lora_name": "x"}), "unloaded", "x@3", first, {}),
            (lambda: client.delete("/adapters/x@1"), "deleted", "x@1", first, {"versions": "one"}),
            (lambda: client.delete("/adapters/x"), "deleted", "x@3", first, {"versions": "all"}),
        ]:
            expected = {"adapter": version, "digest": digest, "key": "admin-1", **more}
            assert line(answer()) == (f"adapter {message}", expected)


def test_what_changed_nothing_says_nothing_and_without_keys_none_is_named(serve, made, caplog):
    client = serve()
    with caplog.at_level(logging.INFO):
        assert upload(client, "x", made[0]).status_code == 201
        [record] = [record for record in caplog.records if record.name == "lorat"]
        assert "key" not in record.fields
        caplog.clear()
        assert upload(client, "x", made[0]).status_code == 200
        assert upload(client, "x", made[1]).status_code == 409
        assert upload(client, "x", made[1], params={"replace": True, "dry_run": True}).status_code == 200
        assert client.patch("/adapters/x", json={"pinned": False}).status_code == 200
        assert client.delete("/adapters/y").status_code == 404
    assert not [record for record in caplog.records if record.name == "lorat"]
