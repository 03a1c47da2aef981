"""Wire types of the inference routes (text-embeddings-inference's, as far as they are the same)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr

TokenIds = list[StrictInt]
Pair = list[StrictStr]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class _Request(BaseModel):
    """Fields that every inference route takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    truncate: StrictBool | None = Field(None, description="cut over-long inputs; null: the server's setting")
    truncation_direction: Annotated[Literal["right", "left"], BeforeValidator(_lower)] = Field(
        "right", description="the side that is cut"
    )
    prompt_name: StrictStr | None = Field(None, description="one of the recipe's prompts")


class EmbedRequest(_Request):
    """`POST /embed`."""

    inputs: StrictStr | TokenIds | list[StrictStr | TokenIds] = Field(
        description="a text, a list of token ids, or a list of either", examples=["What is LoRA?"]
    )
    normalize: StrictBool = Field(True, description="divide each vector by its length")
    dimensions: Annotated[int, Field(ge=1, strict=True)] | None = Field(None, description="keep the first n values")

    def items(self) -> list[str | list[int]]:
        """The inputs, one by one."""
        if isinstance(self.inputs, str):
            return [self.inputs]
        ids = [item for item in self.inputs if isinstance(item, int)]
        return [ids] if ids else [item for item in self.inputs if not isinstance(item, int)]


class ClassifyRequest(_Request):
    """`POST /classify`. `["a", "b"]` is one pair; a batch is `[["a"], ["b", "c"]]`."""

    inputs: StrictStr | Pair | list[Pair] = Field(
        description="a text, a pair, or a list of lists of one or two texts", examples=["I lost my card"]
    )
    raw_scores: StrictBool = Field(False, description="logits instead of probabilities")

    @property
    def single(self) -> bool:
        """Whether the answer is one list, not a list of lists."""
        return isinstance(self.inputs, str) or bool(self.inputs and isinstance(self.inputs[0], str))

    def items(self) -> list[list[str]]:
        """The inputs, one by one, each of one or two texts."""
        if isinstance(self.inputs, str):
            return [[self.inputs]]
        texts = [item for item in self.inputs if isinstance(item, str)]
        return [texts] if texts else [item for item in self.inputs if not isinstance(item, str)]


class TokenClassifyRequest(_Request):
    """`POST /token_classify`. Token ids are not taken: offsets need the text."""

    inputs: StrictStr | list[StrictStr] = Field(
        description="a text, or a list of texts", examples=["Ada Lovelace lived in London"]
    )
    aggregate: StrictBool = Field(True, description="join the tokens of an entity; false: an entry for each token")

    def items(self) -> list[str]:
        """The inputs, one by one."""
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class Entity(BaseModel):
    """Neighbouring tokens of one label, its `B-` or `I-` left out. `start`, `end`: characters of the text."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


class TokenEntity(BaseModel):
    """One token with its label. `word` is as the tokenizer writes it; `start`, `end`: characters of the text."""

    entity: str
    score: float
    word: str
    start: int
    end: int


class Prediction(BaseModel):
    """One label with its score."""

    score: float
    label: str


class ErrorBody(BaseModel):
    """Every error of the native routes."""

    error: str
    error_type: str
