"""LoRAT: a transformers BERT with one trainable adapter."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorat.adapter import Adapter, Linear, LoRA, Task
from lorat.config import LoRATConfig, Mode
from lorat.errors import BaseError, ConfigError
from lorat.files import saving
from lorat.files.adapter_file import read_adapter, write_adapter
from lorat.layers import LoRALinear
from lorat.targets import BaseShape, Site, choose_layers, parse_tune

_TASKS: dict[str, Task] = {
    "BertModel": "embedding",
    "BertForSequenceClassification": "sequence_classification",
    "BertForTokenClassification": "token_classification",
}


class LoRAT(nn.Module):
    """Wraps a `BertModel`, `BertForSequenceClassification` or `BertForTokenClassification`.

    The chosen linear layers become `LoRALinear`; everything else of the model stays transformers' own, and
    a call returns what the wrapped model returns. With a classification head, the head trains too.
    """

    def __init__(
        self,
        model: Any,
        rank: int = 1,
        alpha: float = 32,
        tune: str | Iterable[str] = "qkov",
        mode: Mode = "all",
        *,
        layers: Sequence[int] | int | None = None,
        dropout: float = 0.0,
        use_rslora: bool = False,
        modules_to_save: Sequence[str] = ("classifier",),
    ) -> None:
        """Wrap `model` in place and freeze what is not trained.

        tune: letters of "qkovid" or names (see `lorat.targets`). mode: "all" trains the adapter alone (and
        the head); "part" freezes only the wrapped linears. layers: encoder layers that carry the adapter,
        None for all. modules_to_save: parts trained whole, of "classifier" and "pooler". Raises ConfigError
        for a value that cannot be honoured, BaseError for another kind of model.
        """
        super().__init__()
        encoder = _encoder(model)
        count = encoder.config.num_hidden_layers
        self.settings = LoRATConfig(
            rank, alpha, parse_tune(tune), choose_layers(layers, count), mode, dropout, use_rslora
        )
        self.model = model
        self.modules_to_save = _present(modules_to_save, model)
        if mode == "all":
            model.requires_grad_(False)
        for site in self.sites():
            self._wrap(encoder, site)
        for module in self.saved_modules().values():
            module.requires_grad_(True)

    def _wrap(self, encoder: Any, site: Site) -> None:
        parent, _, name = site.module.rpartition(".")
        owner = encoder.get_submodule(parent)
        linear = getattr(owner, name)
        if not isinstance(linear, nn.Linear):
            raise BaseError(f"{site.module} is a {type(linear).__name__}, not a Linear: wrap an unwrapped model")
        settings = self.settings
        setattr(owner, name, LoRALinear(linear, settings.rank, settings.scaling, settings.dropout))

    @property
    def bert(self) -> Any:
        """The BertModel inside."""
        return _encoder(self.model)

    @property
    def config(self) -> Any:
        """The wrapped model's transformers config."""
        return self.model.config

    @property
    def task(self) -> Task:
        """What the wrapped model is for."""
        return _TASKS[type(self.model).__name__]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the wrapped model returns for the same arguments."""
        if labels is not None:
            kwargs["labels"] = labels
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, **kwargs)

    def sites(self) -> list[Site]:
        """The layers that carry the adapter, in order."""
        return [Site(layer, target) for layer in self.settings.layers for target in self.settings.targets]

    def adapted(self) -> Iterator[tuple[Site, LoRALinear]]:
        """Each site with its layer."""
        for site in self.sites():
            yield site, self.bert.get_submodule(site.module)

    def merge(self) -> None:
        """Compute with merged weights: pristine base + delta, beside the base. Not while training."""
        for _, layer in self.adapted():
            layer.merge()

    def unmerge(self) -> None:
        """Compute unmerged again; the base is what it was, to the bit."""
        for _, layer in self.adapted():
            layer.unmerge()

    def train(self, mode: bool = True) -> "LoRAT":
        """As every module's; training also drops merged weights, which would hide what A and B learn."""
        if mode:
            self.unmerge()
        return super().train(mode)

    def trainable_parameters(self) -> tuple[int, int]:
        """Number of values that train, and number of all values."""
        parameters = list(self.parameters())
        return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

    def print_trainable_parameters(self) -> None:
        """Print the share of the values that train."""
        trainable, total = self.trainable_parameters()
        print(f"trainable: {trainable:,} of {total:,} parameters ({trainable / total:.2%})")

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """As the wrapped model's; activations are recomputed in the backward pass."""
        self.model.gradient_checkpointing_enable(**kwargs)
        self.model.enable_input_require_grads()

    def save(
        self,
        directory: str | Path,
        *,
        description: str | None = None,
        tags: Sequence[str] = (),
        base_name: str | None = None,
    ) -> None:
        """Write the adapter (not the base) as PEFT's files and `lorat.json`.

        `base_name` is for people; without it, the last part of where the model was loaded from. Raises
        ConfigError in mode "part", whose result is no adapter for a frozen base.
        """
        if self.settings.mode != "all":
            raise ConfigError("mode='part' trained the base itself: save the whole model (lorat.model), or use 'all'")
        name = base_name or Path(self.model.name_or_path).name
        facts = saving.facts(self.task, self.config, saving.checkpoint_id(self.model))
        write_adapter(
            directory,
            saving.peft_config(self.settings, self.task, self.modules_to_save, name),
            saving.tensors(self.adapted(), self.saved_modules(), headless=self.model is self.bert),
            facts | {"description": description, "tags": list(tags)},
        )

    def save_pretrained(self, directory: str | Path, **_: Any) -> None:
        """`save`, under the name that transformers and PEFT use."""
        self.save(directory)

    def load(self, directory: str | Path) -> Adapter:
        """Fill this model's adapter (and head) from a directory that fits it. Returns what was read.

        Raises an AdapterError for files that are refused, ConfigError where the adapter's layers, ranks or
        head are not those of this model.
        """
        encoder = self.bert
        shape = BaseShape.of(
            encoder.config, has_pooler=encoder.pooler is not None, base_id=saving.checkpoint_id(self.model)
        )
        adapter = read_adapter(directory, shape)
        if adapter.task != self.task:
            raise ConfigError(f"the adapter is for {adapter.task}, the model for {self.task}")
        if set(adapter.lora) != set(self.sites()):
            raise ConfigError("the adapter's layers are not this model's: wrap with the adapter's tune and layers")
        with torch.no_grad():
            for site, layer in self.adapted():
                _fill(layer, adapter.lora[site], site)
            self._fill_head(adapter)
        return adapter

    @classmethod
    def from_pretrained(cls, model: Any, directory: str | Path) -> "LoRAT":
        """Wrap `model` with the adapter in a directory: one rank, one alpha, as `save` writes them.

        Raises what `load` raises. An adapter with ranks or alphas that differ by layer is for `MultiLoRAT`.
        """
        encoder = _encoder(model)
        adapter = read_adapter(directory, BaseShape.of(encoder.config, has_pooler=encoder.pooler is not None))
        first = next(iter(adapter.lora.values()))
        saved = ("classifier", "pooler") if adapter.head and adapter.head.pooler else ("classifier",)
        wrapped = cls(
            model,
            rank=first.rank,
            alpha=first.scaling * first.rank,
            tune=adapter.targets,
            layers=sorted({site.layer for site in adapter.lora}),
            modules_to_save=saved,
        )
        wrapped.load(directory)
        return wrapped

    def _fill_head(self, adapter: Adapter) -> None:
        if adapter.head is None:
            return
        parts = {"classifier": adapter.head.classifier, "pooler.dense": adapter.head.pooler}
        modules = self.saved_modules()
        for name, part in parts.items():
            if part is not None:
                _copy(modules.get(name), part, name)

    def saved_modules(self) -> dict[str, nn.Linear]:
        """The parts that are trained whole, by name inside the model: `classifier`, `pooler.dense`."""
        modules = {"classifier": getattr(self.model, "classifier", None), "pooler": self.bert.pooler}
        dense = {"classifier": "classifier", "pooler": "pooler.dense"}
        return {dense[name]: getattr(modules[name], "dense", modules[name]) for name in self.modules_to_save}


def _encoder(model: Any) -> Any:
    if type(model).__name__ not in _TASKS:
        raise BaseError(f"cannot wrap a {type(model).__name__}: give one of {', '.join(_TASKS)}")
    return getattr(model, "bert", model)


def _present(modules_to_save: Sequence[str], model: Any) -> tuple[str, ...]:
    unknown = sorted(set(modules_to_save) - {"classifier", "pooler"})
    if unknown:
        raise ConfigError(f"modules_to_save has {unknown[0]!r}: use 'classifier' and 'pooler'")
    if "pooler" in modules_to_save and _encoder(model).pooler is None:
        raise ConfigError("modules_to_save has 'pooler', and the model has none")
    return tuple(name for name in modules_to_save if name == "pooler" or hasattr(model, "classifier"))


def _fill(layer: LoRALinear, lora: LoRA, site: Site) -> None:
    if layer.lora_A.shape != lora.a.shape or lora.bias is not None:
        raise ConfigError(f"{site.module}: the adapter's rank or bias is not this model's")
    layer.lora_A.copy_(lora.a)
    layer.lora_B.copy_(lora.b * (lora.scaling / layer.scaling))


def _copy(module: nn.Linear | None, part: Linear, name: str) -> None:
    if module is None or module.weight.shape != part.weight.shape:
        raise ConfigError(f"the adapter's {name} does not fit the model: give the model the adapter's labels")
    module.weight.copy_(part.weight)
    module.bias.copy_(part.bias)
