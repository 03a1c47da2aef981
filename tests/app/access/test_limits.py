"""Deadlines and limits as settings, over HTTP: each refuses what it should, and says which it is."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import DeadlineError, SlowBodyError, status_of
from tests.app.conftest import held


def ask(client, text="a", adapter="base", **headers):
    return client.post("/embed", params={"adapter": adapter}, json={"inputs": text}, headers=headers)


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def running(client):
    return client.app.state.service.admission.running


def inputs_computed(client):
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("lorat_inputs_total{"))


def refused(answer, *words):
    assert answer.status_code == 429, answer.text
    assert answer.json()["error_type"] == "Overloaded"
    assert all(word in answer.json()["error"] for word in words)
    return int(answer.headers["retry-after"])


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_timeout_that_is_none_is_named(server, value):
    answer = ask(server, **{"X-Request-Timeout": value})
    assert answer.status_code == 422 and "X-Request-Timeout" in answer.json()["error"]


def test_what_comes_too_late_is_504_and_not_computed(serve):
    client = serve(workers=1)
    ask(client)
    until(lambda: inputs_computed(client) == 1)  # a batch is counted after it was answered
    with ThreadPoolExecutor(1) as threads, held(client) as release:
        first = threads.submit(ask, client, "first")
        until(lambda: client.app.state.service.engine.running)
        started = time.perf_counter()
        late = ask(client, ["late"] * 5, **{"X-Request-Timeout": "0.2"})
        assert 0.2 <= time.perf_counter() - started < 2
        assert late.status_code == 504 and late.json()["error_type"] == "Timeout"
        release.set()
        assert first.result().status_code == 200
    for long in ("30", "1e300"):
        assert ask(client, **{"X-Request-Timeout": long}).status_code == 200
    until(lambda: inputs_computed(client) >= 4)
    assert inputs_computed(client) == 4


def test_those_who_send_no_timeout_have_the_setting_s(serve):
    client = serve(request_timeout_seconds=0.2)
    with held(client):
        assert ask(client).status_code == 504
        started = time.perf_counter()
        assert ask(client, **{"X-Request-Timeout": "0.6"}).status_code == 504
        assert time.perf_counter() - started >= 0.6
    assert running(client) == 0


def test_a_queue_that_is_too_long_for_a_request_refuses_it_at_once(serve):
    client = serve(workers=1, max_batch_tokens=64, max_queue_seconds=60)
    body = ["word " * 100] * 50
    with ThreadPoolExecutor(8) as threads:
        flooding = True

        def flood():
            while flooding:
                ask(client, body)

        floods = [threads.submit(flood) for _ in range(6)]
        until(lambda: client.app.state.service.admission.seconds() > 0.3)
        answers = [ask(client, body, **{"X-Request-Timeout": "0.05"}) for _ in range(5)]
        flooding = False
        for one in floods:
            one.result()
    seconds = [refused(answer, "longer than the request waits") for answer in answers if answer.status_code == 429]
    assert seconds and all(second >= 1 for second in seconds)


def test_a_queue_of_so_many_seconds_and_no_more(serve):
    client = serve(workers=1, max_batch_tokens=64, max_queue_seconds=0.2)
    body = ["word " * 100] * 50
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: ask(client, body), range(60)))
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert refused(answer, "of work are waiting", "0.2 s") >= 1
    assert ask(client).status_code == 200
    assert running(client) == client.app.state.service.admission.tokens == 0


def test_requests_of_one_key_at_once(serve):
    client = serve(api_key="one,two", max_concurrent_per_key=2)
    with ThreadPoolExecutor(3) as threads, held(client) as release:
        waiting = [threads.submit(ask, client, **bearer("one")) for _ in range(2)]
        until(lambda: running(client) == 2)
        refused(ask(client, **bearer("one")), "api-0", "max_concurrent_per_key")
        other = threads.submit(ask, client, **bearer("two"))
        until(lambda: running(client) == 3)
        release.set()
        assert [future.result().status_code for future in [*waiting, other]] == [200] * 3
    assert ask(client, **bearer("one")).status_code == 200


def test_requests_for_one_adapter_at_once(serve):
    client = serve(max_concurrent_per_adapter=1)
    with ThreadPoolExecutor(2) as threads, held(client) as release:
        waiting = threads.submit(ask, client)
        until(lambda: running(client) == 1)
        refused(ask(client), "'base'", "max_concurrent_per_adapter")
        assert ask(client, adapter="nobody").status_code == 404
        release.set()
        assert waiting.result().status_code == 200
    assert ask(client).status_code == 200


@pytest.mark.parametrize("limited", ["key", "adapter"])
def test_requests_a_second(serve, limited):
    client = serve(api_key="one,two", **{f"requests_per_second_per_{limited}": 0.5})
    assert ask(client, **bearer("one")).status_code == 200
    assert refused(ask(client, **bearer("one")), f"requests_per_second_per_{limited}") == 2
    if limited == "key":
        assert ask(client, **bearer("two")).status_code == 200
    else:
        assert ask(client, adapter="nobody", **bearer("one")).status_code == 404
    time.sleep(2.05)
    assert ask(client, **bearer("one")).status_code == 200


def test_reading_is_not_limited(serve):
    client = serve(requests_per_second_per_key=0.01, max_concurrent_per_key=1)
    assert [client.get("/adapters").status_code for _ in range(3)] == [200] * 3


def test_a_refusal_keeps_the_connection(serve):
    client = serve(requests_per_second_per_key=0.01)
    ask(client)
    streams = set()
    for _ in range(5):
        answer = ask(client, "long " * 30_000)
        refused(answer)
        streams.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(streams) == 1


def test_times_have_a_status():
    assert status_of(DeadlineError("")) == (504, "Timeout") and status_of(SlowBodyError("")) == (408, "Timeout")
