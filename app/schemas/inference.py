"""Wire types of the native inference routes: text-embeddings-inference's, as far as it has them."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, StrictInt, StrictStr

from app.schemas.body import Body, Items
from lorat.ends import Direction

TokenIds = Items[StrictInt]
Pair = Items[StrictStr]
Inputs = StrictStr | TokenIds | Items[StrictStr | TokenIds]
"""A text, one list of token ids, or a list of either."""


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def listed(inputs: Inputs) -> list[str | list[int]]:
    """Inputs one by one."""
    if isinstance(inputs, str):
        return [inputs]
    ids = [item for item in inputs if isinstance(item, int)]
    return [ids] if ids else [item for item in inputs if not isinstance(item, int)]


class Manners(Body):
    """How inputs become tokens: fields that every inference route takes."""

    truncate: StrictBool | None = Field(None, description="cut over-long inputs; null: the server's setting")
    truncation_direction: Annotated[Direction, BeforeValidator(_lower)] = Field(
        "right", description="the side that is cut"
    )
    prompt_name: StrictStr | None = Field(None, description="one of the recipe's prompts")


class EmbedAllRequest(Manners):
    """`POST /embed_all`."""

    inputs: Inputs = Field(description="a text, a list of token ids, or a list of either", examples=["What is LoRA?"])

    def items(self) -> list[str | list[int]]:
        """The inputs, one by one."""
        return listed(self.inputs)


class EmbedRequest(EmbedAllRequest):
    """`POST /embed`."""

    normalize: StrictBool = Field(True, description="divide each vector by its length")
    dimensions: Annotated[int, Field(ge=1, strict=True)] | None = Field(None, description="keep the first n values")


class ClassifyRequest(Manners):
    """`POST /classify`. `["a", "b"]` is one pair; a batch is `[["a"], ["b", "c"]]`."""

    inputs: StrictStr | Pair | Items[Pair] = Field(
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


class TokenClassifyRequest(Manners):
    """`POST /token_classify`. Token ids are not taken: offsets need the text."""

    inputs: StrictStr | Items[StrictStr] = Field(
        description="a text, or a list of texts", examples=["Ada Lovelace lived in London"]
    )
    aggregate: StrictBool = Field(True, description="join the tokens of an entity; false: an entry for each token")

    def items(self) -> list[str]:
        """The inputs, one by one."""
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class RerankRequest(Manners):
    """`POST /rerank`."""

    query: StrictStr = Field(examples=["how do I pay by card?"])
    texts: Items[StrictStr] = Field(description="what is ranked", examples=[["Cards are accepted.", "It rains."]])
    raw_scores: StrictBool = Field(False, description="logits instead of probabilities")
    return_text: StrictBool = Field(False, description="with each text beside its score")


class SentencePairs(Body):
    """One sentence, and those that it is compared with."""

    source_sentence: StrictStr = Field(examples=["What is LoRA?"])
    sentences: Items[StrictStr] = Field(examples=[["A low-rank adapter.", "It rains."]])

    def items(self) -> list[str]:
        """All sentences, the source first. None where there is nothing to compare it with."""
        return [self.source_sentence, *self.sentences] if self.sentences else []


class SimilarityRequest(Body):
    """`POST /similarity`."""

    inputs: SentencePairs
    parameters: Manners | None = None


class TokenizeRequest(Body):
    """`POST /tokenize`."""

    inputs: StrictStr | Items[StrictStr] = Field(description="a text, or a list of texts", examples=["What is LoRA?"])
    add_special_tokens: StrictBool = Field(True, description="with [CLS] and [SEP]")

    def items(self) -> list[str]:
        """The inputs, one by one."""
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class SimpleToken(BaseModel):
    """One token. `start`, `stop`: characters of the text, null for a special one."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Rank(BaseModel):
    """One text's score; `index`: its place in the request. `text` where `return_text` asked for it."""

    index: int
    score: float
    text: str | None = None


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
