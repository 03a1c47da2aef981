"""LoRAT: one frozen BERT, thousands of LoRA adapters.

Names are imported when they are first used, so that `lorat.errors` does not bring torch with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorat.adapter import Adapter
    from lorat.base import Base, load_base
    from lorat.config import LoRATConfig
    from lorat.errors import LoratError
    from lorat.files.adapter_file import read_adapter
    from lorat.layers import LoRALinear
    from lorat.model import LoRAT
    from lorat.multi import MultiLoRAT
    from lorat.recipe import Recipe
    from lorat.rows import Row
    from lorat.slots import Slot
    from lorat.tokenizer import Tokens

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "adapter",
    "Base": "base",
    "LoRALinear": "layers",
    "LoRAT": "model",
    "LoRATConfig": "config",
    "LoratError": "errors",
    "MultiLoRAT": "multi",
    "Recipe": "recipe",
    "Row": "rows",
    "Slot": "slots",
    "Tokens": "tokenizer",
    "load_base": "base",
    "read_adapter": "files.adapter_file",
}

__all__ = [
    "Adapter",
    "Base",
    "LoRALinear",
    "LoRAT",
    "LoRATConfig",
    "LoratError",
    "MultiLoRAT",
    "Recipe",
    "Row",
    "Slot",
    "Tokens",
    "__version__",
    "load_base",
    "read_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lorat' has no attribute {name!r}")
    return getattr(import_module(f"lorat.{_HOMES[name]}"), name)
