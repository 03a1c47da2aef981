"""LoRAT: one frozen BERT, thousands of LoRA adapters."""

from lorat.adapter import Adapter
from lorat.adapter_file import read_adapter
from lorat.base import Base, load_base
from lorat.config import LoRATConfig
from lorat.errors import LoratError
from lorat.layers import LoRALinear
from lorat.model import LoRAT
from lorat.multi import MultiLoRAT, Row
from lorat.recipe import Recipe
from lorat.slots import Slot
from lorat.tokenizer import Tokens

__version__ = "0.1.0"

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
