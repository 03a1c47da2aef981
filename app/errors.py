"""The service's own errors, and the one table from error to HTTP status."""

import re

from lorat import errors as lorat_errors
from lorat.errors import LoratError


class EmptyInputError(LoratError):
    """`inputs` holds nothing."""


class InvalidRequestError(LoratError):
    """A well-formed request whose fields contradict each other or a limit."""

    def __init__(self, message: str, param: str | None = None) -> None:
        """param: the field of a `/v1` request that it is about."""
        super().__init__(message)
        self.param = param


class UnauthorizedError(LoratError):
    """No key, or a key that is not known."""


class ForbiddenError(LoratError):
    """A known key that does not open this route."""


class UnknownAdapterError(LoratError):
    """No adapter (or no such version of it) under this name."""

    def __init__(self, message: str, close: str | None = None) -> None:
        """close: a name like it that there is, not for everyone to see."""
        super().__init__(message)
        self.close = close


class ConflictError(LoratError):
    """The name is taken by other content."""


class PreconditionFailedError(LoratError):
    """`If-Match` or `If-None-Match` does not hold."""


class TooLargeError(LoratError):
    """A request body, a file or an archive over its limit."""


class UploadError(LoratError):
    """An upload that is refused for what it holds: its form, its archive, its file names."""


class StoreError(LoratError):
    """The adapter store cannot be read, written or trusted."""


class DamagedError(StoreError):
    """An adapter version whose content is missing, corrupt, or no longer passes the check."""


class NoRoomError(LoratError):
    """The temporary directory is full."""


class OverloadedError(LoratError):
    """The queue is full, or a limit is reached. `retry_after` is in whole seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineError(LoratError):
    """The answer was not ready in the time that the request, or the server, gave it."""


class SlowBodyError(LoratError):
    """A request body that does not arrive at the least pace."""


class NotFiniteError(LoratError):
    """An adapter whose weights are finite drove an answer to NaN or infinity."""


class UnavailableError(LoratError):
    """The engine is not running: starting, draining or stopped."""


# The most derived class in the list wins; (status, error_type) as in text-embeddings-inference.
STATUS: dict[type[LoratError], tuple[int, str]] = {
    EmptyInputError: (400, "Empty"),
    UnauthorizedError: (401, "Unauthorized"),
    ForbiddenError: (403, "Forbidden"),
    UnknownAdapterError: (404, "NotFound"),
    SlowBodyError: (408, "Timeout"),
    ConflictError: (409, "Conflict"),
    PreconditionFailedError: (412, "PreconditionFailed"),
    TooLargeError: (413, "TooLarge"),
    lorat_errors.InputError: (422, "Tokenizer"),
    InvalidRequestError: (422, "Validation"),
    UploadError: (422, "Validation"),
    lorat_errors.ConfigError: (422, "Validation"),
    lorat_errors.AdapterError: (422, "Validation"),
    lorat_errors.NoHeadError: (424, "Backend"),
    NotFiniteError: (424, "Backend"),
    OverloadedError: (429, "Overloaded"),
    UnavailableError: (503, "Unhealthy"),
    StoreError: (503, "Unhealthy"),
    NoRoomError: (503, "Unhealthy"),
    DeadlineError: (504, "Timeout"),
    LoratError: (500, "Backend"),
}


def status_of(error: LoratError) -> tuple[int, str]:
    """HTTP status and TEI error type for an error: the nearest of its classes in `STATUS`."""
    return STATUS[_kind(error)]


def reason_of(kind: type[LoratError]) -> str:
    """What metrics, logs and traces call a class of `STATUS`: its name, as `unknown_adapter`."""
    return re.sub("(?<!^)(?=[A-Z])", "_", kind.__name__.removesuffix("Error")).lower()


def reason(error: LoratError) -> str:
    """As `reason_of` the nearest of an error's classes in `STATUS`."""
    return reason_of(_kind(error))


def _kind(error: LoratError) -> type[LoratError]:
    return next((kind for kind in type(error).__mro__ if kind in STATUS), LoratError)
