"""Wire types of `POST /models/{name}`: what Hugging Face's InferenceClient sends to a model's own URL."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictStr

from app.answers import Scoring
from app.schemas.body import Body, Items
from app.schemas.inference import Inputs, Manners, SentencePairs


class Parameters(Body):
    """Options of classification, and of token classification."""

    top_k: Annotated[int, Field(ge=1, strict=True)] | None = Field(None, description="only the highest scores")
    function_to_apply: Scoring | None = Field(
        None, description="from logits to scores; null: what the adapter was trained for"
    )
    aggregation_strategy: Literal["none", "simple"] | None = Field(
        None, description="none: an entry for each token; null: simple"
    )
    ignore_labels: Items[StrictStr] | None = Field(None, description="labels that are left out; null: O")


class ModelRequest(Manners):
    """`POST /models/{name}`. Which fields mean something depends on the adapter's task."""

    inputs: SentencePairs | Inputs = Field(
        description="a text, a list of texts or token ids, or a sentence with those it is compared with",
        examples=["What is LoRA?"],
    )
    normalize: StrictBool | None = Field(None, description="embeddings: divide by the length; null: true")
    dimensions: Annotated[int, Field(ge=1, strict=True)] | None = Field(None, description="embeddings: the first n")
    parameters: Parameters | None = None
