"""What a PEFT config means, with PEFT's own matching as the oracle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from lorat.errors import AdapterFileError, UnsupportedAdapterError
from lorat.files.peft_config import parse_peft_config
from lorat.targets import BaseShape

MODULES = BaseShape(layers=3, hidden=8, intermediate=8, has_pooler=True).module_names()
MODULES += [f"bert.{module}" for module in MODULES]
NAMES = ["query", "key", "value", "dense", "output.dense", "attention.output.dense", "encoder.layer.1.output.dense"]
PATTERNS = [r".*query", r".*\.(key|value)", r".*layer\.[02]\..*dense", r"bert\..*", r".*attention.*dense$"]
BASE = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"]}

targets = st.one_of(st.sampled_from(PATTERNS), st.lists(st.sampled_from(NAMES), min_size=1, unique=True))


@settings(max_examples=150, deadline=None)
@given(
    target=targets,
    exclude=st.one_of(st.none(), targets),
    layers=st.one_of(st.none(), st.integers(0, 3), st.lists(st.integers(0, 3), unique=True)),
    pattern=st.sampled_from([None, "layer", ["layer"], ["blocks", "layer"], ["layers"]]),
    saved=st.sampled_from([None, ["classifier"], ["classifier", "pooler"]]),
)
def test_chooses_the_layers_that_peft_chooses(target, exclude, layers, pattern, saved):
    fields = {"target_modules": target, "exclude_modules": exclude, "modules_to_save": saved}
    if isinstance(target, list):
        fields |= {"layers_to_transform": layers, "layers_pattern": pattern if layers is not None else None}
    peft = LoraConfig(**fields)
    peft.target_modules = target
    ours = parse_peft_config(BASE | fields)
    for module in MODULES:
        expected = check_target_module_exists(peft, module)
        assert ours.adapts(module) == (bool(expected) and type(expected).__name__ != "_ExcludedModule"), module


@settings(max_examples=100, deadline=None)
@given(
    ranks=st.dictionaries(st.sampled_from([*NAMES, *PATTERNS, "layer.0.attention.self.query"]), st.integers(1, 64)),
    alphas=st.dictionaries(st.sampled_from([*NAMES, r"layer\.1\..*"]), st.integers(1, 64)),
    rslora=st.booleans(),
)
def test_ranks_and_scalings_are_those_of_peft(ranks, alphas, rslora):
    ours = parse_peft_config(BASE | {"rank_pattern": ranks, "alpha_pattern": alphas, "use_rslora": rslora})
    for module in MODULES:
        rank = ranks.get(get_pattern_key(list(ranks), module), 4)
        alpha = alphas.get(get_pattern_key(list(alphas), module), 8)
        assert ours.rank_of(module) == rank
        assert ours.scaling_of(module) == pytest.approx(alpha / (rank**0.5 if rslora else rank))


def test_peft_s_own_defaults_are_accepted():
    saved = LoraConfig(target_modules=["query"], task_type="SEQ_CLS").to_dict() | {"target_modules": ["query"]}
    assert parse_peft_config(saved).r == 8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("lora_bias", True),
        ("trainable_token_indices", [1, 2]),
        ("target_parameters", ["x"]),
        ("layer_replication", [[0, 2]]),
        ("alora_invocation_tokens", [5]),
        ("use_bdlora", {"x": 1}),
        ("use_qalora", True),
        ("velora_config", {"rank": 1}),
        ("some_future_field", 3),
        ("bias", "all"),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "loftq"),
        ("peft_type", "LOHA"),
        ("modules_to_save", ["embeddings"]),
    ],
)
def test_what_changes_the_arithmetic_is_refused_by_name(field, value):
    with pytest.raises(UnsupportedAdapterError, match=field):
        parse_peft_config(BASE | {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", None),
        ("r", 0),
        ("r", "8"),
        ("r", True),
        ("lora_alpha", None),
        ("lora_alpha", "x"),
        ("lora_alpha", float("inf")),
        ("target_modules", None),
        ("target_modules", []),
        ("target_modules", [1]),
        ("target_modules", {"a": 1}),
        ("layers_to_transform", ["a"]),
        ("layers_to_transform", -1),
        ("rank_pattern", {"query": "x"}),
        ("rank_pattern", []),
        ("rank_pattern", [1]),
        ("use_rslora", "yes"),
        ("task_type", 7),
    ],
)
def test_wrong_types_are_refused_by_name(field, value):
    if value == [] and field == "rank_pattern":
        assert parse_peft_config(BASE | {field: value}).rank_pattern == {}
        return
    with pytest.raises(AdapterFileError, match=field):
        parse_peft_config(BASE | {field: value})


@pytest.mark.parametrize("pattern", ["(", "*", "(?P<x"])
def test_broken_patterns_are_refused(pattern):
    with pytest.raises(AdapterFileError, match="pattern"):
        parse_peft_config(BASE | {"target_modules": pattern}).adapts("encoder.layer.0.attention.self.query")


def test_a_pattern_made_to_hang_is_stopped():
    config = parse_peft_config(BASE | {"target_modules": "(((([a-z]{1,50}){1,50}){1,50}){1,50}){1,50}"})
    with pytest.raises(AdapterFileError, match="takes too long"):
        config.adapts("a" * 100 + "!")


@pytest.mark.parametrize("pattern", ["(" * 50 + "a" + ")+" * 50, "a" * 3000])
def test_a_pattern_made_to_fill_the_memory_is_not_compiled(pattern):
    with pytest.raises(AdapterFileError, match="shorter and flatter"):
        parse_peft_config(BASE | {"target_modules": pattern}).adapts("encoder.layer.0.attention.self.query")
