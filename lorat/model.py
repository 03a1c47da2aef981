"""LoRAT: a transformers BERT with one trainable adapter."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorat import checkpoint
from lorat.activation_checkpointing import ActivationCheckpointing
from lorat.adapter import Adapter, Task
from lorat.config import LoRATConfig, Mode
from lorat.errors import ConfigError
from lorat.files import loading, saving
from lorat.files.adapter_file import read_adapter, save_adapter
from lorat.files.model_labels import ModelLabels
from lorat.files.origin import brings_pooler, model_id
from lorat.layers import LoRALinear
from lorat.loraplus import loraplus_groups
from lorat.targets import POOLER, BaseShape, Site, choose_layers, parse_tune
from lorat.wrapping import TASK_OF_MODEL, encoder_of, owners, parts_to_save


class LoRAT(ActivationCheckpointing, nn.Module):
    """Wraps a `BertModel`, `BertForSequenceClassification` or `BertForTokenClassification`.

    The chosen linear layers become `LoRALinear`; everything else of the model stays transformers' own, and
    a call returns what the wrapped model returns. With a classification head, the head trains too.

    `state_dict` holds what trains: in mode "all" the adapter and the parts trained whole, so a trainer's
    checkpoints are as small; `load_state_dict` takes such a one or a whole one (`lorat.checkpoint`). The whole
    model's is `lorat.model.state_dict()`.
    """

    accepts_loss_kwargs = False  # BERT's loss is a mean: of accumulated batches, Trainer takes the mean again

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
        for a value that cannot be honoured, BaseError for another kind of model; the model is then what it was.
        """
        super().__init__()
        encoder = encoder_of(model)
        count = _shape(encoder, None).layers
        self.settings = LoRATConfig(
            rank, alpha, parse_tune(tune), choose_layers(layers, count), mode, dropout, use_rslora
        )
        self.model = model
        self.modules_to_save = parts_to_save(modules_to_save, model)
        self._origin = os.path.abspath(model.name_or_path) if model.name_or_path else None
        places = owners(encoder, self.sites())
        if mode == "all":
            model.requires_grad_(False)
        for owner, name in places:
            wrapped = LoRALinear(getattr(owner, name), rank, self.settings.scaling, dropout)
            setattr(owner, name, wrapped)
        for module in self.saved_modules().values():
            module.requires_grad_(True)
        self.training = model.training
        self._first_values = {name: _values(module) for name, module in self.saved_modules().items()}
        self._first_labels = ModelLabels.of(self.config)
        self.register_state_dict_post_hook(checkpoint.keep_what_trains)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(checkpoint.complete)  # type: ignore[no-untyped-call]

    @property
    def bert(self) -> Any:
        """The BertModel inside."""
        return encoder_of(self.model)

    def get_input_embeddings(self) -> nn.Module:
        """The wrapped model's, as trainers ask for them."""
        embeddings: nn.Module = self.model.get_input_embeddings()
        return embeddings

    @property
    def config(self) -> Any:
        """The wrapped model's transformers config."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the wrapped model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def task(self) -> Task:
        """What the wrapped model is for."""
        return TASK_OF_MODEL[type(self.model).__name__]

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
        """Compute with merged weights: pristine base + delta, beside the base, until `unmerge` or `train`.

        Raises ConfigError while training, where they would hide what A and B learn.
        """
        if any(layer.training for _, layer in self.adapted()):
            raise ConfigError("merged weights do not learn: call eval() first")
        for _, layer in self.adapted():
            layer.merge()

    def unmerge(self) -> None:
        """Compute unmerged again; the base is what it was, to the bit."""
        for _, layer in self.adapted():
            layer.unmerge()

    def trained(self) -> list[nn.Parameter]:
        """What a checkpoint holds: the adapter, the parts trained whole, and whatever else requires a gradient."""
        own = self._own()
        return [parameter for parameter in self.parameters() if parameter.requires_grad or id(parameter) in own]

    def _own(self) -> set[int]:
        """The ids of the parameters that make an adapter."""
        own = {id(matrix) for _, layer in self.adapted() for matrix in (layer.lora_A, layer.lora_B)}
        return own | {id(parameter) for module in self.saved_modules().values() for parameter in module.parameters()}

    def _check_frozen(self, instead: str) -> None:
        """Raise ConfigError where anything of the base trains, so that what comes out is more than an adapter."""
        if self.settings.mode != "all":
            raise ConfigError(f"mode='part' trained the base itself: {instead}, or use 'all'")
        own, named = self._own(), self.model.named_parameters()
        if other := next((name for name, value in named if value.requires_grad and id(value) not in own), None):
            raise ConfigError(f"{other} trains as well, and is no part of an adapter: {instead}, or freeze it")

    def reset(self) -> None:
        """Start a new adapter on the same model, as if it had just been wrapped.

        A is drawn anew and B is zero; the head, and a pooler that trains, are again what they were when the model
        was wrapped, and so are the config's labels. Gradients are dropped. Give the next adapter a new optimizer.
        Raises ConfigError in mode "part" and wherever else the base itself trains.
        """
        self._check_frozen("wrap a newly loaded model")
        self.unmerge()
        for _, layer in self.adapted():
            layer.reset_parameters()
        for name, module in self.saved_modules().items():
            module.load_state_dict(self._first_values[name])
        self._first_labels.put(self.config)
        self.zero_grad()

    def parameter_groups(
        self,
        learning_rate: float,
        ratio: float = 16.0,
        *,
        head_learning_rate: float | None = None,
        weight_decay: float = 0.0,
    ) -> list[dict[str, Any]]:
        """Groups for an optimizer, after LoRA+ (arXiv 2402.12354): B learns `ratio` times as fast as A.

        The head, and in mode "part" the base, learn at `head_learning_rate` (None: `learning_rate`). Matrices decay
        by `weight_decay`, biases not at all. For a loop: `AdamW(model.parameter_groups(2e-4))`; for a Trainer:
        `optimizers=(that, None)`. Raises ConfigError for a rate or ratio that is not above 0.
        """
        layers = (layer for _, layer in self.adapted())
        return loraplus_groups(layers, self.parameters(), learning_rate, ratio, head_learning_rate, weight_decay)

    def trainable_parameters(self) -> tuple[int, int]:
        """Number of values that train, and number of all values."""
        parameters = list(self.parameters())
        return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

    def print_trainable_parameters(self) -> None:
        """Print the share of the values that train."""
        trainable, total = self.trainable_parameters()
        print(f"trainable: {trainable:,} of {total:,} parameters ({trainable / total:.2%})")

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
        ConfigError where the base itself trains (mode "part"), whose result is no adapter for a frozen base, and for
        what is not served: a regression, labels of one name, weights that are not finite; and where nothing can be
        written. What was there stays then.
        """
        self._check_frozen("save the whole model (lorat.model)")
        name = base_name or Path(self.model.name_or_path).name
        shape = self._shape()
        facts = saving.facts(self.task, self.config, shape.base_id)
        facts |= {"description": description, "tags": list(tags)}
        parts = self._parts({"classifier", *self.modules_to_save})  # what is served has its head, trained or not
        tensors = saving.tensors(self.adapted(), parts, headless=self.model is self.bert)
        saving.check(facts, tensors)
        config = saving.peft_config(self.settings, self.task, [part.partition(".")[0] for part in parts], name)
        save_adapter(directory, config, tensors, facts, shape)

    def save_pretrained(self, directory: str | Path, *, is_main_process: bool = True, **options: Any) -> None:
        """`save` with its options, under the name that transformers and PEFT use; nothing where not the main process.

        Raises TypeError for an option that `save` does not have.
        """
        if is_main_process:
            self.save(directory, **options)

    def load(self, directory: str | Path) -> Adapter:
        """Fill this model's adapter (and head) from a directory that fits it. Returns what was read.

        Its labels become the config's, unless the model was wrapped with names of its own. Raises an AdapterError
        for files that are refused, ConfigError where the adapter's layers, ranks or head are not those of this model,
        or its labels others; the model is then what it was.
        """
        adapter = read_adapter(directory, self._shape())
        loading.check(adapter, self.task, self._first_labels)
        if set(adapter.lora) != set(self.sites()):
            raise ConfigError("the adapter's layers are not this model's: wrap with the adapter's tune and layers")
        self._take(adapter)
        return adapter

    def _take(self, adapter: Adapter) -> None:
        loading.fill(self.adapted(), self.saved_modules(), adapter, self._first_values)
        self._first_labels.joined(adapter.head).put(self.config)
        self.unmerge()  # what was merged is of the values before

    @classmethod
    def from_pretrained(cls, model: Any, directory: str | Path) -> "LoRAT":
        """Wrap `model` with the adapter in a directory, to go on training it as it was: its rank, alpha, dropout.

        Raises what `load` raises; the model is then what it was. An adapter with ranks that differ by layer is for
        `MultiLoRAT`.
        """
        adapter = read_adapter(directory, _shape(encoder_of(model), model.name_or_path))
        loading.check(adapter, TASK_OF_MODEL[type(model).__name__], ModelLabels.of(model.config))
        wrapped = cls(model, **loading.wrapping(adapter, Path(directory)))
        wrapped._take(adapter)
        return wrapped

    def _shape(self) -> BaseShape:
        return _shape(self.bert, self._origin)

    def saved_modules(self) -> dict[str, nn.Linear]:
        """The parts that are trained whole, by name inside the model: `classifier`, `pooler.dense`."""
        return self._parts(self.modules_to_save)

    def _parts(self, names: Collection[str]) -> dict[str, nn.Linear]:
        found = {}
        if "classifier" in names and self.task != "embedding":
            found["classifier"] = self.model.classifier
        if "pooler" in names:
            found[POOLER] = self.bert.pooler.dense
        return found


def _shape(encoder: Any, origin: str | None) -> BaseShape:
    return BaseShape.of(encoder.config, has_pooler=brings_pooler(encoder, origin), base_id=model_id(encoder, origin))


def _values(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
