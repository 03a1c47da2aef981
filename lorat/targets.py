"""The linear layers of a BERT that an adapter can change, and what people call them.

letter  name           module inside `encoder.layer.N`
q       query          attention.self.query
k       key            attention.self.key
v       value          attention.self.value
o       output         attention.output.dense
i       intermediate   intermediate.dense
d       ffn_output     output.dense
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lorat.errors import BaseError, ConfigError

MODULES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "ffn_output": "output.dense",
}
LETTERS = {name[0]: name for name in MODULES if name != "ffn_output"} | {"d": "ffn_output"}
_PATHS = {module: name for name, module in MODULES.items()}


def parse_tune(tune: str | Iterable[str]) -> tuple[str, ...]:
    """Target names for `tune`, in the order of `MODULES`.

    `tune` is a string of letters (`"qv"`), a name (`"query"`), a module path (`"output.dense"`), or a
    list of any of these. Raises ConfigError for anything else, and for nothing at all.
    """
    items = [tune] if isinstance(tune, str) else list(tune or ())
    chosen = {name for item in items for name in _names(item)}
    if not chosen:
        raise ConfigError(f"tune={tune!r} chooses no layer: give letters of 'qkovid' or names of {_known()}")
    return tuple(name for name in MODULES if name in chosen)


def _names(item: str) -> list[str]:
    if item in MODULES:
        return [item]
    if item in _PATHS:
        return [_PATHS[item]]
    unknown = sorted(set(item) - set(LETTERS))
    if unknown:
        raise ConfigError(f"tune has {item!r}: use letters of 'qkovid' or names of {_known()}")
    return [LETTERS[letter] for letter in item]


def _known() -> str:
    return ", ".join(MODULES)


@dataclass(frozen=True)
class BaseShape:
    """What an adapter's files are held against: the sizes and identity of a base.

    `base_id` is None where the base was not read from a checkpoint; `has_pooler` tells whether the
    checkpoint itself carries BERT's pooler.
    """

    layers: int
    hidden: int
    intermediate: int
    has_pooler: bool
    base_id: str | None = None

    @classmethod
    def of(cls, config: Any, *, has_pooler: bool, base_id: str | None = None) -> "BaseShape":
        """The shape a transformers `BertConfig` describes. Raises BaseError for another family."""
        if config.is_decoder:
            raise BaseError("the base's config says is_decoder: LoRAT wraps encoders, set it to false")
        if config.model_type != "bert":
            raise BaseError(f"the base is a {config.model_type!r} model: LoRAT wraps BERT encoders (model_type 'bert')")
        positions = getattr(config, "position_embedding_type", None) or "absolute"
        if positions != "absolute":
            raise BaseError(f"the base's config.json: position_embedding_type is {positions!r}: 'absolute' is computed")
        return cls(config.num_hidden_layers, config.hidden_size, config.intermediate_size, has_pooler, base_id)

    def linear_shape(self, target: str) -> tuple[int, int]:
        """(in_features, out_features) of a target's linear layer."""
        if target == "intermediate":
            return self.hidden, self.intermediate
        if target == "ffn_output":
            return self.intermediate, self.hidden
        return self.hidden, self.hidden

    def module_names(self) -> list[str]:
        """Every linear layer of the encoder as BertModel names it, the pooler's last."""
        names = [f"encoder.layer.{layer}.{module}" for layer in range(self.layers) for module in MODULES.values()]
        return [*names, POOLER]


POOLER = "pooler.dense"


@dataclass(frozen=True, order=True)
class Site:
    """One linear layer of the encoder: its layer index and its target name."""

    layer: int
    target: str

    @property
    def module(self) -> str:
        """Its path inside a BertModel."""
        return f"encoder.layer.{self.layer}.{MODULES[self.target]}"

    @classmethod
    def parse(cls, module: str) -> "Site":
        """The site of a path that `module_names` gave (not the pooler)."""
        _, _, layer, path = module.split(".", 3)
        return cls(int(layer), _PATHS[path])


def choose_layers(layers: Sequence[int] | int | None, count: int) -> tuple[int, ...]:
    """Layer indices that `layers` chooses out of `count`; negative indices count from the end."""
    if layers is None:
        return tuple(range(count))
    wanted = [layers] if isinstance(layers, int) else list(layers)
    wrong = [layer for layer in wanted if type(layer) is not int or not -count <= layer < count]
    if wrong or not wanted:
        raise ConfigError(f"layers={layers!r}: the model has layers 0 to {count - 1}")
    return tuple(sorted({layer % count for layer in wanted}))
