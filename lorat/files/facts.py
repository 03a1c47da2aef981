"""`lorat.json`: what an adapter says of itself that PEFT's config has no place for.

format        1
task          "embedding", "sequence_classification" or "token_classification"
labels        names of the classifier's outputs, in order
multi_label   true where labels are scored independently
base_id       the base it was trained on (`lorat.fingerprint.base_id`)
description   a sentence for people
tags          words to list it by
probes        texts with the answers it gave when it was saved (`lorat.probes`)
mode          "all": only such a result is an adapter for a frozen base
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lorat.adapter import TASKS, Probe
from lorat.errors import AdapterFileError, UnsupportedAdapterError
from lorat.files.json_file import read_json, short

FACTS = "lorat.json"
FORMAT = 1
_FIELDS = {"format", "task", "labels", "multi_label", "base_id", "description", "tags", "mode", "probes"}
_MAX_PROBES = 16
_BASE_ID = re.compile("[0-9a-f]{64}")
MAX_DESCRIPTION = 10_000
MAX_LABEL = 256
MAX_LABELS = 10_000
MAX_TAG = 64
MAX_TAGS = 64
MAX_PROBE = 10_000


def read_facts(directory: Path) -> dict[str, Any]:
    """The fields that are set, checked. Raises AdapterFileError, or UnsupportedAdapterError for unknown fields."""
    path = directory / FACTS
    if not path.exists():
        return {}
    facts: dict[str, Any] = read_json(path, dict)
    check_facts(facts)
    return {name: value for name, value in facts.items() if value is not None}


def check_facts(facts: Mapping[str, Any]) -> None:
    """Raise AdapterFileError for a field that is wrong, UnsupportedAdapterError for what is unknown."""
    unknown = sorted(set(facts) - _FIELDS)
    if unknown:
        raise UnsupportedAdapterError(f"lorat.json has the unknown field {short(unknown[0])}: a newer LoRAT wrote it?")
    if facts.get("mode", "all") != "all":
        raise UnsupportedAdapterError(
            f"lorat.json: mode={short(facts['mode'])} trained the base itself: only mode='all' makes an adapter"
        )
    _check_fact(facts, "task", "one of " + ", ".join(TASKS), lambda v: v in TASKS)
    _check_fact(facts, "base_id", "64 digits of 0-9 and a-f", lambda v: isinstance(v, str) and _BASE_ID.fullmatch(v))
    _check_fact(facts, "description", f"a text of at most {MAX_DESCRIPTION} characters", _is_text(MAX_DESCRIPTION))
    _check_fact(facts, "multi_label", "true or false", lambda v: isinstance(v, bool))
    if facts.get("format", FORMAT) != FORMAT or isinstance(facts.get("format"), bool):
        raise UnsupportedAdapterError(
            f"lorat.json: format {short(facts['format'])} is not {FORMAT}: a newer LoRAT wrote it?"
        )
    _check_fact(facts, "probes", f"at most {_MAX_PROBES} objects of a text and expected numbers", _is_probes)
    _check_fact(facts, "labels", f"a list of texts of at most {MAX_LABEL} characters", _are_texts(MAX_LABEL))
    _check_fact(
        facts, "tags", f"at most {MAX_TAGS} texts of at most {MAX_TAG} characters", _are_texts(MAX_TAG, MAX_TAGS)
    )


def probes_of(facts: Mapping[str, Any]) -> tuple[Probe, ...]:
    """Its probes, as `read_facts` has checked them."""
    return tuple(Probe(probe["text"], tuple(map(float, probe["expected"]))) for probe in facts.get("probes", ()))


def _is_probes(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _MAX_PROBES and all(map(_is_probe, value))


def _is_probe(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"text", "expected"} or not _is_text(MAX_PROBE)(value["text"]):
        return False
    numbers = value["expected"]
    return isinstance(numbers, list) and all(
        isinstance(number, float | int) and not isinstance(number, bool) and abs(number) < 1e9 for number in numbers
    )


def _is_text(longest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value) <= longest


def _are_texts(longest: int, most: int | None = None) -> Callable[[Any], bool]:
    """Whether a value is a list of texts, none of them empty."""
    fits = _is_text(longest)
    return lambda value: (
        isinstance(value, list) and (most is None or len(value) <= most) and all(item and fits(item) for item in value)
    )


def _check_fact(facts: Mapping[str, Any], name: str, kind: str, fits: Callable[[Any], object]) -> None:
    if facts.get(name) is not None and not fits(facts[name]):
        raise AdapterFileError(f"lorat.json: {name} must be {kind}")
