"""Versions over HTTP: list, roll back, download, settings, stats; residency; damage in the store."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from app.errors import StoreError
from app.main import open_service
from app.observe.metrics import Metrics
from app.settings import Settings
from app.store.gc import collect
from lorat.errors import ConfigError
from tests.app.conftest import running, until, upload
from tests.oracle import make_peft


@pytest.fixture(scope="module")
def made(tiny_path, tmp_path_factory):
    directory = tmp_path_factory.mktemp("made")
    classifying = {"task": "SEQ_CLS", "num_labels": 3}
    return [make_peft(tiny_path, directory / str(i), seed=i, r=2, **(classifying if i == 3 else {})) for i in range(6)]


def embed(client, name, text="What is LoRA?"):
    return client.post("/embed", params={"adapter": name}, json={"inputs": text})


def answers(response, adapter, text="What is LoRA?"):
    assert response.status_code == 200, response.text
    return np.abs(np.array(response.json()[0]) - adapter.answers([text])[0].numpy()).max() <= 5e-5


def fill(client, made, name="x", count=2):
    for adapter in made[:count]:
        assert upload(client, name, adapter.directory, params={"replace": True}).status_code == 201


def resident(client, name):
    return client.get(f"/adapters/{name}/stats").json()["resident"]


def test_versions_are_listed_newest_first(server, made):
    fill(server, made, "listed", 3)
    server.delete("/adapters/listed@2")
    listed = server.get("/adapters/listed/versions").json()["versions"]
    assert [record["version"] for record in listed] == [3, 1]
    assert listed[0] == server.get("/adapters/listed").json()
    assert server.get("/adapters/nobody/versions").status_code == 404


def test_the_versions_are_paged(server, made):
    fill(server, made, "paged", 5)
    server.delete("/adapters/paged@3")
    pages, after = [], None
    while True:
        params = {"limit": 2} | ({"after": after} if after else {})
        page = server.get("/adapters/paged/versions", params=params).json()
        pages.append([record["version"] for record in page["versions"]])
        after = page["next"]
        if after is None:
            break
    assert pages == [[5, 4], [2, 1]]
    whole = server.get("/adapters/paged/versions").json()
    assert [record["version"] for record in whole["versions"]] == [5, 4, 2, 1] and whole["next"] is None
    for params in ({"limit": 0}, {"limit": 1001}, {"after": 0}, {"after": "x"}):
        assert server.get("/adapters/paged/versions", params=params).status_code == 422


def test_a_tag_that_was_seen_before_the_last_version_changes_nothing(server, made):
    fill(server, made, "tagged")
    route = "/adapters/tagged"
    old, record = server.get(f"{route}@1").headers["etag"], server.get(route).json()
    for change in (
        server.patch(route, json={"pinned": True}, headers={"If-Match": old}),
        server.post(f"{route}/rollback", json={"version": 1}, headers={"If-Match": old}),
        server.delete(route, headers={"If-Match": old}),
        upload(server, "tagged", made[2].directory, headers={"If-Match": old}),
    ):
        assert (change.status_code, change.json()["error_type"]) == (412, "PreconditionFailed")
    for tag in ("*", server.get(route).headers["etag"], f'"{record["digest"]}"'):
        headers = {"If-None-Match": tag}
        assert server.patch(route, json={"pinned": True}, headers=headers).status_code == 412
        assert server.post(f"{route}/rollback", json={"version": 1}, headers=headers).status_code == 412
        assert server.delete(route, headers=headers).status_code == 412
    assert server.get(route).json() == record
    headers = {"If-Match": f'"{record["digest"]}"'}  # as the record has it
    assert upload(server, "tagged", made[2].directory, headers=headers).status_code == 201
    assert server.delete(route, headers={"If-Match": server.get(route).headers["etag"]}).status_code == 204


def test_a_rollback_is_a_new_version_with_old_content(server, made):
    fill(server, made, "rolled")
    newest = server.get("/adapters/rolled").headers["etag"]
    route = "/adapters/rolled/rollback"
    assert server.post(route, json={"version": 1}, headers={"If-Match": '"0"'}).status_code == 412
    done = server.post(route, json={"version": 1}, headers={"If-Match": newest})
    record = done.json()
    assert (done.status_code, record["version"]) == (201, 3)
    assert record["digest"] == server.get("/adapters/rolled@1").json()["digest"]
    assert done.headers["etag"] == f'"{record["digest"].removeprefix("sha256:")}"'
    answer = embed(server, "rolled")
    assert answer.headers["x-lorat-adapter"] == "rolled@3"
    assert answers(answer, made[0])

    again = server.post(route, json={"version": 1}, headers={"If-Match": '"stale"'})
    assert (again.status_code, again.json()) == (200, record)
    for version, status in ((9, 404), (0, 422), ("1", 422), (None, 422)):
        assert server.post(route, json={"version": version}).status_code == status
    assert server.post("/adapters/nobody/rollback", json={"version": 1}).status_code == 404
    assert server.post(route, json={"version": 1, "more": 1}).status_code == 422


def test_a_download_can_be_uploaded_again(server, made):
    fill(server, made, "down")
    for reference, number in (("down", 2), ("down@1", 1)):
        response = server.get(f"/adapters/{reference}/download")
        assert response.headers["content-disposition"] == f'attachment; filename="down-{number}.zip"'
        assert int(response.headers["content-length"]) == len(response.content)
        record = server.get(f"/adapters/{reference}").json()
        assert response.headers["etag"].strip('"') == record["digest"].removeprefix("sha256:")
        for tag, status in ((response.headers["etag"], 304), (f'"x", {response.headers["etag"]}', 304), ('"x"', 200)):
            known = server.get(f"/adapters/{reference}/download", headers={"If-None-Match": tag})
            assert (known.status_code, known.headers["etag"]) == (status, response.headers["etag"])
            assert known.content == (b"" if status == 304 else response.content)
        files = [("files", ("down.zip", response.content))]
        copy = server.post("/adapters", data={"name": f"copy-{number}"}, files=files)
        assert (copy.status_code, copy.json()["digest"]) == (201, record["digest"])
    assert server.get("/adapters/down@3/download").status_code == 404


def test_settings_are_shown_and_kept(serve, made):
    client = serve()
    fill(client, made)
    before = client.get("/adapters/x").json()
    assert (before["pinned"], before["merge"]) == (False, "auto")
    assert client.patch("/adapters/x", json={"pinned": True}, headers={"If-Match": '"0"'}).status_code == 412
    done = client.patch("/adapters/x", json={"pinned": True})
    assert (done.status_code, done.json()) == (200, before | {"pinned": True})
    assert client.patch("/adapters/x", json={"merge": "never"}).json() == before | {"pinned": True, "merge": "never"}
    assert client.get("/adapters/x@1").json()["pinned"] is True
    assert client.patch("/adapters/x", json={}).json()["merge"] == "never"
    for body in ({"pinned": "yes"}, {"pinned": None}, {"merge": "sometimes"}, {"rank": 1}, []):
        refused = client.patch("/adapters/x", json=body)
        assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
    assert client.patch("/adapters/x@1", json={"pinned": False}).status_code == 422
    assert client.patch("/adapters/nobody", json={"pinned": True}).status_code == 404
    with running(client.app.state.settings) as other:
        assert other.get("/adapters/x").json() == client.get("/adapters/x").json()
        assert resident(other, "x") == "device"


def test_an_upload_leaves_the_newest_versions(serve, made):
    client = serve(keep_versions=2)
    fill(client, made, count=4)
    assert [record["version"] for record in client.get("/adapters/x/versions").json()["versions"]] == [4, 3]
    assert embed(client, "x@2").status_code == 404


def test_the_record_says_layers_and_head(server, made):
    fill(server, made, "plain", 1)
    upload(server, "headed", made[3].directory)
    plain, headed = server.get("/adapters/plain").json(), server.get("/adapters/headed").json()
    assert (plain["layers"], plain["head"]) == ([0, 1, 2], None)
    assert headed["head"] == {"labels": 3, "kind": "softmax"}


def test_stats_say_where_it_is_and_leave_the_record_alone(serve, made):
    client = serve(slots=1, host_cache_bytes=1)
    fill(client, made, "a", 1)
    fill(client, made[1:], "b", 1)
    record = client.get("/adapters/a").json()
    fresh = {"name": "a", "version": 1, "resident": "store", "merged": False, "requests": 0, "last_used": None}
    assert client.get("/adapters/a/stats").json() == fresh
    assert resident(client, "b") == "host"
    for _ in range(3):
        assert answers(embed(client, "a"), made[0])
    stats = client.get("/adapters/a/stats").json()
    assert (stats["resident"], stats["requests"]) == ("device", 3)
    assert stats["last_used"] > record["created"]
    assert client.get("/adapters/a").json() == record
    assert answers(embed(client, "b"), made[1])
    assert resident(client, "a") in ("host", "store")
    assert client.get("/adapters/nobody/stats").status_code == 404


def test_always_merged_is_merged_and_answers_the_same(serve, made):
    client = serve()
    fill(client, made, count=1)
    assert client.patch("/adapters/x", json={"merge": "always"}).status_code == 200
    embed(client, "x")
    until(lambda: client.get("/adapters/x/stats").json()["merged"])
    assert answers(embed(client, "x"), made[0])
    client.patch("/adapters/x", json={"merge": "never"})
    until(lambda: not client.get("/adapters/x/stats").json()["merged"])
    assert answers(embed(client, "x"), made[0])


def test_a_pinned_adapter_stays_in_its_slot(serve, made):
    client = serve(slots=2, follow_seconds=30)
    for number, adapter in enumerate(made[:3]):
        upload(client, f"n{number}", adapter.directory)
    client.patch("/adapters/n0", json={"pinned": True})
    until(lambda: resident(client, "n0") == "device")
    for _ in range(2):
        for number in (1, 2):
            assert answers(embed(client, f"n{number}"), made[number])
            assert resident(client, "n0") == "device"
    client.patch("/adapters/n0", json={"pinned": False})

    def gives_way() -> bool:  # as soon as the engine knows, as with pinning above
        for number in (1, 2):
            embed(client, f"n{number}")
        return resident(client, "n0") == "host"

    until(gives_way)


class SlowStore:
    """Counts and delays what is read from a server's store."""

    def __init__(self, client, monkeypatch):
        self.read, self.go = [], threading.Event()
        store = client.app.state.service.registry.log.store
        get = store.get_content

        def slow(digest, directory):
            self.read.append(digest)
            assert self.go.wait(30)
            return get(digest, directory)

        monkeypatch.setattr(store, "get_content", slow)


def test_a_cold_adapter_is_read_once_and_holds_up_nobody(serve, made, monkeypatch):
    client = serve(host_cache_bytes=1)
    for number, adapter in enumerate(made):
        upload(client, f"n{number}", adapter.directory)
    assert answers(embed(client, "n0"), made[0])
    slow = SlowStore(client, monkeypatch)
    with ThreadPoolExecutor(40) as threads:
        cold = [threads.submit(embed, client, f"n{1 + i % 2}") for i in range(40)]
        until(lambda: client.app.state.service.admission.running == 40)
        for _ in range(5):
            started = time.monotonic()
            assert answers(embed(client, "n0"), made[0])
            assert embed(client, "base").status_code == 200
            assert time.monotonic() - started < 1
        assert not any(future.done() for future in cold)
        assert embed(client, "nobody").status_code == 404
        slow.go.set()
        for i, future in enumerate(cold):
            assert answers(future.result(), made[1 + i % 2])
    assert len(slow.read) == 2


def test_a_slow_reader_s_leaving_does_not_end_the_reading(serve, made, monkeypatch):
    client = serve(host_cache_bytes=1, slots=1)
    fill(client, made, "cold", 1)
    fill(client, made[1:], "other", 1)
    embed(client, "other")
    slow = SlowStore(client, monkeypatch)
    with ThreadPoolExecutor(2) as threads:
        url = str(client.base_url.join("/embed?adapter=cold"))
        leaving = threads.submit(httpx.post, url, json={"inputs": "a"}, timeout=0.3)
        until(lambda: slow.read)
        staying = threads.submit(embed, client, "cold")
        with pytest.raises(httpx.ReadTimeout):
            leaving.result()
        slow.go.set()
        assert answers(staying.result(), made[0])
    assert len(slow.read) == 1


def test_a_store_that_fails_for_a_while_is_said_once_and_asked_again(serve, made, monkeypatch, caplog):
    client = serve(follow_seconds=0.02)
    fill(client, made, count=1)
    store, calls = client.app.state.service.registry.log.store, []
    read = store.read

    def failing(after):
        calls.append(after)
        raise StoreError("the disk is away")

    monkeypatch.setattr(store, "read", failing)
    until(lambda: len(calls) > 5)
    assert answers(embed(client, "x"), made[0])
    assert embed(client, "nobody").status_code == 503
    monkeypatch.setattr(store, "read", read)
    until(lambda: "can follow the store again" in caplog.text)
    assert caplog.text.count("the disk is away") == caplog.text.count(" again\n") == 1
    assert embed(client, "nobody").status_code == 404


def test_a_store_that_is_not_there_is_no_unknown_name_and_no_damage(serve, made, tmp_path, caplog):
    """As when its disk is unmounted: nobody is told to upload again, and what is refused is not written below."""
    directory, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    client = serve(store=str(directory), host_cache_bytes=1, slots=1, follow_seconds=0.02)
    fill(client, made, "cold", 1)
    fill(client, made[1:], "warm", 1)
    assert answers(embed(client, "warm"), made[1])
    directory.rename(elsewhere)
    until(lambda: "cannot follow the store" in caplog.text)
    assert answers(embed(client, "warm"), made[1])
    for refused in (embed(client, "nobody"), embed(client, "cold"), upload(client, "new", made[2].directory)):
        assert refused.status_code == 503
        assert "is this still the store that was opened?" in refused.json()["error"]
    assert "lorat_damaged_contents 0.0" in client.get("/metrics").text
    assert not directory.exists()
    elsewhere.rename(directory)
    assert embed(client, "nobody").status_code == 404
    assert answers(embed(client, "cold"), made[0])
    assert upload(client, "new", made[2].directory).status_code == 201


def test_deleted_content_leaves_cache_and_slot(serve, made):
    client = serve(follow_seconds=0.02)
    fill(client, made)
    embed(client, "x")
    embed(client, "x@1")
    service = client.app.state.service
    assert service.engine.resident == 2
    client.delete("/adapters/x@1")
    until(lambda: service.engine.resident == 1)
    assert service.registry.cache.digests() == service.engine.digests()
    client.delete("/adapters/x")
    until(lambda: service.engine.resident == 0)
    assert (service.registry.cache.digests(), service.registry.cache.bytes) == ([], 0)


@pytest.fixture
def store(made, tiny_path, tmp_path):
    """A store with the adapters missing, short, corrupt, refused and fine, each by its name damaged."""
    settings = {"base": str(tiny_path), "store": str(tmp_path / "store"), "demo": False}
    with running(Settings(**settings)) as client:
        digests = {}
        for name, adapter in zip(("missing", "short", "corrupt", "fine"), made, strict=False):
            digests[name] = upload(client, name, adapter.directory).json()["digest"].removeprefix("sha256:")
        upload(client, "corrupt", made[4].directory, params={"replace": True})
    content = {name: tmp_path / "store" / "content" / f"{digest}.zip" for name, digest in digests.items()}
    content["missing"].unlink()
    content["short"].write_bytes(content["short"].read_bytes()[:-500])
    whole = bytearray(content["corrupt"].read_bytes())
    whole[len(whole) // 2] ^= 1
    content["corrupt"].write_bytes(whole)
    return settings


def test_damaged_versions_are_named_and_do_not_stop_the_others(store, made, caplog):
    with running(Settings(**store, follow_seconds=0.05)) as client:
        assert answers(embed(client, "corrupt"), made[4])
        text = "My card"
        assert client.post("/classify?adapter=fine", json={"inputs": text}).status_code == 200
        until(lambda: "corrupt@1 is damaged" in caplog.text)
        for name in ("missing@1", "short@1", "corrupt@1"):
            assert caplog.text.count(f"{name} is damaged") == 1
            refused = embed(client, name)
            assert refused.status_code == 503
            assert name in refused.json()["error"]
            assert client.get(f"/adapters/{name}").json()["damaged"]
            assert client.get(f"/adapters/{name}/download").status_code == 503
        assert client.post("/adapters/corrupt/rollback", json={"version": 1}).status_code == 503
        assert {r["name"] for r in client.get("/adapters").json()["adapters"] if "damaged" in r} == {"missing", "short"}
        assert upload(client, "missing", made[0].directory).status_code == 200  # nothing new, but whole again
        assert upload(client, "again", made[2].directory).status_code == 201
    with running(Settings(**store)) as client:
        for name, number in (("missing@1", 0), ("corrupt@1", 2)):
            assert answers(embed(client, name), made[number])
            assert "damaged" not in client.get(f"/adapters/{name}").json()
        assert embed(client, "short@1").status_code == 503


def test_a_version_that_no_longer_passes_the_check_is_damaged(store, made):
    with running(Settings(**store, max_rank=1)) as client:
        refused = embed(client, "fine")
        assert refused.status_code == 503
        assert "fine@1" in refused.json()["error"] and "rank" in refused.json()["error"]


@pytest.mark.parametrize("name", ["missing", "short@1", "corrupt@1", "nobody"])
def test_a_preload_that_cannot_be_stops_the_start(store, name):
    with pytest.raises(ConfigError, match=f"LORAT_PRELOAD.*{name}"):
        open_service(Settings(**store, preload=(name,)), Metrics())


def test_more_preloads_than_slots_stop_the_start(store):
    with pytest.raises(ConfigError, match="LORAT_PRELOAD names 2 adapters, and LORAT_SLOTS is 1"):
        open_service(Settings(**store, preload=("fine", "corrupt", "fine@1"), slots=1), Metrics())


def test_a_preload_is_told_of_a_close_name(store):
    with pytest.raises(ConfigError, match="LORAT_PRELOAD: there is no adapter 'fin': did you mean 'fine'"):
        open_service(Settings(**store, preload=("fin",)), Metrics())


def test_preloaded_adapters_are_in_slots_at_the_start(store):
    with running(Settings(**store, preload=("fine", "corrupt"))) as client:
        assert (resident(client, "fine"), resident(client, "corrupt")) == ("device", "device")


def test_an_upload_mends_what_nobody_knew_to_be_damaged(store, made):
    with running(Settings(**store, follow_seconds=3600)) as client:
        digest = client.get("/adapters/corrupt/versions").json()["versions"][1]["digest"].removeprefix("sha256:")
        assert "damaged" not in client.get("/adapters/corrupt@1").json()
        assert upload(client, "other", made[2].directory).json()["digest"].endswith(digest)
    with running(Settings(**store)) as client:
        assert answers(embed(client, "corrupt@1"), made[2])


@pytest.mark.parametrize(("again", "status"), [(True, 200), (False, 404)])
def test_a_process_that_was_cut_off_for_longer_than_garbage_is_spared(again, status, made, tiny_path, tmp_path):
    """It looks at the log before it says that a content is missing."""
    settings = {"base": str(tiny_path), "store": str(tmp_path / "store"), "demo": False, "follow_seconds": 3600}
    with running(Settings(**settings)) as ours:
        fill(ours, made, count=1)
        with running(Settings(**settings)) as theirs:
            ours.delete("/adapters/x")
            assert collect(ours.app.state.service.registry.log, older_than_seconds=0).contents_removed == 1
            if again:
                fill(ours, made, count=1)
            assert embed(theirs, "x@1").status_code == status
            assert answers(embed(theirs, "x"), made[0]) if again else embed(theirs, "x").status_code == 404
