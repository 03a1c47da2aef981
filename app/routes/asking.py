"""What the inference routes share: from a request to the answers of the adapters that it names."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Request

from app.access.auth import caller_of
from app.answers import unless_gone
from app.engine.tokenizing import Input
from app.errors import EmptyInputError, InvalidRequestError
from app.names import BASE
from app.schemas.errors import ErrorBody
from app.schemas.inference import Manners
from app.service import Answer, Options, Service
from app.store.catalog import Version
from lorat.rows import Asked

Adapters = Annotated[
    list[str] | None, Query(alias="adapter", description="`name` or `name@version`; none, or `base`: the base")
]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 408, 413, 422, 424, 429, 500, 503, 504)
}


def service_of(request: Request) -> Service:
    """The service that this application runs."""
    service: Service = request.app.state.service
    return service


async def ask(
    request: Request,
    asked: Asked,
    inputs: Sequence[Input],
    references: Sequence[str | None],
    manners: Manners,
    field: str = "inputs",
) -> list[Answer]:
    """The answers of each adapter. Raises a LoratError, or ClientDisconnect once nobody waits any more.

    field: in which the request has the inputs.
    """
    require_some(inputs, field)
    options = Options(manners.truncate, manners.truncation_direction, manners.prompt_name)
    work = service_of(request).infer(asked, inputs, references, options, caller_of(request))
    return await unless_gone(request, work)


async def ask_one(
    request: Request,
    asked: Asked,
    inputs: Sequence[Input],
    reference: str | None,
    manners: Manners,
    field: str = "inputs",
) -> Answer:
    """The answer of one adapter, as `ask`."""
    (answer,) = await ask(request, asked, inputs, [reference], manners, field)
    return answer


def require_some(inputs: Sequence[Input], field: str = "inputs") -> None:
    """Raises EmptyInputError where the field of a request holds nothing."""
    if not inputs:
        raise EmptyInputError(f"`{field}` is empty: send at least one")


async def version_named(request: Request, reference: str | None) -> Version | None:
    """The version that a reference means now, None for the base. Raises UnknownAdapterError."""
    return None if reference in (None, BASE) else await service_of(request).version_of(reference)


def one(adapters: Sequence[str] | None) -> str | None:
    """The adapter that a request names. Raises InvalidRequestError where it names several."""
    if adapters and len(adapters) > 1:
        raise InvalidRequestError(f"{len(adapters)} adapters: this route takes one, /embed and /classify take several")
    return adapters[0] if adapters else None


def several(adapters: Sequence[str] | None) -> Sequence[str | None]:
    """The adapters that a request names, [None] for the base. Raises InvalidRequestError for one named twice."""
    if adapters and len(set(adapters)) < len(adapters):
        raise InvalidRequestError("an adapter is named twice: name each once, the answer is by name")
    return adapters or [None]
