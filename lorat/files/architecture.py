"""What of a transformers config changes what a BERT computes from the same tensors, or their shapes."""

from collections.abc import Mapping
from typing import Any

from transformers import BertConfig

from lorat.files.json_file import short

_FIELDS = (
    "model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "hidden_act",
    "layer_norm_eps", "max_position_embeddings", "type_vocab_size", "position_embedding_type", "is_decoder",
)  # fmt: skip


def difference(config: Mapping[str, Any], other: Any, whose: str) -> str | None:
    """Where a `config.json` differs from another model's config, for a message; None where both compute alike.

    other: a transformers config. whose: it is, in the message.
    """
    usual = BertConfig()
    for name in _FIELDS:
        default = getattr(usual, name, "absolute")
        theirs, ours = config.get(name, default), getattr(other, name, default)
        if theirs != ours:
            return f"{name} is {short(theirs)}, {whose} has {short(ours)}"
    return None
