"""An embedding recipe, as sentence-transformers keeps it in a model's directory.

`modules.json` and the folders it names; format as of sentence-transformers 6, older ones included.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from lorat.errors import AdapterFileError, UnsupportedAdapterError
from lorat.files.json_file import read_json
from lorat.recipe import ACTIVATIONS, POOLING_MODES, Dense, Recipe

_OLD_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_recipe(directory: Path) -> Recipe | None:
    """The recipe in a directory, or None where it has no `modules.json`.

    Raises AdapterFileError for damaged files and UnsupportedAdapterError for modules that are unknown
    or stand in an order that LoRAT does not compute.
    """
    if not (directory / "modules.json").exists():
        stray = [path.name for path in directory.glob("*_Pooling")]
        if stray:
            raise AdapterFileError(f"{stray[0]} is there without modules.json: add it, or leave both out")
        return None
    modules = read_json(directory / "modules.json", list)
    fields: dict[str, Any] = {"normalize": False, "dense": ()}
    for kind, folder in (_module(entry, directory) for entry in modules):
        _READERS[kind](folder, fields)
    if "pooling" not in fields:
        raise UnsupportedAdapterError("modules.json names no Pooling module: one vector per text needs it")
    return Recipe(**fields, **_read_prompts(directory))


def _module(entry: Any, directory: Path) -> tuple[str, Path]:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("type", "path")):
        raise AdapterFileError("modules.json must be a list of objects with the texts 'type' and 'path'")
    kind = entry["type"].rsplit(".", 1)[-1]
    if kind not in _READERS:
        raise UnsupportedAdapterError(f"modules.json names the module {entry['type']!r}, which is not implemented")
    folder = directory / entry["path"]
    if not folder.resolve().is_relative_to(directory.resolve()):
        raise AdapterFileError(f"modules.json has the path {entry['path']!r}, outside its directory")
    return kind, folder


def _read_transformer(folder: Path, fields: dict[str, Any]) -> None:
    config = _read_optional(folder / "sentence_bert_config.json")
    tokenizer = _read_optional(folder / "tokenizer_config.json")  # where sentence-transformers 6 keeps the length
    length = config.get("max_seq_length") or tokenizer.get("model_max_length")
    if not (length is None or _is_count(length)):
        raise AdapterFileError("max_seq_length and model_max_length must be whole numbers above 2")
    fields["max_length"] = length
    fields["lower_case"] = bool(config.get("do_lower_case", False))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 2


def _read_pooling(folder: Path, fields: dict[str, Any]) -> None:
    config = read_json(folder / "config.json", dict)
    modes = config.get("pooling_mode", [mode for key, mode in _OLD_POOLING_KEYS.items() if config.get(key)])
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown or not modes:
        raise UnsupportedAdapterError(f"pooling mode {unknown or 'missing'}: use one of {', '.join(POOLING_MODES)}")
    fields["pooling"] = modes
    fields["include_prompt"] = bool(config.get("include_prompt", True))


def _read_normalize(folder: Path, fields: dict[str, Any]) -> None:
    fields["normalize"] = True


def _read_dense(folder: Path, fields: dict[str, Any]) -> None:
    if fields["normalize"] or "pooling" not in fields:
        raise UnsupportedAdapterError("modules.json: Dense must stand after Pooling and before Normalize")
    config = read_json(folder / "config.json", dict)
    name = str(config.get("activation_function", "Tanh")).rsplit(".", 1)[-1]
    if name not in ACTIVATIONS:
        raise UnsupportedAdapterError(f"Dense activation {name!r}: use one of {', '.join(ACTIVATIONS)}")
    if config.get("use_residual"):
        raise UnsupportedAdapterError("Dense with use_residual is not implemented")
    try:
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise AdapterFileError(f"{folder.name}/model.safetensors cannot be read: {error}") from error
    if "linear.weight" not in tensors or set(tensors) - {"linear.weight", "linear.bias"}:
        raise AdapterFileError(f"{folder.name}/model.safetensors must hold linear.weight and linear.bias only")
    fields["dense"] = (*fields["dense"], Dense(tensors["linear.weight"], tensors.get("linear.bias"), name))


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
    if default is not None and default not in prompts:
        raise AdapterFileError(f"{path.name}: default_prompt_name {default!r} is not among its prompts")
    return {"prompts": prompts, "default_prompt_name": default}


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path, dict) if path.exists() else {}
