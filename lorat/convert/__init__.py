"""Other people's fine-tunes, made adapters: checkpoints of the original LoRAT, of loralib, and whole models.

Names are imported when they are first used, so that the command line does not bring torch with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorat.convert.conversion import convert
    from lorat.convert.report import Report

_HOMES = {"Report": "report", "convert": "conversion"}

__all__ = ["Report", "convert"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lorat.convert' has no attribute {name!r}")
    return getattr(import_module(f"lorat.convert.{_HOMES[name]}"), name)
