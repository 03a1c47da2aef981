"""An adapter's directory: read it with every check, write it so that PEFT opens it.

    adapter_config.json         PEFT's config (format as of peft 0.21)
    adapter_model.safetensors   `base_model.model.[bert.]encoder.layer.N.….lora_{A,B}.weight`, heads
    lorat.json                  what PEFT has no place for: task, labels, base id, description, tags
    modules.json …              the embedding recipe, as sentence-transformers keeps it

Nothing in it is ever run. Each tensor must have its place and each place its tensor: what cannot be
honoured is refused by name.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from lorat.adapter import Adapter, Head, Linear, LoRA, Task, check_base
from lorat.config import MAX_RANK
from lorat.errors import AdapterError, AdapterFileError, ConfigError, UnsupportedAdapterError
from lorat.files.adapter_weights import WEIGHTS, AdapterWeights
from lorat.files.facts import FACTS, MAX_LABELS, probes_of, read_facts
from lorat.files.json_file import read_json, short
from lorat.files.model_labels import MULTI_LABEL, default_labels, labels_of
from lorat.files.out import writing
from lorat.files.peft_config import TASK_TYPES, PeftConfig, parse_peft_config
from lorat.files.recipe_file import read_recipe
from lorat.targets import POOLER, BaseShape, Site

CONFIG = "adapter_config.json"


def read_adapter(directory: str | Path, base: BaseShape, *, max_rank: int = MAX_RANK) -> Adapter:
    """The adapter in a directory, checked against the base it is to run on.

    Raises AdapterFileError (damaged or contradictory), UnsupportedAdapterError (arithmetic that is not
    implemented) or BaseMismatchError (made for another base), each naming the file and the field.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise AdapterFileError(f"{directory} is no directory: name an adapter's")
    config = parse_peft_config(read_json(directory / CONFIG, dict))
    facts = read_facts(directory)
    check_base(facts.get("base_id"), base)
    weights = AdapterWeights(directory / WEIGHTS)
    task = _task(config, facts, weights)
    lora = _read_lora(weights, config, base, max_rank)
    pooler_lora = lora.pop(POOLER, None)
    head = None if task == "embedding" else _read_head(weights, directory, facts, base, task, pooler_lora)
    weights.refuse_leftovers()
    if head is None and facts.get("labels"):
        raise AdapterFileError("lorat.json: labels are given, and the adapter has no classifier: leave them out")
    return Adapter(
        task=task,
        lora={Site.parse(module): matrices for module, matrices in lora.items()},
        rank=config.r,
        alpha=config.lora_alpha,
        head=head,
        recipe=read_recipe(directory, base.hidden),
        base_id=facts.get("base_id"),
        description=facts.get("description"),
        tags=tuple(facts.get("tags", ())),
        probes=probes_of(facts),
    )


def _read_lora(weights: AdapterWeights, config: PeftConfig, base: BaseShape, max_rank: int) -> dict[str, LoRA]:
    prefix = "bert." if weights.wrapped else ""
    if config.r > max_rank:  # also where rank_pattern says otherwise at each layer
        raise AdapterFileError(f"adapter_config.json: rank {short(config.r)} is over the limit of {max_rank}")
    modules = [module for module in base.module_names() if config.adapts(prefix + module)]
    if POOLER in modules and not _saved_with_pooler(weights):
        modules.remove(POOLER)  # a token classifier of PEFT's is built without a pooler
    if not modules:
        raise AdapterFileError(
            f"adapter_config.json: target_modules={short(config.target_modules)} matches no linear layer of the base"
        )
    return {module: _take_lora(weights, config, module, prefix, base, max_rank) for module in modules}


def _saved_with_pooler(weights: AdapterWeights) -> bool:
    return f"{POOLER}.lora_A.weight" in weights or f"{POOLER}.lora_B.weight" in weights


def _take_lora(
    weights: AdapterWeights, config: PeftConfig, module: str, prefix: str, base: BaseShape, max_rank: int
) -> LoRA:
    rank = config.rank_of(prefix + module)
    if rank > max_rank:
        raise AdapterFileError(f"adapter_config.json: rank {short(rank)} at {module} is over the limit of {max_rank}")
    width, height = (base.hidden,) * 2 if module == POOLER else base.linear_shape(Site.parse(module).target)
    return LoRA(
        a=weights.take(f"{module}.lora_A.weight", (rank, width)),
        b=weights.take(f"{module}.lora_B.weight", (height, rank)),
        scaling=config.scaling_of(prefix + module),
        bias=weights.take(f"{module}.base_layer.bias", (height,)) if config.bias == "lora_only" else None,
    )


def _read_head(
    weights: AdapterWeights,
    directory: Path,
    facts: Mapping[str, Any],
    base: BaseShape,
    task: Task,
    pooler_lora: LoRA | None,
) -> Head:
    if "classifier.weight" not in weights:
        raise AdapterFileError(
            f"{WEIGHTS} lacks 'classifier.weight', the head of a {task} adapter: "
            "train with modules_to_save=['classifier']"
        )
    count = weights.shape("classifier.weight")[0]
    if not 1 <= count <= MAX_LABELS:
        raise AdapterFileError(f"{WEIGHTS}: the classifier has {count} labels: 1 to {MAX_LABELS} are served")
    classifier = _take_linear(weights, "classifier", count, base.hidden)
    pooler = _take_linear(weights, POOLER, base.hidden, base.hidden) if f"{POOLER}.weight" in weights else None
    if task == "sequence_classification" and pooler is None and not base.has_pooler:
        raise AdapterFileError(
            "the base has no pooler and the adapter brings none, so its classifier would read a random one: "
            "train with modules_to_save=['classifier', 'pooler']"
        )
    model_config = _read_model_config(directory)
    labels = facts["labels"] if "labels" in facts else labels_of(model_config)
    if labels is None:
        labels = default_labels(count)
    if len(labels) != count or len(set(labels)) != count:
        raise AdapterFileError(f"{len(labels)} labels are given and the classifier has {count}: name each once")
    if "labels" not in facts and model_config.get("problem_type") == "regression":
        raise UnsupportedAdapterError("config.json: problem_type is 'regression': served heads score labels")
    multi_label = facts.get("multi_label", model_config.get("problem_type") == MULTI_LABEL)
    return Head(classifier, tuple(labels), multi_label, pooler, pooler_lora)


def _take_linear(weights: AdapterWeights, name: str, height: int, width: int) -> Linear:
    return Linear(weights.take(f"{name}.weight", (height, width)), weights.take(f"{name}.bias", (height,)))


def _read_model_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    return read_json(path, dict) if path.exists() else {}


def _task(config: PeftConfig, facts: Mapping[str, Any], weights: AdapterWeights) -> Task:
    if config.task_type is not None and config.task_type not in TASK_TYPES:
        raise UnsupportedAdapterError(
            f"adapter_config.json: task_type={short(config.task_type)}: use SEQ_CLS, TOKEN_CLS or FEATURE_EXTRACTION"
        )
    declared, stated = facts.get("task"), TASK_TYPES.get(config.task_type or "")
    if declared and stated and declared != stated:
        raise AdapterFileError(f"lorat.json says the task is {declared}, adapter_config.json says {stated}")
    task: Task | None = declared or stated
    if task is None and "classifier.weight" in weights:
        raise AdapterFileError(
            f"{WEIGHTS} holds a classifier, and adapter_config.json has no task_type: set SEQ_CLS or TOKEN_CLS"
        )
    return task or "embedding"


def write_adapter(
    directory: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write PEFT's two files and `lorat.json`. `tensors` are named as PEFT names them."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, directory / WEIGHTS)
    (directory / WEIGHTS).chmod(0o644)  # safetensors writes it for its owner alone
    for name, value in ((CONFIG, config), (FACTS, facts)):
        (directory / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_adapter(
    directory: str | Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    base: BaseShape,
) -> None:
    """As `write_adapter`, but only what `read_adapter` takes, and each file whole.

    Raises ConfigError for what it refuses, for a directory with the embedding recipe of another adapter, and where it
    cannot be written; what was there stays then.
    """
    directory = Path(directory)
    if (directory / "modules.json").exists():
        raise ConfigError(f"{directory} has the embedding recipe of another adapter (modules.json): give a new one")
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=directory) as scratch:
            write_adapter(scratch, config, tensors, facts)
            try:
                read_adapter(scratch, base)
            except AdapterError as error:
                raise ConfigError(f"{error}: it is not saved") from error
            for name in (WEIGHTS, CONFIG, FACTS):
                os.replace(Path(scratch) / name, directory / name)
