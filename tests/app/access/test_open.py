"""Which key opens what: every route there is, with every kind of key. A new route is in the table by itself."""

import re

import pytest
from fastapi import FastAPI

from app.access.gated import Gated
from app.main import create_app, open_service
from app.observe.metrics import Metrics
from app.settings import Settings
from lorat.errors import ConfigError
from tests.app.conftest import upload
from tests.oracle import make_peft

OPEN = {"/health", "/ready", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/static-offline-docs"}
METRICS = "/metrics"
KEYS = {
    "none": None,
    "wrong": "k-wrong",
    "bound": "k-team",
    "inference": "k-reader",
    "admin": "k-writer",
    "bound admin": "k-lead",
}
SETTINGS = {"api_key": "k-reader,k-team:team-*:shared", "admin_key": "k-writer,k-lead:team-*", "metrics_key": True}


def routes(app: FastAPI):
    """Each method of each route."""
    found = [
        (method, route.path)
        for route in app.routes
        for method in sorted(set(getattr(route, "methods", ["GET"])) - {"HEAD", "OPTIONS"})
    ]
    documented = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert documented <= set(found)
    return found


TABLE = [(method, path, key) for method, path in routes(create_app(Settings())) for key in KEYS]


def writes(method, path):
    return method != "GET" and (path.startswith("/adapters") or path.endswith("load_lora_adapter"))


def refusal(method, path, key, name):
    """What the contract says: the status that refuses, or None."""
    if path in OPEN:
        return None
    if key in ("none", "wrong"):
        return 401
    if path == METRICS:
        return 403 if "bound" in key else None
    if writes(method, path) and "admin" not in key:
        return 403
    if path.endswith("/load_lora_adapter") and "bound" in key:
        return 403
    named = "{" in path or (method == "POST" and not writes(method, path))  # in the path, or by `?adapter=`
    return 403 if named and "bound" in key and name == "other" else None


@pytest.fixture(scope="module")
def client(serve):
    return serve(**SETTINGS)


@pytest.mark.parametrize(("method", "path", "key"), TABLE)
@pytest.mark.parametrize("name", ["team-a", "other"])
def test_each_route_opens_for_the_keys_that_the_contract_says(client, method, path, key, name):
    headers = {"Authorization": f"Bearer {KEYS[key]}"} if KEYS[key] else {}
    params = {"adapter": name} if method == "POST" and not writes(method, path) and "{" not in path else {}
    answer = client.request(method, re.sub(r"{[^}]*}", name, path), params=params, headers=headers)
    expected = refusal(method, path, key, name)
    if expected is None:
        assert answer.status_code not in (401, 403), answer.text
    else:
        assert answer.status_code == expected, answer.text
        assert "k-" not in answer.text


def test_every_route_with_a_key_stands_behind_the_gate():
    app = create_app(Settings())
    behind = {route.path for route in app.routes if isinstance(route, Gated) and route.checks}
    assert {route.path for route in app.routes} - behind == OPEN


@pytest.fixture(scope="module")
def made(client, tiny_path, tmp_path_factory):
    adapter = make_peft(tiny_path, tmp_path_factory.mktemp("adapter"), r=2).directory
    for name in ("team-a", "team-b", "shared", "secret"):
        assert upload(client, name, adapter, headers=bearer("k-writer")).status_code == 201
    return adapter


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_a_bound_key_sees_and_changes_only_its_names(client, made):
    def ask(adapter, key="k-team"):
        return client.post("/embed", params={"adapter": adapter}, json={"inputs": "a"}, headers=bearer(key))

    listed = client.get("/adapters", headers=bearer("k-team")).json()["adapters"]
    assert [record["name"] for record in listed] == ["shared", "team-a", "team-b"]
    assert [ask(name).status_code for name in ("team-a", "team-b@1", "shared", "base")] == [200] * 4
    assert ask("team-c").status_code == 404
    there, absent = ask("secret"), ask("nobody")
    assert there.status_code == absent.status_code == 403 and there.json() == absent.json()
    assert "team-*, shared" in there.json()["error"]
    assert ask("secret", "k-reader").status_code == 200
    assert upload(client, "secret", made, headers=bearer("k-lead")).status_code == 403
    assert upload(client, "shared", made, headers=bearer("k-lead")).status_code == 403
    assert upload(client, "team-new", made, headers=bearer("k-lead")).status_code == 201
    assert client.delete("/adapters/team-new", headers=bearer("k-lead")).status_code == 204


def test_a_bound_key_reads_no_directory_of_the_servers(serve, made):
    client = serve(lora_dir=made.parent, **SETTINGS)
    body = {"lora_name": "team-a", "lora_path": made.name}
    refused = client.post("/v1/load_lora_adapter", json=body, headers=bearer("k-lead"))
    assert refused.status_code == 403 and "POST /adapters" in refused.json()["error"]["message"]
    assert client.get("/adapters/team-a", headers=bearer("k-writer")).status_code == 404
    assert client.post("/v1/load_lora_adapter", json=body, headers=bearer("k-writer")).status_code == 200


def test_a_close_name_is_told_only_to_who_may_know_of_it(client, made):
    assert upload(client, "teams-all", made, headers=bearer("k-writer")).status_code == 201
    told = {key: client.get("/adapters/team-all", headers=bearer(key)).json()["error"] for key in KEYS.values() if key}
    assert told["k-reader"] == told["k-writer"] == "there is no adapter 'team-all': did you mean 'teams-all'?"
    assert told["k-team"] == told["k-lead"] == "there is no adapter 'team-all'"
    assert client.delete("/adapters/teams-all", headers=bearer("k-writer")).status_code == 204


def test_the_bases_served_name_opens_no_adapter(serve, made, tmp_path):
    """An older store may have one of that name: another process, with another name for the base, let it in."""
    store = str(tmp_path / "store")
    other = serve(store=store, **SETTINGS)
    client = serve(store=store, served_name="everyones", follow_seconds=0.1, **SETTINGS)
    refused = upload(client, "everyones", made, headers=bearer("k-writer"))
    assert refused.status_code == 422 and "calls the base" in refused.json()["error"]
    assert upload(other, "everyones", made, headers=bearer("k-writer")).status_code == 201
    for route in ("", "/versions", "/stats", "/download"):
        assert client.get(f"/adapters/everyones{route}", headers=bearer("k-team")).status_code == 403
        assert client.get(f"/adapters/everyones{route}", headers=bearer("k-reader")).status_code == 200
    listed = client.get("/v1/models", headers=bearer("k-reader")).json()["data"]  # which looks at the log
    assert [one["id"] for one in listed].count("everyones") == 2
    for key in ("k-team", "k-reader"):
        body = {"input": "a", "model": "everyones"}
        for answer in (
            client.get("/v1/models/everyones", headers=bearer(key)),
            client.post("/v1/embeddings", json=body, headers=bearer(key)),
            client.post("/v1/classify", json=body, headers=bearer(key)),
        ):
            assert answer.status_code == 409 and "LORAT_SERVED_NAME" in answer.json()["error"]["message"]
        answer = client.post("/v1/embeddings", json=body | {"model": "base"}, headers=bearer(key))
        assert answer.status_code == 200 and answer.headers["x-lorat-adapter"] == "base"
    answer = client.post("/embed", params={"adapter": "everyones"}, json={"inputs": "a"}, headers=bearer("k-reader"))
    assert answer.headers["x-lorat-adapter"] == "everyones@1"
    with pytest.raises(ConfigError, match="LORAT_SERVED_NAME"):
        open_service(Settings(store=store, served_name="everyones"), Metrics())


def test_what_a_wrong_key_sends_is_not_read(client):
    """Its body would be refused as JSON, were it looked at."""
    answer = client.post("/embed", content=b"{", headers={"Content-Type": "application/json"} | bearer("k-wrong"))
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    answer = client.post("/embed", content=b"{", headers={"Content-Type": "application/json"} | bearer("k-reader"))
    assert answer.status_code == 422


def test_metrics_need_no_key_unless_told(serve):
    assert serve(api_key="reader").get("/metrics").status_code == 200
