"""`lorat.json`: what an adapter says of itself that PEFT's config has no place for.

format        1
task          "embedding", "sequence_classification" or "token_classification"
labels        names of the classifier's outputs, in order
multi_label   true where labels are scored independently
base_id       the base it was trained on (`lorat.fingerprint.base_id`)
description   a sentence for people
tags          words to list it by
mode          "all": only such a result is an adapter for a frozen base
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lorat.adapter import TASKS, Probe
from lorat.errors import AdapterFileError, UnsupportedAdapterError
from lorat.files.json_file import read_json

FACTS = "lorat.json"
FORMAT = 1
_FIELDS = {"format", "task", "labels", "multi_label", "base_id", "description", "tags", "mode", "probes"}
_MAX_PROBES = 16


def read_facts(directory: Path) -> dict[str, Any]:
    """The fields that are set, checked. Raises AdapterFileError, or UnsupportedAdapterError for unknown fields."""
    path = directory / FACTS
    if not path.exists():
        return {}
    facts: dict[str, Any] = read_json(path, dict)
    unknown = sorted(set(facts) - _FIELDS)
    if unknown:
        raise UnsupportedAdapterError(f"lorat.json has the unknown field {unknown[0]!r}: a newer LoRAT wrote it?")
    if facts.get("mode", "all") != "all":
        raise UnsupportedAdapterError(
            f"lorat.json: mode={facts['mode']!r} trained the base itself: only mode='all' makes an adapter"
        )
    _check_fact(facts, "task", "one of " + ", ".join(TASKS), lambda v: v in TASKS)
    _check_fact(facts, "base_id", "a text", lambda v: isinstance(v, str))
    _check_fact(facts, "description", "a text", lambda v: isinstance(v, str))
    _check_fact(facts, "multi_label", "true or false", lambda v: isinstance(v, bool))
    if facts.get("format", FORMAT) != FORMAT:
        raise UnsupportedAdapterError(
            f"lorat.json: format {facts['format']!r} is not {FORMAT}: a newer LoRAT wrote it?"
        )
    _check_fact(facts, "probes", f"at most {_MAX_PROBES} objects of a text and expected numbers", _is_probes)
    for name in ("labels", "tags"):
        _check_fact(facts, name, "a list of texts", _is_texts)
    return {name: value for name, value in facts.items() if value is not None}


def probes_of(facts: Mapping[str, Any]) -> tuple[Probe, ...]:
    """Its probes, as `read_facts` has checked them."""
    return tuple(Probe(probe["text"], tuple(map(float, probe["expected"]))) for probe in facts.get("probes", ()))


def _is_probes(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _MAX_PROBES and all(map(_is_probe, value))


def _is_probe(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"text", "expected"} or not isinstance(value["text"], str):
        return False
    numbers = value["expected"]
    return isinstance(numbers, list) and all(
        isinstance(number, float | int) and not isinstance(number, bool) and abs(number) < 1e9 for number in numbers
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_fact(facts: Mapping[str, Any], name: str, kind: str, fits: Callable[[Any], bool]) -> None:
    if facts.get(name) is not None and not fits(facts[name]):
        raise AdapterFileError(f"lorat.json: {name} must be {kind}")
