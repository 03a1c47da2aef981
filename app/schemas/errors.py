"""The two shapes of an error: the native routes', and OpenAI's under `/v1`."""

from pydantic import BaseModel


class ErrorBody(BaseModel):
    """Every error of the native routes, as text-embeddings-inference writes them."""

    error: str
    error_type: str


class OpenAIError(BaseModel):
    """What went wrong. `param`: the field that it is about. `code`: for programs to tell errors apart."""

    message: str
    type: str
    param: str | None
    code: str | int | None


class OpenAIErrorBody(BaseModel):
    """Every error under `/v1`."""

    error: OpenAIError
