"""Answers are as the OpenAPI document declares them: a short run of `tests/prove/test_schema.py`."""

import pytest

from tests.schema import conforms, damaged, serving


@pytest.fixture(scope="module")
def server(tiny_path, tmp_path_factory):
    with serving(tiny_path, tmp_path_factory.mktemp("server")) as server:
        yield server


def test_every_route_answers_as_it_declares(server, tmp_path):
    report = conforms(server, tmp_path, seed=1, examples=8, phases="examples,fuzzing")
    assert report["test_cases"]["generated"] >= 200


def test_damaged_bodies_are_refused_as_declared(server):
    statuses = damaged(server, seed=1, count=300)
    assert statuses[422] > 200
