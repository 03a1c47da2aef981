"""`/metrics` of a real server, read as Prometheus reads it."""

import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.main import create_app
from app.observe.metrics import Metrics
from app.settings import Settings
from tests.app.conftest import held, upload
from tests.oracle import make_peft

ONLY_GROWS = {"counter", "histogram"}


def scrape(client):
    """Every sample by its name and labels; a text that shows one twice, or one without a type, is not valid."""
    text = client.get("/metrics").raise_for_status().text
    samples, families = {}, {}
    for family in text_string_to_metric_families(text):
        assert family.name not in families and family.documentation and family.type != "unknown"
        families[family.name] = family
        for sample in family.samples:
            key = sample.name, *sorted(sample.labels.items())
            assert key not in samples
            samples[key] = sample.value
    return samples, families


def value(client, name, **labels):
    return scrape(client)[0].get((name, *sorted(labels.items())), 0.0)


@pytest.fixture(scope="module")
def used(serve, tiny_path, tmp_path_factory):
    """A server that has seen every kind of thing."""
    client = serve(slots=1, workers=1, metrics_adapters=2, host_cache_bytes=1, max_client_batch_size=4)
    for number in range(3):
        made = make_peft(tiny_path, tmp_path_factory.mktemp("adapter") / "x", seed=number, r=2)
        assert upload(client, f"a{number}", made.directory).status_code == 201
    for number in (0, 1, 2, 0):
        assert client.post(f"/embed?adapter=a{number}", json={"inputs": ["hello there", "you"]}).status_code == 200
    assert client.post("/embed", json={"inputs": "hello"}).status_code == 200
    refused = [
        client.post("/embed?adapter=nobody", json={"inputs": "a"}),
        client.post("/embed", json={"inputs": []}),
        client.post("/embed", json={"inputs": ["a"] * 5}),
        client.post("/embed", json={"input": "a"}),
        client.post("/classify?adapter=a0", json={"inputs": "a"}),
        client.get("/nowhere"),
        client.request("PROPFIND", "/nowhere"),
        client.put("/embed"),
    ]
    assert [answer.status_code for answer in refused] == [404, 400, 422, 422, 424, 404, 404, 405]
    return client


def test_requests_are_counted_by_route_method_and_status(used):
    samples, _ = scrape(used)
    posts = {"lorat_requests_total", ("route", "/embed"), ("method", "POST")}
    counted = {dict(key[1:])["status"]: count for key, count in samples.items() if posts <= set(key)}
    assert counted == {"200": 5, "404": 1, "400": 1, "422": 2}
    labels = {"route": "none", "status": "404"}
    assert value(used, "lorat_requests_total", method="GET", **labels) == 1
    assert value(used, "lorat_requests_total", method="other", **labels) == 1, "rare methods are one"
    assert value(used, "lorat_request_seconds_count", route="/embed") == 10


def test_every_error_answer_has_one_reason(used):
    samples, _ = scrape(used)
    reasons = {dict(key[1:])["reason"]: n for key, n in samples.items() if key[0] == "lorat_refusals_total"}
    assert reasons == {
        "unknown_adapter": 1, "empty_input": 1, "invalid_request": 1, "no_head": 1,
        "http_404": 2, "http_405": 1, "http_422": 1,
    }  # fmt: skip


def test_tokens_stages_and_batches_agree(used):
    samples, _ = scrape(used)
    tokens = sum(n for key, n in samples.items() if key[0] == "lorat_adapter_tokens_total")
    assert tokens == samples["lorat_tokens_total",] == samples["lorat_request_tokens_sum",] == 4 * (4 + 3) + 3
    assert samples["lorat_request_tokens_count",] == 5
    for stage in ("binding", "tokenization", "queue", "inference", "answer"):
        assert samples["lorat_stage_seconds_count", ("stage", stage)] == 5
        assert samples["lorat_stage_seconds_sum", ("stage", stage)] > 0
    assert samples["lorat_inputs_total", ("task", "embedding")] == samples["lorat_batch_inputs_sum",] == 9
    assert samples["lorat_batch_tokens_sum",] == tokens
    budget = used.get("/info").json()["max_batch_tokens"]
    assert samples["lorat_batch_fill_ratio_sum",] == pytest.approx(tokens / budget)
    together = sum(n for key, n in samples.items() if key[0] == "lorat_stage_seconds_sum")
    assert together <= samples["lorat_request_seconds_sum", ("route", "/embed")]


def test_adapters_by_name_are_bounded(used):
    samples, _ = scrape(used)
    by_name = {dict(key[1:])["adapter"]: n for key, n in samples.items() if key[0] == "lorat_adapter_requests_total"}
    assert by_name == {"base": 1, "a0": 2, "a1": 1, "_other": 1}


def test_a_deleted_adapter_gives_its_place_up(serve, tiny_path, tmp_path):
    client = serve(metrics_adapters=1, follow_seconds=0.05)
    for number in range(2):
        upload(client, f"a{number}", make_peft(tiny_path, tmp_path / str(number), seed=number, r=2).directory)
    client.post("/embed?adapter=a0", json={"inputs": "a"})
    client.post("/embed?adapter=a1", json={"inputs": "a"})
    assert value(client, "lorat_adapter_requests_total", adapter="_other") == 1
    client.delete("/adapters/a0")
    end = time.monotonic() + 5
    while not value(client, "lorat_adapter_requests_total", adapter="a1"):
        assert time.monotonic() < end
        assert client.post("/embed?adapter=a1", json={"inputs": "a"}).status_code == 200
    assert not value(client, "lorat_adapter_requests_total", adapter="a0")


def test_tiers_loads_and_evictions(used):
    samples, _ = scrape(used)
    contents = {tier: samples["lorat_adapter_contents", ("tier", tier)] for tier in ("device", "host", "store")}
    assert contents == {"device": 1, "host": 1, "store": 3}
    assert samples["lorat_load_seconds_count", ("tier", "device")] == 4
    assert samples["lorat_evictions_total", ("tier", "device")] == 3
    assert samples["lorat_load_seconds_count", ("tier", "host")] == 4
    assert samples["lorat_evictions_total", ("tier", "host")] == 6, (
        "each of two uploads and of four loads left room for one"
    )
    assert samples["lorat_slots",] == 1 and samples["lorat_adapters",] == 3
    assert samples["lorat_host_cache_bytes",] > 1


def test_merges_are_counted(serve, tiny_path, tmp_path):
    client = serve()
    upload(client, "a", make_peft(tiny_path, tmp_path / "a", r=2).directory)
    client.patch("/adapters/a", json={"merge": "always"}).raise_for_status()
    end = time.monotonic() + 20
    while not value(client, "lorat_merged_adapters"):
        assert time.monotonic() < end
        client.post("/embed?adapter=a", json={"inputs": "a"})
    assert value(client, "lorat_merges_total") == 1


def test_a_client_that_leaves_is_counted(serve):
    client = serve(workers=1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{client.base_url}/embed", json={"inputs": ["word " * 400] * 200}, timeout=0.05)
    end = time.monotonic() + 20
    while not value(client, "lorat_client_disconnects_total"):
        assert time.monotonic() < end
    assert value(client, "lorat_requests_total", route="/embed", method="POST", status="499") == 1
    assert value(client, "lorat_refusals_total", reason="http_499") == 0


def test_what_was_computed_for_nobody_is_counted_for_its_adapter(serve, tiny_path, tmp_path):
    client = serve(workers=1)
    upload(client, "a", make_peft(tiny_path, tmp_path / "a", r=2).directory)
    with held(client):
        late = client.post("/embed?adapter=a", json={"inputs": "hello"}, headers={"X-Request-Timeout": "0.2"})
        assert late.status_code == 504
    end = time.monotonic() + 20
    while not value(client, "lorat_tokens_total"):
        assert time.monotonic() < end
    assert value(client, "lorat_adapter_tokens_total", adapter="a") == value(client, "lorat_tokens_total") == 3
    assert value(client, "lorat_adapter_requests_total", adapter="a") == 1


def test_what_only_grows_is_a_counter_and_does(used):
    before, families = scrape(used)
    used.post("/embed?adapter=a2", json={"inputs": "hello"})
    after, _ = scrape(used)
    for family in families.values():
        grows = family.type in ONLY_GROWS
        for sample in family.samples:
            key = sample.name, *sorted(sample.labels.items())
            assert not sample.name.endswith("_created")
            assert not grows or after[key] >= before[key], sample.name
    assert {name for name, family in families.items() if family.type == "gauge" and name.startswith("lorat_")} == {
        "lorat_adapter_contents", "lorat_adapters", "lorat_damaged_contents", "lorat_host_cache_bytes",
        "lorat_merged_adapters", "lorat_passes_running", "lorat_queue_inputs", "lorat_queue_requests",
        "lorat_queue_tokens", "lorat_queue_wait_seconds", "lorat_running_requests", "lorat_slots",
    }  # fmt: skip


def test_two_apps_in_a_process_have_metrics_of_their_own():
    first, second = Metrics(), create_app(Settings()).state.metrics
    first.batch_failed()
    assert b"lorat_batch_failures_total 1.0" in first.render()
    assert b"lorat_batch_failures_total 0.0" in second.render()
