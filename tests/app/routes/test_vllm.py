"""vLLM's routes: `/v1/classify`, and loading and unloading by a directory of the server's."""

import shutil

import pytest

from tests.app.conftest import until, upload
from tests.oracle import make_peft


def test_classes_are_those_of_peft(server, post, made):
    texts = ["hello", "", "what is this?"]
    answer = post("/v1/classify", {"model": "kinds", "input": texts})
    assert answer["object"] == "list" and answer["model"] == "kinds" and answer["id"].startswith("classify-")
    for place, (entry, logits) in enumerate(zip(answer["data"], made["kinds"].answers(texts), strict=True)):
        assert entry["index"] == place and entry["num_classes"] == 3
        assert entry["probs"] == pytest.approx(logits.softmax(-1).tolist(), abs=5e-5)
        assert entry["label"] == f"LABEL_{int(logits.argmax())}"
    tokens = server.post("/classify", params={"adapter": "kinds"}, json={"inputs": [[text] for text in texts]})
    assert answer["usage"] == {
        name: int(tokens.headers["x-compute-tokens"]) for name in ("prompt_tokens", "total_tokens")
    }
    assert post("/v1/classify", {"model": "kinds", "input": "hello"})["data"] == answer["data"][:1]


@pytest.fixture(scope="module")
def directory(tiny_path, tmp_path_factory):
    """What `lora_dir` holds: two adapters, and what is none."""
    root = tmp_path_factory.mktemp("loras")
    make_peft(tiny_path, root / "first", seed=1)
    make_peft(tiny_path, root / "nested" / "second", seed=2)
    (root / "empty").mkdir()
    outside = tmp_path_factory.mktemp("outside")
    make_peft(tiny_path, outside / "third", seed=3)
    (root / "link").symlink_to(outside / "third")
    shutil.copytree(root / "first", root / "sly")
    (root / "sly" / "README.md").unlink(missing_ok=True)
    (root / "sly" / "README.md").symlink_to("/etc/hostname")
    return root


@pytest.fixture
def client(serve, directory):
    return serve(lora_dir=directory)


def load(client, name="x", path="first", **fields):
    return client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path} | fields)


def unload(client, name="x"):
    return client.post("/v1/unload_lora_adapter", json={"lora_name": name})


def embed(client, name):
    return client.post("/v1/embeddings", json={"input": "hello", "model": name})


def test_a_directory_is_loaded_unloaded_and_loaded_again(client, directory):
    response = load(client)
    assert (response.status_code, response.text) == (200, "Success: LoRA adapter 'x' added successfully.")
    first = embed(client, "x").json()["data"]
    assert upload(client, "same", directory / "first").status_code == 201
    assert embed(client, "same").json()["data"] == first
    response = unload(client)
    assert (response.status_code, response.text) == (200, "Success: LoRA adapter 'x' removed successfully.")
    for gone in (embed(client, "x"), embed(client, "x@1"), client.get("/v1/models/x"), unload(client)):
        assert gone.status_code == 404
    assert client.post("/embed?adapter=x", json={"inputs": "hello"}).status_code == 404
    assert "x" not in [entry["id"] for entry in client.get("/v1/models").json()["data"]]
    assert client.get("/adapters/x").status_code == 200  # the store keeps it
    assert load(client, path="nested/second").status_code == 200
    assert embed(client, "x").json()["data"] != first
    assert client.get("/v1/models/x").json()["root"] == "x@2"


def test_an_unloaded_name_is_served_again_once_it_is_uploaded_or_made_anew(client, directory):
    assert load(client).status_code == 200
    for params, status in (({}, 200), ({"replace": True}, 201)):
        assert unload(client).status_code == 200 and embed(client, "x").status_code == 404
        source = directory / ("nested/second" if params else "first")
        assert upload(client, "x", source, params={"dry_run": True, "replace": True}).status_code == 200
        assert embed(client, "x").status_code == 404
        assert upload(client, "x", source, params=params).status_code == status
        assert embed(client, "x").status_code == 200
    assert unload(client).status_code == 200
    assert client.post("/adapters/x/rollback", json={"version": 1}).status_code == 201
    assert embed(client, "x").headers["x-lorat-adapter"] == "x@3"
    assert unload(client).status_code == 200
    assert client.delete("/adapters/x").status_code == 204
    assert upload(client, "x", directory / "first").status_code == 201
    assert embed(client, "x").status_code == 200


def test_unloading_a_name_takes_the_slot_from_no_other_name_with_the_same_content(client):
    def stats(name):
        found = client.get(f"/adapters/{name}/stats").json()
        return found["resident"], found["merged"]

    for name in ("x", "twin"):
        assert load(client, name).status_code == 200
    assert embed(client, "x").status_code == 200
    assert client.patch("/adapters/x", json={"pinned": True, "merge": "always"}).status_code == 200
    until(lambda: stats("x") == ("device", True))
    assert unload(client, "twin").status_code == 200
    assert embed(client, "base").status_code == 200  # what a worker was ordered to do is done before
    assert stats("x") == ("device", True)
    assert unload(client, "x").status_code == 200
    until(lambda: stats("x") == ("host", False))


def test_one_version_is_not_unloaded_with_all_of_them(client):
    assert load(client).status_code == 200
    response = unload(client, "x@1")
    assert (response.status_code, response.json()["error"]["type"]) == (400, "InvalidUserInput")
    assert embed(client, "x@1").status_code == 200


def test_an_unloaded_name_is_served_again_once_another_process_has_something_newer(serve, directory, tmp_path):
    ours, theirs = (serve(store=str(tmp_path / "store"), lora_dir=directory, follow_seconds=3600) for _ in range(2))
    assert load(theirs).status_code == 200
    assert embed(ours, "x").status_code == 200
    for change in (
        lambda: upload(theirs, "x", directory / "nested" / "second", params={"replace": True}),
        lambda: theirs.delete("/adapters/x") and upload(theirs, "x", directory / "first"),
    ):
        assert unload(ours).status_code == 200
        assert embed(ours, "x").status_code == 404
        made = change().json()["version"]
        assert ours.get("/adapters").status_code == 200  # which looks at the log
        assert embed(ours, "x").headers["x-lorat-adapter"] == f"x@{made}"


def test_a_loaded_name_is_replaced_only_in_place(client):
    assert load(client).status_code == 200
    response = load(client, path="nested/second")
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "The lora adapter 'x' has already been loaded. If you want to load the adapter in place, "
        "set 'load_inplace' to True.",
        "type": "InvalidUserInput",
        "param": None,
        "code": 400,
    }
    assert load(client, path="nested/second", load_inplace=True).status_code == 200
    assert client.get("/v1/models/x").json()["root"] == "x@2"


@pytest.mark.parametrize(
    "path",
    ["../outside/third", "link", "/etc", "nothere", "first/../../outside/third", "first/adapter_config.json", "a\0b",
     "sly", "x" * 5000],
)  # fmt: skip
def test_nothing_outside_the_directory_is_read(client, path):
    response = load(client, path=path)
    assert (response.status_code, response.json()["error"]["type"]) == (404, "NotFoundError"), response.text
    assert response.json()["error"]["message"].startswith("No adapter found for")


@pytest.mark.parametrize(
    ("name", "path", "status", "kind"),
    [
        ("", "first", 400, "InvalidUserInput"),
        ("x", "", 400, "InvalidUserInput"),
        ("x", "empty", 400, "BadRequestError"),
        ("Bad Name", "first", 400, "BadRequestError"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_vllms_types(client, name, path, status, kind):
    response = load(client, name, path)
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind), response.text


def test_an_unknown_name_cannot_be_unloaded(client):
    response = unload(client, "nothere")
    assert (response.status_code, response.json()["error"]["type"]) == (404, "NotFoundError")
    assert response.json()["error"]["message"] == "The lora adapter 'nothere' cannot be found."
    assert unload(client, "").status_code == 400


def test_without_a_directory_the_route_is_closed(server):
    response = load(server)
    assert response.status_code == 403 and "LORAT_LORA_DIR" in response.json()["error"]["message"]
