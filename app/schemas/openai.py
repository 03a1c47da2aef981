"""Wire types of `/v1`: OpenAI's, and vLLM's where OpenAI has none."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr

from app.schemas.body import Body, Items
from app.schemas.inference import Inputs, listed


class EmbeddingRequest(Body):
    """`POST /v1/embeddings`."""

    input: Inputs = Field(
        description="a text, a list of token ids, or a list of either", examples=[["What is LoRA?", "It rains."]]
    )
    model: StrictStr | None = Field(None, description="an adapter: `name` or `name@version`; null: the base")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: little-endian float32, as OpenAI's own clients ask for"
    )
    dimensions: Annotated[int, Field(ge=1, strict=True)] | None = Field(None, description="keep the first n values")
    user: StrictStr | None = Field(None, description="taken, and not used")

    def items(self) -> list[str | list[int]]:
        """The inputs, one by one."""
        return listed(self.input)


class Usage(BaseModel):
    """Tokens that were computed."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """One input's vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(BaseModel):
    """The answer of `POST /v1/embeddings`."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Model(BaseModel):
    """The base, or the newest version of an adapter."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="seconds since 1970")
    owned_by: Literal["lorat"] = "lorat"
    root: str = Field(description="the base's model, or the version that the name means")
    parent: str | None = Field(description="an adapter's base")
    max_model_len: int


class Models(BaseModel):
    """The answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[Model]


class ClassificationRequest(Body):
    """`POST /v1/classify`, as vLLM has it."""

    model: StrictStr | None = Field(None, description="a classifier: `name` or `name@version`", examples=["sentiment"])
    input: StrictStr | Items[StrictStr] = Field(description="a text, or a list of texts", examples=["Never again."])
    user: StrictStr | None = Field(None, description="taken, and not used")

    def items(self) -> list[str]:
        """The inputs, one by one."""
        return [self.input] if isinstance(self.input, str) else self.input


class Classified(BaseModel):
    """One input's most likely label, and the probabilities of all in the adapter's order."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Classification(BaseModel):
    """The answer of `POST /v1/classify`."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classified]
    usage: Usage


class LoadRequest(Body):
    """`POST /v1/load_lora_adapter`."""

    lora_name: StrictStr = Field("", examples=["reviews"])
    lora_path: StrictStr = Field("", description="a directory below LORAT_LORA_DIR", examples=["reviews"])
    load_inplace: StrictBool = Field(False, description="make it the newest version of a name that exists")


class UnloadRequest(Body):
    """`POST /v1/unload_lora_adapter`."""

    lora_name: StrictStr = Field("", examples=["reviews"])
    lora_int_id: StrictInt | None = Field(None, description="taken, and not used")
