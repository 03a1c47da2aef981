import pytest

from lorat.config import LoRATConfig, scaling
from lorat.errors import BaseError, ConfigError
from lorat.targets import BaseShape, Site, choose_layers, parse_tune


@pytest.mark.parametrize(
    ("tune", "names"),
    [
        ("qkov", ("query", "key", "value", "output")),
        ("vq", ("query", "value")),
        ("id", ("intermediate", "ffn_output")),
        ("query", ("query",)),
        (["query", "value"], ("query", "value")),
        (["q", "output.dense"], ("query", "ffn_output")),
        (["attention.output.dense", "kv"], ("key", "value", "output")),
    ],
)
def test_tune_takes_letters_names_and_paths(tune, names):
    assert parse_tune(tune) == names


@pytest.mark.parametrize("tune", ["", [], "x", "qx", "querie", ["query", "nothing"], "QV"])
def test_unknown_tune_is_an_error_that_names_the_choices(tune):
    with pytest.raises(ConfigError, match="qkovid"):
        parse_tune(tune)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0},
        {"rank": 257},
        {"rank": -1},
        {"rank": 1.5},
        {"rank": True},
        {"alpha": 0},
        {"alpha": float("nan")},
        {"mode": "most"},
        {"dropout": 1.0},
        {"dropout": -0.1},
    ],
)
def test_values_that_cannot_be_honoured_are_named(wrong):
    values = {"rank": 1, "alpha": 32, "targets": ("query",), "layers": (0,)} | wrong
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LoRATConfig(**values)


def test_scaling_follows_the_papers():
    assert scaling(32, 8, False) == 4
    assert scaling(32, 16, True) == 8


def test_layers_are_checked_and_counted_from_either_end():
    assert choose_layers(None, 3) == (0, 1, 2)
    assert choose_layers(-1, 3) == (2,)
    assert choose_layers([2, 0, -1], 3) == (0, 2)
    for wrong in ([3], -4, []):
        with pytest.raises(ConfigError, match="0 to 2"):
            choose_layers(wrong, 3)


def test_sites_and_module_names_are_inverse():
    shape = BaseShape(layers=2, hidden=8, intermediate=16, has_pooler=True)
    modules = shape.module_names()[:-1]
    assert [Site.parse(module).module for module in modules] == modules
    assert len(modules) == 12


def test_other_families_are_refused_by_name():
    from transformers import BertConfig, RobertaConfig

    with pytest.raises(BaseError, match="roberta"):
        BaseShape.of(RobertaConfig(), has_pooler=True)
    with pytest.raises(BaseError, match="is_decoder"):
        BaseShape.of(BertConfig(is_decoder=True), has_pooler=True)
