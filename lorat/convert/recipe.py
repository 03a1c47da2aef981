"""Copy the embedding recipe of a sentence-transformers directory into an adapter's."""

import json
import shutil
from pathlib import Path

from lorat.files.json_file import read_json
from lorat.files.recipe_file import module_kind

_BESIDE_TRANSFORMER = ("sentence_bert_config.json", "tokenizer_config.json")
_IN_FOLDER = ("config.json", "model.safetensors")


def copy_recipe(source: Path, target: Path) -> None:
    """Copy the files that `lorat.files.recipe_file.read_recipe` reads, and no weights of the transformer.

    The transformer's own files go to the top, where an adapter has them, whatever folder they were in. The source
    must be one that `read_recipe` accepts.
    """
    modules = read_json(source / "modules.json", list)
    for module in modules:
        folder = source / module["path"]
        if module_kind(module) == "Transformer":
            _copy(folder, target, _BESIDE_TRANSFORMER)
            module["path"] = ""
        else:
            _copy(folder, target / module["path"], _IN_FOLDER)
    _copy(source, target, ("config_sentence_transformers.json",))
    (target / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (source / name).is_file():
            target.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target / name)
