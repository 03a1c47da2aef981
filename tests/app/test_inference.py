"""`/embed` and `/classify` over HTTP, against the library's oracles."""

import gzip
import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.app.conftest import held, upload
from tests.oracle import ALL_LINEAR, make_peft

TEXTS = [
    "a",
    "",
    "What is LoRA?",
    "One frozen base, many adapters.",
    "word " * 40,
    "naïve café 日本語 🙂",
    "long " * 300,
]


@pytest.fixture(scope="module")
def classifier(server, tiny_path, tmp_path_factory):
    directory = tmp_path_factory.mktemp("classifier")
    made = make_peft(tiny_path, directory, task="SEQ_CLS", num_labels=3, r=4)
    assert upload(server, "kinds", directory).status_code == 201
    return made


def embed(client, inputs, adapter=None, **fields):
    response = client.post("/embed", params={"adapter": adapter} if adapter else {}, json={"inputs": inputs} | fields)
    assert response.status_code == 200, response.text
    return np.array(response.json(), dtype=np.float32)


def test_base_vectors_are_those_of_sentence_transformers(server, tiny_path):
    expected = SentenceTransformer(str(tiny_path), device="cpu").encode(TEXTS, normalize_embeddings=True)
    assert np.abs(embed(server, TEXTS) - expected).max() <= 2e-5
    assert np.abs(embed(server, TEXTS[2]) - expected[2]).max() <= 2e-5


def test_token_ids_are_used_as_they_are(server):
    hello = embed(server, "hello")
    assert np.array_equal(embed(server, [101, 7592, 102]), hello)
    both = embed(server, ["hello", [101, 7592, 102]])
    assert np.abs(both - hello).max() <= 1e-5


def test_vectors_are_cut_then_normalised(server):
    raw = embed(server, "hello", normalize=False)
    assert abs(np.linalg.norm(raw) - 1) > 1e-3
    cut = embed(server, "hello", dimensions=8)
    assert np.allclose(cut[0], raw[0, :8] / np.linalg.norm(raw[0, :8]), atol=1e-6)
    assert np.allclose(embed(server, "hello", dimensions=8, normalize=False), raw[:, :8])
    both = embed(server, ["hello", "hello"], dimensions=8, normalize=False)
    assert both.shape == (2, 8) and np.allclose(both, raw[:, :8], atol=1e-6)


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("POST", "/embed?adaptor=x", "query.adaptor is no parameter of this route: did you mean adapter?"),
        ("POST", "/classify?Adapter=x", "query.Adapter is no parameter of this route: did you mean adapter?"),
        ("POST", "/v1/embeddings?name=x", "query.name is no parameter of this route: it takes adapter"),
        ("POST", "/adapters?dryrun=true", "did you mean dry_run?"),
        ("GET", "/adapters?tags=x", "did you mean tag?"),
        ("GET", "/v1/models?limit=3", "query.limit is no parameter of this route: it takes none"),
    ],
)
def test_a_query_that_a_route_does_not_read_is_refused(method, path, says, server):
    response = server.request(method, path, json={"inputs": "hello"})
    error = response.json()["error"]
    assert response.status_code == 422 and says in (error["message"] if isinstance(error, dict) else error)


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (gzip.compress(b'{"inputs": "x"}'), {"Content-Encoding": "gzip"}, "not compressed (Content-Encoding: gzip)"),
        ('{"inputs": "é"}'.encode("latin-1"), {}, "send well-formed JSON in UTF-8"),
    ],
    ids=["compressed", "latin-1"],
)
def test_a_body_that_cannot_be_read_says_how_to_send_it(body, headers, says, server):
    response = server.post("/embed", content=body, headers={"Content-Type": "application/json", **headers})
    assert response.status_code == 422 and says in response.json()["error"]


def test_octets_are_the_same_bits(server):
    body = {"inputs": ["hello", "there"]}
    raw = server.post("/embed", json=body, headers={"Accept": "application/octet-stream"})
    assert raw.headers["x-shape"] == "2,32"
    assert np.array_equal(np.frombuffer(raw.content, "<f4").reshape(2, 32), embed(server, body["inputs"]))
    for accept, kind in (("Application/Octet-Stream", "octet-stream"), ("application/octet-stream;q=0", "json")):
        answer = server.post("/embed", json=body, headers={"Accept": accept})
        assert answer.headers["content-type"] == f"application/{kind}"


def test_answers_say_what_computed_them(server, classifier):
    response = server.post("/embed", json={"inputs": ["hello", "hello there"]})
    info = server.get("/info").json()
    assert response.headers["x-lorat-adapter"] == "base"
    assert response.headers["x-lorat-digest"] == f"sha256:{info['fingerprint']}"
    assert response.headers["x-compute-tokens"] == "7"
    for name in ("total", "tokenization", "queue", "inference"):
        assert float(response.headers[f"x-{name}-time"]) >= 0
    response = server.post("/classify?adapter=kinds@1", json={"inputs": "hello"})
    record = server.get("/adapters/kinds").json()
    assert response.headers["x-lorat-adapter"] == "kinds@1"
    assert response.headers["x-lorat-digest"] == record["digest"]


@pytest.mark.parametrize("route", ["/classify", "/predict"])
def test_one_text_a_pair_and_batches_of_both(server, classifier, route):
    def ask(inputs, **fields):
        return server.post(route, params={"adapter": "kinds"}, json={"inputs": inputs} | fields).json()

    texts = ["hello", ("a question", "its answer"), ""]
    expected = [
        dict(zip(["LABEL_0", "LABEL_1", "LABEL_2"], row.softmax(-1).tolist(), strict=True))
        for row in classifier.answers(texts)
    ]
    batch = ask([["hello"], ["a question", "its answer"], [""]])
    for got, wanted in zip(batch, expected, strict=True):
        assert [entry["score"] for entry in got] == sorted((entry["score"] for entry in got), reverse=True)
        assert {entry["label"]: entry["score"] for entry in got} == pytest.approx(wanted, abs=5e-5)
    assert {e["label"]: e["score"] for e in ask("hello")} == pytest.approx(expected[0], abs=5e-5)
    assert {e["label"]: e["score"] for e in ask(["a question", "its answer"])} == pytest.approx(expected[1], abs=5e-5)
    raw = {entry["label"]: entry["score"] for entry in ask("hello", raw_scores=True)}
    assert list(map(raw.get, expected[0])) == pytest.approx(classifier.answers(["hello"])[0].tolist(), abs=5e-5)


def test_over_long_inputs_are_cut_or_refused_as_asked(server, tiny_path):
    expected = SentenceTransformer(str(tiny_path), device="cpu").encode(["x " * 2000], normalize_embeddings=True)
    assert np.abs(embed(server, "x " * 2000) - expected).max() <= 2e-5
    assert not np.allclose(embed(server, "x " * 2000 + "end", truncation_direction="Left"), expected)
    response = server.post("/embed", json={"inputs": "x " * 2000, "truncate": False})
    assert (response.status_code, response.json()["error_type"]) == (422, "Tokenizer")
    assert "2002 tokens, the limit is 512" in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "says"),
    [
        ("/embed", {"inputs": []}, 400, "Empty", "at least one"),
        ("/classify?adapter=kinds", {"inputs": []}, 400, "Empty", "at least one"),
        ("/embed?adapter=nothere", {"inputs": "a"}, 404, "NotFound", "nothere"),
        ("/embed?adapter=kinds@9", {"inputs": "a"}, 404, "NotFound", "kinds@9"),
        ("/embed?adapter=kindz", {"inputs": "a"}, 404, "NotFound", "kinds"),
        ("/classify", {"inputs": "a"}, 424, "Backend", "no head"),
        ("/classify?adapter=base", {"inputs": "a"}, 424, "Backend", "no head"),
        ("/embed", {"inputs": ["a"] * 257}, 422, "Validation", "256"),
        ("/embed", {"inputs": [30522]}, 422, "Tokenizer", "vocabulary"),
        ("/embed", {"inputs": [-1]}, 422, "Tokenizer", "vocabulary"),
        ("/embed", {"inputs": [[]]}, 422, "Tokenizer", "empty"),
        ("/embed", {"inputs": [10**30]}, 422, "Tokenizer", "vocabulary"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, 422, "Tokenizer", "query"),
        ("/embed", {"inputs": "a", "prompt_name": ""}, 422, "Tokenizer", "prompt_name ''"),
        ("/embed", {"inputs": "a", "dimensions": 0}, 422, "Validation", "dimensions"),
        ("/embed", {"inputs": "a", "dimensions": 33}, 422, "Validation", "32"),
        ("/embed", {"inputs": "a", "normalise": True}, 422, "Validation", "normalise"),
        ("/embed", {"inputs": "a", "truncate": "yes"}, 422, "Validation", "truncate"),
        ("/embed", {"inputs": "a", "truncation_direction": "Up"}, 422, "Validation", "truncation_direction"),
        ("/embed", {"inputs": None}, 422, "Validation", "inputs"),
        ("/embed", {"inputs": 1.5}, 422, "Validation", "inputs"),
        ("/embed", {"inputs": [True]}, 422, "Validation", "inputs"),
        ("/embed", {"inputs": {"a": 1}}, 422, "Validation", "inputs"),
        ("/embed", {}, 422, "Validation", "inputs"),
        ("/embed", [], 422, "Validation", "dictionary"),
        ("/classify?adapter=kinds", {"inputs": [["a", "b", "c"]]}, 422, "Validation", "3 texts"),
        ("/classify?adapter=kinds", {"inputs": [[]]}, 422, "Validation", "0 texts"),
        ("/classify?adapter=kinds", {"inputs": [1, 2]}, 422, "Validation", "inputs"),
        ("/nowhere", {"inputs": "a"}, 404, "NotFound", "Not Found"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name_and_the_server_goes_on(
    server, classifier, path, body, status, kind, says
):
    response = server.post(path, json=body)
    assert (response.status_code, response.json()["error_type"]) == (status, kind), response.text
    assert says in response.json()["error"]
    assert server.get("/health").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'inputs': 'a'}",
        b"\xff\xfe",
        b"null",
        b'{"inputs": "a"',
        b'{"inputs": "\\ud800"}',
        b"[" * 5000,
        b'{"inputs": NaN}',
    ],
)
def test_malformed_bodies_are_422(server, body):
    response = server.post("/embed", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    assert response.json()["error_type"] in ("Validation", "Tokenizer")
    assert embed(server, "still there").shape == (1, 32)


@pytest.mark.parametrize(("kind", "says"), [(None, "no type"), ("application/x-www-form-urlencoded", "form-url")])
@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_json_that_is_not_called_so_is_told_how(server, path, kind, says):
    headers = {"Content-Type": kind} if kind else {}
    response = server.post(path, content=b'{"inputs": "a", "input": "a"}', headers=headers)
    assert response.status_code == 422
    assert says in response.text
    assert "send Content-Type: application/json" in response.text


def test_bodies_over_the_limit_are_413(serve):
    client = serve(max_body_bytes=1000)
    for options in ({"json": {"inputs": "x" * 2000}}, {"content": (b"x" * 100 for _ in range(50))}):
        response = client.post("/embed", **options)
        assert (response.status_code, response.json()["error_type"]) == (413, "TooLarge")
    assert embed(client, "small").shape == (1, 32)


def test_a_full_server_says_so_at_once(serve):
    client = serve(max_concurrent_requests=2)
    with ThreadPoolExecutor(2) as threads, held(client) as release:
        waiting = [threads.submit(client.post, "/embed", json={"inputs": "a"}) for _ in range(2)]
        while client.app.state.service.admission.running < 2:
            time.sleep(0.01)
        started = time.perf_counter()
        refused = client.post("/embed", json={"inputs": "b"})
        assert time.perf_counter() - started < 1
        assert (refused.status_code, refused.json()["error_type"]) == (429, "Overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        release.set()
        assert [future.result().status_code for future in waiting] == [200, 200]
    assert client.post("/embed", json={"inputs": "b"}).status_code == 200


def test_the_work_of_a_client_that_has_gone_is_dropped(serve):
    client = serve(workers=1)
    with ThreadPoolExecutor(1) as threads, held(client) as release:
        first = threads.submit(client.post, "/embed", json={"inputs": "first"})
        while client.app.state.service.admission.running < 1:
            time.sleep(0.01)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{client.base_url}/embed", json={"inputs": ["gone"] * 5}, timeout=0.3)
        while client.app.state.service.admission.running > 1:
            time.sleep(0.01)
        release.set()
        assert first.result().status_code == 200
    assert client.post("/embed", json={"inputs": "last"}).status_code == 200
    assert 'lorat_inputs_total{task="embedding"} 2.0' in client.get("/metrics").text


SPECS = [
    {"r": rank, "target_modules": targets, "use_rslora": rank % 2 == 0}
    for rank in (1, 4, 8, 16, 33, 64)
    for targets in (["query", "value"], ALL_LINEAR)
]
SPECS[4] |= {"rank_pattern": {"layer.1.attention.self.query": 3}, "alpha_pattern": {"value": 24}}
SPECS += [{"task": "SEQ_CLS", "num_labels": labels, "r": 4} for labels in (2, 3, 7, 77)]
SPECS += [{"task": "TOKEN_CLS", "num_labels": 9, "r": 8}]


def softmax(logits):
    return torch.as_tensor(logits).softmax(-1).numpy()


def test_600_concurrent_requests_over_17_adapters_are_each_what_peft_gives(serve, minilm_path, tmp_path):
    client = serve(base=str(minilm_path), slots=10, max_queue_seconds=600)
    texts = [text for text in TEXTS if len(text) < 300]
    expected = {None: SentenceTransformer(str(minilm_path), device="cpu").encode(texts, normalize_embeddings=True)}
    specs = {None: {}} | {f"a{index}": spec for index, spec in enumerate(SPECS)}
    for seed, (name, spec) in enumerate(specs.items()):
        if name is not None:
            adapter = make_peft(minilm_path, tmp_path / name, seed=seed, **spec)
            assert upload(client, name, adapter.directory).status_code == 201
            answers = adapter.answers(texts)
            expected[name] = [softmax(answer) for answer in answers] if "task" in spec else torch.stack(answers).numpy()

    def ask(name, chosen):
        task, labels = specs[name].get("task"), [f"LABEL_{i}" for i in range(specs[name].get("num_labels", 0))]
        route = {None: "/embed", "SEQ_CLS": "/classify", "TOKEN_CLS": "/token_classify"}[task]
        inputs = [[texts[i]] if task == "SEQ_CLS" else texts[i] for i in chosen]
        body = {"inputs": inputs} | ({"aggregate": False} if task == "TOKEN_CLS" else {})
        response = client.post(route, params={"adapter": name} if name else {}, json=body)
        assert response.status_code == 200, response.text
        assert response.headers["x-lorat-adapter"] == (f"{name}@1" if name else "base")
        worst = 0.0
        for row, wanted in zip(response.json(), (expected[name][i] for i in chosen), strict=True):
            if task == "SEQ_CLS":
                row = list(map({entry["label"]: entry["score"] for entry in row}.get, labels))
            elif task == "TOKEN_CLS":
                wanted = wanted[1:-1]
                assert [labels.index(entry["entity"]) for entry in row] == wanted.argmax(-1).tolist()
                row, wanted = [entry["score"] for entry in row], wanted.max(-1)
            worst = max(worst, np.abs(np.array(row) - wanted).max(initial=0))
        return worst

    generator = random.Random(0)
    work = [
        (generator.choice(list(expected)), generator.sample(range(len(texts)), generator.randint(1, 3)))
        for _ in range(600)
    ]
    for name in expected:
        assert max(ask(name, [i]) for i in range(len(texts))) <= 5e-5
    with ThreadPoolExecutor(32) as threads:
        assert max(threads.map(lambda item: ask(*item), work)) <= 5e-5
    metrics = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
    few = float(metrics['lorat_batch_adapters_bucket{le="4.0"}'])
    assert float(metrics["lorat_batches_total"]) > few, "no forward held more than 4 adapters"
