"""What the commands share: settings from the command line, and what a process sets before torch is imported."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from app.environment import PREFIX
from app.settings import Settings
from lorat.errors import LoratError
from lorat.memory import keep_freed_memory

_SWITCH_SECONDS = 0.002


class SettingsError(LoratError):
    """A setting that cannot be honoured."""


def read_settings(**given: Any) -> Settings:
    """Settings from `given`, then the environment. Raises SettingsError naming each wrong one."""
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(map(_explain, error.errors(include_input=False)))) from error


def _explain(fault: Mapping[str, Any]) -> str:
    """What is wrong with a setting; of all of them together the message says which."""
    message = str(fault["msg"]).removeprefix("Value error, ")
    return ": ".join([f"{PREFIX}{str(part).upper()}" for part in fault["loc"][:1]] + [message])


def prepare_process() -> None:
    """What must be set before torch and tokenizers are imported.

    OpenMP's threads spin at every barrier; beside an event loop and a tokeniser that starves all of them. The
    engine's threads take Python's lock for moments only: they should not wait 5 ms for it each time. With less than 2
    the event loop loses it in the middle of a request, and waits to have it back.
    """
    keep_freed_memory()
    sys.setswitchinterval(_SWITCH_SECONDS)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
