"""docs/api.md and the OpenAPI document say the same: the routes, and the fields of each."""

import re
from pathlib import Path

import pytest

from app.main import create_app
from app.settings import Settings

TEXT = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
SECTIONS = dict(re.findall(r"^### ([A-Z]+ /\S*)\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL))
DOCUMENT = create_app(Settings()).openapi()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
EVERYWHERE = {"truncate", "truncation_direction", "prompt_name", "adapter"}


def test_the_page_has_every_route_and_no_other():
    assert set(SECTIONS) == set(OPERATIONS)


def fields_of(operation):
    """The fields of a request's body and its query, those of `parameters` as `parameters.x`."""
    yield from (one["name"] for one in operation.get("parameters", []) if one["in"] == "query")
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
        yield from schema["properties"]


@pytest.mark.parametrize("route", OPERATIONS)
def test_a_section_names_every_field_of_its_route(route):
    same_as = {"POST /predict": "POST /classify", "POST /": "POST /models/{name}"}
    said = SECTIONS[route] + SECTIONS.get(same_as.get(route, ""), "")
    if route == "POST /embed_all":
        assert "as above" in said
    missing = [field for field in fields_of(OPERATIONS[route]) if field not in EVERYWHERE and f"{field}" not in said]
    assert not missing


@pytest.mark.parametrize("page", ["api", "operations"])
def test_what_needs_no_key_is_said(page):
    text = (Path(__file__).parents[1] / "docs" / f"{page}.md").read_text()
    section = re.search(r"^## Keys\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]
    assert "`/health`, `/ready`, `/docs` and `/openapi.json` need none" in section


@pytest.mark.parametrize("field", sorted(EVERYWHERE))
def test_what_every_route_takes_is_said_once(field):
    assert f"`{field}`" in TEXT or f"?{field}=" in TEXT


def test_words_in_code_of_a_section_are_known_to_the_code():
    known = set(re.findall(r"\w+", str(DOCUMENT))) | {"lora_int_id"}
    for route, section in SECTIONS.items():
        for word in re.findall(r"`([a-z_]+)`", section):
            assert word in known, (route, word)
