"""Traces, sent by the real exporter to a real OTLP/HTTP receiver."""

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.main import create_app
from app.settings import Settings
from lorat.errors import ConfigError
from tests.app.conftest import process, running, upload
from tests.oracle import make_peft

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ["binding", "tokenization", "queue", "inference", "answer"]


class Receiver:
    """A collector: what it was sent, decoded."""

    def __init__(self):
        self.requests, receiver = [], self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.headers["Content-Type"] == "application/x-protobuf"
                receiver.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def spans(self):
        groups = [group for _, request in self.requests for group in request.resource_spans]
        return [span for group in groups for scope in group.scope_spans for span in scope.spans]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def attributes(span):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_request_is_a_span_with_one_below_it_for_each_stage(receiver, tiny_path, tmp_path):
    settings = Settings(base=str(tiny_path), store=str(tmp_path / "store"), demo=False, trace_endpoint=receiver.url)
    adapter = make_peft(tiny_path, tmp_path / "adapter", r=2)
    context = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1", "X-Request-Id": "asked-1"}
    with running(settings) as client:
        digest = upload(client, "a", adapter.directory).json()["digest"]
        began = time.time_ns()
        body = {"inputs": ["hello there", "you"]}
        client.post("/embed?adapter=a", json=body, headers=context).raise_for_status()
        assert client.post("/embed?adapter=nobody", json={"inputs": "a"}).status_code == 404
        unwanted = {"traceparent": f"00-{'1' * 32}-{PARENT}-00"}
        client.post("/embed", json={"inputs": "not sampled"}, headers=unwanted).raise_for_status()
        del client.app.state.service.fingerprint
        assert client.post("/embed", json={"inputs": "a"}).status_code == 500
        ended = time.time_ns()
    [path] = {path for path, _ in receiver.requests}  # all of it was sent by the end
    assert path == "/v1/traces"
    resource = attributes(receiver.requests[0][1].resource_spans[0].resource)
    assert resource["service.name"] == "lorat" and resource["service.version"]
    spans = receiver.spans()
    assert "1" * 32 not in {span.trace_id.hex() for span in spans}, "whoever sent it wanted no trace"

    [root] = [span for span in spans if span.parent_span_id.hex() == PARENT]
    assert (root.trace_id.hex(), root.trace_state, root.name) == (TRACE, "vendor=1", "POST /embed")
    assert root.kind == root.SPAN_KIND_SERVER and root.status.code == root.status.STATUS_CODE_UNSET
    assert attributes(root) == {
        "http.request.method": "POST", "http.route": "/embed", "http.response.status_code": 200, "url.path": "/embed",
        "client.address": "127.0.0.1", "lorat.request_id": "asked-1", "lorat.adapter": "a@1", "lorat.tokens": 7,
    }  # fmt: skip
    assert began <= root.start_time_unix_nano < root.end_time_unix_nano <= ended
    below = sorted((span for span in spans if span.parent_span_id == root.span_id), key=lambda span: span.start_time_unix_nano)  # fmt: skip
    assert [span.name for span in below] == STAGES
    assert all(span.trace_id == root.trace_id for span in below)
    for span in below:
        assert attributes(span) == {"lorat.adapter": "a@1", "lorat.digest": digest, "lorat.tokens": 7}
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    for earlier, later in pairwise(below):
        assert abs(earlier.end_time_unix_nano - later.start_time_unix_nano) <= 1, "no time between two stages is lost"

    refused = [span for span in spans if attributes(span).get("http.response.status_code") == 404]
    [(unknown, event)] = [(attributes(span), span.events[0]) for span in refused]
    assert unknown["error.type"] == "unknown_adapter" and unknown["lorat.adapter"] == "nobody"
    assert "nobody" in attributes(event)["exception.message"]
    [failed] = [span for span in spans if attributes(span).get("http.response.status_code") == 500]
    assert failed.status.code == failed.status.STATUS_CODE_ERROR and attributes(failed)["error.type"] == "unexpected"


def test_a_collector_that_is_not_there_holds_up_nothing(tiny_path, tmp_path):
    settings = Settings(base=str(tiny_path), store=str(tmp_path), demo=False, trace_endpoint="http://127.0.0.1:9/v1")
    with running(settings) as client:
        client.post("/embed", json={"inputs": "a"}).raise_for_status()
        began = time.monotonic()
    assert time.monotonic() - began < 10


def test_the_sdk_is_not_imported_where_traces_are_off():
    code = (
        "import sys; from app.main import create_app; from app.server import serve; create_app();"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


WITHOUT_THE_EXTRA = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from app.cli import main
sys.exit(main(["serve", "--trace-endpoint", "http://127.0.0.1:9/v1/traces"]))
"""


def test_without_the_extra_the_start_stops_and_names_it(tmp_path):
    ended = subprocess.run([sys.executable, "-c", WITHOUT_THE_EXTRA], capture_output=True, text=True, cwd=tmp_path, env=environment())  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("lorat: LORAT_TRACE_ENDPOINT needs the extra `trace`")
    assert "Traceback" not in ended.stderr and not list(tmp_path.iterdir()), "the store was not even opened"


def environment():
    import os
    from pathlib import Path

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


def test_an_endpoint_that_is_no_url_stops_the_start():
    with pytest.raises(ConfigError, match="OTLP/HTTP URL"):
        create_app(Settings(trace_endpoint="collector:4317"))


def test_a_server_that_is_terminated_sends_what_is_left(receiver, tiny_path, tmp_path):
    flags = ("--demo", "0", "--trace-endpoint", receiver.url)
    with process(tmp_path, *flags, base=tiny_path) as (server, client):
        client.post("/embed", json={"inputs": "a"}).raise_for_status()
        server.terminate()
        assert server.wait(30) == 0
    assert "POST /embed" in [span.name for span in receiver.spans()]
