"""What LoRAT wraps: the models, their linear layers, and the parts of a head that train whole."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from lorat.adapter import Task
from lorat.errors import BaseError, ConfigError
from lorat.files import saving
from lorat.files.origin import brings_pooler
from lorat.layers import LoRALinear
from lorat.targets import Site

TASK_OF_MODEL: dict[str, Task] = {
    "BertModel": "embedding",
    "BertForSequenceClassification": "sequence_classification",
    "BertForTokenClassification": "token_classification",
}
"""The transformers models that adapters are trained on, and what for."""


def encoder_of(model: Any) -> Any:
    """The BertModel of a model. Raises BaseError for a model of another kind."""
    if type(model).__name__ not in TASK_OF_MODEL:
        raise BaseError(f"cannot wrap a {type(model).__name__}: give one of {', '.join(TASK_OF_MODEL)}")
    return getattr(model, "bert", model)


def owners(encoder: nn.Module, sites: Sequence[Site]) -> list[tuple[nn.Module, str]]:
    """The parent of each site's linear layer, and the layer's name there.

    Raises BaseError for a layer that is no plain Linear, and where the model is wrapped already.
    """
    if any(isinstance(module, LoRALinear) for module in encoder.modules()):
        raise BaseError("the model has LoRALinear layers: give one that is not wrapped, or reset() the one that is")
    found = []
    for site in sites:
        parent, _, name = site.module.rpartition(".")
        owner = encoder.get_submodule(parent)
        if not isinstance(getattr(owner, name), nn.Linear):
            raise BaseError(f"{site.module} is a {type(getattr(owner, name)).__name__}, not a Linear")
        if (owner, name) in found:
            raise BaseError(
                f"{site.module} is of two layers at once: give a model whose layers are objects of their own"
            )
        found.append((owner, name))
    return found


def parts_to_save(names: Sequence[str], model: Any) -> tuple[str, ...]:
    """Of "classifier" and "pooler", what `model` has and `names` asks for.

    Raises ConfigError for other names, and for a head whose adapter could not be served.
    """
    unknown = sorted(set(names) - {"classifier", "pooler"})
    if unknown:
        raise ConfigError(f"modules_to_save has {unknown[0]!r}: use 'classifier' and 'pooler'")
    encoder, task = encoder_of(model), TASK_OF_MODEL[type(model).__name__]
    if "pooler" in names and (encoder.pooler is None or task == "embedding"):
        raise ConfigError(f"modules_to_save has 'pooler', and a {type(model).__name__} uses none: leave it out")
    if task == "sequence_classification" and "pooler" not in names and not brings_pooler(encoder, model.name_or_path):
        raise ConfigError(
            "the base's checkpoint has no pooler, so the classifier would read a random one: "
            "use modules_to_save=['classifier', 'pooler']"
        )
    if task != "embedding":
        _check_classifier(model)
    return tuple(name for name in names if name == "pooler" or task != "embedding")


def _check_classifier(model: Any) -> None:
    classifier, labels = model.classifier, model.config.num_labels
    if not isinstance(classifier, nn.Linear) or classifier.bias is None:
        raise ConfigError(f"the classifier is a {type(classifier).__name__}: an adapter carries a Linear with a bias")
    if classifier.out_features != labels:
        raise ConfigError(f"the classifier has {classifier.out_features} outputs, the config {labels} labels")
    saving.check(saving.facts(TASK_OF_MODEL[type(model).__name__], model.config, None), {})
