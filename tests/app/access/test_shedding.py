"""What is refused from a request's head alone: its body is never asked for, nor is a key."""

import asyncio
import time

import pytest

from app.access.admission import Work

PACE = 1000.0  # tokens a second


@pytest.fixture
def app(serve):
    """With room for four seconds of work; `a` has all but 20 tokens of it."""
    app = serve(max_queue_seconds=4).app
    app.state.service.admission.pace.per_second = PACE
    admit(app, "a", 3980)
    return app


def admit(app, adapter, tokens):
    app.state.service.admission.begin(Work((adapter,), tokens), time.perf_counter(), 0)


def reads(app, adapter, length, timeout=None):
    """Whether a body of this length is asked for; where it is not, the request was refused."""
    asked, statuses = [], []

    async def receive():
        asked.append(True)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message):
        statuses.append(message.get("status"))

    headers = [(b"content-type", b"application/json"), *([(b"content-length", b"%d" % length)] if length else [])]
    headers += [(b"x-request-timeout", timeout)] if timeout else []
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "headers": headers,
             "path": "/embed", "raw_path": b"/embed", "query_string": f"adapter={adapter}".encode()}  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert statuses[0] == (422 if asked else 429)
    return bool(asked)


def test_an_adapter_s_share_is_full_by_the_length_of_a_body(app):
    assert not reads(app, "a", 200)
    assert reads(app, "a", 10) and reads(app, "a", None)
    assert reads(app, "b", 200)


def test_what_would_come_too_late_is_refused_by_its_head(app):
    assert not reads(app, "a", 10, timeout=b"1")
    assert reads(app, "a", 10, timeout=b"60") and reads(app, "b", 10, timeout=b"1")


def test_a_long_body_counts_as_one_input(app):
    admit(app, "b", 100)
    assert reads(app, "b", 10**6)
    assert not reads(app, "a", 10**6)


@pytest.fixture
def full(serve):
    """A client without a key of a server that has room for nobody."""
    client = serve(api_key="secret", max_queue_seconds=1)
    client.app.state.service.admission.pace.per_second = PACE
    admit(client.app, "a", 1300)
    return client


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/models/a"])
def test_without_room_inference_is_refused_before_its_key_is_asked_for(full, path):
    answer = full.post(path, json={})
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    error = answer.json()["error"]
    message = error["message"] if path.startswith("/v1/") else error
    assert "of work are waiting" in message
    route = path.replace("/a", "/{name}")
    counted = f'lorat_requests_total{{method="POST",route="{route}",status="429"}} 1.0'
    assert counted in full.get("/metrics", headers={"Authorization": "Bearer secret"}).text


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/embed"), ("POST", "/adapters"), ("GET", "/models/a"), ("GET", "/health")]
)
def test_what_computes_nothing_is_not(full, method, path):
    assert full.request(method, path).status_code in {200, 401, 404, 405}


def test_with_room_a_timeout_that_is_none_is_for_the_route_to_judge(serve):
    assert serve().post("/embed", json={}, headers={"X-Request-Timeout": "soon"}).status_code == 422


def test_with_room_it_is_its_key_that_is_asked_for(serve):
    assert serve(api_key="secret").post("/embed", json={}).status_code == 401
