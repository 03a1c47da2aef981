"""The OpenAPI document: every route has examples, and they are what the server takes and answers; `/docs` is at hand."""

import re
import shutil

import jsonschema
import pytest

from app.demo import DIRECTORY
from app.openapi import ANSWERS, QUERIES, REQUESTS
from tests.app.conftest import upload
from tests.oracle import make_peft

NO_JSON = {"POST /adapters", "GET /metrics", "GET /adapters/{reference}/download", "DELETE /adapters/{name}"}


@pytest.fixture(scope="module")
def client(serve, minilm_path, tmp_path_factory):
    """The server that the examples speak of: the demo adapters, a token classifier and one of relevance."""
    loras = tmp_path_factory.mktemp("loras")
    client = serve(base=None, demo=True, lora_dir=loras)
    make_peft(minilm_path, loras / "reviews")
    for name, task in (("names", "TOKEN_CLS"), ("relevance", "SEQ_CLS")):
        directory = tmp_path_factory.mktemp(name)
        make_peft(minilm_path, directory, task=task, num_labels=5 if task == "TOKEN_CLS" else 1, size=0.3)
        assert upload(client, name, directory).status_code == 201
        shutil.rmtree(directory)
    return client


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_says_what_it_does_and_shows_it(client):
    document = client.get("/openapi.json").json()
    known = dict(operations(document))
    for route, operation in known.items():
        assert operation["description"], route
        assert route in ANSWERS or route in NO_JSON, route
        assert route in REQUESTS or "requestBody" not in operation or route == "POST /adapters", route
    assert set(REQUESTS) | set(ANSWERS) | set(QUERIES) <= set(known)


def test_an_example_that_the_demo_does_not_answer_says_so(client):
    demos = {path.parent.name for path in DIRECTORY.glob("*/adapter_config.json")}
    known = dict(operations(client.get("/openapi.json").json()))
    for route, query in QUERIES.items():
        (parameter,) = [one for one in known[route]["parameters"] if one["name"] == "adapter"]
        assert ("stands for one of yours" in parameter["description"]) == (query["adapter"] not in demos), route


ROUTES = [route for route in ANSWERS if route != "POST /adapters"]


@pytest.mark.parametrize("route", ROUTES)
def test_the_example_is_taken_and_its_answer_is_of_the_shape_shown(client, route):
    method, path = route.split(" ")
    path = path.format(name="sentiment", reference="sentiment@1")
    options = {"json": REQUESTS[route]} if route in REQUESTS else {}
    response = client.request(method, path, params=QUERIES.get(route, {}), **options)
    assert response.is_success, response.text
    document = client.get("/openapi.json").json()
    declared = dict(operations(document))[route]["responses"][str(response.status_code)]["content"]
    media = response.headers["content-type"].partition(";")[0]
    answer = response.text if media == "text/plain" else response.json()
    for value in (answer, ANSWERS[route]):
        schema = declared[media].get("schema", {}) | {"components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(value)
    assert shape(answer) == shape(ANSWERS[route])


def shape(value):
    """Keys and types, of lists their first entry's."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items() if key not in ("embedding", "last_used")}
    if isinstance(value, list):
        return [shape(entry) for entry in value[:1]]
    return float if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)


def test_the_page_needs_nothing_from_elsewhere(client):
    page = client.get("/docs").text
    assert "http://" not in page and "https://" not in page
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(links) >= 3
    assert all(client.get(link).status_code == 200 for link in links)
