"""`/adapters` over HTTP: upload, replace, list, delete, refuse; nothing half-done, nothing lost."""

import io
import json
import socket
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorat import LoRAT
from tests.app.conftest import files_of, upload
from tests.oracle import make_peft


@pytest.fixture(scope="module")
def made(tiny_path, tmp_path_factory):
    """Three adapters: two for embedding, one that classifies."""
    directory = tmp_path_factory.mktemp("made")
    return [
        make_peft(tiny_path, directory / "0", seed=0, r=2),
        make_peft(tiny_path, directory / "1", seed=1, r=4),
        make_peft(tiny_path, directory / "2", seed=2, r=2, task="SEQ_CLS", num_labels=3),
    ]


def vector(client, name, text="What is LoRA?"):
    response = client.post("/embed", params={"adapter": name}, json={"inputs": text})
    assert response.status_code == 200, response.text
    return np.array(response.json()[0]), response.headers["x-lorat-adapter"]


def close(got, adapter, text="What is LoRA?"):
    return np.abs(got - adapter.answers([text])[0].numpy()).max() <= 5e-5


def test_an_upload_is_served_and_described(server, made):
    response = upload(server, "shown", made[2].directory)
    assert response.status_code == 201
    record = response.json()
    assert response.headers["location"] == "/adapters/shown"
    assert response.headers["etag"] == f'"{record["digest"].removeprefix("sha256:")}"'
    assert server.get("/adapters/shown").headers["etag"] == response.headers["etag"]
    assert {key: record[key] for key in ("name", "version", "task", "rank", "targets", "labels", "base_match")} == {
        "name": "shown",
        "version": 1,
        "task": "sequence_classification",
        "rank": 2,
        "targets": ["query", "value"],
        "labels": ["LABEL_0", "LABEL_1", "LABEL_2"],
        "base_match": "unknown",
    }
    assert record["parameters"] == 3 * 2 * 2 * (32 + 32) + 3 * 32 + 3
    assert server.get("/adapters/shown").json() == record
    assert record in server.get("/adapters", params={"task": "sequence_classification"}).json()["adapters"]
    assert record not in server.get("/adapters", params={"task": "embedding"}).json()["adapters"]


def archive(directory, kind):
    files = [(f"folder/{path.name}", path.read_bytes()) for path in directory.iterdir()]
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
            for name, content in files:
                target.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as target:
            for name, content in files:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                target.addfile(info, io.BytesIO(content))
    return [("files", (f"adapter.{kind}", buffer.getvalue()))]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_is_the_same_adapter_as_its_files(server, made, kind):
    name = f"as-{kind}"
    loose = upload(server, name, made[0].directory).json()
    packed = server.post("/adapters", data={"name": name}, files=archive(made[0].directory, kind))
    assert (packed.status_code, packed.json()) == (200, loose)


def test_replacing_needs_a_word_and_old_versions_stay(server, made):
    first = upload(server, "changing", made[0].directory)
    assert upload(server, "changing", made[0].directory).status_code == 200
    refused = upload(server, "changing", made[1].directory)
    assert (refused.status_code, refused.json()["error_type"]) == (409, "Conflict")
    assert close(vector(server, "changing")[0], made[0])

    stale = upload(server, "changing", made[1].directory, headers={"If-Match": '"0000"'})
    assert (stale.status_code, stale.json()["error_type"]) == (412, "PreconditionFailed")
    second = upload(server, "changing", made[1].directory, headers={"If-Match": first.headers["etag"]})
    assert (second.status_code, second.json()["version"]) == (201, 2)
    third = upload(server, "changing", made[0].directory, params={"replace": True})
    assert third.json()["version"] == 3
    for name, version, adapter in (("changing", 3, 0), ("changing@2", 2, 1), ("changing@1", 1, 0)):
        got, header = vector(server, name)
        assert header == f"changing@{version}"
        assert close(got, made[adapter])


def test_deleting_ends_a_version_or_a_name(server, made):
    for adapter in made[:2]:
        upload(server, "ending", adapter.directory, params={"replace": True})
    assert server.delete("/adapters/ending@2").status_code == 204
    assert vector(server, "ending")[1] == "ending@1"
    assert server.delete("/adapters/ending", headers={"If-Match": '"0000"'}).status_code == 412
    assert server.delete("/adapters/ending").status_code == 204
    for call in (server.get("/adapters/ending"), server.delete("/adapters/ending")):
        assert (call.status_code, call.json()["error_type"]) == (404, "NotFound")
    assert server.post("/embed?adapter=ending", json={"inputs": "a"}).status_code == 404
    assert upload(server, "ending", made[0].directory).json()["version"] == 3


def test_a_dry_run_says_the_same_and_stores_nothing(server, made):
    response = upload(server, "dry", made[0].directory, params={"dry_run": True})
    assert (response.status_code, response.json()["rank"]) == (200, 2)
    assert server.get("/adapters/dry").status_code == 404


def test_the_list_is_paged_by_name(serve, made):
    client = serve()
    names = [f"n{i}" for i in range(5)]
    for name in reversed(names):
        upload(client, name, made[0].directory)
    pages, after = [], None
    while True:
        page = client.get("/adapters", params={"limit": 2} | ({"after": after} if after else {})).json()
        pages.append([record["name"] for record in page["adapters"]])
        after = page["next"]
        if after is None:
            break
    assert [name for page in pages for name in page] == names
    assert max(map(len, pages)) == 2


def damaged(made, directory, change):
    """A copy of an adapter with one thing wrong."""
    directory.mkdir()
    for path in made.directory.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    change(directory)
    return directory


def edit(**fields):
    def change(directory):
        path = directory / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def tensors(change):
    def apply(directory):
        path = directory / "adapter_model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path)

    return apply


def first(weights, word="lora_A"):
    return next(name for name in sorted(weights) if word in name)


def nan(weights):
    weights[first(weights)][0, 0] = float("inf")


def truncate(directory):
    path = directory / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


WRONG = {
    "dora": (edit(use_dora=True), "use_dora"),
    "unknown field": (edit(new_idea=1), "new_idea"),
    "pissa": (edit(init_lora_weights="pissa"), "init_lora_weights"),
    "no such layer": (edit(target_modules=["nothing"]), "matches no linear"),
    "not trained there": (edit(target_modules=["query", "key"]), "key"),
    "rank": (edit(r=3), "shape"),
    "huge rank": (edit(r=100_000), "over the limit"),
    "regex": (edit(target_modules="("), "pattern"),
    "infinite": (tensors(nan), "infinite"),
    "half a pair": (tensors(lambda w: w.pop(first(w))), "lacks"),
    "extra": (tensors(lambda w: w.update({"base_model.model.encoder.extra": torch.ones(2)})), "fits no layer"),
    "prefix": (tensors(lambda w: w.update({"other": torch.ones(2)})), "must begin with"),
    "integers": (tensors(lambda w: w.update({first(w): w[first(w)].int()})), "I32"),
    "head without task": (
        tensors(lambda w: w.update({"base_model.model.classifier.weight": torch.ones(2, 32)})),
        "task_type",
    ),
    "truncated": (truncate, "safetensors"),
    "no config": (lambda d: (d / "adapter_config.json").unlink(), "adapter_config.json"),
    "no weights": (lambda d: (d / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
    "bad json": (lambda d: (d / "adapter_config.json").write_text("{"), "JSON"),
    "deep json": (lambda d: (d / "lorat.json").write_text("[" * 100_000), "JSON"),
    "pickle": (lambda d: (d / "adapter_model.bin").write_bytes(b"\x80\x02}."), "adapter_model.bin"),
    "code": (lambda d: (d / "run.py").write_text("print(1)"), "run.py"),
    "labels": (lambda d: (d / "lorat.json").write_text('{"labels": "yes"}'), "labels"),
    "newer": (lambda d: (d / "lorat.json").write_text('{"format": 2}'), "format"),
    "part": (lambda d: (d / "lorat.json").write_text('{"mode": "part"}'), "mode"),
    "other base": (lambda d: (d / "lorat.json").write_text(json.dumps({"base_id": "0" * 64})), "base"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_bad_upload_is_refused_by_name_and_leaves_nothing(server, made, tmp_path, fault):
    change, says = WRONG[fault]
    before = server.get("/adapters").json(), server.get("/info").json()["fingerprint"]
    response = upload(server, "wrong", damaged(made[0], tmp_path / "wrong", change))
    assert response.status_code == 422, response.text
    assert says in response.json()["error"]
    assert response.json()["error_type"] == "Validation"
    assert (server.get("/adapters").json(), server.get("/info").json()["fingerprint"]) == before


@pytest.mark.parametrize("name", ["base", "Upper", "a..b", "-a", "", "a" * 65, "a/b", "a@2", "é"])
def test_bad_names_are_refused(server, made, name):
    response = upload(server, name, made[0].directory)
    assert (response.status_code, response.json()["error_type"]) == (422, "Validation")


def test_a_form_without_its_fields_is_refused(server, made):
    for options in (
        {"data": {"name": "x"}},
        {"files": files_of(made[0].directory)},
        {"data": {"name": "x", "other": "y"}, "files": files_of(made[0].directory)},
        {"json": {"name": "x"}},
        {"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
    ):
        response = server.post("/adapters", **options)
        assert (response.status_code, response.json()["error_type"]) == (422, "Validation"), response.text


def test_a_form_with_a_field_that_would_not_count_is_refused(server, made):
    files = files_of(made[0].directory)
    twice = server.post("/adapters", data={"name": ["x", "y"]}, files=files)
    assert twice.status_code == 422 and "`name` 2 times" in twice.json()["error"]
    text = server.post("/adapters", data={"name": "x", "files": "README.md"}, files=files)
    assert text.status_code == 422 and "text in the field `files`" in text.json()["error"]


def test_a_dry_run_knows_of_a_name_that_another_process_took(serve, made, tmp_path):
    ours, theirs = (serve(store=str(tmp_path / "store"), follow_seconds=3600) for _ in range(2))
    assert upload(theirs, "taken", made[0].directory).status_code == 201
    assert upload(ours, "taken", made[1].directory, params={"dry_run": True}).status_code == 409


def test_too_many_files_are_told_of_files(server):
    response = server.post("/adapters", data={"name": "x"}, files=[("files", (f"{n}.png", b"x")) for n in range(1100)])
    assert response.status_code == 422, response.text
    assert "Too many files" in response.json()["error"]
    assert "the files of one adapter" in response.json()["error"]
    assert "JSON" not in response.json()["error"]


def test_an_upload_over_the_limit_is_413(serve, made):
    client = serve(max_upload_bytes=2000)
    response = upload(client, "big", made[0].directory)
    assert (response.status_code, response.json()["error_type"]) == (413, "TooLarge")
    assert client.get("/adapters").json()["adapters"] == []


def test_a_request_in_flight_keeps_the_version_it_was_admitted_with(serve, made):
    client = serve()
    upload(client, "swapped", made[0].directory)
    model, release = client.app.state.service.model, threading.Event()
    forward = model.forward
    model.forward = lambda rows: release.wait(60) and forward(rows)
    with ThreadPoolExecutor(1) as threads:
        flying = threads.submit(vector, client, "swapped")
        while client.app.state.service.admission.running < 1 or not client.app.state.service.engine.running:
            time.sleep(0.01)
        upload(client, "swapped", made[1].directory, params={"replace": True})
        assert client.delete("/adapters/swapped@1").status_code == 204
        release.set()
        got, version = flying.result()
    model.forward = forward
    assert version == "swapped@1"
    assert close(got, made[0])
    got, version = vector(client, "swapped")
    assert version == "swapped@2"
    assert close(got, made[1])


def test_replacing_under_load_never_answers_with_another_version(serve, made):
    client = serve(slots=1)
    upload(client, "moving", made[0].directory)
    stop = threading.Event()

    def ask():
        count = 0
        while not stop.is_set():
            got, header = vector(client, "moving")
            assert close(got, made[(int(header.split("@")[1]) - 1) % 2]), header
            count += 1
        return count

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        try:
            for version in range(2, 30):
                response = upload(client, "moving", made[(version - 1) % 2].directory, params={"replace": True})
                assert response.json()["version"] == version
        finally:
            stop.set()
        assert sum(future.result() for future in asking) > 20


def test_an_adapter_of_this_library_is_known_to_fit_the_base(server, tiny_path, tmp_path):
    from transformers import BertModel

    LoRAT(BertModel.from_pretrained(tiny_path)).save(tmp_path, description="a new one", tags=["fresh"])
    record = upload(server, "ours", tmp_path).json()
    assert (record["base_match"], record["description"], record["tags"]) == ("verified", "a new one", ["fresh"])
    assert [r["name"] for r in server.get("/adapters?tag=fresh").json()["adapters"]] == ["ours"]


def test_an_adapter_out_of_range_fails_alone(serve, made, tmp_path):
    client = serve()
    huge = tensors(lambda weights: [weight.mul_(1e30) for weight in weights.values()])
    upload(client, "huge", damaged(made[0], tmp_path / "huge", huge))
    upload(client, "fine", made[0].directory)

    def ask(name):
        return client.post("/embed", params={"adapter": name}, json={"inputs": "a"})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, ["huge", "fine"] * 20))
    assert {answer.status_code for answer in answers[::2]} == {424}
    assert "out of range" in answers[0].json()["error"]
    assert {answer.status_code for answer in answers[1::2]} == {200}
    assert close(vector(client, "fine")[0], made[0])


def test_a_client_that_leaves_during_its_upload_leaves_nothing(serve):
    client = serve()
    head = f"POST /adapters HTTP/1.1\r\nHost: {client.base_url.host}\r\nContent-Length: 100000\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    for _ in range(5):
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(head.encode())
    assert client.get("/adapters").json()["adapters"] == []
    assert 'status="500"' not in client.get("/metrics").text


def test_keys_open_what_they_should(serve, made):
    client = serve(api_key="reader, other", admin_key="writer")
    files = files_of(made[0].directory)

    def statuses(key):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return (
            client.post("/embed", json={"inputs": "a"}, headers=headers).status_code,
            client.post("/adapters", data={"name": "k"}, files=files, headers=headers).status_code,
        )

    assert statuses(None) == statuses("wrong") == (401, 401)
    assert statuses("reader") == statuses("other") == (200, 403)
    assert statuses("writer") == (200, 201)
    assert client.get("/health").status_code == client.get("/ready").status_code == 200
    closed = serve(api_key="reader")
    assert (
        closed.post(
            "/adapters", data={"name": "k"}, files=files, headers={"Authorization": "Bearer reader"}
        ).status_code
        == 403
    )
    admin = serve(admin_key="writer")
    assert admin.post("/embed", json={"inputs": "a"}).status_code == 401
