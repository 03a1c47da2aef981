"""Bodies of the wrong shape: a few faults are told, however many there are."""

import pytest
from pydantic import BaseModel, ValidationError

from app.schemas import adapters, hub, inference, openai

BODIES = [
    kind
    for module in (adapters, hub, inference, openai)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.model_config.get("extra") == "forbid"
]
MANY = 50_000


def faults(kind: type[BaseModel], fields: dict[str, object]) -> int:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(fields)
    return refused.value.error_count()


def test_there_are_bodies():
    assert {inference.EmbedRequest, openai.EmbeddingRequest, hub.ModelRequest, adapters.SettingsRequest} <= {*BODIES}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("wrong", [None, True, 1.5, {}, [{}], [None, "a"]], ids=str)
def test_a_list_of_wrong_items_makes_few_errors(kind, wrong):
    for name in kind.model_fields:
        assert faults(kind, {name: [wrong] * MANY}) < 20


@pytest.mark.parametrize("kind", BODIES)
def test_many_unknown_fields_are_one_error(kind):
    assert faults(kind, {f"field{number}": 1 for number in range(MANY)}) == 1


@pytest.mark.parametrize("kind", BODIES)
def test_a_few_unknown_fields_are_named(kind):
    with pytest.raises(ValidationError, match="fieldless"):
        kind.model_validate({"fieldless": 1})
