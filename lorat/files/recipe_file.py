"""An embedding recipe, as sentence-transformers keeps it in a model's directory.

`modules.json` and the folders it names; format as of sentence-transformers 6, older ones included.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lorat.errors import AdapterFileError, UnsupportedAdapterError
from lorat.files.json_file import read_json, short
from lorat.files.tensor_file import TensorFile
from lorat.recipe import ACTIVATIONS, POOLING_MODES, Dense, Recipe

_OLD_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


MAX_LENGTH = 1_000_000  # more than any model takes; tokenizers write 10**30 where they know of no limit
MAX_MODULES = 16
MAX_PROMPTS = 1000
_FOLDER = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63})?")
_UNREAD = ("processing_kwargs", "query_length", "document_length", "query_expansion")
_TOKENS = {"method": "forward", "method_output_name": "last_hidden_state"}
_IN_AND_OUT = ("module_input_name", "module_output_name")


def read_recipe(directory: Path, hidden: int | None = None) -> Recipe | None:
    """The recipe in a directory, or None where it has no `modules.json`.

    hidden: size of the base's hidden states, checked against where it is given. Raises AdapterFileError for damaged
    files and UnsupportedAdapterError for modules that are unknown or stand in an order that LoRAT does not compute.
    """
    if not (directory / "modules.json").exists():
        stray = [path.name for path in directory.glob("*_Pooling")]
        if stray:
            raise AdapterFileError(f"{short(stray[0])} is there without modules.json: add it, or leave both out")
        return None
    entries = read_json(directory / "modules.json", list)
    if len(entries) > MAX_MODULES:
        raise UnsupportedAdapterError(f"modules.json names {len(entries)} modules, the limit is {MAX_MODULES}")
    modules = [_module(entry, directory) for entry in entries]
    _check_order([kind for kind, _ in modules])
    fields: dict[str, Any] = {"normalize": False, "dense": (), "hidden": hidden}
    for kind, folder in modules:
        _READERS[kind](folder, fields)
    del fields["hidden"]
    return Recipe(**fields, **_read_prompts(directory))


def _module(entry: Any, directory: Path) -> tuple[str, Path]:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("type", "path")):
        raise AdapterFileError("modules.json must be a list of objects with the texts 'type' and 'path'")
    kind = module_kind(entry)
    if kind not in _READERS:
        raise UnsupportedAdapterError(f"modules.json names the module {short(entry['type'])}, which is not implemented")
    if not _FOLDER.fullmatch(entry["path"]):
        raise AdapterFileError(
            f"modules.json has the path {short(entry['path'])}, outside its directory: name a folder in it"
        )
    return kind, directory / entry["path"]


def module_kind(entry: Mapping[str, Any]) -> str:
    """The class that an entry of `modules.json` names, whatever package it was in."""
    return str(entry["type"]).rsplit(".", 1)[-1]


def _check_order(kinds: list[str]) -> None:
    """[Transformer] Pooling [Dense …] [Normalize]."""
    if "Pooling" not in kinds:
        raise UnsupportedAdapterError("modules.json names no Pooling module: one vector per text needs it")
    order = " ".join(kinds)
    if not re.fullmatch("(Transformer )?Pooling( Dense)*( Normalize)?", order):
        raise UnsupportedAdapterError(
            f"modules.json has the order {order}: implemented are Transformer, Pooling, any number of Dense, Normalize"
        )


def _read_transformer(folder: Path, fields: dict[str, Any]) -> None:
    config = _read_optional(folder / "sentence_bert_config.json")
    tokenizer = _read_optional(folder / "tokenizer_config.json")  # where sentence-transformers 6 keeps the length
    _check_transformer(config, tokenizer)
    length = config.get("max_seq_length")
    if not (length is None or (_is_count(length) and length <= MAX_LENGTH)):
        raise AdapterFileError(f"max_seq_length must be a whole number above 2, up to {MAX_LENGTH}")
    limit = tokenizer.get("model_max_length")
    if isinstance(limit, float) and limit.is_integer():
        limit = int(limit)  # 1e30
    if not (limit is None or _is_count(limit)):
        raise AdapterFileError("model_max_length must be a whole number above 2")
    fields["max_length"] = length or (limit if limit and limit <= MAX_LENGTH else None)
    fields["lower_case"] = _flag(config, "do_lower_case", False, "sentence_bert_config.json")


def _check_transformer(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
    """Raise UnsupportedAdapterError unless the encoder's last hidden states are pooled, of texts cut on the right."""
    computed = {
        "transformer_task": config.get("transformer_task") in (None, "feature-extraction"),
        "module_output_name": config.get("module_output_name") in (None, "token_embeddings"),
        "modality_config": config.get("modality_config") in (None, {"text": _TOKENS}),
        **{name: not config.get(name) for name in _UNREAD},
    }
    if wrong := next((name for name, fits in computed.items() if not fits), None):
        raise UnsupportedAdapterError(f"sentence_bert_config.json: {wrong}={short(config[wrong])} is not implemented")
    if tokenizer.get("truncation_side", "right") != "right":
        raise UnsupportedAdapterError(
            f"tokenizer_config.json: truncation_side={short(tokenizer['truncation_side'])} is not implemented: "
            "texts are cut on the right, or where a request says"
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 2


def _flag(config: Mapping[str, Any], name: str, default: bool, file: str) -> bool:
    value = default if config.get(name) is None else config[name]
    if not isinstance(value, bool):
        raise AdapterFileError(f"{file}: {name} must be true or false")
    return value


def _read_pooling(folder: Path, fields: dict[str, Any]) -> None:
    file = f"{folder.name}/config.json"
    config = read_json(folder / "config.json", dict)
    fields["pooling"] = _pooling_modes(config, file)
    fields["include_prompt"] = _flag(config, "include_prompt", True, file)
    hidden = fields["hidden"]
    for name in ("embedding_dimension", "word_embedding_dimension"):
        if hidden and config.get(name, hidden) != hidden:
            raise AdapterFileError(f"{file}: {name} is {short(config[name])}, the base's hidden size is {hidden}")
    fields["hidden"] = hidden and hidden * len(fields["pooling"])


def _pooling_modes(config: Mapping[str, Any], file: str) -> tuple[str, ...]:
    flags = [name for name in config if name.startswith("pooling_mode_") and _flag(config, name, False, file)]
    old = [mode for name, mode in _OLD_POOLING_KEYS.items() if name in flags]  # in this order, whatever the file's
    modes = config.get("pooling_mode", [*old, *(name for name in flags if name not in _OLD_POOLING_KEYS)])
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
        raise AdapterFileError(f"{file}: pooling_mode must be a text or a list of texts")
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown or not modes:
        wrong = short(unknown[0]) if unknown else "missing"
        raise UnsupportedAdapterError(f"pooling mode {wrong}: use one of {', '.join(POOLING_MODES)}")
    if len(set(modes)) < len(modes):
        raise UnsupportedAdapterError(f"{file}: pooling_mode names a mode twice")
    return tuple(modes)


def _read_normalize(folder: Path, fields: dict[str, Any]) -> None:
    _check_names(_read_optional(folder / "config.json"), f"{folder.name}/config.json")
    fields["normalize"] = True


def _check_names(config: Mapping[str, Any], file: str) -> None:
    for name in _IN_AND_OUT:
        if config.get(name) not in (None, "sentence_embedding"):
            raise UnsupportedAdapterError(f"{file}: {name}={short(config[name])} is not implemented")


def _read_dense(folder: Path, fields: dict[str, Any]) -> None:
    file = f"{folder.name}/config.json"
    config = read_json(folder / "config.json", dict)
    _check_names(config, file)
    name = str(config.get("activation_function", "Tanh")).rsplit(".", 1)[-1]
    if name not in ACTIVATIONS:
        raise UnsupportedAdapterError(f"Dense activation {short(name)}: use one of {', '.join(ACTIVATIONS)}")
    if config.get("use_residual"):
        raise UnsupportedAdapterError("Dense with use_residual is not implemented")
    weight, bias = _dense_tensors(folder)
    height, width = weight.shape
    for field, size in (("in_features", width), ("out_features", height)):
        if config.get(field, size) != size:
            raise AdapterFileError(f"{file}: {field} is {short(config[field])}, the weights have {size}")
    if config.get("bias", bias is not None) is not (bias is not None):
        raise AdapterFileError(f"{file}: bias is {short(config['bias'])}, the weights say otherwise")
    if fields["hidden"] not in (None, width):
        raise AdapterFileError(f"{file}: Dense takes {width} values, what comes before it gives {fields['hidden']}")
    fields["hidden"] = height
    fields["dense"] = (*fields["dense"], Dense(weight, bias, name))


def _dense_tensors(folder: Path) -> tuple[Tensor, Tensor | None]:
    """Weight (out, in) and bias (out,) of a Dense, in float32."""
    file = f"{folder.name}/model.safetensors"
    tensors = TensorFile(folder / "model.safetensors", file)
    names = set(tensors.keys())
    if "linear.weight" not in names or names - {"linear.weight", "linear.bias"}:
        raise AdapterFileError(f"{file} must hold linear.weight and linear.bias only")
    weight, bias = tensors.shape("linear.weight"), tensors.shape("linear.bias") if "linear.bias" in names else None
    if len(weight) != 2 or 0 in weight or bias not in (None, weight[:1]):
        raise AdapterFileError(f"{file}: linear.weight must have the shape [out, in], linear.bias [out]")
    return tensors.read("linear.weight"), None if bias is None else tensors.read("linear.bias")


_READERS = {
    "Transformer": _read_transformer,
    "Pooling": _read_pooling,
    "Normalize": _read_normalize,
    "Dense": _read_dense,
}


def _read_prompts(directory: Path) -> dict[str, Any]:
    path = directory / "config_sentence_transformers.json"
    config = _read_optional(path)
    prompts = config.get("prompts") or {}
    default = config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise AdapterFileError(f"{path.name}: prompts must map names to texts")
    if len(prompts) > MAX_PROMPTS:
        raise AdapterFileError(f"{path.name}: it has {len(prompts)} prompts, the limit is {MAX_PROMPTS}")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise AdapterFileError(f"{path.name}: default_prompt_name {short(default)} is not among its prompts")
    return {"prompts": prompts, "default_prompt_name": default}


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path, dict) if path.exists() else {}
