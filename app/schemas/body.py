"""What request bodies share: nothing unknown is taken, and the first faults are enough."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T")
_MOST_FIELDS = 100
Items = Annotated[list[T], Field(fail_fast=True)]
"""A list that is refused at its first wrong item: a million wrong ones would make a million errors."""


class Body(BaseModel):
    """A request's JSON object, or one within it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and len(fields) > _MOST_FIELDS:
            raise ValueError(f"{len(fields)} fields, {len(cls.model_fields)} are known here: leave the others out")
        return fields
